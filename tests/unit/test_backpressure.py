"""Back-pressure, with a stub transport and a manual clock."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer, task

from restmq.auth.guard import Credentials
from restmq.delivery.backpressure import BackpressureLimits, SharedBytes, SlowConsumers
from restmq.delivery.consumer import CloseReason
from restmq.delivery.format import Format
from restmq.delivery.transport_consumer import TransportConsumer
from restmq.transport import unsent_bytes

KIB = 1024
BACKPRESSURE_LIMITS = BackpressureLimits(unsent_bytes=1024 * KIB, stall_seconds=10)
FORMAT = Format(lambda message: message.value, str.encode)


class Outlet:
    """A stub of a Twisted transport. Its peer reads when the test says so."""

    full_bytes = 64 * KIB

    def __init__(self) -> None:
        self.dataBuffer, self.offset, self._tempDataLen = b"", 0, 0
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        self._tempDataLen += len(data)
        if self._tempDataLen > self.full_bytes:
            self.producer.pauseProducing()

    def peer_reads(self, size_bytes: int) -> None:
        while size_bytes and self._tempDataLen:
            taken = min(size_bytes, self._tempDataLen)
            self._tempDataLen -= taken
            size_bytes -= taken
            if not self._tempDataLen:
                self.producer.resumeProducing()


class Consumer(TransportConsumer):
    def __init__(self, fanout: Any) -> None:
        self.transport = Outlet()
        self.transport.producer = self
        self.attach(fanout=fanout, queue="q", wire_format=FORMAT, credentials=Credentials("192.0.2.1"))

    @property
    def outlet(self) -> Any:
        return self.transport

    def close(self, reason: CloseReason) -> None:
        """Not used here."""


class Scene:
    def __init__(self) -> None:
        self.clock = task.Clock()
        self.dropped: list[Any] = []
        self.ready: list[Any] = []
        fanout = SimpleNamespace(
            limits=BACKPRESSURE_LIMITS,
            shared_bytes=SharedBytes(1 << 30, lambda: None),
            seconds=self.clock.seconds,
            drop=lambda _queue, consumer: self.dropped.append(consumer),
            ready=lambda _queue, consumer: self.ready.append(consumer),
        )
        self.consumer = Consumer(fanout)

    def give(self, *sizes_kib: int) -> None:
        for size_kib in sizes_kib:
            self.consumer.write(b"x" * (size_kib * KIB))


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize(("stall_seconds", "shared_seconds"), [(10, 2), (1, 1)])
def test_while_other_consumers_are_ready_a_full_one_is_waited_for_two_seconds(
    stall_seconds: float, shared_seconds: float
) -> None:
    limits = BackpressureLimits(stall_seconds=stall_seconds)
    assert limits.shared_stall_seconds == shared_seconds


def test_a_single_message_of_any_size_drops_nobody(scene: Scene) -> None:
    scene.give(100_000)
    scene.clock.advance(3600)
    scene.give(1)
    assert not scene.dropped


def test_a_backlog_above_the_limit_drops_the_consumer_after_its_deadline(scene: Scene) -> None:
    scene.give(1100, 1100, 1100)
    assert not scene.dropped
    scene.clock.advance(10 + 3 * 11)
    scene.give(1)
    assert scene.dropped == [scene.consumer]


def test_a_backlog_of_four_times_the_limit_drops_the_consumer_at_once(scene: Scene) -> None:
    scene.give(1100, *[1024] * 4)
    assert not scene.dropped
    scene.give(1, 1)
    assert scene.dropped == [scene.consumer]
    assert scene.consumer.unsent_bytes <= 5200 * KIB


def test_a_backlog_below_the_limit_never_drops_the_consumer(scene: Scene) -> None:
    scene.give(1100, 500)
    for _ in range(40):
        scene.clock.advance(3600)
        scene.give(1)
    assert not scene.dropped


def test_bytes_that_were_sent_meanwhile_do_not_count(scene: Scene) -> None:
    scene.give(1100)
    for _ in range(100):  # always 2,100 KiB unsent or less, never empty
        scene.give(1000)
        scene.clock.advance(1)
        scene.consumer.outlet.peer_reads(1000 * KIB)
    assert not scene.dropped
    assert not scene.ready


def test_a_backlog_waits_for_a_reading_consumer_until_its_deadline(scene: Scene) -> None:
    assert scene.consumer.wait_until() == 0
    scene.give(2048)  # so it has 10 + 20 seconds
    asked = []
    while scene.consumer.wait_until() > scene.clock.seconds():
        asked.append(scene.consumer.wait_until())
        scene.clock.advance(8)
        scene.consumer.outlet.peer_reads(KIB)
    assert asked == [10, 18, 26, 30]
    scene.give(1024)
    assert scene.consumer.wait_until() == 30  # a passed deadline is not extended
    scene.consumer.outlet.peer_reads(4096 * KIB)
    assert scene.ready == [scene.consumer]
    assert scene.consumer.wait_until() == 0


def test_a_stalled_consumer_gets_no_second_wait(scene: Scene) -> None:
    scene.give(16_384)
    assert scene.consumer.wait_until() == 10
    scene.clock.advance(10)
    assert scene.consumer.wait_until() == 10
    scene.give(1100)
    assert scene.consumer.wait_until() == 10
    scene.give(1)
    assert scene.dropped == [scene.consumer]


def test_a_backlog_does_not_wait_for_a_consumer_with_few_unsent_bytes(scene: Scene) -> None:
    scene.give(600)
    assert scene.consumer.wait_until() > 0
    scene.consumer.outlet.peer_reads(100 * KIB)
    assert scene.consumer.paused
    assert scene.consumer.wait_until() == 0


def test_a_lower_memory_limit_does_not_give_more_time() -> None:
    assert BackpressureLimits(1, 10).seconds_for(1 << 20) == BackpressureLimits(1 << 20, 10).seconds_for(1 << 20) == 10
    assert BackpressureLimits(1 << 21, 10).seconds_for(1 << 20) == 5


def test_for_tls_the_encrypted_bytes_count() -> None:
    outlet = Outlet()
    outlet.dataBuffer, outlet.offset, outlet._tempDataLen = b"12345", 2, 40
    assert unsent_bytes(SimpleNamespace(transport=outlet)) == 43
    assert unsent_bytes(SimpleNamespace(transport=None)) == 0
    assert unsent_bytes(None) == 0


class Full:
    def __init__(self, until_seconds: float) -> None:
        self.until_seconds = until_seconds

    def wait_until(self, is_shared: bool = False) -> float:
        return self.until_seconds


def test_the_wait_ends_when_a_consumer_is_writable_leaves_or_reaches_its_deadline() -> None:
    clock = task.Clock()
    slow = SlowConsumers(clock)
    fast, gone, later, stuck = consumers = [Full(5), Full(60), Full(60), Full(30)]
    done = defer.ensureDeferred(slow.wait(consumers))
    slow.release(stuck)  # no effect: it is not waited for yet, and full until 30
    fast.until_seconds = 0
    slow.release(fast)
    consumers.remove(later)
    assert not done.called
    consumers.remove(gone)
    slow.release(gone)
    assert not done.called
    clock.advance(29)
    assert not done.called
    clock.advance(1)
    assert done.called
    assert not clock.getDelayedCalls()
    assert not slow._awaited


def test_all_that_wait_for_a_consumer_go_on_when_it_leaves() -> None:
    clock = task.Clock()
    slow = SlowConsumers(clock)
    consumer = Full(100)
    consumers = [consumer]
    waits = [defer.ensureDeferred(slow.wait(consumers)) for _ in range(3)]
    consumers.clear()
    slow.release(consumer)
    assert all(wait.called for wait in waits)
