"""The part that live consumers and taps have in common: queues, channels, comments on idle streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from twisted.application import internet, service
from twisted.internet import defer

from restmq.delivery.backpressure import SharedBytes
from restmq.delivery.consumer import CloseReason, Consumer
from restmq.delivery.inbox import EndOfTurn, Inbox
from restmq.delivery.shared import Shared
from restmq.store.base import Channels, Subscription

#: Time between two comments on an idle stream. They keep proxies from closing it, and find dead clients.
KEEPALIVE_SECONDS = 12.0
#: Number of consumers that get a comment in one turn, which takes 4 ms.
_COMMENTED_AT_ONCE = 250


class LocalQueue(Protocol):
    """A queue with consumers, or with taps, on this daemon.

    Attributes:
        channels: the channels on which it gets messages and notices.
    """

    inbox: Inbox
    channels: frozenset[bytes]
    consumers: list[Consumer]

    def receive(self, kind: bytes, content: bytes) -> None:
        """A message or a notice arrived on its channel."""


_Queue = TypeVar("_Queue", bound=LocalQueue)


class LocalConsumers(service.MultiService, ABC, Generic[_Queue]):  # type: ignore[misc]  # untyped
    """The consumers, or the taps, of this daemon.

    Args:
        unsent_bytes_max: maximum bytes that wait for all of them together.
        every_seconds: seconds between two calls of ``_beat``.
    """

    def __init__(self, shared: Shared, unsent_bytes_max: int, every_seconds: float) -> None:
        super().__init__()
        self.limits = shared.limits
        self.counters = shared.counters
        self.seconds: Callable[[], float] = shared.reactor.seconds
        self.shared_bytes = SharedBytes(unsent_bytes_max, self._have_too_many_bytes)
        self._shared = shared
        self._core = shared.core
        self._live: dict[str, _Queue] = {}
        self._by_channel: dict[bytes, _Queue] = {}
        self._end_of_turn = EndOfTurn(shared.reactor)
        self._subscriber: Subscription | None = None
        for seconds, call in ((every_seconds, self._beat), (KEEPALIVE_SECONDS, self._keep_alive)):
            timer = internet.TimerService(seconds, call)
            timer.clock = shared.reactor
            timer.setServiceParent(self)

    def stopService(self) -> defer.Deferred[Any]:
        """Closes all consumers. Fires when the calls in progress have ended: then no undelivered message is here."""
        super().stopService()
        for queue, live in list(self._live.items()):
            live.inbox.flush()
            self._close(queue, CloseReason.SHUTDOWN, list(self.consumers(queue)))
        if self._subscriber is not None:
            self._subscriber.stop()
        return defer.ensureDeferred(self._shared.calls.finish())

    @property
    def queues(self) -> list[str]:
        """The queues with consumers on this daemon."""
        return list(self._live)

    @property
    def count(self) -> int:
        """The number of all consumers on this daemon."""
        return sum(len(live.consumers) for live in self._live.values())

    def consumers(self, queue: str) -> Sequence[Consumer]:
        """The queue's consumers on this daemon, in the order in which they connected."""
        return self._live[queue].consumers if queue in self._live else ()

    @abstractmethod
    def leave(self, queue: str, consumer: Consumer) -> None:
        """Removes a consumer. Does nothing if it has left already."""

    def _close(self, queue: str, reason: CloseReason, consumers: list[Consumer]) -> None:
        for consumer in consumers:
            self.leave(queue, consumer)
            consumer.close(reason)

    @abstractmethod
    def _have_too_many_bytes(self) -> None:
        """More bytes wait than the maximum. This is called within a write."""

    # Redis

    def _received(self, channel: bytes, payload: bytes) -> None:
        live = self._by_channel.get(channel)
        if live is None:
            self._handle_notice(channel, payload)
            return
        self._end_of_turn.flush(live.inbox)
        kind, _, content = payload.partition(b" ")
        live.receive(kind, content)

    def _handle_notice(self, channel: bytes, notice: bytes) -> None:
        """A message came on a channel that is not, or no longer, that of a queue here."""

    def _on(self, channels: Channels) -> list[_Queue]:
        return [live for live in self._live.values() if not live.channels.isdisjoint(channels)]

    # Timers

    @abstractmethod
    def _beat(self) -> None:
        """Called at intervals."""

    def _keep_alive(self) -> defer.Deferred[None]:
        return defer.ensureDeferred(self._shared.turns.run(self._write_comments()))

    def _write_comments(self) -> Iterator[None]:
        """Writes comments, in steps. It begins with the last consumers, so none is missed if others leave meanwhile."""
        count = 0
        for queue in self.queues:
            for end in range(len(self.consumers(queue)), 0, -_COMMENTED_AT_ONCE):
                for consumer in self.consumers(queue)[max(0, end - _COMMENTED_AT_ONCE) : end]:
                    if consumer.format.keepalive and self._takes_comments(consumer):
                        consumer.write(consumer.format.wrap(consumer.format.keepalive))
                    consumer.close_if_vanished()
                    count += 1
                if count >= _COMMENTED_AT_ONCE:
                    count = 0
                    yield

    def _takes_comments(self, consumer: Consumer) -> bool:
        return True
