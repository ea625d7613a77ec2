"""Lines on their way to Redis: each queue's in order, as many at once as there are, again and again until it has them.

A line that is taken stays until Redis has it, until it has waited too long, or until the daemon ends: at-least-once, as
it is not known of a call that was not answered whether it ran. How much may wait is for whoever puts lines in to hold;
a Room counts it, and a SharedRoom keeps one host from taking all of it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any
from weakref import WeakValueDictionary

from twisted.application import service
from twisted.internet import defer, task
from twisted.logger import Logger

from restmq.core import RedisOperations
from restmq.errors import RestMQError

log = Logger()

_BATCH_LINES = 1000
_BATCH_BYTES = 1 << 20
_LINE_OVERHEAD_BYTES = 250  # what a waiting line costs beside its bytes
_RETRY_SECONDS_FIRST = 0.1
_RETRY_SECONDS_MAX = 2.0
#: How many queues that don't take their lines the log names at a time; when Redis is away, none does.
_TROUBLES_NAMED_MAX = 10


@dataclass(slots=True, weakref_slot=True)
class Room:
    """Counts what waits, against how much may."""

    lines_max: int
    bytes_max: int
    lines: int = 0
    size_bytes: int = 0

    @property
    def left(self) -> bool:
        """Whether one more may come. It may be of any size, so a room can be overfull by one line."""
        return self.lines < self.lines_max and self.size_bytes < self.bytes_max

    def take(self, lines: int, size_bytes: int) -> None:
        self.lines += lines
        self.size_bytes += size_bytes


class SharedRoom:
    """Room for the lines of all hosts. One host has no more of it than it leaves to the others, so half at most.

    A host of which no line waits has room for one in any case: however many queues are full, the others' lines go on.
    So the whole can be overfull by a line a host; whoever does not know how many hosts there are looks at it first.
    """

    def __init__(self, lines_max: int, bytes_max: int) -> None:
        self.whole = Room(lines_max, bytes_max)
        self._by_host: WeakValueDictionary[str, Room] = WeakValueDictionary()  # there while a line holds it

    def left_for(self, host: str) -> bool:
        """Whether one more line of this host may come."""
        whole, own = self.whole, self._by_host.get(host)
        if own is None or not own.lines:
            return True
        return own.lines + whole.lines < whole.lines_max and own.size_bytes + whole.size_bytes < whole.bytes_max

    def of(self, host: str) -> tuple[Room, Room]:
        """What a line of this host takes room from."""
        own = self._by_host.get(host)
        if own is None:
            own = self._by_host[host] = Room(self.whole.lines_max, self.whole.bytes_max)
        return own, self.whole


@dataclass(slots=True)
class Counts:
    """What became of all lines since the start, for the log."""

    received: Counter[str] = field(default_factory=Counter)  # by protocol
    saved: int = 0
    truncated: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # connections, by why
    dropped: Counter[str] = field(default_factory=Counter)  # lines, by why
    _said: set[str] = field(default_factory=set)

    def drop(self, lines: int, why: str) -> None:
        """Lines are lost. The log says so at once when it happens for a reason that is new in this interval."""
        self.dropped[why] += lines
        self._say_once("lines are dropped: {why}.", why)

    def refuse(self, host: str, why: str) -> None:
        """A connection is not let in; for the log as ``drop``."""
        self.refused[why] += 1
        self._say_once("a connection is refused: {why} ({host}).", why, host)

    def _say_once(self, text: str, why: str, host: str = "") -> None:
        if why not in self._said:
            self._said.add(why)
            log.warn(text, why=why, host=host)

    def begin_interval(self) -> None:
        self._said.clear()

    def describe(self) -> str:
        """How many lines were received and saved, and all other counts that are not zero."""
        received = ", ".join(f"{protocol} {count}" for protocol, count in sorted(self.received.items()))
        parts = [f"received {self.received.total()}" + (f" ({received})" if received else ""), f"saved {self.saved}"]
        parts += [f"cut short {self.truncated}"] if self.truncated else []
        parts += [f"dropped {count} ({why})" for why, count in sorted(self.dropped.items())]
        parts += [f"connections refused {count} ({why})" for why, count in sorted(self.refused.items())]
        return ", ".join(parts)


@dataclass(slots=True, frozen=True)
class _Line:
    value: bytes
    since: float
    rooms: tuple[Room, ...]

    @property
    def size_bytes(self) -> int:
        return len(self.value) + _LINE_OVERHEAD_BYTES


class Spool(service.Service):  # type: ignore[misc]  # untyped
    """See the module's text.

    Args:
        hold_seconds: how long a line is kept for a Redis that does not take it.
        drain_seconds: how long the daemon's end waits for Redis to take what is left.
        clock: of the reactor.
    """

    def __init__(
        self, core: RedisOperations, counts: Counts, hold_seconds: float, drain_seconds: float, clock: Any
    ) -> None:
        self._core = core
        self._counts = counts
        self._hold_seconds = hold_seconds
        self._drain_seconds = drain_seconds
        self._clock = clock
        self._lanes: dict[str, deque[_Line]] = {}  # by queue; there while it has lines
        self._troubles: set[str] = set()  # queues that the log has named
        self._ended = False
        self._empty: defer.Deferred[None] | None = None
        #: Called whenever there is more room.
        self.on_room: Callable[[], None] = lambda: None

    def put(self, queue: str, value: bytes, rooms: tuple[Room, ...]) -> None:
        """Takes a line, and room for it until it is gone from here."""
        # A copy, as what orjson returns holds on to all that it was written in: 4 KB for the shortest line.
        line = _Line(bytes(memoryview(value)), self._clock.seconds(), rooms)
        for room in rooms:
            room.take(1, line.size_bytes)
        lane = self._lanes.get(queue)
        if lane is None:
            lane = self._lanes[queue] = deque()
            self._clock.callLater(0, self._start, queue, lane)  # so that what comes in this turn goes together
        lane.append(line)

    @property
    def waiting_lines(self) -> int:
        return sum(map(len, self._lanes.values()))

    def _start(self, queue: str, lane: deque[_Line]) -> None:
        defer.ensureDeferred(self._send(queue, lane)).addErrback(self._broken, queue, lane)

    async def _send(self, queue: str, lane: deque[_Line]) -> None:
        """Sends a lane's lines until there are none; half as many after a failure, for all at once may be too many."""
        pause_seconds = _RETRY_SECONDS_FIRST
        lines_max = _BATCH_LINES
        while lane and not self._ended:
            batch = _batch(lane, lines_max)
            try:
                await self._core.queue_add_many(queue, [line.value for line in batch])
            except RestMQError as problem:
                self._say_trouble(queue, problem)
                self._drop_overdue(lane)
                await task.deferLater(self._clock, pause_seconds)
                pause_seconds = min(2 * pause_seconds, _RETRY_SECONDS_MAX)
                lines_max = max(1, lines_max // 2)
            else:
                if self._ended:  # too late: they were counted as dropped
                    return
                pause_seconds = _RETRY_SECONDS_FIRST
                lines_max = min(2 * lines_max, _BATCH_LINES)
                self._counts.saved += len(batch)
                self._remove(lane, len(batch))
                if not lane or lines_max == _BATCH_LINES:  # not at the first batch: a full queue takes one now and then
                    self._say_well(queue)
        self._end_lane(queue)

    def _drop_overdue(self, lane: deque[_Line]) -> None:
        now = self._clock.seconds()
        overdue = sum(1 for _ in takewhile(lambda line: now - line.since > self._hold_seconds, lane))
        if overdue:
            self._counts.drop(overdue, f"Redis did not take them for {self._hold_seconds:g} s")
            self._remove(lane, overdue)

    def _remove(self, lane: deque[_Line], count: int) -> None:
        """A lane's first lines are done with, one way or the other. While they were sent others may have come."""
        for _ in range(count):
            line = lane.popleft()
            for room in line.rooms:
                room.take(-1, -line.size_bytes)
        self.on_room()

    def _broken(self, failure: Any, queue: str, lane: deque[_Line]) -> None:
        """A fault of ours: it must cost this lane's lines only."""
        log.failure("sending to {queue} failed", failure=failure, queue=queue)
        self._counts.drop(len(lane), "a fault of this program, see above")
        self._end_lane(queue)
        self._remove(lane, len(lane))

    def _end_lane(self, queue: str) -> None:
        self._lanes.pop(queue, None)
        self._troubles.discard(queue)
        if not self._lanes and self._empty is not None and not self._empty.called:
            self._empty.callback(None)

    def _say_trouble(self, queue: str, problem: Exception) -> None:
        if queue not in self._troubles and len(self._troubles) < _TROUBLES_NAMED_MAX:
            self._troubles.add(queue)
            log.warn("lines for {queue} wait: {problem}", queue=queue, problem=problem)

    def _say_well(self, queue: str) -> None:
        if queue in self._troubles:
            self._troubles.remove(queue)
            log.info("Redis takes lines for {queue} again.", queue=queue)

    def stopService(self) -> defer.Deferred[None]:
        super().stopService()
        return defer.ensureDeferred(self._stop())

    async def _stop(self) -> None:
        if self._lanes:
            self._empty = defer.Deferred()
            try:
                await self._empty.addTimeout(self._drain_seconds, self._clock)
            except defer.TimeoutError:
                self._counts.drop(self.waiting_lines, "Redis did not take them before the daemon's end")
                self._ended = True
                self._lanes.clear()


def _batch(lane: deque[_Line], lines_max: int) -> list[_Line]:
    """The first lines of a lane, as many as go to Redis in one call; at least one."""
    batch: list[_Line] = []
    size_bytes = 0
    for line in lane:
        size_bytes += len(line.value)
        if batch and (size_bytes > _BATCH_BYTES or len(batch) == lines_max):
            break
        batch.append(line)
    return batch
