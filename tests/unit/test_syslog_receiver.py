"""syslogd without sockets: the test turns the clock, and Redis answers when the test says so."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet import address, defer, task
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from restmq.errors import RestMQError, StoreRefused, StoreUnavailable
from restmq.frontends.syslog.receiver import Intake, Sender, TcpReceiver, UdpReceiver, host_of
from restmq.frontends.syslog.spool import LineCounts, Quota, Spool

HOLD_SECONDS = 60.0
DRAIN_SECONDS = 10
TOO_MANY = "dropped (UDP: too many lines wait for Redis)"


class StubCore:
    """Stores lines when the test makes it answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[bytes], defer.Deferred[None]]] = []
        self.stored: dict[str, list[bytes]] = {}

    async def queue_add_many(self, queue: str, values: Sequence[bytes], ttl_seconds: float = 0) -> list[str]:
        answer: defer.Deferred[None] = defer.Deferred()
        self.calls.append((queue, list(values), answer))
        await answer
        self.stored.setdefault(queue, []).extend(values)
        return [""] * len(values)

    def answer(self) -> None:
        """Answers the oldest call."""
        self.calls.pop(0)[2].callback(None)

    def fail(self, problem: Exception) -> None:
        self.calls.pop(0)[2].errback(Failure(problem))

    def lines(self, host: str = "192.0.2.1") -> list[str]:
        return [json.loads(value)["line"] for value in self.stored.get(f"syslogd:{host}", [])]


class Transport(StringTransport):
    half_closed = aborted = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True


class Syslogd:
    """All parts of the daemon."""

    def __init__(self, lines_max: int = 100_000, connections_max: int = 100, per_host_max: int = 100) -> None:
        self.clock = task.Clock()
        self.core = StubCore()
        self.counts = LineCounts(60)
        self.counts.clock = self.clock
        self.spool = Spool(
            self.core,  # type: ignore[arg-type]
            self.counts,
            hold_seconds=HOLD_SECONDS,
            drain_seconds=DRAIN_SECONDS,
            clock=self.clock,
        )
        self.intake = Intake(spool=self.spool, counts=self.counts, time_ms=lambda: 1500, line_bytes_max=65536)
        self.tcp_quota, self.udp_quota = Quota(lines_max, 1 << 26), Quota(lines_max, 1 << 26)
        self.tcp = TcpReceiver(self.intake, self.tcp_quota, connections_max, per_host_max)
        self.udp = UdpReceiver(self.intake, self.udp_quota)
        self.spool.on_capacity = self.tcp.resume_connections
        self.counts.describe_waiting = lambda: f"{self.spool.waiting_lines} wait"

    def connect(self, host: str = "192.0.2.1") -> Sender:
        connection: Sender = self.tcp.buildProtocol(None)
        connection.makeConnection(Transport(peerAddress=address.IPv4Address("TCP", host, 40000)))
        return connection

    def datagram(self, content: bytes, host: str = "192.0.2.9") -> None:
        self.udp.datagramReceived(content, (host, 514))

    def turn(self, seconds: float = 0) -> None:
        """One turn of the reactor, or a number of seconds."""
        self.clock.advance(seconds)

    def hang(self) -> None:
        """No present call is ever answered."""
        self.turn()
        self.core.calls.clear()

    def answer_all(self) -> None:
        self.turn()
        while self.core.calls:
            self.core.answer()
            self.turn()

    @property
    def empty(self) -> bool:
        quotas = self.tcp_quota, self.udp_quota
        return not (self.spool.waiting_lines or any(quota.lines or quota.size_bytes for quota in quotas))


def is_paused(connection: Sender) -> bool:
    return bool(connection.transport.producerState == "paused")


def numbered(count: int) -> bytes:
    return b"".join(b"<13>%d\n" % number for number in range(count))


def expected(count: int) -> list[str]:
    return [f"<13>{number}" for number in range(count)]


