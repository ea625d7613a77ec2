"""Single messages and dead letters: ``/m/<key>``, ``/d/<queue>``."""

from __future__ import annotations

from restmq import access
from restmq.errors import InvalidInput, NotFound
from restmq.handlers.base import Handler
from restmq.model import BATCH_MAX, queue_of

DEAD_LETTERS_SHOWN = 100


class MessageHandler(Handler):
    """One message: look at it, ack it, keep it longer, give it back."""

    access = {"GET": access.CONSUME, "POST": access.CONSUME, "DELETE": access.CONSUME}

    def read_path(self, name: str) -> None:
        self.key, self.queue = name, queue_of(name)

    async def get(self) -> None:
        """Looks at the message, wherever it is, without touching it."""
        found = await self.application.core.queue_find(self.key)
        if found is None:
            raise NotFound("there is no such message: it never was, was taken, was acked, or has expired.")
        self.answer_json({"queue": self.queue, **found.fields()}, b"\r\n")

    async def post(self) -> None:
        """Extends the lease, or with ``lease=0`` gives the message back at once."""
        receipt = self._receipt()
        lease_ms = self.lease_argument(least_seconds=0)
        if lease_ms is None:
            raise InvalidInput("send 'lease': for how many seconds from now, or 0 to give the message back.")
        self.callback()
        if lease_ms:
            await self.application.core.queue_extend(self.key, receipt, lease_ms)
        else:
            await self.application.core.queue_nack(self.key, receipt)
        self.answer_json({"queue": self.queue, "key": self.key, "lease": lease_ms / 1000}, b"\r\n")

    async def delete(self) -> None:
        """Acks the message, which then leaves for good."""
        await self.application.core.queue_ack(self.key, self._receipt())
        self.answer(b"", None, status=204)

    def _receipt(self) -> str:
        receipt = self.text_argument("receipt")
        if not receipt:
            raise InvalidInput("send 'receipt', as it came with the leased message.")
        return receipt


class DeadLettersHandler(Handler):
    """A queue's dead letters: look, move back, drop; all, or the one that ``key`` names."""

    access = {"GET": access.CONSUME, "POST": access.CONFIGURE, "DELETE": access.PURGE}

    async def get(self) -> None:
        """Looks at them, those that died first coming first; ``first`` passes over so many, ``count`` limits."""
        first = self.whole_argument("first", 0, 10**12) or 0
        count = self.whole_argument("count", 1, BATCH_MAX) or DEAD_LETTERS_SHOWN
        letters = await self.application.core.queue_dead(self.queue_name, first, count)
        shown = [letter.fields() for letter in letters.messages]
        self.answer_json({"queue": self.queue, "dead": letters.count, "messages": shown}, b"\r\n")

    async def post(self) -> None:
        """Redrive: they go back to the end of the queue, as if never delivered."""
        key = self._key()
        self.callback()
        redriven = await self.application.core.queue_redrive(self.queue_name, key)
        self.answer_json({"queue": self.queue, "redriven": redriven}, b"\r\n")

    async def delete(self) -> None:
        """Drops them for good."""
        dropped = await self.application.core.queue_drop_dead(self.queue_name, self._key())
        self.answer_json({"queue": self.queue, "dropped": dropped}, b"\r\n")

    def _key(self) -> str:
        key = self.text_argument("key") or ""
        if key and queue_of(key) != self.queue_name:
            raise InvalidInput("'key' names a message of another queue.")
        return key
