"""The calls to Redis for one queue with live consumers; see the rules in ``delivery/fanout.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.delivery.consumer import write_messages
from restmq.delivery.format import prepare_all
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


class Attending:
    """Attends to a queue, confirms delivered messages, and checks leases.

    Args:
        window_bytes: returns the number of unconfirmed bytes to grant.
        flush: delivers the messages that have arrived on the queue's channel.
        current: returns the queue's object of this class: another one if all consumers left and others joined, or None.
    """

    def __init__(
        self,
        queue: str,
        shared: Shared,
        *,
        subscription: QueueSubscription,
        window_bytes: Callable[[], int],
        flush: Callable[[], None],
        current: Callable[[], Attending | None],
    ) -> None:
        self._queue = queue
        self._shared = shared
        self._core = shared.core
        self._daemon = shared.core.layout.daemon_channel(shared.daemon, queue)
        self._subscription = subscription
        self._window_bytes = window_bytes
        self._flush = flush
        self._current = current
        self._is_first = True
        self._round = 0
        self._timer: Any = None
        run = shared.calls.run
        self._attending = SingleFlight(self._attend_once, self._failed, run)
        self._confirming = SingleFlight(self._confirm_once, self._failed, run)
        self._checking = SingleFlight(self._check_leases_once, self._failed, run)

    def stop(self) -> None:
        """The last consumer has left."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _failed(self, failure: Failure) -> None:
        # Without Redis there is nothing to attend to. The reconnect and the heartbeat attend again.
        if not failure.check(RestMQError):
            log.failure("attending to {queue} failed", failure=failure, queue=self._queue)

    def _successor(self) -> Attending | None:
        current = self._current()
        return current if current is not self else None

    # Attending

    def attend(self) -> None:
        """Asks Redis for messages, now or after the call in progress."""
        self._attending.request()

    async def _attend_once(self) -> None:
        subscription = self._subscription
        try:
            if subscription.policy is Policy.BROADCAST:
                self._flush()  # earlier messages must be in the transports first, so that full ones are known
                await self._shared.slow_consumers.wait(subscription.live)
            if self._successor():
                return
            lease_ms, weight, capacity = subscription.demand()
            window_bytes = self._window_bytes() if subscription.consumers else 0
            found = await self._core.queue_attend(
                self._queue,
                self._daemon,
                weight=weight,
                capacity=capacity,
                lease_ms=lease_ms,
                window_bytes=window_bytes,
                is_first=self._is_first,
            )
            self._is_first = False
            subscription.policy = found.policy
            if found.messages:
                await self._deliver_in_turn(found.messages, lease_ms)
            if found.call_again or (capacity == 1 and found.messages):
                self._attending.request()
            if found.is_held_back:
                self._attend_later()
        finally:
            if successor := self._successor():
                successor.attend()

    async def _deliver_in_turn(self, messages: list[Message], lease_ms: int) -> None:
        """Gives each message to the next ready consumer; the rest goes back to the front of the queue."""
        self._flush()
        served, left = self._subscription.assign(messages, lease_ms, self._shared.reactor.seconds())
        if left:
            self._shared.calls.put_back(self._queue, len(left), self._core.queue_put_back(self._queue, left))
        for consumer, share in served:
            prepared = await prepare_all(share, [consumer], self._shared.turns)
            if consumer in self._subscription.consumers:
                write_messages([consumer], prepared)
            elif not lease_ms:  # it left meanwhile; leases that it had are released
                self._shared.calls.put_back(self._queue, len(share), self._core.queue_put_back(self._queue, share))

    def _attend_later(self) -> None:
        """Attends after the longest time that a queue is held back: a daemon may never confirm."""
        if self._subscription.consumers and (self._timer is None or not self._timer.active()):
            self._timer = self._shared.reactor.callLater(_HELD_SECONDS, self.attend)

    # Confirming

    def reach_round(self, round_number: int) -> None:
        """All messages before the marker of this round are delivered."""
        self._round = round_number
        self._confirming.request()

    async def _confirm_once(self) -> None:
        round_number = self._round
        while not await self._shared.slow_consumers.wait(self._subscription.live, _HELD_SECONDS / 2):
            await self._core.queue_hold(self._queue, HELD_MS_MAX)
        state = await self._core.queue_confirm(self._queue, round_number, self._window_bytes(), self._daemon)
        if state is State.HELD_BACK:
            self._attend_later()
        elif state is State.MORE:
            self.attend()

    # Leases

    def check_leases(self) -> None:
        """Asks Redis about leases that should have ended."""
        self._checking.request()

    async def _check_leases_once(self) -> None:
        subscription = self._subscription
        while leases := subscription.overdue(self._shared.reactor.seconds(), BATCH_MAX):
            left_seconds = await self._core.queue_lease_remaining(self._queue, leases)
            if subscription.update_leases(leases, left_seconds, self._shared.reactor.seconds()):
                self.attend()
