"""What one client, or many, can make the server hold and do."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from tests.in_memory import App, Client, Transport, get, post

MIB = 1 << 20


# Fairness: one reactor turn does a bounded part of a client's requests


def test_thousands_of_pipelined_requests_do_not_delay_another_client() -> None:
    app = App()
    attackers = [Client(app) for _ in range(30)]
    for attacker in attackers:
        attacker.connection.dataReceived(get("/flood") * 1000)
    other = Client(app)
    other.connection.dataReceived(get("/healthz"))
    while not other.got:
        app.turn()
    assert other.got == b"</healthz>"
    assert all(len(attacker.got) < len(b"</flood>") * 500 for attacker in attackers)
    app.settle()
    assert all(attacker.got == b"</flood>" * 1000 for attacker in attackers)
    assert all(attacker.transport.reads for attacker in attackers)


def test_pipelining_clients_take_turns() -> None:
    app = App()
    clients = [Client(app), Client(app)]
    for client in clients:
        client.connection.dataReceived(get("/") * 200)
    while len(app.requests) < 400:
        counts = [len(client.got) // len(b"</>") for client in clients]
        assert abs(counts[0] - counts[1]) <= 4
        app.turn()
        assert all(len(client.got) // len(b"</>") <= count + 4 for client, count in zip(clients, counts, strict=True))


def test_a_short_request_is_answered_before_long_inputs_that_wait() -> None:
    app = App()
    app.turns.spent = 1.0
    long = [Client(app, transport=Transport(f"192.0.2.{number}")) for number in range(10)]
    for client in long:
        client.connection.dataReceived(get("/long?" + "x" * 5000))
    short = Client(app)
    short.connection.dataReceived(get("/short"))
    app.settle()
    assert app.requests[0].path == "/short"
    assert len(app.requests) == 11


def test_a_full_turn_leaves_input_to_the_next_one() -> None:
    app = App()
    app.turns.spent = 1.0
    client = Client(app)
    client.connection.dataReceived(get("/1"))
    client.connection.dataReceived(get("/2"))
    assert app.requests == []
    assert not client.transport.reads
    app.settle()
    assert client.got == b"</1></2>"
    assert client.transport.reads


def test_a_client_that_leaves_while_it_waits_for_its_turn_is_forgotten() -> None:
    app = App()
    app.turns.spent = 1.0
    client = Client(app)
    client.connection.dataReceived(get("/1"))
    client.leave()
    app.settle()
    assert app.requests == []


# Bytes of requests


def test_a_get_holds_no_body() -> None:
    client = Client(App(answer_at_once=False))
    client.send(post("/q/x?wait=60", b"x" * 5 * MIB).replace(b"POST", b"GET"))
    assert client.app.requests[0].body == b""
    assert client.app.received.used == 0


def test_bytes_of_requests_count_from_their_arrival_to_the_response() -> None:
    client = Client(App(answer_at_once=False))
    body = post("/", b"x" * MIB)
    client.send(body[: MIB // 2])
    assert MIB // 2 - 20_000 < client.app.received.used <= MIB // 2
    client.send(body[MIB // 2 :])
    assert client.app.received.used == MIB - 16_384
    client.answer()
    assert client.app.received.used == 0


@pytest.mark.parametrize("ends", ["disconnects", "streams", "aborts"])
def test_bytes_of_requests_no_longer_count_when_the_connection_has_closed(ends: str) -> None:
    client = Client(App(answer_at_once=False))
    client.send(post("/", b"x" * MIB))
    assert client.app.received.used > 0
    if ends == "streams":
        client.connection.stream(None)
    else:
        client.leave()
    assert client.app.received.used == 0


def test_one_address_with_too_many_unfinished_bodies_gets_503_and_others_do_not() -> None:
    app = App(answer_at_once=False, received_bytes_per_address=2 * MIB)
    unfinished = [Client(app).send(post("/", b"x" * MIB)[:-1]) for _ in range(2)]
    assert [client.got for client in unfinished] == [b"", b""]
    refused = Client(app).send(post("/", b"x" * MIB)[:-1])
    assert refused.got == b"[503]"
    assert refused.transport.half_closed
    other = Client(app, transport=Transport("192.0.2.2")).send(post("/", b"x" * MIB)[:-1])
    assert other.got == b""
    unfinished[0].leave()
    assert Client(app).send(post("/", b"x" * MIB)[:-1]).got == b""


def test_too_many_unfinished_bodies_in_total_get_503() -> None:
    app = App(answer_at_once=False, received_bytes=2 * MIB)
    for number in range(2):
        Client(app, transport=Transport(f"192.0.2.{number}")).send(post("/", b"x" * MIB)[:-1])
    refused = Client(app, transport=Transport("192.0.2.9")).send(post("/", b"x" * MIB)[:-1])
    assert refused.got == b"[503]"
    assert app.received.used <= 2 * MIB


# Bytes of responses


class FullTransport(Transport):
    """A transport whose socket takes nothing until the test says so. It has the buffer of Twisted's."""

    def __init__(self, host: str = "192.0.2.1") -> None:
        super().__init__(host)
        self.dataBuffer = b""
        self.offset = self._tempDataLen = 0

    def write(self, data: bytes) -> None:
        super().write(data)
        self.dataBuffer += data
        if len(self.dataBuffer) > 65536 and self.producer is not None:
            self.producer.pauseProducing()

    def take(self, count: int) -> None:
        self.dataBuffer = self.dataBuffer[count:]
        if not self.dataBuffer and self.producer is not None:
            self.producer.resumeProducing()


