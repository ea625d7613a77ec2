"""A consumer of several queues whose events begin before Redis has told the positions, with stubs and no sockets."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.testing import StringTransport

from restmq.auth.guard import LISTEN_COMET, Credentials
from restmq.delivery.consumer import CloseReason
from restmq.delivery.several import SeveralQueues
from restmq.delivery.transport_consumer import TransportConsumer
from restmq.errors import StoreUnavailable
from restmq.handlers.several import _events
from restmq.handlers.streams import EVENTS, chunked
from restmq.model import Policy
from tests.unit.fanout_scene import Scene


class Listener(TransportConsumer):
    access = LISTEN_COMET

    def __init__(self) -> None:
        self.transport = StringTransport()
        self.closed: CloseReason | None = None

    @property
    def outlet(self) -> Any:
        return self.transport

    def close(self, reason: CloseReason) -> None:
        self.closed = reason


class Events(Scene):
    """A client of the queues q and r, whose positions the test tells."""

    def __init__(self, last_id: str | None = None) -> None:
        super().__init__()
        self.core.history = None
        self.fanout.startService()
        self.asked: dict[str, defer.Deferred[str]] = {}
        self.core.queue_position = self._position  # type: ignore[attr-defined]
        self.listener = Listener()
        several = SeveralQueues(self.fanout, ["q", "r"], last_id, _events, core=self.core)  # type: ignore[arg-type]
        self.listener.attach(
            fanout=several, queue="q", wire_format=chunked(EVENTS), credentials=Credentials("192.0.2.1")
        )
        several.connect("q", self.listener, None)

    def _position(self, queue: str) -> Any:
        return self.asked.setdefault(queue, defer.Deferred())

    def say(self, queue: str, notice: bytes) -> None:
        self.core.subscriber.say(f"{queue}:PUBSUB".encode(), notice)
        self.clock.advance(0)

    def add(self, queue: str, number: int, value: bytes = b"v") -> None:
        self.say(queue, b"message %b:%d\n%b" % (queue.encode(), number, value))

    @property
    def ids(self) -> list[str]:
        """The ids of the events that were sent."""
        lines = self.listener.transport.value().decode().splitlines()
        return [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]


@pytest.fixture
def events() -> Events:
    return Events()


def test_messages_wait_until_all_positions_are_known_and_then_come_in_order(events: Events) -> None:
    events.asked["r"].callback("~4")
    events.add("r", 5)
    events.add("r", 6)
    assert events.listener.transport.value() == b"", "also no empty chunk, which would end the stream"
    events.asked["q"].callback("17")
    assert events.ids == ["17,5", "17,6"]
    events.add("q", 18)
    assert events.ids[-1] == "18,6"


def test_a_queue_is_listened_to_from_its_own_position_on(events: Events) -> None:
    assert events.fanout.queues == []
    events.asked["r"].callback("~4")
    assert events.fanout.queues == ["r"], "whatever was published before is not for this client"


def test_a_position_that_redis_does_not_tell_stays_empty_and_holds_nothing_back(events: Events) -> None:
    events.core.fails = True
    events.asked["r"].callback("~4")
    events.add("r", 5)
    events.asked["q"].errback(StoreUnavailable("away"))
    assert events.ids == [",5"]
    events.add("q", 1)
    assert events.ids[-1] == "1,5"


def test_a_client_that_resumes_one_queue_waits_for_the_position_in_the_other() -> None:
    events = Events("3,")
    assert events.asked.keys() == {"r"}
    events.add("q", 4)
    assert events.ids == []
    events.asked["r"].callback("~9")
    assert events.ids == ["4,~9"]


def test_a_gap_that_is_held_keeps_its_place(events: Events) -> None:
    events.asked["q"].callback("~4")
    events.add("q", 5)
    events.core.last_number = 7
    events.lose_subscription()
    events.renew_subscription()
    events.clock.advance(1)
    events.add("q", 8)
    assert events.listener.transport.value() == b""
    events.asked["r"].callback("~0")
    first, gap, second = events.listener.transport.value().split(b"event: ")[1:]
    assert (b"id: 5,~0" in first, gap.startswith(b"gap\n"), b"id: 8,~0" in second) == (True, True, True)


def test_only_a_limited_number_of_bytes_is_held(events: Events) -> None:
    value = b"x" * (events.fanout.limits.unsent_bytes // 2)
    events.asked["r"].callback("~0")
    events.add("r", 1, value)
    assert events.ids == []
    for number in (2, 3, 4):
        events.add("r", number, value)
    wait(events)
    assert events.ids == [f",{number}" for number in (1, 2, 3, 4)]
    events.asked["q"].callback("~7")
    events.add("r", 5)
    assert events.ids[-1] == "~7,5"


def wait(events: Events) -> None:
    """Long values are rendered in several turns."""
    for _ in range(1000):
        events.clock.advance(0)


def test_a_message_of_a_round_robin_queue_is_not_taken_before_it_can_be_sent(events: Events) -> None:
    events.core.policy = Policy.ROUNDROBIN
    events.asked["r"].callback("")
    (share,) = events.fanout.consumers("r")
    assert share.capacity() == 0
    events.asked["q"].callback("")
    assert share.capacity() > 0


def test_a_client_that_leaves_meanwhile_is_forgotten(events: Events) -> None:
    events.asked["r"].callback("~4")
    events.listener.detach()
    events.asked["q"].callback("~4")
    assert events.fanout.queues == []
    assert events.ids == []


def test_a_server_that_stops_meanwhile_ends_the_stream(events: Events) -> None:
    events.fanout.stopService()
    events.asked["q"].errback(StoreUnavailable("away"))
    assert events.listener.closed is CloseReason.SHUTDOWN
    assert events.fanout.queues == []
