"""The wire: HTTP/1.1 under cyclone's handlers.

llhttp (by httptools) parses strictly; what is left to us are limits, deadlines, the order of pipelined requests and a
few rules that a parser can't know. The rules are those of RFC 9112 (framing) and RFC 9110 (semantics). One request at a
time per connection is handed to the application; a connection whose next requests are already here is not read on until
they are answered, so that nobody can pile up work.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import unquote_to_bytes

import httptools
from cyclone import httputil
from cyclone.httpserver import HTTPRequest
from twisted.internet import defer, protocol
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.python.failure import Failure
from zope.interface import implementer

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
ARGUMENTS_MAX = 1000
_LINGER_SECONDS = 2.0
_UPGRADE_HELD_BYTES = 65536


@dataclass(slots=True, frozen=True)
class Limits:
    """What one client, and all of them together, may ask of the wire."""

    request_line_bytes: int = 8 * 1024
    header_bytes: int = 64 * 1024
    header_fields: int = 100
    body_bytes: int = 16 * 1024 * 1024
    request_seconds: float = 30.0
    idle_seconds: float = 75.0
    connections: int = 10_000
    connections_per_address: int = 2_000


class WireError(Exception):
    """A request that is refused before any handler sees it; the connection is closed after the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Headers(dict[str, str]):
    """Header fields by lower-case name; a field that came several times is joined by commas (RFC 9110, 5.2)."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())


class Request(HTTPRequest):  # type: ignore[misc]  # untyped
    """What handlers see: cyclone's request, with exact bytes and with arguments read only if asked for."""

    # HTTPRequest.__init__ reads the arguments, leniently, before anybody asked; so it is not called.
    def __init__(self, connection: HTTPConnection, method: str, uri: str, version: str, headers: Headers) -> None:
        self.connection = connection
        self.method = method
        self.uri = uri
        self.version = version
        self.headers = headers
        self.body = b""
        self.remote_ip = connection.remote_ip
        self.protocol = "https" if connection.secure else "http"
        self.host = headers.get("host") or "127.0.0.1"
        self.path, _, self.query = uri.partition("?")
        self.keep_alive = True
        self.upgrade = False
        self._arguments: dict[str, list[bytes]] | None = None

    @property
    def arguments(self) -> dict[str, list[bytes]]:
        """Query and form fields: name to values, as exact bytes. Raises WireError for too many or a bad form."""
        if self._arguments is None:
            self._arguments = {}
            _add_pairs(self._arguments, self.query.encode("latin-1"))
            if self.is_form:
                _add_pairs(self._arguments, self.body)
            elif self.media_type == "multipart/form-data":
                _add_parts(self._arguments, self.headers.get("content-type"), self.body)
        return self._arguments

    @property
    def media_type(self) -> str:
        """The body's type without parameters, in lower case; empty if none was named."""
        kind: str = self.headers.get("content-type", "")
        return kind.partition(";")[0].strip().lower()

    @property
    def is_form(self) -> bool:
        return self.media_type == "application/x-www-form-urlencoded"

    def accepts(self, media_type: str) -> bool:
        """Whether the Accept header names this type; a mere ``*/*`` is no wish for it."""
        accept: str = self.headers.get("accept", "")
        return any(part.partition(";")[0].strip().lower() == media_type for part in accept.split(","))


def _add_pairs(arguments: dict[str, list[bytes]], encoded: bytes) -> None:
    """Reads ``a=b&c=d`` as WHATWG's URL standard does, but keeps the bytes of the values as they are."""
    if not encoded:
        return
    pairs = encoded.split(b"&", ARGUMENTS_MAX)
    if len(pairs) > ARGUMENTS_MAX:
        raise WireError(400, f"more than {ARGUMENTS_MAX} form fields.")
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        if name or value:
            key = unquote_to_bytes(name.replace(b"+", b" ")).decode(errors="replace")
            arguments.setdefault(key, []).append(unquote_to_bytes(value.replace(b"+", b" ")))


def _add_parts(arguments: dict[str, list[bytes]], content_type: str, body: bytes) -> None:
    """The fields of a multipart form (RFC 7578); a file counts as a field whose value is its content."""
    boundary = ""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "boundary":
            boundary = value.strip('"')
    if not boundary:
        raise WireError(400, "multipart/form-data without a boundary.")
    fields: dict[str, list[bytes]] = {}
    files: dict[str, list[Any]] = {}
    httputil.parse_multipart_form_data(boundary.encode("latin-1"), body, fields, files)
    for name, values in fields.items():
        arguments.setdefault(name, []).extend(values)
    for name, parts in files.items():
        arguments.setdefault(name, []).extend(part["body"] for part in parts)


