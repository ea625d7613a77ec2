"""Those who send syslog lines, by TCP or UDP, and how far they may run ahead of Redis.

TCP senders are held back: a connection is not read on while there is no room, so its lines wait with the sender and
none is lost. A datagram (RFC 5426) can't be held back: what finds no room is counted and dropped.
"""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet import defer, protocol
from twisted.internet.interfaces import ISSLTransport, ITCPTransport, IUNIXTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.auth.acl import Hosts, parse_address
from restmq.frontends.syslog.framing import Frame, Frames, uncounted
from restmq.frontends.syslog.message import BLANKS, render
from restmq.frontends.syslog.spool import Counts, Room, SharedRoom, Spool

log = Logger()

#: How far one connection may run ahead of Redis. What it sends beyond waits in its socket, so others have their turn.
_CONNECTION_LINES_MAX = 2_000
_CONNECTION_BYTES_MAX = 1 << 20

#: A sender that says nothing for a minute is asked whether it is there, and has another minute to answer: one whose
#: machine is gone would keep its place for two hours by the kernel's own measure.
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6))


class Intake:
    """What both ways in have in common: whose lines are taken, what becomes of a line, and the room there is."""

    def __init__(
        self,
        spool: Spool,
        counts: Counts,
        time_ms: Callable[[], int],
        line_bytes_max: int,
        senders: Hosts | None = None,
    ) -> None:
        self.counts = counts
        self.line_bytes_max = line_bytes_max
        self._spool = spool
        self._time_ms = time_ms
        self._senders = senders

    def admits(self, host: str) -> bool:
        """Whether this address may send lines."""
        return not self._senders or self._senders.everybody or self._senders.name(parse_address(host))

    def take(self, protocol_name: str, host: str, frame: Frame, rooms: tuple[Room, ...]) -> None:
        """Passes a line on; blanks around it don't count, and a blank line is none."""
        line = frame.content.strip(BLANKS)
        if not line:
            return
        self.counts.received[protocol_name] += 1
        self.counts.truncated += frame.truncated
        value = render(line, host, self._time_ms() / 1000, frame.truncated)
        self._spool.put(f"syslogd:{host}", value, rooms)


def host_of(address: str) -> str:
    """A peer's address as its queue is named; IPv4 in its own form also where it came to an IPv6 socket."""
    mapped = ipaddress.IPv6Address(address).ipv4_mapped if ":" in address else None
    return str(mapped or address)


def _keep_alive(transport: Any) -> None:
    """Has the kernel find out when a TCP sender is gone, as far as the platform can be told how soon."""
    tcp = transport.transport if ISSLTransport.providedBy(transport) else transport
    if not ITCPTransport.providedBy(tcp) or IUNIXTransport.providedBy(tcp):  # Twisted's Unix sockets claim to be both
        return
    tcp.setTcpKeepAlive(True)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            tcp.getHandle().setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Connection(protocol.Protocol):  # type: ignore[misc]  # untyped
    """A TCP sender. It is not gone before the last of its lines has found room, even if its connection is."""

    factory: TcpSenders
    admitted = False

    def connectionMade(self) -> None:
        self.host = host_of(getattr(self.transport.getPeer(), "host", "") or "unix")
        if not self.factory.admit(self):
            self.transport.abortConnection()
            return
        self.admitted = True
        self.room = Room(_CONNECTION_LINES_MAX, _CONNECTION_BYTES_MAX)
        self.frames = Frames(self.factory.intake.line_bytes_max)
        self._paused = False
        self._ended = False
        _keep_alive(self.transport)

    def dataReceived(self, received: bytes) -> None:
        if self.admitted:
            self.frames.feed(received)
            self.read_on()

    def read_on(self) -> None:
        """Takes what has come while there is room; then stops reading until there is some again."""
        while self.factory.has_room_for(self):
            frame = self.frames.next()
            if frame is None and self._ended:
                frame = self.frames.end()
                if frame is None:
                    self.factory.forget(self)
                    return
            if frame is None:
                self._pause(False)
                return
            self.factory.take(self, frame)
        self._pause(True)
        self.factory.wait_for_room(self)

    def _pause(self, wanted: bool) -> None:
        if wanted != self._paused and not self._ended:
            self._paused = wanted
            (self.transport.pauseProducing if wanted else self.transport.resumeProducing)()

    def finish_soon(self) -> None:
        """Closes our side, which tells the sender to send no more, and reads until it closes its own."""
        if ISSLTransport.providedBy(self.transport):
            self.transport.loseConnection()  # by TLS's own close, which the sender answers
        else:
            self.transport.loseWriteConnection()

    def abort(self) -> None:
        if not self._ended:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self.admitted:
            self._ended = True
            self.read_on()


