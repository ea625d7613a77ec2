"""A queue with live consumers here: the calls to Redis for it, incoming messages and notices, and replays.

``fanout.py`` has the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.delivery.consumer import CloseReason, Consumer, write_gap, write_messages
from restmq.delivery.format import prepare_all
from restmq.delivery.inbox import Inbox, Notice
from restmq.delivery.replay import Replay
from restmq.delivery.shared import Shared
from restmq.delivery.subscription import QueueSubscription
from restmq.errors import RestMQError
from restmq.model import BATCH_MAX, Message, Policy
from restmq.queues.base import State
from restmq.queues.broadcast import HELD_MS_MAX
from restmq.store.batching import SingleFlight

log = Logger()

#: After this time a queue that is held back can be published again; see HELD_MS in ``queues/lua/_flow.lua``.
_HELD_SECONDS = 1.0


class LiveQueue:
    """Everything that the daemon has for one queue.

    Attributes:
        channels: the queue's channel, and that on which the daemon gets notices for the queue.

    Args:
        window_bytes: returns the number of unconfirmed bytes to grant.
        current: returns the live queue of this name: another one if all consumers left and others joined, or None.
        close: closes the queue's consumers.
    """

    def __init__(
        self,
        queue: str,
        shared: Shared,
        *,
        window_bytes: Callable[[], int],
        current: Callable[[], LiveQueue | None],
        close: Callable[[CloseReason, list[Consumer]], None],
    ) -> None:
        layout, run = shared.core.layout, shared.calls.run
        self._daemon = layout.daemon_channel(shared.daemon, queue)
        self.channels = frozenset((layout.for_queue(queue).channel, self._daemon))
        self.subscription = QueueSubscription()
        self.consumers = self.subscription.consumers
        self.is_followed = False
        self.queue = queue
        self._tag_bytes = len(layout.tag(queue))
        self._shared = shared
        self._core = shared.core
        self._window_bytes = window_bytes
        self._current = current
        self._close = close
        self._subscribed: defer.Deferred[None] = defer.Deferred()
        #: The latest replay that begins after a message, by its key and number.
        self._replays: WeakValueDictionary[tuple[str, int | None], Replay] = WeakValueDictionary()
        self._is_first = True
        self._round = 0
        self._timer: Any = None
        self._attending = SingleFlight(self._attend_once, self._failed, run)
        self._confirming = SingleFlight(self._confirm_once, self._failed, run)
        self._checking = SingleFlight(self._check_leases_once, self._failed, run)
        self.inbox = Inbox(
            queue,
            shared,
            read=shared.core.queue_stored_value,
            consumers=self.consumers,
            deliver=self._deliver,
            lose=self._lose,
            handle=self._handle,
        )

    def follow(self, subscribed: defer.Deferred[None]) -> None:
        """Begins when Redis has confirmed the subscription of the queue's channel."""
        self.is_followed = True
        subscribed.addCallback(self._begin)

    def _begin(self, _: None) -> None:
        self._subscribed.callback(None)
        current = self._current()
        if current is not None:
            current.attend()

    def capacity_changed(self) -> None:
        """A consumer joined, left, or can take more."""
        if self.subscription.policy is Policy.ROUNDROBIN:
            self.attend()

    def stop(self) -> None:
        """The last consumer has left."""
        self.inbox.close()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _failed(self, failure: Failure) -> None:
        # Without Redis there is nothing to attend to. The reconnect and the heartbeat attend again.
        if not failure.check(RestMQError):
            log.failure("attending to {queue} failed", failure=failure, queue=self.queue)

    # Attending

    def attend(self) -> None:
        """Asks Redis for messages, now or after the call in progress."""
        self._attending.request()

    def _successor(self) -> LiveQueue | None:
        current = self._current()
        return current if current is not self else None

    async def _attend_once(self) -> None:
        subscription = self.subscription
        try:
            if subscription.policy is Policy.BROADCAST:
                self.inbox.flush()  # earlier messages must be in the transports first, so that full ones are known
                await self._shared.slow_consumers.wait(subscription.live)
            if self._successor():
                return
            lease_ms, weight, capacity = subscription.demand()
            found = await self._core.queue_attend(
                self.queue,
                self._daemon,
                weight=weight,
                capacity=capacity,
                lease_ms=lease_ms,
                window_bytes=self._window_bytes() if self.consumers else 0,
                is_first=self._is_first,
            )
            self._is_first = False
            subscription.policy = found.policy
            if found.messages:
                await self._deliver_in_turn(found.messages, lease_ms)
            if found.call_again or (capacity == 1 and found.messages):
                self.attend()
            if found.is_held_back:
                self._attend_later()
        finally:
            if successor := self._successor():
                successor.attend()

    async def _deliver_in_turn(self, messages: list[Message], lease_ms: int) -> None:
        """Gives each message to the next ready consumer; the rest goes back to the front of the queue."""
        self.inbox.flush()
        served, left = self.subscription.assign(messages, lease_ms, self._shared.reactor.seconds())
        if left:
            self._put_back(left)
        for consumer, share in served:
            prepared = await prepare_all(share, [consumer], self._shared.turns)
            if consumer in self.consumers:
                try:
                    write_messages([consumer], prepared)
                except Exception:  # e.g. a record that another program wrote; the other consumers get theirs
                    log.failure("delivering messages of {queue} failed", queue=self.queue)
            elif not lease_ms:  # it left meanwhile; leases that it had are released
                self._put_back(share)

    def _put_back(self, messages: list[Message]) -> None:
        self._shared.calls.put_back(self.queue, len(messages), self._core.queue_put_back(self.queue, messages))

    def _attend_later(self) -> None:
        """Attends after the longest time that a queue is held back: a daemon may never confirm."""
        if self.consumers and (self._timer is None or not self._timer.active()):
            self._timer = self._shared.reactor.callLater(_HELD_SECONDS, self.attend)

    async def _confirm_once(self) -> None:
        round_number = self._round
        while not await self._shared.slow_consumers.wait(self.subscription.live, _HELD_SECONDS / 2):
            await self._core.queue_hold(self.queue, HELD_MS_MAX)
        state = await self._core.queue_confirm(self.queue, round_number, self._window_bytes(), self._daemon)
        if state is State.HELD_BACK:
            self._attend_later()
        elif state is State.MORE:
            self.attend()

    def check_leases(self) -> None:
        """Asks Redis about leases that should have ended."""
        self._checking.request()

    async def _check_leases_once(self) -> None:
        subscription = self.subscription
        while leases := subscription.overdue(self._shared.reactor.seconds(), BATCH_MAX):
            left_seconds = await self._core.queue_lease_remaining(self.queue, leases)
            if subscription.update_leases(leases, left_seconds, self._shared.reactor.seconds()):
                self.attend()

    # What arrives on the queue's channel

    def receive(self, kind: bytes, content: bytes) -> None:
        """A message or a notice arrived."""
        if kind in (b"drain", b"changed"):
            self.attend()
        else:
            self.inbox.receive(kind, content)

    def _deliver(self, messages: list[Message]) -> None:
        subscription, last_key = self.subscription, self.subscription.last_key
        try:
            subscription.broadcast(messages)
        except Exception:  # e.g. a record that another program wrote; whoever got the messages is told too
            self._shared.counters.gaps += len(subscription.live)
            write_gap(subscription.live, last_key)
            raise

    def _handle(self, notice: Notice) -> None:
        """Handles a notice when all messages before it are delivered."""
        if notice.kind == b"sync":
            self._round = int(notice.text)
            self._confirming.request()
        elif notice.kind == b"close":
            self._close(CloseReason.QUEUE_DELETED, list(self.consumers))
        elif notice.kind == b"mark":
            marker, last_number, last_key = notice.text.split(" ", 2)
            self.subscription.reach_marker(marker, int(last_number), last_key[self._tag_bytes :])

    def _lose(self, key: str) -> None:
        log.warn(
            "message {key} could not be read in time. The consumers of {queue} get it from the queue's history, or are "
            "told of a gap.",
            key=key,
            queue=self.queue,
        )
        self._replay_live()

    # Replays

    def replay(self, members: list[Consumer], last_key: str, last_number: int | None) -> None:
        """Brings consumers up to date, then makes them live (see ``replay.py``)."""
        begun = self._replays.get((last_key, last_number))
        if begun is not None and begun.admits():
            begun.members += members
            return
        replay = Replay(self.queue, self._shared, members, last_key, last_number)
        self._replays[last_key, last_number] = replay
        self.subscription.replays.append(replay)
        defer.ensureDeferred(self._run(replay)).addErrback(self._replay_failed, replay)

    async def _run(self, replay: Replay) -> None:
        await self._subscribed
        await replay.run()
        self.subscription.replays.remove(replay)
        self.subscription.live += replay.members
        if replay.members:
            self.attend()

    def _replay_failed(self, failure: Any, replay: Replay) -> None:
        if failure.check(RestMQError):
            log.warn("the history of {queue} can't be read: {why}", queue=self.queue, why=failure.getErrorMessage())
        else:
            log.failure("replaying {queue} failed", failure=failure, queue=self.queue)
        self._close(CloseReason.TRY_AGAIN, list(replay.members))
        self.subscription.replays.remove(replay)

    def _replay_live(self) -> None:
        """Messages were missed: replays the live consumers."""
        subscription = self.subscription
        if subscription.policy is Policy.BROADCAST and subscription.live:
            # If the subscription broke before the position was known, all messages of the queue may be missed.
            last_number = max(0, subscription.last_number)
            self.replay(subscription.take_live(), subscription.last_key, last_number)

    def lose_subscription(self) -> None:
        """The subscription broke. Messages published from now on are missed."""
        self.inbox.flush()
        for replay in self.subscription.replays:
            replay.interrupt()
        if self._subscribed.called:
            self._replay_live()

    def renew_subscription(self) -> None:
        """The subscription is there again."""
        for replay in self.subscription.replays:
            replay.interrupt()
        self.subscription.mark_leases_overdue()
        self.check_leases()
        self.attend()
