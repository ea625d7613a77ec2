"""The base of all handlers: the await boundary, the error map, the access check, and how answers are written.

cyclone never awaits a coroutine handler, parses leniently, and renders headers anew for each answer. So ``start``
replaces its way of a request through a handler: it runs the handler's method and maps the errors that it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import cyclone.web
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq import errors
from restmq.auth.guard import BY_COMMAND, OF_COMMANDS, Access, Credentials, basic_credentials
from restmq.auth.origins import is_prefetch
from restmq.errors import WireError
from restmq.handlers.declare import UNDECLARED, Operation, as_utf8
from restmq.handlers.error_status import MethodNotAllowed, render_error, status_of
from restmq.handlers.services import Services
from restmq.handlers.templates import render
from restmq.http.forms import FORM_PIECE_BYTES
from restmq.http.request import Request, unquoted
from restmq.http.response import HTML, JAVASCRIPT, JSON, TEXT, head
from restmq.model import check_queue_name
from restmq.monitoring.request_counters import CLIENT_GONE
from restmq.schema.encoding import escape_for_script, has_long_values, json_in_pieces, jsonp, to_json

log = Logger()

REALM = "RestMQ Restricted Access"
#: A longer body is read only if the client has some access: reading a body can cost much CPU.
READ_UNCHECKED_BYTES_MAX = 65536

_PAGE_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
_NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({})


class _Endpoint(NamedTuple):
    """A method of a handler: the access that it requires, the function that reads its parameters, the method."""

    access: Access
    read: Callable[[Request], Mapping[str, Any]]
    run: Callable[[Any], Any]


class Handler(cyclone.web.RequestHandler):  # type: ignore[misc]  # untyped
    """The base of all handlers. A method of a subclass calls ``answer``, or a method that calls it, exactly once.

    Attributes:
        requires: the access that each HTTP method requires. Any other method is answered 405.
        operations: the declaration of each of these methods.
        queue: the queue that the path names, or None.
        parameters: the request's parameters, for all declared names.
        gone: whether the client has disconnected.
    """

    requires: ClassVar[dict[str, Access]] = {}
    operations: ClassVar[dict[str, Operation]] = {}
    _endpoints: ClassVar[dict[str, _Endpoint]] = {}

    queue: str | None = None
    parameters: Mapping[str, Any] = _NO_PARAMETERS
    gone = False
    _finished = False
    _streaming = False
    _extra_headers = ""

    def __init_subclass__(cls) -> None:
        cls.operations = {
            name: getattr(getattr(cls, name.lower()), "operation", UNDECLARED)
            for name in cls.requires
            if hasattr(cls, name.lower())
        }
        cls._endpoints = {
            name: _Endpoint(cls.requires[name], operation.read, getattr(cls, name.lower()))
            for name, operation in cls.operations.items()
        }

    # RequestHandler.__init__ is not called: for every request it prepares data that no handler here uses.
    def __init__(self, services: Services, request: Request) -> None:
        self.services = services
        self.request: Request = request

    # The one await boundary

    def start(self, path: str = "") -> None:
        """Runs the request's method.

        Args:
            path: the variable part of the raw path.
        """
        self._response = self._respond(path)
        self._advance(None)

    def _advance(self, result: Any) -> None:
        """Runs the coroutine to its next await: a minimal ensureDeferred.

        ensureDeferred itself supports contexts and cancelling, which cost a tenth of a request.
        """
        try:
            if isinstance(result, Failure):
                awaited = result.throwExceptionIntoGenerator(self._response)
            else:
                awaited = self._response.send(result)
        except StopIteration:
            pass
        except Exception:  # a fault of the server
            self._answer_fault(Failure())
        else:
            awaited.addBoth(self._advance)

    async def _respond(self, path: str) -> None:
        request, services = self.request, self.services
        try:
            services.admission.check(request, self.requires)
            self._extra_headers = services.admission.cors_headers(request)
            if path:
                self.read_path(unquoted(path))
            endpoint = self._endpoints.get(request.method) or self._other_endpoint(request.method)
            if endpoint is not None:
                access, read, run = endpoint
                if access.section:
                    if not self.is_open(access):
                        await services.guard.check(self.credentials, access, self.queue)
                elif access is BY_COMMAND and len(request.body) > READ_UNCHECKED_BYTES_MAX:
                    await services.guard.check_any(self.credentials, OF_COMMANDS)
                if len(request.body) > FORM_PIECE_BYTES:
                    await request.read_form()
                self.parameters = read(request)
                await run(self)
        except (errors.RestMQError, WireError) as error:
            self._answer_error(error)

    def read_path(self, name: str) -> None:
        """Reads the path's variable part, percent-decoded. It is a queue's name unless a subclass overrides this."""
        self.queue = check_queue_name(name)

    def _other_endpoint(self, method: str) -> _Endpoint | None:
        """The endpoint of a method that the handler does not list; None if the request is answered here."""
        if method == "OPTIONS":
            self._add_header("Allow", self._allowed())
            self.answer(b"", None, status=204)
            return None
        if method == "HEAD" and "GET" in self.requires:
            return _Endpoint(self.requires["GET"], lambda _: _NO_PARAMETERS, type(self).head)
        raise MethodNotAllowed(f"this path does not have the method {method}; use one of {self._allowed()}.")

    def _allowed(self) -> str:
        methods = [*self.requires, "OPTIONS"]
        if "GET" in self.requires:
            methods.insert(1, "HEAD")
        return ", ".join(methods)

    def _answer_fault(self, failure: Any) -> None:
        """Answers a fault of the server: a traceback in the log, one sentence for the client."""
        request = self.request
        log.failure(
            "{method} {path} failed (request {id})",
            failure=failure,
            method=request.method,
            path=request.path,
            id=request.id or "without an id",
        )
        if self._streaming or self._finished:
            request.connection.abort()
        else:
            self._answer_error(None)

    def _answer_error(self, error: BaseException | None) -> None:
        """Answers an error; None means a fault of the server."""
        if self._finished:
            return
        if self._streaming:
            self.request.connection.abort()
            return
        message = str(error) if error is not None else "the server failed; its log has the reason."
        status = status_of(error)
        self._extra_headers = self.services.admission.cors_headers(self.request)
        retry_after = getattr(error, "retry_after_seconds", None)
        if retry_after is not None:
            self._add_header("Retry-After", str(retry_after))
        if status == 401:
            self._add_header("WWW-Authenticate", f'Basic realm="{REALM}"')
        if status == 405:
            self._add_header("Allow", self._allowed())
        if status == 426:
            self._add_header("Upgrade", "websocket")
        body, content_type = render_error(status, message, page_root=self.root if self.request.wants_page else None)
        if content_type == HTML:
            self._add_page_headers()
        self.answer(body, content_type, status=status)

    # The request

    def is_open(self, access: Access) -> bool:
        """Whether the client has sent no credentials and needs none. This usual case needs no ``await``."""
        request = self.request
        no_token = "authorization" not in request.headers and "authkey=" not in request.query
        return no_token and self.services.guard.is_open(request.remote_ip, access)

    @property
    def credentials(self) -> Credentials:
        """The client's address, and the token or the username and password that it sent."""
        token: str | None = None
        username, password = None, ""
        header: str = self.request.headers.get("authorization", "")
        if header[:7].lower() == "bearer ":
            token = header[7:].strip()
        elif header:
            username, password = basic_credentials(as_utf8(header)) or (None, "")
        elif "authkey=" in self.request.query:
            token = self.request.query_text("authkey")
        return Credentials(self.request.remote_ip, username, password, token)

    def refuse_accidents(self) -> None:
        """Rejects a request that would take a message although no user has asked for it.

        Raises:
            NotAllowed: a browser prefetches.
            InvalidInput: it is a WebSocket handshake, whose client could not read the answer.
        """
        if is_prefetch(self.request.headers):
            raise errors.NotAllowed("a prefetch takes no message; send the request without Sec-Purpose.")
        if self.request.upgrade:
            raise errors.InvalidInput("WebSocket is spoken at /ws/<queue> only.")

    @property
    def lease_ms(self) -> int | None:
        """The parameter ``lease`` in ms: 0 for the queue's own setting, None if it is missing."""
        seconds: float | None = self.parameters["lease"]
        return None if seconds is None else round(seconds * 1000)

    @property
    def queue_name(self) -> str:
        """The queue that the path names. Raises InvalidInput if there is none."""
        return self.queue or check_queue_name("")

    @property
    def callback(self) -> str | None:
        """The name of the JSONP callback, or None."""
        name: str | None = self.parameters.get("callback")
        return name

    # How answers are written

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

    async def answer_long_json(self, value: Any, end: bytes = b"") -> None:
        """The same for an answer that may have long messages: it is rendered in several turns."""
        if not has_long_values(value):
            self.answer_json(value, end)
            return
        pieces: list[bytes] = []
        await self.services.turns.run(json_in_pieces(value, pieces, self.escape))
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
        callback = self.callback
        if callback is None:
            self.answer(f"{text}\r\n".encode(), TEXT)
        else:
            self.answer(jsonp(callback, to_json(text)), JAVASCRIPT)

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

    # The client

    def on_connection_close(self, *args: Any) -> None:
        """The client disconnected before the answer was complete. A call that was sent to Redis still runs."""
        self.gone = True
        if not self._finished:
            self.services.traffic.answered(self.request, CLIENT_GONE, 0)

    async def head(self) -> None:
        """Answers HEAD with the head of a GET's answer. It does not run the GET, which may take a message."""
        self.answer(b"", JSON)
