"""One client connection (RFC 9112): the order of pipelined requests, deadlines, upgrades, streams, and the close.

The application gets one request at a time. While a request is being answered and more are already here, the server
stops reading the connection, so a client cannot pile up work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import protocol
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from restmq.errors import WireError
from restmq.http.parser import Limits, RequestParser, head_of
from restmq.http.request import Request
from restmq.transport import Presence, hung_up, send_at_once

_LINGER_SECONDS = 2.0
#: While the server drains, a new connection may still send its first request within this time.
_FIRST_REQUEST_SECONDS = 1.0
_UPGRADE_BYTES_MAX = 65536
#: A client that reads a response more slowly than this is disconnected.
_SLOWEST_BYTES_PER_SECOND = 16 * 1024


class Server(Protocol):
    """What a connection needs of its factory; ``http.server`` implements it."""

    limits: Limits
    draining: bool
    seconds: Callable[[], float]

    def admit(self, connection: HTTPConnection) -> WireError | None: ...
    def forget(self, connection: HTTPConnection) -> None: ...
    def call_soon(self, call: Callable[[], None]) -> None: ...
    def __call__(self, request: Request) -> Any: ...
    def refused(self, address: str, refusal: WireError) -> None: ...
    def render_refusal(self, refusal: WireError) -> bytes: ...


@implementer(IPushProducer)
class HTTPConnection(protocol.Protocol):  # type: ignore[misc]  # untyped
    """Parses one client's bytes, queues pipelined requests, and hands over one request at a time."""

    #: cyclone's handlers read these two.
    no_keep_alive = False
    xheaders = False

    factory: Server
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
        if parser.after_upgrade is not None and len(parser.after_upgrade) > _UPGRADE_BYTES_MAX:
            self.transport.abortConnection()
        else:
            self._next()

    def _request_begins(self) -> None:
        if not self._busy:
            self.deadline = self.factory.seconds() + self.factory.limits.request_seconds

    def hand_over(self, request: Request, successor: Any) -> None:
        """Gives the connection to another protocol, which gets the request's head and all bytes after it.

        The connection stays counted until the successor calls the factory's ``forget``.
        """
        after, self._parser = self._parser.after_upgrade or b"", _NO_PARSER
        self._handler, self._discarding, self.deadline = None, True, None
        self._pause_reading(False)
        self.transport.unregisterProducer()
        if hasattr(self.transport, "wrappedProtocol"):
            self.transport.wrappedProtocol = successor
        else:
            self.transport.protocol = successor
        successor.makeConnection(self.transport)
        successor.dataReceived(head_of(request) + after)

    # One request at a time

    def _next(self) -> None:
        """Hands over the next request unless one is being answered. Sends the refusal once no request is left."""
        parser = self._parser
        while self._client_reads and not self._busy and not self._discarding:
            if parser.requests:
                request = parser.requests.popleft()
                self._busy, self.deadline = True, None
                handler = self.factory(request)
                if self._busy and self._streaming is None:
                    self._handler = handler
            elif parser.unparsed:
                parser.resume()
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
        """Whether the client has disconnected while reading is paused, so that ``connectionLost`` comes only later."""
        return self._reading_paused and hung_up(self.transport)

    def pauseProducing(self) -> None:
        """The transport is full: the client does not read its responses, so it gets no more of them."""
        self._client_reads = False

    def resumeProducing(self) -> None:
        self._client_reads = True
        if not self._busy and not self._discarding:
            self._wait_for_client()
            self._next()

    def stopProducing(self) -> None:
        """Nothing to do: connectionLost follows."""

    def _wait_for_client(self, unsent_bytes: int = 0) -> None:
        """Sets the deadline for the rest of a request, or for the next one."""
        limits = self.factory.limits
        seconds = limits.request_seconds if self._parser.in_request else limits.idle_seconds
        self.deadline = self.factory.seconds() + seconds + unsent_bytes / _SLOWEST_BYTES_PER_SECOND

    def write(self, data: bytes) -> None:
        """Sends a part of a response that continues."""
        self.transport.write(data)

    def finished(self, data: bytes, keep_alive: bool) -> None:
        """Sends a whole response, or the last bytes of one. Then the next request has its turn."""
        send_at_once(self.transport, data)
        self._busy, self._handler = False, None
        self._wait_for_client(len(data))
        parser = self._parser
        if not keep_alive or self.factory.draining:
            self._end(linger=self._reading_paused or parser.in_request or bool(parser.requests or parser.after_upgrade))
        elif self._reading_paused or parser.refusal is not None or parser.continue_owed:
            self.factory.call_soon(self._next)

    def finish_soon(self) -> None:
        """The server drains: an idle connection closes; a new one has a moment for its first request."""
        parser = self._parser
        if parser.is_new:
            self.deadline = self.factory.seconds() + _FIRST_REQUEST_SECONDS
        elif not self._busy and not parser.requests and not parser.in_request and not self._discarding:
            self._end()

    def _discard(self) -> None:
        """Ignores all that the client has sent and will send."""
        self._discarding = True
        self._parser.forget()

    def _end(self, linger: bool = False) -> None:
        """Closes when all is sent.

        Args:
            linger: keep reading and ignoring input until the client closes or the deadline passes. Closing with unread
                input would send a reset, which can destroy the last response on its way (RFC 9112, 9.6).
        """
        self._discard()
        self.transport.unregisterProducer()
        if linger and not self.secure and hasattr(self.transport, "loseWriteConnection"):
            self._pause_reading(False)
            self.transport.loseWriteConnection()
        else:  # TLS has its own close, which waits for the client's
            self.transport.loseConnection()

    def abort(self) -> None:
        """Cuts a response that cannot be completed, so that it does not look complete."""
        self.transport.abortConnection()

    def stream(self, consumer: Any) -> None:
        """Makes the response endless: the consumer writes to the transport and is its producer.

        The consumer's ``on_connection_close`` is called at the end. Further input is ignored. The request's objects are
        released.
        """
        self._streaming, self._handler = consumer, None
        self._discard()
        self._parser = _NO_PARSER
        self._pause_reading(False)  # else a disconnect would not be seen
        self.transport.unregisterProducer()
        self.transport.registerProducer(consumer, True)

    def end_stream(self, last: bytes) -> None:
        """Sends a stream's last bytes and closes."""
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

    def deadline_passed(self) -> None:
        if self._discarding:
            self.transport.abortConnection()
        elif self._parser.in_request and self._client_reads:
            self._refuse(WireError(408, "the request took too long to arrive; send it faster."))
        else:
            self.deadline = self.factory.seconds() + _LINGER_SECONDS
            self._end()


#: For a connection that streams or was handed over: its input holds no requests.
_NO_PARSER = RequestParser(None, Limits(), lambda: None)
_NO_PARSER.is_new = False
