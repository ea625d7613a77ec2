"""What all live queues, or all tapped queues, of a daemon share."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.core import RedisOperations
from restmq.delivery.backpressure import BackpressureLimits, SlowConsumers
from restmq.http.turns import Turns

log = Logger()

#: Maximum bytes of the values that are being read from Redis at a time.
_READ_BYTES_MAX = 32 << 20


class ByteBudget:
    """Limits the bytes of all reads in progress. A read larger than the limit has to be the only one."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._waiting: deque[tuple[int, defer.Deferred[None]]] = deque()

    async def acquire(self, size_bytes: int) -> None:
        """Returns when the bytes are available, in the order of the requests."""
        turn: defer.Deferred[None] = defer.Deferred()
        self._waiting.append((size_bytes, turn))
        self._admit()
        await turn

    def release(self, size_bytes: int) -> None:
        self._used_bytes -= size_bytes
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            size_bytes, turn = self._waiting[0]
            if self._used_bytes and self._used_bytes + size_bytes > self._limit_bytes:
                return
            self._waiting.popleft()
            self._used_bytes += size_bytes
            turn.callback(None)


class PendingCalls:
    """The calls in progress."""

    def __init__(self) -> None:
        self._calls: set[defer.Deferred[Any]] = set()

    def run(self, call: Coroutine[Any, Any, Any]) -> defer.Deferred[Any]:
        """Starts a call. The caller handles its result or failure."""
        running = defer.ensureDeferred(call)
        self._calls.add(running)
        return running.addBoth(self._ended, running)

    def _ended(self, result: Any, running: defer.Deferred[Any]) -> Any:
        self._calls.discard(running)
        return result

    async def finish(self) -> None:
        """Returns when all calls have ended, and the calls that they started."""
        while self._calls:
            await defer.DeferredList(list(self._calls))

    def put_back(self, queue: str, count: int, call: Coroutine[Any, Any, Any]) -> None:
        """Starts a call that returns undelivered messages to their queue; logs a failure.

        Args:
            count: number of messages.
        """

        def failed(failure: Failure) -> None:
            log.error(
                "{count} messages of {queue} were not put back: {why}",
                count=count,
                queue=queue,
                why=failure.getErrorMessage(),
            )

        self.run(call).addErrback(failed)


@dataclass(slots=True)
class FanoutCounters:
    """Numbers that only grow.

    Attributes:
        dropped: consumers that were closed because they were too far behind.
        gaps: consumers and taps that were told of a gap.
        lost_subscriptions: times that the daemon's subscription to Redis broke.
    """

    dropped: int = 0
    gaps: int = 0
    lost_subscriptions: int = 0


@dataclass(slots=True, kw_only=True)
class Shared:
    """Attributes:
    daemon: the daemon's own name, which is in its channels.
    calls: calls that must end before the daemon stops.
    read_budget: limits the bytes of the values that are being read from Redis.
    """

    core: RedisOperations
    reactor: Any
    limits: BackpressureLimits
    turns: Turns
    counters: FanoutCounters = field(default_factory=FanoutCounters)
    daemon: str = field(default_factory=lambda: secrets.token_hex(8))
    calls: PendingCalls = field(default_factory=PendingCalls)
    read_budget: ByteBudget = field(default_factory=lambda: ByteBudget(_READ_BYTES_MAX))
    slow_consumers: SlowConsumers = field(init=False)

    def __post_init__(self) -> None:
        self.slow_consumers = SlowConsumers(self.reactor)
