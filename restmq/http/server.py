"""The HTTP factory: the set of connections, their maximum number, and their deadlines."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet import defer
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.logger import Logger
from zope.interface import implementer

from restmq.errors import WireError
from restmq.http.connection import HTTPConnection
from restmq.http.limits import Limits
from restmq.http.quota import ClientQuota
from restmq.http.request import Request
from restmq.http.turns import Turns
from restmq.http.unread import UnreadResponses

log = Logger()


@implementer(IProtocolNegotiationFactory)
class HTTPServer(ABC):
    """The Twisted factory of HTTP connections; the application inherits from it."""

    protocol: ClassVar[type] = HTTPConnection
    limits: Limits
    draining = False
    noisy = False  # Twisted logs nothing when a port opens and closes

    def start_server(self, limits: Limits, reactor: Any, turns: Turns | None = None) -> None:
        self.limits = limits
        self.seconds: Callable[[], float] = reactor.seconds
        self._call_later = reactor.callLater
        self.connections: set[HTTPConnection] = set()
        self.turns = turns or Turns(reactor.callLater, time.perf_counter)
        self._admitted = ClientQuota(limits.connections, limits.connections_per_address)
        self.received = ClientQuota(limits.received_bytes, limits.received_bytes_per_address)
        self.unread = UnreadResponses(
            ClientQuota(limits.unread_bytes, limits.unread_bytes_per_address), limits.unread_seconds
        )
        self._cut_logged = 0
        self._drained: defer.Deferred[None] = defer.Deferred()

    def acceptableProtocols(self) -> list[bytes]:
        """Without this a TLS endpoint rejects every client that offers ALPN."""
        return [b"http/1.1"]

    def admit(self, connection: HTTPConnection) -> WireError | None:
        """Counts a new connection. Returns the reason if it is refused; refused connections are not counted."""
        self.connections.add(connection)
        if self._admitted.exceeded_in_total(1):
            return WireError(503, "the server has too many connections; try again later.")
        if self._admitted.exceeded_by(connection.remote_ip, 1):
            return WireError(503, "your address has too many connections; close some and try again.")
        connection.admitted = True
        self._admitted.change(connection.remote_ip, 1)
        return None

    def forget(self, connection: HTTPConnection) -> None:
        """The connection is closed."""
        self.connections.discard(connection)
        if connection.admitted:
            connection.admitted = False
            self._admitted.change(connection.remote_ip, -1)
        if self.draining and not self.connections and not self._drained.called:
            self._drained.callback(None)

    def close_overdue(self) -> None:
        """Closes connections whose deadline has passed, or whose client reads nothing. Call it about once a second."""
        now = self.seconds()
        self.unread.cut_stalled(now)
        if self.unread.cut_number > self._cut_logged:
            number, self._cut_logged = self.unread.cut_number - self._cut_logged, self.unread.cut_number
            log.warn("{number} connections were cut: their clients do not read the response.", number=number)
        for connection in list(self.connections):
            if connection.deadline is not None and connection.deadline < now:
                connection.deadline_passed()

    @abstractmethod
    def __call__(self, request: Request) -> Any:
        """Starts a request's handler and returns it."""

    def refused(self, address: str, refusal: WireError) -> None:  # noqa: B027  it may stay empty
        """Told of a request or connection that is refused before a handler sees it."""

    @abstractmethod
    def render_refusal(self, refusal: WireError) -> bytes:
        """The response to a refused request or connection."""

    def start_draining(self) -> None:
        """Takes no more requests: idle connections close now, busy ones after their current response."""
        self.draining = True
        for connection in list(self.connections):
            connection.start_draining()

    async def drain(self, seconds: float) -> None:
        """As ``start_draining``, then waits until all connections are closed. Cuts those that take longer than this."""
        self.start_draining()
        if self.connections:
            timeout = self._call_later(seconds, self._abort_all)
            await self._drained
            if timeout.active():
                timeout.cancel()

    def _abort_all(self) -> None:
        for connection in list(self.connections):
            connection.abort()
