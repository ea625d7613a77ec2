"""The base of all handlers: the await boundary, the error map, the access check, and the request's parameters.

cyclone never awaits a coroutine handler, parses leniently, and renders headers anew for each answer. So ``start``
replaces its way of a request through a handler: it runs the handler's method and maps the errors that it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq import errors
from restmq.auth.guard import BY_COMMAND, OF_COMMANDS, OPEN, Access, Credentials, basic_credentials
from restmq.auth.origins import is_prefetch
from restmq.errors import WireError
from restmq.handlers.answering import NO_PARAMETERS, AnsweringHandler
from restmq.handlers.declare import UNDECLARED, Operation
from restmq.handlers.error_status import MethodNotAllowed, render_error, status_of
from restmq.http.forms import FORM_PIECE_BYTES
from restmq.http.request import Request, unquoted
from restmq.http.response import HTML, JSON
from restmq.model import check_queue_name
from restmq.schema.metadata import as_utf8

log = Logger()

REALM = "RestMQ Restricted Access"
#: A longer body is read only if the client has some access: reading a body can cost much CPU.
READ_UNCHECKED_BYTES_MAX = 65536


class _Endpoint(NamedTuple):
    """A method of a handler: the access that it requires, the function that reads its parameters, the method."""

    access: Access
    read: Callable[[Request], Mapping[str, Any]]
    run: Callable[[Any], Any]


class Handler(AnsweringHandler):
    """The base of all handlers. A method of a subclass calls ``answer``, or a method that calls it, exactly once.

    Attributes:
        requires: the access that each HTTP method requires. Any other method is answered 405.
        operations: the declaration of each of these methods.
        queue: the queue that the path names, or None.
    """

    requires: ClassVar[dict[str, Access]] = {}
    operations: ClassVar[dict[str, Operation]] = {}
    _endpoints: ClassVar[dict[str, _Endpoint]] = {}

    queue: str | None = None

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
            return _Endpoint(self.requires["GET"], lambda _: NO_PARAMETERS, type(self).head)
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
        self._extra_headers = self.services.admission.cors_headers(self.request)
        retry_after = getattr(error, "retry_after_seconds", None)
        if retry_after is not None:
            self._add_header("Retry-After", str(retry_after))
        self._write_error(error)

    def _write_error(self, error: BaseException | None) -> None:
        message = str(error) if error is not None else "the server failed; its log has the reason."
        status = status_of(error)
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

    async def head(self) -> None:
        """Answers HEAD with the head of a GET's answer, without running one that needs access and may take."""
        if self.requires["GET"] is OPEN:
            await self.get()
        else:
            self.answer(b"", JSON)
