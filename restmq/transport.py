"""Everything that looks below Twisted's public interface of a transport: its buffers and its socket.

Three things are here: writing to a socket without waiting for the reactor, the number of bytes that a transport has not
sent yet, and whether a client has disconnected.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp, unix

_PLAIN = (tcp.Server, tcp.Client, unix.Server, unix.Client)


def send_at_once(transport: Any, data: bytes) -> None:
    """Writes to the socket now where nothing waits before it, else to the transport as usual.

    Saves two system calls by which the reactor would learn that there is something to write, and the turn till then.
    What the socket does not take, and what is no plain connection, goes the usual way.
    """
    waiting = type(transport) not in _PLAIN or transport.dataBuffer or transport._tempDataBuffer
    if not waiting and transport.connected and not transport.disconnecting:
        sent = transport.writeSomeData(data)
        if sent == len(data):
            return
        if isinstance(sent, int):
            data = data[sent:]
    transport.write(data)


def unsent_bytes(transport: Any) -> int:
    """What a Twisted transport was given and the system has not taken yet; of TLS, what is below it."""
    while transport is not None and not hasattr(transport, "_tempDataLen"):
        transport = getattr(transport, "transport", None)
    return len(transport.dataBuffer) - transport.offset + transport._tempDataLen if transport is not None else 0


#: poll(2): the other side has closed, or shut down its writing half. Linux has it, for TCP and Unix sockets.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)


def hung_up(transport: Any) -> bool:
    """Asks the kernel; where it can't tell, the answer is no.

    It knows of an end that has arrived: not of one behind more than the socket's buffer holds.
    """
    if not _HUNG_UP:
        return False
    asked = select.poll()
    asked.register(transport.fileno(), _HUNG_UP)
    return bool(asked.poll(0))


class Presence:
    """A client that is there or has left, and who wants to know when it leaves.

    Args:
        left_unseen: asks whether it has left without our having seen it, as its connection is not being read.
    """

    __slots__ = ("_gone", "_left_unseen", "_tell")

    def __init__(self, left_unseen: Callable[[], bool]) -> None:
        self._gone = False
        self._left_unseen = left_unseen
        self._tell: list[Callable[[], None]] = []

    @property
    def left(self) -> bool:
        self._gone = self._gone or self._left_unseen()
        return self._gone

    def leave(self) -> None:
        self._gone = True
        tell, self._tell = self._tell, []
        for call in tell:
            call()

    def watch(self, call: Callable[[], None]) -> None:
        """Calls when the client leaves, at once if it has."""
        if self.left:
            call()
        else:
            self._tell.append(call)

    def unwatch(self, call: Callable[[], None]) -> None:
        if call in self._tell:
            self._tell.remove(call)
