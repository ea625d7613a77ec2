"""The client for Twisted. Every method returns a Deferred, which can be awaited and cancelled."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet import defer, task

from restmq.client.agent import DeferredHttpConnections, ResponseBody
from restmq.client.coroutines import CoroutineClient
from restmq.client.exchange import ApiRequest, ApiResponse, Call
from restmq.client.server import DEFAULT_URL, Server
from restmq.errors import RestMQError

_T = TypeVar("_T")


class DeferredClient(CoroutineClient):
    """A client for one server. It keeps connections alive. Cancelling a call closes its connection.

    ``restmq.client.calls`` documents the methods.

    Args:
        reactor: the reactor to run on.
        server, retry_seconds, timeout_seconds, lasting, on_retry: as for ``restmq.client.Client``.
    """

    _cancelled = defer.CancelledError

    def __init__(
        self,
        reactor: Any,
        server: Server | str = DEFAULT_URL,
        *,
        retry_seconds: float = 30.0,
        timeout_seconds: float = 30.0,
        lasting: bool = False,
        on_retry: Callable[[RestMQError, float], None] | None = None,
    ) -> None:
        super().__init__(
            server, retry_seconds=retry_seconds, lasting=lasting, on_retry=on_retry, seconds=reactor.seconds
        )
        self._reactor = reactor
        self._connections = DeferredHttpConnections(reactor, self.server, timeout_seconds)

    def run(self, call: Call[_T]) -> defer.Deferred[_T]:
        """Runs a call, and retries it where that is safe. Fails with the last error when retries end."""
        return defer.ensureDeferred(self._run(call))

    async def _exchange(self, request: ApiRequest) -> ApiResponse:
        return await self._connections.exchange(request)

    @contextlib.asynccontextmanager
    async def _stream(self, request: ApiRequest) -> AsyncIterator[AsyncIterator[bytes]]:
        body = await self._connections.stream(request)
        try:
            yield _chunks(body)
        finally:
            body.hang_up()

    async def _sleep(self, seconds: float) -> None:
        await task.deferLater(self._reactor, seconds)

    def _begin(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        running: defer.Deferred[None] = defer.ensureDeferred(work)
        running.addErrback(lambda failure: failure.trap(defer.CancelledError))
        return lambda: running.cancel()

    def close(self) -> defer.Deferred[None]:
        """Closes the idle connections; fires when they are closed."""
        return self._connections.close()


async def _chunks(body: ResponseBody) -> AsyncIterator[bytes]:
    while chunk := await body.read():
        yield chunk
