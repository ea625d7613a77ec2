"""How handlers write their answers: whole, in pieces, as JSON or JSONP, as a page, or as a stream without an end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import cyclone.web

from restmq.delivery.lines import NOTHING_TAKEN, Taken
from restmq.handlers.services import Services
from restmq.handlers.templates import render
from restmq.http.request import Request
from restmq.http.response import HTML, JAVASCRIPT, JSON, TEXT, head
from restmq.monitoring.request_counters import CLIENT_GONE
from restmq.schema.encoding import escape_for_script, has_long_values, json_in_pieces, jsonp, to_json

NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({})
_PAGE_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


class AnsweringHandler(cyclone.web.RequestHandler):  # type: ignore[misc]  # untyped
    """Writes the answer to a request.

    Attributes:
        parameters: the request's parameters, for all declared names.
        gone: whether the client has disconnected.
    """

    parameters: Mapping[str, Any] = NO_PARAMETERS
    gone = False
    _finished = False
    _streaming = False
    _extra_headers = ""

    # RequestHandler.__init__ is not called: for every request it prepares data that no handler here uses.
    def __init__(self, services: Services, request: Request) -> None:
        self.services = services
        self.request: Request = request

    @property
    def callback(self) -> str | None:
        """The name of the JSONP callback, or None."""
        name: str | None = self.parameters.get("callback")
        return name

    @property
    def root(self) -> str:
        """The way from the page at this path to ``/``, for relative links: a proxy may have removed a prefix.

        A slash in a name does not count. Pages encode it in their links, but some proxies decode it.
        """
        template, variable, _ = self.request.route.partition("{")
        return "../" * ((template if variable else self.request.path).count("/") - 1) or "./"

    def _add_header(self, name: str, value: str) -> None:
        self._extra_headers += f"{name}: {value}\r\n"

    def answer(self, body: bytes, content_type: str | None, status: int = 200, rest: Sequence[bytes] = ()) -> None:
        """Writes the whole answer. It has no ETag: a 304 would lose the message that it answers with.

        Args:
            rest: more of a long body, in pieces.
        """
        if self._finished or self.gone:
            self._finished = True
            return
        self._finished = True
        request = self.request
        keep_alive = request.keep_alive and not request.upgrade and not self.services.draining
        more = f"{self._extra_headers}X-Request-Id: {request.id}\r\n" if request.id else self._extra_headers
        length_bytes = None if status == 204 else len(body) + sum(map(len, rest))
        rendered = head(status, request.version, content_type, length_bytes, keep_alive, more)
        is_head = request.method == "HEAD"
        self.services.traffic.answered(request, status, 0 if is_head else length_bytes or 0)
        request.connection.finished(rendered if is_head else rendered + body, keep_alive, () if is_head else rest)

    def answer_json(self, value: Any, end: bytes = b"") -> None:
        """Answers with JSON, or with JSONP if the request has a callback."""
        callback = self.callback
        if callback is None:
            self.answer(to_json(value) + end, JSON)
        else:
            self.answer(jsonp(callback, to_json(value)), JAVASCRIPT)

    async def answer_long_json(self, value: Any, end: bytes = b"", taken: Taken = NOTHING_TAKEN) -> None:
        """As ``answer_json``, for an answer that may have long messages: it is rendered in several turns.

        Args:
            taken: messages of the answer that return to their queue if the client leaves meanwhile.
        """
        if not has_long_values(value):
            self.answer_json(value, end)
            return
        pieces: list[bytes] = []
        await self.services.turns.run(json_in_pieces(value, pieces, self.escape))
        if taken[1] and not self.services.polls.unless_left(*taken, self.request.connection.presence):
            self.request.connection.abort()
            return
        self.answer_pieces(pieces, end)

    @property
    def escape(self) -> Callable[[bytes], bytes]:
        """Changes JSON for the answer."""
        return bytes if self.callback is None else escape_for_script

    def answer_pieces(self, pieces: Sequence[bytes], end: bytes = b"") -> None:
        """Answers with JSON in pieces, each changed by ``escape``. The client gets each when it has read the last."""
        callback = self.callback
        first, *rest = pieces
        if callback is not None:
            before, _, end = jsonp(callback, b"_").rpartition(b"_")
            first = before + first
        self.answer(first, JSON if callback is None else JAVASCRIPT, rest=[*rest, end] if end else rest)

    def answer_text(self, text: str) -> None:
        """Answers with a line of text, or with a JSONP string."""
        if self.callback is None:
            self.answer(f"{text}\r\n".encode(), TEXT)
        else:
            self.answer_json(text)

    def answer_page(self, template: str, **names: Any) -> None:
        """Answers with a page from a template."""
        self._add_page_headers()
        self.answer(render(template, root=self.root, **names), HTML)

    def _add_page_headers(self) -> None:
        self._add_header("Content-Security-Policy", _PAGE_POLICY)
        # With "no-referrer", browsers would send "Origin: null" with the forms of these pages (Fetch standard, 3.2).
        self._add_header("Referrer-Policy", "same-origin")

    def redirect_to(self, path: str) -> None:
        self._add_header("Location", path)
        self.answer(b"", TEXT, status=302)

    def begin_stream(self, content_type: str) -> bool:
        """Writes the head of an endless answer. Returns whether its body is chunked (RFC 9112, 7.1)."""
        chunked = bool(self.request.version == "HTTP/1.1")
        fields = f"{self._extra_headers}X-Accel-Buffering: no\r\n"
        if chunked:
            fields += "Transfer-Encoding: chunked\r\n"
        if self.request.id:
            fields += f"X-Request-Id: {self.request.id}\r\n"
        self._streaming = True
        self.services.traffic.answered(self.request, 200)
        self.request.connection.write(head(200, self.request.version, content_type, None, chunked, fields))
        return chunked

    def on_connection_close(self, *args: Any) -> None:
        """The client disconnected before the answer was complete. A call that was sent to Redis still runs."""
        self.gone = True
        if not self._finished:
            self.services.traffic.answered(self.request, CLIENT_GONE, 0)