class TcpSenders(protocol.ServerFactory):  # type: ignore[misc]  # untyped
    """All connections, and the room that they share: a host is held back by its own queue, not by another's."""

    protocol = Connection
    noisy = False

    def __init__(
        self, intake: Intake, room: SharedRoom, connections_max: int, connections_per_address_max: int
    ) -> None:
        self.intake = intake
        self._room = room
        self._connections_max = connections_max
        self._connections_per_address_max = connections_per_address_max
        self._connections: set[Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._waiting: dict[Connection, None] = {}  # in the order in which they began to wait
        self._drained: defer.Deferred[None] | None = None

    def admit(self, connection: Connection) -> bool:
        """Counts a new connection, or says that it may not stay."""
        why = None
        if not self.intake.admits(connection.host):
            why = "not among --senders"
        elif len(self._connections) >= self._connections_max:
            why = "too many connections"
        elif self._by_address[connection.host] >= self._connections_per_address_max:
            why = "too many connections from one address"
        if why is not None:
            self.intake.counts.refuse(connection.host, why)
            return False
        self._connections.add(connection)
        self._by_address[connection.host] += 1
        return True

    def forget(self, connection: Connection) -> None:
        self._connections.remove(connection)
        self._by_address[connection.host] -= 1
        if not self._by_address[connection.host]:
            del self._by_address[connection.host]
        if self._drained is not None and not self._connections and not self._drained.called:
            self._drained.callback(None)

    def take(self, connection: Connection, frame: Frame) -> None:
        self.intake.take("TCP", connection.host, frame, (connection.room, *self._room.of(connection.host)))

    def has_room_for(self, connection: Connection) -> bool:
        return connection.room.left and self._room.left_for(connection.host)

    def wait_for_room(self, connection: Connection) -> None:
        self._waiting[connection] = None

    @property
    def waiting(self) -> int:
        """How many connections are not read because there is no room."""
        return len(self._waiting)

    @property
    def unread_bytes(self) -> int:
        """How much of what has come is in no line yet: for want of room, or of its end."""
        return sum(connection.frames.size_bytes for connection in self._connections)

    def room_made(self) -> None:
        """Lets connections read on, those that wait longest first."""
        for connection in list(self._waiting):
            if self.has_room_for(connection):
                del self._waiting[connection]
                connection.read_on()

    async def drain(self, seconds: float, clock: Any) -> None:
        """Has all senders stop, and waits until what they sent has found room; cuts those that don't stop in time."""
        if not self._connections:
            return
        self._drained = defer.Deferred()
        for connection in list(self._connections):
            connection.finish_soon()
        try:
            await self._drained.addTimeout(seconds, clock)
        except defer.TimeoutError:
            log.warn("{count} connections are cut at the daemon's end.", count=len(self._connections))
            for connection in list(self._connections):
                connection.abort()


class Datagrams(protocol.DatagramProtocol):  # type: ignore[misc]  # untyped
    """A line a datagram (RFC 5426, 3.1), also where its length stands before it."""

    noisy = False

    def __init__(self, intake: Intake, room: SharedRoom) -> None:
        self._intake = intake
        self._room = room

    def datagramReceived(self, datagram: bytes, addr: tuple[Any, ...]) -> None:
        host = host_of(addr[0])
        if not self._intake.admits(host):
            self._intake.counts.drop(1, "UDP: sender not among --senders")
        elif not (self._room.whole.left and self._room.left_for(host)):  # addresses without number can be forged
            self._intake.counts.drop(1, "UDP: too many lines wait for Redis")
        else:
            line, most = uncounted(datagram), self._intake.line_bytes_max
            self._intake.take("UDP", host, Frame(line[:most], len(line) > most), self._room.of(host))
