"""The wire: HTTP/1.1 under cyclone's handlers.

llhttp (by httptools) parses strictly; what is left to us are limits, deadlines, the order of pipelined requests and a
few rules that a parser can't know. The rules are those of RFC 9112 (framing) and RFC 9110 (semantics). One request at a
time per connection is handed to the application; a connection whose next requests are already here is not read on until
they are answered, so that nobody can pile up work.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import httptools
from twisted.internet import protocol
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from restmq.request import Headers, Request, WireError
from restmq.sending import send_at_once

if TYPE_CHECKING:
    from restmq.wire import Wire

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_LINGER_SECONDS = 2.0
#: While the server drains: for the request of a client that has just come.
_FIRST_REQUEST_SECONDS = 1.0
_UPGRADE_HELD_BYTES = 65536
_PIECE_BYTES = 4096
_FIELDS_REMEMBERED_BYTES = 1024
#: A client that reads an answer more slowly is not waited for.
_SLOWEST_BYTES_PER_SECOND = 16 * 1024

#: A method's name, to its end or the data's: one that is unknown, not garbage (RFC 9110, 5.6.2).
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: |$)")
_HOST = re.compile(r"(?:\[[\w:.%]+\]|[\w.~%!$&'()*+,;=-]*)(?::\d*)?", re.ASCII)
_ABSOLUTE = re.compile(r"https?://([^/?#]+)([^#]*)", re.IGNORECASE)


@dataclass(slots=True, frozen=True)
class Limits:
    """What one client, and all of them together, may ask of the wire."""

    request_line_bytes: int = 8 * 1024
    header_bytes: int = 64 * 1024
    header_fields: int = 100
    body_bytes: int = 16 * 1024 * 1024
    requests_waiting: int = 16  # pipelined, on one connection; a few small ones more if they came in one piece
    request_seconds: float = 30.0
    idle_seconds: float = 75.0
    connections: int = 10_000
    connections_per_address: int = 2_000


@implementer(IPushProducer)
class HTTPConnection(protocol.Protocol):  # type: ignore[misc]  # untyped
    """One client's connection: parses, queues what is pipelined, hands over one request at a time."""

    #: cyclone's handlers look at these two.
    no_keep_alive = False
    xheaders = False

    factory: Wire
    remote_ip = ""
    secure = False
    admitted = False
    _progress = -1
    _silent_bytes = 0

    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self.remote_ip = getattr(peer, "host", "") or "unix"
        self.secure = hasattr(self.transport, "getPeerCertificate")
        self._waiting: deque[Request] = deque()
        self._unparsed = b""  # what follows after as many requests as may wait
        self._refusal: WireError | None = None
        self._handler: Any = None
        self._streaming: Any = None
        self._busy = False
        self._continue_owed = False
        self._reading_paused = False
        self._client_reads = True
        self._discarding = False
        self._held: bytearray | None = None
        self._in_request = False
        self._is_new = True
        self._parser = httptools.HttpRequestParser(self)
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

    # Parsing: httptools calls the on_… methods while it is fed

    def dataReceived(self, data: bytes) -> None:
        if self._held is not None:
            self._hold(data)
        elif self._unparsed:  # a TLS transport may have some more for us after it was paused
            self._unparsed += data
        elif not self._discarding:
            self._parse(data)
            self._next()

    def _parse(self, data: bytes) -> None:
        """Piece by piece, so that a read full of small requests does not become thousands of objects."""
        start = 0
        while start < len(data) and self._refusal is None:
            if len(self._waiting) >= self.factory.limits.requests_waiting:
                self._unparsed = data[start:]
                return
            start += self._feed(data[start : start + _PIECE_BYTES])
            if self._held is not None:
                self._hold(data[start:])
                return

    def _feed(self, data: bytes) -> int:
        """Returns how many bytes the parser took."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade_asked()
            return int(upgrade.args[0])
        except httptools.HttpParserCallbackError:
            if self._refusal is None:
                raise
        except httptools.HttpParserInvalidMethodError:
            self._refusal = WireError(501 if _METHOD.match(data) else 400, "this HTTP method is not known here.")
        except httptools.HttpParserError as error:
            self._refusal = WireError(400, f"malformed HTTP request: {error}.")
        if self._in_request and self._refusal is None:
            self._check_progress(len(data))
        return len(data)

    def _check_progress(self, fed: int) -> None:
        """Bounds what the parser keeps or skips in silence: lines that never end, in the head, a trailer or a chunk."""
        progress = len(self._url) + len(self._fields) + self._body_bytes
        self._silent_bytes = self._silent_bytes + fed if progress == self._progress else 0
        self._progress = progress
        if self._silent_bytes > self.factory.limits.header_bytes:
            self._refusal = WireError(431, "a line of the request's header section is too long.")

    def on_message_begin(self) -> None:
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._body: bytes | bytearray = b""
        self._body_bytes = 0
        self._progress, self._silent_bytes = -1, 0
        self._request: Request | None = None
        self._in_request, self._is_new = True, False
        if not self._busy:
            self.deadline = self.factory.seconds() + self.factory.limits.request_seconds

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self.factory.limits.request_line_bytes:
            self._stop(414, "the request's URL is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        self._fields.append((name, value))  # a trailer's field too, to be counted; nobody believes it
        if len(self._fields) > self.factory.limits.header_fields:
            self._stop(431, f"more than {self.factory.limits.header_fields} header fields.")
        if self._head_bytes > self.factory.limits.header_bytes:
            self._stop(431, "the request's header section is too long.")

    def on_headers_complete(self) -> None:
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._stop(505, "only HTTP/1.1 and HTTP/1.0 are spoken here.")
        method = self._parser.get_method().decode("ascii")
        if method not in METHODS:
            self._stop(501, "this HTTP method is not known here.")
        try:
            # A client sends the same fields again and again.
            read = _fields_seen if self._head_bytes <= _FIELDS_REMEMBERED_BYTES else _read_fields
            fields = read(tuple(self._fields), version)
        except WireError as refusal:
            self._stop(refusal.status, str(refusal))
        length = fields.get("content-length")
        if length is not None and int(length) > self.factory.limits.body_bytes:
            self._stop(413, f"the body is longer than {self.factory.limits.body_bytes} bytes.")
        uri = self._url.decode("ascii")
        if not uri.startswith("/") or "#" in uri:
            uri, fields = self._origin_form(uri, method, fields)
        self._request = Request(self, method, uri, "HTTP/" + version, fields)
        self._request.keep_alive = self._parser.should_keep_alive()
        if "expect" in fields and version == "1.1":  # RFC 9110, 10.1.1: no such thing in HTTP/1.0
            if fields["expect"].lower() != "100-continue":
                self._stop(417, "the only expectation known here is 100-continue.")
            self._continue_owed = True  # said when its turn comes, if the body isn't here by then

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self.factory.limits.body_bytes:
            self._stop(413, f"the body is longer than {self.factory.limits.body_bytes} bytes.")
        if not self._body:
            self._body = body
        else:  # one buffer: tiny chunks as objects would be a multiple of the body
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body

    def on_message_complete(self) -> None:
        assert self._request is not None
        self._request.body = bytes(self._body)
        self._waiting.append(self._request)
        self._forget_request()

    def _forget_request(self) -> None:
        """An idle connection, or one that streams, must not keep a request's memory."""
        self._url, self._fields, self._body, self._request = b"", [], b"", None
        self._in_request = self._continue_owed = False

    def _stop(self, status: int, message: str) -> NoReturn:
        """Ends the parsing for good. What the parser raises for it is caught in _feed."""
        self._refusal = WireError(status, message)
        raise self._refusal

    def _origin_form(self, uri: str, method: str, fields: Headers) -> tuple[str, Headers]:
        """The path of an absolute-form target, whose host goes before Host's (RFC 9112, 3.2.2); ``*`` stays."""
        if uri == "*" and method == "OPTIONS":
            return uri, fields
        absolute = _ABSOLUTE.fullmatch(uri)
        if absolute is None or _HOST.fullmatch(absolute[1]) is None:
            self._stop(400, "the request's target must be a path, without a fragment.")
        path = absolute[2] if absolute[2].startswith("/") else "/" + absolute[2]
        return path, {**fields, "host": absolute[1]}

    # Upgrades

    def _upgrade_asked(self) -> None:
        request = self._waiting[-1]
        headers = request.headers
        if (
            headers.get("upgrade", "").lower() == "websocket"
            and request.method == "GET"
            and headers.get("content-length", "0") == "0"
            and "transfer-encoding" not in headers
        ):
            request.upgrade = True
            request.keep_alive = False  # if it is declined: what is held was perhaps never meant as HTTP
            self._held = bytearray()
            return
        # Any other upgrade is declined by ignoring it (RFC 9110, 7.8), and the body belongs to this request.
        self._waiting.pop()
        self._parser = httptools.HttpRequestParser(self)
        self._feed(_head(request, but="upgrade"))

    def _hold(self, data: bytes) -> None:
        assert self._held is not None
        self._held += data
        if len(self._held) > _UPGRADE_HELD_BYTES:
            self.transport.abortConnection()

    def hand_over(self, request: Request, successor: Any) -> None:
        """Gives the connection to another protocol, with the request's head and all that came after it.

        It goes on to count as ours, until the successor tells the factory to forget it.
        """
        held, self._held = self._held or b"", None
        self._handler, self._discarding, self.deadline = None, True, None
        self._pause_reading(False)
        self.transport.unregisterProducer()
        if hasattr(self.transport, "wrappedProtocol"):
            self.transport.wrappedProtocol = successor
        else:
            self.transport.protocol = successor
        successor.makeConnection(self.transport)
        successor.dataReceived(_head(request) + held)

    # One request at a time

    def _next(self) -> None:
        """Hands the next request over, if none is being answered; then the refusal, if there is one."""
        while self._client_reads and not self._busy and not self._discarding:
            if self._waiting:
                request = self._waiting.popleft()
                self._busy, self.deadline = True, None
                handler = self.factory(request)
                if self._busy and self._streaming is None:
                    self._handler = handler
            elif self._unparsed:
                data, self._unparsed = self._unparsed, b""
                self._parse(data)
            else:
                break
        if self._discarding:
            return
        if self._busy or not self._client_reads:
            self._pause_reading(not self._client_reads or bool(self._waiting or self._unparsed))
            return
        self._pause_reading(False)
        if self._refusal is not None:
            self._refuse(self._refusal)
        elif self._continue_owed:
            self._continue_owed = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _pause_reading(self, paused: bool) -> None:
        if paused != self._reading_paused:
            self._reading_paused = paused
            if paused:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

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
        seconds = limits.request_seconds if self._in_request else limits.idle_seconds
        self.deadline = self.factory.seconds() + seconds + unsent_bytes / _SLOWEST_BYTES_PER_SECOND

    def write(self, data: bytes) -> None:
        """A part of an answer that goes on."""
        self.transport.write(data)

    def finished(self, data: bytes, keep_alive: bool) -> None:
        """The last (or only) bytes of the answer to the current request."""
        send_at_once(self.transport, data)
        self._busy, self._handler = False, None
        self._wait_for_client(len(data))
        if not keep_alive or self.factory.draining:
            self._end(linger=self._reading_paused or self._in_request or bool(self._waiting or self._held))
        elif self._reading_paused or self._refusal is not None or self._continue_owed:
            self.factory.later(self._next)

    def finish_soon(self) -> None:
        """The server is going: a connection with no request under way ends; a new one has a moment for its first."""
        if self._is_new:
            self.deadline = self.factory.seconds() + _FIRST_REQUEST_SECONDS
        elif not self._busy and not self._waiting and not self._in_request and not self._discarding:
            self._end()

    def _discard(self) -> None:
        """Nothing that the client sent or sends from now on is a request."""
        self._discarding = True
        self._held = None
        self._unparsed = b""
        self._waiting.clear()
        self._forget_request()

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
        self._streaming, self._handler, self._parser = consumer, None, None
        self._discard()
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
        elif self._in_request and self._client_reads:
            self._refuse(WireError(408, "the request took too long to arrive."))
        else:
            self.deadline = self.factory.seconds() + _LINGER_SECONDS
            self._end()


def _read_fields(raw: tuple[tuple[bytes, bytes], ...], version: str) -> Headers:
    """Header fields by name. Raises WireError for what the parser leaves of RFC 9112, 3.2 and 6.

    It has refused other lengths than one plain number.
    """
    fields: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip(" \t")
        if name in fields:
            if name in ("host", "content-type", "authorization"):
                raise WireError(400, f"more than one {name} header.")
            value = f"{fields[name]}, {value}"
        fields[name] = value
    host = fields.get("host")
    if host is None and version == "1.1":
        raise WireError(400, "an HTTP/1.1 request needs a Host header (RFC 9112, 3.2).")
    if host and _HOST.fullmatch(host) is None:
        raise WireError(400, "the Host header is malformed.")
    coding = fields.get("transfer-encoding")
    if coding is not None and (version == "1.0" or coding.lower() != "chunked"):
        raise WireError(400, "the only transfer coding known here is chunked, in HTTP/1.1.")
    return fields


_fields_seen = lru_cache(maxsize=1024)(_read_fields)


def _head(request: Request, but: str = "") -> bytes:
    """The request's head as it could have come, without one of the fields."""
    lines = [f"{request.method} {request.uri} {request.version}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items() if name != but]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