def test_lines_of_one_turn_go_to_redis_in_one_call_in_order() -> None:
    syslogd = Syslogd()
    one, two = syslogd.connect(), syslogd.connect()
    one.dataReceived(b"<13>a\n<13>")
    two.dataReceived(b"<13>c\n")
    one.dataReceived(b"b\n")
    syslogd.turn()
    ((queue, values, _),) = syslogd.core.calls
    lines = [json.loads(value)["line"] for value in values]
    assert (queue, lines) == ("syslogd:192.0.2.1", ["<13>a", "<13>c", "<13>b"])
    assert json.loads(values[0])["tstamp"] == 1.5
    syslogd.answer_all()
    assert (syslogd.counts.by_event["saved"], syslogd.empty) == (3, True)


def test_a_connection_is_not_read_while_its_lines_wait_and_nothing_is_lost() -> None:
    syslogd = Syslogd()
    connection = syslogd.connect()
    connection.dataReceived(numbered(5000))
    for _ in range(2):
        assert (syslogd.spool.waiting_lines, is_paused(connection), len(syslogd.tcp.waiting)) == (2000, True, 1)
        syslogd.turn(4)  # Redis has not answered
    syslogd.core.answer()
    assert (syslogd.spool.waiting_lines, is_paused(connection)) == (2000, True)
    syslogd.answer_all()
    assert (is_paused(connection), len(syslogd.tcp.waiting)) == (False, 0)
    assert syslogd.core.lines() == expected(5000)
    assert syslogd.empty


def test_a_host_does_not_wait_for_the_lines_of_another() -> None:
    syslogd = Syslogd()
    fast, slow = syslogd.connect("192.0.2.1"), syslogd.connect("192.0.2.2")
    fast.dataReceived(numbered(5000))
    syslogd.hang()
    slow.dataReceived(b"<13>mine\n")
    assert (is_paused(fast), is_paused(slow)) == (True, False)
    syslogd.answer_all()
    assert syslogd.core.lines("192.0.2.2") == ["<13>mine"]


def test_the_lines_of_all_connections_are_limited_in_total() -> None:
    syslogd = Syslogd(lines_max=100)
    hosts = [f"192.0.2.{number}" for number in range(80)]
    connections = [syslogd.connect(host) for host in hosts]
    for connection in connections:
        connection.dataReceived(numbered(8))
    assert all(is_paused(connection) for connection in connections)
    # One line more for each host that has none.
    assert 100 <= syslogd.tcp_quota.lines <= 180
    syslogd.answer_all()
    assert all(syslogd.core.lines(host) == expected(8) for host in hosts)
    assert (syslogd.empty, len(syslogd.tcp.waiting)) == (True, 0)


def test_a_host_whose_queue_is_full_gets_at_most_half_of_the_quota() -> None:
    syslogd = Syslogd(lines_max=100)
    for _ in range(50):
        syslogd.connect("192.0.2.1").dataReceived(numbered(10))
    syslogd.hang()
    for number in range(2, 50):
        host = f"192.0.2.{number}"
        syslogd.connect(host).dataReceived(numbered(40))
        syslogd.answer_all()
        assert syslogd.core.lines(host) == expected(40)
    assert (syslogd.tcp_quota.lines, len(syslogd.tcp.waiting)) == (50, 50)


def test_a_host_can_send_even_if_full_queues_of_others_use_up_the_quota() -> None:
    syslogd = Syslogd(lines_max=100)
    for number in range(2, 80):
        syslogd.connect(f"192.0.2.{number}").dataReceived(numbered(100))
    syslogd.hang()
    syslogd.connect("192.0.2.1").dataReceived(numbered(20))
    syslogd.answer_all()
    assert syslogd.core.lines("192.0.2.1") == expected(20)


