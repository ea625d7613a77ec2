"""The fan-out engine, with a stub core and a manual clock."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer, task

from restmq.auth.guard import LISTEN_COMET, Credentials
from restmq.delivery.consumer import PREFETCH, CloseReason, Format
from restmq.delivery.fanout import HEARTBEAT_SECONDS, KEEPALIVE_SECONDS, Fanout
from restmq.errors import StoreUnavailable
from restmq.model import Message, Policy
from restmq.queues.results import Attendance, QueueOverview, ReplayPage
from restmq.store.settings import StoreSettings


class StubSubscriber:
    """Confirms at once. A test publishes on its channels."""

    def __init__(self, on_message: Callable[[bytes, bytes], None], on_lost: Any, on_renewed: Any) -> None:
        self.say, self.lose, self.renew = on_message, on_lost, on_renewed
        self.channels: list[bytes] = []

    def subscribe(self, channel: bytes) -> defer.Deferred[None]:
        self.channels.append(channel)
        return defer.succeed(None)

    def unsubscribe(self, channel: bytes) -> None:
        self.channels.remove(channel)

    def stop(self) -> None:
        self.channels.clear()


def history(messages: list[Message], kept: bool = True, gap: bool = False) -> ReplayPage:
    return ReplayPage(kept=kept, gap=gap, more=False, last_key="", messages=messages)


class StubCore:
    """The core's part in fan-out: a policy, and messages for the daemon that attends."""

    def __init__(self) -> None:
        self.policy = Policy.BROADCAST
        self.waiting: list[Message] = []
        self.attended: list[tuple[int, int]] = []
        self.granted_bytes: list[int] = []
        self.returned: list[Message] = []
        self.missed = defer.Deferred[ReplayPage]()
        self.marks: list[str] = []
        self.released: list[tuple[str, str]] = []
        self.left_seconds: dict[str, float] = {}
        self.asked_leases: list[list[tuple[str, str]]] = []
        self.fails = False
        self.store = SimpleNamespace(connected=True, settings=StoreSettings())

    def pubsub(self, on_message: Any, on_lost: Any, on_renewed: Any) -> StubSubscriber:
        self.subscriber = StubSubscriber(on_message, on_lost, on_renewed)
        return self.subscriber

    async def queue_attend(
        self, _queue: str, _daemon: bytes, weight: int, room: int, _lease_ms: int = 0, window_bytes: int = 1
    ) -> Attendance:
        if self.fails:
            raise StoreUnavailable("away")
        self.attended.append((weight, room))
        self.granted_bytes.append(window_bytes)
        taken, self.waiting = self.waiting[:room], self.waiting[room:]
        return Attendance(self.policy, False, taken if self.policy is Policy.ROUNDROBIN else [])

    async def queue_put_back(self, _queue: str, messages: list[Message]) -> None:
        self.returned += messages

    async def queue_release(self, _queue: str, leases: list[tuple[str, str]]) -> int:
        self.released += leases
        return len(leases)

    async def queue_lease_remaining(self, _queue: str, leases: list[tuple[str, str]]) -> list[float | None]:
        self.asked_leases.append(leases)
        return [self.left_seconds.get(receipt) for _, receipt in leases]

    async def queue_overview(self, _queues: list[str]) -> list[QueueOverview]:
        return []

    async def queue_replay(self, _queue: str, _after: str, mark: str) -> ReplayPage:
        self.marks.append(mark)
        return await self.missed


class StubConsumer:
    def __init__(self, wire_format: Format) -> None:
        self.format = wire_format
        self.writes: list[bytes] = []
        self.ready = True
        self.lease_ms = 0
        self.credentials, self.access = Credentials("192.0.2.1"), LISTEN_COMET
        self.since_seconds = 0.0
        self.leases: dict[str, str] = {}
        self.closed: CloseReason | None = None
        self.waits_until = 0.0

    def write(self, frames: bytes) -> None:
        self.writes.append(frames)

    def capacity(self) -> int:
        return PREFETCH - len(self.leases) if self.ready else 0

    def wait_until(self, is_shared: bool = False) -> float:
        return self.waits_until

    def close(self, reason: CloseReason) -> None:
        self.closed = reason


