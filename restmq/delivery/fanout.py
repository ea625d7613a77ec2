"""Live consumers: who listens to which queue on this daemon, and how messages reach them.

A daemon subscribes to a queue's channel while it has at least one consumer of it; that subscription is all the presence
there is. Broadcast messages arrive on that channel and go to every consumer. With round robin the daemon is told on a
channel of its own when it is its turn, and takes what its ready consumers can hold. What reaches a consumer this way is
delivered at-most-once, in queue order.

A message is rendered once per frame format, and what comes in one reactor turn goes to a consumer in one write.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application import service
from twisted.internet import defer, task
from twisted.logger import Logger

from restmq.core import RedisOperations
from restmq.delivery.backpressure import BackpressureLimits, Pace
from restmq.delivery.consumer import CloseReason, Consumer
from restmq.delivery.replay import Marks, ReplayBuffer
from restmq.delivery.subscription import QueueSubscription
from restmq.delivery.tasks import PendingCalls
from restmq.errors import RestMQError
from restmq.model import BATCH_MAX, Message, Policy
from restmq.queues.results import QueueOverview
from restmq.store import keys

log = Logger()

#: Presence that a dead daemon left behind, or a wake-up that died with it, is made good after this time at the latest.
HEARTBEAT_SECONDS = 5.0
#: How often a stream that knows comments sends one, so that proxies and dead peers are found out.
KEEPALIVE_SECONDS = 12.0

BACKPRESSURE_LIMITS = BackpressureLimits()


class Fanout(service.Service):  # type: ignore[misc]  # untyped
    """All consumers of this daemon. ``join`` and ``leave`` are for transports; the rest happens by itself."""

    def __init__(self, core: RedisOperations, reactor: Any, patience: BackpressureLimits = BACKPRESSURE_LIMITS) -> None:
        self.patience = patience
        self.dropped = 0
        self.seconds: Callable[[], float] = reactor.seconds
        self._core = core
        self._reactor = reactor
        self._pace = Pace(reactor)
        self._queues: dict[str, QueueSubscription] = {}
        self._dirty: list[str] = []
        self._marks = Marks()
        self._channel = keys.daemon_channel(secrets.token_hex(8))
        self._subscriber = core.pubsub(self._heard, on_lost=self._marks.give_up, on_renewed=self._subscriber_renewed)
        self._listening = False
        self._under_way = PendingCalls()
        self._heartbeat = task.LoopingCall(self._beat)
        self._keepalive = task.LoopingCall(self._keep_alive)
        self._heartbeat.clock = self._keepalive.clock = reactor

    def startService(self) -> None:
        super().startService()
        self._heartbeat.start(HEARTBEAT_SECONDS, now=False)
        self._keepalive.start(KEEPALIVE_SECONDS, now=False)

    def stopService(self) -> defer.Deferred[Any]:
        super().stopService()
        for timer in (self._heartbeat, self._keepalive):
            if timer.running:
                timer.stop()
        for queue in list(self._queues):
            self._close_all(queue, CloseReason.SHUTDOWN)
        self._subscriber.stop()
        # What was taken or leased for consumers that are gone is to be back in Redis.
        return defer.ensureDeferred(self._under_way.settle())

    def _channel_of(self, queue: str) -> bytes:
        return keys.for_queue(queue, self._core.store.settings.db).channel

    def count(self, queue: str) -> int:
        """How many consumers of the queue this daemon has."""
        attended = self._queues.get(queue)
        return len(attended.consumers) if attended else 0

    @property
    def queues(self) -> list[str]:
        """The queues that this daemon has consumers of."""
        return list(self._queues)

    def consumers(self, queue: str) -> Sequence[Consumer]:
        """This daemon's consumers of the queue, in the order in which they came."""
        attended = self._queues.get(queue)
        return attended.consumers if attended else ()

    def come(self, queue: str, consumer: Consumer, last_key: str | None) -> None:
        """``resume`` if the consumer says what it saw last, else ``join``."""
        if last_key:
            self.resume(queue, consumer, last_key)
        else:
            self.join(queue, consumer)

    def resume(self, queue: str, consumer: Consumer, last_key: str) -> None:
        """As ``join``, for a consumer that has been here before: first it gets what it missed since that message.

        At the seam there is neither a gap nor a repeat. Where the queue's history no longer reaches back so far, the
        consumer is told so first.
        """
        held = ReplayBuffer(self, queue, consumer)
        self.join(queue, held)
        defer.ensureDeferred(self._resume(queue, held, last_key)).addErrback(self._resume_failed, queue, held)

    async def _resume(self, queue: str, held: ReplayBuffer, last_key: str) -> None:
        await self._queues[queue].subscribed  # type: ignore[misc]  # set by join
        missed = await self._marks.look(held, lambda mark: self._core.queue_missed(queue, last_key, mark))
        self._flush()
        attended = self._queues.get(queue)
        if attended is not None and held in attended.consumers:
            attended.consumers[attended.consumers.index(held)] = held.consumer
            held.release(missed, last_key)
            self._pace.relieve(held)
            self._attend(queue)

    def _resume_failed(self, failure: Any, queue: str, held: ReplayBuffer) -> None:
        # The client comes back by itself, and asks anew.
        if not failure.check(RestMQError, defer.CancelledError):
            log.failure("resuming on {queue} failed", failure=failure, queue=queue)
        self.leave(queue, held)
        held.consumer.close(CloseReason.TRY_AGAIN)

    def join(self, queue: str, consumer: Consumer) -> None:
        """A consumer has come: it gets what waits in the queue first, then what comes, in order."""
        attended = self._queues.get(queue)
        if attended is None:
            attended = self._queues[queue] = QueueSubscription()
            attended.consumers.append(consumer)
            if not self._listening:
                self._listening = True
                self._subscriber.subscribe(self._channel)
            attended.subscribed = self._subscriber.subscribe(self._channel_of(queue))
            attended.subscribed.addCallback(lambda _: self._attend(queue))
        else:
            self._flush()  # what arrived before it came is not for it
            attended.consumers.append(consumer)
            if attended.policy is Policy.ROUNDROBIN:
                self._attend(queue)

    def leave(self, queue: str, consumer: Consumer) -> None:
        """A consumer has gone. It may have left already."""
        attended = self._queues.get(queue)
        position = attended.position(consumer) if attended is not None else None
        if attended is None or position is None:
            return
        self._pace.relieve(attended.consumers.pop(position))
        if consumer.held:
            self._give_back(queue, attended, consumer)
        if position < attended.cursor:
            attended.cursor -= 1
        if not attended.consumers:
            self._subscriber.unsubscribe(self._channel_of(queue))
            del self._queues[queue]
        if attended.policy is Policy.ROUNDROBIN:
            self._attend(queue, attended)

    def drop(self, queue: str, consumer: Consumer) -> None:
        """A consumer is further behind than it may be: it is closed, and nobody else notices."""
        self.dropped += 1
        log.warn(
            "a consumer of {queue} was dropped: it left more than {limit} bytes unread.",
            queue=queue,
            limit=self.patience.unsent_bytes,
        )
        self.leave(queue, consumer)
        consumer.close(CloseReason.TOO_SLOW)

    def ready(self, queue: str, consumer: Consumer) -> None:
        """A consumer that was full can take messages again."""
        self._pace.relieve(consumer)
        attended = self._queues.get(queue)
        if attended is not None and attended.policy is Policy.ROUNDROBIN:
            self._attend(queue)

    # What Redis says

    def _heard(self, channel: bytes, payload: bytes) -> None:
        if channel == self._channel:
            told, _, settled = payload.decode().partition("\n")
            if settled:
                self._settled(told, settled.rsplit(" ", 1)[1])
                return
            # A queue whose consumers have gone meanwhile is attended to by nobody, which passes the turn on.
            self._attend(told, self._queues.get(told) or QueueSubscription())
            return
        queue = channel.rpartition(b":PUBSUB")[0].decode()
        attended = self._queues.get(queue)
        if attended is None:
            return
        kind, _, rest = payload.partition(b" ")
        if kind == b"message":
            key, _, value = rest.partition(b"\n")
            if not attended.arrived:
                self._dirty.append(queue)
                if len(self._dirty) == 1:
                    self._reactor.callLater(0, self._flush)
            attended.arrived.append(Message(key.decode(), value))
        elif kind == b"close":
            self._flush()
            self._close_all(queue, CloseReason.QUEUE_DELETED)
        elif kind in (b"drain", b"changed"):
            self._attend(queue)
        elif kind == b"mark" and self._marks.knows(rest.decode()):
            self._flush()
            self._marks.hear(rest.decode())

    def _settled(self, queue: str, receipt: str) -> None:
        """A lease has ended: its consumer may have another message."""
        attended = self._queues.get(queue)
        if attended is not None and attended.settle(receipt):
            self._attend(queue)

    async def _check_leases(self, queue: str, attended: QueueSubscription) -> None:
        """Asks Redis for leases that should be over; a word of their end may have been lost, or come before them."""
        while leases := attended.overdue(self.seconds(), BATCH_MAX):
            left_seconds = await self._core.queue_leases_left(queue, leases)
            if attended.check(leases, left_seconds, self.seconds()):
                self._attend(queue)

    def _give_back(self, queue: str, attended: QueueSubscription, consumer: Consumer) -> None:
        """What a consumer that goes has not acked comes back at once."""
        leases = attended.let_go(consumer)
        back = self._under_way.run(self._core.queue_release(queue, leases))
        back.addErrback(
            lambda failure: log.warn(
                "{count} messages of {queue} come back only when their leases are over: {why}",
                count=len(leases),
                queue=queue,
                why=failure.getErrorMessage(),
            )
        )

    def _subscriber_renewed(self) -> None:
        self._marks.give_up()
        for queue, attended in list(self._queues.items()):
            attended.doubt_all()
            self._check(queue, attended)
            self._attend(queue)

    def _check(self, queue: str, attended: QueueSubscription) -> None:
        self._under_way.run(self._check_leases(queue, attended)).addErrback(self._attend_failed, queue)

    def _beat(self) -> None:
        """Once in a while, and in one call, looks whether a queue with consumers holds what nobody was told of."""
        for queue, attended in list(self._queues.items()):
            if attended.overdue(self.seconds(), 1):
                self._check(queue, attended)
        if self._queues and self._core.store.connected:
            asked = defer.ensureDeferred(self._core.queue_overview(list(self._queues)))
            asked.addCallbacks(self._attend_to_waiting, lambda failure: failure.trap(RestMQError))

    def _attend_to_waiting(self, lines: list[QueueOverview]) -> None:
        for line in lines:
            if line.length and line.started:
                self._attend(line.name)

    def _keep_alive(self) -> None:
        for attended in list(self._queues.values()):
            for consumer in list(attended.consumers):  # one that is too far behind leaves meanwhile
                if consumer.format.keepalive:
                    consumer.write(consumer.format.keepalive)

    # Attending: one call under way per queue

    def _attend(self, queue: str, attended: QueueSubscription | None = None) -> None:
        attended = attended or self._queues.get(queue)
        if attended is None:
            return
        if attended.attending:
            attended.attend_again = True
            return
        attended.attending = True
        self._under_way.run(self._attend_until_done(queue, attended)).addErrback(self._attend_failed, queue)

    async def _attend_until_done(self, queue: str, attended: QueueSubscription) -> None:
        try:
            again = True
            while again and not self._is_replaced(queue, attended):
                if attended.policy is Policy.BROADCAST:
                    self._flush()  # what was published before is to be in their transports
                    await self._pace.let_read(attended.consumers)
                attended.attend_again = False
                lease_ms, weight, room = attended.demand()
                backlog_bytes = self.patience.unsent_bytes if attended.consumers else 0
                found = await self._core.queue_attend(queue, self._channel, weight, room, lease_ms, backlog_bytes)
                attended.policy = found.policy
                if found.messages:
                    self._in_turn(queue, attended, found.messages, lease_ms)
                again = found.call_again or attended.attend_again or (room == 1 and bool(found.messages))
        finally:
            attended.attending = False
            if self._is_replaced(queue, attended):  # that nobody was ready here must not be the last word
                self._attend(queue)

    def _is_replaced(self, queue: str, attended: QueueSubscription) -> bool:
        """Whether all consumers had gone, and others have come since."""
        return self._queues.get(queue, attended) is not attended

    def _attend_failed(self, failure: Any, queue: str) -> None:
        # While Redis is away there is nothing to attend to; the reconnect and the heartbeat attend again.
        if failure.check(RestMQError):
            log.debug("could not attend to {queue}: {why}", queue=queue, why=failure.getErrorMessage())
        else:
            log.failure("attending to {queue} failed", failure=failure, queue=queue)

    # Delivery

    def _flush(self) -> None:
        """Sends what was broadcast in this reactor turn."""
        dirty, self._dirty = self._dirty, []
        for queue in dirty:
            attended = self._queues.get(queue)
            if attended is not None and attended.arrived:
                messages, attended.arrived = attended.arrived, []
                attended.to_all(messages)

    def _in_turn(self, queue: str, attended: QueueSubscription, messages: list[Message], lease_ms: int) -> None:
        """Each message to the next consumer that is ready; those that none could take go back to the queue's front."""
        self._flush()
        served, left = attended.share_out(messages, lease_ms, self.seconds())
        if left:
            self._return(queue, left)
        for consumer, share in served:
            consumer.write(b"".join(map(consumer.format.message, share)))

    def _return(self, queue: str, messages: list[Message]) -> None:
        returned = self._under_way.run(self._core.queue_return(queue, messages))
        returned.addErrback(
            lambda failure: log.error(
                "{count} messages of {queue} could not be put back: {why}",
                count=len(messages),
                queue=queue,
                why=failure.getErrorMessage(),
            )
        )

    def _close_all(self, queue: str, reason: CloseReason) -> None:
        attended = self._queues.get(queue)
        for consumer in list(attended.consumers) if attended else []:
            self.leave(queue, consumer)
            consumer.close(reason)
