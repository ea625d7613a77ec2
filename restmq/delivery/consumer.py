"""Live consumers of any transport: their interface to the fan-out, and the part that all transports share."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from restmq.auth.guard import Access, Credentials
from restmq.delivery.backpressure import BackpressureLimits
from restmq.model import Message
from restmq.transport import unsent_bytes

#: Default maximum of messages that a round-robin consumer is given at a time, and of unacked messages if it leases.
PREFETCH = 64
#: The leases of a consumer without leases; always empty.
_NO_LEASES: dict[str, str] = {}


class CloseReason(enum.Enum):
    """Why the server closes a consumer's connection."""

    QUEUE_DELETED = "the queue was deleted"
    TOO_SLOW = "the consumer reads too slowly"
    TRY_AGAIN = "the queue's history can't be read; try again"
    SHUTDOWN = "the server is stopping"
    NOT_ALLOWED = "listening here is no longer allowed"


@dataclass(slots=True, frozen=True, eq=False)
class Format:
    """The rendering of messages for a transport. Consumers with the same format share the rendered bytes.

    Attributes:
        message: renders a message.
        gap: renders the notice that messages after this key are lost to the consumer.
        keepalive: sent at intervals on an idle connection; empty for none.
        transport: name of the transport, for people.
    """

    message: Callable[[Message], bytes]
    gap: Callable[[str], bytes]
    keepalive: bytes = b""
    transport: str = "comet"


class Consumer(Protocol):
    """One connected consumer, of any transport."""

    format: Format
    #: Length of its leases with round robin; 0 for no leases.
    lease_ms: int
    #: Key and receipt of its unacked messages, the oldest first.
    leases: dict[str, str]
    #: The credentials and the access that were checked when it connected. They are checked again later.
    credentials: Credentials
    access: Access
    #: When it connected, in reactor seconds.
    since_seconds: float

    def write(self, frames: bytes) -> None:
        """Sends rendered messages."""

    def capacity(self) -> int:
        """Number of messages that it can take now with round robin. After a 0, it calls ``ready`` when it has some."""

    def wait_until(self, is_shared: bool = False) -> float:
        """As ``Waitable.wait_until``. If it becomes writable before, it calls ``ready``."""

    def close(self, reason: CloseReason) -> None:
        """Closes the connection. The consumer has left the fan-out before this is called."""


def write_messages(consumers: Sequence[Consumer], messages: Sequence[Message]) -> None:
    """Writes messages to consumers, rendered once per format."""
    if not messages:
        return
    rendered: dict[Format, bytes] = {}
    for consumer in list(consumers):  # a write may drop a consumer
        frames = rendered.get(consumer.format)
        if frames is None:
            frames = rendered[consumer.format] = b"".join(map(consumer.format.message, messages))
        consumer.write(frames)


def write_gap(consumers: Sequence[Consumer], last_key: str) -> None:
    """Tells consumers that messages after this key are lost to them."""
    for consumer in list(consumers):
        consumer.write(consumer.format.gap(last_key))


class ConsumerOwner(Protocol):
    """The part of the fan-out that a consumer calls."""

    limits: BackpressureLimits
    seconds: Callable[[], float]

    def connect(self, queue: str, consumer: Consumer, last_key: str | None) -> None:
        """Adds a consumer, which resumes after ``last_key`` if there is one."""

    def leave(self, queue: str, consumer: Consumer) -> None:
        """Removes a consumer whose connection has ended."""

    def drop(self, queue: str, consumer: Consumer) -> None:
        """Removes and closes a consumer that is too far behind."""

    def ready(self, queue: str, consumer: Consumer) -> None:
        """Tells that a consumer can take messages again."""


@implementer(IPushProducer)
class TransportConsumer(ABC):
    """A consumer on a Twisted transport. ``delivery/backpressure.py`` has the rules that it implements."""

    __slots__ = (
        "_backlog_bytes",
        "_deadline_seconds",
        "_fanout",
        "_last_unsent_bytes",
        "_prefetch",
        "_progress_seconds",
        "_queue",
        "credentials",
        "format",
        "lease_ms",
        "leases",
        "paused",
        "since_seconds",
    )

    #: The access that its transport requires.
    access: Access

    def attach(
        self,
        *,
        fanout: ConsumerOwner,
        queue: str,
        wire_format: Format,
        credentials: Credentials,
        lease_ms: int = 0,
        prefetch: int = PREFETCH,
    ) -> None:
        """Sets the consumer up. It joins the fan-out afterwards."""
        self._fanout = fanout
        self._queue = queue
        self.format = wire_format
        self.credentials = credentials
        self.since_seconds = fanout.seconds()
        self.paused = False
        self._backlog_bytes = self._last_unsent_bytes = 0
        self._deadline_seconds = self._progress_seconds = 0.0
        self.lease_ms = lease_ms
        self._prefetch = prefetch
        self.leases = {} if lease_ms else _NO_LEASES

    def write(self, frames: bytes) -> None:
        was_full = self.paused
        if was_full and self._is_too_slow():
            self._fanout.drop(self._queue, self)
            return
        self.transmit(frames)
        if self.paused:
            if was_full:
                self._backlog_bytes += len(frames)
            if self._fanout.seconds() < self._deadline_seconds:
                self._deadline_seconds += self._fanout.limits.seconds_for(len(frames))

    def _is_too_slow(self) -> bool:
        limits = self._fanout.limits
        if self._backlog_bytes <= limits.unsent_bytes:
            return False
        behind_bytes = min(self._backlog_bytes, unsent_bytes(self.outlet))  # older bytes are sent first
        is_late = self._fanout.seconds() >= self._deadline_seconds
        return behind_bytes > (limits.unsent_bytes if is_late else limits.unsent_bytes_max)

    def wait_until(self, is_shared: bool = False) -> float:
        if not self.paused:
            return 0.0
        limits, now = self._fanout.limits, self._fanout.seconds()
        unsent = unsent_bytes(self.outlet)
        if unsent <= limits.unsent_bytes // 2:
            return 0.0
        if unsent != self._last_unsent_bytes:
            self._last_unsent_bytes, self._progress_seconds = unsent, now
        if now >= self._progress_seconds + limits.stall_seconds:
            self._deadline_seconds = min(self._deadline_seconds, now)
        stall_seconds = limits.shared_stall_seconds if is_shared else limits.stall_seconds
        return min(self._deadline_seconds, self._progress_seconds + stall_seconds)

    @property
    @abstractmethod
    def outlet(self) -> Any:
        """The transport."""

    @abstractmethod
    def transmit(self, frames: bytes) -> None:
        """Gives bytes to the transport."""

    def capacity(self) -> int:
        return 0 if self.paused else max(0, self._prefetch - len(self.leases))

    @abstractmethod
    def close(self, reason: CloseReason) -> None:
        """Closes the connection, with the reason if the protocol can carry it."""

    def detach(self) -> None:
        """The connection has ended."""
        self._fanout.leave(self._queue, self)

    def pauseProducing(self) -> None:
        if not self.paused:  # a transport calls this with each write
            self.paused = True
            self._deadline_seconds = self._fanout.seconds() + self._fanout.limits.stall_seconds

    def resumeProducing(self) -> None:
        self.paused, self._backlog_bytes, self._last_unsent_bytes = False, 0, 0
        self._fanout.ready(self._queue, self)

    def stopProducing(self) -> None:  # noqa: B027  a subclass need not override it
        """The transport has ended. The connection's own callback handles that."""
