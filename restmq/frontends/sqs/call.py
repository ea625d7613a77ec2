"""A call of an operation: the request, who makes it, and the access check. And the table of all operations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from restmq.auth.guard import Access, Credentials
from restmq.core import RedisOperations
from restmq.frontends.sqs.errors import queue_missing
from restmq.frontends.sqs.names import queue_at, queue_url
from restmq.frontends.sqs.shapes import Input
from restmq.handlers.services import Services
from restmq.http.request import Request
from restmq.queues.sqs import SqsQueue

SqsResult = Mapping[str, Any]
_Run = TypeVar("_Run", bound=Callable[..., Awaitable[SqsResult]])


@dataclass(slots=True)
class SqsCall:
    """A call of an operation.

    Attributes:
        identify: returns the credentials for an access, after the check of the signature. Raises SqsError.
        queue: the queue that the request's URL names, for an operation that declares its access.
    """

    services: Services
    request: Request
    identify: Callable[[Access], Awaitable[Credentials]]
    queue: str = ""

    @property
    def core(self) -> RedisOperations:
        return self.services.core

    async def check(self, access: Access, queue: str | None) -> Credentials:
        """Checks the client's access to a queue. Raises SqsError or another RestMQError."""
        credentials = await self.identify(access)
        await self.services.guard.check(credentials, access, queue)
        return credentials

    async def existing(self, queue: str = "") -> SqsQueue:
        """The attributes and numbers of a queue, which is the call's own by default. Raises SqsError without one."""
        found = await self.core.sqs_get(queue or self.queue)
        if found is None:
            raise queue_missing()
        return found

    def queue_url(self, queue: str) -> str:
        return queue_url(self.request, queue)


@dataclass(slots=True, frozen=True)
class SqsOperation:
    """An operation of the SQS API.

    Attributes:
        run: returns the members of the answer.
        shape: the type of its input.
        access: the access to the queue of its URL; None if the operation checks access itself.
    """

    run: Callable[[SqsCall, Any], Awaitable[SqsResult]]
    shape: type[Input]
    access: Access | None

    async def __call__(self, call: SqsCall, given: Any) -> SqsResult:
        if self.access is not None:
            call.queue = queue_at(given.queue_url)
            await call.check(self.access, call.queue)
        return await self.run(call, given)


#: By the names in the SQS API Reference. ``operation`` fills it.
OPERATIONS: dict[str, SqsOperation] = {}


def operation(access: Access | None = None) -> Callable[[_Run], _Run]:
    """Makes a function the operation of its name: ``send_message`` runs ``SendMessage``.

    The function takes a call and its input. The annotation of the input names the shape.
    """

    def add(run: _Run) -> _Run:
        name = "".join(map(str.capitalize, run.__name__.split("_")))
        _, shape, _ = get_type_hints(run).values()
        OPERATIONS[name] = SqsOperation(run, shape, access)
        return run

    return add
