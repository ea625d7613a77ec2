"""What all live consumers share: back-pressure, and being dropped when they read too slowly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from restmq.fanout import CloseReason

if TYPE_CHECKING:
    from restmq.fanout import Fanout, Format


@implementer(IPushProducer)
class PacedConsumer:
    """A consumer whose transport says when it is full (Twisted's push producer).

    What is written while it is full is counted; a consumer that is more than ``Fanout.unsent_bytes_max`` behind is
    dropped. Round robin passes over one that is full.
    """

    __slots__ = ("_fanout", "_queue", "_unsent_bytes", "format", "paused")

    def attach(self, fanout: Fanout, queue: str, wire_format: Format) -> None:
        self._fanout = fanout
        self._queue = queue
        self.format = wire_format
        self.paused = False
        self._unsent_bytes = 0

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

    def is_ready(self) -> bool:
        return not self.paused

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