class Scene:
    """An engine, its clock and its stubs."""

    def __init__(self) -> None:
        self.clock = task.Clock()
        self.core = StubCore()
        self.fanout = Fanout(self.core, self.clock)  # type: ignore[arg-type]
        self.rendered: list[str] = []
        self.format = Format(self.render, lambda key: f"gap {key}|".encode())

    def render(self, message: Message) -> bytes:
        self.rendered.append(message.key)
        return message.key.encode() + b"|"

    def consumers(self, count: int, queue: str = "q") -> list[StubConsumer]:
        made = [StubConsumer(self.format) for _ in range(count)]
        for consumer in made:
            self.fanout.join(queue, consumer)
        return made

    def lease(self, key: str, receipt: str) -> None:
        """Leases a message to this daemon for a second, as Redis does."""
        self.fanout._live["q"].attending._deliver_in_turn([Message(key, b"v", receipt=receipt)], 1000)

    def end_lease(self, key: str, receipt: str) -> None:
        """Notifies the daemon that a lease has ended, as Redis does."""
        self.core.subscriber.say(self.core.subscriber.channels[0], f"q\n{key} {receipt}".encode())

    def publish(self, *numbers: int) -> None:
        for number in numbers:
            self.core.subscriber.say(b"q:PUBSUB", f"message q:{number}\nv".encode())


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


def test_a_consumer_gets_no_message_from_before_it_joined_even_in_the_same_turn(scene: Scene) -> None:
    (first,) = scene.consumers(1)
    scene.publish(1)
    (second,) = scene.consumers(1)
    scene.publish(2)
    scene.clock.advance(0)
    assert b"".join(first.writes) == b"q:1|q:2|"
    assert b"".join(second.writes) == b"q:2|"


def test_the_channel_is_subscribed_only_while_there_are_consumers(scene: Scene) -> None:
    consumers = scene.consumers(2)
    assert b"q:PUBSUB" in scene.core.subscriber.channels
    for consumer in consumers:
        scene.fanout.leave("q", consumer)
        scene.fanout.leave("q", consumer)  # twice does no harm
    assert b"q:PUBSUB" not in scene.core.subscriber.channels
    assert scene.fanout.count("q") == 0


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
    scene.fanout._live["q"].attending._deliver_in_turn(messages, 0)
    assert scene.core.returned == messages
    assert consumer.writes == []


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
    assert scene.fanout.count("q") == 0


def test_consumers_stay_connected_while_the_store_is_away(scene: Scene) -> None:
    scene.core.fails = True
    (consumer,) = scene.consumers(1)
    scene.core.fails = False
    scene.core.subscriber.lose()
    scene.core.subscriber.renew()
    assert scene.core.attended == [(1, 64)]
    assert consumer.closed is None


@pytest.mark.parametrize("reply_first", [True, False])
def test_resuming_has_no_gap_and_no_repeat_at_the_marker(scene: Scene, reply_first: bool) -> None:
    consumer = StubConsumer(scene.format)
    scene.fanout.resume("q", consumer, "q:1")
    missed = history([Message("q:2", b"v"), Message("q:3", b"v")])
    scene.publish(3)  # heard before the mark, so it is in the history too
    mark = f"mark {scene.core.marks[0]}".encode()
    if reply_first:
        scene.core.missed.callback(missed)
        scene.core.subscriber.say(b"q:PUBSUB", mark)
        scene.publish(4)
    else:
        scene.core.subscriber.say(b"q:PUBSUB", mark)
        scene.publish(4)
        scene.clock.advance(0)
        assert consumer.writes == []
        scene.core.missed.callback(missed)
    scene.publish(5)
    scene.clock.advance(0)
    assert b"".join(consumer.writes) == b"q:2|q:3|q:4|q:5|"


