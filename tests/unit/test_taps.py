"""Taps, with a stub core that publishes copies."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import defer, task

from restmq.delivery.backpressure import BackpressureLimits
from restmq.delivery.consumer import CloseReason
from restmq.delivery.format import Format
from restmq.delivery.shared import Shared
from restmq.delivery.taps import RENEWAL_SECONDS, Taps
from restmq.errors import StoreUnavailable
from restmq.http.turns import Turns
from tests.unit.fanout_scene import StubConsumer, StubCore, StubSubscriber

FORMAT = Format(lambda message: message.key.encode() + b"|", lambda last_key: b"gap " + last_key.encode() + b"|")


class CoreWithTaps(StubCore):
    """The core's part in taps."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = True
        self.renewed = 0
        self.rounds: list[int] = []
        self.copied: dict[str, bytes] = {}

    def pubsub(self, on_message: Any, on_lost: Any, on_renewed: Any, before_renewal: Any = None) -> StubSubscriber:
        return super().pubsub(on_message, on_lost, on_renewed, before_renewal)

    async def queue_tap(self, _queue: str) -> None:
        if self.fails:
            raise StoreUnavailable("away")
        self.renewed += 1
        if self.answers:
            self.publish(f"at {self.last_number}")

    async def queue_confirm_copies(self, _queue: str, round_number: int) -> None:
        self.rounds.append(round_number)

    async def queue_copied_value(self, key: str) -> bytes | None:
        return self.copied.get(key)

    def publish(self, notice: str) -> None:
        self.subscriber.say(b"q:PUBSUB:TAP", notice.encode())


class Scene:
    def __init__(self) -> None:
        self.clock = task.Clock()
        self.core = CoreWithTaps()
        core: Any = self.core
        turns = Turns(self.clock.callLater, self.clock.seconds)
        self.taps = Taps(Shared(core=core, reactor=self.clock, limits=BackpressureLimits(), turns=turns))
        self.taps.startService()

    def tap(self, last_key: str | None = None) -> StubConsumer:
        tap = StubConsumer(FORMAT)

        async def connect() -> None:
            async with self.taps.opened("q"):
                self.taps.connect("q", tap, last_key)

        self.opening = defer.ensureDeferred(connect())
        return tap

    def put(self, *numbers: int) -> None:
        for number in numbers:
            self.core.last_number = number
            self.core.publish(f"message q:{number}\nv")
        self.clock.advance(0)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_messages_of_a_turn_are_one_write(scene: Scene) -> None:
    taps = [scene.tap(), scene.tap()]
    scene.put(1, 2, 3)
    assert [tap.writes for tap in taps] == [[b"q:1|q:2|q:3|"]] * 2


def test_a_tap_waits_until_copies_are_made_for_it(scene: Scene) -> None:
    scene.core.answers = False
    tap = scene.tap()
    scene.put(1)
    assert not scene.opening.called
    scene.core.publish("at 1")
    scene.put(2)
    assert tap.writes == [b"q:2|"]


def test_a_tap_that_waits_too_long_is_refused_and_leaves_nothing_behind(scene: Scene) -> None:
    scene.core.fails = True
    scene.tap()
    failures: list[Any] = []
    scene.opening.addErrback(failures.append)
    scene.clock.advance(scene.core.store.settings.call_timeout_seconds)
    assert failures[0].check(StoreUnavailable)
    assert (scene.taps.queues, scene.core.subscriber.channels) == ([], [])


def test_the_last_tap_ends_the_subscription(scene: Scene) -> None:
    first, second = scene.tap(), scene.tap()
    scene.taps.leave("q", first)
    assert scene.core.subscriber.channels == [b"q:PUBSUB:TAP"]
    scene.taps.leave("q", second)
    scene.taps.leave("q", second)
    assert (scene.taps.queues, scene.core.subscriber.channels) == ([], [])
    renewed = scene.core.renewed
    scene.clock.advance(RENEWAL_SECONDS)
    assert scene.core.renewed == renewed


