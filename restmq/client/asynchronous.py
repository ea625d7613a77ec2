"""The client for asyncio, on httpx (``pip install restmq[asyncio]``). Every method is a coroutine."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import httpx

from restmq.client.coroutines import CoroutineClient
from restmq.client.errors import BadAnswer, Unreachable
from restmq.client.exchange import (
    CONNECT_SECONDS,
    IDLE_CONNECTIONS_MAX,
    RESPONSE_BYTES_MAX,
    ApiRequest,
    ApiResponse,
    Call,
)
from restmq.client.server import Server

#: Shorter than the server's idle timeout, so that no request goes to a connection that the server is closing.
_IDLE_SECONDS = 45.0

_T = TypeVar("_T")


class AsyncClient(CoroutineClient):
    """A client for one server. It keeps connections alive. Cancelling a call closes its connection.

    ``restmq.client.calls`` documents the methods. Use a client in one event loop only.

    Args:
        server, retry_seconds, timeout_seconds, lasting, on_retry: as for ``restmq.client.Client``.
    """

    _cancelled = asyncio.CancelledError
    _connections: AsyncHttpConnections

    def _set_up(self) -> None:
        self._connections = AsyncHttpConnections(self.server, self.timeout_seconds)

    async def run(self, call: Call[_T]) -> _T:
        """Runs a call, and retries it where that is safe. Raises the last error when retries end."""
        return await self._run(call)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def _begin(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        return asyncio.create_task(work).cancel

    async def close(self) -> None:
        """Closes the connections."""
        await self._connections.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncHttpConnections:
    """HTTP connections to one server. Every method raises Unreachable if no complete response arrives."""

    def __init__(self, server: Server, timeout_seconds: float) -> None:
        self._server = server
        self._timeout_seconds = timeout_seconds
        self._http = httpx.AsyncClient(
            verify=ssl.create_default_context() if server.secure else False,
            trust_env=False,  # as the other clients: no proxies
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=IDLE_CONNECTIONS_MAX, keepalive_expiry=_IDLE_SECONDS
            ),
        )

    async def exchange(self, request: ApiRequest) -> ApiResponse:
        """Sends the request and reads the whole response. Raises BadAnswer if it is too long."""
        async with self._begun(request, self._timeout_seconds + request.wait_seconds) as response:
            return ApiResponse(response.status_code, dict(response.headers), await _whole_body(response))

    @contextlib.asynccontextmanager
    async def stream(self, request: ApiRequest) -> AsyncIterator[AsyncIterator[bytes]]:
        """Sends the request; yields the chunks of a live stream. Raises an error if the response is no stream."""
        async with self._begun(request, None) as response:
            head = ApiResponse(response.status_code, dict(response.headers), b"")
            if not head.is_stream:
                ApiResponse(head.status, head.headers, await _whole_body(response)).check_stream()
            yield response.aiter_raw()

    async def close(self) -> None:
        await self._http.aclose()

    @contextlib.asynccontextmanager
    async def _begun(self, request: ApiRequest, read_seconds: float | None) -> AsyncIterator[httpx.Response]:
        """The response, whose body is to be read in the block."""
        timeout = httpx.Timeout(self._timeout_seconds, connect=CONNECT_SECONDS, read=read_seconds)
        path = self._server.prefix + request.path
        try:
            async with self._http.stream(
                request.method,
                self._server.url,
                content=request.body,
                headers=[(name.encode(), value.encode()) for name, value in request.fields(self._server).items()],
                timeout=timeout,
                extensions={"target": path.encode("ascii")},  # exactly so: httpx would resolve a queue named ".."
            ) as response:
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout) as problem:
            raise Unreachable(f"{self._server.url} can't be reached: {problem}.", sent=False) from None
        except httpx.TimeoutException:
            raise Unreachable(f"{self._server.url} did not answer in time.", sent=True) from None
        except httpx.TransportError as problem:
            why = str(problem) or type(problem).__name__
            raise Unreachable(f"the connection to {self._server.url} was lost: {why}.", sent=True) from None


async def _whole_body(response: httpx.Response) -> bytes:
    chunks, size = [], 0
    async for chunk in response.aiter_raw():
        chunks.append(chunk)
        size += len(chunk)
        if size > RESPONSE_BYTES_MAX:
            raise BadAnswer(f"the response is longer than {RESPONSE_BYTES_MAX} bytes.")
    return b"".join(chunks)
