"""The fan-out, with a stub core and a manual clock."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet import defer

from restmq.delivery.consumer import PREFETCH, CloseReason
from restmq.delivery.fanout import HEARTBEAT_SECONDS
from restmq.delivery.format import Format
from restmq.delivery.local import KEEPALIVE_SECONDS
from restmq.model import Message, Policy
from restmq.queues.results import Attendance
from tests.unit.fanout_scene import Scene, StubConsumer


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_message_is_rendered_once_and_the_messages_of_a_turn_are_one_write(scene: Scene) -> None:
    consumers = scene.consumers(100)
    scene.publish(1, 2, 3)
    assert all(consumer.writes == [] for consumer in consumers)
    scene.clock.advance(0)
    assert scene.rendered == ["q:1", "q:2", "q:3"]
    assert all(consumer.writes == [b"q:1|q:2|q:3|"] for consumer in consumers)


def test_consumers_that_keep_the_daemon_busy_get_several_messages_in_one_write(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    (consumer,) = scene.consumers(1)

    def write(*pieces: bytes) -> None:
        consumer.writes.append(b"".join(pieces))
        scene.clock.rightNow += 0.003

    monkeypatch.setattr(StubConsumer, "write", lambda _, *pieces: write(*pieces))
    scene.publish(1)
    scene.clock.advance(0)
    scene.publish(2)
    scene.clock.advance(0.002)
    scene.publish(3)
    assert consumer.writes == [b"q:1|"]
    scene.clock.advance(0.001)
    assert consumer.writes == [b"q:1|", b"q:2|q:3|"]
    scene.clock.advance(0.003)
    scene.publish(4)
    scene.clock.advance(0)
    assert consumer.writes[2:] == [b"q:4|"]


def test_a_server_that_stops_delivers_the_messages_that_have_arrived(scene: Scene) -> None:
    (consumer,) = scene.consumers(1)
    scene.fanout.startService()
    scene.publish(1)
    scene.fanout.stopService()
    assert consumer.writes == [b"q:1|"]
    assert consumer.closed is CloseReason.SHUTDOWN


def test_a_consumer_gets_no_message_from_before_it_joined_even_in_the_same_turn(scene: Scene) -> None:
    (first,) = scene.consumers(1)
    scene.publish(1)
    (second,) = scene.consumers(1)
    scene.publish(2)
    scene.clock.advance(0)
    assert b"".join(first.writes) == b"q:1|q:2|"
    assert b"".join(second.writes) == b"q:2|"


class SceneWithBrokenRecord(Scene):
    """Another program has written a record that is no JSON."""

    def render(self, message: Message) -> bytes:
        json.loads(message.record or b"0")
        return super().render(message)

    def publish_broken(self, queue: str, notice: str) -> None:
        self.core.subscriber.say(f"{queue}:PUBSUB".encode(), f"record {queue}:1\n{{".encode())
        self.core.subscriber.say(f"{queue}:PUBSUB".encode(), notice.encode())


@pytest.fixture
def broken() -> SceneWithBrokenRecord:
    return SceneWithBrokenRecord()


def test_a_record_of_another_program_holds_up_no_other_queue(broken: SceneWithBrokenRecord) -> None:
    broken.consumers(1, "other")
    (consumer,) = broken.consumers(1)
    broken.publish_broken("other", "message other:1\nv")
    broken.publish(1)
    broken.clock.advance(0)
    assert b"".join(consumer.writes) == b"q:1|"


def test_a_large_message_with_a_record_of_another_program_holds_up_none_behind_it(
    broken: SceneWithBrokenRecord,
) -> None:
    (consumer,) = broken.consumers(1)
    broken.core.stored["q:1"] = b"v"
    broken.publish_broken("q", "stored 1 q:1")
    broken.publish(2)
    broken.clock.advance(0)
    broken.core.reads["q:1"].callback(None)
    broken.publish(3)
    broken.clock.advance(1)
    assert b"".join(consumer.writes) == b"gap |q:2|q:3|"


def test_consumers_are_told_of_a_gap_where_a_message_cannot_be_rendered(broken: SceneWithBrokenRecord) -> None:
    (consumer,) = broken.consumers(1)
    broken.publish(1)
    broken.clock.advance(0)
    broken.notify("record q:2\n{")
    broken.publish(2)
    broken.clock.advance(1)
    broken.publish(3)
    broken.clock.advance(1)
    assert b"".join(consumer.writes) == b"q:1|gap q:1|q:3|"
    assert broken.fanout.counters.gaps == 1


def test_a_message_that_cannot_be_rendered_takes_none_from_other_consumers_in_turn(
    broken: SceneWithBrokenRecord,
) -> None:
    broken.core.policy = Policy.ROUNDROBIN
    first, second = broken.consumers(2)
    broken.core.waiting = [Message("q:1", b"v", record=b"{"), Message("q:2", b"v")]
    broken.notify("drain")
    assert (first.writes, second.writes) == ([], [b"q:2|"])


def test_delete_closes_all_consumers_after_a_record_of_another_program(broken: SceneWithBrokenRecord) -> None:
    (consumer,) = broken.consumers(1)
    broken.publish_broken("q", "message q:1\nv")
    broken.notify("close")
    assert consumer.closed is CloseReason.QUEUE_DELETED


def test_a_server_that_stops_closes_all_consumers_after_a_record_of_another_program(
    broken: SceneWithBrokenRecord,
) -> None:
    (first,), (second,) = broken.consumers(1), broken.consumers(1, "other")
    broken.fanout.startService()
    broken.publish_broken("q", "message q:1\nv")
    broken.fanout.stopService()
    assert first.closed is second.closed is CloseReason.SHUTDOWN


def test_the_channel_is_subscribed_only_while_there_are_consumers(scene: Scene) -> None:
    consumers = scene.consumers(2)
    assert b"q:PUBSUB" in scene.core.subscriber.channels
    for consumer in consumers:
        scene.fanout.leave("q", consumer)
        scene.fanout.leave("q", consumer)  # twice does no harm
    assert b"q:PUBSUB" not in scene.core.subscriber.channels
    assert scene.fanout.count == 0


def test_round_robin_asks_for_what_ready_consumers_can_hold(scene: Scene) -> None:
    scene.core.policy = Policy.ROUNDROBIN
    consumers = scene.consumers(3)
    consumers[1].ready = False
    scene.core.waiting = [Message(f"q:{n}", b"v") for n in range(4)]
    scene.core.subscriber.say(scene.core.subscriber.channels[0], b"q")
    assert scene.core.attended[-1] == (2, 128)
    assert [b"".join(consumer.writes) for consumer in consumers] == [b"q:0|q:2|", b"", b"q:1|q:3|"]


def test_messages_that_no_consumer_can_take_go_back_in_order(scene: Scene) -> None:
    scene.core.policy = Policy.ROUNDROBIN
    (consumer,) = scene.consumers(1)
    messages = [Message(f"q:{n}", b"v") for n in range(3)]
    consumer.ready = False
    defer.ensureDeferred(scene.fanout._live["q"]._deliver_in_turn(messages, 0))
    assert scene.core.returned == messages
    assert consumer.writes == []


@pytest.mark.parametrize("lease_ms", [0, 1000])
def test_a_long_message_whose_consumer_leaves_while_it_is_rendered_goes_back(scene: Scene, lease_ms: int) -> None:
    scene.core.policy = Policy.ROUNDROBIN
    (consumer,) = scene.consumers(1)
    consumer.lease_ms = lease_ms
    message = Message("q:1", b"v" * 1_000_000, receipt="r" if lease_ms else "")
    defer.ensureDeferred(scene.fanout._live["q"]._deliver_in_turn([message], lease_ms))
    scene.fanout.leave("q", consumer)
    scene.clock.advance(0)
    assert consumer.writes == []
    assert scene.core.returned == ([] if lease_ms else [message])
    assert scene.core.released == ([("q:1", "r")] if lease_ms else [])


def test_a_turn_for_a_queue_without_consumers_goes_to_the_next_daemon(scene: Scene) -> None:
    scene.core.policy = Policy.ROUNDROBIN
    scene.consumers(1)
    scene.core.subscriber.say(scene.core.subscriber.channels[0], b"another queue")
    assert scene.core.attended[-1] == (0, 0)


def test_delete_closes_all_consumers_after_the_messages_before_it(scene: Scene) -> None:
    consumers = scene.consumers(5)
    scene.publish(1)
    scene.core.subscriber.say(b"q:PUBSUB", b"close")
    assert all(consumer.writes == [b"q:1|"] for consumer in consumers)
    assert all(consumer.closed is CloseReason.QUEUE_DELETED for consumer in consumers)
    assert scene.fanout.count == 0


def test_consumers_stay_connected_while_the_store_is_away(scene: Scene) -> None:
    scene.core.fails = True
    (consumer,) = scene.consumers(1)
    scene.core.fails = False
    scene.lose_subscription()
    scene.renew_subscription()
    scene.clock.advance(1)
    assert scene.core.attended[-1] == (1, 64)
    assert consumer.closed is None


def test_comments_keep_an_idle_stream_alive(scene: Scene) -> None:
    consumer = StubConsumer(Format(scene.render, lambda _: b"", keepalive=b":\n"))
    silent = StubConsumer(scene.format)
    scene.core.store.connected = False
    scene.fanout.startService()
    for one in (consumer, silent):
        scene.fanout.join("q", one)
    scene.clock.pump([5.0] * 7)
    assert consumer.writes == [b":\n"] * 2
    assert silent.writes == []
    scene.fanout.stopService()
    assert consumer.closed is CloseReason.SHUTDOWN


def test_comments_to_many_streams_leave_turns_to_others(scene: Scene) -> None:
    with_comments = Format(scene.render, lambda _: b"", keepalive=b":")
    consumers = [StubConsumer(with_comments) for _ in range(1001)]
    scene.fanout.startService()
    for consumer in consumers:
        scene.fanout.join("q", consumer)
    had_comments: list[StubConsumer] = []

    def take_a_turn() -> None:
        had_comments.extend(consumer for consumer in consumers if consumer.writes)
        for consumer in (consumers[0], consumers[500], had_comments[0]):
            scene.fanout.leave("q", consumer)

    scene.clock.callLater(KEEPALIVE_SECONDS, take_a_turn)
    scene.clock.advance(KEEPALIVE_SECONDS)
    assert 0 < len(had_comments) < 500
    assert consumers[0].writes == consumers[500].writes == []
    left = scene.fanout.consumers("q")
    assert len(left) == 998
    assert all(consumer.writes for consumer in consumers if consumer in left)
    scene.fanout.stopService()


def test_a_backlog_waits_for_a_full_consumer(scene: Scene) -> None:
    first, second = scene.consumers(2)
    before = len(scene.core.attended)
    first.waits_until = second.waits_until = 60
    my_turn = scene.core.subscriber.channels[0], b"q"
    scene.publish(1)
    scene.core.subscriber.say(*my_turn)
    assert first.writes == [b"q:1|"]  # it has what came before, and only then can be seen to be full
    assert len(scene.core.attended) == before
    first.waits_until = 0
    scene.fanout.ready("q", first)
    scene.fanout.leave("q", second)
    assert len(scene.core.attended) == before + 1
    first.waits_until = 60
    scene.core.subscriber.say(*my_turn)
    scene.clock.advance(59)
    assert len(scene.core.attended) == before + 1
    scene.clock.advance(1)
    assert len(scene.core.attended) == before + 2


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [(Attendance(Policy.BROADCAST, True, []), 0.0), (Attendance(Policy.BROADCAST, False, [], is_held_back=True), 1.0)],
    ids=["call again", "held back"],
)
def test_a_daemon_attends_again_as_redis_asks_it_to(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, answer: Attendance, seconds: float
) -> None:
    scene.consumers(1)
    attend, answers = scene.core.queue_attend, [answer]

    async def asked(*args: Any, **options: Any) -> Attendance:
        found = await attend(*args, **options)
        return answers.pop() if answers else found

    monkeypatch.setattr(scene.core, "queue_attend", asked)
    scene.core.attended.clear()
    scene.core.subscriber.say(scene.core.subscriber.channels[0], b"q")
    scene.clock.advance(seconds)
    assert len(scene.core.attended) == 2
    scene.clock.advance(60)
    assert len(scene.core.attended) == 2


@pytest.mark.parametrize("queues", [1, 8, 200])
def test_the_windows_of_all_queues_together_are_bounded(scene: Scene, queues: int) -> None:
    for number in range(queues):
        scene.consumers(1, f"q{number}")
    assert scene.core.granted_bytes[-1] == {1: 1 << 20, 8: 512 << 10, 200: 64 << 10}[queues]


def test_a_daemon_without_consumers_publishes_no_backlog(scene: Scene) -> None:
    (consumer,) = scene.consumers(1)
    assert scene.core.granted_bytes[-1] > 0
    consumer.waits_until = 60
    scene.core.subscriber.say(scene.core.subscriber.channels[0], b"q")
    scene.fanout.leave("q", consumer)
    assert scene.core.granted_bytes[-1] == 0
    assert not scene.fanout._shared.slow_consumers._awaited


def test_a_consumer_that_is_dropped_by_a_keepalive_does_not_end_the_others_keepalives(scene: Scene) -> None:
    with_comments = Format(scene.render, lambda _: b"", keepalive=b":")
    slow, steady = StubConsumer(with_comments), StubConsumer(with_comments)
    slow.write = lambda _: scene.fanout.drop("slow", slow)  # type: ignore[method-assign]
    scene.fanout.startService()
    scene.fanout.join("slow", slow)
    scene.fanout.join("steady", steady)
    for _ in range(3):
        scene.clock.advance(KEEPALIVE_SECONDS)
    assert slow.closed is CloseReason.TOO_SLOW
    assert steady.writes == [b":"] * 3
    scene.fanout.stopService()


def test_consumers_that_join_while_the_last_ones_leave_are_served(scene: Scene) -> None:
    scene.core.policy = Policy.ROUNDROBIN
    (first,) = scene.consumers(1)
    call = scene.core.queue_attend
    answers: list[defer.Deferred[None]] = []

    async def slowly(*args: Any, **options: Any) -> Attendance:
        answers.append(defer.Deferred())
        await answers[-1]
        return await call(*args, **options)

    scene.core.queue_attend = slowly  # type: ignore[assignment]
    scene.core.subscriber.say(scene.core.subscriber.channels[0], b"q")
    scene.fanout.leave("q", first)
    scene.consumers(1)
    for answer in answers:  # grows while it is gone through
        answer.callback(None)
    assert scene.core.attended[-1] == (1, PREFETCH)


def test_too_many_bytes_in_total_drop_the_consumers_with_the_most(scene: Scene) -> None:
    consumers = scene.consumers(3)
    pieces = [bytes(size) for size in (10, 300 << 20, 200 << 20)]
    for consumer, piece in zip(consumers, pieces, strict=True):
        consumer.unsent_bytes = len(piece)
        consumer.close = lambda reason, it=consumer, of=piece: (  # type: ignore[method-assign]
            scene.fanout.shared_bytes.release(of),
            setattr(it, "closed", reason),
        )
        scene.fanout.shared_bytes.hold(piece)
    assert [consumer.closed for consumer in consumers] == [None] * 3
    scene.clock.advance(0)
    assert [consumer.closed for consumer in consumers] == [None, CloseReason.TOO_SLOW, None]
    assert scene.fanout.counters.dropped == 1


# Leases


@pytest.fixture
def leasing(scene: Scene) -> tuple[StubConsumer, StubConsumer]:
    """Two consumers that lease."""
    scene.core.policy = Policy.ROUNDROBIN
    first, second = (StubConsumer(scene.format) for _ in range(2))
    for consumer in (first, second):
        consumer.lease_ms = 1000
        scene.fanout.join("q", consumer)
    return first, second


def test_a_message_leased_again_before_the_end_of_its_lease_is_known_is_held_once(
    scene: Scene, leasing: tuple[StubConsumer, StubConsumer]
) -> None:
    first, second = leasing
    scene.lease("q:1", "r1")
    scene.lease("q:1", "r2")
    assert (first.leases, second.leases) == ({"q:1": "r1"}, {"q:1": "r2"})
    scene.end_lease("q:1", "r1")
    assert (first.leases, second.leases) == ({}, {"q:1": "r2"})
    scene.end_lease("q:1", "r2")
    assert second.leases == {}


def test_a_consumer_that_leaves_ends_only_its_own_leases(
    scene: Scene, leasing: tuple[StubConsumer, StubConsumer]
) -> None:
    first, second = leasing
    scene.lease("q:1", "r1")
    scene.lease("q:1", "r2")
    scene.fanout.leave("q", first)
    assert scene.core.released == [("q:1", "r1")]
    scene.end_lease("q:1", "r2")
    assert second.leases == {}


def test_a_lease_whose_end_was_not_announced_is_checked(
    scene: Scene, leasing: tuple[StubConsumer, StubConsumer]
) -> None:
    first, _ = leasing
    scene.fanout.startService()
    scene.lease("q:1", "r1")
    scene.clock.advance(HEARTBEAT_SECONDS)
    assert scene.core.asked_leases == [[("q:1", "r1")]]
    assert first.leases == {}


def test_a_full_consumer_whose_leases_have_ended_asks_for_more(
    scene: Scene, leasing: tuple[StubConsumer, StubConsumer]
) -> None:
    scene.fanout.leave("q", leasing[1])
    scene.fanout.startService()
    for number in range(PREFETCH):
        scene.lease(f"q:{number}", f"r{number}")
    scene.core.attended.clear()
    scene.clock.advance(HEARTBEAT_SECONDS)
    assert scene.core.attended[-1:] == [(1, PREFETCH)]


def test_an_extended_lease_is_checked_when_it_should_end(
    scene: Scene, leasing: tuple[StubConsumer, StubConsumer]
) -> None:
    first, _ = leasing
    scene.fanout.startService()
    scene.core.left_seconds = {"r1": 1.5 * HEARTBEAT_SECONDS}
    scene.lease("q:1", "r1")
    for _ in range(2):
        scene.clock.advance(HEARTBEAT_SECONDS)
    assert (len(scene.core.asked_leases), first.leases) == (1, {"q:1": "r1"})
    scene.core.left_seconds = {}
    scene.clock.advance(HEARTBEAT_SECONDS)
    assert (len(scene.core.asked_leases), first.leases) == (2, {})


def test_after_a_lost_connection_all_leases_are_checked(
    scene: Scene, leasing: tuple[StubConsumer, StubConsumer]
) -> None:
    first, second = leasing
    scene.core.left_seconds = {"r2": 0.5}
    scene.lease("q:1", "r1")
    scene.lease("q:2", "r2")
    scene.core.subscriber.lose()
    scene.core.subscriber.renew()
    assert (first.leases, second.leases) == ({}, {"q:2": "r2"})
