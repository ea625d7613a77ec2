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

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from restmq.core import not_reachable
from restmq.delivery.consumer import Consumer
from restmq.delivery.local import LocalConsumers
from restmq.delivery.shared import Shared
from restmq.delivery.tapped_queue import TappedQueue
from restmq.store.base import Channels

RENEWAL_SECONDS = 5.0
#: The part of ``unsent_bytes_total`` that all taps together may use, beside that of the live consumers.
_PART_OF_UNSENT_BYTES = 4


class Taps(LocalConsumers[TappedQueue]):
    """All taps of this daemon. A transport enters ``opened``, and then calls ``connect``; see ``ConsumerOwner``."""

    def __init__(self, shared: Shared) -> None:
        unsent_bytes_max = shared.limits.unsent_bytes_total // _PART_OF_UNSENT_BYTES
        super().__init__(shared, unsent_bytes_max, RENEWAL_SECONDS)

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
            await live.admission().addTimeout(seconds, self._shared.reactor, not_reachable)
            yield
        finally:
            live.users -= 1
            self._close_if_unused(queue, live)

    def _open(self, queue: str) -> TappedQueue:
        channel = self._channel_of(queue)
        live = self._live[queue] = self._by_channel[channel] = TappedQueue(queue, channel, self._shared)
        if self._subscriber is None:  # most daemons have no taps
            self._subscriber = self._core.pubsub(
                self._received, on_lost=self._subscription_lost, on_renewed=self._subscription_renewed
            )
        self._subscriber.subscribe(channel).addCallback(lambda _: live.renew())
        return live

    def _close_if_unused(self, queue: str, live: TappedQueue) -> None:
        if live.users or live.consumers or self._live.get(queue) is not live:
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
        live = self._live.get(queue)
        if live is not None and consumer in live.consumers:
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
            for tap in live.consumers:
                if tap.unsent_bytes:
                    live.fall_behind(tap)

    # Redis

    def _subscription_lost(self, channels: Channels) -> None:
        for live in self._on(channels):
            live.inbox.flush()
            live.was_lost = True

    def _subscription_renewed(self, channels: Channels) -> None:
        for live in self._on(channels):
            live.renew()

    def _beat(self) -> None:
        for live in self._live.values():
            live.renew()

    def _takes_comments(self, consumer: Consumer) -> bool:
        return consumer.capacity() > 0  # it has read everything
