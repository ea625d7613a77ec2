"""All queues in numbers, for those who watch: read from Redis a bounded number at a time.

Only the busiest queues are told apart; the others are added up. Which those are changes, and the sums must never go
back all the same, as a counter that does looks like a restart: so what a queue adds to the sum is what it has grown by
since it was last seen, while it was not among the busiest.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from restmq.core import RedisOperations
from restmq.model import is_queue_name
from restmq.store import keys, scripts
from restmq.store.connection import Encoded

_QUEUES_A_CALL = 250
_QUEUES_A_READING = 10_000
_READING_SECONDS = 2.0
#: Queues beyond these are counted by ``queues`` alone.
_QUEUES_KNOWN = 100_000
#: How much of a queue's activity still counts at the next reading.
_REMEMBERED = 0.9


class Tally(NamedTuple):
    """A queue as ``lua/tally.lua`` returns it; the first seven only ever grow."""

    published: int = 0
    out: int = 0
    leased: int = 0
    acked: int = 0
    redelivered: int = 0
    expired: int = 0
    died: int = 0
    ready: int = 0
    under_lease: int = 0
    delayed: int = 0
    dead: int = 0
    started: int = 1
    oldest_age_ms: int = -1

    @property
    def held(self) -> int:
        return self.ready + self.under_lease + self.delayed + self.dead


@dataclass(slots=True, frozen=True)
class Reading:
    """What was found.

    Attributes:
        queues: how many there are.
        told_apart: the busiest, by traffic and by what they hold.
        others: the sum of all that are not told apart, with the greatest of their ages; None if there never were any.
    """

    queues: int = 0
    told_apart: dict[str, Tally] = field(default_factory=dict)
    others: Tally | None = None

    @classmethod
    def unpack(cls, packed: Any) -> Reading:
        """What another worker has read, of JSON. ValueError if it is none."""
        if not isinstance(packed, list) or len(packed) != 3 or not isinstance(packed[1], dict):
            raise ValueError("a reading is a list of three")
        queues, told_apart, others = packed
        (checked,) = _check_numbers([queues], 1)
        tallies = {name: _check_tally(numbers) for name, numbers in told_apart.items() if is_queue_name(name)}
        return cls(checked, tallies, None if others is None else _check_tally(others))

    def pack(self) -> Any:
        told_apart = {name: list(tally) for name, tally in self.told_apart.items()}
        return [self.queues, told_apart, None if self.others is None else list(self.others)]


def _check_tally(numbers: Any) -> Tally:
    return Tally._make(_check_numbers(numbers, len(Tally._fields)))


def _check_numbers(numbers: Any, count: int) -> list[int]:
    if not isinstance(numbers, list) or len(numbers) != count:
        raise ValueError("as many numbers as are counted")
    if not all(type(number) is int and number >= -1 for number in numbers):
        raise ValueError("whole numbers")
    return numbers


#: Where its counters end, and its sums of messages held.
_COUNTERS, _GAUGES = 7, 11
_NEW = Tally()


@dataclass(slots=True)
class _Known:
    tally: Tally
    reading: int
    activity: float = 0.0


class Census:
    """What is known of all queues.

    Args:
        told_apart_max: how many queues are told apart.
        clock: seconds, from wherever they count.

    Attributes:
        queues: how many there are.
        told_apart: the busiest, by traffic and by what they hold.
    """

    def __init__(self, core: RedisOperations, told_apart_max: int, clock: Callable[[], float]) -> None:
        self._core = core
        self._told_apart_max = told_apart_max
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._grown_by_others = [0] * _COUNTERS
        self._cursor = b"0"
        self._goes_on = False
        self._reading = self._pass_began = 0
        self.queues = 0
        self.told_apart: dict[str, Tally] = {}

    @property
    def others(self) -> Tally | None:
        """The sum of all that are not told apart, with the greatest of their ages; None if there never were any."""
        others = [known.tally for name, known in self._known.items() if name not in self.told_apart]
        if not others and not any(self._grown_by_others):
            return None
        columns = list(zip(_NEW, *others, strict=True))
        held = [sum(column) for column in columns[_COUNTERS:_GAUGES]]
        return Tally._make((*self._grown_by_others, *held, 1, max(columns[-1])))

    def go_on_from(self, reading: Reading) -> None:
        """Another worker has read, and this one may be next: no sum of its goes back behind what was said.

        What this one knew of the others' growth is in there, so until it has seen all queues once, what it sees first
        of a queue counts as known.
        """
        self.queues, self.told_apart = reading.queues, reading.told_apart
        if reading.others is not None:
            pairs = zip(self._grown_by_others, reading.others, strict=False)
            self._grown_by_others = [max(pair) for pair in pairs]
        self._known.clear()
        self._cursor, self._pass_began, self._goes_on = b"0", self._reading, True

    async def read(self) -> Reading:
        """Looks at the busiest queues and at 10,000 others, or at what two seconds allow; the next call goes on there.

        Raises StoreUnavailable and StoreRefused. Concurrent calls are not meant to be.
        """
        deadline = self._clock() + _READING_SECONDS
        self._reading += 1
        grown: dict[str, list[int]] = {}
        store = self._core.store
        self.queues = await store.command("SCARD", keys.QUEUE_SET)
        await self._look(list(self.told_apart), grown)
        passed = 0
        while True:
            self._cursor, page = await store.command("SSCAN", keys.QUEUE_SET, self._cursor, "COUNT", _QUEUES_A_CALL)
            passed += len(page)
            names = [
                name for name in (entry.decode(errors="replace") for entry in page) if self._is_to_be_looked_at(name)
            ]
            names = [name for name in dict.fromkeys(names) if name not in grown]  # a page may name one twice
            for start in range(0, len(names), _QUEUES_A_CALL):  # a small set comes as one page
                await self._look(names[start : start + _QUEUES_A_CALL], grown)
            if self._cursor == b"0":
                self._forget_those_that_are_gone()
                break
            if passed >= _QUEUES_A_READING or self._clock() >= deadline:
                break
        self._tell_apart(grown)
        return Reading(self.queues, self.told_apart, self.others)

    def _is_to_be_looked_at(self, name: str) -> bool:
        known = self._known.get(name)
        if known is None:
            return len(self._known) < _QUEUES_KNOWN and "\ufffd" not in name and is_queue_name(name)
        known.reading = self._reading
        return True

    async def _look(self, names: list[str], grown: dict[str, list[int]]) -> None:
        """Reads these queues, and notes by how much their totals have grown since they were looked at last."""
        wanted: list[bytes] = []
        for name in names:
            q = keys.for_queue.__wrapped__(name)  # past its cache, which is for queues in use
            wanted += (q.number, q.totals, q.ready, q.expiring, q.leased, q.delayed, q.dead, q.status, q.times)
        if not names:
            return
        flat = await self._core.store.run(scripts.load("queue_counters"), Encoded([len(wanted), *wanted]))
        width = len(Tally._fields)
        for i, name in enumerate(names):
            tally = Tally(*flat[width * i : width * (i + 1)])
            known = self._known.get(name)
            before = known.tally if known else tally if self._goes_on else _NEW
            # A total that is less than it was has begun anew: Redis was emptied.
            growth = [now - old if now >= old else now for now, old in zip(tally[:_COUNTERS], before, strict=False)]
            grown[name] = growth
            if known is None:
                self._known[name] = _Known(tally, self._reading)
            else:
                known.tally = tally
                known.activity = known.activity * _REMEMBERED + sum(growth[:3])

    def _forget_those_that_are_gone(self) -> None:
        """All of the set was gone through since the pass began; what was not seen is no longer in it."""
        for name in [name for name, known in self._known.items() if known.reading <= self._pass_began]:
            del self._known[name]
        self._pass_began = self._reading
        self._goes_on = False

    def _tell_apart(self, grown: dict[str, list[int]]) -> None:
        """Chooses the busiest. One that is among them stays until another is twice as busy."""

        def business(name: str) -> tuple[float, int]:
            known = self._known[name]
            return (known.activity + known.tally.held) * (2 if name in before else 1), known.tally.published

        before = self.told_apart
        busiest = heapq.nlargest(self._told_apart_max, self._known, key=business)
        self.told_apart = {name: self._known[name].tally for name in busiest}
        for name, growth in grown.items():
            if name not in self.told_apart:
                self._grown_by_others = [sum(pair) for pair in zip(self._grown_by_others, growth, strict=True)]
