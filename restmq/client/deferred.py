"""The client for Twisted. Every method returns a Deferred, which can be awaited and cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import wraps
from math import inf
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet import defer, task

from restmq.client import calls
from restmq.client.agent import Body, DeferredConnections
from restmq.client.errors import Unreachable
from restmq.client.exchange import POLL_SECONDS, Call, Message, Patience
from restmq.client.server import DEFAULT_URL, Server
from restmq.client.stream import Listening
from restmq.errors import RestMQError

P = ParamSpec("P")
T = TypeVar("T")


def _carried_out(make: Callable[P, Call[T]]) -> Callable[Concatenate[DeferredClient, P], defer.Deferred[T]]:
    """Turns a function of ``restmq.client.calls`` into a method that runs the call."""

    @wraps(make)
    def method(self: DeferredClient, /, *args: P.args, **kwargs: P.kwargs) -> defer.Deferred[T]:
        return self.run(make(*args, **kwargs))

    return method


class DeferredClient:
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
        self.server = Server(server) if isinstance(server, str) else server
        self.retry_seconds = retry_seconds
        self.lasting = lasting
        self.on_retry = on_retry
        self.answered = False
        self._reactor = reactor
        self._connections = DeferredConnections(reactor, self.server, timeout_seconds)

    publish = _carried_out(calls.publish)
    publish_many = _carried_out(calls.publish_many)
    take = _carried_out(calls.take)
    take_many = _carried_out(calls.take_many)
    lease = _carried_out(calls.lease)
    lease_many = _carried_out(calls.lease_many)
    ack = _carried_out(calls.ack)
    extend = _carried_out(calls.extend)
    nack = _carried_out(calls.nack)
    find = _carried_out(calls.find)
    delete = _carried_out(calls.delete)
    queues = _carried_out(calls.queues)
    stats = _carried_out(calls.stats)
    overview = _carried_out(calls.overview)
    settings = _carried_out(calls.settings)
    configure = _carried_out(calls.configure)
    pause = _carried_out(calls.pause)
    start = _carried_out(calls.start)
    purge = _carried_out(calls.purge)
    dead = _carried_out(calls.dead)
    redrive = _carried_out(calls.redrive)
    drop_dead = _carried_out(calls.drop_dead)

    def run(self, call: Call[T]) -> defer.Deferred[T]:
        """Runs a call, and retries it where that is safe. Fails with the last error when retries end."""
        return defer.ensureDeferred(self._run(call))

    async def consume(
        self, queue: str, lease_seconds: float | None = None, *, count: int = 1
    ) -> AsyncIterator[Message]:
        """As ``restmq.client.Client.consume``. Cancel the iterating task to end it."""
        if lease_seconds is None:
            call = calls.repeatable(calls.take_many(queue, count, wait_seconds=POLL_SECONDS))
        else:
            call = calls.lease_many(queue, count, lease_seconds, wait_seconds=POLL_SECONDS)
        while True:
            for message in await self.run(call):
                yield message

    async def listen(
        self,
        queue: str,
        *,
        last_key: str = "",
        lease_seconds: float | None = None,
        prefetch: int | None = None,
        on_gap: Callable[[str], None] | None = None,
    ) -> AsyncIterator[Message]:
        """As ``restmq.client.Client.listen``. Close it (``contextlib.aclosing``), or its connection stays open."""
        listening = Listening(queue, last_key, lease_seconds, prefetch, on_gap)
        patience = self._patience()
        while True:
            body: Body | None = None
            try:
                body = await self._connections.stream(listening.request())
                self.answered = True
                patience = self._patience()
                while chunk := await body.read():
                    for message in listening.feed(chunk):
                        yield message
                problem: RestMQError = Unreachable("the server ended the stream.", sent=True)
            except RestMQError as raised:
                problem = raised
            finally:
                if body is not None:
                    body.hang_up()
            await self._sleep_after(problem, patience, repeatable=True)

    def close(self) -> defer.Deferred[None]:
        """Closes the idle connections; fires when they are closed."""
        return self._connections.close()

    # Retries

    def _patience(self) -> Patience:
        return Patience(inf if self.lasting and self.answered else self.retry_seconds, self._reactor.seconds)

    async def _run(self, call: Call[T]) -> T:
        patience = self._patience()
        while True:
            try:
                result = call.result(await self._connections.exchange(call.request))
            except RestMQError as problem:
                await self._sleep_after(problem, patience, call.request.repeatable)
            else:
                self.answered = True
                return result

    async def _sleep_after(self, problem: RestMQError, patience: Patience, repeatable: bool) -> None:
        seconds = patience.pause_seconds(problem, repeatable)
        if self.on_retry is not None:
            self.on_retry(problem, seconds)
        await task.deferLater(self._reactor, seconds)
