"""The fan-out: this daemon's live consumers, and how messages reach them.

Theory of operation.

Subscribing
1.  A daemon subscribes to a queue's channel while it has at least one consumer of the queue. Redis counts the
    subscribers of a channel, so no other record of the daemons is needed.
2.  Messages that arrive before a consumer joins are not for that consumer: ``join`` flushes them first.
3.  The last consumer that leaves ends the subscription. Its leases are released at once.

Broadcast
4.  A message that is added while a daemon is subscribed and nothing waits in the queue is published on the channel.
    The messages of one reactor turn are rendered once per format and written to each consumer in one write (``flush``).
    If consumers keep the daemon busy, these are the messages of several turns (``inbox.EndOfTurn``).
5.  Anything that depends on the order (a consumer joins, a marker arrives, the queue is deleted) flushes first.
6.  Drain: messages that wait in the queue (the backlog) are published by ``queue_attend``. All that is published, added
    or drained, is under flow control: Redis publishes no more than a window of bytes before the daemons confirm it
    (``queues/lua/_flow.lua``). A daemon confirms when its consumers can take more (``delivery/live_queue.py``).
7.  A large value comes beside the channel: the daemon reads it, and everything behind it waits (``delivery/inbox.py``).

Turns (round robin)
8.  Redis keeps the daemons with ready consumers in a fair order, and tells the daemon whose turn it is on the daemon's
    own channel. The daemon attends, and takes what its ready consumers can hold.
9.  Each message goes to the next ready consumer (``QueueSubscription.assign``). Messages that no consumer can take
    return to the front of the queue.
10. A daemon whose turn came after its last consumer has left attends with weight 0; Redis then tells the next one.

Attending
11. At most one ``queue_attend`` per queue is in progress (``SingleFlight``). A reason to attend that comes meanwhile
    (a consumer joined, left or is ready again, a turn, a lease ended) causes one more call.
12. If all consumers leave and others join during a call, there are two ``QueueSubscription`` objects one after the
    other. The older one stops, and makes the newer one attend: otherwise the older one could report to Redis last that
    no consumer is ready.
13. Notices can be lost (a connection breaks, a daemon dies). So the daemon attends again after each reconnect, and
    checks every ``HEARTBEAT_SECONDS`` for queues where messages wait, and for leases that should have ended.

Missed messages
14. When the daemon's subscription breaks, all live consumers of broadcasts miss the messages published until it is
    renewed. They get these from the queue's history, or are told of a gap (``delivery/replay.py``).

Delivery is at-most-once, in queue order; with leases at-least-once. A maintainer must not write to a consumer without
flushing first, must not await between taking messages (9) and assigning them, and must attend after every change of a
consumer's capacity, or a queue stalls until the next heartbeat.
"""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger

from restmq.core import RedisOperations
from restmq.delivery.backpressure import BackpressureLimits
from restmq.delivery.consumer import CloseReason, Consumer
from restmq.delivery.live_queue import LiveQueue
from restmq.delivery.local import LocalConsumers
from restmq.delivery.shared import Shared
from restmq.errors import RestMQError
from restmq.http.turns import Turns
from restmq.model import Policy
from restmq.queues.results import QueueOverview
from restmq.store.base import Channels, RedisCommand, Subscription

log = Logger()

#: Maximum delay of messages whose notice was lost (rule 13).
HEARTBEAT_SECONDS = 5.0
#: The windows of all queues together (``queues/lua/_flow.lua``), shared out in parts of at least _WINDOW_BYTES_MIN.
_WINDOWS_BYTES = 4 << 20
_WINDOW_BYTES_MIN = 64 << 10


