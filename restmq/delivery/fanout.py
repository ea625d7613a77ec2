"""The fan-out: this daemon's live consumers, and how messages reach them.

Theory of operation.

Subscribing
1.  A daemon subscribes to a queue's channel while it has at least one consumer of the queue. Redis counts the
    subscribers of a channel, and needs no other record of who is there.
2.  Messages that arrive before a consumer joins are not for that consumer: ``join`` flushes them first.
3.  The last consumer that leaves ends the subscription. Its leases are released at once.

Broadcast
4.  A message that is added while a daemon is subscribed and nothing waits in the queue is published on the channel.
    The messages of one reactor turn are rendered once per format and written to each consumer in one write
    (``_flush``).
5.  Anything that depends on the order (a consumer joins, a marker arrives, the queue is deleted) flushes first.
6.  Drain: messages that wait in the queue (the backlog) are published by ``queue_attend``, a bounded number of bytes
    a call. Redis tells the daemon behind them, on the daemon's own channel; so when the daemon attends again, it has
    received all of them. Before it attends again it waits for slow consumers (delivery/backpressure.py, rule 5).

Turns (round robin)
7.  Redis keeps the daemons with ready consumers in a fair order, and tells the daemon whose turn it is on the daemon's
    own channel. The daemon attends, and takes what its ready consumers can hold.
8.  Each message goes to the next ready consumer (``QueueSubscription.assign``). What none of them can take any more
    goes back to the front of the queue.
9.  A daemon whose turn came after its last consumer has left attends with weight 0; Redis then tells the next one.

Attending
10. At most one ``queue_attend`` per queue is in progress (``SingleFlight``). A reason to attend that comes meanwhile
    (a consumer joined, left or is ready again, a turn, a lease ended) causes one more call.
11. If all consumers leave and others join during a call, there are two ``QueueSubscription`` objects in turn. The older
    one stops, and has the newer one attend: "nobody is ready here" must not be the last thing that Redis hears.
12. Notices can be lost (a connection breaks, a daemon dies). So the daemon attends again after each reconnect, and
    checks every ``HEARTBEAT_SECONDS`` for queues where messages wait, and for leases that should have ended.

Delivery is at-most-once, in queue order; with leases at-least-once. A maintainer must not write to a consumer without
flushing first, must not await between taking messages (8) and assigning them, and must attend after every change of a
consumer's capacity, or a queue stalls until the next heartbeat.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.application import service
from twisted.internet import defer, task
from twisted.logger import Logger

from restmq.core import RedisOperations
from restmq.delivery.backpressure import BackpressureLimits, SlowConsumers
from restmq.delivery.consumer import CloseReason, Consumer
from restmq.delivery.replay import Markers, ReplayBuffer
from restmq.delivery.subscription import QueueSubscription
from restmq.delivery.tasks import PendingCalls, SingleFlight
from restmq.errors import RestMQError
from restmq.model import BATCH_MAX, Message, Policy
from restmq.queues.results import QueueOverview, ReplayPage
from restmq.store import keys

log = Logger()

#: Maximum delay of messages whose notice was lost (rule 12).
HEARTBEAT_SECONDS = 5.0
#: Time between two comments on an idle stream. They keep proxies from closing it, and find dead clients.
KEEPALIVE_SECONDS = 12.0

_LIMITS = BackpressureLimits()


class Fanout(service.Service):  # type: ignore[misc]  # untyped
    """All live consumers of this daemon. Transports call ``connect`` and ``leave``."""

    def __init__(self, core: RedisOperations, reactor: Any, limits: BackpressureLimits = _LIMITS) -> None:
        self.limits = limits
        self.dropped = 0
        self.seconds: Callable[[], float] = reactor.seconds
        self._core = core
        self._reactor = reactor
        self._slow_consumers = SlowConsumers(reactor)
        self._subscriptions: dict[str, QueueSubscription] = {}
        self._unflushed: list[str] = []
        self._markers = Markers()
        self._channel = keys.daemon_channel(secrets.token_hex(8))
        self._subscriber = core.pubsub(
            self._received, on_lost=self._markers.cancel_all, on_renewed=self._subscriber_renewed
        )
        self._subscribed = False
        self._calls = PendingCalls()
        self._heartbeat = task.LoopingCall(self._beat)
        self._keepalive = task.LoopingCall(self._keep_alive)
        self._heartbeat.clock = self._keepalive.clock = reactor

    def startService(self) -> None:
        super().startService()
        self._heartbeat.start(HEARTBEAT_SECONDS, now=False)
        self._keepalive.start(KEEPALIVE_SECONDS, now=False)

    def stopService(self) -> defer.Deferred[Any]:
        """Closes all consumers. Fires when their undelivered and unacked messages are back in Redis."""
        super().stopService()
        for timer in (self._heartbeat, self._keepalive):
            if timer.running:
                timer.stop()
        for queue in list(self._subscriptions):
            self._close_all(queue, CloseReason.SHUTDOWN)
        self._subscriber.stop()
        return defer.ensureDeferred(self._calls.finish())

    def _channel_of(self, queue: str) -> bytes:
        return keys.for_queue(queue, self._core.store.settings.db).channel

    def count(self, queue: str) -> int:
        """Number of the queue's consumers on this daemon."""
        return len(self.consumers(queue))

    @property
    def queues(self) -> list[str]:
        """The queues with consumers on this daemon."""
        return list(self._subscriptions)

    def consumers(self, queue: str) -> Sequence[Consumer]:
        """The queue's consumers on this daemon, in the order in which they connected."""
        subscription = self._subscriptions.get(queue)
        return subscription.consumers if subscription else ()

    # Consumers connect and leave

    def connect(self, queue: str, consumer: Consumer, last_key: str | None) -> None:
        """Adds a consumer; ``resume`` if the client names the last message that it saw, else ``join``."""
        if last_key:
            self.resume(queue, consumer, last_key)
        else:
            self.join(queue, consumer)

    def resume(self, queue: str, consumer: Consumer, last_key: str) -> None:
        """Adds a consumer that first gets the messages after ``last_key`` (see ``delivery/replay.py``)."""
        buffer = ReplayBuffer(self, queue, consumer)
        self.join(queue, buffer)
        defer.ensureDeferred(self._resume(queue, buffer, last_key)).addErrback(self._resume_failed, queue, buffer)

    async def _resume(self, queue: str, buffer: ReplayBuffer, last_key: str) -> None:
        await self._subscriptions[queue].subscribed  # type: ignore[misc]  # set by join
        missed = await self._markers.read(buffer, lambda marker: self._read_history(queue, last_key, marker))
        self._flush()
        subscription = self._subscriptions.get(queue)
        if subscription is not None and buffer in subscription.consumers:
            subscription.consumers[subscription.consumers.index(buffer)] = buffer.consumer
            buffer.release(missed, last_key)
            self._slow_consumers.release(buffer)
            self._attend(queue)

    async def _read_history(self, queue: str, last_key: str, marker: str) -> ReplayPage:
        page = found = await self._core.queue_replay(queue, last_key, marker)
        while page.more:
            page = await self._core.queue_replay(queue, page.last_key, marker, continues=True)
            found = replace(page, gap=found.gap or page.gap, messages=found.messages + page.messages)
        return found

    def _resume_failed(self, failure: Any, queue: str, buffer: ReplayBuffer) -> None:
        if not failure.check(RestMQError, defer.CancelledError):
            log.failure("resuming on {queue} failed", failure=failure, queue=queue)
        self.leave(queue, buffer)
        buffer.consumer.close(CloseReason.TRY_AGAIN)

    def join(self, queue: str, consumer: Consumer) -> None:
        """Adds a consumer that gets the messages waiting in the queue, then new ones, in order."""
        subscription = self._subscriptions.get(queue)
        if subscription is None:
            subscription = self._subscriptions[queue] = self._new_subscription(queue)
            subscription.consumers.append(consumer)
            if not self._subscribed:
                self._subscribed = True
                self._subscriber.subscribe(self._channel)
            subscription.subscribed = self._subscriber.subscribe(self._channel_of(queue))
            subscription.subscribed.addCallback(lambda _: self._attend(queue))
        else:
            self._flush()
            subscription.consumers.append(consumer)
            if subscription.policy is Policy.ROUNDROBIN:
                self._attend(queue)

    def leave(self, queue: str, consumer: Consumer) -> None:
        """Removes a consumer. Does nothing if it has left already."""
        subscription = self._subscriptions.get(queue)
        position = subscription.position(consumer) if subscription is not None else None
        if subscription is None or position is None:
            return
        self._slow_consumers.release(subscription.consumers.pop(position))
        if consumer.leases:
            leases = subscription.forget_leases(consumer)
            self._calls.put_back(queue, len(leases), self._core.queue_release(queue, leases))
        if position < subscription.cursor:
            subscription.cursor -= 1
        if not subscription.consumers:
            self._subscriber.unsubscribe(self._channel_of(queue))
            del self._subscriptions[queue]
        if subscription.policy is Policy.ROUNDROBIN:
            subscription.attending.request()

    def drop(self, queue: str, consumer: Consumer) -> None:
        """Removes and closes a consumer that is too far behind."""
        self.dropped += 1
        log.warn(
            "a consumer of {queue} was dropped: it left more than {limit} bytes unread.",
            queue=queue,
            limit=self.limits.unsent_bytes,
        )
        self.leave(queue, consumer)
        consumer.close(CloseReason.TOO_SLOW)

    def ready(self, queue: str, consumer: Consumer) -> None:
        """A consumer that was full can take messages again."""
        self._slow_consumers.release(consumer)
        subscription = self._subscriptions.get(queue)
        if subscription is not None and subscription.policy is Policy.ROUNDROBIN:
            subscription.attending.request()

    def _close_all(self, queue: str, reason: CloseReason) -> None:
        for consumer in list(self.consumers(queue)):
            self.leave(queue, consumer)
            consumer.close(reason)

    # Messages from Redis

    def _received(self, channel: bytes, payload: bytes) -> None:
        if channel == self._channel:
            self._told(payload.decode())
            return
        queue = channel.rpartition(b":PUBSUB")[0].decode()
        subscription = self._subscriptions.get(queue)
        if subscription is None:
            return
        kind, _, rest = payload.partition(b" ")
        if kind == b"message":
            key, _, value = rest.partition(b"\n")
            if not subscription.arrived:
                self._unflushed.append(queue)
                if len(self._unflushed) == 1:
                    self._reactor.callLater(0, self._flush)
            subscription.arrived.append(Message(key.decode(), value))
        elif kind == b"close":
            self._flush()
            self._close_all(queue, CloseReason.QUEUE_DELETED)
        elif kind in (b"drain", b"changed"):
            self._attend(queue)
        elif kind == b"mark" and self._markers.is_awaited(rest.decode()):
            self._flush()
            self._markers.arrive(rest.decode())

    def _told(self, notice: str) -> None:
        """A notice on the daemon's own channel: attend to a queue, or a lease has ended."""
        queue, _, ended = notice.partition("\n")
        subscription = self._subscriptions.get(queue)
        if not ended:
            (subscription or self._new_subscription(queue)).attending.request()  # rule 9
        elif subscription is not None and subscription.end_lease(ended.rsplit(" ", 1)[1]):
            self._attend(queue)

    def _subscriber_renewed(self) -> None:
        self._markers.cancel_all()
        for queue, subscription in list(self._subscriptions.items()):
            subscription.mark_leases_overdue()
            self._check_leases(queue, subscription)
            self._attend(queue)

    def _beat(self) -> None:
        """Finds what no notice told of, in one call for all queues (rule 12)."""
        for queue, subscription in list(self._subscriptions.items()):
            if subscription.overdue(self.seconds(), 1):
                self._check_leases(queue, subscription)
        if self._subscriptions and self._core.store.connected:
            asked = defer.ensureDeferred(self._core.queue_overview(list(self._subscriptions)))
            asked.addCallbacks(self._attend_to_waiting, lambda failure: failure.trap(RestMQError))

    def _attend_to_waiting(self, rows: list[QueueOverview]) -> None:
        for row in rows:
            if row.length and row.started:
                self._attend(row.name)

    def _check_leases(self, queue: str, subscription: QueueSubscription) -> None:
        self._calls.run(self._update_leases(queue, subscription)).addErrback(partial(self._attend_failed, queue))

    async def _update_leases(self, queue: str, subscription: QueueSubscription) -> None:
        while leases := subscription.overdue(self.seconds(), BATCH_MAX):
            left_seconds = await self._core.queue_lease_remaining(queue, leases)
            if subscription.update_leases(leases, left_seconds, self.seconds()):
                self._attend(queue)

    def _keep_alive(self) -> None:
        for queue in self.queues:
            for consumer in list(self.consumers(queue)):  # a write may drop a consumer
                if consumer.format.keepalive:
                    consumer.write(consumer.format.keepalive)

    # Attending

    def _new_subscription(self, queue: str) -> QueueSubscription:
        return QueueSubscription(
            lambda subscription: SingleFlight(
                partial(self._attend_once, queue, subscription), partial(self._attend_failed, queue), self._calls.run
            )
        )

    def _attend(self, queue: str) -> None:
        subscription = self._subscriptions.get(queue)
        if subscription is not None:
            subscription.attending.request()

    async def _attend_once(self, queue: str, subscription: QueueSubscription) -> None:
        try:
            if subscription.policy is Policy.BROADCAST:
                self._flush()  # what was published before must be in the transports, or they don't look full
                await self._slow_consumers.wait(subscription.consumers)
            if self._is_replaced(queue, subscription):
                return
            lease_ms, weight, capacity = subscription.demand()
            backlog_bytes = self.limits.unsent_bytes if subscription.consumers else 0
            found = await self._core.queue_attend(queue, self._channel, weight, capacity, lease_ms, backlog_bytes)
            subscription.policy = found.policy
            if found.messages:
                self._deliver_in_turn(queue, subscription, found.messages, lease_ms)
            if found.call_again or (capacity == 1 and found.messages):
                subscription.attending.request()
        finally:
            if self._is_replaced(queue, subscription):
                self._attend(queue)  # rule 11

    def _is_replaced(self, queue: str, subscription: QueueSubscription) -> bool:
        return self._subscriptions.get(queue, subscription) is not subscription

    def _attend_failed(self, queue: str, failure: Any) -> None:
        # Without Redis there is nothing to attend to. The reconnect and the heartbeat attend again.
        if failure.check(RestMQError):
            log.debug("could not attend to {queue}: {why}", queue=queue, why=failure.getErrorMessage())
        else:
            log.failure("attending to {queue} failed", failure=failure, queue=queue)

    # Delivery

    def _flush(self) -> None:
        """Writes the broadcast messages of this reactor turn."""
        unflushed, self._unflushed = self._unflushed, []
        for queue in unflushed:
            subscription = self._subscriptions.get(queue)
            if subscription is not None and subscription.arrived:
                messages, subscription.arrived = subscription.arrived, []
                subscription.broadcast(messages)

    def _deliver_in_turn(
        self, queue: str, subscription: QueueSubscription, messages: list[Message], lease_ms: int
    ) -> None:
        """Gives each message to the next ready consumer; the rest goes back to the front of the queue (rule 8)."""
        self._flush()
        served, left = subscription.assign(messages, lease_ms, self.seconds())
        if left:
            self._calls.put_back(queue, len(left), self._core.queue_put_back(queue, left))
        for consumer, share in served:
            consumer.write(b"".join(map(consumer.format.message, share)))
