"""The base of all operations on queues: calls scripts, and reads messages from their answers."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger

from restmq.errors import InvalidInput, RestMQError, StoreRefused, StoreUnavailable
from restmq.model import Message, check_queue_name, may_be_fifo
from restmq.store import scripts
from restmq.store.base import BaseStore
from restmq.store.connection import Encoded, script_arguments
from restmq.store.keys import Layout
from restmq.store.scripts import Script

log = Logger()


class State(enum.IntEnum):
    """The outcome of a script; ``lua/_prelude.lua`` has the same numbers."""

    DONE = 0
    #: It stopped at one of its own limits: call it again.
    MORE = 1
    #: It did nothing: first call ``queue_promote``.
    PROMOTE_FIRST = 2
    #: Messages wait until all daemons have confirmed what was published before (``lua/_flow.lua``).
    HELD_BACK = 3


def queue_arguments(
    layout: Layout, name: str, queue: str, clock: int | str = "", more_keys: Sequence[bytes] = (), of_taps: bool = False
) -> tuple[Script, Encoded]:
    """A queue's script, and its first arguments: number of keys, the keys, the queue's stored name, the clock."""
    script = scripts.load(name, layout.is_partitioned, may_be_fifo(check_queue_name(queue)), layout.db, of_taps)
    return script, script_arguments(layout, layout.tag(queue), more_keys, layout.stored(queue), clock)


_cached_arguments = lru_cache(maxsize=8192)(queue_arguments)


def rows(flat: Iterable[Any], width: int) -> Iterable[tuple[Any, ...]]:
    """The rows of a table that a script returns as one flat list."""
    return zip(*[iter(flat)] * width, strict=True)


def _messages(flat: Sequence[Any], tag_bytes: int) -> list[Message]:
    """Messages from the flat list in which scripts return them: see ``append_messages`` in ``lua/_columns.lua``."""
    if not flat:
        return []
    kinds, size = flat[0], (len(flat) - 1) // (2 + flat[0].bit_count())
    columns = (flat[start : start + size] for start in range(1, len(flat), size))
    keys, values = next(columns), next(columns)
    if tag_bytes:
        keys = [key[tag_bytes:] for key in keys]
    if not kinds:
        return [Message(key.decode(), value) for key, value in zip(keys, values, strict=True)]
    defaults = (1, 1 if kinds & 4 else 0), (2, 0), (4, b""), (8, b"")
    counts, expiries, receipts, records = (
        next(columns) if kinds & kind else repeat(default) for kind, default in defaults
    )
    return [
        Message(
            key.decode(),
            value,
            count=int(count or 0),
            expires_ms=expires_ms,
            receipt=receipt.decode(),
            record=record or b"",
        )
        for key, value, count, expires_ms, receipt, record in zip(
            keys, values, counts, expiries, receipts, records, strict=False
        )
    ]


class Operations:
    """Calls scripts on one Redis.

    Args:
        now_ms: a clock in ms since 1970, in place of Redis' own.
    """

    #: Seconds after which queues without the setting ``expires`` are removed if they are not used; 0 for never.
    expires_seconds = 0

    def __init__(self, store: BaseStore, now_ms: Callable[[], int] | None = None) -> None:
        self.store = store
        self.layout = store.layout
        self._now_ms = now_ms

    def _clock(self) -> int | str:
        return self._now_ms() if self._now_ms else ""

    def _run(self, script: str, queue: str, *args: Any, more_keys: Sequence[bytes] = ()) -> defer.Deferred[Any]:
        if self._now_ms is None and not more_keys:
            loaded, first = _cached_arguments(self.layout, script, queue)
        else:
            loaded, first = queue_arguments(self.layout, script, queue, self._clock(), more_keys)
        return self.store.run(loaded, first, *args)

    def run_on(self, script: str, names: list[bytes], *args: Any) -> defer.Deferred[Any]:
        """Runs a script that is not of one queue, on these keys of one partition."""
        loaded = scripts.load(script, self.layout.is_partitioned)
        tag = self.layout.tags[self.layout.partition_of(names[0])]
        return self.store.run(loaded, script_arguments(self.layout, tag, names), *args)

    def run_on_queues(self, script: str, queues: Sequence[str], *args: Any) -> defer.Deferred[Any]:
        """Runs a script with a loop over queues of one partition, whose names are valid."""
        loaded = scripts.load(script, self.layout.is_partitioned, db=self.layout.db)
        tag = self.layout.tag(queues[0])
        names = [tag + name.encode() for name in queues]
        return self.store.run(loaded, script_arguments(self.layout, tag, ()), *args, *names)

    def _messages(self, queue: str, flat: Sequence[Any]) -> list[Message]:
        """Messages from the answer of a script."""
        return _messages(flat, len(self.layout.tag(queue)))

    def _shown(self, queue: str, stored: Iterable[bytes]) -> list[str]:
        """The keys that clients know, of these messages of one queue."""
        tag_bytes = len(self.layout.tag(queue))
        return [key[tag_bytes:].decode() for key in stored] if tag_bytes else [key.decode() for key in stored]

    def by_partition(self, queues: Sequence[str]) -> dict[int, list[str]]:
        """Queues, whose names are valid, by their partition."""
        if not self.layout.is_partitioned:
            return {0: list(queues)} if queues else {}
        found: dict[int, list[str]] = {}
        for queue in queues:
            partition = self.layout.partition_of(self.layout.tag(queue))
            found.setdefault(partition, []).append(queue)
        return found

    async def _run_promoted(self, script: str, queue: str, *args: Any) -> list[Any]:
        """Runs a script that returns a State first until it has an answer: promotes if it asks for that."""
        return (await self._run_to_limit(script, queue, *args))[0]

    async def _run_to_limit(self, script: str, queue: str, *args: Any) -> tuple[list[Any], bool]:
        """As ``_run_promoted``. Also returns whether there may be more, because the script stopped at its limit."""
        while True:
            answer: list[Any] = await self._run(script, queue, *args)
            state, found = answer[0], answer[1:]
            if state == State.PROMOTE_FIRST:
                await self.queue_promote(queue)
            elif state != State.MORE or found:
                return found, state == State.MORE

    async def _share_out(
        self, queue: str, askers: int, ask: Callable[[int], Awaitable[tuple[list[Any], bool]]]
    ) -> list[Message | Exception | None]:
        """A message for each asker, the oldest for the first asker; None where there are no more messages.

        Messages that arrived reach their askers even if asking for the rest fails.

        Args:
            ask: asks for up to this number of messages; returns as ``_run_to_limit``.
        """
        shares: list[Message | Exception | None] = []
        more, rest = True, None
        while more and len(shares) < askers:  # large messages come in several calls
            try:
                found, more = await ask(askers - len(shares))
            except RestMQError as problem:
                if not shares:
                    raise
                more, rest = False, problem
            else:
                shares += self._messages(queue, found)
        return shares + [rest] * (askers - len(shares))

    async def queue_promote(self, queue: str) -> None:
        """Promotes due messages: overdue leases to the front or the dead letters, delayed messages to the end.

        Removes the queue if it is to end (``lua/_idle.lua``).
        """
        state: Any = State.MORE
        while state == State.MORE:
            state, dead_letter = await self._run("promote", queue, self.expires_seconds)
        await self._forward(queue, dead_letter)

    async def _forward(self, queue: str, dead_letter: bytes) -> None:
        """Moves dead letters to the queue that the setting ``dead_letter`` names, if it is set.

        If that queue cannot take them, they stay, and ``lua/_forwarding.lua`` schedules another attempt. The caller's
        own operation is done in any case.
        """
        if not dead_letter:
            return
        remaining, rested = 1, 0
        other = dead_letter.decode()
        try:
            while remaining:
                _, remaining, resting = await self._move_dead(queue, other)
                rested += resting
        except (StoreRefused, StoreUnavailable, InvalidInput) as problem:
            if isinstance(problem, StoreUnavailable) and not self.layout.is_partitioned:
                raise
            log.warn(
                "dead letters of {queue} stay there, as they cannot be moved to {other}: {problem}",
                queue=queue,
                other=other,
                problem=problem,
            )
        if rested:
            log.warn(
                "{count} dead letters of {queue} stay there: they were forwarded too often, perhaps in a circle.",
                count=rested,
                queue=queue,
            )

    async def _move_dead(self, queue: str, other: str, key: str = "", by_user: bool = False) -> tuple[int, int, int]:
        """Moves dead letters, or the one with this key, to the end of another queue; a bounded number.

        Args:
            by_user: whether a user asked for it; if not, letters that were moved too often rest.

        Returns:
            The numbers moved, remaining to be moved, and now resting.
        """
        there = self.layout.for_queue(check_queue_name(other))
        wanted = self.layout.stored_key(key) if key else ""
        if self.layout.is_partitioned or may_be_fifo(other):
            return await self._copy_dead(queue, other, wanted, by_user)
        more_keys = [there.queue_set, there.number, there.last_number, there.totals]
        more_keys += [
            there.ready,
            there.expiring,
            there.deliveries,
            there.times,
            there.sqs,
            there.tapped,
            there.channel,
        ]
        args = (self.layout.stored(other), int(by_user), wanted)
        moved, remaining, rested = await self._run("forward", queue, *args, more_keys=more_keys)
        await self._run("wake", other)
        return moved, remaining, rested

    async def _copy_dead(self, queue: str, other: str, wanted: bytes | str, by_user: bool) -> tuple[int, int, int]:
        """As ``_move_dead`` in a cluster, where no script has keys of two queues, or to a FIFO queue.

        First the other queue takes copies, then this one drops the letters. If that fails in between, the copies are
        sent again, and the other queue knows them by the letter's key and time of death. With ``replicas``, the death
        and then the copies are on replicas before the next step, so a failover neither loses nor repeats a letter.
        """
        rested, *flat = await self._run("letters", queue, int(by_user), wanted, len(self.layout.tag(queue)))
        letters = list(rows(flat, 5))
        if letters:
            copies = [(digest(key, score), *copy) for key, score, *copy in letters]
            await self._run("adopt", other, *(part for copy in copies for part in copy))
        taken = [part for letter in letters for part in letter[:2]]
        remaining = await self._run("adopted", queue, int(by_user), *taken)
        return len(letters), 0 if wanted else remaining, rested


def digest(key: bytes, score: bytes) -> str:
    """Identifies a message that moves to another queue, by its key and its time of death."""
    return hashlib.sha1(key + b" " + score, usedforsecurity=False).hexdigest()