class Fanout(LocalConsumers[LiveQueue]):
    """All live consumers of this daemon. Transports call ``connect`` and ``leave``."""

    _subscriber: Subscription

    def __init__(self, core: RedisOperations, reactor: Any, limits: BackpressureLimits, turns: Turns) -> None:
        super().__init__(
            Shared(core=core, reactor=reactor, limits=limits, turns=turns), limits.unsent_bytes_total, HEARTBEAT_SECONDS
        )
        self._reactor = reactor
        self._calls = self._shared.calls
        self._is_shedding = False
        #: The daemon's own channels; one in each partition that has queues with consumers here, or had some.
        self._own_channels: set[bytes] = set()
        self._subscriber = core.pubsub(
            self._received,
            on_lost=self._subscription_lost,
            on_renewed=self._subscription_renewed,
            before_renewal=self._commands_to_hold,
        )

    # Consumers connect and leave

    def connect(self, queue: str, consumer: Consumer, last_key: str | None) -> None:
        """Adds a consumer; ``resume`` if the client names the last message that it saw, else ``join``."""
        if last_key:
            self.resume(queue, consumer, last_key)
        else:
            self.join(queue, consumer)

    def resume(self, queue: str, consumer: Consumer, last_key: str, last_number: int | None = None) -> None:
        """Adds a consumer that first gets the messages after ``last_key``. ``Replay`` has the arguments."""
        live = self._live.get(queue) or self._open(queue)
        live.consumers.append(consumer)
        live.replay([consumer], last_key, last_number)
        self._subscribe(queue, live)

    def join(self, queue: str, consumer: Consumer) -> None:
        """Adds a consumer that gets the messages waiting in the queue, then new ones, in order."""
        live = self._live.get(queue) or self._open(queue)
        live.inbox.flush()
        live.consumers.append(consumer)
        live.subscription.live.append(consumer)
        live.capacity_changed()
        self._subscribe(queue, live)

    def position(self, queue: str) -> str:
        """As ``QueueSubscription.position``; empty if the queue has no consumers."""
        return self._live[queue].subscription.position() if queue in self._live else ""

    def _open(self, queue: str) -> LiveQueue:
        live = self._live[queue] = self._by_channel[self._channel_of(queue)] = LiveQueue(
            queue,
            self._shared,
            window_bytes=self._window_bytes,
            current=partial(self._live.get, queue),
            close=partial(self._close, queue),
        )
        return live

    def _subscribe(self, queue: str, live: LiveQueue) -> None:
        """Subscribes to the queue's channel for its first consumer."""
        own_channel = self._core.layout.daemon_channel(self._shared.daemon, queue)
        if own_channel not in self._own_channels:
            self._own_channels.add(own_channel)
            self._subscriber.subscribe(own_channel)
        if not live.is_followed:
            live.follow(self._subscriber.subscribe(self._channel_of(queue)))

    def _channel_of(self, queue: str) -> bytes:
        return self._core.layout.for_queue(queue).channel

    def _window_bytes(self) -> int:
        share = max(_WINDOW_BYTES_MIN, _WINDOWS_BYTES // max(1, len(self._live)))
        return max(1, min(share, self.limits.unsent_bytes))

    def leave(self, queue: str, consumer: Consumer) -> None:
        """Removes a consumer. Does nothing if it has left already."""
        live = self._live.get(queue)
        if live is None or consumer not in live.consumers:
            return
        subscription = live.subscription
        subscription.remove(consumer)
        self._shared.slow_consumers.release(consumer)
        if consumer.leases:
            leases = subscription.forget_leases(consumer)
            self._calls.put_back(queue, len(leases), self._core.queue_release(queue, leases))
        if not live.consumers:
            self._subscriber.unsubscribe(self._channel_of(queue))
            del self._live[queue], self._by_channel[self._channel_of(queue)]
            live.stop()
        live.capacity_changed()

    def drop(self, queue: str, consumer: Consumer) -> None:
        """Removes and closes a consumer that is too far behind."""
        self.counters.dropped += 1
        log.warn(
            "a consumer of {queue} was dropped: it left more than {limit} bytes unread.",
            queue=queue,
            limit=self.limits.unsent_bytes,
        )
        self._close(queue, CloseReason.TOO_SLOW, [consumer])

    def _have_too_many_bytes(self) -> None:
        """They are shed later, because this is called within a write."""
        if not self._is_shedding:
            self._is_shedding = True
            self._reactor.callLater(0, self._shed)

    def _shed(self) -> None:
        """Drops the consumers with the most unsent bytes (``backpressure.py``, rule 8)."""
        self._is_shedding = False
        behind = [(c.unsent_bytes, queue, c) for queue in self.queues for c in self.consumers(queue) if c.unsent_bytes]
        behind.sort(key=itemgetter(0))
        dropped_before = self.counters.dropped
        while behind and self.shared_bytes.total > self.shared_bytes.bytes_max:
            self.counters.dropped += 1
            _, queue, consumer = behind.pop()
            self._close(queue, CloseReason.TOO_SLOW, [consumer])
        log.warn(
            "{count} consumers were dropped: all consumers together left more than {limit} bytes unread.",
            count=self.counters.dropped - dropped_before,
            limit=self.shared_bytes.bytes_max,
        )

    def ready(self, queue: str, consumer: Consumer) -> None:
        """A consumer that was full can take messages again."""
        self._shared.slow_consumers.release(consumer)
        if queue in self._live:
            self._live[queue].capacity_changed()

    # Messages from Redis

    def _handle_notice(self, channel: bytes, notice: bytes) -> None:
        """A notice on the daemon's own channel: attend to a queue, or a lease has ended."""
        if channel not in self._own_channels:
            return
        stored, _, ended = notice.partition(b"\n")
        queue = self._core.layout.shown(stored)
        live = self._live.get(queue)
        if not ended and live is None:
            self._calls.run(self._pass_turn(queue)).addErrback(lambda failure: failure.trap(RestMQError))
        elif live is not None and (not ended or live.subscription.end_lease(ended.rsplit(b" ", 1)[1].decode())):
            live.attend()

    async def _pass_turn(self, queue: str) -> None:
        """Attends without consumers (rule 10)."""
        try:
            await self._core.queue_attend(queue, self._core.layout.daemon_channel(self._shared.daemon, queue))
        finally:
            self._attend(queue)  # consumers may have joined meanwhile (rule 12)

    def _attend(self, queue: str) -> None:
        if queue in self._live:
            self._live[queue].attend()

    def _subscription_lost(self, channels: Channels) -> None:
        lost = self._on(channels)
        if not lost:
            return
        self.counters.lost_subscriptions += 1
        log.warn(
            "the subscription to Redis broke. Consumers of {count} queues get what they miss from the queue's history, "
            "or are told of a gap.",
            count=len(lost),
        )
        for live in lost:
            live.lose_subscription()

    def _commands_to_hold(self, channels: Channels) -> list[RedisCommand]:
        broadcasting = [live for live in self._on(channels) if live.subscription.policy is Policy.BROADCAST]
        return [command for live in broadcasting for command in self._core.commands_to_hold(live.queue)]

    def _subscription_renewed(self, channels: Channels) -> None:
        for live in self._on(channels):
            live.renew_subscription()

    # Timers

    def _beat(self) -> None:
        """Finds messages and leases whose notices were lost, in one call for all queues (rule 13)."""
        for live in list(self._live.values()):
            if live.subscription.overdue(self.seconds(), 1):
                live.check_leases()
        if self._live and self._core.store.connected:
            asked = defer.ensureDeferred(self._core.queue_overview(list(self._live)))
            asked.addCallbacks(self._attend_to_waiting, lambda failure: failure.trap(RestMQError))

    def _attend_to_waiting(self, rows: list[QueueOverview]) -> None:
        for row in rows:
            if row.length and row.started:
                self._attend(row.name)
