"""The handler of all requests of the SQS interface, whatever their path."""

from __future__ import annotations

from datetime import UTC, datetime

from restmq.auth.guard import BY_FIELD, Access, Credentials
from restmq.frontends.sqs import move_tasks, queue_operations, receiving, sending  # noqa: F401  their operations
from restmq.frontends.sqs.call import OPERATIONS, SqsCall
from restmq.frontends.sqs.errors import SqsError, as_sqs_error
from restmq.frontends.sqs.formats import JSON_FORMAT, QUERY_FORMAT, TARGET_HEADER, WireFormat
from restmq.frontends.sqs.names import new_id
from restmq.frontends.sqs.signature import ALGORITHM, check_signature, parse_signature
from restmq.handlers.base import Handler
from restmq.handlers.services import Services
from restmq.http.request import Request


class SqsHandler(Handler):
    """Reads an operation's input, runs it, and renders its answer or its error."""

    requires = {"GET": BY_FIELD, "POST": BY_FIELD}

    def __init__(self, services: Services, request: Request) -> None:
        super().__init__(services, request)
        self._format: WireFormat = JSON_FORMAT if TARGET_HEADER in request.headers else QUERY_FORMAT
        self._request_id = new_id()
        self._operation = "unknown"

    async def post(self) -> None:
        """Runs an operation."""
        request, name = self.request, self._format.operation(self.request)
        operation = OPERATIONS.get(name)
        if operation is None:
            raise SqsError("InvalidAction", f"The action {name or '(none)'} is not valid for this endpoint.")
        self._operation = name
        request.route = f"sqs:{name}"
        given = self._format.read(request, operation.shape)
        result = await operation(SqsCall(self.services, request, self._identify), given)
        for entry in result.get("Failed", ()):
            self._count_error(entry["Code"])
        self._send(self._format.render(name, result, self._request_id), 200)

    get = post

    def _count_error(self, code: str) -> None:
        self.services.traffic.sqs_errors[self._operation, code] += 1

    def _send(self, body: bytes, status: int) -> None:
        self._add_header("x-amzn-RequestId", self._request_id)
        self.answer(body, self._format.content_type, status=status)

    def _write_error(self, error: BaseException | None) -> None:
        shown = as_sqs_error(error)
        self._count_error(shown.code)
        body, more = self._format.render_error(shown, self._request_id)
        self._extra_headers += more
        self._send(body, shown.status)

    async def _identify(self, access: Access) -> Credentials:
        """The client's credentials. Raises SqsError if it must sign its request and has not, or not rightly."""
        request, guard, sent = self.request, self.services.guard, self.credentials
        if not await guard.must_sign(access):
            return sent
        is_signed = request.headers.get("authorization", "").startswith(ALGORITHM)
        # The guard checks a token always, but a password only where there is one.
        is_checked = sent.token is not None or (sent.username is not None and guard.has_password(access))
        if is_checked and not is_signed and not guard.signs_always:
            return sent
        found = parse_signature(request)
        now = datetime.now(UTC)
        return await guard.check_signature(
            request.remote_ip, found.access_key, lambda secret: check_signature(request, found, secret, now)
        )
