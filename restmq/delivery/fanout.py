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
5.  Anything that depends on the order (a consumer joins, a marker arrives, the queue is deleted) flushes first.
6.  Drain: messages that wait in the queue (the backlog) are published by ``queue_attend``. All that is published, added
    or drained, is under flow control: Redis publishes no more than a window of bytes before the daemons confirm it
    (``queues/lua/_flow.lua``). A daemon confirms when its consumers can take more (``delivery/attending.py``).
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

Delivery is at-most-once, in queue order; with leases at-least-once. A maintainer must not write to a consumer without
flushing first, must not await between taking messages (9) and assigning them, and must attend after every change of a
consumer's capacity, or a queue stalls until the next heartbeat.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from twisted.application import service
from twisted.internet import defer, task
from twisted.logger import Logger

from restmq.core import RedisOperations
from restmq.delivery.attending import Attending
from restmq.delivery.backpressure import BackpressureLimits, SlowConsumers
from restmq.delivery.consumer import CloseReason, Consumer
from restmq.delivery.inbox import ByteBudget, Inbox, Notice, StoredMessage
from restmq.delivery.replay import Markers, ReplayBuffer
from restmq.delivery.subscription import QueueSubscription
from restmq.delivery.tasks import PendingCalls
from restmq.errors import RestMQError
from restmq.model import Message, Policy
from restmq.queues.results import QueueOverview, ReplayPage
from restmq.store import keys

log = Logger()

#: Maximum delay of messages whose notice was lost (rule 13).
HEARTBEAT_SECONDS = 5.0
#: Time between two comments on an idle stream. They keep proxies from closing it, and find dead clients.
KEEPALIVE_SECONDS = 12.0
#: Maximum bytes of the values that are being read from Redis at a time.
_READ_BYTES_MAX = 32 << 20
#: The windows of all queues together (``queues/lua/_flow.lua``), shared out in parts of at least _WINDOW_BYTES_MIN.
_WINDOWS_BYTES = 4 << 20
_WINDOW_BYTES_MIN = 64 << 10

_LIMITS = BackpressureLimits()


@dataclass(slots=True, eq=False)
class _LiveQueue:
    """A queue with consumers on this daemon.

    Attributes:
        subscribed: fires when Redis has confirmed the subscription of the queue's channel.
    """

    subscription: QueueSubscription = field(default_factory=QueueSubscription)
    inbox: Inbox = field(init=False)
    attending: Attending = field(init=False)
    subscribed: defer.Deferred[None] = field(init=False)


