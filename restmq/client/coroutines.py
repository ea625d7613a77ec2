"""The part of a client that is the same for asyncio and for Twisted: both run coroutines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from math import inf
from typing import TypeVar

from restmq.client import calls
from restmq.client.errors import Unreachable
from restmq.client.exchange import ApiRequest, ApiResponse, Call, Message, RetryPolicy
from restmq.client.server import Server
from restmq.client.stream import LiveStream
from restmq.errors import RestMQError

_T = TypeVar("_T")


class CoroutineClient(ABC):
    """Runs calls and follows streams; a subclass has the connections and the clock."""

    def __init__(
        self,
        server: Server | str,
        retry_seconds: float,
        lasting: bool,
        on_retry: Callable[[RestMQError, float], None] | None,
        seconds: Callable[[], float],
    ) -> None:
        self.server = Server(server) if isinstance(server, str) else server
        self.retry_seconds = retry_seconds
        self.lasting = lasting
        self.on_retry = on_retry
        self.answered = False
        self._seconds = seconds

    @abstractmethod
    async def _exchange(self, request: ApiRequest) -> ApiResponse:
        """Sends the request and reads the whole response."""

    @abstractmethod
    def _stream(self, request: ApiRequest) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Sends the request; yields the chunks of a live stream."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None: ...

    async def _run(self, call: Call[_T]) -> _T:
        policy = self._retry_policy()
        while True:
            try:
                result = call.result(await self._exchange(call.request))
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

    async def _follow(self, stream: LiveStream) -> AsyncIterator[Message]:
        policy = self._retry_policy()
        while True:
            try:
                async with self._stream(stream.request()) as chunks:
                    self.answered = True
                    policy = self._retry_policy()
                    async for chunk in chunks:
                        for message in stream.feed(chunk):
                            yield message
                error: RestMQError = Unreachable("the server ended the stream.", sent=True)
            except RestMQError as problem:
                error = problem
            await self._sleep_after(error, policy, repeatable=True)

    def _retry_policy(self) -> RetryPolicy:
        return RetryPolicy(inf if self.lasting and self.answered else self.retry_seconds, self._seconds)

    async def _sleep_after(self, error: RestMQError, policy: RetryPolicy, repeatable: bool) -> None:
        seconds = policy.delay_seconds(error, repeatable)
        if self.on_retry is not None:
            self.on_retry(error, seconds)
        await self._sleep(seconds)
