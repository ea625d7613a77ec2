"""What all handlers share: the one await boundary, the one error map, the one access check, and how answers look.

cyclone never awaits a coroutine handler, parses leniently and renders headers anew for each answer; so the request's
way through a handler is ours: ``_execute`` runs the handler's method and maps what it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote_to_bytes

import cyclone.web
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq import errors
from restmq.auth.guard import BY_COMMAND, OF_COMMANDS, Access, Credentials, basic_credentials
from restmq.dispatch import CommandContext
from restmq.errors import WireError
from restmq.handlers.declare import UNDECLARED, Operation, as_utf8
from restmq.handlers.error_status import MethodNotAllowed, status_of
from restmq.http.request import Request
from restmq.http.response import HTML, JAVASCRIPT, JSON, TEXT, head
from restmq.model import check_queue_name
from restmq.monitoring.request_counters import CLIENT_GONE
from restmq.schema.encoding import jsonp, to_json

if TYPE_CHECKING:
    from restmq.web import Application

log = Logger()

REALM = "RestMQ Restricted Access"
#: So much of a body may be read to learn what it asks for; of a longer one, only a client who may do something at all.
READ_UNCHECKED_BYTES_MAX = 65536

_PAGE_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


def _nothing_given(_request: Request) -> Mapping[str, Any]:
    return {}


class Handler(cyclone.web.RequestHandler):  # type: ignore[misc]  # untyped
    """The base of all handlers. A method of a subclass answers with ``answer`` or one of its kin, exactly once."""

    application: Application
    request: Request

    #: What each method asks for. A method that is not here is refused with 405.
    requires: ClassVar[dict[str, Access]] = {}
    #: What each of these methods takes and answers, as declared beside it.
    operations: ClassVar[dict[str, Operation]] = {}
    #: The same as it is needed for each request: access, what reads the parameters, the method itself.
    _ways: ClassVar[dict[str, tuple[Access, Callable[[Request], Mapping[str, Any]], Callable[[Any], Any]]]] = {}
    #: What the client gave for what was declared, by name.
    given: Mapping[str, Any] = MappingProxyType({})

    def __init_subclass__(cls) -> None:
        cls.operations = {
            name: getattr(getattr(cls, name.lower()), "operation", UNDECLARED)
            for name in cls.requires
            if hasattr(cls, name.lower())
        }
        cls._ways = {
            name: (cls.requires[name], operation.read, getattr(cls, name.lower()))
            for name, operation in cls.operations.items()
        }

    # RequestHandler.__init__ prepares much that no handler of ours uses, for every request; so it is not called.
    def __init__(self, application: Application, request: Request, **kwargs: Any) -> None:
        self.application = application
        self.request = request
        self._finished = False
        self._streaming = False
        self._extra_headers = ""
        self.gone = False

    # The one await boundary

    def _execute(self, _transforms: Any, *path_args: str) -> None:
        self._response = self._respond(path_args)
        self._go_on(None)

    def _go_on(self, result: Any) -> None:
        """Runs the method to its next await, whose Deferred calls this when it has a result.

        What ``ensureDeferred`` does beside that costs a tenth of a request.
        """
        try:
            if isinstance(result, Failure):
                awaited = result.throwExceptionIntoGenerator(self._response)
            else:
                awaited = self._response.send(result)
        except StopIteration:
            pass
        except Exception:  # whatever a handler did not foresee: it is logged, and the client gets 500
            self._broken(Failure())
        else:
            awaited.addBoth(self._go_on)

    async def _respond(self, path_args: tuple[str, ...]) -> None:
        try:
            self.application.check_client(self)
            self.queue: str | None = None
            if path_args and path_args[0]:
                self.read_path(unquoted(path_args[0]))
            way = self._ways.get(self.request.method) or self._other_way(self.request.method)
            if way is not None:
                access, read, run = way
                if access.section:
                    if not (self._shows_no_token and self.application.guard.is_open(self.request.remote_ip, access)):
                        await self.application.guard.check(self.credentials, access, self.queue)
                elif access is BY_COMMAND and len(self.request.body) > READ_UNCHECKED_BYTES_MAX:
                    await self.application.guard.check_any(self.credentials, OF_COMMANDS)
                self.given = read(self.request)
                await run(self)
        except (errors.RestMQError, WireError) as error:
            self._refuse(error)

    def read_path(self, name: str) -> None:
        """What the path names, percent-decoded: a queue, unless a subclass knows better."""
        self.queue = check_queue_name(name)

    def _other_way(self, method: str) -> Any:
        """What is done for a method that is not declared here: as in ``_ways``, or None if it was answered here."""
        if method == "OPTIONS":
            self._add_header("Allow", self._allowed())
            self.answer(b"", None, status=204)
            return None
        if method == "HEAD" and "GET" in self.requires:
            return self.requires["GET"], _nothing_given, type(self).head
        raise MethodNotAllowed(f"{method} is not possible here; {self._allowed()} are.")

    def _allowed(self) -> str:
        methods = [*self.requires, "OPTIONS"]
        if "GET" in self.requires:
            methods.insert(1, "HEAD")
        return ", ".join(methods)

    def _broken(self, failure: Any) -> None:
        """A fault of ours: one traceback for the log, one sentence for the client."""
        request = self.request
        log.failure(
            "{method} {path} failed (request {id})",
            failure=failure,
            method=request.method,
            path=request.path,
            id=request.id or "without an id",
        )
        if self._streaming or self._finished:
            self.request.connection.abort()
        else:
            self._refuse(None)

    def _refuse(self, error: BaseException | None) -> None:
        """The answer to an error; None for a fault of ours."""
        if self._finished:
            return
        if self._streaming:
            self.request.connection.abort()
            return
        message = str(error) if error is not None else "the server failed; its log says why."
        status = status_of(error)
        self._extra_headers = ""
        retry_after = getattr(error, "retry_after_seconds", None)
        if retry_after is not None:
            self._add_header("Retry-After", str(retry_after))
        if status == 401:
            self._add_header("WWW-Authenticate", f'Basic realm="{REALM}"')
        if status == 405:
            self._add_header("Allow", self._allowed())
        if status == 426:
            self._add_header("Upgrade", "websocket")
        self.application.allow_origin(self)
        body, content_type = self.application.render_error(status, message, self.request)
        if content_type == HTML:
            self._add_page_headers()
        self.answer(body, content_type, status=status)

    # What handlers read

    @property
    def _shows_no_token(self) -> bool:
        return "authorization" not in self.request.headers and "authkey=" not in self.request.query

    @property
    def credentials(self) -> Credentials:
        """Who the client says it is."""
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

    @property
    def lease_ms(self) -> int | None:
        """The parameter ``lease`` in ms: 0 for the queue's own setting, None if it was not given."""
        seconds: float | None = self.given["lease"]
        return None if seconds is None else round(seconds * 1000)

    @property
    def queue_name(self) -> str:
        """The queue that the path names; InvalidInput if it names none."""
        return check_queue_name(self.queue or "")

    # How answers look

    def _add_header(self, name: str, value: str) -> None:
        self._extra_headers += f"{name}: {value}\r\n"

    def answer(self, body: bytes, content_type: str | None, status: int = 200) -> None:
        """The whole answer, in one write. It has no ETag: a 304 would eat the message that it answers."""
        if self._finished or self.gone:
            self._finished = True
            return
        self._finished = True
        request = self.request
        keep_alive = request.keep_alive and not request.upgrade and not self.application.draining
        more = f"{self._extra_headers}X-Request-Id: {request.id}\r\n" if request.id else self._extra_headers
        length_bytes = None if status == 204 else len(body)
        rendered = head(status, request.version, content_type, length_bytes, keep_alive, more)
        self.application.traffic.answered(request, status, 0 if request.method == "HEAD" else len(body))
        request.connection.finished(rendered if request.method == "HEAD" else rendered + body, keep_alive)

    def answer_json(self, value: Any, end: bytes = b"") -> None:
        """A JSON answer, or JSONP if the client named a callback."""
        document = to_json(value)
        callback = self.callback
        if callback is None:
            self.answer(document + end, JSON)
        else:
            self.answer(jsonp(callback, document), JAVASCRIPT)

    def answer_text(self, text: str) -> None:
        """A line of text, or a JSONP string."""
        callback = self.callback
        if callback is None:
            self.answer(f"{text}\r\n".encode(), TEXT)
        else:
            self.answer(jsonp(callback, to_json(text)), JAVASCRIPT)

    def answer_page(self, template: str, **names: Any) -> None:
        """A page from a template, which escapes what it is given."""
        self._add_page_headers()
        self.answer(self.application.pages.load(template).generate(**names), HTML)

    def _add_page_headers(self) -> None:
        self._add_header("Content-Security-Policy", _PAGE_POLICY)
        # Not "no-referrer": browsers would then send "Origin: null" with our own forms (Fetch standard, 3.2).
        self._add_header("Referrer-Policy", "same-origin")

    def redirect_to(self, path: str) -> None:
        self._add_header("Location", path)
        self.answer(b"", TEXT, status=302)

    @property
    def callback(self) -> str | None:
        """The JSONP callback's name, or None."""
        name: str | None = self.given.get("callback")
        return name

    def begin_stream(self, content_type: str) -> bool:
        """The head of an answer without end. Returns whether its body goes in chunks (RFC 9112, 7.1)."""
        chunked = bool(self.request.version == "HTTP/1.1")
        fields = f"{self._extra_headers}X-Accel-Buffering: no\r\n"
        if chunked:
            fields += "Transfer-Encoding: chunked\r\n"
        if self.request.id:
            fields += f"X-Request-Id: {self.request.id}\r\n"
        self._streaming = True
        self.application.traffic.answered(self.request, 200)
        self.request.connection.write(head(200, self.request.version, content_type, None, chunked, fields))
        return chunked

    # The client's going

    def on_connection_close(self, *args: Any) -> None:
        """The client has gone before its answer was complete. What was sent to Redis for it runs on."""
        self.gone = True
        if not self._finished:
            self.application.traffic.answered(self.request, CLIENT_GONE, 0)

    def client(self) -> CommandContext:
        """The client as the JSON protocol sees it."""
        application, connection = self.application, self.request.connection

        async def check(access: Access, queue: str | None) -> None:
            await application.guard.check(self.credentials, access, queue)

        async def queues() -> list[str]:
            return await application.visible_queues(self)

        return CommandContext(
            application.core, application.polls, check, queues, application.queue_stats, connection.presence, self.queue
        )

    async def head(self) -> None:
        """HEAD never runs a GET, which may take a message: it says what kind of answer a GET would have."""
        self.answer(b"", JSON)


def unquoted(raw: str) -> str:
    """A name from a raw path: percent-decoded exactly (a plus is a plus), and UTF-8."""
    if "%" in raw:
        for piece in raw.split("%")[1:]:
            if len(piece) < 2 or not all(c in "0123456789abcdefABCDEF" for c in piece[:2]):
                raise errors.InvalidInput("the path holds a '%' that is not followed by two hexadecimal digits.")
        try:
            return unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            raise errors.InvalidInput("the queue's name is not valid UTF-8.") from None
    return raw
