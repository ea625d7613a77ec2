"""Writing to a socket without the reactor's detour."""

from __future__ import annotations

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