class Fanout(service.Service):  # type: ignore[misc]  # untyped
    """All live consumers of this daemon. Transports call ``connect`` and ``leave``.

    Attributes:
        dropped: number of consumers that were dropped because they were too far behind.
        gaps_told: number of consumers that were told of a gap.
    """

    def __init__(self, core: RedisOperations, reactor: Any, limits: BackpressureLimits = _LIMITS) -> None:
        self.limits = limits
        self.dropped = 0
        self.gaps_told = 0
        self.seconds: Callable[[], float] = reactor.seconds
        self._core = core
        self._reactor = reactor
        self._slow_consumers = SlowConsumers(reactor)
        self._live: dict[str, _LiveQueue] = {}
        self._unflushed: list[_LiveQueue] = []
        self._read_budget = ByteBudget(_READ_BYTES_MAX)
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
        for queue in list(self._live):
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
        return list(self._live)

    def consumers(self, queue: str) -> Sequence[Consumer]:
        """The queue's consumers on this daemon, in the order in which they connected."""
        live = self._live.get(queue)
        return live.subscription.consumers if live else ()

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
        await self._live[queue].subscribed
        missed = await self._markers.read(buffer, lambda marker: self._read_history(queue, last_key, marker))
        self._flush()
        live = self._live.get(queue)
        if live is not None and buffer in live.subscription.consumers:
            consumers = live.subscription.consumers
            consumers[consumers.index(buffer)] = buffer.consumer
            buffer.release(missed, last_key)
            self._slow_consumers.release(buffer)
            live.attending.attend()

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
        live = self._live.get(queue)
        if live is None:
            live = self._live[queue] = self._open(queue)
            live.subscription.consumers.append(consumer)
            if not self._subscribed:
                self._subscribed = True
                self._subscriber.subscribe(self._channel)
            live.subscribed = self._subscriber.subscribe(self._channel_of(queue))
            live.subscribed.addCallback(lambda _: self._attend(queue))
        else:
            live.inbox.flush()
            live.subscription.consumers.append(consumer)
            if live.subscription.policy is Policy.ROUNDROBIN:
                live.attending.attend()

    def _open(self, queue: str) -> _LiveQueue:
        live = _LiveQueue()
        live.inbox = Inbox(
            budget=self._read_budget,
            read=self._read_stored,
            deliver=live.subscription.broadcast,
            lose=partial(self._lose, queue, live),
            handle=partial(self._handle, queue, live),
            run=self._calls.run,
        )
        live.attending = Attending(
            core=self._core,
            queue=queue,
            daemon=self._channel,
            subscription=live.subscription,
            slow_consumers=self._slow_consumers,
            window_bytes=self._window_bytes,
            flush=live.inbox.flush,
            is_replaced=lambda: self._live.get(queue, live) is not live,
            attend_anew=partial(self._attend, queue),
            calls=self._calls,
            reactor=self._reactor,
        )
        return live

    def _window_bytes(self) -> int:
        share = max(_WINDOW_BYTES_MIN, _WINDOWS_BYTES // max(1, len(self._live)))
        return max(1, min(share, self.limits.unsent_bytes))

    def leave(self, queue: str, consumer: Consumer) -> None:
        """Removes a consumer. Does nothing if it has left already."""
        live = self._live.get(queue)
        position = live.subscription.position(consumer) if live is not None else None
        if live is None or position is None:
            return
        subscription = live.subscription
        self._slow_consumers.release(subscription.consumers.pop(position))
        if consumer.leases:
            leases = subscription.forget_leases(consumer)
            self._calls.put_back(queue, len(leases), self._core.queue_release(queue, leases))
        if position < subscription.cursor:
            subscription.cursor -= 1
        if not subscription.consumers:
            self._subscriber.unsubscribe(self._channel_of(queue))
            del self._live[queue]
            live.inbox.clear()
            live.attending.stop()
        if subscription.policy is Policy.ROUNDROBIN:
            live.attending.attend()

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
        live = self._live.get(queue)
        if live is not None and live.subscription.policy is Policy.ROUNDROBIN:
            live.attending.attend()

    def _close_all(self, queue: str, reason: CloseReason) -> None:
        for consumer in list(self.consumers(queue)):
            self.leave(queue, consumer)
            consumer.close(reason)

    # Messages from Redis

    def _received(self, channel: bytes, payload: bytes) -> None:
        if channel == self._channel:
            self._handle_notice(payload.decode())
            return
        live = self._live.get(channel.rpartition(b":PUBSUB")[0].decode())
        if live is None:
            return
        kind, _, rest = payload.partition(b" ")
        if kind == b"message":
            key, _, value = rest.partition(b"\n")
            if not live.inbox:
                self._unflushed.append(live)
                if len(self._unflushed) == 1:
                    self._reactor.callLater(0, self._flush)
            live.inbox.append(Message(key.decode(), value))
        elif kind == b"stored":
            size, _, key = rest.partition(b" ")
            live.inbox.append(StoredMessage(key.decode(), int(size)))
            live.inbox.flush()
        elif kind in (b"drain", b"changed"):
            live.attending.attend()
        else:
            live.inbox.append(Notice(kind, rest.decode()))
            live.inbox.flush()

    def _flush(self) -> None:
        """Delivers the broadcast messages of this reactor turn."""
        unflushed, self._unflushed = self._unflushed, []
        for live in unflushed:
            live.inbox.flush()

    def _handle(self, queue: str, live: _LiveQueue, notice: Notice) -> None:
        """Handles a notice when all messages before it are delivered."""
        if notice.kind == b"sync":
            live.attending.reach_round(int(notice.text))
        elif notice.kind == b"close":
            self._close_all(queue, CloseReason.QUEUE_DELETED)
        elif notice.kind == b"mark" and self._markers.is_awaited(notice.text):
            self._markers.arrive(notice.text)

    async def _read_stored(self, key: str) -> bytes | None:
        try:
            return await self._core.queue_stored_value(key)
        except RestMQError:
            return None

    def _lose(self, queue: str, live: _LiveQueue, key: str) -> None:
        """The value of a stored message could not be read."""
        log.warn(
            "message {key} could not be read; the consumers of {queue} on this server get a gap notice instead.",
            key=key,
            queue=queue,
        )
        self.gaps_told += live.subscription.tell_gap()

    def _handle_notice(self, notice: str) -> None:
        """A notice on the daemon's own channel: attend to a queue, or a lease has ended."""
        queue, _, ended = notice.partition("\n")
        live = self._live.get(queue)
        if not ended and live is None:
            self._calls.run(self._pass_turn(queue)).addErrback(lambda failure: failure.trap(RestMQError))
        elif live is not None and (not ended or live.subscription.end_lease(ended.rsplit(" ", 1)[1])):
            live.attending.attend()

    async def _pass_turn(self, queue: str) -> None:
        """Attends without consumers (rule 10)."""
        try:
            await self._core.queue_attend(queue, self._channel, 0, 0, window_bytes=0)
        finally:
            self._attend(queue)  # consumers may have joined meanwhile (rule 12)

    def _attend(self, queue: str) -> None:
        live = self._live.get(queue)
        if live is not None:
            live.attending.attend()

    # Lost notices

    def _subscriber_renewed(self) -> None:
        self._markers.cancel_all()
        for live in list(self._live.values()):
            live.subscription.mark_leases_overdue()
            live.attending.check_leases()
            live.attending.attend()

    def _beat(self) -> None:
        """Finds messages and leases whose notices were lost, in one call for all queues (rule 13)."""
        for live in list(self._live.values()):
            if live.subscription.overdue(self.seconds(), 1):
                live.attending.check_leases()
        if self._live and self._core.store.connected:
            asked = defer.ensureDeferred(self._core.queue_overview(list(self._live)))
            asked.addCallbacks(self._attend_to_waiting, lambda failure: failure.trap(RestMQError))

    def _attend_to_waiting(self, rows: list[QueueOverview]) -> None:
        for row in rows:
            if row.length and row.started:
                self._attend(row.name)

    def _keep_alive(self) -> None:
        for queue in self.queues:
            for consumer in list(self.consumers(queue)):  # a write may drop a consumer
                if consumer.format.keepalive:
                    consumer.write(consumer.format.keepalive)