def test_resuming_without_a_history_keeps_the_messages_that_arrive_meanwhile(scene: Scene) -> None:
    consumer = StubConsumer(scene.format)
    scene.fanout.resume("q", consumer, "q:1")
    scene.publish(2)
    scene.core.subscriber.say(b"q:PUBSUB", f"mark {scene.core.marks[0]}".encode())
    scene.publish(3)
    scene.clock.advance(0)
    scene.core.missed.callback(history([], kept=False))
    assert b"".join(consumer.writes) == b"q:2|q:3|"


def test_a_consumer_is_told_of_a_gap_before_the_messages(scene: Scene) -> None:
    consumer = StubConsumer(scene.format)
    scene.fanout.resume("q", consumer, "q:1")
    scene.core.missed.callback(history([Message("q:9", b"v")], gap=True))
    scene.core.subscriber.say(b"q:PUBSUB", f"mark {scene.core.marks[0]}".encode())
    assert b"".join(consumer.writes) == b"gap q:1|q:9|"


def test_a_consumer_whose_marker_is_lost_is_closed_so_that_it_reconnects(scene: Scene) -> None:
    consumer = StubConsumer(scene.format)
    scene.fanout.resume("q", consumer, "q:1")
    scene.core.missed.callback(history([]))
    scene.core.subscriber.lose()
    assert consumer.closed is CloseReason.TRY_AGAIN
    assert scene.fanout.count("q") == 0


def test_a_consumer_that_disconnects_while_it_resumes_gets_nothing(scene: Scene) -> None:
    consumer = StubConsumer(scene.format)
    scene.fanout.resume("q", consumer, "q:1")
    scene.fanout.leave("q", consumer)
    assert scene.fanout.count("q") == 0
    scene.core.missed.callback(history([Message("q:2", b"v")]))
    assert consumer.writes == []


def test_comments_keep_an_idle_stream_alive(scene: Scene) -> None:
    consumer = StubConsumer(Format(scene.render, lambda _: b"", keepalive=b":\n\n"))
    silent = StubConsumer(scene.format)
    for one in (consumer, silent):
        scene.fanout.join("q", one)
    scene.core.store.connected = False
    scene.fanout.startService()
    scene.clock.pump([5.0] * 7)
    assert consumer.writes == [b":\n\n"] * 2
    assert silent.writes == []
    scene.fanout.stopService()
    assert consumer.closed is CloseReason.SHUTDOWN


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


def test_a_daemon_without_consumers_publishes_no_backlog(scene: Scene) -> None:
    (consumer,) = scene.consumers(1)
    assert scene.core.granted_bytes[-1] > 0
    consumer.waits_until = 60
    scene.core.subscriber.say(scene.core.subscriber.channels[0], b"q")
    scene.fanout.leave("q", consumer)
    assert scene.core.granted_bytes[-1] == 0
    assert not scene.fanout._slow_consumers._awaited


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


def test_a_consumer_that_resumes_while_the_connection_is_lost_is_closed_so_that_it_reconnects(scene: Scene) -> None:
    _, consumer = scene.consumers(1), StubConsumer(scene.format)
    scene.core.subscriber.lose()
    scene.fanout.resume("q", consumer, "q:1")  # its mark is published to nobody
    scene.core.missed.callback(history([]))
    assert consumer.closed is None
    scene.core.subscriber.renew()
    assert consumer.closed is CloseReason.TRY_AGAIN
    assert scene.fanout.count("q") == 1


def test_consumers_that_join_while_the_last_ones_leave_are_served(scene: Scene) -> None:
    scene.core.policy = Policy.ROUNDROBIN
    (first,) = scene.consumers(1)
    call = scene.core.queue_attend
    answers: list[defer.Deferred[None]] = []

    async def slowly(*args: Any) -> Attendance:
        answers.append(defer.Deferred())
        await answers[-1]
        return await call(*args)

    scene.core.queue_attend = slowly  # type: ignore[assignment]
    scene.core.subscriber.say(scene.core.subscriber.channels[0], b"q")
    scene.fanout.leave("q", first)
    scene.consumers(1)
    for answer in answers:  # grows while it is gone through
        answer.callback(None)
    assert scene.core.attended[-1] == (1, PREFETCH)


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
