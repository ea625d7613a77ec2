"""What all live consumers share: back-pressure, and being dropped when they read too slowly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.tcp import Server
from zope.interface import implementer

from restmq.fanout import CloseReason

if TYPE_CHECKING:
    from restmq.fanout import Fanout, Format


def send_at_once(transport: Any, data: bytes) -> None:
    """Writes to the socket now where nothing waits before it, else to the transport as usual.

    Saves, for each consumer of each message, two system calls by which the reactor would learn that there is something
    to write. What the socket does not take, and what is no plain TCP connection, goes the usual way.
    """
    waiting = type(transport) is not Server or transport.dataBuffer or transport._tempDataBuffer
    if not waiting and transport.connected and not transport.disconnecting:
        sent = transport.writeSomeData(data)
        if sent == len(data):
            return
        if isinstance(sent, int):
            data = data[sent:]
    transport.write(data)


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
