"""Turns a client's bytes into requests, or into the reason why they are refused.

llhttp (httptools) parses strictly. This module adds limits and the rules of RFC 9112 (framing) and RFC 9110 (semantics)
that llhttp does not know.
"""

from __future__ import annotations

import re
import time
from collections import deque
from functools import lru_cache
from typing import Any

import httptools

from restmq.errors import WireError
from restmq.http.decoding import Decoder
from restmq.http.heads import SharedFields, known_heads
from restmq.http.limits import Limits
from restmq.http.request import Headers, Request

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
#: Methods whose content means nothing (RFC 9110, 9.3.1): it is dropped.
_WITHOUT_BODY = ("GET", "HEAD")
_PIECE_BYTES = 4096
_FIELDS_REMEMBERED_BYTES = 1024
#: A long input that takes more time is parsed further in another turn.
_PARSE_SECONDS = 0.002

#: A method's name as RFC 9110 (5.6.2) defines it: distinguishes an unknown method from garbage.
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: |$)")
_HOST = re.compile(r"(?:\[[\w:.%]+\]|[\w.~%!$&'()*+,;=-]*)(?::\d*)?", re.ASCII)
_ABSOLUTE = re.compile(r"https?://([^/?#]+)([^#]*)", re.IGNORECASE)


class RequestParser:
    """The parser of one connection. httptools calls the ``on_…`` methods while it is fed; a WireError stops it.

    Args:
        connection: the connection of the requests.

    Attributes:
        requests: the complete requests, in order.
        unparsed: bytes to parse later: too many requests wait, or the turn is full.
        refusal: why parsing has stopped; None if it has not.
        in_request: whether a request has begun and is not complete.
        is_new: whether no request has begun yet.
        begun: set when a request begins; the reader of this attribute may clear it.
        expands: set when a body has a content coding; the bytes that are held may then be more than those that came.
        continue_owed: whether the client waits for ``100 Continue`` before it sends the body (RFC 9110, 10.1.1).
        after_upgrade: bytes after a WebSocket handshake, which may not be HTTP; None without a handshake.
    """

    def __init__(self, connection: Any, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._heads = known_heads(limits)
        self._parser = httptools.HttpRequestParser(self)
        self._progress, self._silent_bytes = -1, 0
        self.requests: deque[Request] = deque()
        self.unparsed = b""
        self.refusal: WireError | None = None
        self.after_upgrade: bytearray | None = None
        self.is_new = True
        self.in_request = self.continue_owed = self.begun = self.expands = False
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_bytes = self.body_bytes = 0
        self._body: bytes | bytearray = b""
        self._decoder: Decoder | None = None
        self._request: Request | None = None

    @property
    def has_input(self) -> bool:
        """Whether there is a request, or a part of one."""
        return bool(self.requests or self.unparsed or self.in_request)

    @property
    def held_bytes(self) -> int:
        """Number of bytes in memory: of complete requests' bodies, of the request in progress, and unparsed ones."""
        waiting = sum(len(request.body) for request in self.requests)
        after_upgrade = len(self.after_upgrade or b"")
        return waiting + self._head_bytes + len(self._url) + len(self._body) + len(self.unparsed) + after_upgrade

    def feed(self, data: bytes, later: bool = False) -> None:
        """Takes input, and parses it now unless it is for later."""
        if self.after_upgrade is not None:
            self.after_upgrade += data
        elif later or self.unparsed:
            self.unparsed += data
        elif self.in_request or self.requests or self.refusal is not None or len(data) > _PIECE_BYTES:
            self._parse(data)
        else:
            self._parse_whole(data)

    def resume(self) -> None:
        """Parses the unparsed bytes, as far as requests may wait."""
        data, self.unparsed = self.unparsed, b""
        self._parse(data)

    def refuse(self, refusal: WireError) -> None:
        """Stops parsing and releases the request in progress."""
        self.refusal, self.unparsed = refusal, b""
        self._forget_request()

    def forget(self) -> None:
        """Ends parsing for good and releases all input."""
        self.after_upgrade = None
        self.unparsed = b""
        self.requests.clear()
        self._forget_request()
        self._connection = self._parser = None  # breaks the reference cycles

    def _parse_whole(self, data: bytes) -> None:
        """Parses what is often one whole request, with a head that came before."""
        found = self._heads.find(data)
        if found is not None:
            head, body = found
            request = Request(self._connection, head.method, head.uri, head.fields)
            request.body = body
            self.requests.append(request)
            self.is_new = False
            return
        self._parse(data)
        if len(self.requests) == 1 and not self.in_request and self.refusal is None and self.after_upgrade is None:
            self._heads.remember(data, self.requests[0])

    def _parse(self, data: bytes) -> None:
        """Parses in small pieces, so that one read full of tiny requests does not become thousands of objects."""
        start = 0
        end_seconds = time.perf_counter() + _PARSE_SECONDS if len(data) > _PIECE_BYTES else 0.0
        while start < len(data) and self.refusal is None:
            if len(self.requests) >= self._limits.requests_waiting or (start and time.perf_counter() > end_seconds):
                self.unparsed = data[start:]
                return
            start += self._feed(data[start : start + _PIECE_BYTES])
            if self.after_upgrade is not None:
                self.after_upgrade += data[start:]
                return

    def _feed(self, data: bytes) -> int:
        """Returns the number of bytes that the parser took."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade_asked()
            return int(upgrade.args[0])
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, WireError):
                raise
            self.refusal = _bare(error.__context__)
        except httptools.HttpParserInvalidMethodError:
            self.refusal = WireError(501 if _METHOD.match(data) else 400, "unknown HTTP method.")
        except httptools.HttpParserError as error:
            if "PRI" in str(error):  # llhttp knows the preface of HTTP/2 (RFC 9113, 3.4)
                self.refusal = WireError(505, "HTTP/2 is not spoken here; use HTTP/1.1.")
            else:
                self.refusal = WireError(400, f"malformed HTTP request: {error}.")
        if self.in_request and self.refusal is None:
            self._check_progress(len(data))
        return len(data)

    def _check_progress(self, fed: int) -> None:
        """Bounds lines that never end, in the head, a trailer or a chunk size: llhttp keeps or skips them silently."""
        progress = len(self._url) + len(self._fields) + self.body_bytes
        self._silent_bytes = self._silent_bytes + fed if progress == self._progress else 0
        self._progress = progress
        if self._silent_bytes > self._limits.header_bytes:
            self.refusal = WireError(431, "a line of the request's header section is too long.")

    # What httptools calls

    def on_message_begin(self) -> None:
        self._progress, self._silent_bytes = -1, 0
        self.in_request, self.begun, self.is_new = True, True, False

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._limits.request_line_bytes:
            raise WireError(414, "the request's URL is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        self._fields.append((name, value))  # trailer fields too: they are counted, and otherwise ignored
        if len(self._fields) > self._limits.header_fields:
            raise WireError(431, f"more than the maximum of {self._limits.header_fields} header fields.")
        if self._head_bytes > self._limits.header_bytes:
            raise WireError(431, "the request's header section is too long.")

    def on_headers_complete(self) -> None:
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise WireError(505, "this HTTP version is not supported; use HTTP/1.1.")
        method = self._parser.get_method().decode("ascii")
        if method not in METHODS:
            raise WireError(501, "unknown HTTP method.")
        # Clients repeat the same fields in each request.
        read = _fields_seen if self._head_bytes <= _FIELDS_REMEMBERED_BYTES else _read_fields
        fields: Headers = read(tuple(self._fields), version)
        length = fields.get("content-length")
        if length is not None and int(length) > self._limits.body_bytes:
            raise WireError(413, f"the body is longer than the maximum of {self._limits.body_bytes} bytes.")
        uri = self._url.decode("ascii")
        if not uri.startswith("/") or "#" in uri:
            uri, fields = self._origin_form(uri, method, fields)
        request = self._request = Request(self._connection, method, uri, fields)
        if version != "1.1":
            request.version = "HTTP/" + version
        request.keep_alive = self._parser.should_keep_alive()
        if "content-encoding" in fields:
            self._begin_decoding(fields["content-encoding"])
        if "expect" in fields and version == "1.1":  # HTTP/1.0 has no expectations (RFC 9110, 10.1.1)
            if fields["expect"].lower() != "100-continue":
                raise WireError(417, "unknown expectation; only 100-continue is supported.")
            self.continue_owed = True  # sent when the request's turn comes, unless the body is here by then

    def _begin_decoding(self, coding: str) -> None:
        assert self._request is not None
        if coding.lower() != "identity" and self._request.method not in _WITHOUT_BODY:
            self.expands = True
            self._decoder = Decoder(coding, self._limits.body_bytes)

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        if self.body_bytes > self._limits.body_bytes:
            raise WireError(413, f"the body is longer than the maximum of {self._limits.body_bytes} bytes.")
        assert self._request is not None
        if self._request.method in _WITHOUT_BODY:
            return
        if self._decoder is not None:
            body = self._decoder.decode(body)
        if not self._body:
            self._body = body
        else:  # one buffer: tiny chunks as objects would take a multiple of the body's size
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body

    def on_message_complete(self) -> None:
        assert self._request is not None
        if self._decoder is not None:
            self._decoder.end()
        self._request.body = bytes(self._body)
        self.requests.append(self._request)
        self._forget_request()

    def _forget_request(self) -> None:
        self._url, self._fields, self._body, self._request, self._decoder = b"", [], b"", None, None
        self._head_bytes = self.body_bytes = 0
        self.in_request = self.continue_owed = False

    def _origin_form(self, uri: str, method: str, fields: Headers) -> tuple[str, Headers]:
        """The path of an absolute-form target, whose host replaces the Host header (RFC 9112, 3.2.2). ``*`` stays."""
        if uri == "*" and method == "OPTIONS":
            return uri, fields
        absolute = _ABSOLUTE.fullmatch(uri)
        if absolute is None or _HOST.fullmatch(absolute[1]) is None:
            raise WireError(400, "the request's target must be a path, without a fragment.")
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
            request.keep_alive = False  # a declined handshake closes: the bytes after it may not be HTTP
            self.after_upgrade = bytearray()
            return
        # Other upgrades are ignored (RFC 9110, 7.8), and the body belongs to this request: parse it without the field.
        self.requests.pop()
        self._parser = httptools.HttpRequestParser(self)
        self._feed(head_of(request, but="upgrade"))


def _bare(refusal: WireError) -> WireError:
    """The same without the frames that raised it, because they refer to the parser: a reference cycle."""
    refusal.__context__ = None
    return refusal.with_traceback(None)


def _read_fields(raw: tuple[tuple[bytes, bytes], ...], version: str) -> Headers:
    """Header fields by name. Raises WireError for violations of RFC 9112 (3.2 and 6) that llhttp lets through.

    llhttp has already rejected every Content-Length that is not a single plain number.
    """
    fields = SharedFields()
    fields.is_repeated = False
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
        raise WireError(400, "unsupported transfer coding; only chunked in HTTP/1.1 is supported.")
    return fields


_fields_seen = lru_cache(maxsize=1024)(_read_fields)


def head_of(request: Request, but: str = "") -> bytes:
    """Renders a request's head again, without the field ``but``."""
    lines = [f"{request.method} {request.uri} {request.version}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items() if name != but]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
