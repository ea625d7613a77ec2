"""Calls to Redis: pool, time limits, reconnecting.

A call either answers, or raises StoreUnavailable within the time limit, or raises StoreRefused. Nothing is queued while
Redis is unreachable. A call that was sent is never cancelled: after StoreUnavailable it is not known whether Redis ran
it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.application import service
from twisted.internet import defer, endpoints, task
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from restmq.errors import StoreUnavailable
from restmq.store.connection import Connection, ConnectionPool, Encoded
from restmq.store.replication import Replication
from restmq.store.scripts import Script
from restmq.store.settings import StoreSettings
from restmq.store.subscriber import Subscriber

log = Logger()

_WATCH_INTERVAL_SECONDS = 0.5


class Store(service.Service):  # type: ignore[misc]  # untyped
    """Makes all calls to Redis; the module's docstring has the guarantees.

    Attributes:
        time_ms: the wall clock, in ms since 1970, for times that are stored or shown.
    """

    def __init__(self, settings: StoreSettings, reactor: Any) -> None:
        self.settings = settings
        self._reactor = reactor
        self._pool = ConnectionPool(settings, settings.pool, reactor)
        self._pools = [self._pool]
        self._replication: Replication | None = None
        if settings.replicas:
            waiting = ConnectionPool(settings, 1, reactor, logs=False)
            self._pools.append(waiting)
            wait_ms = round(settings.call_timeout_seconds * 500)
            self._replication = Replication(
                lambda *args: self._least_busy(waiting).call(*args), settings.replicas, wait_ms
            )
        self._watch = task.LoopingCall(self._abort_overdue)
        self._watch.clock = reactor
        self.time_ms: Callable[[], int] = lambda: int(time.time() * 1000)

    @property
    def clock(self) -> IReactorTime:
        return self._reactor

    def startService(self) -> None:
        super().startService()
        for pool in self._pools:
            if pool.subscriber is None:  # a Subscriber connects for its first channel
                pool.startConnecting(self._endpoint())
        self._watch.start(_WATCH_INTERVAL_SECONDS, now=False)

    def stopService(self) -> defer.Deferred[Any]:
        super().stopService()
        if self._watch.running:
            self._watch.stop()
        return defer.gatherResults([pool.disconnect() for pool in self._pools])

    def _endpoint(self) -> Any:
        timeout = self.settings.call_timeout_seconds
        if self.settings.socket_path:
            return endpoints.UNIXClientEndpoint(self._reactor, self.settings.socket_path, timeout=timeout)
        return endpoints.HostnameEndpoint(self._reactor, self.settings.host, self.settings.port, timeout=timeout)

    def _abort_overdue(self) -> None:
        for pool in self._pools:
            pool.abort_overdue(self.settings.call_timeout_seconds)

    @property
    def first_connected(self) -> defer.Deferred[None]:
        """Fires with the first connection to Redis."""
        return self._pool.first_connected

    @property
    def connected(self) -> bool:
        return bool(self._pool.pool)

    def describe(self) -> str:
        """The store as the first RestMQ described it, e.g. in ``/stats/``."""
        if not self.connected:
            return "<Redis Connection: Not connected>"
        return f"<Redis Connection: {self.settings.where()} - {len(self._pool.pool)} connection(s)>"

    def _least_busy(self, pool: ConnectionPool) -> Connection:
        """The connection with the fewest calls in flight: always the first one while it keeps up."""
        best: Connection | None = None
        for connection in pool.pool:
            if best is None or len(connection.sent_at) < len(best.sent_at):
                best = connection
            if not best.sent_at:
                break
        if best is None:
            raise StoreUnavailable(
                pool.complaint or "the message store (Redis) is not reachable; try again in a moment."
            )
        if len(best.sent_at) >= self.settings.calls_in_flight_max:
            raise StoreUnavailable("the message store (Redis) is overloaded; try again in a moment.")
        return best

    def command(self, *args: Any) -> defer.Deferred[Any]:
        """Makes one command; answers bytes, int, list or None."""
        try:
            return self._least_busy(self._pool).call(*args)
        except StoreUnavailable:
            return defer.fail()

    def run(self, script: Script, first_args: Encoded, *args: Any) -> defer.Deferred[Any]:
        """Runs one script, atomically. ``first_args`` has the number of keys, the keys, and the first arguments."""
        try:
            answer = self._least_busy(self._pool).run(script, first_args, *args)
        except StoreUnavailable:
            return defer.fail()
        if self._replication is not None and script.durable:
            return defer.ensureDeferred(_replicated(answer, self._replication))
        return answer

    def subscriber(
        self,
        on_message: Callable[[bytes, bytes], None],
        on_lost: Callable[[], None] = lambda: None,
        on_renewed: Callable[[], None] = lambda: None,
    ) -> Subscriber:
        """A separate connection for pub/sub; it connects for the first subscription. Args: see Subscriber."""
        factory = ConnectionPool(self.settings, 1, self._reactor, logs=False)
        subscriber = Subscriber(
            factory=factory,
            endpoint=self._endpoint,
            on_message=on_message,
            on_lost=on_lost,
            on_renewed=on_renewed,
            reactor=self._reactor,
        )
        self._pools.append(factory)
        return subscriber

    def drop(self, subscriber: Subscriber) -> defer.Deferred[Any]:
        """Closes a subscriber's connection."""
        subscriber.stop()
        self._pools.remove(subscriber.factory)
        return subscriber.factory.disconnect()


async def _replicated(answer: defer.Deferred[Any], replication: Replication) -> Any:
    result = await answer
    await replication.reached()
    return result
