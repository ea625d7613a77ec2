"""A request as handlers see it: exact bytes, headers, form fields."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from cyclone.httpserver import HTTPRequest

from restmq.errors import InvalidInput
from restmq.http.forms import MULTIPART, URLENCODED, add_form, add_pairs
from restmq.transport import Presence

_QUALITY = re.compile(r"q=([01](?:\.\d*)?|\.\d+)")

#: Header fields by lower-case name. Values of a repeated field are joined by commas (RFC 9110, 5.2). The mapping is
#: shared by requests with the same fields.
Headers = Mapping[str, str]


class ClientConnection(Protocol):
    """The connection on which a request came: how its handler responds. ``HTTPConnection`` describes the methods."""

    remote_ip: str
    secure: bool
    presence: Presence
    transport: Any
    factory: Any

    def finished(self, data: bytes, keep_alive: bool, rest: Sequence[bytes] = ()) -> None: ...
    def write(self, data: bytes) -> None: ...
    def stream(self, consumer: Any) -> None: ...
    def expect_end(self) -> None: ...
    def end_stream(self, last: bytes) -> None: ...
    def hand_over(self, request: Request, successor: Any) -> None: ...
    def abort(self) -> None: ...


class Request(HTTPRequest):  # type: ignore[misc]  # untyped
    """cyclone's request with exact bytes; arguments are parsed at their first use.

    Attributes:
        id: for the access log; empty without one.
        route: the template of the route that matched.
        media_type: the body's, in lower case and without parameters; empty if the client named none.
        arrived_at: when the request was complete, on the clock of the request counters.
    """

    id = ""
    route = ""
    arrived_at: float
    version = "HTTP/1.1"
    keep_alive = True
    upgrade = False
    _arguments: dict[str, list[bytes]] | None = None

    # HTTPRequest.__init__ parses the arguments at once, and leniently, so it is not called.
    def __init__(self, connection: ClientConnection, method: str, uri: str, headers: Headers) -> None:
        self.connection = connection
        self.method = method
        self.uri = uri
        self.headers = headers
        self.media_type = _media_type(headers.get("content-type", ""))
        self.body = b""
        self.remote_ip = connection.remote_ip
        self.path, _, self.query = uri.partition("?")

    @property
    def protocol(self) -> str:
        return "https" if self.connection.secure else "http"

    @property
    def host(self) -> str:
        return self.headers.get("host") or "127.0.0.1"

    @property
    def arguments(self) -> dict[str, list[bytes]]:
        """Query and form fields, name to values, as exact bytes. A GET's body is never a form (RFC 9110, 9.3.1).

        Raises WireError if there are too many fields or the form is malformed.
        """
        if self._arguments is None:
            self._arguments = {}
            if self.query:
                add_pairs(self._arguments, self.query.encode("latin-1"))
            if self.body and self.media_type == URLENCODED:
                add_pairs(self._arguments, self.body)
            elif self.is_form:
                for _ in add_form(self._arguments, self.headers["content-type"], self.body):
                    pass
        return self._arguments

    async def read_form(self) -> None:
        """Parses a long form in steps, with other clients' requests between them. Then ``arguments`` has it."""
        if self._arguments is None and self.is_form:
            arguments: dict[str, list[bytes]] = {}
            add_pairs(arguments, self.query.encode("latin-1"))
            server = self.connection.factory
            form = add_form(arguments, self.headers["content-type"], self.body, server.limits.form_bytes)
            await server.turns.run(form)
            self._arguments = arguments

    def query_text(self, name: str) -> str | None:
        """The last value of a query parameter. The body, which may be large, is not parsed for it.

        Raises WireError for too many parameters, InvalidInput if the value is not UTF-8.
        """
        found: dict[str, list[bytes]] = {}
        add_pairs(found, self.query.encode("latin-1"))
        try:
            return found[name][-1].decode() if name in found else None
        except UnicodeDecodeError:
            raise InvalidInput(f"the parameter {name!r} is not valid UTF-8.") from None

    @property
    def is_form(self) -> bool:
        """Whether the body is a form. A GET has none."""
        return self.media_type in (URLENCODED, MULTIPART) and self.method not in ("GET", "HEAD")

    def accepts(self, media_type: str) -> bool:
        """Whether the Accept header names this type, with a quality above 0; ``*/*`` does not count."""
        return _ranges(self.headers.get("accept", "")).get(media_type, _NOT_ACCEPTED)[0] > 0

    def prefers(self, media_type: str, other: str) -> bool:
        """Whether the Accept header names this type, and does not rank the other one higher (RFC 9110, 12.5.1).

        Of equal qualities, the type that is named first ranks higher, and a range such as ``*/*`` ranks last.
        """
        ranges = _ranges(self.headers.get("accept", ""))
        rank = ranges.get(media_type, _NOT_ACCEPTED)
        for name in (other, other.partition("/")[0] + "/*", "*/*"):
            if name in ranges:
                other_rank = ranges[name] if name == other else (ranges[name][0], _LAST)
                return rank[0] > 0 and rank > other_rank
        return rank[0] > 0

    @property
    def wants_page(self) -> bool:
        """Whether the client shows pages to people.

        Java's HttpURLConnection prefers text/html too, by default. Unlike a browser, it names image/gif and no XHTML.
        """
        ranges = _ranges(self.headers.get("accept", ""))
        is_browser = "image/gif" not in ranges or "application/xhtml+xml" in ranges
        return is_browser and self.prefers("text/html", "application/json")


#: Ranks of media ranges: their quality, and their place from the end.
_NOT_ACCEPTED = (0.0, 0)
_LAST = -(1 << 20)


@lru_cache(maxsize=128)
def _ranges(accept: str) -> dict[str, tuple[float, int]]:
    """The media ranges of an Accept header, by name in lower case, with their ranks. An invalid quality counts as 1."""
    ranges: dict[str, tuple[float, int]] = {}
    for place, item in enumerate(accept.lower().split(",")):
        name, *parameters = (part.strip() for part in item.split(";"))
        found = next((_QUALITY.fullmatch(parameter) for parameter in parameters if parameter.startswith("q=")), None)
        ranges.setdefault(name, (float(found[1]) if found else 1.0, -place))
    return ranges


@lru_cache(maxsize=128)
def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def unquoted(raw: str) -> str:
    """Percent-decodes a name from a raw path. A plus stays a plus. Raises InvalidInput if the name is not UTF-8."""
    if "%" in raw:
        for piece in raw.split("%")[1:]:
            if len(piece) < 2 or not all(c in "0123456789abcdefABCDEF" for c in piece[:2]):
                raise InvalidInput(
                    "the path has a '%' that is not followed by two hexadecimal digits; write '%25' for a '%'."
                )
        try:
            return unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            raise InvalidInput("the queue's name is not valid UTF-8; percent-encode its UTF-8 bytes.") from None
    return raw
