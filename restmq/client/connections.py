"""HTTP connections of the blocking client: kept alive, shared by threads, ended by ``cut`` when the client stops."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection

from restmq.client.errors import BadAnswer, Unreachable
from restmq.client.exchange import CONNECT_SECONDS, IDLE_CONNECTIONS_MAX, RESPONSE_BYTES_MAX, ApiRequest, ApiResponse
from restmq.client.server import Server

_CHUNK_BYTES = 1 << 16
#: Detects within a minute that a peer has vanished from an idle connection: seconds idle, between probes; probes.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class HttpConnections:
    """HTTP connections to one server. Every method raises Unreachable if no complete response arrives."""

    def __init__(self, server: Server, timeout_seconds: float) -> None:
        self._server = server
        self._timeout_seconds = timeout_seconds
        self._tls = ssl.create_default_context() if server.secure else None
        self._idle: list[HTTPConnection] = []
        self._idle_lock = threading.Lock()
        self._in_use: set[HTTPConnection] = set()
        self._cut = False

    def exchange(self, request: ApiRequest) -> ApiResponse:
        """Sends the request and reads the whole response. Raises BadAnswer if it is too long."""
        with self._connection() as connection:
            response = self._begin(connection, request, self._timeout_seconds + request.wait_seconds)
            body = response.read(RESPONSE_BYTES_MAX + 1)
            if len(body) > RESPONSE_BYTES_MAX:
                raise BadAnswer(f"the response is longer than {RESPONSE_BYTES_MAX} bytes.")
            if response.length:  # http.client's read(n) does not report that the body was cut off
                raise HTTPException("the response was cut off")
            return _response(response, body)

    @contextlib.contextmanager
    def stream(self, request: ApiRequest) -> Iterator[Iterator[bytes]]:
        """Sends the request; yields the chunks of a live stream. Raises an error if the response is no stream."""
        with self._connection() as connection:
            response = self._begin(connection, request, self._timeout_seconds)
            if not _response(response, b"").is_stream:
                _response(response, response.read(RESPONSE_BYTES_MAX)).check_stream()
            connection.sock.settimeout(None)
            yield iter(lambda: response.read1(_CHUNK_BYTES), b"")

    def cut(self) -> None:
        """Ends all requests that wait for a response; later requests fail. Safe to call from a signal handler."""
        self._cut = True
        for connection in list(self._in_use):
            if connection.sock is not None:
                # Data that has arrived stays readable. SSLSocket.shutdown would drop the TLS layer as well.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection.sock, socket.SHUT_RD)

    def close(self) -> None:
        """Closes the idle connections."""
        with self._idle_lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[HTTPConnection]:
        """A connection for one request; it is kept for the next request if this one succeeded."""
        connection = self._idle_connection() or self._new_connection()
        self._in_use.add(connection)
        keep = False
        try:
            if self._cut:
                raise Unreachable("the client was stopped.", sent=False)
            yield connection
            keep = connection.sock is not None
        except TimeoutError:
            raise Unreachable(f"{self._server.url} did not answer in time.", sent=True) from None
        except (OSError, HTTPException) as problem:
            why = str(problem) or type(problem).__name__
            raise Unreachable(f"the connection to {self._server.url} was lost: {why}.", sent=True) from None
        finally:
            self._in_use.discard(connection)
            with self._idle_lock:
                keep = keep and len(self._idle) < IDLE_CONNECTIONS_MAX
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def _idle_connection(self) -> HTTPConnection | None:
        """An idle connection that the server has not closed."""
        while True:
            with self._idle_lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.sock is not None and not _is_readable(connection.sock):
                return connection
            connection.close()

    def _new_connection(self) -> HTTPConnection:
        server = self._server
        if self._tls is not None:
            connection: HTTPConnection = HTTPSConnection(
                server.host, server.port, timeout=CONNECT_SECONDS, context=self._tls
            )
        else:
            connection = HTTPConnection(server.host, server.port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
            _keep_alive(connection.sock)
        except OSError as problem:
            connection.close()
            raise Unreachable(f"{server.url} can't be reached: {problem.strerror or problem}.", sent=False) from None
        return connection

    def _begin(self, connection: HTTPConnection, request: ApiRequest, timeout_seconds: float) -> HTTPResponse:
        connection.sock.settimeout(timeout_seconds)
        # A server that rejects the body answers before it has read all of it, and then stops reading.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(
                request.method,
                self._server.prefix + request.path,
                request.body or None,
                {name: value.encode() for name, value in request.fields(self._server).items()},
            )
        return connection.getresponse()


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, number in _KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), number)


def _response(response: HTTPResponse, body: bytes) -> ApiResponse:
    return ApiResponse(response.status, {name.lower(): value for name, value in response.getheaders()}, body)
