"""Single messages and dead letters: ``/m/<key>``, ``/d/<queue>``."""

from __future__ import annotations

from restmq.auth import guard
from restmq.errors import InvalidInput, NotFound
from restmq.handlers.base import Handler
from restmq.handlers.declare import Answer, answers_json, declare
from restmq.handlers.parameters import CALLBACK, COUNT, FIRST, LEASE_ANEW, LETTER, RECEIPT
from restmq.model import queue_of
from restmq.schema.answers import KEY, NUMBER, QUEUE, WHOLE, array, obj, ref

DEAD_LETTERS_SHOWN = 100


class MessageHandler(Handler):
    """One message: look at it, ack it, keep it longer, give it back."""

    requires = {"GET": guard.CONSUME, "POST": guard.CONSUME, "DELETE": guard.CONSUME}

    def read_path(self, name: str) -> None:
        self.key, self.queue = name, queue_of(name)

    @declare(
        query=(CALLBACK,),
        answers={200: answers_json("The message, and where it is.", ref("FoundMessage"))},
        errors=(404,),
    )
    async def get(self) -> None:
        """Looks at the message, wherever it is, without touching it."""
        found = await self.application.core.queue_find(self.key)
        if found is None:
            raise NotFound("there is no such message: it never was, was taken, was acked, or has expired.")
        self.answer_json({"queue": self.queue, **found.fields()}, b"\r\n")

    @declare(
        form=(RECEIPT, LEASE_ANEW, CALLBACK),
        answers={200: answers_json("It is done.", obj(queue=QUEUE, key=KEY, lease=NUMBER))},
        errors=(410,),
    )
    async def post(self) -> None:
        """Extends the lease, or with ``lease=0`` gives the message back at once."""
        receipt, lease_ms = self.given["receipt"], self.lease_ms
        if lease_ms:
            await self.application.core.queue_extend(self.key, receipt, lease_ms)
        else:
            await self.application.core.queue_nack(self.key, receipt)
        self.answer_json({"queue": self.queue, "key": self.key, "lease": self.given["lease"]}, b"\r\n")

    @declare(query=(RECEIPT,), answers={204: Answer("It is done.")}, errors=(410,))
    async def delete(self) -> None:
        """Acks the message, which then leaves for good."""
        await self.application.core.queue_ack(self.key, self.given["receipt"])
        self.answer(b"", None, status=204)


class DeadLettersHandler(Handler):
    """A queue's dead letters: look, move back, drop; all, or the one that ``key`` names."""

    requires = {"GET": guard.CONSUME, "POST": guard.CONFIGURE, "DELETE": guard.PURGE}

    @declare(
        query=(FIRST, COUNT, CALLBACK),
        answers={
            200: answers_json(
                "Some of them, and how many there are in all.",
                obj(queue=QUEUE, dead=WHOLE, messages=array(ref("FoundMessage"))),
            )
        },
    )
    async def get(self) -> None:
        """Looks at the dead letters, those that died first coming first: ``count`` of them after the ``first`` ones."""
        first, count = self.given["first"] or 0, self.given["count"] or DEAD_LETTERS_SHOWN
        letters = await self.application.core.queue_list_dead(self.queue_name, first, count)
        shown = [letter.fields() for letter in letters.messages]
        self.answer_json({"queue": self.queue, "dead": letters.count, "messages": shown}, b"\r\n")

    @declare(
        form=(LETTER, CALLBACK),
        answers={200: answers_json("How many did.", obj(queue=QUEUE, redriven=WHOLE))},
        errors=(404,),
    )
    async def post(self) -> None:
        """Redrives the dead letters: they go back to the end of the queue, as if never delivered."""
        key = self._key()
        redriven = await self.application.core.queue_redrive(self.queue_name, key)
        self.answer_json({"queue": self.queue, "redriven": redriven}, b"\r\n")

    @declare(
        query=(LETTER, CALLBACK),
        answers={200: answers_json("How many.", obj(queue=QUEUE, dropped=WHOLE))},
        errors=(404,),
    )
    async def delete(self) -> None:
        """Drops the dead letters for good."""
        dropped = await self.application.core.queue_drop_dead(self.queue_name, self._key())
        self.answer_json({"queue": self.queue, "dropped": dropped}, b"\r\n")

    def _key(self) -> str:
        key: str = self.given["key"] or ""
        if key and queue_of(key) != self.queue_name:
            raise InvalidInput("'key' names a message of another queue.")
        return key
