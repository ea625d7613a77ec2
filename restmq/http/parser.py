"""What a client's bytes mean: requests, by llhttp (httptools), or why they are none.

llhttp parses strictly; what is left to us are limits and a few rules that a parser can't know, those of RFC 9112
(framing) and RFC 9110 (semantics).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import httptools

from restmq.errors import WireError
from restmq.http.request import Headers, Request

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_PIECE_BYTES = 4096
_FIELDS_REMEMBERED_BYTES = 1024

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


class RequestParser:
    """The parser of one connection. httptools calls the ``on_…`` methods while it is fed.

    Args:
        connection: that the requests belong to.
        begins: called when a request begins.

    Attributes:
        requests: those that are complete, in order.
        unparsed: what came after as many requests as may wait.
        refusal: why nothing more is parsed.
        in_request: whether a request has begun and is not complete.
        is_new: whether none has begun yet.
        continue_owed: whether the client waits to be told that it may send the body (RFC 9110, 10.1.1).
        held: what came after a request to upgrade, which is perhaps no HTTP; None where there was none.
    """

    def __init__(self, connection: Any, limits: Limits, begins: Callable[[], None]) -> None:
        self._connection = connection
        self._limits = limits
        self._begins = begins
        self._parser = httptools.HttpRequestParser(self)
        self._progress, self._silent_bytes = -1, 0
        self.requests: deque[Request] = deque()
        self.unparsed = b""
        self.refusal: WireError | None = None
        self.held: bytearray | None = None
        self.is_new = True
        self.in_request = self.continue_owed = False
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: bytes | bytearray = b""
        self._request: Request | None = None

    def feed(self, data: bytes) -> None:
        """Takes what has come, piece by piece: a read full of small requests must not become thousands of objects."""
        if self.held is not None:
            self.held += data
        elif self.unparsed:  # a TLS transport may have some more for us after it was paused
            self.unparsed += data
        else:
            self._parse(data)

    def go_on(self) -> None:
        """Parses what was left, now that fewer requests wait."""
        data, self.unparsed = self.unparsed, b""
        self._parse(data)

    def forget(self) -> None:
        """Nothing of all this is wanted any more. An idle stream must not keep a request's memory."""
        self.held = None
        self.unparsed = b""
        self.requests.clear()
        self._forget_request()

    def _parse(self, data: bytes) -> None:
        start = 0
        while start < len(data) and self.refusal is None:
            if len(self.requests) >= self._limits.requests_waiting:
                self.unparsed = data[start:]
                return
            start += self._feed(data[start : start + _PIECE_BYTES])
            if self.held is not None:
                self.held += data[start:]
                return

    def _feed(self, data: bytes) -> int:
        """Returns how many bytes the parser took."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade_asked()
            return int(upgrade.args[0])
        except httptools.HttpParserCallbackError:
            if self.refusal is None:
                raise
        except httptools.HttpParserInvalidMethodError:
            self.refusal = WireError(501 if _METHOD.match(data) else 400, "this HTTP method is not known here.")
        except httptools.HttpParserError as error:
            self.refusal = WireError(400, f"malformed HTTP request: {error}.")
        if self.in_request and self.refusal is None:
            self._check_progress(len(data))
        return len(data)

    def _check_progress(self, fed: int) -> None:
        """Bounds what the parser keeps or skips in silence: lines that never end, in the head, a trailer or a chunk."""
        progress = len(self._url) + len(self._fields) + self._body_bytes
        self._silent_bytes = self._silent_bytes + fed if progress == self._progress else 0
        self._progress = progress
        if self._silent_bytes > self._limits.header_bytes:
            self.refusal = WireError(431, "a line of the request's header section is too long.")

    # What httptools calls

    def on_message_begin(self) -> None:
        self._head_bytes = self._body_bytes = 0
        self._progress, self._silent_bytes = -1, 0
        self.in_request, self.is_new = True, False
        self._begins()

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._limits.request_line_bytes:
            self._stop(414, "the request's URL is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        self._fields.append((name, value))  # a trailer's field too, to be counted; nobody believes it
        if len(self._fields) > self._limits.header_fields:
            self._stop(431, f"more than {self._limits.header_fields} header fields.")
        if self._head_bytes > self._limits.header_bytes:
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
        if length is not None and int(length) > self._limits.body_bytes:
            self._stop(413, f"the body is longer than {self._limits.body_bytes} bytes.")
        uri = self._url.decode("ascii")
        if not uri.startswith("/") or "#" in uri:
            uri, fields = self._origin_form(uri, method, fields)
        request = self._request = Request(self._connection, method, uri, "HTTP/" + version, fields)
        request.keep_alive = self._parser.should_keep_alive()
        if "expect" in fields and version == "1.1":  # RFC 9110, 10.1.1: no such thing in HTTP/1.0
            if fields["expect"].lower() != "100-continue":
                self._stop(417, "the only expectation known here is 100-continue.")
            self.continue_owed = True  # said when its turn comes, if the body isn't here by then

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._stop(413, f"the body is longer than {self._limits.body_bytes} bytes.")
        if not self._body:
            self._body = body
        else:  # one buffer: tiny chunks as objects would be a multiple of the body
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body

    def on_message_complete(self) -> None:
        assert self._request is not None
        self._request.body = bytes(self._body)
        self.requests.append(self._request)
        self._forget_request()

    def _forget_request(self) -> None:
        self._url, self._fields, self._body, self._request = b"", [], b"", None
        self.in_request = self.continue_owed = False

    def _stop(self, status: int, message: str) -> NoReturn:
        """Ends the parsing for good. What the parser raises for it is caught in _feed."""
        self.refusal = WireError(status, message)
        raise self.refusal

    def _origin_form(self, uri: str, method: str, fields: Headers) -> tuple[str, Headers]:
        """The path of an absolute-form target, whose host goes before Host's (RFC 9112, 3.2.2); ``*`` stays."""
        if uri == "*" and method == "OPTIONS":
            return uri, fields
        absolute = _ABSOLUTE.fullmatch(uri)
        if absolute is None or _HOST.fullmatch(absolute[1]) is None:
            self._stop(400, "the request's target must be a path, without a fragment.")
        path = absolute[2] if absolute[2].startswith("/") else "/" + absolute[2]
        return path, {**fields, "host": absolute[1]}

    def _upgrade_asked(self) -> None:
        request = self.requests[-1]
        headers = request.headers
        if (
            headers.get("upgrade", "").lower() == "websocket"
            and request.method == "GET"
            and headers.get("content-length", "0") == "0"
            and "transfer-encoding" not in headers
        ):
            request.upgrade = True
            request.keep_alive = False  # if it is declined: what is held was perhaps never meant as HTTP
            self.held = bytearray()
            return
        # Any other upgrade is declined by ignoring it (RFC 9110, 7.8), and the body belongs to this request.
        self.requests.pop()
        self._parser = httptools.HttpRequestParser(self)
        self._feed(head_of(request, but="upgrade"))


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


def head_of(request: Request, but: str = "") -> bytes:
    """The request's head as it could have come, without one of the fields."""
    lines = [f"{request.method} {request.uri} {request.version}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items() if name != but]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
