"""Live consumers, whatever their transport: what they look like to the engine, and what they share."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from restmq.auth.guard import Access, Credentials
from restmq.model import Message
from restmq.transport import unsent_bytes

if TYPE_CHECKING:
    from restmq.delivery.fanout import Fanout


#: How many messages a consumer that is ready is given at a time with round robin, and may hold unacked if it leases.
PREFETCH = 64
#: What a consumer holds that does not lease; nobody writes into it.
_NOTHING: dict[str, str] = {}


class CloseReason(enum.Enum):
    """Why the server ends a consumer's connection."""

    QUEUE_DELETED = "the queue was deleted"
    TOO_SLOW = "the consumer reads too slowly"
    TRY_AGAIN = "the store does not answer; try again"
    SHUTDOWN = "the server is going away"
    NOT_ALLOWED = "listening here is no longer allowed"


@dataclass(slots=True, frozen=True, eq=False)
class Format:
    """How things look on a transport's wire. Consumers that have the same one share the work of rendering.

    Attributes:
        message: renders a message.
        gap: renders the news that messages after this key are lost to the consumer.
        keepalive: what is sent now and then on an idle connection; empty for nothing.
        transport: its name, for people.
    """

    message: Callable[[Message], bytes]
    gap: Callable[[str], bytes]
    keepalive: bytes = b""
    transport: str = "comet"


class Consumer(Protocol):
    """One connected consumer, whatever its transport."""

    format: Format
    #: With round robin it gets messages under leases of this length; 0 for good.
    lease_ms: int
    #: Key and receipt of what it was given under leases and has not settled, the oldest first.
    held: dict[str, str]
    #: What it showed when it came, and what for; it may be asked again whether that still holds.
    credentials: Credentials
    access: Access
    #: When it came, on the fan-out's clock.
    since_seconds: float

    def write(self, frames: bytes) -> None:
        """Sends rendered messages."""

    def room(self) -> int:
        """How many messages it can take now with round robin; while there is none it will call Fanout.ready in time."""

    def full_until(self) -> float:
        """As Paced.full_until. When it has room again before that, it calls Fanout.ready."""

    def close(self, reason: CloseReason) -> None:
        """Ends the connection; the consumer has left when this is called."""


@implementer(IPushProducer)
class PacedConsumer(ABC):
    """A consumer whose transport says when it is full (Twisted's push producer).

    Backlog: bytes written while the transport was already full. The write that filled it does not count. When more
    comes, the consumer is dropped if its backlog exceeds ``unsent_bytes`` of the limits and its time is over, or if it
    exceeds ``unsent_bytes_at_most``. Round robin skips a consumer that is full.
    """

    __slots__ = (
        "_due_seconds",
        "_fanout",
        "_given_bytes",
        "_left_bytes",
        "_moved_seconds",
        "_prefetch",
        "_queue",
        "credentials",
        "format",
        "held",
        "lease_ms",
        "paused",
        "since_seconds",
    )

    #: What listening by its transport asks for.
    access: Access

    def attach(
        self,
        fanout: Fanout,
        queue: str,
        wire_format: Format,
        credentials: Credentials,
        lease_ms: int = 0,
        prefetch: int = PREFETCH,
    ) -> None:
        self._fanout = fanout
        self._queue = queue
        self.format = wire_format
        self.credentials = credentials
        self.since_seconds = fanout.seconds()
        self.paused = False
        self._given_bytes = self._left_bytes = 0
        self._due_seconds = self._moved_seconds = 0.0
        self.lease_ms = lease_ms
        self._prefetch = prefetch
        self.held = {} if lease_ms else _NOTHING

    def write(self, frames: bytes) -> None:
        was_full = self.paused
        if was_full and self._too_slow():
            self._fanout.drop(self._queue, self)
            return
        self.transmit(frames)
        if self.paused:
            if was_full:
                self._given_bytes += len(frames)
            if self._fanout.seconds() < self._due_seconds:  # one that had its time gets no more of it
                self._due_seconds += self._fanout.patience.seconds_for(len(frames))

    def _too_slow(self) -> bool:
        patience = self._fanout.patience
        if self._given_bytes <= patience.unsent_bytes:
            return False
        # What was given first is taken first.
        behind_bytes = min(self._given_bytes, unsent_bytes(self.outlet))
        late = self._fanout.seconds() >= self._due_seconds
        return behind_bytes > (patience.unsent_bytes if late else patience.unsent_bytes_at_most)

    def full_until(self) -> float:
        patience, now = self._fanout.patience, self._fanout.seconds()
        left_bytes = unsent_bytes(self.outlet)
        if not self.paused or left_bytes <= patience.unsent_bytes // 2:
            return 0.0
        if left_bytes != self._left_bytes:
            self._left_bytes, self._moved_seconds = left_bytes, now
        stalled_seconds = self._moved_seconds + patience.stall_seconds
        if now >= stalled_seconds:
            self._due_seconds = min(self._due_seconds, now)
        return min(self._due_seconds, stalled_seconds)

    @property
    @abstractmethod
    def outlet(self) -> Any:
        """The transport."""

    @abstractmethod
    def transmit(self, frames: bytes) -> None:
        """Gives bytes to the transport."""

    def room(self) -> int:
        return 0 if self.paused else max(0, self._prefetch - len(self.held))

    @abstractmethod
    def close(self, reason: CloseReason) -> None:
        """Ends the connection, and says why where its protocol has a word for that."""

    def detach(self) -> None:
        """The connection is gone."""
        self._fanout.leave(self._queue, self)

    def pauseProducing(self) -> None:
        if not self.paused:  # a transport says so again with each write
            self.paused = True
            self._due_seconds = self._fanout.seconds() + self._fanout.patience.stall_seconds

    def resumeProducing(self) -> None:
        self.paused, self._given_bytes, self._left_bytes = False, 0, 0
        self._fanout.ready(self._queue, self)

    def stopProducing(self) -> None:  # noqa: B027  it may stay empty
        """The transport is gone; the connection's own end says so too."""