def unread(app: App, size: int = MIB, host: str = "192.0.2.1") -> Client:
    """A client that reads nothing of a response of this size."""
    client = Client(app, transport=FullTransport(host)).send(get("/"))
    if not client.transport.closed:
        app.requests[-1].connection.finished(b"x" * size, True)
    return client


def test_a_client_that_reads_nothing_for_thirty_seconds_is_disconnected() -> None:
    app = App(answer_at_once=False)
    client = unread(app)
    for _ in range(4):
        app.clock.advance(29)
        app.close_overdue()
        assert not client.transport.aborted
        client.transport.take(1)
        app.close_overdue()
    app.clock.advance(31)
    app.close_overdue()
    assert client.transport.aborted


def long_response(app: App, *rest: bytes) -> Client:
    """A client that has read nothing of a response in pieces, and has sent another request."""
    client = Client(app, transport=FullTransport()).send(get("/1"))
    app.requests[0].connection.finished(b"<head>", True, rest)
    return client.send(get("/2"))


def test_the_rest_of_a_long_response_follows_at_the_pace_of_the_client() -> None:
    app = App(answer_at_once=False)
    pieces = [bytes([n]) * MIB for n in range(5)]
    client = long_response(app, *pieces)
    while client.transport.dataBuffer:
        assert len(client.transport.dataBuffer) <= MIB + 6
        assert len(app.requests) == 1
        client.transport.take(MIB + 6)
    assert client.got == b"<head>" + b"".join(pieces)
    app.settle()
    assert len(app.requests) == 2


def test_the_rest_of_a_long_response_is_sent_before_the_connection_is_closed() -> None:
    app = App(answer_at_once=False)
    client = Client(app, transport=FullTransport()).send(get("/1"))
    app.requests[0].connection.finished(b"<head>", False, [b"a" * MIB, b"b"])
    assert not client.transport.closed
    client.transport.take(MIB + 6)
    assert client.transport.dataBuffer == b"b"
    assert client.transport.closed


def test_the_rest_of_a_long_response_counts_as_unread() -> None:
    app = App(answer_at_once=False, unread_bytes_per_address=2 * MIB)
    client = long_response(app, *[b"v" * MIB] * 3)
    assert Client(app).send(get("/3")).got == b"[503]"
    client.leave()
    app.answer_at_once = True
    assert Client(app).send(get("/4")).got == b"</4>"


