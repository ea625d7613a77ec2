"""How far behind a live consumer may be, and who waits for it, with a transport and a clock that are moved by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer, task

from restmq.auth.guard import Credentials
from restmq.delivery.backpressure import BackpressureLimits, Pace
from restmq.delivery.consumer import CloseReason, Format, PacedConsumer
from restmq.transport import unsent_bytes

KIB = 1024
BACKPRESSURE_LIMITS = BackpressureLimits(unsent_bytes=1024 * KIB, stall_seconds=10)
FORMAT = Format(lambda message: message.value, str.encode)


class Outlet:
    """A transport as Twisted's are, whose peer reads when it is told to."""

    full_bytes = 64 * KIB

    def __init__(self) -> None:
        self.dataBuffer, self.offset, self._tempDataLen = b"", 0, 0
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        self._tempDataLen += len(data)
        if self._tempDataLen > self.full_bytes:
            self.producer.pauseProducing()

    def peer_reads(self, size_bytes: int) -> None:
        self._tempDataLen = max(0, self._tempDataLen - size_bytes)
        if not self._tempDataLen:
            self.producer.resumeProducing()


class Consumer(PacedConsumer):
    def __init__(self, fanout: Any) -> None:
        self.transport = Outlet()
        self.transport.producer = self
        self.attach(fanout, "q", FORMAT, Credentials("192.0.2.1"))

    @property
    def outlet(self) -> Any:
        return self.transport

    def transmit(self, frames: bytes) -> None:
        self.transport.write(frames)

    def close(self, reason: CloseReason) -> None:
        """Nobody asks."""


class Scene:
    def __init__(self) -> None:
        self.clock = task.Clock()
        self.dropped: list[Any] = []
        self.relieved: list[Any] = []
        fanout = SimpleNamespace(
            patience=BACKPRESSURE_LIMITS,
            seconds=self.clock.seconds,
            drop=lambda _queue, consumer: self.dropped.append(consumer),
            ready=lambda _queue, consumer: self.relieved.append(consumer),
        )
        self.consumer = Consumer(fanout)

    def give(self, *sizes_kib: int) -> None:
        for size_kib in sizes_kib:
            self.consumer.write(b"x" * (size_kib * KIB))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_one_message_of_any_size_is_never_too_much(scene: Scene) -> None:
    scene.give(100_000)
    scene.clock.advance(3600)
    scene.give(1)
    assert not scene.dropped


def test_one_after_another_of_the_limits_size_is_borne_for_a_while(scene: Scene) -> None:
    scene.give(1100, 1100, 1100)
    assert not scene.dropped
    scene.clock.advance(10 + 3 * 11)
    scene.give(1)
    assert scene.dropped == [scene.consumer]


def test_what_is_too_much_is_too_much_at_once(scene: Scene) -> None:
    scene.give(1100, *[1024] * 4)
    assert not scene.dropped
    scene.give(1, 1)
    assert scene.dropped == [scene.consumer]
    assert unsent_bytes(scene.consumer.outlet) <= 5200 * KIB


def test_who_is_behind_by_less_is_kept_for_ever(scene: Scene) -> None:
    scene.give(1100, 500)
    for _ in range(40):
        scene.clock.advance(3600)
        scene.give(1)
    assert not scene.dropped


def test_what_was_read_meanwhile_does_not_count(scene: Scene) -> None:
    scene.give(1100)
    for _ in range(100):  # always 2,100 KiB unsent or less, never empty
        scene.give(1000)
        scene.clock.advance(1)
        scene.consumer.outlet.peer_reads(1000 * KIB)
    assert not scene.dropped
    assert not scene.relieved


def test_it_is_waited_for_while_it_reads_and_has_time(scene: Scene) -> None:
    assert scene.consumer.full_until() == 0
    scene.give(2048)  # so it has 10 + 20 seconds
    asked = []
    while scene.consumer.full_until() > scene.clock.seconds():
        asked.append(scene.consumer.full_until())
        scene.clock.advance(8)
        scene.consumer.outlet.peer_reads(KIB)
    assert asked == [10, 18, 26, 30]
    scene.give(1024)
    assert scene.consumer.full_until() == 30  # what comes after its time gives it no more
    scene.consumer.outlet.peer_reads(4096 * KIB)
    assert scene.relieved == [scene.consumer]
    assert scene.consumer.full_until() == 0


def test_one_that_takes_nothing_is_not_waited_for_again(scene: Scene) -> None:
    scene.give(16_384)
    assert scene.consumer.full_until() == 10
    scene.clock.advance(10)
    assert scene.consumer.full_until() == 10
    scene.give(1100)
    assert scene.consumer.full_until() == 10
    scene.give(1)
    assert scene.dropped == [scene.consumer]


def test_nobody_waits_for_one_that_has_little_left(scene: Scene) -> None:
    scene.give(600)
    assert scene.consumer.full_until() > 0
    scene.consumer.outlet.peer_reads(100 * KIB)
    assert scene.consumer.paused
    assert scene.consumer.full_until() == 0


def test_less_memory_is_not_more_time() -> None:
    assert BackpressureLimits(1, 10).seconds_for(1 << 20) == BackpressureLimits(1 << 20, 10).seconds_for(1 << 20) == 10
    assert BackpressureLimits(1 << 21, 10).seconds_for(1 << 20) == 5


def test_of_tls_what_lies_below_counts() -> None:
    outlet = Outlet()
    outlet.dataBuffer, outlet.offset, outlet._tempDataLen = b"12345", 2, 40
    assert unsent_bytes(SimpleNamespace(transport=outlet)) == 43
    assert unsent_bytes(SimpleNamespace(transport=None)) == 0
    assert unsent_bytes(None) == 0


class Full:
    def __init__(self, until_seconds: float) -> None:
        self.until_seconds = until_seconds

    def full_until(self) -> float:
        return self.until_seconds


def test_waiting_ends_with_room_a_going_or_the_time() -> None:
    clock = task.Clock()
    pace = Pace(clock)
    fast, gone, later, stuck = consumers = [Full(5), Full(60), Full(60), Full(30)]
    done = defer.ensureDeferred(pace.let_read(consumers))
    pace.relieve(stuck)  # nobody waits for that one yet; it is full until 30
    fast.until_seconds = 0
    pace.relieve(fast)
    consumers.remove(later)
    assert not done.called
    consumers.remove(gone)
    pace.relieve(gone)
    assert not done.called
    clock.advance(29)
    assert not done.called
    clock.advance(1)
    assert done.called
    assert not clock.getDelayedCalls()
    assert not pace._awaited
