"""HTTP in memory: an application that records its requests, and clients on string transports, with no sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from restmq.errors import WireError
from restmq.http.limits import Limits
from restmq.http.request import Request
from restmq.http.server import HTTPServer

GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECT = "Expect: 100-continue\r\n"
CHUNKED_HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = 1 << 30


class Handler:
    """A request's handler; counts how often it is told that the client has disconnected."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.gone = 0

    def on_connection_close(self) -> None:
        self.gone += 1


class App(HTTPServer, Factory):
    """An application that answers with the request's URI, at once or when the test says so."""

    def __init__(self, clock: Clock | None = None, answer_at_once: bool = True, **limits: Any) -> None:
        self.clock = clock or Clock()
        self.start_server(Limits(**limits), self.clock)
        self.answer_at_once = answer_at_once
        self.handlers: list[Handler] = []

    def __call__(self, request: Request) -> Handler:
        handler = Handler(request)
        self.handlers.append(handler)
        if self.answer_at_once:
            self.answer(request)
        return handler

    def settle(self) -> None:
        """Runs the reactor's turns until nothing is left to do now."""
        self.clock.advance(0)

    def turn(self) -> None:
        """Runs a single turn of the reactor."""
        due = [call for call in self.clock.getDelayedCalls() if call.getTime() <= self.clock.seconds()]
        for call, func in [(call, call.func) for call in due]:
            call.cancel()
            func()

    @staticmethod
    def answer(request: Request) -> None:
        request.connection.finished(b"<%b>" % request.uri.encode(), request.keep_alive)

    def render_refusal(self, refusal: WireError) -> bytes:
        return b"[%d]" % refusal.status

    @property
    def requests(self) -> list[Request]:
        return [handler.request for handler in self.handlers]


class Transport(StringTransport):
    """Has the half-close of a TCP transport. As there, a registered producer would delay closing."""

    def __init__(self, host: str = "192.0.2.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 50000))
        self.half_closed = False
        self.aborted = False

    def loseConnection(self) -> None:
        assert self.producer is None
        super().loseConnection()

    def loseWriteConnection(self) -> None:
        assert self.producer is None
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = self.disconnected = True

    def write(self, data: bytes) -> None:
        assert not self.half_closed
        super().write(data)

    @property
    def closed(self) -> bool:
        return self.disconnecting or self.half_closed or self.aborted

    @property
    def reads(self) -> bool:
        return self.producerState == "producing"


class Client:
    def __init__(self, app: App, step: int = WHOLE, transport: Transport | None = None) -> None:
        self.app = app
        self.step = step
        self.transport = transport or Transport()
        self.connection = app.buildProtocol(None)
        self.connection.makeConnection(self.transport)

    def send(self, data: bytes) -> Client:
        for start in range(0, len(data), self.step):
            self.connection.dataReceived(data[start : start + self.step])
            if not self.transport.reads:
                self.app.settle()
        self.app.settle()
        return self

    def answer(self) -> None:
        """Lets the application answer its latest request."""
        App.answer(self.app.requests[-1])
        self.app.settle()

    @property
    def got(self) -> bytes:
        return self.transport.value()

    def leave(self) -> None:
        self.connection.connectionLost(None)


def get(uri: str, fields: str = "", version: str = "1.1") -> bytes:
    return f"GET {uri} HTTP/{version}\r\nHost: a\r\n{fields}\r\n".encode("latin-1")


def post(uri: str, body: bytes, fields: str = "") -> bytes:
    return f"POST {uri} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(uri: str, *chunks: bytes, end: bytes = b"0\r\n\r\n", fields: str = "") -> bytes:
    head = f"POST {uri} HTTP/1.1\r\nHost: a\r\n{fields}Transfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end
