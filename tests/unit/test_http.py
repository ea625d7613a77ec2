"""The wire byte by byte: what a client sends, what the application is handed, and what goes back."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from restmq.errors import InvalidInput, WireError
from restmq.http.forms import ARGUMENTS_MAX, PART_HEADER_BYTES_MAX, _unquote
from restmq.http.parser import Limits
from restmq.http.request import Request
from restmq.http.server import HTTPServer

GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
WHOLE = 1 << 30


class Handler:
    """What the application hands back for a request; here it only keeps account."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.gone = 0

    def on_connection_close(self) -> None:
        self.gone += 1


class App(HTTPServer, Factory):
    """An application that answers with what it was asked, at once or when the test says so."""

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

    @staticmethod
    def answer(request: Request) -> None:
        request.connection.finished(b"<%b>" % request.uri.encode(), request.keep_alive)

    def render_refusal(self, refusal: WireError) -> bytes:
        return b"[%d]" % refusal.status

    @property
    def requests(self) -> list[Request]:
        return [handler.request for handler in self.handlers]


class Transport(StringTransport):
    """With the half-close of a TCP transport; and as there, closing waits for a producer to be unregistered."""

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
        self.app.clock.advance(0)
        return self

    def answer(self) -> None:
        """Lets the application answer the request that it has."""
        App.answer(self.app.requests[-1])
        self.app.clock.advance(0)

    @property
    def got(self) -> bytes:
        return self.transport.value()

    def leave(self) -> None:
        self.connection.connectionLost(None)


