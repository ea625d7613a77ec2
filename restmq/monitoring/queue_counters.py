"""The counters of all queues for ``/metrics``, read from Redis in bounded pages.

Only the busiest queues get a label of their own; ``/metrics`` shows one sum for all others. The set of the busiest
queues changes, and yet this sum may not decrease, because Prometheus takes a decrease for a restart. So the sum is not
computed anew: whenever a queue without a label is read, the sum grows by the growth of the queue's counters since the
last reading.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Set
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

import msgspec

from restmq.core import RedisOperations
from restmq.model import is_queue_name
from restmq.queues.base import rows
from restmq.store import keys
from restmq.store.partitions import gather

_QUEUES_PER_CALL = 250
_PARTITIONS_PER_CALL = 128
_QUEUES_PER_READ = 10_000
_READ_SECONDS = 2.0
#: Queues beyond this number are only counted.
_QUEUES_KNOWN_MAX = 100_000
#: The part of a queue's activity that still counts at the next read.
_ACTIVITY_DECAY = 0.9


class QueueCounters(NamedTuple):
    """One queue as ``lua/queue_counters.lua`` returns it. The first seven only ever grow."""

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
    def delivered(self) -> int:
        return self.out - self.acked + self.leased

    @property
    def held(self) -> int:
        return self.ready + self.under_lease + self.delayed + self.dead


#: Where the growing counters end, and where the numbers of held messages end.
_COUNTERS, _HELD = 7, 11
_ZERO = QueueCounters()


class QueuesSnapshot(msgspec.Struct, frozen=True):
    """The result of a reading.

    Attributes:
        queues: number of queues.
        labelled: the busiest queues, by their traffic and their number of messages.
        others: the sum of all other queues, with the greatest of their ages; None if there never were other queues.
    """

    queues: int = 0
    labelled: dict[str, QueueCounters] = {}
    others: QueueCounters | None = None


@dataclass(slots=True)
class _KnownQueue:
    counters: QueueCounters
    last_read: int
    activity: float = 0.0


class QueueCounterReader:
    """Reads the counters of all queues.

    Args:
        labelled_max: maximum number of queues with a label of their own.
        clock: seconds on any clock.
    """

    def __init__(self, core: RedisOperations, labelled_max: int, clock: Callable[[], float]) -> None:
        self._core = core
        self._labelled_max = labelled_max
        self._clock = clock
        self._known: dict[str, _KnownQueue] = {}
        self._labelled: dict[str, QueueCounters] = {}
        self._growth_of_others = [0] * _COUNTERS
        #: The partitions that are still to be scanned in this pass, with their cursors.
        self._unscanned: dict[int, bytes] = {}
        self._continues = False
        self._read = self._pass_began = 0

    def _sum_of_others(self) -> QueueCounters | None:
        others = [known.counters for name, known in self._known.items() if name not in self._labelled]
        if not others and not any(self._growth_of_others):
            return None
        columns = list(zip(_ZERO, *others, strict=True))
        held = [sum(column) for column in columns[_COUNTERS:_HELD]]
        return QueueCounters._make((*self._growth_of_others, *held, 1, max(columns[-1])))

    def continue_from(self, snapshot: QueuesSnapshot) -> None:
        """Takes over from another worker, so that no sum decreases.

        The snapshot's sum includes all growth so far. So until this reader has read all queues once, the first reading
        of a queue does not count as growth.
        """
        self._labelled = snapshot.labelled
        if snapshot.others is not None:
            pairs = zip(self._growth_of_others, snapshot.others, strict=False)
            self._growth_of_others = [max(pair) for pair in pairs]
        self._known.clear()
        self._unscanned.clear()
        self._pass_began, self._continues = self._read, True

    async def read(self) -> QueuesSnapshot:
        """Reads the busiest queues, and others until 10,000 are read or two seconds are over.

        The next call continues with the queues after these. Must not be called again before it has returned. Raises
        StoreUnavailable and StoreRefused.
        """
        deadline = self._clock() + _READ_SECONDS
        self._read += 1
        growth: dict[str, list[int]] = {}
        sizes = await gather(self._core.store, range(len(self._core.layout.tags)), self._size_of)
        await self._read_queues(list(self._labelled), growth)
        scanned = 0
        while True:
            page = await self._next_page()
            scanned += len(page)
            names = [name for name in page if self._may_read(name)]
            names = [name for name in dict.fromkeys(names) if name not in growth]  # a page may name one twice
            at_a_time = self._core.at_a_time(_QUEUES_PER_CALL)
            for start in range(0, len(names), at_a_time):  # a small set comes as one page
                await self._read_queues(names[start : start + at_a_time], growth)
            if not self._unscanned:
                self._forget_missing_queues()
                break
            if scanned >= _QUEUES_PER_READ or self._clock() >= deadline:
                break
        self._choose_labelled(growth)
        return QueuesSnapshot(sum(sizes.results.values()), self._labelled, self._sum_of_others())

    async def _size_of(self, partition: int) -> int:
        return int(await self._core.store.command("SCARD", self._core.layout.tags[partition] + keys.QUEUE_SET))

    async def _next_page(self) -> list[str]:
        """The next names of the set of all queues; of a cluster, those of several partitions."""
        layout, store = self._core.layout, self._core.store
        if not self._unscanned:
            self._unscanned = dict.fromkeys(range(len(layout.tags)), b"0")
        some = dict(islice(self._unscanned.items(), _PARTITIONS_PER_CALL))

        async def scan(partition: int) -> tuple[bytes, list[bytes]]:
            queue_set = layout.tags[partition] + keys.QUEUE_SET
            cursor, page = await store.command("SSCAN", queue_set, some[partition], "COUNT", _QUEUES_PER_CALL)
            return cursor, page

        found = await gather(store, some, scan, may_miss_all=True)
        names: list[str] = []
        for partition in some:
            del self._unscanned[partition]
            if partition in found.results:
                cursor, page = found.results[partition]
                names += map(layout.shown, page)
                if cursor != b"0":
                    self._unscanned[partition] = cursor
        if missing := some.keys() - found.results.keys():
            self._keep(missing)
        return names

    def _keep(self, partitions: Set[int]) -> None:
        """The queues of partitions that do not answer still exist."""
        layout = self._core.layout
        for name, known in self._known.items():
            if layout.partition_of(layout.tag(name)) in partitions:
                known.last_read = self._read

    def _may_read(self, name: str) -> bool:
        known = self._known.get(name)
        if known is None:
            return len(self._known) < _QUEUES_KNOWN_MAX and "\ufffd" not in name and is_queue_name(name)
        known.last_read = self._read
        return True

    async def _read_queues(self, names: list[str], growth: dict[str, list[int]]) -> None:
        """Reads these queues, and puts the growth of their counters since the last reading into ``growth``."""
        by_partition = self._core.by_partition(names)
        found = await gather(
            self._core.store, by_partition, lambda partition: self._rows_of(by_partition[partition]), may_miss_all=True
        )
        for name, counters in chain.from_iterable(found.results.values()):
            known = self._known.get(name)
            before = known.counters if known else counters if self._continues else _ZERO
            # If a counter has decreased, Redis was emptied, and the counter began at 0 again.
            pairs = zip(counters[:_COUNTERS], before, strict=False)
            growth[name] = [now - old if now >= old else now for now, old in pairs]
            if known is None:
                self._known[name] = _KnownQueue(counters, self._read)
            else:
                known.counters = counters
                known.activity = known.activity * _ACTIVITY_DECAY + sum(growth[name][:3])

    async def _rows_of(self, names: list[str]) -> list[tuple[str, QueueCounters]]:
        """The counters of queues of one partition."""
        flat = await self._core.run_on_queues("queue_counters", names)
        return list(zip(names, map(QueueCounters._make, rows(flat, len(QueueCounters._fields))), strict=True))

    def _forget_missing_queues(self) -> None:
        """Call this when the whole set of queues was scanned: a queue that was not found no longer exists."""
        for name in [name for name, known in self._known.items() if known.last_read <= self._pass_began]:
            del self._known[name]
        self._pass_began = self._read
        self._continues = False

    def _choose_labelled(self, growth: dict[str, list[int]]) -> None:
        """Chooses the busiest queues. A queue keeps its label until another one is twice as busy."""

        def rank(name: str) -> tuple[float, int]:
            known = self._known[name]
            return (known.activity + known.counters.held) * (2 if name in before else 1), known.counters.published

        before = self._labelled
        busiest = heapq.nlargest(self._labelled_max, self._known, key=rank)
        self._labelled = {name: self._known[name].counters for name in busiest}
        for name, grown in growth.items():
            if name not in self._labelled:
                self._growth_of_others = [sum(pair) for pair in zip(self._growth_of_others, grown, strict=True)]
