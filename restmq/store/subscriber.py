"""Channel subscriptions that outlive their connection.

A channel may be left and subscribed again before Redis has answered. Redis answers in order, so a confirmation that
comes before the answer to an UNSUBSCRIBE belongs to the earlier subscription. That answer does not mean that Redis has
ended the subscription by itself.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from twisted.internet import defer, task

from restmq.store.base import ChannelEvents, Subscription
from restmq.store.connection import ErrorReply, SubscriberConnection
from restmq.store.connection_pool import ConnectionPool

_PING_SECONDS = 15


class Shard(Protocol):
    """What a node's subscriber tells of channels that the node does not have, or not any more."""

    def ended(self, channel: bytes) -> None: ...
    def redirected(self, error: ErrorReply) -> bool: ...


class Subscriber(Subscription):
    """A set of channels, subscribed again on each new connection.

    Args:
        pool: a pool of one SubscriberConnection.
        shard: for a node of a cluster, what happens to channels whose slot the node does not have; None for one Redis.
    """

    def __init__(self, pool: ConnectionPool, events: ChannelEvents, reactor: Any, shard: Shard | None = None) -> None:
        self.pool = pool
        self._events = events
        self._shard = shard
        self._subscribe, self._unsubscribe = (
            (b"SUBSCRIBE", b"UNSUBSCRIBE") if shard is None else (b"SSUBSCRIBE", b"SUNSUBSCRIBE")
        )
        self.message_received = events.on_message
        self._server = b""
        self._connection: SubscriberConnection | None = None
        self._channels: set[bytes] = set()
        self._unconfirmed: dict[bytes, list[defer.Deferred[None]]] = {}
        #: Number of UNSUBSCRIBE commands without an answer, by channel.
        self._leaving: Counter[bytes] = Counter()
        self._renewing: set[bytes] = set()
        self._was_lost = False
        self._ping = task.LoopingCall(self._send_ping)
        self._ping.clock = reactor

    def subscribe(self, channel: bytes) -> defer.Deferred[None]:
        confirmed: defer.Deferred[None] = defer.Deferred()
        self._channels.add(channel)
        self._unconfirmed.setdefault(channel, []).append(confirmed)
        if self._connection is not None:
            self._connection.send(self._subscribe, channel)
        return confirmed

    def unsubscribe(self, channel: bytes) -> None:
        self._channels.discard(channel)
        self._unconfirmed.pop(channel, None)
        self._note_renewed(channel)
        if self._connection is not None:
            self._leaving[channel] += 1
            self._connection.send(self._unsubscribe, channel)

    def start(self, endpoint: Any) -> None:
        """Connects, also before the first subscription."""
        self.pool.start(endpoint)
        self._ping.start(_PING_SECONDS, now=False)

    def stop(self) -> None:
        if self._ping.running:
            self._ping.stop()

    def connection_ready(self, connection: SubscriberConnection) -> None:
        is_other = self._was_lost and connection.server != self._server
        self._server = connection.server
        # A command that fails, e.g. because Redis is full, does not keep the channels from being subscribed.
        commands = self._events.before_renewal(frozenset(self._channels)) if is_other else []
        answers = [connection.ask(*command) for command in commands]
        answered = defer.DeferredList(answers, consumeErrors=True)
        answered.addCallback(lambda _: self._subscribe_all(connection) if connection.connected else None)

    def _subscribe_all(self, connection: SubscriberConnection) -> None:
        self._connection = connection
        self._leaving.clear()
        connection.listen(self)
        self._renewing = set(self._channels) if self._was_lost else set()
        if self._shard is not None:
            for channel in self._channels:  # one command may only name channels of one slot
                connection.send(self._subscribe, channel)
        elif self._channels:
            connection.send(self._subscribe, *self._channels)

    def connection_lost(self) -> None:
        self._connection = None
        if self._channels:
            self._was_lost = True
            self._events.on_lost(frozenset(self._channels))

    def confirmed(self, channel: bytes) -> None:
        if self._leaving[channel]:
            return
        for confirmed in self._unconfirmed.pop(channel, []):
            confirmed.callback(None)
        self._note_renewed(channel)

    def _note_renewed(self, channel: bytes) -> None:
        if channel in self._renewing:
            self._renewing.discard(channel)
            if not self._renewing:
                self._events.on_renewed(frozenset(self._channels - self._unconfirmed.keys()))

    def ended(self, channel: bytes) -> None:
        if self._leaving[channel]:
            self._leaving[channel] -= 1
            if not self._leaving[channel]:
                del self._leaving[channel]
        elif self._shard is not None and channel in self._channels and channel not in self._unconfirmed:
            self._channels.discard(channel)
            self._note_renewed(channel)
            self._shard.ended(channel)

    def redirected(self, error: ErrorReply) -> bool:
        self._leaving.clear()  # the error may be the answer to an UNSUBSCRIBE
        return self._shard is not None and self._shard.redirected(error)

    def ask_again(self, channel: bytes) -> None:
        """Subscribes once more to a channel that was not confirmed."""
        if self._connection is not None:
            self._connection.send(self._subscribe, channel)

    def _send_ping(self) -> None:
        if self._connection is not None:
            self._connection.ping()
