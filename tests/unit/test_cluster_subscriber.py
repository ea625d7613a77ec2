"""Where channels are subscribed while slots move, with nodes that answer when the test says so."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import defer, task

from restmq.store.base import ChannelEvents
from restmq.store.cluster.subscriber import ClusterSubscriber
from restmq.store.connection import ErrorReply

CHANNEL = b"{1}q:PUBSUB"


class Node:
    """A node, and its subscriber.

    Attributes:
        asked: how often each channel was asked for.
    """

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._confirmed: defer.Deferred[None] = defer.Deferred()

    def subscriber(self, events: ChannelEvents, shard: Any) -> Node:
        return self

    def subscribe(self, channel: bytes) -> defer.Deferred[None]:
        self.asked.append(channel)
        return self._confirmed

    ask_again = subscribe

    def confirm(self) -> None:
        self._confirmed.callback(None)

    def unsubscribe(self, channel: bytes) -> None: ...
    def stop(self) -> None: ...


class Scene:
    """A channel that is subscribed on the first of two nodes.

    Attributes:
        answer: of the command that must run before the channel is subscribed on another node.
        told: what was told of the channel.
    """

    def __init__(self) -> None:
        self.clock = task.Clock()
        self.here, self.there = Node(), Node()
        self.owner: Node | None = self.here
        self.answer: defer.Deferred[None] = defer.Deferred()
        self.told: list[str] = []
        events = ChannelEvents(
            on_message=lambda *_: None,
            on_lost=lambda _: self.told.append("lost"),
            on_renewed=lambda _: self.told.append("renewed"),
            before_renewal=lambda _: [(b"SET", b"{1}q:held")],
        )
        self.subscriber = ClusterSubscriber(self, lambda _: 1, events, self.clock)  # type: ignore[arg-type]
        self.subscriber.subscribe(CHANNEL)
        self.here.confirm()

    def node_of(self, _partition: int) -> Any:
        return self.owner

    def renew_map(self) -> None: ...

    def command(self, *_args: Any) -> defer.Deferred[None]:
        return self.answer


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_channel_whose_slot_moved_is_subscribed_at_the_new_node_and_this_is_told(scene: Scene) -> None:
    scene.owner = scene.there
    scene.subscriber.ended(CHANNEL)
    scene.clock.advance(1)
    scene.answer.callback(None)
    scene.there.confirm()
    scene.clock.advance(1)
    assert (scene.here.asked, scene.there.asked, scene.told) == ([CHANNEL], [CHANNEL], ["lost", "renewed"])


def test_channels_are_asked_for_again_while_others_are_not_ready_to_be_subscribed(scene: Scene) -> None:
    scene.owner = scene.there
    scene.subscriber.map_changed([scene.there])  # type: ignore[list-item]
    scene.subscriber.redirected(ErrorReply("MOVED 1 127.0.0.1:1"))
    scene.clock.advance(1)
    assert scene.there.asked == []
    scene.answer.callback(None)
    scene.subscriber.redirected(ErrorReply("TRYAGAIN"))
    scene.clock.advance(1)
    assert scene.there.asked == [CHANNEL, CHANNEL]
