"""Channel subscriptions that outlive their connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer, task

from restmq.store.base import Channels, RedisCommand, Subscription
from restmq.store.connection import SubscriberConnection
from restmq.store.connection_pool import ConnectionPool

_PING_SECONDS = 15


class Subscriber(Subscription):
    """A set of channels, subscribed again on each new connection.

    Args:
        pool: a pool of one SubscriberConnection.
        on_message: called with channel and payload of each message, in the order in which Redis sent them.
        on_lost: called with all channels when the connection is lost. Messages published from then on are missed.
        on_renewed: called with all channels when they are subscribed again on a new connection.
        before_renewal: called with all channels before that, if another Redis process answers; returns commands to run.
    """

    def __init__(
        self,
        *,
        pool: ConnectionPool,
        on_message: Callable[[bytes, bytes], None],
        on_lost: Callable[[Channels], None],
        on_renewed: Callable[[Channels], None],
        reactor: Any,
        before_renewal: Callable[[Channels], list[RedisCommand]] = lambda _: [],
    ) -> None:
        self.pool = pool
        self.message_received = on_message
        self._on_lost = on_lost
        self._on_renewed = on_renewed
        self._before_renewal = before_renewal
        self._server = b""
        self._connection: SubscriberConnection | None = None
        self._channels: set[bytes] = set()
        self._unconfirmed: dict[bytes, list[defer.Deferred[None]]] = {}
        self._renewing: set[bytes] = set()
        self._was_lost = False
        self._ping = task.LoopingCall(self._send_ping)
        self._ping.clock = reactor

    def subscribe(self, channel: bytes) -> defer.Deferred[None]:
        confirmed: defer.Deferred[None] = defer.Deferred()
        self._channels.add(channel)
        self._unconfirmed.setdefault(channel, []).append(confirmed)
        if self._connection is not None:
            self._connection.send(b"SUBSCRIBE", channel)
        return confirmed

    def unsubscribe(self, channel: bytes) -> None:
        self._channels.discard(channel)
        self._unconfirmed.pop(channel, None)
        if self._connection is not None:
            self._connection.send(b"UNSUBSCRIBE", channel)

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
        commands = self._before_renewal(frozenset(self._channels)) if is_other else []
        answers = [connection.ask(*command) for command in commands]
        answered = defer.DeferredList(answers, consumeErrors=True)
        answered.addCallback(lambda _: self._subscribe_all(connection) if connection.connected else None)

    def _subscribe_all(self, connection: SubscriberConnection) -> None:
        self._connection = connection
        connection.listen(self)
        self._renewing = set(self._channels) if self._was_lost else set()
        if self._channels:
            connection.send(b"SUBSCRIBE", *self._channels)

    def connection_lost(self) -> None:
        self._connection = None
        if self._channels:
            self._was_lost = True
            self._on_lost(frozenset(self._channels))

    def confirmed(self, channel: bytes) -> None:
        for confirmed in self._unconfirmed.pop(channel, []):
            confirmed.callback(None)
        if channel in self._renewing:
            self._renewing.discard(channel)
            if not self._renewing:
                self._on_renewed(frozenset(self._channels))

    def _send_ping(self) -> None:
        if self._connection is not None:
            self._connection.ping()
