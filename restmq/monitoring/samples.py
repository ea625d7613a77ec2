"""The last hour of the dashboard's charts: samples of all queues, taken every ten seconds, whoever watches.

1. Of a server's workers, only the leader (the oldest live one) takes samples. The other workers ask it for them when a
   page needs them. Servers on the same Redis take their own.
2. A sample has the number of waiting messages and the totals in and out: of all queues together, and of each queue
   that has a series. These are the busiest queues, by their traffic and their number of waiting messages.
3. A series has an entry only for a sample in which its numbers differ from those before. So an idle queue has one
   entry, and no series has more than ``SAMPLES_MAX``.
4. While Redis, or a node of a cluster, does not answer, no sample is taken: the sum of the other queues would look as
   if messages were lost. Pages draw a gap where samples are missing.
5. The leader writes the samples to Redis once a minute and when it stops, compressed, with an expiry. A server reads
   them before its first sample, whichever server wrote them: they are about queues, not about servers. So a restart
   leaves a gap only as long as itself, or up to a minute longer if the server was killed.
"""

from __future__ import annotations

import heapq
import zlib
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from itertools import accumulate
from operator import itemgetter

import msgspec
from twisted.application import internet
from twisted.internet import defer, task

from restmq.core import RedisOperations
from restmq.errors import RestMQError
from restmq.monitoring.dashboard_feed import DashboardFeed
from restmq.monitoring.peers import Peers
from restmq.queues.results import QueueOverview

SAMPLE_SECONDS = 10.0
SAMPLES_MAX = 360
_HOUR_SECONDS = 3600
#: Number of samples after which they are written to Redis.
_WRITE_EVERY = 6
SERIES_MAX = 1000
#: The part of a queue's traffic that still counts at the next sample.
_TRAFFIC_DECAY = 0.9
#: The samples of two minutes.
_RECENT = 13
_WIDTH = 4
#: Takes up to 10 ms.
_SERIES_PER_TURN = 50
#: Takes 3 ms.
_QUEUES_PER_TURN = 5000

#: Number of waiting messages, total in, total out.
Numbers = tuple[int, int, int]
_NOTHING: Numbers = (0, 0, 0)
#: By queue: its total in and out at the last sample, and its traffic.
Known = dict[str, tuple[int, float]]


class ChartSample(msgspec.Struct, frozen=True, rename={"put": "in"}):
    """A point of a chart: its time in ms since 1970, the number of waiting messages, and the totals in and out."""

    time: int
    ready: int
    put: int
    out: int


class LastHour(msgspec.Struct, frozen=True):
    """The last hour of some queues.

    Attributes:
        samples: those of all of them together, the oldest first.
        waiting: by queue: its number of waiting messages in the last two minutes, up to the last sample.
        taken: by queue: the time of the last sample in these two minutes with a higher total out, if there is one.
    """

    samples: list[ChartSample] = []
    waiting: dict[str, list[int]] = {}
    taken: dict[str, int] = {}


class Series:
    """The samples of one queue.

    Args:
        since: number of the first sample that it has. Until its first entry, its numbers are 0.
        packed: its entries, as ``pack`` returns them.
    """

    __slots__ = ("_entries", "since")

    def __init__(self, since: int, packed: bytes = b"") -> None:
        self.since = since
        #: Four numbers an entry: number of the sample, then Numbers.
        self._entries = array("q", msgspec.msgpack.decode(zlib.decompress(packed), type=list[int]) if packed else ())

    def pack(self) -> bytes:
        """Its entries for Redis. The longest ones take 0.3 ms, and become 3.5 KB."""
        return zlib.compress(msgspec.msgpack.encode(self._entries.tolist()), 1)

    def __len__(self) -> int:
        return len(self._entries) // _WIDTH

    def add(self, number: int, numbers: Numbers, oldest: int) -> None:
        """Adds a sample, and forgets what is older than the oldest one."""
        entries = self._entries
        if not entries or tuple(entries[1 - _WIDTH :]) != numbers:
            entries.extend((number, *numbers))
        first = 0
        while first + _WIDTH < len(entries) and entries[first + _WIDTH] <= oldest:
            first += _WIDTH
        del entries[:first]

    def add_to(self, growth: list[list[int]], first: int) -> None:
        """Adds the growth of each of its numbers from sample to sample.

        Args:
            growth: for each of Numbers, its growth up to each sample from ``first`` on.
        """
        for column, grown in enumerate(growth, 1):
            before = 0
            for number, now in zip(self._entries[::_WIDTH], self._entries[column::_WIDTH], strict=True):
                grown[max(0, number - first)] += now - before
                before = now

    def waiting(self, first: int, last: int) -> list[int]:
        """The number of waiting messages in the samples from ``first`` to ``last``."""
        found: list[int] = []
        place = len(self._entries)
        for number in range(last, max(first, self.since) - 1, -1):
            while place and self._entries[place - _WIDTH] > number:
                place -= _WIDTH
            found.append(self._entries[place - _WIDTH + 1] if place else 0)
        return found[::-1]

    def taken(self, first: int) -> int:
        """The last sample from ``first`` on with a higher total out than the one before; 0 if there is none."""
        entries = self._entries
        for place in range(len(entries) - _WIDTH, 0, -_WIDTH):
            if entries[place] < first:
                break
            if entries[place + _WIDTH - 1] > entries[place - 1]:
                return entries[place]
        return 0


