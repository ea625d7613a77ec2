"""HTTP connections of the Twisted client: kept alive by an Agent, with response bodies that are read as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from twisted.internet import defer, error
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    PotentialDataLoss,
    RequestNotSent,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from restmq.client.errors import BadAnswer, Unreachable
from restmq.client.exchange import CONNECT_SECONDS, IDLE_CONNECTIONS_MAX, RESPONSE_BYTES_MAX, ApiRequest, ApiResponse
from restmq.client.server import Server
from restmq.errors import RestMQError

#: Shorter than the server's idle timeout, so that no request goes to a connection that the server is closing.
IDLE_SECONDS = 45.0
_UNREAD_BYTES_MAX = 1 << 20

_T = TypeVar("_T")


class DeferredHttpConnections:
    """HTTP connections to one server. Every method raises Unreachable if no complete response arrives."""

    def __init__(self, reactor: Any, server: Server, timeout_seconds: float) -> None:
        self._reactor = reactor
        self._server = server
        self._timeout_seconds = timeout_seconds
        self._pool = HTTPConnectionPool(reactor)
        self._pool.maxPersistentPerHost = IDLE_CONNECTIONS_MAX
        self._pool.cachedConnectionTimeout = IDLE_SECONDS
        self._pool.retryAutomatically = False  # a GET sent twice would take two messages
        self._agent = Agent(reactor, connectTimeout=CONNECT_SECONDS, pool=self._pool)

    async def exchange(self, request: ApiRequest) -> ApiResponse:
        """Sends the request and reads the whole response. Raises BadAnswer if it is too long."""
        return await self._with_timeout(self._timeout_seconds + request.wait_seconds, self._response(request))

    @asynccontextmanager
    async def stream(self, request: ApiRequest) -> AsyncIterator[AsyncIterator[bytes]]:
        """Sends the request; yields the chunks of a live stream. Raises an error if the response is no stream."""
        status, headers, body = await self._with_timeout(self._timeout_seconds, self._begin(request))
        try:
            if not ApiResponse(status, headers, b"").is_stream:
                rest = await self._with_timeout(self._timeout_seconds, body.read_all())
                ApiResponse(status, headers, rest).check_stream()
            yield body.chunks()
        finally:
            body.hang_up()

    def close(self) -> defer.Deferred[None]:
        """Closes the idle connections."""
        closing: defer.Deferred[None] = self._pool.closeCachedConnections()
        return closing

    async def _response(self, request: ApiRequest) -> ApiResponse:
        status, headers, body = await self._begin(request)
        try:
            return ApiResponse(status, headers, await body.read_all())
        finally:
            body.hang_up()

    async def _begin(self, request: ApiRequest) -> tuple[int, dict[str, str], ResponseBody]:
        fields = {name: [value] for name, value in request.fields(self._server).items()}
        uri = (self._server.url.rstrip("/") + request.path).encode("ascii")
        producer = _BytesProducer(request.body) if request.body or request.method == "POST" else None
        try:
            response = await self._agent.request(request.method.encode("ascii"), uri, Headers(fields), producer)
        except (error.ConnectError, error.DNSLookupError, RequestNotSent) as problem:
            raise Unreachable(f"{self._server.url} can't be reached: {problem}", sent=False) from None
        except (ResponseFailed, error.ConnectionLost, error.ConnectionDone) as problem:
            if any(reason.check(defer.CancelledError) for reason in getattr(problem, "reasons", ())):
                raise defer.CancelledError from None
            raise Unreachable(
                f"the connection to {self._server.url} was lost: {_reason(problem)}.", sent=True
            ) from None
        headers = {
            name.decode("latin-1").lower(): values[-1].decode("latin-1")
            for name, values in response.headers.getAllRawHeaders()
        }
        body = ResponseBody(self._server.url)
        response.deliverBody(body)
        return response.code, headers, body

    async def _with_timeout(self, seconds: float, work: Coroutine[Any, Any, _T]) -> _T:
        def on_timeout(_failure: Any, _seconds: float) -> Any:
            raise Unreachable(f"{self._server.url} did not answer in time.", sent=True)

        done: _T = await defer.ensureDeferred(work).addTimeout(seconds, self._reactor, on_timeout)
        return done


def _reason(problem: Exception) -> str:
    """The cause of a failure that Twisted has wrapped."""
    reasons = getattr(problem, "reasons", None)
    return reasons[0].getErrorMessage() if reasons else str(problem)


@implementer(IBodyProducer)
class _BytesProducer:
    """A request body that is written in one piece.

    Twisted's own producer reports its end some reactor turns after the last byte. If the response arrives before that,
    the Agent closes the connection instead of keeping it.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> defer.Deferred[None]:
        consumer.write(self._body)
        return defer.succeed(None)

    def pauseProducing(self) -> None:
        """Does nothing: the whole body was written at the start."""

    resumeProducing = stopProducing = pauseProducing


class ResponseBody(Protocol):  # type: ignore[misc]  # untyped
    """A response body, read as it arrives. At 1 MiB of unread data it pauses reading from the socket."""

    def __init__(self, url: str) -> None:
        self._url = url
        #: Chunks, and at the end None or an error.
        self._arrived: defer.DeferredQueue[bytes | RestMQError | None] = defer.DeferredQueue()
        self._unread_bytes = 0
        self._ended = False
        self._paused = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body's chunks. Raises Unreachable if it was cut off."""
        while (chunk := await self._arrived.get()) is not None:
            if isinstance(chunk, RestMQError):
                raise chunk
            self._unread_bytes -= len(chunk)
            if self._paused and self._unread_bytes < _UNREAD_BYTES_MAX:
                self._paused = False
                self.transport.resumeProducing()
            yield chunk

    async def read_all(self) -> bytes:
        """The whole body. Raises Unreachable if it was cut off, BadAnswer if it is too long."""
        chunks, size = [], 0
        async for chunk in self.chunks():
            chunks.append(chunk)
            size += len(chunk)
            if size > RESPONSE_BYTES_MAX:
                raise BadAnswer(f"the response is longer than {RESPONSE_BYTES_MAX} bytes.")
        return b"".join(chunks)

    def hang_up(self) -> None:
        """Closes the connection unless the body has ended."""
        if not self._ended and self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._arrived.put(data)
        self._unread_bytes += len(data)
        if self._unread_bytes >= _UNREAD_BYTES_MAX and not self._paused:
            self._paused = True
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = error.ConnectionDone) -> None:
        self._ended = True
        if reason.check(ResponseDone, PotentialDataLoss):
            self._arrived.put(None)
        else:
            self._arrived.put(
                Unreachable(f"the connection to {self._url} was lost: {_reason(reason.value)}.", sent=True)
            )
