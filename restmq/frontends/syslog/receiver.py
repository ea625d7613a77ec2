"""Receives syslog lines by TCP and UDP, and puts them into the spool while the quotas have capacity.

TCP has back-pressure: while there is no capacity for a connection's lines, the connection is not read, and the lines
wait at the sender. UDP has no back-pressure (RFC 5426): a datagram that exceeds the quota is counted and dropped.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet import defer, protocol
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.auth.acl import Hosts, parse_address
from restmq.frontends.syslog.framing import Frame, Frames, strip_count
from restmq.frontends.syslog.message import BLANKS, encode_line
from restmq.frontends.syslog.spool import LineCounts, Quota, Spool
from restmq.transport import notice_vanished_client

log = Logger()

#: One connection may use a fiftieth of the quota that all share: 2,000 lines by default.
_CONNECTION_PART = 50


@dataclass(slots=True, kw_only=True)
class Intake:
    """Rules for lines that TCP and UDP share."""

    spool: Spool
    counts: LineCounts
    #: Wall clock, in milliseconds since 1970.
    time_ms: Callable[[], int]
    line_bytes_max: int
    #: Hosts that may send; None for all.
    allowed: Hosts | None = None

    def allows(self, host: str) -> bool:
        return not self.allowed or self.allowed.everybody or self.allowed.contains(parse_address(host))

    def take(self, transport: str, host: str, frame: Frame, *quotas: Quota) -> None:
        """Puts a line into the spool, unless it is blank."""
        line = frame.content.strip(BLANKS)
        if line:
            self.counts.by_event[f"received by {transport}"] += 1
            if frame.truncated:
                self.counts.by_event["truncated"] += 1
            value = encode_line(line, host, self.time_ms() / 1000, frame.truncated)
            self.spool.put(queue_for(host), value, *quotas)


def queue_for(host: str) -> str:
    return f"syslogd:{host}"


def host_of(address: str) -> str:
    """A sender's address, as in its queue's name. An IPv4 address is written as IPv4, even from an IPv6 socket."""
    mapped = ipaddress.IPv6Address(address).ipv4_mapped if ":" in address else None
    return str(mapped or address)


class Sender(protocol.Protocol):  # type: ignore[misc]  # untyped
    """A TCP sender. A closed connection counts towards the limits until the spool has all its lines."""

    factory: TcpReceiver

    def connectionMade(self) -> None:
        self.host = host_of(getattr(self.transport.getPeer(), "host", "") or "unix")
        self.frames = Frames(self.factory.intake.line_bytes_max)
        self._quota = self.factory.quota.part(_CONNECTION_PART)
        self._paused = self._closed = False
        self._admitted = self.factory.admit(self)
        if self._admitted:
            notice_vanished_client(self.transport)  # else it would count towards the limits for hours
        else:
            self.transport.abortConnection()

    def dataReceived(self, received: bytes) -> None:
        if self._admitted:
            self.frames.feed(received)
            self.spool_lines()

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._admitted:
            self._closed = True
            self.frames.end()
            self.spool_lines()

    @property
    def has_capacity(self) -> bool:
        spool = self.factory.intake.spool
        return self._quota.has_capacity() and spool.has_capacity(
            queue_for(self.host), self.factory.quota, always_one=True
        )

    def spool_lines(self) -> None:
        """Puts lines into the spool while there is capacity; then stops reading until the factory calls this again."""
        while (has_capacity := self.has_capacity) and (frame := self.frames.next()):
            self.factory.intake.take("TCP", self.host, frame, self._quota, self.factory.quota)
        if not has_capacity:
            self.factory.waiting[self] = None
        elif self._closed:
            self.factory.forget(self)
        if self._paused is has_capacity and not self._closed:
            self._paused = not has_capacity
            (self.transport.pauseProducing if self._paused else self.transport.resumeProducing)()

    def finish(self) -> None:
        """Closes our side, so that the sender stops. Its lines are read until the sender has closed its own side."""
        if ISSLTransport.providedBy(self.transport):
            self.transport.loseConnection()  # TLS has its own close, which the sender answers
        else:
            self.transport.loseWriteConnection()

    def abort(self) -> None:
        if not self._closed:
            self.transport.abortConnection()


class TcpReceiver(protocol.ServerFactory):  # type: ignore[misc]  # untyped
    """All TCP connections, and the quota that they share."""

    protocol = Sender
    noisy = False

    def __init__(self, intake: Intake, quota: Quota, connections_max: int, connections_per_host_max: int) -> None:
        self.intake = intake
        self.quota = quota
        self._connections_max = connections_max
        self._connections_per_host_max = connections_per_host_max
        self._connections: set[Sender] = set()
        #: Connections without capacity; the one that has waited longest is first.
        self.waiting: dict[Sender, None] = {}
        self._empty: defer.Deferred[None] | None = None

    def admit(self, connection: Sender) -> bool:
        """Counts a new connection, or rejects it."""
        if not self.intake.allows(connection.host):
            problem = "sender not among --senders"
        elif len(self._connections) >= self._connections_max:
            problem = "too many connections"
        elif sum(other.host == connection.host for other in self._connections) >= self._connections_per_host_max:
            problem = "too many connections from one address"
        else:
            self._connections.add(connection)
            return True
        self.intake.counts.lose(f"connections rejected ({problem})")
        return False

    def forget(self, connection: Sender) -> None:
        self._connections.remove(connection)
        if not self._connections and self._empty is not None and not self._empty.called:
            self._empty.callback(None)

    def resume_connections(self) -> None:
        """Resumes connections that have capacity again; the one that has waited longest is first."""
        for connection in list(self.waiting):
            if connection.has_capacity:
                del self.waiting[connection]
                connection.spool_lines()

    def describe_waiting(self) -> str:
        """Describes received bytes that have not reached the spool: lines without an end, or without capacity.

        Bytes that are still there at the last summary are lost.
        """
        size_bytes = sum(connection.frames.size_bytes for connection in self._connections)
        return f"connections not read: {len(self.waiting)}, bytes not yet lines: {size_bytes}"

    async def drain(self, seconds: float, clock: Any) -> None:
        """Makes all senders stop, and waits until the spool has their lines. Cuts connections that take too long."""
        for connection in self._connections.copy():
            connection.finish()
        if self._connections:
            self._empty = defer.Deferred()
            try:
                await self._empty.addTimeout(seconds, clock)
            except defer.TimeoutError:
                log.warn("the daemon ends and cuts {count} connections.", count=len(self._connections))
                for connection in self._connections.copy():
                    connection.abort()


class UdpReceiver(protocol.DatagramProtocol):  # type: ignore[misc]  # untyped
    """Each datagram is one line (RFC 5426, 3.1). Addresses can be forged, so no host has capacity of its own."""

    noisy = False

    def __init__(self, intake: Intake, quota: Quota) -> None:
        self._intake = intake
        self._quota = quota

    def datagramReceived(self, datagram: bytes, addr: tuple[Any, ...]) -> None:
        host = host_of(addr[0])
        if not self._intake.allows(host):
            self._intake.counts.lose("dropped (UDP: sender not among --senders)")
        elif not self._intake.spool.has_capacity(queue_for(host), self._quota):
            self._intake.counts.lose("dropped (UDP: too many lines wait for Redis)")
        else:
            line, bytes_max = strip_count(datagram), self._intake.line_bytes_max
            self._intake.take("UDP", host, Frame(line[:bytes_max], len(line) > bytes_max), self._quota)
