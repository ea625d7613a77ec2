"""Buffers lines until Redis has stored them: at least once, and for each host in order.

1. Each host has a lane. A lane has one call to Redis in progress at a time, which carries as many lines as fit.
2. A line leaves its lane when Redis has stored it, when it is older than the hold time, or when the daemon ends. A call
   without an answer is repeated, because Redis may or may not have run it.
3. Quotas count the waiting lines. A receiver checks its quotas before it puts a line; the spool only keeps the counts.
4. One host may use as much of a shared quota as is still free for the others, i.e. at most half. So a host whose queue
   is full cannot stop the others.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from twisted.application import internet, service
from twisted.internet import defer, task
from twisted.logger import Logger

from restmq.core import RedisOperations
from restmq.errors import RestMQError

log = Logger()

_BATCH_LINES = 1000
_BATCH_BYTES = 1 << 20
_LINE_OVERHEAD_BYTES = 250  # memory that a waiting line takes beyond its bytes
_RETRY_SECONDS_FIRST = 0.1
_RETRY_SECONDS_MAX = 2.0
#: Maximum number of waiting queues that the log names at a time: without Redis, all of them wait.
_NAMED_QUEUES_MAX = 10


class LineCounts(internet.TimerService):  # type: ignore[misc]  # untyped
    """Numbers of lines and connections since the start, by event (received, saved, dropped, and so on).

    A summary is logged at intervals if a number has changed, and at the end.
    """

    def __init__(self, interval_seconds: float) -> None:
        super().__init__(interval_seconds, self._log_summary)
        self.by_event: Counter[str] = Counter()
        #: Returns the part of the summary about lines that wait now.
        self.describe_waiting: Callable[[], str] = lambda: ""
        self._logged_summary = ""
        self._logged_losses: set[str] = set()

    def lose(self, event: str, count: int = 1) -> None:
        """Counts a loss. The first of its kind since the last summary is logged at once."""
        self.by_event[event] += count
        if event not in self._logged_losses:
            self._logged_losses.add(event)
            log.warn("{event}; the next summary has the number.", event=event)

    def _log_summary(self) -> None:
        counts = ", ".join(f"{event}: {count}" for event, count in self.by_event.items())
        summary = f"lines since the start: {counts}; {self.describe_waiting()}."
        if self.by_event and summary != self._logged_summary:
            self._logged_summary = summary
            self._logged_losses.clear()
            log.info("{summary}", summary=summary)

    def stopService(self) -> Any:
        self._log_summary()
        return super().stopService()


@dataclass(slots=True)
class Quota:
    """Number and size of the lines that wait, with their limits. The last line may exceed the size limit."""

    lines_max: int = 0
    bytes_max: int = 0
    lines: int = 0
    size_bytes: int = 0

    def has_capacity(self, own_lines: int = 0, own_bytes: int = 0) -> bool:
        """Whether one more line fits, for a host that already has this number of lines and bytes."""
        return own_lines + self.lines < self.lines_max and own_bytes + self.size_bytes < self.bytes_max

    def part(self, divisor: int) -> Quota:
        """An empty quota with a part of the limits."""
        return Quota(max(1, self.lines_max // divisor), max(1, self.bytes_max // divisor))


@dataclass(slots=True, frozen=True)
class _Line:
    value: bytes
    since: float
    quotas: tuple[Quota, ...]

    def count(self, sign: int) -> None:
        for quota in self.quotas:
            quota.lines += sign
            quota.size_bytes += sign * (len(self.value) + _LINE_OVERHEAD_BYTES)


@dataclass(slots=True)
class _Lane:
    """The lines of one host that wait."""

    queue: str
    lines: deque[_Line] = field(default_factory=deque)
    size: Quota = field(default_factory=Quota)  # counts only; the limits are those of the shared quota

    def batch(self, lines_max: int) -> list[bytes]:
        """The first lines of the lane, as many as fit into one call: at least one."""
        values: list[bytes] = []
        size_bytes = 0
        for line in self.lines:
            size_bytes += len(line.value)
            if values and (size_bytes > _BATCH_BYTES or len(values) == lines_max):
                break
            values.append(line.value)
        return values


class Spool(service.Service):  # type: ignore[misc]  # untyped
    """Holds lines until Redis has stored them; see the rules above.

    Args:
        hold_seconds: maximum age of a line that Redis does not accept.
        drain_seconds: maximum time to wait for Redis when the daemon ends.
        clock: the reactor.
    """

    def __init__(
        self, core: RedisOperations, counts: LineCounts, *, hold_seconds: float, drain_seconds: float, clock: Any
    ) -> None:
        self._core = core
        self._counts = counts
        self._hold_seconds = hold_seconds
        self._drain_seconds = drain_seconds
        self._clock = clock
        self._lanes: dict[str, _Lane] = {}  # by queue; only those with lines
        self._named_queues: set[str] = set()  # queues that the log has named as waiting
        self._stopped = False
        self._empty: defer.Deferred[None] | None = None
        #: Called after lines have left the spool.
        self.on_capacity: Callable[[], None] = lambda: None

    def has_capacity(self, queue: str, quota: Quota, always_one: bool = False) -> bool:
        """Whether the quota, which all hosts share, has capacity for one more line of this queue's host.

        Args:
            always_one: whether a host without waiting lines may add one even if the quota is used up.
        """
        lane = self._lanes.get(queue)
        if lane is None:
            return always_one or quota.has_capacity()
        return quota.has_capacity(lane.size.lines, lane.size.size_bytes)

    def put(self, queue: str, value: bytes, *quotas: Quota) -> None:
        """Adds a line. It is counted in the quotas until it leaves the spool."""
        lane = self._lanes.get(queue)
        if lane is None:
            lane = self._lanes[queue] = _Lane(queue)
            defer.ensureDeferred(self._serve(lane))
        # A copy, because the value that orjson returns keeps its whole write buffer alive: 4 KB for the shortest line.
        line = _Line(bytes(memoryview(value)), self._clock.seconds(), (lane.size, *quotas))
        line.count(1)
        lane.lines.append(line)

    @property
    def waiting_lines(self) -> int:
        return sum(lane.size.lines for lane in self._lanes.values())

    async def _serve(self, lane: _Lane) -> None:
        try:
            await self._send_all(lane)
        except Exception:  # a bug may cost the lines of this lane, but must not stop the others
            log.failure("sending to {queue} failed", queue=lane.queue)
        if self._stopped:  # the lines are counted as dropped
            return
        if lane.lines:
            self._counts.lose("dropped (internal error, see the log)", lane.size.lines)
        del self._lanes[lane.queue]
        self._named_queues.discard(lane.queue)
        self._remove(lane, lane.size.lines)
        if not self._lanes and self._empty is not None and not self._empty.called:
            self._empty.callback(None)

    async def _send_all(self, lane: _Lane) -> None:
        """Sends until the lane is empty. After a failure it sends half as many, because fewer may still fit."""
        pause_seconds, lines_max = _RETRY_SECONDS_FIRST, _BATCH_LINES
        await task.deferLater(self._clock, 0)  # so that the first call has all lines of this turn
        while lane.lines and not self._stopped:
            values = lane.batch(lines_max)
            try:
                await self._core.queue_add_many(lane.queue, values)
            except RestMQError as problem:
                self._log_waiting(lane, problem)
                self._drop_overdue(lane)
                await task.deferLater(self._clock, pause_seconds)
                pause_seconds, lines_max = min(2 * pause_seconds, _RETRY_SECONDS_MAX), max(1, lines_max // 2)
                continue
            if self._stopped:  # too late
                return
            pause_seconds, lines_max = _RETRY_SECONDS_FIRST, min(2 * lines_max, _BATCH_LINES)
            self._counts.by_event["saved"] += len(values)
            self._remove(lane, len(values))
            # Not after the first batch: even a full queue accepts a line now and then.
            if lane.queue in self._named_queues and (not lane.lines or lines_max == _BATCH_LINES):
                self._named_queues.remove(lane.queue)
                log.info("Redis accepts lines for {queue} again.", queue=lane.queue)

    def _log_waiting(self, lane: _Lane, problem: Exception) -> None:
        if lane.queue not in self._named_queues and len(self._named_queues) < _NAMED_QUEUES_MAX:
            self._named_queues.add(lane.queue)
            log.warn("lines for {queue} wait: {problem}", queue=lane.queue, problem=problem)

    def _drop_overdue(self, lane: _Lane) -> None:
        oldest = self._clock.seconds() - self._hold_seconds
        overdue = sum(1 for _ in takewhile(lambda line: line.since < oldest, lane.lines))
        if overdue:
            self._counts.lose(f"dropped (Redis did not accept them within {self._hold_seconds:g} s)", overdue)
            self._remove(lane, overdue)

    def _remove(self, lane: _Lane, count: int) -> None:
        """Removes a lane's first lines."""
        for _ in range(count):
            lane.lines.popleft().count(-1)
        self.on_capacity()

    def stopService(self) -> defer.Deferred[None]:
        super().stopService()
        return defer.ensureDeferred(self._drain())

    async def _drain(self) -> None:
        """Waits until Redis has all lines. Drops those that Redis does not accept in time."""
        if self._lanes:
            self._empty = defer.Deferred()
            try:
                await self._empty.addTimeout(self._drain_seconds, self._clock)
            except defer.TimeoutError:
                self._counts.lose("dropped (Redis did not accept them before the daemon ended)", self.waiting_lines)
                self._stopped = True
                self._lanes.clear()
