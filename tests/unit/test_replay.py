"""Replay: consumers get the messages that they missed, with a stub core and a manual clock."""

from __future__ import annotations

import re

import pytest
from twisted.internet import defer

from restmq.model import Message, Policy
from restmq.queues.base import State
from tests.unit.fanout_scene import Scene, StubConsumer


@pytest.fixture
def scene() -> Scene:
    return Scene()


def resume(scene: Scene, last_key: str) -> StubConsumer:
    consumer = StubConsumer(scene.format)
    scene.fanout.resume("q", consumer, last_key)
    return consumer


def written(consumer: StubConsumer) -> str:
    return b"".join(consumer.writes).decode()


@pytest.mark.parametrize("reply_first", [True, False])
def test_resuming_has_no_gap_and_no_repeat_at_the_marker(scene: Scene, reply_first: bool) -> None:
    scene.publish(1, 2)
    scene.core.replies = defer.Deferred()
    scene.core.is_subscribed = not reply_first
    consumer = resume(scene, "q:1")
    scene.core.is_subscribed = True
    if reply_first:
        scene.core.replies.callback(None)
        scene.core.mark(next(iter(scene.fanout._live["q"].subscription.replays)).marker)
        scene.publish(3)
    else:
        scene.publish(3)
        scene.clock.advance(0)
        assert consumer.writes == []
        scene.core.replies.callback(None)
    scene.publish(4)
    scene.clock.advance(0)
    assert written(consumer) == "q:2|q:3|q:4|"


def test_consumers_that_reconnect_together_share_the_pages(scene: Scene) -> None:
    scene.publish(1, 2, 3)
    scene.core.replies = defer.Deferred()
    together = [resume(scene, "q:1"), resume(scene, "q:1")]
    other = resume(scene, "q:2")
    assert scene.core.pages_read == 2
    scene.fanout.leave("q", together[0])
    replies, scene.core.replies = scene.core.replies, None
    replies.callback(None)
    assert scene.rendered == ["q:2", "q:3", "q:3"]
    late = resume(scene, "q:1")
    scene.publish(4)
    scene.clock.advance(0)
    assert [written(consumer) for consumer in (*together, other, late)] == [
        "",
        "q:2|q:3|q:4|",
        "q:3|q:4|",
        "q:2|q:3|q:4|",
    ]


def test_resuming_without_a_history_brings_the_messages_that_arrive_meanwhile(scene: Scene) -> None:
    scene.core.history, scene.core.replies = None, defer.Deferred()
    consumer = resume(scene, "q:1")
    scene.publish(2, 3)
    scene.clock.advance(0)
    scene.core.replies.callback(None)
    assert written(consumer) == "q:2|q:3|"


def test_a_consumer_is_told_of_a_gap_before_the_messages(scene: Scene) -> None:
    scene.publish(9)
    assert written(resume(scene, "q:1")) == "gap q:1|q:9|"


def test_a_consumer_that_disconnects_while_it_resumes_gets_nothing_and_leaves_nothing(scene: Scene) -> None:
    scene.publish(1, 2)
    scene.core.replies = defer.Deferred()
    consumer = resume(scene, "q:1")
    live = scene.fanout._live["q"]
    scene.fanout.leave("q", consumer)
    assert scene.fanout.count == 0
    scene.core.replies.callback(None)
    assert consumer.writes == []
    assert live.subscription.replays == []


def test_a_consumer_that_disconnects_before_its_marker_leaves_nothing(scene: Scene) -> None:
    scene.publish(1, 2)
    scene.core.is_subscribed = False  # so the marker never arrives
    consumer = resume(scene, "q:1")
    live = scene.fanout._live["q"]
    assert written(consumer) == "q:2|"
    scene.fanout.leave("q", consumer)
    assert live.subscription.replays == []
    assert not scene.clock.getDelayedCalls()


def test_the_next_page_is_read_when_the_consumer_has_taken_the_last_one(scene: Scene) -> None:
    scene.publish(1, 2, 3, 4, 5)
    scene.core.page_messages = 2
    consumer = StubConsumer(scene.format)
    consumer.waits_until = 60
    scene.fanout.resume("q", consumer, "q:1")
    assert (scene.core.pages_read, written(consumer)) == (1, "q:2|q:3|")
    scene.publish(6)  # it is in the history, and not kept beside
    scene.clock.advance(0)
    consumer.waits_until = 0
    scene.fanout.ready("q", consumer)
    assert (scene.core.pages_read, written(consumer)) == (3, "q:2|q:3|q:4|q:5|q:6|")
    scene.publish(7)
    scene.clock.advance(0)
    assert written(consumer).endswith("|q:6|q:7|")


