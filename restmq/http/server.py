"""The factory's side of the wire: which connections there are, how many there may be, and whose time is over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet import defer
from twisted.internet.interfaces import IProtocolNegotiationFactory
from zope.interface import implementer

from restmq.errors import WireError
from restmq.http.connection import HTTPConnection
from restmq.http.parser import Limits
from restmq.http.request import Request


@implementer(IProtocolNegotiationFactory)
class HTTPServer(ABC):
    """The factory's side: which connections there are, how many there may be, and whose time is over."""

    protocol: ClassVar[type] = HTTPConnection
    limits: Limits
    draining = False
    noisy = False  # Twisted's word for a line in the log when a port opens and closes

    def start_server(self, limits: Limits, reactor: Any) -> None:
        self.limits = limits
        self.seconds: Callable[[], float] = reactor.seconds
        self._call_later = reactor.callLater
        self.connections: set[HTTPConnection] = set()
        self._admitted: Counter[str] = Counter()  # by address
        self._admitted_in_all = 0
        self._drained: defer.Deferred[None] = defer.Deferred()

    def acceptableProtocols(self) -> list[bytes]:
        """Without this a TLS endpoint refuses every client that offers ALPN."""
        return [b"http/1.1"]

    def later(self, call: Callable[[], None]) -> None:
        self._call_later(0, call)

    def admit(self, connection: HTTPConnection) -> WireError | None:
        """Counts a new connection; returns why it may not stay. One that is refused takes nobody's place."""
        self.connections.add(connection)
        if self._admitted_in_all >= self.limits.connections:
            return WireError(503, "the server has too many connections; try again later.")
        if self._admitted[connection.remote_ip] >= self.limits.connections_per_address:
            return WireError(503, "too many connections from your address.")
        connection.admitted = True
        self._admitted_in_all += 1
        self._admitted[connection.remote_ip] += 1
        return None

    def forget(self, connection: HTTPConnection) -> None:
        self.connections.discard(connection)
        if connection.admitted:
            connection.admitted = False
            self._admitted_in_all -= 1
            self._admitted[connection.remote_ip] -= 1
            if not self._admitted[connection.remote_ip]:
                del self._admitted[connection.remote_ip]
        if self.draining and not self.connections and not self._drained.called:
            self._drained.callback(None)

    def end_overdue(self) -> None:
        """To be called about once a second."""
        now = self.seconds()
        for connection in list(self.connections):
            if connection.deadline is not None and connection.deadline < now:
                connection.overdue()

    @abstractmethod
    def __call__(self, request: Request) -> Any:
        """Has the request answered."""

    def refused(self, address: str, refusal: WireError) -> None:  # noqa: B027  it may stay empty
        """A request, or the connection, is refused before any handler saw it."""

    @abstractmethod
    def render_refusal(self, refusal: WireError) -> bytes:
        """The answer that says so."""

    def finish_soon(self) -> None:
        """No more requests: idle connections are closed, those with one under way after its answer."""
        self.draining = True
        for connection in list(self.connections):
            connection.finish_soon()

    async def drain(self, seconds: float) -> None:
        """As ``finish_soon``, and waits for the last of them; those that take longer than this are cut."""
        self.finish_soon()
        if self.connections:
            overdue = self._call_later(seconds, self._abort_all)
            await self._drained
            if overdue.active():
                overdue.cancel()

    def _abort_all(self) -> None:
        for connection in list(self.connections):
            connection.abort()