class HTTPConnection(protocol.Protocol):  # type: ignore[misc]  # untyped
    """One client's connection: parses, queues what is pipelined, hands over one request at a time."""

    #: cyclone's handlers look at these two.
    no_keep_alive = False
    xheaders = False

    factory: Wire
    remote_ip = ""
    secure = False

    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self.remote_ip = getattr(peer, "host", "") or "unix"
        self.secure = hasattr(self.transport, "getPeerCertificate")
        self._waiting: deque[Request] = deque()
        self._refusal: WireError | None = None
        self._handler: Any = None
        self._streaming: Any = None
        self._busy = False
        self._in_advance = False
        self._reading_paused = False
        self._discarding = False
        self._held: list[bytes] | None = None
        self._new_parser()
        self._in_request = False
        self.deadline: float | None = self.factory.seconds() + self.factory.limits.request_seconds
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        refusal = self.factory.admit(self)
        if refusal:
            self._refuse(refusal)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.factory.forget(self)
        handler, self._handler = self._streaming or self._handler, None
        self._streaming = None
        self._waiting.clear()
        self._discarding = True
        if handler is not None:
            handler.on_connection_close()

    # Parsing: httptools calls the on_… methods while it is fed

    def _new_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._in_head = True
        self._head_bytes = 0

    def dataReceived(self, data: bytes) -> None:
        if self._held is not None:
            self._hold(data)
            return
        if self._discarding:
            return
        began_in_head = self._in_head and self._in_request
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade_asked(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError:
            if self._refusal is None:
                raise
        except httptools.HttpParserInvalidMethodError:
            self._refusal = WireError(501, "this HTTP method is not known here.")
        except httptools.HttpParserError as error:
            self._refusal = WireError(400, f"malformed HTTP request: {error}.")
        if began_in_head and self._in_head and self._refusal is None:
            self._head_bytes += len(data)
            if self._head_bytes > self.factory.limits.header_bytes:
                self._refusal = WireError(431, "the request's header section is too long.")
        self._next()

    def on_message_begin(self) -> None:
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._body: list[bytes] = []
        self._body_size = 0
        self._in_head = True
        self._head_bytes = 0
        self._in_request = True
        if not self._busy:
            self.deadline = self.factory.seconds() + self.factory.limits.request_seconds

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self.factory.limits.request_line_bytes:
            self._stop(414, "the request's URL is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value) + 4
        if not self._in_head:  # a trailer: counted, not believed
            self._fields.append((b"", b""))
        else:
            self._fields.append((name, value))
        if len(self._fields) > self.factory.limits.header_fields:
            self._stop(431, f"more than {self.factory.limits.header_fields} header fields.")
        if self._head_size > self.factory.limits.header_bytes:
            self._stop(431, "the request's header section is too long.")

    def on_headers_complete(self) -> None:
        self._in_head = False
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._stop(505, "only HTTP/1.1 and HTTP/1.0 are spoken here.")
        method = self._parser.get_method().decode("ascii")
        if method not in METHODS:
            self._stop(501, "this HTTP method is not known here.")
        headers = Headers()
        for raw_name, raw_value in self._fields:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip(" \t")
            if name in headers:
                if name in ("host", "content-type", "authorization"):
                    self._stop(400, f"more than one {name} header.")
                value = f"{dict.__getitem__(headers, name)}, {value}"
            headers[name] = value
        self._check_framing(headers, version)
        uri = self._url.decode("ascii")
        if not uri.startswith("/"):
            uri = self._origin_form(uri, method)
        request = self._request = Request(self, method, uri, "HTTP/" + version, headers)
        request.keep_alive = self._parser.should_keep_alive()
        if headers.get("expect"):
            self._continue(headers.get("expect"))

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size > self.factory.limits.body_bytes:
            self._stop(413, f"the body is longer than {self.factory.limits.body_bytes} bytes.")
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = self._request
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._in_head, self._in_request, self._head_bytes = True, False, 0
        self._in_advance = False
        self._waiting.append(request)

    def _stop(self, status: int, message: str) -> None:
        """Ends the parsing for good. What the parser raises for it is caught in dataReceived."""
        self._refusal = WireError(status, message)
        raise self._refusal

    def _check_framing(self, headers: Headers, version: str) -> None:
        host = headers.get("host")
        if host is None and version == "1.1":
            self._stop(400, "an HTTP/1.1 request needs a Host header (RFC 9112, 3.2).")
        if host and not all(c.isalnum() or c in "-._:[]%" for c in host):
            self._stop(400, "the Host header is malformed.")
        coding = headers.get("transfer-encoding")
        if coding is not None and (version == "1.0" or coding.lower() != "chunked"):
            self._stop(400 if version == "1.0" else 501, "the only transfer coding known here is chunked, in HTTP/1.1.")
        length = headers.get("content-length")
        if length is not None and int(length) > self.factory.limits.body_bytes:
            self._stop(413, f"the body is longer than {self.factory.limits.body_bytes} bytes.")

    def _origin_form(self, uri: str, method: str) -> str:
        """The path of an absolute-form target (RFC 9112, 3.2.2); ``*`` stays."""
        if uri == "*" and method == "OPTIONS":
            return uri
        scheme, _, rest = uri.partition("://")
        if scheme.lower() not in ("http", "https") or not rest:
            self._stop(400, "the request's target must be a path.")
        return "/" + rest.partition("/")[2]

    def _continue(self, expect: str) -> None:
        if expect.lower() != "100-continue":
            self._stop(417, "the only expectation known here is 100-continue.")
        if self._busy or self._waiting:
            self._in_advance = True  # said when its turn comes
        elif self._request.version == "HTTP/1.1":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # Upgrades

    def _upgrade_asked(self, rest: bytes) -> None:
        request = self._waiting[-1]
        wants_websocket = request.headers.get("upgrade", "").lower() == "websocket" and request.method == "GET"
        if wants_websocket and request.headers.get("content-length", "0") == "0":
            request.upgrade = True
            self._held = [rest] if rest else []
            return
        # Any other upgrade is declined by ignoring it (RFC 9110, 7.8), and the body belongs to this request.
        self._waiting.pop()
        head = [f"{request.method} {request.uri} {request.version}\r\n".encode("latin-1")]
        for name, value in request.headers.items():
            if name != "upgrade":
                head.append(f"{name}: {value}\r\n".encode("latin-1"))
        self._new_parser()
        self.dataReceived(b"".join([*head, b"\r\n", rest]))

    def _hold(self, data: bytes) -> None:
        assert self._held is not None
        self._held.append(data)
        if sum(map(len, self._held)) > _UPGRADE_HELD_BYTES:
            self.transport.abortConnection()

    def hand_over(self, request: Request, successor: Any) -> None:
        """Gives the connection to another protocol, with the request's head and all that came after it."""
        head = [f"{request.method} {request.uri} {request.version}\r\n".encode("latin-1")]
        head += [f"{name}: {value}\r\n".encode("latin-1") for name, value in request.headers.items()]
        held, self._held = self._held or [], None
        self._handler, self._discarding, self.deadline = None, True, None
        self.factory.forget(self)
        if hasattr(self.transport, "wrappedProtocol"):
            self.transport.wrappedProtocol = successor
        else:
            self.transport.protocol = successor
        successor.makeConnection(self.transport)
        successor.dataReceived(b"".join([*head, b"\r\n", *held]))

    # One request at a time

    def _next(self) -> None:
        """Hands the next request over, if none is being answered; then the refusal, if there is one."""
        while self._waiting and not self._busy:
            request = self._waiting.popleft()
            self._busy = True
            self.deadline = None
            handler = self.factory(request)
            if self._busy and self._streaming is None:
                self._handler = handler
        if self._busy:
            self._pause_reading(bool(self._waiting) and not self._discarding)
            return
        self._pause_reading(False)
        if self._refusal is not None and not self._discarding:
            self._refuse(self._refusal)
        elif self._in_advance:
            self._in_advance = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _pause_reading(self, paused: bool) -> None:
        if paused != self._reading_paused:
            self._reading_paused = paused
            if paused:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def write(self, data: bytes) -> None:
        """A part of an answer that goes on."""
        self.transport.write(data)

    def finished(self, data: bytes, keep_alive: bool) -> None:
        """The last (or only) bytes of the answer to the current request."""
        self.transport.write(data)
        self._busy, self._handler = False, None
        limits = self.factory.limits
        if not keep_alive or self.factory.draining:
            self._discarding = True
            self._waiting.clear()
            self.deadline = self.factory.seconds() + limits.idle_seconds
            self.transport.loseConnection()
            return
        self.deadline = self.factory.seconds() + (limits.request_seconds if self._in_request else limits.idle_seconds)
        if self._waiting or self._refusal is not None or self._in_advance or self._reading_paused:
            self.factory.later(self._next)

    def finish_soon(self) -> None:
        """The server is going: a connection with no request under way ends now."""
        if not self._busy and not self._waiting:
            self._discarding = True
            self.transport.loseConnection()

    def abort(self) -> None:
        """Ends an answer that can't be completed, so that it does not look complete."""
        self.transport.abortConnection()

    def stream(self, consumer: Any) -> None:
        """The answer goes on without end: the consumer is told of the connection's end, and of its back-pressure.

        Nothing that the client sends from now on is a request. The request's own objects are let go.
        """
        self._discarding, self._streaming = True, consumer
        self._waiting.clear()
        del self._request, self._fields, self._body, self._url
        self._parser = None
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
        """Answers, then reads on for a moment without heed: else the answer could be lost in a reset (RFC 9112, 9.6)."""
        self._discarding = True
        self._waiting.clear()
        self.transport.write(self.factory.render_refusal(refusal))
        self.deadline = self.factory.seconds() + _LINGER_SECONDS
        if hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def overdue(self) -> None:
        """The deadline has passed."""
        if self._discarding:
            self.transport.abortConnection()
        elif self._in_request:
            self._refuse(WireError(408, "the request took too long to arrive."))
        else:
            self._discarding = True
            self.deadline = self.factory.seconds() + _LINGER_SECONDS
            self.transport.loseConnection()


@implementer(IProtocolNegotiationFactory)
class Wire:
    """The factory's side: which connections there are, how many there may be, and whose time is over."""

    protocol: ClassVar[type] = HTTPConnection
    limits: Limits
    draining = False

    def start_wire(self, limits: Limits, reactor: Any) -> None:
        self.limits = limits
        self.seconds: Callable[[], float] = reactor.seconds
        self._call_later = reactor.callLater
        self.connections: set[HTTPConnection] = set()
        self._per_address: Counter[str] = Counter()

    def acceptableProtocols(self) -> list[bytes]:
        """Without this a TLS endpoint refuses every client that offers ALPN."""
        return [b"http/1.1"]

    def later(self, call: Callable[[], None]) -> None:
        self._call_later(0, call)

    def admit(self, connection: HTTPConnection) -> WireError | None:
        """Counts a new connection; returns why it may not stay."""
        self.connections.add(connection)
        self._per_address[connection.remote_ip] += 1
        if len(self.connections) > self.limits.connections:
            return WireError(503, "the server has too many connections; try again later.")
        if self._per_address[connection.remote_ip] > self.limits.connections_per_address:
            return WireError(503, "too many connections from your address.")
        return None

    def forget(self, connection: HTTPConnection) -> None:
        if connection in self.connections:
            self.connections.discard(connection)
            self._per_address[connection.remote_ip] -= 1
            if not self._per_address[connection.remote_ip]:
                del self._per_address[connection.remote_ip]
            if self.draining and not self.connections and not self._drained.called:
                self._drained.callback(None)

    def end_overdue(self) -> None:
        """To be called about once a second."""
        now = self.seconds()
        for connection in list(self.connections):
            if connection.deadline is not None and connection.deadline < now:
                connection.overdue()

    def render_refusal(self, refusal: WireError) -> bytes:
        raise NotImplementedError  # by the application, which knows what errors look like

    async def drain(self, seconds: float) -> None:
        """No more requests: idle connections are closed, those with one under way after its answer, all in the end."""
        self.draining = True
        self._drained: defer.Deferred[None] = defer.Deferred()
        for connection in list(self.connections):
            connection.finish_soon()
        if self.connections:
            overdue = self._call_later(seconds, self._abort_all)
            await self._drained
            if overdue.active():
                overdue.cancel()

    def _abort_all(self) -> None:
        for connection in list(self.connections):
            connection.abort()
