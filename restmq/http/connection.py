"""One connection: deadlines, the order of pipelined requests, upgrades, streams, and how it ends (RFC 9112).

One request at a time is handed to the application. A connection whose next requests are already here is not read on
until they are answered, so that nobody can pile up work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import protocol
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from restmq.errors import WireError
from restmq.http.parser import Limits, RequestParser, head_of
from restmq.http.request import Request
from restmq.transport import Presence, hung_up, send_at_once

if TYPE_CHECKING:
    from restmq.http.server import HTTPServer

_LINGER_SECONDS = 2.0
#: While the server drains: for the request of a client that has just come.
_FIRST_REQUEST_SECONDS = 1.0
_UPGRADE_HELD_BYTES = 65536
#: A client that reads an answer more slowly is not waited for.
_SLOWEST_BYTES_PER_SECOND = 16 * 1024


@implementer(IPushProducer)
class HTTPConnection(protocol.Protocol):  # type: ignore[misc]  # untyped
    """One client's connection: parses, queues what is pipelined, hands over one request at a time."""

    #: cyclone's handlers look at these two.
    no_keep_alive = False
    xheaders = False

    factory: HTTPServer
    remote_ip = ""
    secure = False
    admitted = False

    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self.remote_ip = getattr(peer, "host", "") or "unix"
        self.secure = hasattr(self.transport, "getPeerCertificate")
        self._parser = RequestParser(self, self.factory.limits, self._request_begins)
        self._handler: Any = None
        self._streaming: Any = None
        self._busy = False
        self._reading_paused = False
        self._client_reads = True
        self._discarding = False
        self.presence = Presence(self._left_unseen)
        self.deadline: float | None = self.factory.seconds() + self.factory.limits.request_seconds
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        refusal = self.factory.admit(self)
        if refusal:
            self._refuse(refusal)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.factory.forget(self)
        handler, self._handler = self._streaming or self._handler, None
        self._streaming = None
        self._discard()
        if handler is not None:
            handler.on_connection_close()
        self.presence.leave()

    def dataReceived(self, data: bytes) -> None:
        if self._discarding:
            return
        parser = self._parser
        parser.feed(data)
        if parser.held is not None and len(parser.held) > _UPGRADE_HELD_BYTES:
            self.transport.abortConnection()
        else:
            self._next()

    def _request_begins(self) -> None:
        if not self._busy:
            self.deadline = self.factory.seconds() + self.factory.limits.request_seconds

    def hand_over(self, request: Request, successor: Any) -> None:
        """Gives the connection to another protocol, with the request's head and all that came after it.

        It goes on to count as ours, until the successor tells the factory to forget it.
        """
        held, self._parser = self._parser.held or b"", _NO_PARSER
        self._handler, self._discarding, self.deadline = None, True, None
        self._pause_reading(False)
        self.transport.unregisterProducer()
        if hasattr(self.transport, "wrappedProtocol"):
            self.transport.wrappedProtocol = successor
        else:
            self.transport.protocol = successor
        successor.makeConnection(self.transport)
        successor.dataReceived(head_of(request) + held)

    # One request at a time

    def _next(self) -> None:
        """Hands the next request over, if none is being answered; then the refusal, if there is one."""
        parser = self._parser
        while self._client_reads and not self._busy and not self._discarding:
            if parser.requests:
                request = parser.requests.popleft()
                self._busy, self.deadline = True, None
                handler = self.factory(request)
                if self._busy and self._streaming is None:
                    self._handler = handler
            elif parser.unparsed:
                parser.go_on()
            else:
                break
        if self._discarding:
            return
        if self._busy or not self._client_reads:
            self._pause_reading(not self._client_reads or bool(parser.requests or parser.unparsed))
            return
        self._pause_reading(False)
        if parser.refusal is not None:
            self._refuse(parser.refusal)
        elif parser.continue_owed:
            parser.continue_owed = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _pause_reading(self, paused: bool) -> None:
        if paused != self._reading_paused:
            self._reading_paused = paused
            if paused:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _left_unseen(self) -> bool:
        """Whether the client has left, though its end stands behind requests that are not read yet."""
        return self._reading_paused and hung_up(self.transport)

    def pauseProducing(self) -> None:
        """The transport is full: a client that doesn't read its answers gets no more of them."""
        self._client_reads = False

    def resumeProducing(self) -> None:
        self._client_reads = True
        if not self._busy and not self._discarding:
            self._wait_for_client()
            self._next()

    def stopProducing(self) -> None:
        """The transport is gone; connectionLost says so too."""

    def _wait_for_client(self, unsent_bytes: int = 0) -> None:
        """Sets the deadline: for the rest of a request, or for the next one."""
        limits = self.factory.limits
        seconds = limits.request_seconds if self._parser.in_request else limits.idle_seconds
        self.deadline = self.factory.seconds() + seconds + unsent_bytes / _SLOWEST_BYTES_PER_SECOND

    def write(self, data: bytes) -> None:
        """A part of an answer that goes on."""
        self.transport.write(data)

    def finished(self, data: bytes, keep_alive: bool) -> None:
        """The last (or only) bytes of the answer to the current request."""
        send_at_once(self.transport, data)
        self._busy, self._handler = False, None
        self._wait_for_client(len(data))
        parser = self._parser
        if not keep_alive or self.factory.draining:
            self._end(linger=self._reading_paused or parser.in_request or bool(parser.requests or parser.held))
        elif self._reading_paused or parser.refusal is not None or parser.continue_owed:
            self.factory.later(self._next)

    def finish_soon(self) -> None:
        """The server is going: a connection with no request under way ends; a new one has a moment for its first."""
        parser = self._parser
        if parser.is_new:
            self.deadline = self.factory.seconds() + _FIRST_REQUEST_SECONDS
        elif not self._busy and not parser.requests and not parser.in_request and not self._discarding:
            self._end()

    def _discard(self) -> None:
        """Nothing that the client sent or sends from now on is a request."""
        self._discarding = True
        self._parser.forget()

    def _end(self, linger: bool = False) -> None:
        """Closes when all is sent. With linger it reads on, without heed, till the client closes or the deadline comes.

        Unread bytes would make it a reset, in which the last answer could be lost (RFC 9112, 9.6).
        """
        self._discard()
        self.transport.unregisterProducer()
        if linger and not self.secure and hasattr(self.transport, "loseWriteConnection"):
            self._pause_reading(False)
            self.transport.loseWriteConnection()
        else:  # TLS has an end of its own, which waits for the client's
            self.transport.loseConnection()

    def abort(self) -> None:
        """Ends an answer that can't be completed, so that it does not look complete."""
        self.transport.abortConnection()

    def stream(self, consumer: Any) -> None:
        """The answer goes on without end: the consumer is told of the connection's end, and of its back-pressure.

        Nothing that the client sends from now on is a request. The request's own objects are let go.
        """
        self._streaming, self._handler = consumer, None
        self._discard()
        self._parser = _NO_PARSER
        self._pause_reading(False)  # else the client's going would not be seen
        self.transport.unregisterProducer()
        self.transport.registerProducer(consumer, True)

    def end_stream(self, last: bytes) -> None:
        """The stream's proper end."""
        self._streaming = None
        self.transport.unregisterProducer()
        self.transport.write(last)
        self.deadline = self.factory.seconds() + _LINGER_SECONDS
        self.transport.loseConnection()

    # Refusals and deadlines

    def _refuse(self, refusal: WireError) -> None:
        self.factory.refused(self.remote_ip, refusal)
        self.transport.write(self.factory.render_refusal(refusal))
        self.deadline = self.factory.seconds() + _LINGER_SECONDS
        self._end(linger=True)

    def overdue(self) -> None:
        """The deadline has passed."""
        if self._discarding:
            self.transport.abortConnection()
        elif self._parser.in_request and self._client_reads:
            self._refuse(WireError(408, "the request took too long to arrive."))
        else:
            self.deadline = self.factory.seconds() + _LINGER_SECONDS
            self._end()


#: Of a connection that streams, or has become another protocol's: of what comes, nothing is a request.
_NO_PARSER = RequestParser(None, Limits(), lambda: None)
_NO_PARSER.is_new = False