def test_a_client_that_reads_a_long_response_too_slowly_is_disconnected() -> None:
    app = App(answer_at_once=False, idle_seconds=75, bytes_per_second=16_384, unread_seconds=30)
    client = long_response(app, *[b"v" * MIB] * 10)
    for _ in range(26):  # 640 s for 10 MiB, and 75
        app.clock.advance(29)
        client.transport.take(1)
        app.close_overdue()
    assert client.transport.closed
    assert len(app.requests) == 1


def test_a_client_that_has_read_everything_is_no_longer_limited() -> None:
    app = App(answer_at_once=False)
    client = unread(app)
    client.transport.take(MIB)
    app.clock.advance(60)
    app.close_overdue()
    assert not client.transport.closed
    client.send(get("/2"))
    assert len(app.requests) == 2


def test_an_address_with_too_many_unread_responses_gets_503_before_its_request_runs() -> None:
    app = App(answer_at_once=False, unread_bytes_per_address=3 * MIB // 2)
    first = unread(app)
    app.clock.advance(1)
    second = unread(app)
    assert first.transport.aborted and not second.transport.aborted  # the one that has read nothing for longer
    first.leave()
    app.clock.advance(1)
    third = Client(app).send(get("/3"))
    app.answer_at_once = True
    assert third.got == b""  # with 1 MiB unread there is still some left
    assert Client(app, transport=Transport("192.0.2.2")).send(get("/4")).got == b"</4>"


def test_unread_responses_within_the_limits_stay() -> None:
    app = App(answer_at_once=False)
    clients = [unread(app, host=f"192.0.2.{number % 2}") for number in range(4)]
    app.clock.advance(1)
    app.close_overdue()
    assert not any(client.transport.aborted for client in clients)


def test_a_single_response_may_be_larger_than_the_limit_and_then_others_are_refused() -> None:
    app = App(answer_at_once=False, unread_bytes=MIB)
    large = unread(app, 2 * MIB)
    assert not large.transport.aborted
    refused = Client(app, transport=Transport("192.0.2.2")).send(get("/2"))
    assert refused.got == b"[503]"
    assert len(app.requests) == 1
    large.transport.take(2 * MIB)
    app.answer_at_once = True
    assert Client(app).send(get("/3")).got == b"</3>"


@pytest.mark.parametrize("response", ["none", "unread", "rest", "stream", "upgrade"])
def test_a_closed_connection_leaves_no_reference_cycle(response: str) -> None:
    """The garbage collector runs so rarely that a cycle would hold a large buffer for hours."""
    gc.collect()
    gc.disable()
    try:
        app = App(answer_at_once=False)
        client = Client(app, transport=FullTransport())
        client.send(get("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\n") if response == "upgrade" else get("/"))
        connection: Any = client.connection
        if response == "unread":
            connection.finished(b"x" * MIB, True)
        elif response == "rest":
            connection.finished(b"x" * MIB, True, [b"y" * MIB] * 2)
        elif response == "stream":
            connection.stream(None)
        client.leave()
        app.handlers.clear()
        dead = weakref.ref(client.transport)
        client.connection = connection = None
        client.transport.producer = None
        del client
        assert dead() is None
    finally:
        gc.enable()


# Time


def test_an_upload_has_time_as_long_as_bytes_arrive_fast_enough() -> None:
    app = App(request_seconds=30, bytes_per_second=16_384)
    client = Client(app)
    body = post("/", b"x" * 5_000_000)
    for start in range(0, len(body), 50_000):
        client.send(body[start : start + 50_000])
        app.clock.advance(1)
        app.close_overdue()
    assert client.got == b"</>"


def test_an_upload_that_becomes_too_slow_gets_408() -> None:
    app = App(request_seconds=30, bytes_per_second=16_384)
    client = Client(app).send(post("/", b"x" * 1_000_000)[:163_840])
    app.clock.advance(39)
    for _ in range(20):
        client.send(b"x")
        app.close_overdue()
    assert client.got == b""
    app.clock.advance(2)
    app.close_overdue()
    assert client.got == b"[408]"
