"""Syslog senders and the spool behind them: the clock is turned by hand, and Redis answers when it is told to."""

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

from restmq.auth.acl import parse_hosts
from restmq.errors import RestMQError, StoreRefused, StoreUnavailable
from restmq.frontends.syslog.receiver import Connection, Datagrams, Intake, TcpSenders, host_of
from restmq.frontends.syslog.spool import Counts, SharedRoom, Spool

HOLD_SECONDS = 60.0


class StubCore:
    """Keeps what it is given once it is told to answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[bytes], defer.Deferred[None]]] = []
        self.kept: dict[str, list[bytes]] = {}

    async def queue_add_many(self, queue: str, values: Sequence[bytes], ttl_seconds: float = 0) -> list[str]:
        answer: defer.Deferred[None] = defer.Deferred()
        self.calls.append((queue, list(values), answer))
        await answer
        self.kept.setdefault(queue, []).extend(values)
        return [""] * len(values)

    def answer(self) -> None:
        """The oldest call."""
        self.calls.pop(0)[2].callback(None)

    def fail(self, problem: Exception) -> None:
        self.calls.pop(0)[2].errback(Failure(problem))

    def lines(self, host: str) -> list[str]:
        return [json.loads(value)["line"] for value in self.kept.get(f"syslogd:{host}", [])]


class Transport(StringTransport):
    """One that a sender may close its own half of, too."""

    half_closed = aborted = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True


class Receiver:
    """All parts together."""

    def __init__(
        self, lines_max: int = 100_000, connections_max: int = 10, per_address_max: int = 10, senders: str | None = None
    ) -> None:
        self.clock = task.Clock()
        self.core = StubCore()
        self.counts = Counts()
        self.spool = Spool(self.core, self.counts, HOLD_SECONDS, 10, self.clock)  # type: ignore[arg-type]
        self.intake = Intake(self.spool, self.counts, lambda: 1500, 65536, parse_hosts(senders) if senders else None)
        tcp_room, udp_room = SharedRoom(lines_max, 1 << 26), SharedRoom(lines_max, 1 << 26)
        self.tcp_room, self.udp_room = tcp_room.whole, udp_room.whole
        self.senders = TcpSenders(self.intake, tcp_room, connections_max, per_address_max)
        self.datagrams = Datagrams(self.intake, udp_room)
        self.spool.on_room = self.senders.room_made

    def connect(self, host: str = "192.0.2.1") -> Connection:
        connection: Connection = self.senders.buildProtocol(None)
        connection.makeConnection(Transport(peerAddress=address.IPv4Address("TCP", host, 40000)))
        return connection

    def turn(self, seconds: float = 0) -> None:
        """One turn of the reactor, or so many seconds."""
        self.clock.advance(seconds)

    def answer_all(self) -> None:
        self.turn()
        while self.core.calls:
            self.core.answer()
            self.turn()

    @property
    def empty(self) -> bool:
        return (
            self.spool.waiting_lines == self.tcp_room.lines == self.udp_room.size_bytes == self.tcp_room.size_bytes == 0
        )


def stopped_reading(connection: Connection) -> bool:
    return bool(connection.transport.producerState == "paused")


def numbered(count: int, start: int = 0) -> bytes:
    return b"".join(b"<13>%d\n" % number for number in range(start, start + count))


def expected(count: int) -> list[str]:
    return [f"<13>{number}" for number in range(count)]


def test_what_comes_in_one_turn_goes_to_redis_in_one_call() -> None:
    receiver = Receiver()
    one, two = receiver.connect(), receiver.connect()
    one.dataReceived(b"<13>a\n<13>")
    two.dataReceived(b"<13>c\n")
    one.dataReceived(b"b\n")
    receiver.turn()
    ((queue, values, _),) = receiver.core.calls
    assert (queue, [json.loads(value)["line"] for value in values]) == (
        "syslogd:192.0.2.1",
        ["<13>a", "<13>c", "<13>b"],
    )
    assert json.loads(values[0])["tstamp"] == 1.5
    receiver.answer_all()
    assert (receiver.counts.saved, receiver.empty) == (3, True)


def test_each_host_has_its_own_queue_and_waits_for_no_other() -> None:
    receiver = Receiver()
    receiver.connect("192.0.2.1").dataReceived(b"<13>a\n")
    receiver.connect("192.0.2.2").dataReceived(b"<13>b\n")
    receiver.turn()
    assert [queue for queue, _, _ in receiver.core.calls] == ["syslogd:192.0.2.1", "syslogd:192.0.2.2"]
    receiver.core.calls.pop(0)  # is never answered
    receiver.core.answer()
    assert receiver.core.lines("192.0.2.2") == ["<13>b"]


def test_a_sender_is_not_read_while_redis_is_slow_and_nothing_is_lost() -> None:
    receiver = Receiver()
    connection = receiver.connect()
    connection.dataReceived(numbered(5000))
    assert stopped_reading(connection)
    assert (receiver.spool.waiting_lines, receiver.senders.waiting) == (2000, 1)
    receiver.turn(4)  # and still Redis does not answer
    assert (receiver.spool.waiting_lines, stopped_reading(connection)) == (2000, True)
    receiver.core.answer()
    assert (receiver.spool.waiting_lines, stopped_reading(connection)) == (2000, True)
    receiver.answer_all()
    assert (stopped_reading(connection), receiver.senders.waiting) == (False, 0)
    assert receiver.core.lines("192.0.2.1") == expected(5000)
    assert receiver.empty


def test_a_sender_that_is_held_back_does_not_hold_back_others() -> None:
    receiver = Receiver()
    fast, slow = receiver.connect("192.0.2.1"), receiver.connect("192.0.2.2")
    fast.dataReceived(numbered(5000))
    slow.dataReceived(b"<13>mine\n")
    assert (stopped_reading(fast), stopped_reading(slow)) == (True, False)
    receiver.turn()
    assert receiver.core.calls[1][0] == "syslogd:192.0.2.2"


def test_all_senders_together_have_bounded_room_and_get_it_in_turn() -> None:
    receiver = Receiver(lines_max=10)
    connections = [receiver.connect(f"192.0.2.{number}") for number in range(4)]
    for connection in connections:
        connection.dataReceived(numbered(8))
        assert receiver.tcp_room.lines <= 10
    assert [stopped_reading(connection) for connection in connections] == [True, True, True, True]
    receiver.turn()
    while receiver.core.calls:
        receiver.core.answer()
        receiver.turn()
        assert receiver.tcp_room.lines <= 10
    for number in range(4):
        assert receiver.core.lines(f"192.0.2.{number}") == expected(8)
    assert (receiver.empty, receiver.senders.waiting) == (True, 0)


def test_a_queue_that_takes_nothing_holds_back_its_own_host_only() -> None:
    receiver = Receiver(lines_max=100, connections_max=100, per_address_max=100)
    held_back = [receiver.connect("192.0.2.1") for _ in range(50)]
    for connection in held_back:
        connection.dataReceived(numbered(10))
    receiver.turn()
    receiver.core.calls.pop(0)  # is never answered
    assert receiver.tcp_room.lines == 50
    for number in range(2, 50):
        receiver.connect(f"192.0.2.{number}").dataReceived(numbered(40))
        receiver.answer_all()
        assert receiver.core.lines(f"192.0.2.{number}") == expected(40)
    assert (receiver.tcp_room.lines, receiver.senders.waiting) == (50, 46)


def test_where_all_room_is_taken_by_full_queues_a_host_has_room_for_a_line_of_its_own() -> None:
    receiver = Receiver(lines_max=100, connections_max=100)
    for number in range(2, 52):
        receiver.connect(f"192.0.2.{number}").dataReceived(numbered(100))
    receiver.turn()
    receiver.core.calls.clear()  # these are never answered
    assert 100 <= receiver.tcp_room.lines <= 150
    receiver.connect("192.0.2.1").dataReceived(numbered(20))
    receiver.answer_all()
    assert receiver.core.lines("192.0.2.1") == expected(20)


def test_datagrams_from_addresses_without_number_are_bounded_all_the_same() -> None:
    receiver = Receiver(lines_max=100)
    for number in range(250):
        receiver.datagrams.datagramReceived(b"<13>x", (f"192.0.2.{number}", 514))
    assert receiver.udp_room.lines == 100


def test_datagrams_of_one_host_leave_room_for_those_of_another() -> None:
    receiver = Receiver(lines_max=10)
    for number in range(20):
        receiver.datagrams.datagramReceived(b"<13>%d" % number, ("192.0.2.9", 514))
    receiver.turn()
    receiver.core.calls.pop(0)  # is never answered
    receiver.datagrams.datagramReceived(b"<13>mine", ("192.0.2.1", 514))
    receiver.answer_all()
    assert receiver.core.lines("192.0.2.1") == ["<13>mine"]
    assert receiver.counts.dropped.total() == 15


def test_a_host_that_has_no_lines_left_costs_nothing() -> None:
    receiver = Receiver()
    for number in range(200):
        receiver.datagrams.datagramReceived(b"<13>x", (f"192.0.2.{number}", 514))
    assert len(receiver.datagrams._room._by_host) == 200
    receiver.answer_all()
    assert (len(receiver.datagrams._room._by_host), receiver.empty) == (0, True)


def test_bytes_are_bounded_as_lines_are() -> None:
    receiver = Receiver()
    connection = receiver.connect()
    connection.dataReceived((b"<13>" + b"\1" * 60000 + b"\n") * 50)  # each much longer in JSON
    assert stopped_reading(connection)
    assert receiver.tcp_room.size_bytes < 3 << 20
    receiver.answer_all()
    assert len(receiver.core.lines("192.0.2.1")) == 50
    assert receiver.empty


def test_lines_that_wait_cost_no_more_memory_than_is_counted() -> None:
    receiver = Receiver()
    tracemalloc.start()
    try:
        before_bytes, _ = tracemalloc.get_traced_memory()
        for number in range(10_000):
            receiver.datagrams.datagramReceived(b"<13>%d" % number, ("192.0.2.9", 514))
        grown_bytes = tracemalloc.get_traced_memory()[0] - before_bytes
    finally:
        tracemalloc.stop()
    assert grown_bytes < receiver.udp_room.size_bytes


def test_a_sender_that_has_gone_leaves_no_line_behind() -> None:
    receiver = Receiver(connections_max=1)
    connection = receiver.connect()
    connection.dataReceived(numbered(3000) + b"<13>half")
    connection.connectionLost()
    assert receiver.connect().transport.aborted  # its place is taken until its lines are
    receiver.answer_all()
    assert receiver.core.lines("192.0.2.1") == [*expected(3000), "<13>half"]
    assert not receiver.connect().transport.aborted


def test_a_line_is_sent_again_until_redis_takes_it() -> None:
    receiver = Receiver()
    receiver.connect().dataReceived(numbered(1500))
    receiver.turn()
    for problem in (StoreUnavailable("away"), StoreRefused("full"), StoreUnavailable("away")):
        receiver.core.fail(problem)
        assert not receiver.core.calls  # not at once
        receiver.turn(2)
    receiver.answer_all()
    assert receiver.core.lines("192.0.2.1") == expected(1500)
    assert (receiver.counts.saved, receiver.counts.dropped, receiver.empty) == (1500, {}, True)


def test_the_log_names_the_queue_that_takes_nothing_and_says_it_once() -> None:
    receiver = Receiver()
    full, fine = receiver.connect("192.0.2.1"), receiver.connect("192.0.2.2")
    with capturedLogs() as events:
        full.dataReceived(numbered(3))
        for _ in range(5):
            receiver.turn(2)
            receiver.core.fail(StoreRefused("full"))
            fine.dataReceived(b"<13>x\n")
            receiver.turn()
            receiver.core.answer()
        receiver.turn(2)
        receiver.answer_all()
    assert [formatEvent(event) for event in events] == [
        "lines for syslogd:192.0.2.1 wait: full",
        "Redis takes lines for syslogd:192.0.2.1 again.",
    ]


def test_a_full_queue_that_takes_a_line_now_and_then_does_not_fill_the_log() -> None:
    receiver = Receiver()
    with capturedLogs() as events:
        receiver.connect().dataReceived(numbered(80))
        receiver.turn()
        for _ in range(50):
            while len(receiver.core.calls[0][1]) > 1:
                receiver.core.fail(StoreRefused("full"))
                receiver.turn(2 if len(receiver.core.kept) == 0 else 0.2)
            receiver.core.answer()
    assert (len(receiver.core.lines("192.0.2.1")), len(events)) == (50, 1)


def test_when_redis_is_away_the_log_does_not_name_every_queue() -> None:
    receiver = Receiver()
    with capturedLogs() as events:
        for number in range(100):
            receiver.datagrams.datagramReceived(b"<13>x", (f"192.0.2.{number}", 514))
        receiver.turn()
        while receiver.core.calls:
            receiver.core.fail(StoreUnavailable("away"))
        assert len(events) == 10
        receiver.turn(2)
        receiver.answer_all()
    assert len(events) == 20


def test_where_many_lines_are_refused_fewer_are_tried() -> None:
    class Full(RestMQError):
        """There is room for three."""

    receiver = Receiver()
    receiver.connect().dataReceived(numbered(1500))
    receiver.turn()
    sizes = []
    while receiver.core.calls:
        sizes.append(len(receiver.core.calls[0][1]))
        if sizes[-1] > 3 and len(sizes) < 20:
            receiver.core.fail(Full("full"))
            receiver.turn(2)
        else:
            receiver.core.answer()
            receiver.turn()
    assert sizes[:11] == [1000, 500, 250, 125, 62, 31, 15, 7, 3, 6, 3]
    assert receiver.core.lines("192.0.2.1") == expected(1500)


def test_a_line_that_redis_does_not_take_for_too_long_is_dropped_and_counted() -> None:
    receiver = Receiver()
    connection = receiver.connect()
    connection.dataReceived(b"<13>old\n")
    receiver.turn()
    receiver.turn(HOLD_SECONDS)
    connection.dataReceived(b"<13>new\n")
    receiver.turn(1)
    receiver.core.fail(StoreUnavailable("away"))
    assert receiver.spool.waiting_lines == 1
    receiver.turn(2)
    receiver.answer_all()
    assert receiver.core.lines("192.0.2.1") == ["<13>new"]
    assert receiver.counts.dropped == {"Redis did not take them for 60 s": 1}
    assert receiver.empty


def test_a_fault_costs_the_lines_of_one_queue_and_no_room() -> None:
    receiver = Receiver()
    connection = receiver.connect()
    connection.dataReceived(b"<13>unlucky\n")
    receiver.turn()
    receiver.core.fail(ZeroDivisionError("a fault"))
    assert (receiver.counts.dropped.total(), receiver.empty) == (1, True)
    connection.dataReceived(b"<13>fine\n")
    receiver.answer_all()
    assert receiver.core.lines("192.0.2.1") == ["<13>fine"]


def test_datagrams_beyond_the_room_are_counted_and_dropped() -> None:
    receiver = Receiver(lines_max=6)
    for number in range(5):
        receiver.datagrams.datagramReceived(b"<13>%d\n\0" % number, ("192.0.2.9", 514))
    receiver.connect().dataReceived(b"<13>tcp\n")  # has room of its own
    receiver.answer_all()
    assert receiver.core.lines("192.0.2.9") == expected(3)
    assert receiver.core.lines("192.0.2.1") == ["<13>tcp"]
    assert receiver.counts.describe() == (
        "received 4 (TCP 1, UDP 3), saved 4, dropped 2 (UDP: too many lines wait for Redis)"
    )


def test_a_datagram_is_one_message_and_a_long_one_is_cut() -> None:
    receiver = Receiver()
    receiver.intake.line_bytes_max = 480
    for datagram in (b"<13>two\nlines\n", b"", b" \n", b"x" * 500):
        receiver.datagrams.datagramReceived(datagram, ("::ffff:192.0.2.9", 514, 0, 0))
    receiver.answer_all()
    assert receiver.core.lines("192.0.2.9") == ["<13>two\nlines", "x" * 480]
    assert receiver.counts.truncated == 1


@pytest.mark.parametrize(
    ("datagram", "line"),
    [
        (b"5 <13>x", "<13>x"),
        (b"480 <13>" + b"x" * 476, "<13>" + "x" * 476),
        (b"6 <13>x\n", "<13>x"),
        (b"6 <13>x", "6 <13>x"),  # no length of this
        (b"05 <13>x", "05 <13>x"),
        (b"5 13>xx", "5 13>xx"),
    ],
)
def test_a_length_before_a_datagram_is_no_part_of_its_line(datagram: bytes, line: str) -> None:
    receiver = Receiver()
    receiver.intake.line_bytes_max = 480
    receiver.datagrams.datagramReceived(datagram, ("192.0.2.9", 514))
    receiver.answer_all()
    assert (receiver.core.lines("192.0.2.9"), receiver.counts.truncated) == ([line], 0)


def test_connections_are_bounded_in_all_and_from_one_address() -> None:
    receiver = Receiver(connections_max=3, per_address_max=2)
    connections = [receiver.connect("192.0.2.1") for _ in range(3)]
    assert [connection.transport.aborted for connection in connections] == [False, False, True]
    connections[2].dataReceived(b"<13>not me\n")
    connections[2].connectionLost()
    assert not receiver.connect("192.0.2.2").transport.aborted
    assert receiver.connect("192.0.2.3").transport.aborted
    connections[0].connectionLost()
    assert not receiver.connect("192.0.2.1").transport.aborted
    assert receiver.counts.refused == {"too many connections": 1, "too many connections from one address": 1}
    assert receiver.spool.waiting_lines == 0


def test_only_the_senders_that_are_named_are_heard() -> None:
    receiver = Receiver(senders="192.0.2.0/24")
    assert receiver.connect("203.0.113.1").transport.aborted
    assert not receiver.connect("192.0.2.1").transport.aborted
    receiver.datagrams.datagramReceived(b"<13>x", ("203.0.113.1", 514))
    assert (receiver.spool.waiting_lines, receiver.counts.dropped.total()) == (0, 1)


@pytest.mark.parametrize(
    ("address", "host"),
    [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1%eth0"), ("unix", "unix")],
)
def test_the_name_of_a_host(address: str, host: str) -> None:
    assert host_of(address) == host


def ended(deferred: Any) -> bool:
    return bool(deferred.called)


def test_at_the_end_senders_are_told_and_what_they_sent_is_kept() -> None:
    receiver = Receiver()
    connection = receiver.connect()
    draining = defer.ensureDeferred(receiver.senders.drain(10, receiver.clock))
    assert (connection.transport.half_closed, ended(draining)) == (True, False)
    connection.dataReceived(b"<13>on its way\n")
    connection.connectionLost()
    assert ended(draining)
    stopping = receiver.spool.stopService()
    assert not ended(stopping)
    receiver.answer_all()
    assert ended(stopping)
    assert receiver.core.lines("192.0.2.1") == ["<13>on its way"]


def test_the_end_waits_for_nobody_without_end_and_says_what_is_lost() -> None:
    receiver = Receiver()
    connection = receiver.connect()
    connection.dataReceived(b"<13>x\n")
    draining = defer.ensureDeferred(receiver.senders.drain(10, receiver.clock))
    receiver.turn(10)
    assert (connection.transport.aborted, ended(draining)) == (True, True)
    stopping = receiver.spool.stopService()
    receiver.turn(10)
    assert ended(stopping)
    assert receiver.counts.dropped == {"Redis did not take them before the daemon's end": 1}
    receiver.core.answer()  # too late
    assert receiver.counts.saved == 0