class WrittenSamples(msgspec.Struct, frozen=True):
    """The samples as they are in Redis.

    Attributes:
        number, times: as those of ``Samples``.
        series: by queue, and under an empty name of all queues: its ``since``, and its packed entries.
    """

    number: int
    times: list[int]
    series: dict[str, tuple[int, bytes]]


class Samples(internet.TimerService):  # type: ignore[misc]  # untyped
    """Takes the samples, and answers with them.

    Args:
        feed: reads the queues.
        leader: returns the identity of the worker that takes the samples.
    """

    def __init__(
        self, core: RedisOperations, feed: DashboardFeed, peers: Peers, leader: Callable[[], Awaitable[str]]
    ) -> None:
        super().__init__(SAMPLE_SECONDS, self._sample_quietly)
        self.clock = core.store.clock
        self._core = core
        self._store = core.store
        self._feed = feed
        self._peers = peers
        self._leader = leader
        #: The times of the last samples. ``_number`` is the number of the last one, from 1 on.
        self._times: deque[int] = deque(maxlen=SAMPLES_MAX)
        self._number = 0
        self._all = Series(1)
        self._series: dict[str, Series] = {}
        #: None before the first sample.
        self._known: Known | None = None
        self._unwritten = 0
        peers.answer("samples", list[str] | None, self._read)

    def startService(self) -> None:
        super().startService()
        self._store.first_connected.addCallback(self._begin)

    def _begin(self, _: None) -> None:
        defer.ensureDeferred(self._sample_quietly())  # clients do not wait for it

    async def stopService(self) -> None:
        await defer.maybeDeferred(super().stopService)
        if self._unwritten:
            with suppress(RestMQError):
                await self._write()

    async def read(self, queues: Collection[str] | None) -> LastHour:
        """The samples of the last hour.

        Args:
            queues: the queues to add up; None for all. If one of them has no series, there are no samples.
        """
        if queues is not None and len(queues) > SERIES_MAX:
            return LastHour()
        wanted = None if queues is None else list(queues)
        return await self._peers.ask_one(await self._leader(), "samples", wanted, LastHour) or LastHour()

    async def _read(self, queues: list[str] | None) -> LastHour:
        number, times = self._number, list(self._times)
        shown = self._series
        if queues is not None:
            shown = {queue: self._series[queue] for queue in queues if queue in self._series}
        series = [self._all] if queues is None else list(shown.values())
        if not series or not times or (queues is not None and len(shown) < len(queues)):
            return LastHour()
        oldest = number - len(times) + 1
        first = max(oldest, *(each.since for each in series))
        growth = [[0] * (number + 1 - first) for _ in _NOTHING]
        for place, each in enumerate(series, 1):
            each.add_to(growth, first)
            if place % _SERIES_PER_TURN == 0:
                await task.deferLater(self.clock, 0)
                if self._number != number:  # the series have changed
                    return await self._read(queues)
        rows = zip(times[first - oldest :], *map(accumulate, growth), strict=True)
        recent = max(oldest, number + 1 - _RECENT)
        waiting = {queue: each.waiting(recent, number) for queue, each in shown.items()}
        taken = {queue: times[at - oldest] for queue, each in shown.items() if (at := each.taken(recent))}
        return LastHour([ChartSample(*row) for row in rows], waiting, taken)

    # Taking samples

    async def _sample_quietly(self) -> None:
        with suppress(RestMQError):  # rule 4
            if await self._leader() == self._peers.id:
                if self._known is None:
                    await self._read_written()
                reading = await self._feed.read()
                if reading.is_whole:
                    self._add(reading.time_ms, *await self._add_up(reading.queues))
                if self._unwritten >= _WRITE_EVERY:
                    await self._write()

    async def _add_up(self, queues: Sequence[QueueOverview]) -> tuple[Numbers, Known, dict[str, Numbers]]:
        """The sum of all queues, what ``_known`` has of them, and the numbers of those that have a series.

        A queue keeps its series until another one is twice as busy.
        """
        before, known = self._known or {}, {}
        ready = put = out = 0
        busiest: list[tuple[float, str, Numbers]] = []
        for start in range(0, len(queues), _QUEUES_PER_TURN):
            if start:
                await task.deferLater(self.clock, 0)
            for queue in queues[start : start + _QUEUES_PER_TURN]:
                name, numbers = queue.name, (queue.length, queue.number, queue.out)
                known[name] = _traffic(before.get(name), numbers)
                busiest.append(((known[name][1] + queue.length) * (2 if name in self._series else 1), name, numbers))
                ready, put, out = ready + queue.length, put + queue.number, out + queue.out
            if len(busiest) > SERIES_MAX:
                busiest = heapq.nlargest(SERIES_MAX, busiest, key=itemgetter(0))
        return (ready, put, out), known, {name: numbers for _, name, numbers in busiest}

    def _add(self, time_ms: int, total: Numbers, known: Known, busiest: dict[str, Numbers]) -> None:
        last_ms = self._times[-1] if self._times else 0
        if time_ms == last_ms:
            return
        if time_ms < last_ms:  # the clock was set back
            self._times.clear()
            self._all, self._series = Series(self._number + 1), {}
        self._times.append(time_ms)
        self._number += 1
        self._unwritten += 1
        while self._times[0] < time_ms - _HOUR_SECONDS * 1000:
            self._times.popleft()
        oldest = self._number - len(self._times) + 1
        self._all.add(self._number, total, oldest)
        is_first, before = self._known is None, self._known or {}
        self._known = known
        kept: dict[str, Series] = {}
        for name, numbers in busiest.items():
            series = self._series.get(name)
            if series is None:  # a queue that is new since the last sample was empty until then
                series = Series(self._number if is_first or name in before else self._all.since)
            series.add(self._number, numbers, oldest)
            kept[name] = series
        self._series = kept

    # In Redis

    async def _write(self) -> None:
        self._unwritten = 0
        number, series = self._number, {"": self._all, **self._series}
        packed: dict[str, tuple[int, bytes]] = {}
        for place, (name, each) in enumerate(series.items(), 1):
            packed[name] = each.since, each.pack()
            if place % _SERIES_PER_TURN == 0:
                await task.deferLater(self.clock, 0)
                if self._number != number:  # the series have changed
                    return
        written = msgspec.msgpack.encode(WrittenSamples(number, list(self._times), packed))
        await self._core.run_on("samples", [self._store.layout.samples], written, _HOUR_SECONDS)

    async def _read_written(self) -> None:
        """Begins with the samples that this server or another one has written. Ignores invalid data."""
        written = await self._store.command("GET", self._store.layout.samples)
        if written is None:
            return
        series: dict[str, Series] = {}
        with suppress(msgspec.MsgspecError, zlib.error):
            found = msgspec.msgpack.decode(written, type=WrittenSamples)
            for place, (name, (since, packed)) in enumerate(found.series.items(), 1):
                series[name] = Series(since, packed)
                if place % _SERIES_PER_TURN == 0:
                    await task.deferLater(self.clock, 0)
            if self._known is None:  # no sample was taken meanwhile
                self._all, self._series = series.pop(""), series
                self._number, self._times = found.number, deque(found.times, maxlen=SAMPLES_MAX)


def _traffic(before: tuple[int, float] | None, numbers: Numbers) -> tuple[int, float]:
    """The new entry of a queue in ``_known``, computed from the one before."""
    total = numbers[1] + numbers[2]
    last_total, traffic = before or (total, 0.0)
    return total, traffic * _TRAFFIC_DECAY + max(0, total - last_total)
