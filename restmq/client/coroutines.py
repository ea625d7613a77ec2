"""The part of a client that is the same for asyncio and for Twisted: both run coroutines."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from restmq.client import calls
from restmq.client.base import BaseClient
from restmq.client.errors import Unreachable
from restmq.client.exchange import (
    EXTENSIONS_A_LEASE,
    ApiRequest,
    ApiResponse,
    Call,
    Message,
    RetryPolicy,
    failure_reason,
)
from restmq.client.stream import LiveStream
from restmq.errors import LeaseGone, RestMQError

_T = TypeVar("_T")


class CoroutineConnections(Protocol):
    """HTTP connections to one server."""

    async def exchange(self, request: ApiRequest) -> ApiResponse:
        """Sends the request and reads the whole response."""

    def stream(self, request: ApiRequest) -> contextlib.AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Sends the request; yields the chunks of a live stream."""


class CoroutineClient(BaseClient):
    """Runs calls and follows streams; a subclass has the connections and the clock."""

    _connections: CoroutineConnections
    #: The exception in a coroutine that is cancelled.
    _cancelled: type[BaseException]

    @abstractmethod
    def run(self, call: Call[_T]) -> Awaitable[_T]:
        """Runs a call, and retries it where that is safe. Raises the last error when retries end."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None: ...

    @abstractmethod
    def _begin(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        """Runs the coroutine in the background; returns the function that cancels it."""

    async def _run(self, call: Call[_T]) -> _T:
        policy = self._retry_policy()
        while True:
            try:
                result = call.result(await self._connections.exchange(call.request))
            except RestMQError as error:
                await self._sleep_after(error, policy, call.request.repeatable)
            else:
                self.answered = True
                return result

    async def consume(
        self, queue: str | Sequence[str], lease_seconds: float | None = None, *, count: int = 1
    ) -> AsyncIterator[Message]:
        """As ``restmq.client.Client.consume``. Cancel the iterating task to end it."""
        call = calls.consume(queue, lease_seconds, count=count)
        while True:
            for message in await self._run(call):
                yield message

    def listen(
        self,
        queue: str,
        *,
        last_key: str = "",
        lease_seconds: float | None = None,
        prefetch: int | None = None,
        on_gap: Callable[[str], None] | None = None,
    ) -> AsyncIterator[Message]:
        """As ``restmq.client.Client.listen``.

        Close the iterator (``contextlib.aclosing``), or its connection stays open.
        """
        return self._follow(
            LiveStream(queue, last_key=last_key, lease_seconds=lease_seconds, prefetch=prefetch, on_gap=on_gap)
        )

    def tap(self, queue: str, *, on_gap: Callable[[str], None] | None = None) -> AsyncIterator[Message]:
        """As ``restmq.client.Client.tap``. Close the iterator, as that of ``listen``."""
        return self._follow(LiveStream(queue, is_tap=True, on_gap=on_gap))

    @contextlib.asynccontextmanager
    async def leased(
        self, queue: str, lease_seconds: float = 30.0, *, wait_seconds: float = 0
    ) -> AsyncIterator[Message | None]:
        """As ``restmq.client.Client.leased``."""
        message = await self.run(calls.lease(queue, lease_seconds, wait_seconds=wait_seconds))
        if message is None:
            yield None
            return
        stop_extending = self._begin(self._extend(message, lease_seconds))
        try:
            yield message
        except BaseException as failure:
            stop_extending()
            reason = "" if isinstance(failure, self._cancelled) else failure_reason(failure)
            with contextlib.suppress(RestMQError):  # the lease ends by itself
                await self.run(calls.nack(message, reason=reason))
            raise
        stop_extending()
        await self.run(calls.ack(message))

    async def _extend(self, message: Message, lease_seconds: float) -> None:
        while True:
            await self._sleep(lease_seconds / EXTENSIONS_A_LEASE)
            try:
                await self.run(calls.extend(message, lease_seconds))
            except LeaseGone:  # the ack will raise it
                return
            except RestMQError:
                continue

    async def _follow(self, stream: LiveStream) -> AsyncIterator[Message]:
        policy = self._retry_policy()
        while True:
            try:
                async with self._connections.stream(stream.request()) as chunks:
                    self.answered = True
                    policy = self._retry_policy()
                    async for chunk in chunks:
                        for message in stream.feed(chunk):
                            yield message
                error: RestMQError = Unreachable("the server ended the stream.", sent=True)
            except RestMQError as problem:
                error = problem
            await self._sleep_after(error, policy, repeatable=True)

    async def _sleep_after(self, error: RestMQError, policy: RetryPolicy, repeatable: bool) -> None:
        await self._sleep(self._pause_seconds(error, policy, repeatable))