def test_the_bytes_of_a_connection_are_limited() -> None:
    syslogd = Syslogd()
    connection = syslogd.connect()
    connection.dataReceived((b"<13>" + b"\1" * 60000 + b"\n") * 50)  # six times as long in JSON
    assert is_paused(connection)
    assert syslogd.tcp_quota.size_bytes < 2 << 20
    syslogd.answer_all()
    assert len(syslogd.core.lines()) == 50
    assert syslogd.empty


def test_waiting_lines_take_no_more_memory_than_is_counted() -> None:
    syslogd = Syslogd()
    tracemalloc.start()
    try:
        before_bytes, _ = tracemalloc.get_traced_memory()
        for number in range(10_000):
            syslogd.datagram(b"<13>%d" % number)
        grown_bytes = tracemalloc.get_traced_memory()[0] - before_bytes
    finally:
        tracemalloc.stop()
    assert grown_bytes < syslogd.udp_quota.size_bytes


def test_a_closed_connection_counts_towards_the_limit_until_its_lines_are_in_the_spool() -> None:
    syslogd = Syslogd(connections_max=1)
    connection = syslogd.connect()
    connection.dataReceived(numbered(3000) + b"<13>half")
    connection.connectionLost()
    assert syslogd.connect().transport.aborted
    syslogd.answer_all()
    assert syslogd.core.lines() == [*expected(3000), "<13>half"]
    assert not syslogd.connect().transport.aborted


def test_lines_are_sent_again_until_redis_stores_them() -> None:
    syslogd = Syslogd()
    syslogd.connect().dataReceived(numbered(1500))
    syslogd.turn()
    for problem in (StoreUnavailable("away"), StoreRefused("full"), StoreUnavailable("away")):
        syslogd.core.fail(problem)
        assert not syslogd.core.calls  # not at once
        syslogd.turn(2)
    syslogd.answer_all()
    assert syslogd.core.lines() == expected(1500)
    assert (syslogd.counts.by_event, syslogd.empty) == ({"received by TCP": 1500, "saved": 1500}, True)


def test_the_log_names_a_queue_once_when_its_lines_wait_and_once_when_they_no_longer_do() -> None:
    syslogd = Syslogd()
    full, fine = syslogd.connect("192.0.2.1"), syslogd.connect("192.0.2.2")
    with capturedLogs() as events:
        full.dataReceived(numbered(3))
        for _ in range(5):
            syslogd.turn(2)
            syslogd.core.fail(StoreRefused("full"))
            fine.dataReceived(b"<13>x\n")
            syslogd.turn()
            syslogd.core.answer()
        syslogd.turn(2)
        syslogd.answer_all()
    assert [formatEvent(event) for event in events] == [
        "lines for syslogd:192.0.2.1 wait: full",
        "Redis accepts lines for syslogd:192.0.2.1 again.",
    ]


def test_a_full_queue_that_accepts_a_line_now_and_then_does_not_fill_the_log() -> None:
    syslogd = Syslogd()
    with capturedLogs() as events:
        syslogd.connect().dataReceived(numbered(80))
        syslogd.turn()
        for _ in range(50):
            while len(syslogd.core.calls[0][1]) > 1:
                syslogd.core.fail(StoreRefused("full"))
                syslogd.turn(2 if not syslogd.core.stored else 0.2)
            syslogd.core.answer()
    assert (len(syslogd.core.lines()), len(events)) == (50, 1)


def test_without_redis_the_log_names_ten_queues_only() -> None:
    syslogd = Syslogd()
    with capturedLogs() as events:
        for number in range(100):
            syslogd.datagram(b"<13>x", f"192.0.2.{number}")
        syslogd.turn()
        while syslogd.core.calls:
            syslogd.core.fail(StoreUnavailable("away"))
        assert len(events) == 10
        syslogd.turn(2)
        syslogd.answer_all()
    assert len(events) == 20


