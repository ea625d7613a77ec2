"""Ends leases and delays on time: timers for the earliest deadlines, without polling.

Redis keeps the deadline of each queue, by partition (``store/keys.py``). A script that sets a deadline earlier than all
known ones announces it on a channel. Every daemon has one timer for the earliest deadline of each partition; the first
daemon does the work, and the others find nothing left to do. So messages are promoted on time while one daemon runs;
without one, when the next one starts.

Scripts watch a queue that may end (``queues/lua/_idle.lua``) from its first message or setting on. A queue that is
older than ``--queue-expires``, or that was added by another program, is found by a scan of all queues.

Of a server's workers, the first one is on time. The others look a moment later, when the first one has done the work
of that moment; otherwise each of them would call Redis for each deadline.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.application import internet, service
from twisted.internet import defer
from twisted.logger import Logger

from restmq.core import RedisOperations
from restmq.errors import InvalidInput, RestMQError, StoreRefused
from restmq.store.base import Channels
from restmq.store.batching import SingleFlight

log = Logger()

#: Redis and this process count milliseconds from different starts.
_ROUNDING_SECONDS = 0.001
#: How much later than the first worker the others look.
_SPARE_SECONDS = 0.05
_RETRY_SECONDS = 1.0
#: Maximum time between two checks, because the clock of Redis may be set, and may drift from the one here.
_LATEST_SECONDS = 5.0
#: The same for a partition without deadlines; its first one is announced. A cluster has up to 1,024 of them.
_LATEST_IDLE_SECONDS = 60.0
#: Time between two scans of all queues, and until a failed scan is repeated.
_ALL_QUEUES_SECONDS, _ALL_QUEUES_RETRY_SECONDS = 3600.0, 60.0


class Deadlines(service.Service):  # type: ignore[misc]  # untyped
    """Promotes messages whose lease or delay has ended.

    Args:
        worker: the number of this worker of its server, from 1 on.
    """

    def __init__(self, core: RedisOperations, reactor: Any, worker: int = 1) -> None:
        self._after_seconds = _ROUNDING_SECONDS if worker == 1 else _SPARE_SECONDS
        self._subscriber = core.pubsub(self._announced, on_renewed=self._renewed)
        layout = core.layout
        self._timers = {
            layout.due_channel(tag): _PartitionTimer(core, reactor, partition, self._after_seconds)
            for partition, tag in enumerate(layout.tags)
        }

    def startService(self) -> None:
        super().startService()
        for channel, timer in self._timers.items():
            timer.start(self._subscriber.subscribe(channel))

    def stopService(self) -> None:
        super().stopService()
        for timer in self._timers.values():
            timer.stop()
        self._subscriber.stop()

    def _announced(self, channel: bytes, until_ms: bytes) -> None:
        self._timers[channel].schedule(min(int(until_ms) / 1000 + self._after_seconds, _LATEST_SECONDS))

    def _renewed(self, channels: Channels) -> None:
        for channel in channels:
            self._timers[channel].schedule(0)


class _PartitionTimer:
    """Promotes what is due in one partition. A node that hangs delays no other."""

    def __init__(self, core: RedisOperations, reactor: Any, partition: int, after_seconds: float) -> None:
        self._after_seconds = after_seconds
        self._core = core
        self._reactor = reactor
        self._partition = partition
        self._running = False
        self._timer: Any = None
        self._promotion = SingleFlight(self._promote_due, self._failed)

    def start(self, subscribed: defer.Deferred[None]) -> None:
        self._running = True
        subscribed.addCallback(lambda _: self.schedule(0))

    def stop(self) -> None:
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def schedule(self, delay_seconds: float) -> None:
        """Sets the timer, unless it is set for an earlier time."""
        if not self._running:
            return
        at = self._reactor.seconds() + delay_seconds
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= at:
                return
            self._timer.cancel()
        self._timer = self._reactor.callLater(delay_seconds, self._promotion.request)

    async def _promote_due(self) -> None:
        until_seconds, queues = await self._core.due_queues(self._partition)
        for queue in queues:
            await self._promote(queue)
        if queues:
            self._promotion.request()  # there may be more, or a new deadline
        elif until_seconds is None:
            self.schedule(_LATEST_IDLE_SECONDS * random.uniform(0.5, 1))  # noqa: S311  so that partitions take turns
        else:
            self.schedule(min(until_seconds + self._after_seconds, _LATEST_SECONDS))

    async def _promote(self, queue: str) -> None:
        """Does what is due in one queue. An error of one queue must not delay the others."""
        try:
            await self._core.queue_on_due(queue)
        except (StoreRefused, InvalidInput) as problem:
            await self._core.queue_postpone(queue)  # also fails if Redis refuses everything
            log.warn("due messages of {queue} can't be promoted: {problem}", queue=queue, problem=problem)

    def _failed(self, failure: Any) -> None:
        if not failure.check(RestMQError):
            log.failure("promoting due messages failed", failure=failure)
        self.schedule(_RETRY_SECONDS)


class ExpiringQueues(internet.TimerService):  # type: ignore[misc]  # untyped
    """Finds queues that may end, but that no script watches yet: at the start, and once an hour."""

    def __init__(self, core: RedisOperations, reactor: Any) -> None:
        super().__init__(_ALL_QUEUES_RETRY_SECONDS, self._look)
        self.clock = reactor
        self._core = core
        self._next_at = reactor.seconds()

    def startService(self) -> None:
        super().startService()
        self._core.store.first_connected.addCallback(lambda _: self._look())

    def _look(self) -> None:
        now = self.clock.seconds()
        if self.running and self._core.store.connected and now >= self._next_at:
            self._next_at = now + _ALL_QUEUES_SECONDS
            defer.ensureDeferred(self._core.queue_watch_all()).addErrback(self._look_failed)

    def _look_failed(self, failure: Any) -> None:
        self._next_at = self.clock.seconds()
        if not failure.check(RestMQError):
            log.failure("finding the queues that are to end failed", failure=failure)
