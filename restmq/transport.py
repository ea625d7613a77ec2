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
    sent = offer(transport, data) or 0
    if sent < len(data):
        transport.write(data[sent:])


def offer(transport: Any, data: bytes | memoryview) -> int | None:
    """Offers bytes to the socket of a transport; returns the number that the system took.

    Returns:
        None if the transport is not plain: there is something between, as with TLS.
    """
    if type(transport) not in _PLAIN:
        return None
    if transport.dataBuffer or transport._tempDataBuffer or not transport.connected or transport.disconnecting:
        return 0
    try:
        sent: int = transport.socket.send(data)
        return sent
    except OSError:  # the socket is full; or it is broken, which the reactor notices too
        return 0


def sender(transport: Any) -> Callable[[bytes], int]:
    """Returns the shortest way to the socket of a plain transport: with a thousand consumers, every look costs time.

    It may be called only while nothing else is written to the transport. It raises OSError if the socket is full, or
    broken, which the reactor notices too.
    """
    send: Callable[[bytes], int] = transport.socket.send
    return send


def write_and_resume(transport: Any, data: bytes) -> None:
    """Writes to a plain transport, which resumes its producer when this is sent, however little it is."""
    transport.write(data)
    transport.producerPaused = True


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


_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


def notice_vanished_client(transport: Any) -> None:
    """Lets the kernel close a silent TCP connection whose client's machine is gone, within two minutes.

    While data is unacknowledged, keepalive does nothing: see ``silent_seconds``. ``TCP_USER_TIMEOUT`` is no help, as it
    also closes the connection of a client that lives, but does not read.
    """
    tcp_socket = _tcp_socket(transport)
    if tcp_socket is None:
        return
    with contextlib.suppress(OSError):  # the client may be gone already
        tcp_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                tcp_socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _tcp_socket(transport: Any) -> socket.socket | None:
    while transport is not None and not hasattr(transport, "socket"):
        transport = getattr(transport, "transport", None)
    is_tcp = transport is not None and transport.socket.family in (socket.AF_INET, socket.AF_INET6)
    return transport.socket if is_tcp else None


#: Offsets in Linux' ``struct tcp_info``: unanswered probes of a closed window, unacknowledged packets, and milliseconds
#: since the last acknowledgement.
_PROBES, _UNACKNOWLEDGED, _LAST_ACKNOWLEDGED = 3, 24, 56
_TCP_INFO_BYTES = 60


def silent_seconds(transport: Any) -> float:
    """Time since the client's machine acknowledged anything, if it owes an acknowledgement; otherwise 0.

    It owes one if data is unacknowledged. If the client does not read, its machine closes the window, and owes an
    answer to each probe of it; the last one may be on its way. Where the kernel can't tell, the answer is 0.
    """
    tcp_socket = _tcp_socket(transport)
    if tcp_socket is None or not hasattr(socket, "TCP_INFO"):
        return 0.0
    try:
        info = tcp_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return 0.0
    if len(info) < _TCP_INFO_BYTES:
        return 0.0
    (unacknowledged,) = struct.unpack_from("I", info, _UNACKNOWLEDGED)
    (last_ms,) = struct.unpack_from("I", info, _LAST_ACKNOWLEDGED)
    return last_ms / 1000 if unacknowledged or info[_PROBES] > 1 else 0.0


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
        address: address of the client, to be shown. Behind a trusted proxy it is that of the last request.
    """

    __slots__ = ("_callbacks", "_disconnected_while_paused", "_gone", "address")

    def __init__(self, disconnected_while_paused: Callable[[], bool], address: str = "") -> None:
        self.address = address
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