def test_a_nearly_full_queue_gets_the_lines_that_fit() -> None:
    class Full(RestMQError):
        """An error of a full queue: three lines fit."""

    syslogd = Syslogd()
    syslogd.connect().dataReceived(numbered(1500))
    syslogd.turn()
    sizes = []
    while syslogd.core.calls:
        sizes.append(len(syslogd.core.calls[0][1]))
        if sizes[-1] > 3 and len(sizes) < 20:
            syslogd.core.fail(Full("full"))
            syslogd.turn(2)
        else:
            syslogd.core.answer()
            syslogd.turn()
    assert sizes[:11] == [1000, 500, 250, 125, 62, 31, 15, 7, 3, 6, 3]
    assert syslogd.core.lines() == expected(1500)


def test_a_line_that_redis_does_not_accept_within_the_hold_time_is_dropped_and_counted() -> None:
    syslogd = Syslogd()
    connection = syslogd.connect()
    connection.dataReceived(b"<13>old\n")
    syslogd.turn()
    syslogd.turn(HOLD_SECONDS)
    connection.dataReceived(b"<13>new\n")
    syslogd.turn(1)
    with capturedLogs() as events:
        syslogd.core.fail(StoreUnavailable("away"))
    assert syslogd.spool.waiting_lines == 1
    syslogd.turn(2)
    syslogd.answer_all()
    assert syslogd.core.lines() == ["<13>new"]
    assert syslogd.counts.by_event["dropped (Redis did not accept them within 60 s)"] == 1
    assert formatEvent(events[1]) == "dropped (Redis did not accept them within 60 s); the next summary has the number."
    assert syslogd.empty


def test_an_internal_error_drops_the_lines_of_one_queue_and_frees_their_quota() -> None:
    syslogd = Syslogd()
    connection = syslogd.connect()
    connection.dataReceived(b"<13>unlucky\n")
    syslogd.turn()
    syslogd.core.fail(ZeroDivisionError("a bug"))
    assert (syslogd.counts.by_event["dropped (internal error, see the log)"], syslogd.empty) == (1, True)
    connection.dataReceived(b"<13>fine\n")
    syslogd.answer_all()
    assert syslogd.core.lines() == ["<13>fine"]


def test_a_datagram_that_exceeds_the_quota_is_counted_and_dropped() -> None:
    syslogd = Syslogd(lines_max=6)
    for number in range(5):
        syslogd.datagram(b"<13>%d\n\0" % number)
    syslogd.hang()
    syslogd.datagram(b"<13>mine", "192.0.2.8")  # at most half of the room is for one host
    syslogd.connect().dataReceived(b"<13>tcp\n")  # TCP has room of its own
    syslogd.answer_all()
    assert syslogd.core.lines("192.0.2.8") == ["<13>mine"]
    assert syslogd.core.lines("192.0.2.1") == ["<13>tcp"]
    assert syslogd.counts.by_event == {"received by UDP": 4, TOO_MANY: 2, "received by TCP": 1, "saved": 2}


def test_datagrams_from_any_number_of_addresses_are_limited_in_total() -> None:
    syslogd = Syslogd(lines_max=100)
    for number in range(250):
        syslogd.datagram(b"<13>x", f"192.0.2.{number}")
    assert (syslogd.udp_quota.lines, syslogd.counts.by_event[TOO_MANY]) == (100, 150)


def test_a_loss_is_logged_at_once_but_not_again_before_the_next_summary() -> None:
    syslogd = Syslogd()
    with capturedLogs() as events:
        syslogd.counts.startService()
        syslogd.counts.lose("dropped", 3)
        syslogd.counts.lose("dropped")
        syslogd.turn(60)
        syslogd.turn(60)  # no news
        syslogd.counts.lose("dropped")
        syslogd.counts.stopService()
    loss, waiting = "dropped; the next summary has the number.", "0 wait"
    assert [formatEvent(event) for event in events] == [
        loss,
        f"lines since the start: dropped: 4; {waiting}.",
        loss,
        f"lines since the start: dropped: 5; {waiting}.",
    ]