@pytest.mark.parametrize(("count", "pages"), [(1, 1), (3, 2)])
def test_if_too_many_bytes_arrive_behind_the_marker_the_history_is_read_again(
    scene: Scene, count: int, pages: int
) -> None:
    scene.publish(1)
    scene.core.replies = defer.Deferred()
    consumer = resume(scene, "q:1")
    value = "v" * (scene.fanout.limits.unsent_bytes_max // 2)
    for number in range(2, 2 + count):
        message = Message(f"q:{number}", value.encode())
        scene.core.history.append(message)  # type: ignore[union-attr]
        scene.core.last_number = number
        scene.notify(f"message {message.key}\n{value}")
    scene.clock.advance(0)
    scene.core.replies.callback(None)
    scene.clock.advance(1)
    assert re.findall(r"q:\d", written(consumer)) == [f"q:{number}" for number in range(2, 2 + count)]
    assert scene.core.pages_read == pages


@pytest.mark.parametrize("resumes", [True, False])
def test_if_too_many_bytes_arrive_behind_the_marker_a_gap_is_told_if_there_is_no_history(
    scene: Scene, resumes: bool
) -> None:
    scene.core.history = None
    (consumer,) = scene.consumers(1)
    scene.publish(1)
    scene.clock.advance(0)
    scene.core.replies = defer.Deferred()
    if resumes:
        scene.fanout.leave("q", consumer)
        scene.fanout.resume("q", consumer, "q:1")
    else:
        scene.lose_subscription()
        scene.renew_subscription()
        replies, scene.core.replies = scene.core.replies, defer.Deferred()
        replies.callback(None)
        scene.clock.advance(1)
    for number in (2, 3, 4):
        scene.notify(f"message q:{number}\n" + "v" * (scene.fanout.limits.unsent_bytes_max // 2))
    scene.clock.advance(0)
    scene.core.replies.callback(None)
    scene.publish(5)
    scene.clock.advance(1)
    assert written(consumer) == "q:1|gap q:1|q:5|"


def test_if_too_many_bytes_arrive_before_the_marker_a_gap_is_told_if_there_is_no_history(scene: Scene) -> None:
    scene.consumers(1)
    scene.core.history, scene.core.replies, scene.core.is_subscribed = None, defer.Deferred(), False
    consumer = resume(scene, "q:1")
    scene.core.is_subscribed = True
    for number in (2, 3, 4):
        scene.notify(f"message q:{number}\n" + "v" * (scene.fanout.limits.unsent_bytes_max // 2))
    scene.core.last_number = 4
    scene.core.mark(scene.fanout._live["q"].subscription.replays[0].marker)
    scene.core.replies.callback(None)
    scene.publish(5)
    scene.clock.advance(1)
    assert written(consumer) == "gap q:1|q:5|"


def test_a_history_that_is_cut_while_it_is_read_is_told_as_a_gap(scene: Scene) -> None:
    scene.publish(1, 2, 3, 4, 5)
    scene.core.page_messages = 2
    consumer = StubConsumer(scene.format)
    consumer.waits_until = 60
    scene.fanout.resume("q", consumer, "q:1")
    del scene.core.history[:4]  # type: ignore[union-attr]
    consumer.waits_until = 0
    scene.fanout.ready("q", consumer)
    assert written(consumer) == "q:2|q:3|gap q:3|q:5|"


def test_a_consumer_whose_marker_was_lost_gets_the_rest_after_the_reconnect(scene: Scene) -> None:
    scene.publish(1, 2)
    scene.core.is_subscribed = False
    consumer = resume(scene, "q:1")
    scene.lose_subscription()
    scene.publish(3)
    scene.renew_subscription()
    scene.clock.advance(1)
    scene.publish(4)
    scene.clock.advance(0)
    assert written(consumer) == "q:2|q:3|q:4|"
    assert consumer.closed is None


# A subscription that breaks


def test_live_consumers_get_what_they_missed_from_the_history(scene: Scene) -> None:
    first, second = scene.consumers(2)
    scene.publish(1)
    scene.lose_subscription()
    scene.publish(2, 3)
    (late,) = scene.consumers(1)
    scene.renew_subscription()
    scene.clock.advance(1)
    scene.publish(4)
    scene.clock.advance(0)
    assert written(first) == written(second) == "q:1|q:2|q:3|q:4|"
    assert written(late) == "q:4|"
    assert (scene.fanout.counters.lost_subscriptions, scene.fanout.counters.gaps) == (1, 0)


def test_consumers_that_had_no_message_yet_get_what_they_missed_too(scene: Scene) -> None:
    (consumer,) = scene.consumers(1)
    scene.lose_subscription()
    scene.publish(1, 2)
    scene.renew_subscription()
    scene.clock.advance(1)
    assert written(consumer) == "q:1|q:2|"


def test_nothing_is_told_where_nothing_was_missed(scene: Scene) -> None:
    (consumer,) = scene.consumers(1)
    for _ in range(2):
        scene.lose_subscription()
        scene.renew_subscription()
        scene.clock.advance(1)
        scene.core.history = None
    assert consumer.writes == []
    scene.publish(1)
    scene.clock.advance(0)
    assert written(consumer) == "q:1|"


def test_without_a_history_consumers_are_told_of_a_gap(scene: Scene) -> None:
    scene.core.history = None
    consumers = scene.consumers(2)
    scene.publish(1)
    scene.clock.advance(0)
    scene.lose_subscription()
    scene.publish(2)
    scene.renew_subscription()
    scene.publish(3)
    scene.clock.advance(1)
    scene.publish(4)
    scene.clock.advance(0)
    assert [written(consumer) for consumer in consumers] == ["q:1|gap q:1|q:3|q:4|"] * 2
    assert scene.fanout.counters.gaps == 2


def test_a_round_robin_queue_has_no_gap_if_the_subscription_breaks_before_its_policy_is_known(scene: Scene) -> None:
    scene.core.policy, scene.core.history, scene.core.last_number = Policy.ROUNDROBIN, None, 3
    scene.core.fails = True
    (consumer,) = scene.consumers(1)
    scene.lose_subscription()
    scene.core.fails = False
    scene.renew_subscription()
    scene.clock.advance(1)
    assert scene.core.pages_read
    assert consumer.writes == []


@pytest.mark.parametrize("keeps_history", [True, False])
def test_nothing_is_missed_if_the_subscription_breaks_before_the_position_is_known(
    scene: Scene, keeps_history: bool
) -> None:
    scene.core.fails = True
    (consumer,) = scene.consumers(1)
    scene.lose_subscription()
    scene.core.fails = False
    if keeps_history:
        scene.publish(1, 2)
    else:
        scene.core.history = None
    scene.renew_subscription()
    scene.clock.advance(1)
    scene.publish(3)
    scene.clock.advance(0)
    assert written(consumer) == ("q:1|q:2|q:3|" if keeps_history else "q:3|")


def test_each_gap_is_told_in_its_place_if_the_subscription_breaks_again(scene: Scene) -> None:
    scene.core.history = None
    (consumer,) = scene.consumers(1)
    scene.publish(1)
    scene.clock.advance(0)
    for missed in (2, 4):
        scene.lose_subscription()
        scene.publish(missed)
        scene.renew_subscription()
        scene.publish(missed + 1)
    scene.clock.advance(1)
    assert written(consumer) == "q:1|gap q:1|q:3|gap q:3|q:5|"


def test_a_message_that_is_missing_in_the_history_too_is_told_as_a_gap(scene: Scene) -> None:
    (consumer,) = scene.consumers(1)
    scene.lose_subscription()
    scene.publish(1)
    scene.core.history.clear()  # type: ignore[union-attr]
    scene.renew_subscription()
    scene.clock.advance(1)
    assert written(consumer) == "gap |"


def test_a_history_that_begins_too_late_for_a_consumer_without_a_message_is_told_as_a_gap(scene: Scene) -> None:
    (consumer,) = scene.consumers(1)
    scene.lose_subscription()
    scene.publish(1, 2)
    del scene.core.history[0]  # type: ignore[union-attr]
    scene.renew_subscription()
    scene.clock.advance(1)
    assert written(consumer) == "gap |q:2|"


def test_messages_that_arrived_come_before_a_gap_behind_them(scene: Scene) -> None:
    scene.core.history = None
    (consumer,) = scene.consumers(1)
    scene.publish(1)
    scene.clock.advance(0)
    scene.lose_subscription()
    scene.publish(2)
    scene.renew_subscription()
    scene.publish(3)
    scene.lose_subscription()
    scene.publish(4)
    scene.renew_subscription()
    scene.clock.advance(1)
    assert written(consumer) == "q:1|gap q:1|q:3|gap q:3|"


def test_reading_the_history_goes_on_when_the_store_answers_again(scene: Scene) -> None:
    (consumer,) = scene.consumers(1)
    scene.publish(1)
    scene.lose_subscription()
    scene.core.fails = True
    scene.publish(2)
    scene.renew_subscription()
    scene.clock.advance(5)
    assert written(consumer) == "q:1|"
    scene.core.fails = False
    scene.clock.advance(1)
    assert written(consumer) == "q:1|q:2|"


# Values beside the channel


def test_a_stored_message_keeps_its_place_among_the_others(scene: Scene) -> None:
    (consumer,) = scene.consumers(1)
    scene.publish(1)
    scene.core.stored["q:2"] = b"large"
    scene.notify("stored 5 q:2")
    scene.publish(3)
    scene.notify("sync 7")
    scene.clock.advance(0)
    assert written(consumer) == "q:1|"
    assert scene.core.confirmed == []
    scene.core.reads["q:2"].callback(None)
    assert written(consumer) == "q:1|q:2|q:3|"
    assert [number for number, _ in scene.core.confirmed] == [7]


def test_stored_messages_of_all_queues_are_read_within_a_limit_in_bytes(scene: Scene) -> None:
    scene.consumers(1)
    scene.consumers(1, "r")
    scene.core.stored = {"q:1": b"large", "r:1": b"x"}
    scene.notify(f"stored {32 << 20} q:1")
    scene.core.subscriber.say(b"r:PUBSUB", b"stored 1 r:1")
    assert list(scene.core.reads) == ["q:1"]
    scene.core.reads["q:1"].callback(None)
    assert list(scene.core.reads) == ["q:1", "r:1"]


def test_a_stored_message_that_is_lost_comes_from_the_history(scene: Scene) -> None:
    (consumer,) = scene.consumers(1)
    scene.publish(1)
    scene.core.history.append(Message("q:2", b"large"))  # type: ignore[union-attr]
    scene.notify("stored 5 q:2")
    scene.core.reads["q:2"].callback(None)
    scene.publish(3)
    scene.clock.advance(1)
    assert written(consumer) == "q:1|q:2|q:3|"


@pytest.mark.parametrize(("state", "seconds"), [(State.MORE, 0), (State.HELD_BACK, 1)])
def test_a_daemon_attends_after_a_confirmation_as_redis_asks_it_to(scene: Scene, state: State, seconds: float) -> None:
    scene.consumers(1)
    scene.core.confirm_state = state
    scene.core.attended.clear()
    scene.notify("sync 1")
    scene.clock.advance(seconds)
    assert len(scene.core.attended) == 1


def test_a_round_is_confirmed_when_the_consumers_can_take_more(scene: Scene) -> None:
    (consumer,) = scene.consumers(1)
    consumer.waits_until = 60
    scene.notify("sync 1")
    scene.clock.pump([0.5] * 3)
    assert (scene.core.confirmed, scene.core.held) == ([], 3)
    consumer.waits_until = 0
    scene.fanout.ready("q", consumer)
    assert scene.core.confirmed == [(1, 1 << 20)]


def test_what_a_consumer_got_from_the_history_is_not_repeated_if_the_subscription_breaks_again(scene: Scene) -> None:
    (consumer,) = scene.consumers(1)
    scene.publish(1)
    scene.clock.advance(0)
    for number in (2, 3):
        scene.lose_subscription()
        scene.publish(number)
        scene.renew_subscription()
        scene.clock.advance(1)
    assert b"".join(consumer.writes) == b"q:1|q:2|q:3|"
