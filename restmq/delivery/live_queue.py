"""A queue with live consumers here: incoming messages and notices, and replays. ``fanout.py`` has the rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger

from restmq.delivery.attending import Attending
from restmq.delivery.consumer import CloseReason, Consumer
from restmq.delivery.inbox import Inbox, Notice
from restmq.delivery.replay import Replay
from restmq.delivery.shared import Shared
from restmq.delivery.subscription import QueueSubscription
from restmq.errors import RestMQError
from restmq.model import Policy

log = Logger()


class LiveQueue:
    """Everything that the daemon has for one queue.

    Attributes:
        channels: the queue's channel, and that on which the daemon gets notices for the queue.

    Args:
        window_bytes: tells the number of unconfirmed bytes to grant.
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
        self.channels = frozenset(
            (shared.core.layout.for_queue(queue).channel, shared.core.layout.daemon_channel(shared.daemon, queue))
        )
        self._tag_bytes = len(shared.core.layout.tag(queue))
        self.subscription = QueueSubscription()
        self.is_followed = False
        self.queue = queue
        self._shared = shared
        self._subscribed: defer.Deferred[None] = defer.Deferred()
        self._current = current
        self._close = close
        self.inbox = Inbox(
            tag_bytes=self._tag_bytes,
            budget=shared.read_budget,
            turns=shared.turns,
            read=shared.core.queue_stored_value,
            consumers=self.subscription.consumers,
            deliver=self.subscription.broadcast,
            lose=self._lose,
            handle=self._handle,
            run=shared.calls.run,
        )
        self.attending = Attending(
            queue,
            shared,
            subscription=self.subscription,
            window_bytes=window_bytes,
            flush=self.inbox.flush,
            current=lambda: live.attending if (live := current()) else None,  # refers to no single live queue
        )

    def follow(self, subscribed: defer.Deferred[None]) -> None:
        """Begins when Redis has confirmed the subscription of the queue's channel."""
        self.is_followed = True
        subscribed.addCallback(self._begin)

    def _begin(self, _: None) -> None:
        self._subscribed.callback(None)
        self._attend_current()

    def _attend_current(self) -> None:
        current = self._current()
        if current is not None:
            current.attending.attend()

    def capacity_changed(self) -> None:
        """A consumer joined, left, or can take more."""
        if self.subscription.policy is Policy.ROUNDROBIN:
            self.attending.attend()

    def stop(self) -> None:
        """The last consumer has left."""
        self.inbox.close()
        self.attending.stop()

    # What arrives on the queue's channel

    def receive(self, kind: bytes, content: bytes) -> None:
        """A message or a notice arrived."""
        if kind in (b"drain", b"changed"):
            self.attending.attend()
        else:
            self.inbox.receive(kind, content)

    def _handle(self, notice: Notice) -> None:
        """Handles a notice when all messages before it are delivered."""
        if notice.kind == b"sync":
            self.attending.reach_round(int(notice.text))
        elif notice.kind == b"close":
            self._close(CloseReason.QUEUE_DELETED, list(self.subscription.consumers))
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
        replay = Replay(self.queue, self._shared, members, last_key, last_number)
        self.subscription.replays.append(replay)
        defer.ensureDeferred(self._run(replay)).addErrback(self._replay_failed, replay)

    async def _run(self, replay: Replay) -> None:
        await self._subscribed
        await replay.run()
        self.subscription.replays.remove(replay)
        self.subscription.live += replay.members
        if replay.members:
            self.attending.attend()

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
            self.replay(subscription.take_live(), subscription.last_key, subscription.last_number)

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
        self.attending.check_leases()
        self.attending.attend()