def test_a_datagram_is_one_message_and_a_long_one_is_truncated() -> None:
    syslogd = Syslogd()
    syslogd.intake.line_bytes_max = 480
    for datagram in (b"<13>two\nlines\n", b"", b" \n", b"x" * 500):
        syslogd.datagram(datagram, "::ffff:192.0.2.9")
    syslogd.answer_all()
    assert syslogd.core.lines("192.0.2.9") == ["<13>two\nlines", "x" * 480]
    assert syslogd.counts.by_event["truncated"] == 1


@pytest.mark.parametrize(
    ("datagram", "line"),
    [
        (b"5 <13>x", "<13>x"),
        (b"480 <13>" + b"x" * 476, "<13>" + "x" * 476),
        (b"6 <13>x\n", "<13>x"),
        (b"6 <13>x", "6 <13>x"),  # not its length
        (b"05 <13>x", "05 <13>x"),
        (b"5 13>xx", "5 13>xx"),
    ],
)
def test_a_correct_length_before_a_datagram_is_removed(datagram: bytes, line: str) -> None:
    syslogd = Syslogd()
    syslogd.intake.line_bytes_max = 480
    syslogd.datagram(datagram)
    syslogd.answer_all()
    assert (syslogd.core.lines("192.0.2.9"), syslogd.counts.by_event["truncated"]) == ([line], 0)


def test_connections_are_limited_in_total_and_per_address() -> None:
    syslogd = Syslogd(connections_max=3, per_host_max=2)
    connections = [syslogd.connect("192.0.2.1") for _ in range(3)]
    assert [connection.transport.aborted for connection in connections] == [False, False, True]
    connections[2].dataReceived(b"<13>not me\n")
    connections[2].connectionLost()
    assert not syslogd.connect("192.0.2.2").transport.aborted
    assert syslogd.connect("192.0.2.3").transport.aborted
    connections[0].connectionLost()
    assert not syslogd.connect("192.0.2.1").transport.aborted
    assert syslogd.counts.by_event == {
        "connections rejected (too many connections from one address)": 1,
        "connections rejected (too many connections)": 1,
    }
    assert syslogd.spool.waiting_lines == 0


@pytest.mark.parametrize(
    ("address", "host"),
    [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1%eth0"), ("unix", "unix")],
)
def test_a_queue_is_named_after_the_address(address: str, host: str) -> None:
    assert host_of(address) == host


def ended(deferred: Any) -> bool:
    return bool(deferred.called)


def test_at_the_end_senders_are_told_to_stop_and_their_lines_are_saved() -> None:
    syslogd = Syslogd()
    connection = syslogd.connect()
    draining = defer.ensureDeferred(syslogd.tcp.drain(DRAIN_SECONDS, syslogd.clock))
    assert (connection.transport.half_closed, ended(draining)) == (True, False)
    connection.dataReceived(b"<13>on its way\n")
    connection.connectionLost()
    assert ended(draining)
    stopping = syslogd.spool.stopService()
    assert not ended(stopping)
    syslogd.answer_all()
    assert ended(stopping)
    assert syslogd.core.lines() == ["<13>on its way"]


def test_the_end_has_a_time_limit_and_the_log_says_what_is_lost() -> None:
    syslogd = Syslogd()
    connection = syslogd.connect()
    connection.dataReceived(b"<13>x\n")
    draining = defer.ensureDeferred(syslogd.tcp.drain(DRAIN_SECONDS, syslogd.clock))
    syslogd.turn(DRAIN_SECONDS)
    assert (connection.transport.aborted, ended(draining)) == (True, True)
    stopping = syslogd.spool.stopService()
    syslogd.turn(DRAIN_SECONDS)
    assert ended(stopping)
    assert syslogd.counts.by_event["dropped (Redis did not accept them before the daemon ended)"] == 1
    syslogd.core.answer()  # too late
    assert syslogd.counts.by_event["saved"] == 0
