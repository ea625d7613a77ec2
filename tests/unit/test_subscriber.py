"""Subscriptions whose answers come when the test says so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.testing import StringTransport

from restmq.store.base import ChannelEvents
from restmq.store.connection import SubscriberConnection
from restmq.store.subscriber import Subscriber


class Connection:
    """A connection that notes what is sent."""

    server = b"1"
    connected = True

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

    def listen(self, _owner: Any) -> None: ...

    def send(self, *command: Any) -> None:
        self.sent.append(command)


def test_a_confirmation_of_a_subscription_that_was_given_up_does_not_confirm_the_next_one() -> None:
    connection, channel = Connection(), b"q:PUBSUB"
    subscriber = Subscriber(None, ChannelEvents(on_message=lambda *_: None), None)  # type: ignore[arg-type]
    subscriber.connection_ready(connection)  # type: ignore[arg-type]
    subscriber.subscribe(channel)
    subscriber.unsubscribe(channel)
    confirmed = subscriber.subscribe(channel)
    assert [command for command, _ in connection.sent] == [b"SUBSCRIBE", b"UNSUBSCRIBE", b"SUBSCRIBE"]
    subscriber.confirmed(channel)
    subscriber.ended(channel)
    assert not confirmed.called
    subscriber.confirmed(channel)
    assert confirmed.called


def test_a_channel_that_is_not_subscribed_yet_does_not_count_as_subscribed_again_with_others() -> None:
    told: list[frozenset[bytes]] = []
    events = ChannelEvents(on_message=lambda *_: None, on_renewed=lambda channels: told.append(frozenset(channels)))
    subscriber = Subscriber(None, events, None)  # type: ignore[arg-type]
    subscriber.connection_ready(Connection())  # type: ignore[arg-type]
    subscriber.subscribe(b"old:PUBSUB")
    subscriber.confirmed(b"old:PUBSUB")
    subscriber.connection_lost()
    subscriber.connection_ready(Connection())  # type: ignore[arg-type]
    subscriber.subscribe(b"new:PUBSUB")
    subscriber.confirmed(b"old:PUBSUB")
    assert told == [{b"old:PUBSUB"}]


def test_what_another_program_publishes_on_a_channel_does_not_cut_the_connection() -> None:
    heard: list[bytes] = []
    subscriber = Subscriber(None, ChannelEvents(lambda _, payload: heard.append(b"%d" % int(payload))), None)  # type: ignore[arg-type]
    owner: Any = SimpleNamespace(connection_made=lambda _: None)
    connection = SubscriberConnection(owner)
    connection.makeConnection(StringTransport())
    connection.listen(subscriber)
    for payload in (b"1", b"x", b"2"):
        connection.dataReceived(b"*3\r\n$7\r\nmessage\r\n$1\r\nq\r\n$1\r\n%b\r\n" % payload)
    assert heard == [b"1", b"2"]
