"""A connection: pipelining, 100 Continue, upgrades, deadlines, limits, streams, and its end."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred

from tests.in_memory import CHUNKED_HEAD, EXPECT, GO_ON, App, Client, Handler, Transport, chunked, get, post


def test_pipelined_requests_are_answered_in_order_each_exactly_once(connect: Callable[..., Client]) -> None:
    client = connect(answer_at_once=False)
    client.send(get("/1") + post("/2", b"x") + chunked("/3", b"y") + get("/4"))
    for number in range(1, 5):
        assert [request.uri for request in client.app.requests] == [f"/{n}" for n in range(1, number + 1)]
        client.answer()
    assert client.got == b"</1></2></3></4>"
    assert not client.transport.closed


def test_reading_stops_while_the_next_request_already_waits(connect: Callable[..., Client]) -> None:
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


def test_bytes_that_arrive_while_reading_is_paused_are_parsed_later() -> None:
    client = Client(App(answer_at_once=False, requests_waiting=1))
    client.send(get("/1") + get("/2?" + "x" * 5000) + get("/3"))
    client.send(get("/4"))
    for _ in range(4):
        client.answer()
    assert [request.path for request in client.app.requests] == ["/1", "/2", "/3", "/4"]


def test_a_client_that_reads_no_responses_gets_no_more_of_them(connect: Callable[..., Client]) -> None:
    client = connect()
    client.connection.pauseProducing()  # as the transport does when it is full
    client.send(get("/1") + get("/2"))
    assert client.app.requests == []
    assert not client.transport.reads
    client.connection.resumeProducing()
    client.app.settle()
    assert client.got == b"</1></2>"
    assert client.transport.reads


def test_a_client_that_never_reads_its_response_is_disconnected() -> None:
    client = Client(App(idle_seconds=75))
    client.send(get("/1"))
    client.connection.pauseProducing()
    client.send(get("/2")[:-1])
    for _ in range(2):
        client.app.clock.advance(80)
        client.app.close_overdue()
    assert client.transport.aborted
    assert client.got == b"</1>"


def test_a_slow_client_has_time_to_read_a_large_response() -> None:
    client = Client(App(answer_at_once=False, idle_seconds=10))
    client.send(get("/"))
    client.app.requests[0].connection.finished(b"x" * (16384 * 100), True)
    client.app.clock.advance(100)
    client.app.close_overdue()
    assert not client.transport.closed
    client.app.clock.advance(11)
    client.app.close_overdue()
    assert client.transport.closed


def test_an_idle_connection_holds_no_memory_of_its_last_request(step: int) -> None:
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
def test_keep_alive_follows_the_version_and_the_connection_header(
    connect: Callable[..., Client], version: str, connection: str, stays: bool
) -> None:
    fields = f"Connection: {connection}\r\n" if connection else ""
    client = connect().send(get("/1", fields, version) + get("/2", fields, version))
    assert client.got == (b"</1></2>" if stays else b"</1>")
    assert client.transport.closed is not stays


def test_requests_after_connection_close_are_ignored(connect: Callable[..., Client]) -> None:
    client = connect(answer_at_once=False)
    client.send(get("/1", "Connection: close\r\n") + get("/2") + b"\0rubbish")
    client.answer()
    assert client.got == b"</1>"
    assert client.transport.closed
    client.send(get("/3"))
    assert len(client.app.requests) == 1


def test_the_last_response_is_not_lost_when_more_requests_were_sent() -> None:
    client = Client(App(answer_at_once=False))
    client.send(get("/1") + get("/2"))
    client.app.requests[0].connection.finished(b"<last>", False)
    assert client.transport.half_closed and not client.transport.disconnecting  # a full close would be a reset
    assert client.transport.reads
    client.app.clock.advance(80)
    client.app.close_overdue()
    assert client.transport.aborted


# Expect: 100-continue (RFC 9110, 10.1.1)


def test_a_client_that_waits_gets_100_continue(connect: Callable[..., Client]) -> None:
    client = connect()
    head, body = post("/", b"12345", EXPECT)[:-5], b"12345"
    client.send(head)
    assert client.got == GO_ON
    client.send(body)
    assert client.got == GO_ON + b"</>"


def test_100_continue_comes_after_the_responses_before_it(connect: Callable[..., Client]) -> None:
    client = connect(answer_at_once=False)
    client.send(get("/1") + chunked("/2", end=b"", fields="expect: 100-Continue\r\n"))
    assert client.got == b""
    client.answer()
    assert client.got == b"</1>" + GO_ON
    client.send(b"1\r\nx\r\n0\r\n\r\n")
    client.answer()
    assert client.got == b"</1>" + GO_ON + b"</2>"


def test_no_100_continue_if_the_body_has_arrived_or_there_is_none() -> None:
    client = Client(App()).send(post("/1", b"x", EXPECT) + get("/2", EXPECT))
    assert client.got == b"</1></2>"


def test_an_http_1_0_client_never_gets_100_continue(connect: Callable[..., Client]) -> None:
    client = connect(answer_at_once=False)
    client.send(get("/1", "Connection: keep-alive\r\n", "1.0"))
    client.send(b"POST /2 HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    client.answer()
    client.send(b"x")
    client.answer()
    assert client.got == b"</1></2>"


def test_a_body_that_is_too_long_gets_413_instead_of_100_continue(connect: Callable[..., Client]) -> None:
    assert connect(body_bytes=4).send(post("/", b"12345", EXPECT)).got == b"[413]"


def test_an_unknown_expectation_gets_417(connect: Callable[..., Client]) -> None:
    assert connect().send(get("/", "Expect: miracles\r\n") + get("/2")).got == b"[417]"


# Upgrades


@pytest.mark.parametrize("upgrade", ["h2c", "TLS/1.0", "websocket"])
def test_an_upgrade_to_another_protocol_is_ignored(connect: Callable[..., Client], upgrade: str) -> None:
    fields = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: x\r\n"
    client = connect().send(post("/1", b"GET /x", fields) + chunked("/2", b"abc", fields=fields) + get("/3"))
    assert [request.body for request in client.app.requests] == [b"GET /x", b"abc", b""]
    assert client.got == b"</1></2></3>"
    assert not any(request.upgrade for request in client.app.requests)


def test_many_ignored_upgrades_in_one_read_are_all_answered() -> None:
    client = Client(App()).send(get("/", "Connection: Upgrade\r\nUpgrade: h2c\r\n") * 1500)
    assert client.got == b"</>" * 1500


def test_an_ignored_upgrade_gets_100_continue_once(connect: Callable[..., Client]) -> None:
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
def test_a_websocket_gets_the_connection_and_all_its_bytes(connect: Callable[..., Client], before: bytes) -> None:
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


def test_a_declined_websocket_gets_its_response_and_is_closed(connect: Callable[..., Client]) -> None:
    client = connect(answer_at_once=False)
    client.send(get("/ws/q", WEBSOCKET) + get("/2"))
    client.answer()
    assert client.got == b"</ws/q>"
    assert client.transport.closed
    client.send(get("/3"))
    assert len(client.app.requests) == 1


def test_a_websocket_that_sends_too_much_before_it_is_accepted_is_disconnected() -> None:
    client = Client(App(answer_at_once=False), 1000)
    client.send(get("/ws/q", WEBSOCKET) + b"x" * 70_000)
    assert client.transport.aborted


@pytest.mark.parametrize(
    "request_1",
    [
        get("/1", WEBSOCKET + "Transfer-Encoding: chunked\r\n") + b"1\r\nx\r\n0\r\n\r\n",
        get("/1", WEBSOCKET + "Content-Length: 1\r\n") + b"x",
        post("/1", b"", WEBSOCKET),
    ],
    ids=["chunked", "length", "another method"],
)
def test_an_upgrade_to_websocket_with_a_body_is_an_ordinary_request(
    connect: Callable[..., Client], request_1: bytes
) -> None:
    client = connect().send(request_1 + get("/2"))
    assert client.got == b"</1></2>"


# Time


@pytest.mark.parametrize("idle_seconds", [20, 75])
def test_the_time_of_a_request_begins_with_its_first_byte(idle_seconds: float) -> None:
    client = Client(App(request_seconds=30, idle_seconds=idle_seconds)).send(get("/1"))
    client.app.clock.advance(19)
    client.send(b"G")
    client.app.clock.advance(29)
    client.app.close_overdue()
    assert client.got == b"</1>"
    client.app.clock.advance(1.1)
    client.app.close_overdue()
    assert client.got == b"</1>[408]"


@pytest.mark.parametrize("begun", [b"G", get("/")[:-1], post("/", b"xy")[:-1], CHUNKED_HEAD + b"1\r\n"])
def test_a_request_that_arrives_too_slowly_gets_408(begun: bytes) -> None:
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


def test_the_next_requests_time_begins_when_its_turn_comes() -> None:
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


def test_a_client_that_sends_nothing_is_disconnected_without_a_response() -> None:
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


def test_a_client_that_does_not_close_its_side_is_disconnected() -> None:
    client = Client(App(idle_seconds=75)).send(get("/1", "Connection: close\r\n"))
    assert client.transport.closed
    client.app.clock.advance(76)
    client.app.close_overdue()
    assert client.transport.aborted


def test_a_request_that_is_being_answered_has_no_deadline() -> None:
    client = Client(App(answer_at_once=False)).send(get("/slow"))
    client.app.clock.advance(10_000)
    client.app.close_overdue()
    client.answer()
    assert client.got == b"</slow>"
    assert not client.transport.closed


# The number of connections


def test_one_connection_too_many_gets_503_and_is_not_counted() -> None:
    app = App(connections=2)
    first, _second = Client(app), Client(app)
    third = Client(app).send(get("/"))
    assert third.got == b"[503]"
    assert third.transport.half_closed
    third.leave()
    assert Client(app).got == b"[503]"
    first.leave()
    assert Client(app).send(get("/")).got == b"</>"
    assert Client(app).send(get("/")).got == b"[503]"


def test_one_address_cannot_take_all_connections() -> None:
    app = App(connections=10, connections_per_address=1)
    first = Client(app)
    assert Client(app).got == b"[503]"
    assert Client(app, transport=Transport("192.0.2.2")).send(get("/")).got == b"</>"
    first.leave()
    assert Client(app).send(get("/")).got == b"</>"


# Disconnects, streams, draining


def test_only_the_current_handler_is_told_of_a_disconnect_and_once() -> None:
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


def test_input_after_the_start_of_a_stream_is_ignored(
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


def test_the_consumer_of_a_stream_is_told_of_a_disconnect() -> None:
    client = Client(App(answer_at_once=False)).send(get("/stream"))
    (handler,) = client.app.handlers
    consumer = Consumer(handler.request)
    handler.request.connection.stream(consumer)
    client.leave()
    assert (consumer.gone, handler.gone) == (1, 0)


def test_while_draining_idle_clients_are_closed_and_busy_ones_answered_first() -> None:
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


def test_while_draining_a_new_client_has_one_second_for_its_request() -> None:
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


def test_while_draining_a_client_that_takes_too_long_is_disconnected() -> None:
    app = App(answer_at_once=False)
    client = Client(app).send(get("/"))
    ensureDeferred(app.drain(10))
    app.clock.advance(9)
    assert not client.transport.closed
    app.clock.advance(2)
    assert client.transport.aborted


def test_a_response_that_cannot_be_completed_ends_with_a_broken_connection() -> None:
    client = Client(App(answer_at_once=False)).send(get("/"))
    client.app.requests[0].connection.abort()
    assert client.transport.aborted


class TlsTransport(Transport):
    def getPeerCertificate(self) -> None: ...


def test_over_tls_a_refusal_closes_without_a_half_close() -> None:
    client = Client(App(), transport=TlsTransport()).send(get("/#"))
    assert client.connection.secure
    assert client.transport.disconnecting and not client.transport.half_closed


def test_tls_clients_agree_on_http_1_1() -> None:
    assert App().acceptableProtocols() == [b"http/1.1"]
