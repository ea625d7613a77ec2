"""The taps of one queue on this daemon. ``taps.py`` has the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger

from restmq.delivery.consumer import Consumer, write_gap, write_messages
from restmq.delivery.inbox import Inbox, Notice
from restmq.delivery.shared import Shared
from restmq.errors import RestMQError
from restmq.model import Message, number_of
from restmq.store.batching import SingleFlight

log = Logger()


class TappedQueue:
    """The taps of one queue on this daemon.

    Attributes:
        consumers: the taps.
        users: number of clients that are about to become taps.
        was_lost: whether the subscription broke since the last marker.
    """

    def __init__(self, queue: str, channel: bytes, shared: Shared) -> None:
        self.channels = frozenset((channel,))
        self.consumers: list[Consumer] = []
        self.users = 0
        self.was_lost = False
        self._queue = queue
        self._shared = shared
        self._core = shared.core
        self._number: int | None = None
        #: The taps that have fallen behind, each with the key of the last message that it got.
        self._behind: dict[Consumer, str] = {}
        self._opening: list[defer.Deferred[None]] = []
        self._round = 0
        self._confirming = SingleFlight(self._confirm_once, self._failed, shared.calls.run)
        self.inbox = Inbox(
            queue,
            shared,
            read=shared.core.queue_copied_value,
            consumers=self.consumers,
            deliver=self._deliver,
            lose=self._lose,
            handle=self._handle,
        )
        self.receive = self.inbox.receive

    @property
    def last_key(self) -> str:
        """The key of the last message that was put into the queue; empty if it is not known."""
        return "" if self._number is None else f"{self._queue}:{self._number}"

    def renew(self) -> None:
        """Renews the queue's key, and asks for a marker (rules 1 and 3)."""
        self._shared.calls.run(self._core.queue_tap(self._queue)).addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        # Without Redis nothing is put into the queue. The next renewal tells of a gap.
        if not failure.check(RestMQError):
            log.failure("a call for the taps of {queue} failed", failure=failure, queue=self._queue)

    def admission(self) -> defer.Deferred[None]:
        """Fires when a tap sees all messages from now on (rule 4)."""
        admitted: defer.Deferred[None] = defer.Deferred(lambda _: self._opening.remove(admitted))
        if self._number is not None and not self.was_lost:
            admitted.callback(None)
        else:
            self._opening.append(admitted)
        return admitted

    # What arrives on the channel

    def _deliver(self, messages: list[Message]) -> None:
        start, number = 0, self._number
        for place, message in enumerate(messages):
            if number is not None and number_of(message.key) > number + 1:
                self._write(messages[start:place])
                self._tell_gap()
                start = place
            number = number_of(message.key)
        self._write(messages[start:])

    def _write(self, messages: list[Message]) -> None:
        if messages:
            write_messages(self._up_to_date(), messages)
            self._number = number_of(messages[-1].key)

    def _up_to_date(self) -> Sequence[Consumer]:
        return [tap for tap in self.consumers if tap not in self._behind] if self._behind else self.consumers

    def _handle(self, notice: Notice) -> None:
        number = int(notice.text)
        if notice.kind == b"sync":
            self._round = number
            self._confirming.request()
        elif notice.kind == b"at":
            self._reach_marker(number)

    def _reach_marker(self, number: int) -> None:
        if self._number is not None and (number > self._number or (self.was_lost and number != self._number)):
            self._tell_gap()
        self._number, self.was_lost = number, False
        opening, self._opening = self._opening, []
        for admitted in opening:
            admitted.callback(None)

    async def _confirm_once(self) -> None:
        await self._core.queue_confirm_copies(self._queue, self._round)

    def _lose(self, key: str) -> None:
        """The value of a message could not be read."""
        self._tell_gap()
        self._number = number_of(key)

    def _tell_gap(self) -> None:
        self._write_gap(self._up_to_date(), self.last_key)

    def _write_gap(self, taps: Sequence[Consumer], last_key: str) -> None:
        self._shared.counters.gaps += len(taps)
        write_gap(taps, last_key)

    # Slow taps

    def fall_behind(self, tap: Consumer) -> None:
        """The tap gets nothing more for now."""
        if tap in self.consumers:
            self._behind.setdefault(tap, self.last_key)

    def catch_up(self, tap: Consumer) -> None:
        """The tap has read everything."""
        last_key = self._behind.pop(tap, None)
        if last_key is not None:
            self._write_gap([tap], last_key)

    def add(self, tap: Consumer, last_key: str | None) -> None:
        """Adds a tap, and tells it of a gap if it has seen another message than the last one."""
        self.inbox.flush()
        self.consumers.append(tap)
        if last_key and last_key != self.last_key:
            self._write_gap([tap], last_key)

    def remove(self, tap: Consumer) -> None:
        self.consumers.remove(tap)
        self._behind.pop(tap, None)