def test_numbers_that_are_missing_are_told_as_a_gap_in_their_place(scene: Scene) -> None:
    tap = scene.tap()
    scene.put(1, 2, 5, 6)
    assert tap.writes == [b"q:1|q:2|", b"gap q:2|", b"q:5|q:6|"]
    assert scene.taps.counters.gaps == 1


def test_a_renewal_tells_of_a_gap_that_no_message_follows(scene: Scene) -> None:
    tap = scene.tap()
    scene.put(1)
    scene.core.last_number = 4
    scene.clock.advance(RENEWAL_SECONDS)
    scene.clock.advance(RENEWAL_SECONDS)
    scene.put(5)
    assert tap.writes == [b"q:1|", b"gap q:1|", b"q:5|"]


def test_numbers_that_begin_again_are_no_gap(scene: Scene) -> None:
    scene.core.last_number = 6
    tap = scene.tap()
    scene.put(7)
    scene.core.last_number = 0
    scene.clock.advance(RENEWAL_SECONDS)
    scene.put(1, 2)
    assert tap.writes == [b"q:7|", b"q:1|q:2|"]


@pytest.mark.parametrize(("number", "told"), [(3, []), (4, [b"gap q:3|"]), (2, [b"gap q:3|"])])
def test_after_a_broken_subscription_a_gap_is_told_unless_the_last_number_is_the_same(
    scene: Scene, number: int, told: list[bytes]
) -> None:
    """A lower number shows that Redis lost data."""
    tap = scene.tap()
    scene.put(1, 2, 3)
    tap.writes.clear()
    scene.core.subscriber.lose()
    scene.core.last_number = number
    scene.core.subscriber.renew()
    assert tap.writes == told


def test_a_large_value_is_read_in_order_and_told_as_a_gap_if_it_is_lost(scene: Scene) -> None:
    tap = scene.tap()
    scene.core.copied["q:2"] = b"v"
    scene.core.last_number = 4
    for notice in ("message q:1\nv", "stored 99999 q:2", "stored 99999 q:3", "message q:4\nv", "sync 8"):
        scene.core.publish(notice)
    scene.clock.advance(0)
    assert tap.writes == [b"q:1|", b"q:2|", b"gap q:2|", b"q:4|"]
    assert scene.core.rounds == [8]


def test_a_tap_that_falls_behind_gets_nothing_until_it_has_read_everything(scene: Scene) -> None:
    slow, quick = scene.tap(), scene.tap()
    scene.put(1)
    scene.taps.drop("q", slow)
    scene.put(2, 3)
    scene.taps.drop("q", slow)
    scene.put(4)
    assert slow.writes == [b"q:1|"]
    scene.taps.ready("q", slow)
    scene.taps.ready("q", quick)
    scene.put(5)
    assert slow.writes == [b"q:1|", b"gap q:1|", b"q:5|"]
    assert quick.writes == [b"q:1|", b"q:2|q:3|", b"q:4|", b"q:5|"]


def test_if_all_taps_together_have_too_many_unsent_bytes_those_that_have_some_fall_behind(scene: Scene) -> None:
    slow, quick = scene.tap(), scene.tap()
    slow.unsent_bytes = 1
    scene.put(1)
    scene.taps.shared_bytes.hold(b"x" * (scene.taps.shared_bytes.bytes_max + 1))
    scene.put(2)
    assert (slow.writes, quick.writes) == ([b"q:1|"], [b"q:1|", b"q:2|"])


def test_who_saw_another_message_last_is_told_of_a_gap_first(scene: Scene) -> None:
    first = scene.tap()
    scene.put(1, 2)
    same, other = scene.tap("q:2"), scene.tap("q:1")
    scene.put(3)
    assert (same.writes, other.writes) == ([b"q:3|"], [b"gap q:1|", b"q:3|"])
    assert first.writes == [b"q:1|q:2|", b"q:3|"]


def test_a_stop_closes_all_taps(scene: Scene) -> None:
    tap = scene.tap()
    scene.taps.stopService()
    assert (tap.closed, scene.taps.queues) == (CloseReason.SHUTDOWN, [])
