"""A call of an operation: the request, who makes it, and the access check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from restmq.auth.guard import Access, Credentials
from restmq.core import RedisOperations
from restmq.frontends.sqs.errors import queue_missing
from restmq.frontends.sqs.names import queue_at, queue_url
from restmq.frontends.sqs.shapes import Input
from restmq.handlers.services import Services
from restmq.http.request import Request
from restmq.queues.sqs import SqsQueue

SqsResult = Mapping[str, Any]


@dataclass(slots=True)
class SqsCall:
    """A call of an operation.

    Attributes:
        identify: returns the credentials for an access, after the check of the signature. Raises SqsError.
    """

    services: Services
    request: Request
    identify: Callable[[Access], Awaitable[Credentials]]

    @property
    def core(self) -> RedisOperations:
        return self.services.core

    async def check(self, access: Access, queue: str | None) -> Credentials:
        """Checks the client's access to a queue. Raises SqsError or another RestMQError."""
        credentials = await self.identify(access)
        await self.services.guard.check(credentials, access, queue)
        return credentials

    async def queue(self, url: str | None, access: Access) -> str:
        """The queue that a URL names, after the access check."""
        queue = queue_at(url or "")
        await self.check(access, queue)
        return queue

    async def existing(self, queue: str) -> SqsQueue:
        """The queue's attributes and numbers. Raises SqsError if it does not exist."""
        found = await self.core.sqs_get(queue)
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
    """

    run: Callable[[SqsCall, Any], Awaitable[SqsResult]]
    shape: type[Input]
