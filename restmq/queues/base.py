"""What all operations on queues share: how a script is called, and how messages come back from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger

from restmq.errors import InvalidInput, RestMQError, StoreRefused
from restmq.model import Message, check_queue_name
from restmq.store import keys, scripts
from restmq.store.connection import Encoded
from restmq.store.pool import Store

log = Logger()

_AGAIN = 1
PROMOTE_FIRST = 2


@lru_cache(maxsize=8192)
def _first_arguments(script: str, queue: str, db: int) -> Encoded:
    """What a script of a queue is given first: the number of its keys, the keys, the queue's name, Redis' own clock."""
    found = keys.for_queue(check_queue_name(queue), db)
    wanted = [getattr(found, name) for name in scripts.load(script).keys]
    return Encoded([len(wanted), *wanted, queue, ""])


def messages(columns: Sequence[Any]) -> list[Message]:
    """Messages from the columns in which scripts return them: see ``as_columns`` in ``queues/lua/_ready.lua``."""
    if not columns:
        return []
    keys, values, counts, expiries, receipts, records = columns
    if not (counts or expiries or receipts or records):
        return [Message(key.decode(), value) for key, value in zip(keys, values, strict=True)]
    return [
        Message(key.decode(), value, int(count), int(expires_ms), receipt.decode(), record)
        for key, value, count, expires_ms, receipt, record in zip(
            keys,
            values,
            counts or repeat(0),
            expiries or repeat(0),
            receipts or repeat(b""),
            records or repeat(b""),
            strict=False,
        )
    ]


class Operations:
    """Calls scripts on one Redis.

    Args:
        now_ms: a clock in ms since 1970 for all that is said in times, instead of Redis' own.
    """

    def __init__(self, store: Store, now_ms: Callable[[], int] | None = None) -> None:
        self.store = store
        self._now_ms = now_ms

    def _clock(self) -> int | str:
        return self._now_ms() if self._now_ms else ""

    def _run(self, script: str, queue: str, *args: Any, more_keys: Sequence[bytes] = ()) -> defer.Deferred[Any]:
        db = self.store.settings.db
        if self._now_ms is None and not more_keys:
            first = _first_arguments(script, queue, db)
        else:
            found = keys.for_queue(check_queue_name(queue), db)
            wanted = [*(getattr(found, name) for name in scripts.load(script).keys), *more_keys]
            first = Encoded([len(wanted), *wanted, queue, self._clock()])
        return self.store.run(scripts.load(script), first, *args)

    async def _run_promoted(self, script: str, queue: str, *args: Any) -> list[Any]:
        """A script that says when what is due must come up first, or when it stopped at its own bound."""
        return (await self._run_to_bound(script, queue, *args))[0]

    async def _run_to_bound(self, script: str, queue: str, *args: Any) -> tuple[list[Any], bool]:
        """The same; and whether there may be more, as it stopped at its own bound."""
        while True:
            answer: list[Any] = await self._run(script, queue, *args)
            state, found = answer[0], answer[1:]
            if state == PROMOTE_FIRST:
                await self.queue_promote(queue)
            elif state != _AGAIN or found:
                return found, state == _AGAIN

    async def _share_out(
        self, askers: int, ask: Callable[[int], Awaitable[tuple[list[Any], bool]]]
    ) -> list[Message | Exception | None]:
        """A message for each asker, the oldest to the one who asked first; None where there are no more.

        What came reaches its asker also where asking for the rest fails.

        Args:
            ask: asks for up to so many; see ``_run_to_bound``.
        """
        shares: list[Message | Exception | None] = []
        more, rest = True, None
        while more and len(shares) < askers:  # a call brings fewer than there are where they are large
            try:
                found, more = await ask(askers - len(shares))
            except RestMQError as problem:
                if not shares:
                    raise
                more, rest = False, problem
            else:
                shares += messages(found)
        return shares + [rest] * (askers - len(shares))

    async def queue_promote(self, queue: str) -> None:
        """Brings up what is due: leases that are over, to the front or the dead letters; delayed ones, to the end."""
        more: Any = 1
        while more:
            more, dead_letter = await self._run("promote", queue)
        await self._forward(queue, dead_letter)

    async def _forward(self, queue: str, dead_letter: bytes) -> None:
        """Moves dead letters to the queue named for them, if one is; what is cut off here is done by the next call.

        If that queue can't take them, they stay and are tried again later (``queues/lua/_due.lua`` says when): what the
        caller did with its own queue is done.
        """
        if not dead_letter:
            return
        left: Any = 1
        other = dead_letter.decode()
        there = keys.for_queue(other)
        more_keys = (there.queue_set, there.number, there.ready, there.expiring, there.deliveries, there.times)
        try:
            while left:
                left = await self._run("forward", queue, other, more_keys=more_keys)
                await self._run("wake", other)
        except (StoreRefused, InvalidInput) as problem:
            log.warn(
                "dead letters of {queue} can't go to {other}, and stay: {problem}",
                queue=queue,
                other=other,
                problem=problem,
            )
