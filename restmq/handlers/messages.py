"""Single messages and dead letters: ``/m/<key>``, ``/d/<queue>``."""

from __future__ import annotations

from restmq.auth import guard
from restmq.errors import InvalidInput, NotFound
from restmq.handlers import parameters
from restmq.handlers.base import Handler
from restmq.handlers.declare import Answer, answers_json, declare
from restmq.model import queue_of
from restmq.schema.answers import KEY, NUMBER, QUEUE, WHOLE, array, obj, ref

DEAD_LETTERS_SHOWN = 100


class MessageHandler(Handler):
    """``/m/<key>``: peek at one message, ack it, extend its lease, nack it."""

    requires = {"GET": guard.CONSUME, "POST": guard.CONSUME, "DELETE": guard.CONSUME}

    def read_path(self, name: str) -> None:
        self.key, self.queue = name, queue_of(name)

    @declare(
        query=(parameters.JSONP_CALLBACK,),
        answers={200: answers_json("The message and its state.", ref("FoundMessage"))},
        errors=(404,),
    )
    async def get(self) -> None:
        """Peeks at the message in any state, and changes nothing."""
        found = await self.services.core.queue_find(self.key)
        if found is None:
            raise NotFound("there is no such message: it never existed, was taken or acked, or expired.")
        await self.answer_long_json({"queue": self.queue, **found.fields()}, b"\r\n")

    @declare(
        form=(
            parameters.LEASE_RECEIPT,
            parameters.NEW_LEASE,
            parameters.NACK_DELAY,
            parameters.NACK_REASON,
            parameters.JSONP_CALLBACK,
        ),
        strict=True,
        answers={200: answers_json("Done.", obj(queue=QUEUE, key=KEY, lease=NUMBER))},
        errors=(410,),
    )
    async def post(self) -> None:
        """Extends the lease; with ``lease=0`` nacks: the message returns to the queue, at once or after ``delay``."""
        given, lease_ms = self.parameters, self.lease_ms
        if not lease_ms:
            delay_ms = None if given["delay"] is None else round(given["delay"] * 1000)
            await self.services.core.queue_nack(self.key, given["receipt"], delay_ms, given["reason"] or "")
        elif given["delay"] is None and given["reason"] is None:
            await self.services.core.queue_extend(self.key, given["receipt"], lease_ms)
        else:
            raise InvalidInput("'delay' and 'reason' are for a nack; send 'lease=0' with them.")
        self.answer_json({"queue": self.queue, "key": self.key, "lease": given["lease"]}, b"\r\n")

    @declare(query=(parameters.LEASE_RECEIPT,), strict=True, answers={204: Answer("Done.")}, errors=(410,))
    async def delete(self) -> None:
        """Acks the message, which deletes it."""
        await self.services.core.queue_ack(self.key, self.parameters["receipt"])
        self.answer(b"", None, status=204)


class DeadLettersHandler(Handler):
    """``/d/<queue>``: peek at dead letters, redrive or drop them, either all or the one that ``key`` names."""

    requires = {"GET": guard.CONSUME, "POST": guard.CONFIGURE, "DELETE": guard.PURGE}

    @declare(
        query=(parameters.FIRST, parameters.COUNT, parameters.JSONP_CALLBACK),
        answers={
            200: answers_json(
                "Dead letters, and their total number.",
                obj(queue=QUEUE, dead=WHOLE, messages=array(ref("FoundMessage"))),
            )
        },
    )
    async def get(self) -> None:
        """Peeks at the dead letters, the earliest death first: up to ``count`` of them after the ``first`` ones."""
        first, count = self.parameters["first"] or 0, self.parameters["count"] or DEAD_LETTERS_SHOWN
        total, letters = await self.services.core.queue_list_dead(self.queue_name, first, count)
        shown = [letter.fields() for letter in letters]
        await self.answer_long_json({"queue": self.queue, "dead": total, "messages": shown}, b"\r\n")

    @declare(
        form=(parameters.DEAD_LETTER_KEY, parameters.REDRIVE_TO, parameters.JSONP_CALLBACK),
        strict=True,
        answers={200: answers_json("The number redriven.", obj(queue=QUEUE, redriven=WHOLE))},
        errors=(404,),
    )
    async def post(self) -> None:
        """Redrives the dead letters: they return to the end of the queue, or of another one, as if never delivered."""
        key, to = self._key(), self.parameters["to"] or ""
        if to:
            await self.services.guard.check(self.credentials, guard.PRODUCE, to)
        redriven = await self.services.core.queue_redrive(self.queue_name, key, to)
        self.answer_json({"queue": self.queue, "redriven": redriven}, b"\r\n")

    @declare(
        query=(parameters.DEAD_LETTER_KEY, parameters.JSONP_CALLBACK),
        strict=True,
        answers={200: answers_json("The number dropped.", obj(queue=QUEUE, dropped=WHOLE))},
        errors=(404,),
    )
    async def delete(self) -> None:
        """Deletes the dead letters."""
        dropped = await self.services.core.queue_drop_dead(self.queue_name, self._key())
        self.answer_json({"queue": self.queue, "dropped": dropped}, b"\r\n")

    def _key(self) -> str:
        key: str = self.parameters["key"] or ""
        if key and queue_of(key) != self.queue_name:
            raise InvalidInput("'key' names a message of another queue; send a key of this one.")
        return key
