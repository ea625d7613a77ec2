"""The client for Twisted. Every method returns a Deferred, which can be awaited and cancelled."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet import defer, task

from restmq.client.agent import DeferredHttpConnections
from restmq.client.coroutines import CoroutineClient
from restmq.client.exchange import Call
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
    _connections: DeferredHttpConnections

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
        self._reactor = reactor
        self._seconds = reactor.seconds
        super().__init__(
            server, retry_seconds=retry_seconds, timeout_seconds=timeout_seconds, lasting=lasting, on_retry=on_retry
        )

    def _set_up(self) -> None:
        self._connections = DeferredHttpConnections(self._reactor, self.server, self.timeout_seconds)

    def run(self, call: Call[_T]) -> defer.Deferred[_T]:
        """Runs a call, and retries it where that is safe. Fails with the last error when retries end."""
        return defer.ensureDeferred(self._run(call))

    async def _sleep(self, seconds: float) -> None:
        await task.deferLater(self._reactor, seconds)

    def _begin(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        running: defer.Deferred[None] = defer.ensureDeferred(work)
        running.addErrback(lambda failure: failure.trap(defer.CancelledError))
        return lambda: running.cancel()

    def close(self) -> defer.Deferred[None]:
        """Closes the idle connections; fires when they are closed."""
        return self._connections.close()
