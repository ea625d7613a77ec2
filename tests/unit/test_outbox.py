"""Bytes that wait for consumers, on real sockets whose other ends the test reads."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import tcp

from restmq.auth.guard import Credentials
from restmq.delivery.backpressure import BackpressureLimits, Outbox, SharedBytes
from restmq.delivery.consumer import CloseReason
from restmq.delivery.format import Format
from restmq.delivery.transport_consumer import TransportConsumer

MIB = 1 << 20
FORMAT = Format(lambda message: message.value, str.encode)


class Reactor:
    """Notes the transports that want to write, and lets them when the test says so."""

    def __init__(self) -> None:
        self.writers: list[Any] = []

    def addReader(self, _: Any) -> None: ...
    def removeReader(self, _: Any) -> None: ...

    def addWriter(self, writer: Any) -> None:
        if writer not in self.writers:
            self.writers.append(writer)

    def removeWriter(self, writer: Any) -> None:
        if writer in self.writers:
            self.writers.remove(writer)

    def turn(self) -> None:
        for writer in list(self.writers):
            writer.doWrite()


class Consumer(TransportConsumer):
    def __init__(self, fanout: Any, reactor: Reactor) -> None:
        self.peer, ours = socket.socketpair()
        ours.setblocking(False)
        self.peer.setblocking(False)
        self.finished = False
        protocol: Any = SimpleNamespace(connectionLost=None)
        server: Any = None
        self.transport = tcp.Server(ours, protocol, ("", 0), server, 1, reactor)
        self.transport.registerProducer(self, True)
        self.attach(fanout=fanout, queue="q", wire_format=FORMAT, credentials=Credentials("192.0.2.1"))

    @property
    def outlet(self) -> Any:
        return self.transport

    def close(self, reason: CloseReason) -> None:
        """Not used here."""

    def received(self) -> bytes:
        try:
            return self.peer.recv(MIB)
        except BlockingIOError:
            return b""


class Scene:
    def __init__(self) -> None:
        self.reactor = Reactor()
        self.exceeded = 0
        self.consumers: list[Consumer] = []
        self.ready: list[Any] = []
        self.fanout = SimpleNamespace(
            limits=BackpressureLimits(),
            shared_bytes=SharedBytes(40 * MIB, self._exceed),
            seconds=lambda: 0.0,
            ready=lambda _, consumer: self.ready.append(consumer),
            leave=lambda *_: None,
        )

    def _exceed(self) -> None:
        self.exceeded += 1

    def consumer(self) -> Consumer:
        self.consumers.append(Consumer(self.fanout, self.reactor))
        return self.consumers[-1]


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    for consumer in made.consumers:
        consumer.peer.close()
        consumer.transport.socket.close()


def test_a_message_that_many_consumers_do_not_read_is_in_memory_once(scene: Scene) -> None:
    message = b"x" * (16 * MIB)
    for _ in range(50):
        scene.consumer().write(message)
    assert scene.fanout.shared_bytes.total <= len(message) + 50
    copied = [len(c.transport.dataBuffer) + c.transport._tempDataLen for c in scene.consumers]
    assert max(copied) <= 1024
    assert all(consumer.capacity() == 0 for consumer in scene.consumers)


def test_all_bytes_arrive_in_order_and_then_the_consumer_is_ready(scene: Scene) -> None:
    consumer = scene.consumer()
    messages = [bytes([number]) * size for number, size in enumerate([5 * MIB, 10, 3 * MIB, 100_000, 1])]
    for message in messages:
        consumer.write(message)
    consumer.send_behind(b"<close>")
    consumer.finish(lambda: setattr(consumer, "finished", True))
    expected = b"".join(message for message in messages) + b"<close>"
    received = b""
    while len(received) < len(expected):
        received += consumer.received()
        scene.reactor.turn()
    assert received == expected
    scene.reactor.turn()
    assert consumer.finished
    assert scene.ready == [consumer]
    assert (consumer.unsent_bytes, scene.fanout.shared_bytes.total) == (0, 0)


def test_one_turn_sends_a_bounded_number_of_bytes(scene: Scene) -> None:
    consumer = scene.consumer()
    consumer.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)
    consumer.write(b"x" * (16 * MIB))
    sent = 16 * MIB - consumer.unsent_bytes
    assert 0 < sent <= 2 * 32768
    scene.reactor.turn()
    assert 16 * MIB - consumer.unsent_bytes - sent <= 3 * 32768


def test_a_consumer_that_leaves_frees_its_bytes(scene: Scene) -> None:
    consumer = scene.consumer()
    consumer.write(b"x" * (16 * MIB))
    assert scene.fanout.shared_bytes.total
    consumer.detach()
    assert scene.fanout.shared_bytes.total == 0


def test_more_bytes_than_allowed_in_total_are_told_once_they_are_held(scene: Scene) -> None:
    for number in range(3):
        scene.consumer().write(bytes([number]) * (16 * MIB))
    assert scene.exceeded >= 1
    assert scene.fanout.shared_bytes.total > scene.fanout.shared_bytes.bytes_max


def test_a_piece_that_was_sent_counts_when_it_is_kept_again() -> None:
    shared, piece = SharedBytes(100, lambda: None), b"abc"
    for _ in range(2):
        shared.hold(piece)
        assert shared.total == 3
        shared.release(piece)
        assert shared.total == 0


def test_an_outbox_offers_the_bytes_of_one_piece_at_a_time() -> None:
    shared = SharedBytes(100, lambda: None)
    outbox = Outbox(shared)
    for piece in (b"abc", b"", b"de"):
        outbox.append(piece)
    assert bytes(outbox.peek(2)) == b"ab"
    outbox.consume(2)
    assert bytes(outbox.peek(9)) == b"c"
    outbox.consume(1)
    assert (bytes(outbox.peek(9)), outbox.unsent_bytes, shared.total) == (b"de", 2, 2)
