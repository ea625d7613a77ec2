"""Taps: clients that see a copy of each message that is put into a queue, and take nothing.

Theory of operation.

1.  While a daemon has a tap on a queue, it is subscribed to the channel of the queue's taps, and renews a key that
    expires (``queue_tap``). While this key exists, each script that puts messages into the queue publishes copies of
    them there (``queues/lua/_tap.lua``). A queue without taps has no such key.
2.  The channels of taps have a connection of their own. If Redis closes it, because the daemon reads too slowly, no
    live consumer misses a message.
3.  A queue's message numbers rise by one. If the number of a copy is higher than the next one, copies were missed: the
    window was used up, the subscription broke, or the key had expired. Then all taps of the queue are told of a gap.
    Each renewal of the key publishes a marker with the last number. So a gap is told within seconds, even if no message
    follows.
4.  A tap is admitted when a marker has arrived on the daemon's subscription (``opened``). Its response begins after
    that, so a tap sees each message that is added after its response began.
5.  Nothing waits for a slow tap. Where a consumer would be dropped (``backpressure.py``, rule 4), a tap falls behind:
    it gets nothing until it has read everything that it was sent, and then is told of a gap. If the unsent bytes of all
    taps are too many, each tap that has some falls behind.

Delivery is at-most-once, in queue order. A maintainer must not let a tap change Redis beyond the keys of rule 1 and
``_tap.lua``, or write to the connections of consumers: a tap must not change what a consumer gets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from twisted.application import service
from twisted.internet import defer, task

from restmq.core import RedisOperations, not_reachable
from restmq.delivery.backpressure import BackpressureLimits
from restmq.delivery.consumer import CloseReason, Consumer
from restmq.delivery.inbox import ByteBudget, EndOfTurn
from restmq.delivery.outbox import SharedBytes
from restmq.delivery.shared import FanoutCounters
from restmq.delivery.tapped_queue import TappedQueue
from restmq.delivery.tasks import PendingCalls
from restmq.http.turns import Turns
from restmq.store.base import Channels, Subscription

RENEWAL_SECONDS = 5.0
_KEEPALIVE_SECONDS = 12.0
_READ_BYTES_MAX = 32 << 20
#: The part of ``unsent_bytes_total`` that all taps together may use, beside that of the live consumers.
_PART_OF_UNSENT_BYTES = 4


class Taps(service.Service):  # type: ignore[misc]  # untyped
    """All taps of this daemon. A transport enters ``opened``, and then calls ``connect``; see ``ConsumerOwner``.

    Args:
        counters: counts the gaps that taps are told of.
    """

    def __init__(
        self,
        core: RedisOperations,
        reactor: Any,
        *,
        limits: BackpressureLimits,
        turns: Turns,
        counters: FanoutCounters,
    ) -> None:
        self.limits = limits
        self.seconds: Callable[[], float] = reactor.seconds
        self.shared_bytes = SharedBytes(limits.unsent_bytes_total // _PART_OF_UNSENT_BYTES, self._have_too_many_bytes)
        self._core = core
        self._reactor = reactor
        self._turns = turns
        self._counters = counters
        self._calls = PendingCalls()
        self._budget = ByteBudget(_READ_BYTES_MAX)
        self._end_of_turn = EndOfTurn(reactor)
        self._live: dict[str, TappedQueue] = {}
        self._by_channel: dict[bytes, TappedQueue] = {}
        #: Made for the first tap, as most daemons have none.
        self._subscriber: Subscription | None = None
        self._renewal = task.LoopingCall(self._renew)
        self._keepalive = task.LoopingCall(self._keep_alive)
        self._renewal.clock = self._keepalive.clock = reactor

    def startService(self) -> None:
        super().startService()
        self._renewal.start(RENEWAL_SECONDS, now=False)
        self._keepalive.start(_KEEPALIVE_SECONDS, now=False)

    def stopService(self) -> defer.Deferred[Any]:
        """Closes all taps. Fires when the calls in progress have ended."""
        super().stopService()
        for timer in (self._renewal, self._keepalive):
            if timer.running:
                timer.stop()
        for queue in self.queues:
            for tap in list(self.consumers(queue)):
                self.leave(queue, tap)
                tap.close(CloseReason.SHUTDOWN)
        if self._subscriber is not None:
            self._subscriber.stop()
        return defer.ensureDeferred(self._calls.finish())

    @property
    def queues(self) -> list[str]:
        """The queues with taps on this daemon."""
        return list(self._live)

    @property
    def count(self) -> int:
        """The number of taps on this daemon."""
        return sum(len(live.taps) for live in self._live.values())

    def consumers(self, queue: str) -> Sequence[Consumer]:
        """The queue's taps on this daemon."""
        live = self._live.get(queue)
        return live.taps if live else ()

    # Taps come and go

    @asynccontextmanager
    async def opened(self, queue: str) -> AsyncIterator[None]:
        """A tap that connects within this context sees each message that is put into the queue from now on.

        Raises StoreUnavailable if Redis does not answer in time.
        """
        live = self._live.get(queue) or self._open(queue)
        live.users += 1
        try:
            seconds = self._core.store.settings.call_timeout_seconds
            await live.admission().addTimeout(seconds, self._reactor, not_reachable)
            yield
        finally:
            live.users -= 1
            self._close_if_unused(queue, live)

    def _open(self, queue: str) -> TappedQueue:
        live = TappedQueue(
            queue,
            core=self._core,
            calls=self._calls,
            budget=self._budget,
            turns=self._turns,
            counters=self._counters,
        )
        channel = self._channel_of(queue)
        self._live[queue] = self._by_channel[channel] = live
        if self._subscriber is None:
            self._subscriber = self._core.pubsub(
                self._received, on_lost=self._subscription_lost, on_renewed=self._subscription_renewed
            )
        self._subscriber.subscribe(channel).addCallback(lambda _: live.renew())
        return live

    def _close_if_unused(self, queue: str, live: TappedQueue) -> None:
        if live.users or live.taps or self._live.get(queue) is not live:
            return
        channel = self._channel_of(queue)
        del self._live[queue], self._by_channel[channel]
        live.inbox.close()
        if self._subscriber is not None:
            self._subscriber.unsubscribe(channel)

    def _channel_of(self, queue: str) -> bytes:
        return self._core.layout.for_queue(queue).of_taps().channel

    def connect(self, queue: str, consumer: Consumer, last_key: str | None) -> None:
        """Adds a tap. ``last_key``: the key of the last message that the client saw, if it reconnects."""
        self._live[queue].add(consumer, last_key)

    def leave(self, queue: str, consumer: Consumer) -> None:
        """Removes a tap. Does nothing if it has left already."""
        live = self._live.get(queue)
        if live is not None and consumer in live.taps:
            live.remove(consumer)
            self._close_if_unused(queue, live)

    def drop(self, queue: str, consumer: Consumer) -> None:
        """A tap that reads too slowly falls behind (rule 5)."""
        live = self._live.get(queue)
        if live is not None:
            live.fall_behind(consumer)

    def ready(self, queue: str, consumer: Consumer) -> None:
        """A tap has read everything that it was sent."""
        live = self._live.get(queue)
        if live is not None:
            live.catch_up(consumer)

    def _have_too_many_bytes(self) -> None:
        for live in self._live.values():
            for tap in live.taps:
                if tap.unsent_bytes:
                    live.fall_behind(tap)

    # Redis

    def _received(self, channel: bytes, payload: bytes) -> None:
        live = self._by_channel.get(channel)
        if live is not None:
            self._end_of_turn.flush(live.inbox)
            kind, _, content = payload.partition(b" ")
            live.inbox.receive(kind, content)

    def _on(self, channels: Channels) -> list[TappedQueue]:
        return [live for channel, live in self._by_channel.items() if channel in channels]

    def _subscription_lost(self, channels: Channels) -> None:
        for live in self._on(channels):
            live.inbox.flush()
            live.was_lost = True

    def _subscription_renewed(self, channels: Channels) -> None:
        for live in self._on(channels):
            live.renew()

    def _renew(self) -> None:
        for live in self._live.values():
            live.renew()

    def _keep_alive(self) -> None:
        for live in list(self._live.values()):
            live.keep_alive()
