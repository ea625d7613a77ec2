"""A request as handlers see it: exact bytes, headers, form fields."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from cyclone.httpserver import HTTPRequest

from restmq.errors import InvalidInput
from restmq.http.forms import add_pairs, add_parts

if TYPE_CHECKING:
    from restmq.http.connection import HTTPConnection
    from restmq.monitoring.request_counters import Outcomes


#: Header fields by lower-case name; a field that came several times is joined by commas (RFC 9110, 5.2). Requests with
#: the same fields share them.
Headers = Mapping[str, str]


class Request(HTTPRequest):  # type: ignore[misc]  # untyped
    """What handlers see: cyclone's request, with exact bytes and with arguments read only if asked for.

    Attributes:
        id, route: for the access log; empty without one.
        arrived_at, outcomes: for ``restmq.traffic``.
    """

    id = ""
    route = ""
    arrived_at: float
    outcomes: Outcomes

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
        """Query and form fields: name to values, as exact bytes. Raises WireError for too many or a bad form.

        A GET has no form: its content means nothing (RFC 9110, 9.3.1).
        """
        if self._arguments is None:
            self._arguments = {}
            add_pairs(self._arguments, self.query.encode("latin-1"))
            if self.method in ("GET", "HEAD"):
                return self._arguments
            if self.is_form:
                add_pairs(self._arguments, self.body)
            elif self.media_type == "multipart/form-data":
                add_parts(self._arguments, self.headers["content-type"], self.body)
        return self._arguments

    def query_text(self, name: str) -> str | None:
        """The last value that the query has for this name. The body, which may be large, is not looked at.

        Raises WireError for too many fields, InvalidInput if the value is not UTF-8.
        """
        found: dict[str, list[bytes]] = {}
        add_pairs(found, self.query.encode("latin-1"))
        try:
            return found[name][-1].decode() if name in found else None
        except UnicodeDecodeError:
            raise InvalidInput(f"the parameter {name!r} is not valid UTF-8.") from None

    @property
    def media_type(self) -> str:
        """The body's type without parameters, in lower case; empty if none was named."""
        return _media_type(self.headers.get("content-type", ""))

    @property
    def is_form(self) -> bool:
        return self.media_type == "application/x-www-form-urlencoded"

    def accepts(self, media_type: str) -> bool:
        """Whether the Accept header names this type; a mere ``*/*`` is no wish for it."""
        accept: str = self.headers.get("accept", "")
        return any(part.partition(";")[0].strip().lower() == media_type for part in accept.split(","))


@lru_cache(maxsize=128)
def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
