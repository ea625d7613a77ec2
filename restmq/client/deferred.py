"""The client for Twisted. Every method returns a Deferred, which can be awaited and cancelled."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet import defer, task

from restmq.client import calls
from restmq.client.agent import DeferredHttpConnections, ResponseBody
from restmq.client.coroutines import CoroutineClient
from restmq.client.exchange import ApiRequest, ApiResponse, Call
from restmq.client.server import DEFAULT_URL, Server
from restmq.errors import RestMQError

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _method(make: Callable[_P, Call[_T]]) -> Callable[Concatenate[DeferredClient, _P], defer.Deferred[_T]]:
    """Turns a function of ``restmq.client.calls`` into a method that runs the call."""

    @wraps(make)
    def method(self: DeferredClient, /, *args: _P.args, **kwargs: _P.kwargs) -> defer.Deferred[_T]:
        return self.run(make(*args, **kwargs))

    return method


class DeferredClient(CoroutineClient):
    """A client for one server. It keeps connections alive. Cancelling a call closes its connection.

    ``restmq.client.calls`` documents the methods.

    Args:
        reactor: the reactor to run on.
        server, retry_seconds, timeout_seconds, lasting, on_retry: as for ``restmq.client.Client``.
    """

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
        super().__init__(server, retry_seconds, lasting, on_retry, reactor.seconds)
        self._reactor = reactor
        self._connections = DeferredHttpConnections(reactor, self.server, timeout_seconds)

    publish = _method(calls.publish)
    publish_many = _method(calls.publish_many)
    take = _method(calls.take)
    take_many = _method(calls.take_many)
    take_first = _method(calls.take_first)
    lease = _method(calls.lease)
    lease_many = _method(calls.lease_many)
    ack = _method(calls.ack)
    ack_many = _method(calls.ack_many)
    extend = _method(calls.extend)
    nack = _method(calls.nack)
    find = _method(calls.find)
    peek = _method(calls.peek)
    delete = _method(calls.delete)
    queues = _method(calls.queues)
    stats = _method(calls.stats)
    stats_of_all = _method(calls.stats_of_all)
    overview = _method(calls.overview)
    ready = _method(calls.ready)
    settings = _method(calls.settings)
    configure = _method(calls.configure)
    pause = _method(calls.pause)
    resume = _method(calls.resume)
    purge = _method(calls.purge)
    dead = _method(calls.dead)
    redrive = _method(calls.redrive)
    drop_dead = _method(calls.drop_dead)

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

    def close(self) -> defer.Deferred[None]:
        """Closes the idle connections; fires when they are closed."""
        return self._connections.close()


async def _chunks(body: ResponseBody) -> AsyncIterator[bytes]:
    while chunk := await body.read():
        yield chunk
