"""Live consumers, whatever their transport: what they look like to the engine, and what they share."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from restmq.model import Message, Missed

if TYPE_CHECKING:
    from restmq.fanout import Fanout


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
    #: Where it connects from, and when it came, on the fan-out's clock.
    address: str
    since_seconds: float

    def write(self, frames: bytes) -> None:
        """Sends rendered messages."""

    def room(self) -> int:
        """How many messages it can take now with round robin; while there is none it will call Fanout.ready in time."""

    def close(self, reason: CloseReason) -> None:
        """Ends the connection; the consumer has left when this is called."""


class HeldBack:
    """Stands in for a consumer that resumes, until what it missed is known: keeps what is sent to it meanwhile."""

    def __init__(self, fanout: Fanout, queue: str, consumer: Consumer) -> None:
        self.consumer = consumer
        self.format = consumer.format
        self.lease_ms = consumer.lease_ms
        self.held = consumer.held
        self.address = consumer.address
        self.since_seconds = consumer.since_seconds
        self._fanout = fanout
        self._queue = queue
        self._bytes = fanout.unsent_bytes_max
        self._before_mark: list[bytes] = []
        self._after_mark: list[bytes] = []
        self._kept = self._before_mark

    def write(self, frames: bytes) -> None:
        self._kept.append(frames)
        self._bytes -= len(frames)
        if self._bytes < 0:
            self._fanout.drop(self._queue, self)

    def reach_mark(self) -> None:
        self._kept = self._after_mark

    def room(self) -> int:
        return 0

    def close(self, reason: CloseReason) -> None:
        self.consumer.close(reason)

    def release(self, missed: Missed, last_key: str) -> None:
        """Sends what was missed, then what was kept; a history has all that came before the mark."""
        if missed.gap:
            self.consumer.write(self.format.gap(last_key))
        history = [self.format.message(message) for message in missed.messages]
        frames = b"".join(history + ([] if missed.kept else self._before_mark) + self._after_mark)
        if frames:
            self.consumer.write(frames)


@implementer(IPushProducer)
class PacedConsumer:
    """A consumer whose transport says when it is full (Twisted's push producer).

    What is written while it is full is counted; a consumer that is more than ``Fanout.unsent_bytes_max`` behind is
    dropped. Round robin passes over one that is full.
    """

    __slots__ = (
        "_fanout",
        "_prefetch",
        "_queue",
        "_unsent_bytes",
        "address",
        "format",
        "held",
        "lease_ms",
        "paused",
        "since_seconds",
    )

    def attach(
        self,
        fanout: Fanout,
        queue: str,
        wire_format: Format,
        address: str,
        lease_ms: int = 0,
        prefetch: int = PREFETCH,
    ) -> None:
        self._fanout = fanout
        self._queue = queue
        self.format = wire_format
        self.address = address
        self.since_seconds = fanout.seconds()
        self.paused = False
        self._unsent_bytes = 0
        self.lease_ms = lease_ms
        self._prefetch = prefetch
        self.held = {} if lease_ms else _NOTHING

    def write(self, frames: bytes) -> None:
        if self.paused:
            self._unsent_bytes += len(frames)
            if self._unsent_bytes > self._fanout.unsent_bytes_max:
                self._fanout.drop(self._queue, self)
                return
        self.transmit(frames)

    def transmit(self, frames: bytes) -> None:
        """Gives bytes to the transport."""
        raise NotImplementedError

    def room(self) -> int:
        return 0 if self.paused else max(0, self._prefetch - len(self.held))

    def close(self, reason: CloseReason) -> None:
        raise NotImplementedError

    def detach(self) -> None:
        """The connection is gone."""
        self._fanout.leave(self._queue, self)

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused, self._unsent_bytes = False, 0
        self._fanout.ready(self._queue)

    def stopProducing(self) -> None:
        """The transport is gone; the connection's own end says so too."""