@pytest.fixture(params=[WHOLE, 1], ids=["whole", "byte by byte"])
def step(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def connect(step: int) -> Callable[..., Client]:
    """Connects a client that sends what it sends in one go, or byte by byte."""
    return lambda **options: Client(App(**options), step)


def get(uri: str, fields: str = "", version: str = "1.1") -> bytes:
    return f"GET {uri} HTTP/{version}\r\nHost: a\r\n{fields}\r\n".encode("latin-1")


def post(uri: str, body: bytes, fields: str = "") -> bytes:
    return f"POST {uri} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked(uri: str, *chunks: bytes, end: bytes = b"0\r\n\r\n", fields: str = "") -> bytes:
    head = f"POST {uri} HTTP/1.1\r\nHost: a\r\n{fields}Transfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def form(body: bytes, content_type: str = "application/x-www-form-urlencoded", query: str = "") -> Request:
    client = Client(App()).send(post(f"/{query}", body, f"Content-Type: {content_type}\r\n"))
    (request,) = client.app.requests
    return request


# Requests as they should be


def test_a_request_reaches_the_application_with_all_that_it_says(connect: Callable[..., Client]) -> None:
    client = connect().send(post("/q/a?b=c&d=%20", b"value=1", "X-One: \t two  words \t\r\nEmpty:\r\nX-ONE: \xff\r\n"))
    (request,) = client.app.requests
    assert (request.method, request.uri, request.path, request.query) == ("POST", "/q/a?b=c&d=%20", "/q/a", "b=c&d=%20")
    assert (request.version, request.body, request.host) == ("HTTP/1.1", b"value=1", "a")
    assert (request.remote_ip, request.protocol) == ("192.0.2.1", "http")
    assert request.headers["x-one"] == "two  words, \xc3\xbf"
    assert request.headers["empty"] == ""
    assert "x-two" not in request.headers


def test_a_chunked_body_comes_whole_and_its_trailers_are_not_believed(connect: Callable[..., Client]) -> None:
    trailers = b"0;last\r\nX-Late: 1\r\nHost: evil\r\nAuthorization: Basic eDp5\r\n\r\n"
    client = connect().send(chunked("/1", b"value=", b"a b", b"\r\n0\r\n\r\n", end=trailers) + get("/2"))
    first, second = client.app.requests
    assert first.body == b"value=a b\r\n0\r\n\r\n"
    for request in (first, second):
        assert request.headers["host"] == "a"
        assert "x-late" not in request.headers and "authorization" not in request.headers
    assert client.got == b"</1></2>"


def test_chunk_extensions_are_ignored(connect: Callable[..., Client]) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    client = connect().send(head + b'03;a=b;c="d;e"\r\nabc\r\n0\r\n\r\n')
    assert [request.body for request in client.app.requests] == [b"abc"]


def test_empty_lines_before_a_request_are_skipped(connect: Callable[..., Client]) -> None:
    client = connect().send(b"\r\n\r\n" + get("/1") + b"\r\n" + get("/2"))
    assert client.got == b"</1></2>"


def test_pipelined_requests_are_answered_in_order_each_exactly_once(connect: Callable[..., Client]) -> None:
    client = connect(answer_at_once=False)
    client.send(get("/1") + post("/2", b"x") + chunked("/3", b"y") + get("/4"))
    for number in range(1, 5):
        assert [request.uri for request in client.app.requests] == [f"/{n}" for n in range(1, number + 1)]
        client.answer()
    assert client.got == b"</1></2></3></4>"
    assert not client.transport.closed


def test_a_connection_is_not_read_while_the_next_request_already_waits(connect: Callable[..., Client]) -> None:
    client = connect(answer_at_once=False)
    client.send(get("/1"))
    assert client.transport.reads
    client.send(get("/2"))
    assert not client.transport.reads
    client.answer()
    assert client.transport.reads
    client.answer()
    assert client.got == b"</1></2>"


def test_one_read_full_of_requests_does_not_become_thousands_of_objects() -> None:
    client = Client(App(answer_at_once=False))
    client.send(get("/x") * 2000)
    assert 16 <= len(client.connection._parser.requests) < 200
    for _ in range(2000):
        client.answer()
        assert len(client.connection._parser.requests) < 200
    assert client.got == b"</x>" * 2000
    assert client.transport.reads


def test_what_a_transport_delivers_after_it_was_paused_is_parsed_in_its_turn() -> None:
    client = Client(App(answer_at_once=False, requests_waiting=1))
    client.send(get("/1") + get("/2?" + "x" * 5000) + get("/3"))
    client.send(get("/4"))
    for _ in range(4):
        client.answer()
    assert [request.path for request in client.app.requests] == ["/1", "/2", "/3", "/4"]


def test_a_client_that_reads_no_answers_gets_no_more_of_them(connect: Callable[..., Client]) -> None:
    client = connect()
    client.connection.pauseProducing()  # as the transport does when it is full
    client.send(get("/1") + get("/2"))
    assert client.app.requests == []
    assert not client.transport.reads
    client.connection.resumeProducing()
    assert client.got == b"</1></2>"
    assert client.transport.reads


def test_a_client_that_never_reads_its_answer_is_dropped() -> None:
    client = Client(App(idle_seconds=75))
    client.send(get("/1"))
    client.connection.pauseProducing()
    client.send(get("/2")[:-1])
    for _ in range(2):
        client.app.clock.advance(80)
        client.app.close_overdue()
    assert client.transport.aborted
    assert client.got == b"</1>"


def test_a_large_answer_gets_the_time_that_a_slow_client_needs() -> None:
    client = Client(App(answer_at_once=False, idle_seconds=10))
    client.send(get("/"))
    client.app.requests[0].connection.finished(b"x" * (16384 * 100), True)
    client.app.clock.advance(100)
    client.app.close_overdue()
    assert not client.transport.closed
    client.app.clock.advance(11)
    client.app.close_overdue()
    assert client.transport.closed


def test_an_idle_connection_keeps_nothing_of_the_request_before(step: int) -> None:
    client = Client(App(), step if step > 1 else 1024)
    client.send(get("/"))
    gc.collect()
    tracemalloc.start()
    try:
        client.send(post("/", b"x" * 5_000_000, f"X: {'y' * 50_000}\r\n"))
        client.app.handlers.clear()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()


def test_a_body_of_tiny_chunks_costs_about_its_size() -> None:
    app = App()
    client = Client(app, 1400)
    sent = chunked("/", *[b"ab"] * 300_000)
    tracemalloc.start()
    try:
        client.send(sent)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert app.requests[0].body == b"ab" * 300_000


@pytest.mark.parametrize(
    ("version", "connection", "stays"),
    [
        ("1.1", "", True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "foo, close", False),
        ("1.1", "keep-alive", True),
        ("1.0", "", False),
        ("1.0", "keep-alive", True),
        ("1.0", "close", False),
    ],
)
def test_a_connection_stays_open_if_the_version_and_the_client_want_it(
    connect: Callable[..., Client], version: str, connection: str, stays: bool
) -> None:
    fields = f"Connection: {connection}\r\n" if connection else ""
    client = connect().send(get("/1", fields, version) + get("/2", fields, version))
    assert client.got == (b"</1></2>" if stays else b"</1>")
    assert client.transport.closed is not stays


def test_an_http_1_0_request_needs_no_host(connect: Callable[..., Client]) -> None:
    assert connect().send(b"GET /old HTTP/1.0\r\n\r\n").got == b"</old>"


def test_what_follows_a_connection_close_is_read_but_not_heeded(connect: Callable[..., Client]) -> None:
    client = connect(answer_at_once=False)
    client.send(get("/1", "Connection: close\r\n") + get("/2") + b"\0rubbish")
    client.answer()
    assert client.got == b"</1>"
    assert client.transport.closed
    client.send(get("/3"))
    assert len(client.app.requests) == 1


def test_a_last_answer_survives_the_requests_that_the_client_had_already_sent() -> None:
    client = Client(App(answer_at_once=False))
    client.send(get("/1") + get("/2"))
    client.app.requests[0].connection.finished(b"<last>", False)
    assert client.transport.half_closed and not client.transport.disconnecting  # a full close would be a reset
    assert client.transport.reads
    client.app.clock.advance(80)
    client.app.close_overdue()
    assert client.transport.aborted


# Expect: 100-continue (RFC 9110, 10.1.1)

EXPECT = "Expect: 100-continue\r\n"


def test_a_client_that_waits_for_it_is_told_to_go_on(connect: Callable[..., Client]) -> None:
    client = connect()
    head, body = post("/", b"12345", EXPECT)[:-5], b"12345"
    client.send(head)
    assert client.got == GO_ON
    client.send(body)
    assert client.got == GO_ON + b"</>"


def test_behind_a_pipelined_request_it_is_told_when_its_turn_comes(connect: Callable[..., Client]) -> None:
    client = connect(answer_at_once=False)
    client.send(get("/1") + chunked("/2", end=b"", fields="expect: 100-Continue\r\n"))
    assert client.got == b""
    client.answer()
    assert client.got == b"</1>" + GO_ON
    client.send(b"1\r\nx\r\n0\r\n\r\n")
    client.answer()
    assert client.got == b"</1>" + GO_ON + b"</2>"


def test_nobody_is_told_to_go_on_who_has_sent_the_body_or_has_none() -> None:
    client = Client(App()).send(post("/1", b"x", EXPECT) + get("/2", EXPECT))
    assert client.got == b"</1></2>"


def test_an_http_1_0_client_is_never_told_to_go_on(connect: Callable[..., Client]) -> None:
    client = connect(answer_at_once=False)
    client.send(get("/1", "Connection: keep-alive\r\n", "1.0"))
    client.send(b"POST /2 HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    client.answer()
    client.send(b"x")
    client.answer()
    assert client.got == b"</1></2>"


def test_a_body_that_is_too_long_is_refused_instead(connect: Callable[..., Client]) -> None:
    assert connect(body_bytes=4).send(post("/", b"12345", EXPECT)).got == b"[413]"


def test_another_expectation_is_refused(connect: Callable[..., Client]) -> None:
    assert connect().send(get("/", "Expect: miracles\r\n") + get("/2")).got == b"[417]"


# Upgrades


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.0", "websocket"])
def test_another_upgrade_is_ignored_and_the_body_belongs_to_the_request(
    connect: Callable[..., Client], upgrade: str
) -> None:
    fields = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: x\r\n"
    client = connect().send(post("/1", b"GET /x", fields) + chunked("/2", b"abc", fields=fields) + get("/3"))
    assert [request.body for request in client.app.requests] == [b"GET /x", b"abc", b""]
    assert client.got == b"</1></2></3>"
    assert not any(request.upgrade for request in client.app.requests)


def test_many_ignored_upgrades_in_one_read_are_all_answered() -> None:
    client = Client(App()).send(get("/", "Connection: Upgrade\r\nUpgrade: h2c\r\n") * 1500)
    assert client.got == b"</>" * 1500


def test_an_ignored_upgrade_that_waits_for_100_continue_is_told_once(connect: Callable[..., Client]) -> None:
    client = connect().send(post("/", b"x", EXPECT + "Connection: Upgrade\r\nUpgrade: h2c\r\n")[:-1])
    client.send(b"x")
    assert client.got == GO_ON + b"</>"


WEBSOCKET = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"


class Successor:
    def __init__(self) -> None:
        self.got = b""

    def makeConnection(self, transport: Any) -> None:
        transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self.got += data


@pytest.mark.parametrize("before", [b"", get("/before")], ids=["alone", "behind another request"])
def test_a_websocket_takes_the_connection_with_all_bytes_that_came(
    connect: Callable[..., Client], before: bytes
) -> None:
    client = connect(answer_at_once=False)
    client.send(before + get("/ws/q", WEBSOCKET) + b"\x81\x00fra")
    client.send(b"mes")
    if before:
        client.answer()
    request = client.app.requests[-1]
    assert request.upgrade
    successor = Successor()
    request.connection.hand_over(request, successor)
    assert successor.got.startswith(b"GET /ws/q HTTP/1.1\r\n")
    assert b"\r\nupgrade: WebSocket\r\n" in successor.got
    assert successor.got.endswith(b"\r\n\r\n\x81\x00frames")
    assert client.transport.protocol is successor
    assert client.transport.reads


def test_a_websocket_that_is_declined_gets_its_answer_and_an_end(connect: Callable[..., Client]) -> None:
    client = connect(answer_at_once=False)
    client.send(get("/ws/q", WEBSOCKET) + get("/2"))
    client.answer()
    assert client.got == b"</ws/q>"
    assert client.transport.closed
    client.send(get("/3"))
    assert len(client.app.requests) == 1


def test_a_websocket_client_that_sends_too_much_before_it_is_accepted_is_dropped() -> None:
    client = Client(App(answer_at_once=False), 1000)
    client.send(get("/ws/q", WEBSOCKET) + b"x" * 70_000)
    assert client.transport.aborted


def test_an_upgrade_to_websocket_with_a_body_is_an_ordinary_request(connect: Callable[..., Client]) -> None:
    fields = WEBSOCKET + "Transfer-Encoding: chunked\r\n"
    client = connect().send(get("/1", fields) + b"1\r\nx\r\n0\r\n\r\n" + get("/2"))
    assert client.got == b"</1></2>"
    assert client.app.requests[0].body == b"x"


# Targets and Host (RFC 9112, 3.2)


@pytest.mark.parametrize(
    ("target", "uri", "host"),
    [
        ("http://b:80/x?y", "/x?y", "b:80"),
        ("HTTPS://[::1]:8888/", "/", "[::1]:8888"),
        ("http://b", "/", "b"),
        ("http://b?x=/y", "/?x=/y", "b"),
        ("//b/c", "//b/c", "a"),
        ("/http://b/", "/http://b/", "a"),
    ],
)
def test_an_absolute_target_names_the_host_and_the_path(
    connect: Callable[..., Client], target: str, uri: str, host: str
) -> None:
    (request,) = connect().send(get(target)).app.requests
    assert (request.uri, request.headers["host"], request.host) == (uri, host, host)


def test_options_may_ask_about_the_whole_server(connect: Callable[..., Client]) -> None:
    assert connect().send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").got == b"<*>"


@pytest.mark.parametrize("host", ["", "a.b", "a:80", "[::1]", "[::1]:8888", "a_b.example", "127.0.0.1:1"])
def test_a_proper_host_is_taken(connect: Callable[..., Client], host: str) -> None:
    assert connect().send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).got == b"</>"


# Refusals: one answer, the connection is closed, and nothing that follows is read as a request


def refused(status: int, *requests: tuple[str, bytes]) -> list[Any]:
    return [pytest.param(status, request, id=f"{status} {name}") for name, request in requests]


def headed(*fields: bytes, line: bytes = b"POST / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([line, host, *fields, b"", b""])


CODED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"

REFUSED = [
    *refused(
        400,
        ("length and coding", headed(b"Content-Length: 3", CHUNKED) + b"0\r\n\r\n"),
        ("coding and length", headed(CHUNKED, b"Content-Length: 3") + b"0\r\n\r\n"),
        ("two lengths", headed(b"Content-Length: 3", b"Content-Length: 4") + b"abc"),
        ("the same length twice", headed(b"Content-Length: 3", b"Content-Length: 3") + b"abc"),
        ("a list of lengths", headed(b"Content-Length: 3, 3") + b"abc"),
        ("length +3", headed(b"Content-Length: +3") + b"abc"),
        ("length -1", headed(b"Content-Length: -1")),
        ("length 0x3", headed(b"Content-Length: 0x3") + b"abc"),
        ("length 1_0", headed(b"Content-Length: 1_0") + b"abc"),
        ("length 3 3", headed(b"Content-Length: 3 3") + b"abc"),
        ("an empty length", headed(b"Content-Length:")),
        ("a length in Arabic digits", headed("Content-Length: ٣".encode()) + b"abc"),
        ("a length beyond 64 bits", headed(b"Content-Length: 99999999999999999999999")),
        ("an unknown coding", headed(b"Transfer-Encoding: gzip")),
        ("an unknown coding, then chunked", headed(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
        ("chunked, then another", headed(b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n"),
        ("chunked twice", headed(CHUNKED, CHUNKED) + b"0\r\n\r\n"),
        ("xchunked", headed(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n"),
        ("an empty coding", headed(b"Transfer-Encoding:") + b"0\r\n\r\n"),
        ("a coding after VT", headed(b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n"),
        ("a coding in HTTP/1.0", headed(CHUNKED, line=b"POST / HTTP/1.0") + b"0\r\n\r\n"),
        ("a bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
        ("a bare LF after a header", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
        ("a bare LF at the end of the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
        ("a bare CR after the request line", b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
        ("a bare CR in a value", headed(b"X: a\rb")),
        ("a bare CR at the end of the head", b"GET / HTTP/1.1\r\nHost: a\r\n\rX"),
        ("NUL in a value", headed(b"X: a\0b")),
        ("NUL in a name", headed(b"X\0: a")),
        ("NUL in the path", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("NUL first", b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("DEL in a value", headed(b"X: \x7f")),
        ("a blank before the colon", headed(b"Content-Length : 3") + b"abc"),
        ("a folded header", headed(b"X: a", b" b")),
        ("a folded header with a tab", headed(b"X: a", b"\tb")),
        ("a fold before the first header", headed(host=b" Host: a")),
        ("a header without a name", headed(b": x")),
        ("a header without a colon", headed(b"Content-Length 3")),
        ("no Host", b"GET / HTTP/1.1\r\nX: y\r\n\r\n"),
        ("two Hosts", headed(b"Host: a")),
        ("a Host with a path", headed(host=b"Host: a/b")),
        ("a Host with a user", headed(host=b"Host: u@a")),
        ("two hosts in one Host", headed(host=b"Host: a, b")),
        ("a Host with a letter beyond ASCII", headed(host=b"Host: \xe9")),
        ("a Host with an odd port", headed(host=b"Host: a:b")),
        ("an absolute target with a user", get("http://u@a/")),
        ("an absolute target for which Host is wrong", headed(line=b"GET http://a/ HTTP/1.1", host=b"Host: u@a")),
        ("another scheme", get("ftp://a/")),
        ("a fragment", get("/a#b")),
        ("a target that is a name", get("name")),
        ("the whole server for a GET", get("*")),
        ("bytes beyond ASCII in the path", get("/q/\xe9")),
        ("a tab in the request line", b"GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a blank after the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        ("a version in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n"),
        ("HTTP/1.2", get("/", version="1.2")),
        ("HTTP/2 with prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("two passwords", headed(b"Authorization: Basic eDp5", b"Authorization: Basic ejp6")),
        ("two types", headed(b"Content-Type: a/b", b"Content-Type: c/d")),
        ("a chunk longer than its size", CODED + b"3\r\nabcd\r\n0\r\n\r\n"),
        ("a chunk size and a bare LF", CODED + b"3\nabc\r\n0\r\n\r\n"),
        ("a chunk's end and a bare LF", CODED + b"3\r\nabc\n0\r\n\r\n"),
        ("the last chunk and a bare LF", CODED + b"0\r\n\n"),
        ("a chunk size and a bare CR", CODED + b"3\rXabc\r\n"),
        ("a chunk size and a blank", CODED + b"3 \r\nabc\r\n"),
        ("a blank and a chunk size", CODED + b" 3\r\nabc\r\n"),
        ("chunk size +3", CODED + b"+3\r\nabc\r\n"),
        ("chunk size 0x3", CODED + b"0x3\r\nabc\r\n"),
        ("chunk size -3", CODED + b"-3\r\nabc\r\n"),
        ("no chunk size", CODED + b"\r\nabc\r\n"),
        ("a chunk size beyond 64 bits", CODED + b"fffffffffffffffff\r\nabc\r\n"),
        ("a bare LF in a chunk extension", CODED + b"3;a\nabc\r\n"),
        ("a bare CR in a chunk extension", CODED + b"3;a\rb\r\nabc\r\n"),
        ("NUL in a chunk extension", CODED + b"3;a\0\r\nabc\r\n"),
        ("a length among the trailers", CODED + b"0\r\nContent-Length: 5\r\n\r\n"),
    ),
    *refused(
        501,
        ("an unknown method", b"FROB / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a method in lower case", b"get / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    *refused(505, ("HTTP/2.0", get("/", version="2.0")), ("HTTP/0.9", b"GET /\r\n\r\n")),
    *refused(
        413,
        ("a body too long", post("/", b"x" * 1001)),
        ("a body too long, not yet sent", headed(b"Content-Length: 1001")),
        ("a chunked body too long", chunked("/", b"x" * 500, b"x" * 501)),
        ("one chunk too long", chunked("/", b"x" * 1001)),
    ),
    *refused(
        414,
        ("a URL too long", get("/" + "x" * 500)),
        ("a URL without end", b"GET /" + b"x" * 5000),
    ),
    *refused(
        431,
        ("headers too long", get("/", "".join(f"X-{n}: {'y' * 300}\r\n" for n in range(4)))),
        ("too many fields", get("/", "X: y\r\n" * 20)),
        ("a header without end", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 9000),
        ("a header's name without end", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"y" * 9000),
        ("blanks without end", b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b" " * 9000),
        ("a trailer without end", CODED + b"1\r\nx\r\n0\r\nX: " + b"y" * 9000),
        ("trailers too long", CODED + b"0\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 40),
        ("a chunk extension without end", CODED + b"1;" + b"y" * 9000),
    ),
]

SMALL = {"request_line_bytes": 500, "header_bytes": 1000, "header_fields": 20, "body_bytes": 1000}


@pytest.mark.parametrize(("status", "data"), REFUSED)
def test_it_is_refused_the_connection_is_closed_and_nothing_more_is_read(
    connect: Callable[..., Client], status: int, data: bytes
) -> None:
    client = connect(**SMALL).send(data + get("/smuggled"))
    assert client.got == b"[%d]" % status
    assert client.transport.half_closed, "a full close could be a reset, in which the answer is lost"
    client.send(get("/later"))
    assert client.app.requests == []
    assert client.got == b"[%d]" % status


@pytest.mark.parametrize(("status", "data"), REFUSED)
def test_a_refusal_waits_for_the_answers_to_the_requests_before_it(
    connect: Callable[..., Client], status: int, data: bytes
) -> None:
    client = connect(answer_at_once=False, **SMALL).send(get("/1") + post("/2", b"x") + data)
    assert client.got == b""
    client.answer()
    client.answer()
    assert client.got.startswith(b"</1></2>[")
    assert len(client.app.requests) == 2
    assert client.transport.half_closed


@pytest.mark.parametrize(
    "data",
    [
        get("/" + "x" * 499),
        get("/", "".join(f"{n:04}: {'y' * 92}\r\n" for n in range(9)) + f"Last: {'y' * 82}\r\n"),
        get("/", "".join(f"X{n}: y\r\n" for n in range(19))),
        post("/", b"x" * 1000),
        chunked("/", b"x" * 999, b"x"),
    ],
    ids=["URL", "headers", "fields", "body", "chunked body"],
)
def test_what_is_just_within_the_limits_is_taken(connect: Callable[..., Client], data: bytes) -> None:
    client = connect(**SMALL).send(data + get("/2"))
    assert [request.uri for request in client.app.requests][1:] == ["/2"]


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        CODED + b"0\r\nX: ",
        CODED + b"1;",
    ],
)
def test_what_never_ends_costs_no_memory(begin: bytes) -> None:
    client = Client(App())
    client.send(begin)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(200):
            client.send(b"y" * 65536)
        assert client.transport.half_closed
        assert tracemalloc.get_traced_memory()[1] < 600_000
    finally:
        tracemalloc.stop()


def test_a_method_known_to_the_parser_only_is_refused_and_the_client_may_take_two_seconds_to_read_that() -> None:
    client = Client(App()).send(b"LOCK / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.got == b"[501]"
    client.app.clock.advance(1.9)
    client.app.close_overdue()
    assert not client.transport.aborted
    client.app.clock.advance(0.2)
    client.app.close_overdue()
    assert client.transport.aborted


# Time


@pytest.mark.parametrize("begun", [b"G", get("/")[:-1], post("/", b"xy")[:-1], CODED + b"1\r\n"])
def test_a_request_that_takes_too_long_to_arrive_gets_408_however_often_a_byte_comes(begun: bytes) -> None:
    client = Client(App(request_seconds=30), 1)
    for byte in range(len(begun)):
        client.send(begun[byte : byte + 1])
        client.app.clock.advance(29 / len(begun))
        client.app.close_overdue()
    assert client.got == b""
    client.app.clock.advance(1.1)
    client.app.close_overdue()
    assert client.got == b"[408]"
    assert client.transport.half_closed


def test_the_next_request_has_its_own_time_which_begins_when_its_turn_comes() -> None:
    client = Client(App(request_seconds=30, answer_at_once=False))
    client.send(get("/1") + b"GET /2")
    client.app.clock.advance(1000)
    client.app.close_overdue()
    assert not client.transport.closed
    client.answer()
    client.app.clock.advance(29)
    client.app.close_overdue()
    assert client.got == b"</1>"
    client.app.clock.advance(2)
    client.app.close_overdue()
    assert client.got == b"</1>[408]"


def test_a_client_that_never_says_anything_is_hung_up_on_without_a_word() -> None:
    client = Client(App(request_seconds=30))
    client.send(b"\r\n" * 10)
    client.app.clock.advance(31)
    client.app.close_overdue()
    assert client.got == b""
    assert client.transport.closed


def test_an_idle_connection_is_closed_after_its_time() -> None:
    client = Client(App(idle_seconds=75))
    client.app.clock.advance(20)
    client.send(get("/1"))
    client.app.clock.advance(75)
    client.app.close_overdue()
    assert not client.transport.closed
    client.send(get("/2"))
    client.app.clock.advance(75)
    client.app.close_overdue()
    assert not client.transport.closed
    client.app.clock.advance(0.1)
    client.app.close_overdue()
    assert client.transport.closed
    assert client.got == b"</1></2>"


def test_a_closed_connection_whose_client_does_not_go_is_cut() -> None:
    client = Client(App(idle_seconds=75)).send(get("/1", "Connection: close\r\n"))
    assert client.transport.closed
    client.app.clock.advance(76)
    client.app.close_overdue()
    assert client.transport.aborted


def test_a_request_that_is_being_answered_has_all_the_time_it_needs() -> None:
    client = Client(App(answer_at_once=False)).send(get("/slow"))
    client.app.clock.advance(10_000)
    client.app.close_overdue()
    client.answer()
    assert client.got == b"</slow>"
    assert not client.transport.closed


# How many connections


def test_one_connection_too_many_gets_503_and_takes_nobodys_place() -> None:
    app = App(connections=2)
    first, _second = Client(app), Client(app)
    third = Client(app).send(get("/"))
    assert third.got == b"[503]"
    assert third.transport.half_closed
    first.leave()
    assert Client(app).send(get("/")).got == b"</>"
    assert Client(app).send(get("/")).got == b"[503]"


def test_one_address_can_not_take_all_connections() -> None:
    app = App(connections=10, connections_per_address=1)
    first = Client(app)
    assert Client(app).got == b"[503]"
    assert Client(app, transport=Transport("192.0.2.2")).send(get("/")).got == b"</>"
    first.leave()
    assert Client(app).send(get("/")).got == b"</>"


def test_who_has_gone_is_forgotten() -> None:
    app = App(connections=1)
    clients = [Client(app) for _ in range(3)]
    for client in clients:
        client.leave()
    assert not app.connections
    assert not app._admitted
    assert app._admitted_total == 0


# Clients that go, streams, and the server's own end


def test_the_handler_hears_once_that_the_client_has_gone_and_only_while_it_is_at_work() -> None:
    client = Client(App(answer_at_once=False))
    client.send(get("/1") + get("/2"))
    client.answer()
    client.leave()
    first, second = client.app.handlers
    assert (first.gone, second.gone) == (0, 1)
    client.answer()  # the coroutine runs on, and finds nobody
    assert len(client.app.handlers) == 2


class Consumer(Handler):
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def stopProducing(self) -> None: ...


def test_a_stream_has_the_connection_to_itself_and_what_the_client_sends_is_ignored(
    connect: Callable[..., Client],
) -> None:
    client = connect(answer_at_once=False)
    client.send(get("/stream") + get("/2") + b"GE")
    (request,) = client.app.requests
    consumer = Consumer(request)
    request.connection.write(b"<head>")
    request.connection.stream(consumer)
    assert client.transport.producer is consumer
    assert client.transport.reads, "else nobody would see the client go"
    client.send(get("/3") + b"\0")
    client.app.clock.advance(100_000)
    client.app.close_overdue()
    assert not client.transport.closed
    assert len(client.app.requests) == 1
    request.connection.end_stream(b"<end>")
    assert client.got == b"<head><end>"
    assert client.transport.disconnecting


def test_the_consumer_of_a_stream_hears_that_its_client_has_gone() -> None:
    client = Client(App(answer_at_once=False)).send(get("/stream"))
    (handler,) = client.app.handlers
    consumer = Consumer(handler.request)
    handler.request.connection.stream(consumer)
    client.leave()
    assert (consumer.gone, handler.gone) == (1, 0)


def test_at_the_end_idle_clients_are_closed_and_the_others_get_their_answer_first() -> None:
    app = App()
    idle = Client(app).send(get("/before"))
    app.answer_at_once = False
    busy, sending = Client(app).send(get("/busy")), Client(app).send(post("/late", b"x")[:-1])
    app.answer_at_once = True
    drained: list[str] = []

    async def drain() -> None:
        await app.drain(10)
        drained.append("in order")

    ensureDeferred(drain())
    assert idle.transport.closed
    assert not busy.transport.closed and not sending.transport.closed
    App.answer(app.requests[1])
    sending.send(b"x")
    for client, answer in ((busy, b"</busy>"), (sending, b"</late>")):
        assert client.got == answer
        assert client.transport.closed
        client.leave()
    assert drained == []
    idle.leave()
    assert drained == ["in order"]
    assert not app.clock.getDelayedCalls()


def test_at_the_end_a_client_that_has_just_come_has_a_moment_for_its_request() -> None:
    app = App()
    asks, silent = Client(app), Client(app)
    ensureDeferred(app.drain(10))
    assert not asks.transport.closed and not silent.transport.closed
    asks.send(get("/just"))
    assert asks.got == b"</just>"
    assert asks.transport.closed
    app.clock.advance(2)
    app.close_overdue()
    assert silent.transport.closed
    assert silent.got == b""


def test_at_the_end_a_client_that_takes_too_long_is_cut() -> None:
    app = App(answer_at_once=False)
    client = Client(app).send(get("/"))
    ensureDeferred(app.drain(10))
    app.clock.advance(9)
    assert not client.transport.closed
    app.clock.advance(2)
    assert client.transport.aborted


def test_an_answer_that_can_not_be_completed_is_cut() -> None:
    client = Client(App(answer_at_once=False)).send(get("/"))
    client.app.requests[0].connection.abort()
    assert client.transport.aborted


class TlsTransport(Transport):
    def getPeerCertificate(self) -> None: ...


def test_over_tls_a_refusal_ends_as_tls_wants_it() -> None:
    client = Client(App(), transport=TlsTransport()).send(get("/#"))
    assert client.connection.secure
    assert client.transport.disconnecting and not client.transport.half_closed


def test_tls_clients_agree_on_http_1_1() -> None:
    assert App().acceptableProtocols() == [b"http/1.1"]


# Forms


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (b"007", b"007"),
        (b"+x+", b" x "),
        (b"%20x%20", b" x "),
        (b"%2B", b"+"),
        (b"%00%0a%0D", b"\0\n\r"),
        (b"%ff\xfe", b"\xff\xfe"),
        ("😀%F0%9F%98%80".encode(), "😀😀".encode()),
        (b"100%", b"100%"),
        (b"%zz%4", b"%zz%4"),
        (b"%%41", b"%A"),
        (b"a=b==", b"a=b=="),
        (b"%3D%25=\r\n_", b"=%=\r\n_"),
        (b"%\r\n", b"%\r\n"),
        (b"", b""),
    ],
)
def test_a_form_value_comes_byte_for_byte(sent: bytes, value: bytes) -> None:
    assert form(b"a=1&value=%b&b" % sent).arguments == {"a": [b"1"], "value": [value], "b": [b""]}


SIGNS = [b"%", b"=", b"%3D", b"%3d", b"%25", b"4", b"F", b"g", b"\n", b"\r", b" ", b"_", b"\xff", b"\0"]


@given(st.lists(st.sampled_from(SIGNS)).map(b"".join))
def test_percent_decoding_is_that_of_the_standard_library(encoded: bytes) -> None:
    assert _unquote(encoded) == unquote_to_bytes(encoded)


@pytest.mark.parametrize("sign", [b"%", b"%a", b"%\n", b"%="])
def test_signs_that_begin_no_escape_cost_about_their_size(sign: bytes) -> None:
    encoded = sign * (1_000_000 // len(sign))
    tracemalloc.start()
    try:
        assert _unquote(encoded) == encoded
        assert tracemalloc.get_traced_memory()[1] < 8 * len(encoded)
    finally:
        tracemalloc.stop()


def test_what_the_query_alone_says_is_read_without_the_form() -> None:
    request = form(b"v=form", "multipart/form-data", "?v=1&v=%C3%BC&w=%FF")  # a form without a boundary is refused
    assert (request.query_text("v"), request.query_text("x")) == ("ü", None)
    with pytest.raises(InvalidInput, match="'w' is not valid UTF-8"):
        request.query_text("w")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_that_only_asks_has_no_form(method: str) -> None:
    sent = post("/?v=1", b"v=2", "Content-Type: application/x-www-form-urlencoded\r\n")
    client = Client(App()).send(sent.replace(b"POST", method.encode()))
    assert client.app.requests[0].arguments == {"v": [b"1"]}


def test_query_and_form_are_read_in_their_order_and_an_unnamed_pair_is_nothing() -> None:
    request = form(b"v=2&&v=3&=&=x&n%C3%A4me=1", query="?v=1&")
    assert request.arguments == {"v": [b"1", b"2", b"3"], "": [b"x"], "näme": [b"1"]}


def test_a_body_of_another_type_is_no_form() -> None:
    assert form(b'{"v=1":1}', "application/json; charset=utf-8").arguments == {}


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=B"])
def test_a_thousand_fields_are_taken_and_one_more_is_not(kind: str) -> None:
    def body(count: int) -> bytes:
        if "B" in kind:
            return b'--B\r\nContent-Disposition: form-data; name="v"\r\n\r\n\r\n' * count + b"--B--"
        return b"&".join([b"v="] * count)

    assert len(form(body(ARGUMENTS_MAX), kind).arguments["v"]) == ARGUMENTS_MAX
    with pytest.raises(WireError) as refusal:
        _ = form(body(ARGUMENTS_MAX + 1), kind).arguments
    assert refusal.value.status == 400


MULTIPART = (
    b"preamble\r\n--B \t\r\n"
    b'content-disposition: form-data; name="value"\r\n\r\n'
    b" 007\r\n--b\r\n--\xff\0--B\r\n"
    b"\r\n--B\r\n"
    b'X: y\r\nContent-Disposition: form-data; filename="a; name=\\"b\\""; name="f;\\"\xc3\xa9"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n"
    b"\xff\xd8\r\n"
    b"\r\n--B\r\n"
    b"Content-Disposition: form-data; name=empty\r\n\r\n"
    b"\r\n--B--\r\nepilogue\r\n--B\r\n"
)


def test_a_part_of_a_form_has_a_header_of_eight_kilobytes_at_most() -> None:
    def body(header_bytes: int) -> bytes:
        header = b"Content-Disposition: form-data; name=v; x="
        return b"--B\r\n%b\r\n\r\n1\r\n--B--" % header.ljust(header_bytes, b"x")

    kind = "multipart/form-data; boundary=B"
    assert form(body(PART_HEADER_BYTES_MAX), kind).arguments == {"v": [b"1"]}
    with pytest.raises(WireError, match="8192") as refusal:
        _ = form(body(PART_HEADER_BYTES_MAX + 1), kind).arguments
    assert refusal.value.status == 400


@pytest.mark.parametrize("boundary", ["boundary=B", 'Boundary="B"', "charset=utf-8; boundary=B; x=y"])
def test_a_multipart_form_comes_byte_for_byte(boundary: str) -> None:
    assert form(MULTIPART, f"Multipart/Form-Data; {boundary}").arguments == {
        "value": [b" 007\r\n--b\r\n--\xff\0--B\r\n"],
        'f;"é': [b"\xff\xd8\r\n"],
        "empty": [b""],
    }


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", MULTIPART),
        ("multipart/form-data; boundary=", MULTIPART),
        ("multipart/form-data; boundary=C", MULTIPART),
        ("multipart/form-data; boundary=B", b""),
        ("multipart/form-data; boundary=B", b"--B\r\nContent-Disposition: form-data; name=v\r\n\r\nx"),
        ("multipart/form-data; boundary=B", b"--B\r\nContent-Disposition: form-data; name=v\r\n--B--"),
        ("multipart/form-data; boundary=B", b"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--"),
        ("multipart/form-data; boundary=B", b"--BC\r\nContent-Disposition: form-data; name=v\r\n\r\nx\r\n--B--"),
    ],
    ids=[
        "no boundary",
        "empty boundary",
        "other boundary",
        "empty",
        "no end",
        "no value",
        "no name",
        "longer boundary",
    ],
)
def test_a_broken_multipart_form_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(WireError) as refusal:
        _ = form(body, content_type).arguments
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("accept", "wants"),
    [("text/html", True), ("a/b, Text/HTML;q=0.9", True), ("*/*", False), ("text/*", False), ("", False)],
)
def test_a_client_wants_a_type_that_it_names(accept: str, wants: bool) -> None:
    client = Client(App()).send(get("/", f"Accept: {accept}\r\n"))
    assert client.app.requests[0].accepts("text/html") is wants


# Any split of any valid stream parses the same

tokens = st.text("abcXYZ-09", min_size=1, max_size=8)
values = st.binary(max_size=20).map(lambda raw: bytes(b for b in raw if b == 9 or (b > 31 and b != 127)))
bodies = st.binary(max_size=60)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A valid stream of requests: heads, lengths, chunks, trailers, upgrades and expectations."""
    stream = b""
    for _ in range(draw(st.integers(1, 6))):
        stream += draw(st.sampled_from([b"", b"\r\n"]))
        method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"]))
        target = b"/" + draw(tokens).encode() + draw(st.sampled_from([b"", b"?a=%20&b", b"//%2F+"]))
        target = draw(st.sampled_from([b"", b"http://b:1"])) + target
        stream += b"%b %b HTTP/1.1\r\nHost: a\r\n" % (method, target)
        for name, value in draw(st.lists(st.tuples(tokens, values), max_size=4)):
            stream += b"X%b:%b%b\r\n" % (name.encode(), draw(st.sampled_from([b"", b" ", b"\t "])), value)
        stream += draw(st.sampled_from([b"", b"", EXPECT.encode(), b"Connection: Upgrade\r\nUpgrade: h2c\r\n"]))
        framing = draw(st.sampled_from(["none", "length", "chunks"]))
        if framing == "none":
            stream += b"\r\n"
        elif framing == "length":
            body = draw(bodies)
            stream += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        else:
            stream += b"Transfer-Encoding: chunked\r\n\r\n"
            for chunk in draw(st.lists(bodies.filter(bool), max_size=4)):
                stream += b"%x%b\r\n%b\r\n" % (len(chunk), draw(st.sampled_from([b"", b";a", b';a="b"'])), chunk)
            stream += b"0\r\n" + draw(st.sampled_from([b"", b"X-Trailer: 1\r\nY: 2\r\n"])) + b"\r\n"
    return stream


def parsed(pieces: list[bytes], **limits: int) -> list[tuple[Any, ...]]:
    client = Client(App(**limits))
    for piece in pieces:
        client.send(piece)
    assert b"[" not in client.got, client.got
    assert not client.transport.closed
    answers = client.got.replace(GO_ON, b"")  # a client that has sent its body already need not be told
    assert answers == b"".join(b"<%b>" % request.uri.encode() for request in client.app.requests)
    return [(r.method, r.uri, r.host, sorted(r.headers.items()), r.body) for r in client.app.requests]


@settings(max_examples=300, deadline=None)
@given(streams(), st.data())
def test_any_split_of_any_valid_stream_parses_the_same(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=30)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = parsed([stream])
    assert whole
    assert parsed(pieces, requests_waiting=data.draw(st.integers(1, 3))) == whole
    assert parsed([stream[i : i + 1] for i in range(len(stream))]) == whole
