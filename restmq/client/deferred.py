"""The client for Twisted. Every method returns a Deferred, which can be awaited and cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import wraps
from math import inf
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet import defer, task

from restmq.client import calls
from restmq.client.agent import DeferredHttpConnections, ResponseBody
from restmq.client.errors import Unreachable
from restmq.client.exchange import Call, Message, RetryPolicy
from restmq.client.server import DEFAULT_URL, Server
from restmq.client.stream import LiveStream
from restmq.errors import RestMQError

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _method(make: Callable[_P, Call[_T]]) -> Callable[Concatenate[DeferredClient, _P], defer.Deferred[_T]]:
    """Turns a function of ``restmq.client.calls`` into a method that runs the call."""

    @wraps(make)
    def method(self: DeferredClient, /, *args: _P.args, **kwargs: _P.kwargs) -> defer.Deferred[_T]:
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

    async def consume(
        self, queue: str | Sequence[str], lease_seconds: float | None = None, *, count: int = 1
    ) -> AsyncIterator[Message]:
        """As ``restmq.client.Client.consume``. Cancel the iterating task to end it."""
        call = calls.consume(queue, lease_seconds, count=count)
        while True:
            for message in await self.run(call):
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

    async def _follow(self, stream: LiveStream) -> AsyncIterator[Message]:
        policy = self._retry_policy()
        while True:
            body: ResponseBody | None = None
            try:
                body = await self._connections.stream(stream.request())
                self.answered = True
                policy = self._retry_policy()
                while chunk := await body.read():
                    for message in stream.feed(chunk):
                        yield message
                problem: RestMQError = Unreachable("the server ended the stream.", sent=True)
            except RestMQError as raised:
                problem = raised
            finally:
                if body is not None:
                    body.hang_up()
            await self._sleep_after(problem, policy, repeatable=True)

    def close(self) -> defer.Deferred[None]:
        """Closes the idle connections; fires when they are closed."""
        return self._connections.close()

    # Retries

    def _retry_policy(self) -> RetryPolicy:
        return RetryPolicy(inf if self.lasting and self.answered else self.retry_seconds, self._reactor.seconds)

    async def _run(self, call: Call[_T]) -> _T:
        policy = self._retry_policy()
        while True:
            try:
                result = call.result(await self._connections.exchange(call.request))
            except RestMQError as problem:
                await self._sleep_after(problem, policy, call.request.repeatable)
            else:
                self.answered = True
                return result

    async def _sleep_after(self, problem: RestMQError, policy: RetryPolicy, repeatable: bool) -> None:
        seconds = policy.delay_seconds(problem, repeatable)
        if self.on_retry is not None:
            self.on_retry(problem, seconds)
        await task.deferLater(self._reactor, seconds)
