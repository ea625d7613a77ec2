"""Everything that uses Twisted's private attributes of a transport: its buffers and its socket.

Four things are here: writing to a socket without waiting for the reactor, the number of bytes that a transport or the
kernel has not sent yet, whether a client has disconnected, and socket options by which the kernel notices a vanished
client.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp, unix

_PLAIN = (tcp.Server, tcp.Client, unix.Server, unix.Client)


def send_at_once(transport: Any, data: bytes) -> None:
    """Writes to the socket at once if nothing is queued before, otherwise to the transport as usual.

    This saves a reactor turn and two of the reactor's system calls. The transport gets the bytes that the socket does
    not take, and all bytes if it is not a plain connection.
    """
    is_queued = type(transport) not in _PLAIN or transport.dataBuffer or transport._tempDataBuffer
    if not is_queued and transport.connected and not transport.disconnecting:
        sent = transport.writeSomeData(data)
        if sent == len(data):
            return
        if isinstance(sent, int):
            data = data[sent:]
    transport.write(data)


def unsent_bytes(transport: Any) -> int:
    """Number of bytes that a transport has and the system has not taken yet. For TLS, encrypted bytes are counted."""
    while transport is not None and not hasattr(transport, "_tempDataLen"):
        transport = getattr(transport, "transport", None)
    return len(transport.dataBuffer) - transport.offset + transport._tempDataLen if transport is not None else 0


def kernel_unsent_bytes(transport: Any) -> int:
    """Number of bytes that the system has taken and the client has not acknowledged; 0 where the kernel can't tell."""
    descriptor = transport.fileno() if hasattr(transport, "fileno") else -1
    if descriptor >= 0:
        with contextlib.suppress(OSError):
            return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0])
    return 0


_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 120_000}


def notice_vanished_client(transport: Any) -> None:
    """Lets the kernel close a TCP connection whose client's machine is gone, within two minutes.

    Keepalive notices it on a silent connection. ``TCP_USER_TIMEOUT`` (Linux) notices it while data is unacknowledged,
    where keepalive does nothing.
    """
    while transport is not None and not hasattr(transport, "socket"):
        transport = getattr(transport, "transport", None)
    if transport is None or transport.socket.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):  # the client may be gone already
        transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                transport.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


#: poll(2): the peer has closed the connection or its writing half. Linux has it, for TCP and Unix sockets.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)


def hung_up(transport: Any) -> bool:
    """Asks the kernel whether the client has disconnected; False where the kernel can't tell.

    The kernel sees a disconnect once it has arrived, but not behind more data than the socket's buffer holds.
    """
    if not _HUNG_UP:
        return False
    poll = select.poll()
    poll.register(transport.fileno(), _HUNG_UP)
    return bool(poll.poll(0))


def _never() -> bool:
    return False


class Presence:
    """Whether a client is still connected, and callbacks for the moment when it disconnects.

    Args:
        disconnected_while_paused: asks whether the client has disconnected while its connection is not being read.
    """

    __slots__ = ("_callbacks", "_disconnected_while_paused", "_gone")

    def __init__(self, disconnected_while_paused: Callable[[], bool]) -> None:
        self._gone = False
        self._disconnected_while_paused = disconnected_while_paused
        self._callbacks: list[Callable[[], None]] = []

    @property
    def left(self) -> bool:
        """Whether the client has disconnected."""
        self._gone = self._gone or self._disconnected_while_paused()
        return self._gone

    def leave(self) -> None:
        """The client has disconnected."""
        self._gone = True
        self._disconnected_while_paused = _never  # breaks the reference cycle with the connection
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def watch(self, callback: Callable[[], None]) -> None:
        """Calls back when the client disconnects; at once if it has."""
        if self.left:
            callback()
        else:
            self._callbacks.append(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        if callback in self._callbacks:
            self._callbacks.remove(callback)
