"""Calls to Redis: pools, time limits, reconnecting, failover.

A call either answers, or raises StoreUnavailable within the time limit, or raises StoreRefused. Nothing is queued while
Redis is unreachable. A call that was sent is never cancelled: after StoreUnavailable it is unknown whether Redis ran
it, unless the error says that nothing was done.

The connections:

1. One per subscriber. They connect first, so that consumers are served even if Redis permits few connections
   (``maxclients``).
2. With ``replicas``, one for ``WAIT``.
3. The pool for calls. One connection is enough to serve; the others are made when all the above are there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import defer, endpoints
from twisted.logger import Logger

from restmq.errors import RestMQError, StoreRefused, StoreUnavailable
from restmq.store import handshake, keys, scripts
from restmq.store.base import BaseStore, ChannelEvents
from restmq.store.connection import Connection, Encoded, ErrorReply, SubscriberConnection
from restmq.store.connection_pool import ConnectionPool
from restmq.store.replication import NO_OP, Replication
from restmq.store.reports import Outage, Refusals
from restmq.store.scripts import Script
from restmq.store.sentinel import Sentinels
from restmq.store.settings import StoreSettings, endpoint_to, show_address
from restmq.store.subscriber import Shard, Subscriber

log = Logger()

#: Number of calls of one reactor turn on one connection. Beyond it, another connection takes part.
_CALLS_TOGETHER_MAX = 100
_NOT_REACHABLE = "the message store (Redis) is not reachable; try again in a moment."
NOT_READY = "the message store (Redis) takes no writes now; see the server's log."
#: Errors by which a server says that it is a replica. Redis checks this before a script's first write.
_OF_A_REPLICA = ("READONLY", "MASTERDOWN")
_BECAME_REPLICA = "the message store (Redis) has become a replica. Nothing was done; try again in a moment."


class Store(BaseStore):
    """Makes all calls to one Redis; the module's docstring has the guarantees."""

    def __init__(self, settings: StoreSettings, reactor: Any) -> None:
        layout = keys.cluster() if settings.is_cluster_node else keys.one_redis(settings.db)
        super().__init__(settings, layout, reactor)
        self._outage = Outage(settings.where(), reactor, settings.start_seconds)
        self._refusals = Refusals(reactor)
        self._pool = self._make_pool(settings.pool)
        self._subscribers: list[Subscriber] = []
        self._waiting: ConnectionPool | None = None
        self._replication: Replication | None = None
        if settings.replicas:
            self._waiting = waiting = self._make_pool(1)
            wait_ms = round(settings.call_timeout_seconds * 500)
            self._replication = Replication(lambda: self._least_busy(waiting), settings.replicas, wait_ms, self._no_op)
        self._sentinels: Sentinels | None = None
        if settings.sentinel is not None:
            self._sentinels = Sentinels(settings, settings.sentinel, self._primary_moved, reactor)
        self._unknown_servers = 0

    def _make_pool(self, size: int, kind: Callable[..., Connection] = Connection) -> ConnectionPool:
        return ConnectionPool(settings=self.settings, size=size, owner=self, reactor=self._reactor, kind=kind)

    async def _no_op(self, connection: Connection) -> None:
        await connection.call(*NO_OP)

    @property
    def _pools(self) -> list[ConnectionPool]:
        """All pools, in the order in which they connect."""
        waiting = [self._waiting] if self._waiting is not None else []
        return [*(subscriber.pool for subscriber in self._subscribers), *waiting, self._pool]

    def startService(self) -> None:
        super().startService()
        if self._sentinels is not None:
            self._sentinels.start()
        for subscriber in self._subscribers:
            subscriber.start(self._endpoint())
        attempted = defer.DeferredList([subscriber.pool.first_attempted for subscriber in self._subscribers])
        attempted.addCallback(lambda _: self._connect_for_calls())

    def _connect_for_calls(self) -> None:
        if self.running:
            if self._waiting is not None:
                self._waiting.start(self._endpoint())
            self._pool.start(self._endpoint())

    def stopService(self) -> defer.Deferred[Any]:
        return self._stop()

    def _stop(self, after_answers: bool = False) -> defer.Deferred[Any]:
        super().stopService()
        self._refusals.stop()
        for subscriber in self._subscribers:
            subscriber.stop()
        sentinels = [self._sentinels.stop()] if self._sentinels is not None else []
        return defer.gatherResults([*sentinels, *(pool.stop(after_answers) for pool in self._pools)])

    def _endpoint(self) -> Any:
        if self._sentinels is not None:
            return self._sentinels
        timeout = self.settings.call_timeout_seconds
        if self.settings.socket_path:
            return endpoints.UNIXClientEndpoint(self._reactor, self.settings.socket_path, timeout=timeout)
        return endpoint_to((self.settings.host, self.settings.port), self.settings, self._reactor, timeout)

    def _primary_moved(self, address: tuple[str, int]) -> None:
        """Gives up all connections to another server: what is written there now would be lost."""
        self.counters.failovers += 1
        for pool in self._pools:
            pool.abort_others(lambda connection: connection.address in (None, address))
            pool.hurry()

    @property
    def connected(self) -> bool:
        return bool(self._pool.pool)

    @property
    def connection_count(self) -> int:
        """Number of connections for calls."""
        return len(self._pool.pool)

    @property
    def reason(self) -> str:
        """Why Redis cannot be used, for operators; empty if it can, or if that is not known."""
        return "" if self.connected else self._outage.reason

    def reaches(self, stored: bytes) -> bool:
        return self.connected

    def node_of(self, partition: int) -> Any:
        return self

    @property
    def servers(self) -> list[Any]:
        return [self]

    @property
    def where(self) -> str:
        """The server's address, for people: of the primary, once the Sentinels have told. A path is not shown."""
        if self._sentinels is not None and self._sentinels.primary_address is not None:
            return show_address(self._sentinels.primary_address)
        return "a Unix socket" if self.settings.socket_path else self.settings.where()

    def describe(self) -> str:
        where = "a Unix socket" if self.settings.socket_path else self.settings.where()
        return f"{where}, {len(self._pool.pool)} connections" if self.connected else f"{where}, not connected"

    # Calls

    def _least_busy(self, pool: ConnectionPool) -> Connection:
        """The connection that sends the calls of this turn, or that with the fewest calls in flight.

        So it is the first one while that keeps up.
        """
        best: Connection | None = None
        for connection in pool.pool:
            if not connection.sent_at or 0 < len(connection.held) < _CALLS_TOGETHER_MAX:
                best = connection
                break
            if best is None or len(connection.sent_at) < len(best.sent_at):
                best = connection
        if best is None:
            raise StoreUnavailable(self._outage.complaint or _NOT_REACHABLE)
        if len(best.sent_at) >= self.settings.calls_in_flight_max:
            raise StoreUnavailable("the message store (Redis) is overloaded; try again in a moment.")
        return best

    def command(self, *args: Any) -> defer.Deferred[Any]:
        try:
            return self._least_busy(self._pool).call(*args)
        except StoreUnavailable:
            return defer.fail()

    def ask(self, *args: Any) -> defer.Deferred[Any]:
        """Makes a command; returns an error of Redis instead of raising it."""
        try:
            return self._least_busy(self._pool).ask(*args)
        except StoreUnavailable:
            return defer.fail()

    def publish(self, channel: bytes, payload: bytes) -> defer.Deferred[int]:
        return self.command(b"PUBLISH", channel, payload)

    def run(self, script: Script, first_args: Encoded, *args: Any) -> defer.Deferred[Any]:
        try:
            connection = self._least_busy(self._pool)
            if self._replication is not None and script.durable:
                waiting = self._replication.connection_to(connection.server)
                answer = connection.run(script, first_args, *args)
                return defer.ensureDeferred(replicated(answer, self._replication, waiting))
        except StoreUnavailable:
            return defer.fail()
        return connection.run(script, first_args, *args)

    async def _try_to_write(self) -> None:
        await self.run(scripts.load("ready"), Encoded([0]))

    async def check_ready(self, may_explain: Callable[[], Awaitable[bool]]) -> str | None:
        try:
            connection = self._least_busy(self._pool)
            if self._replication is not None:
                self._replication.connection_to(connection.server)
            await self._try_to_write()
            await self._check_rights(connection)
        except RestMQError as problem:
            why = self.reason or str(problem)
            if isinstance(problem, StoreRefused):
                why = f"the message store (Redis) takes no writes: {self._refusals.last}"
            raise StoreUnavailable(why if await may_explain() else NOT_READY) from None
        return None

    # Pub/sub

    def subscriber(self, events: ChannelEvents, shard: Shard | None = None) -> Subscriber:
        subscriber = Subscriber(self._make_pool(1, SubscriberConnection), events, self._reactor, shard)
        self._subscribers.append(subscriber)
        if self.running:
            subscriber.start(self._endpoint())
        return subscriber

    def drop(self, subscriber: Subscriber) -> defer.Deferred[Any]:
        subscriber.stop()
        self._subscribers.remove(subscriber)
        return subscriber.pool.stop()

    # Events of pools

    def joined(self, pool: ConnectionPool, connection: Any, server: handshake.RedisServer) -> None:
        connection.server = server.run_id or b"unknown %d" % self._unknown_servers
        if pool is self._pool:
            self._outage.usable()
            self.facts = server.facts
            if not self.first_connected.called:
                self.first_connected.callback(None)
        for subscriber in self._subscribers:
            if subscriber.pool is pool:
                subscriber.connection_ready(connection)
        self._pool.grow()

    def lost(self, pool: ConnectionPool, connection: Any, why: str) -> None:
        if pool is self._pool and why and not pool.pool:
            self._outage.begin(why)
        for subscriber in self._subscribers:
            if subscriber.pool is pool:
                subscriber.connection_lost()
        if pool is self._waiting and connection.server.startswith(b"unknown"):
            # The next connection may lead to another server, and unknown servers can't be told apart: all reconnect.
            self._unknown_servers += 1
            self._retire_all()

    def problem(self, pool: ConnectionPool, reason: str, complaint: str, answered: bool) -> None:
        if pool is self._pool or answered:  # if no server answers, one pool that says so is enough
            self._outage.problem(reason, complaint, is_down=not self.connected)

    def stable(self, pool: ConnectionPool) -> None:
        if pool is self._pool:
            self._outage.end()

    def may_grow(self, pool: ConnectionPool) -> bool:
        return pool is not self._pool or all(other.pool for other in self._pools if other is not pool)

    def refused(self, pool: ConnectionPool, connection: Any, error: ErrorReply) -> Exception:
        self.counters.redis_refusals += 1
        is_first = self._refusals.note(error)
        if error.code in _OF_A_REPLICA:
            if connection in pool.pool:
                self._retire_all(handshake.IS_REPLICA)
            return StoreUnavailable(_BECAME_REPLICA)
        if error.code == "NOPERM" and is_first and pool is self._pool:
            checked = defer.ensureDeferred(self._check_rights(connection))
            checked.addErrback(lambda failure: failure.trap(StoreUnavailable))
        if error.code == "OOM":
            return StoreRefused("the message store (Redis) is full (OOM); try again after messages are taken.")
        return StoreRefused(f"the message store (Redis) refused the operation ({error.code}); see the server's log.")

    def _retire_all(self, problem: handshake.Unusable | None = None) -> None:
        """Replaces all connections: each new one checks which server answers now, and whether it can be used."""
        for pool in self._pools:
            for connection in list(pool.pool):
                pool.retire(connection)
        if problem is not None:
            self._outage.problem(str(problem), problem.complaint, is_down=True)

    async def _check_rights(self, connection: Connection) -> None:
        """If a right was revoked, no further script may begin, because Redis would stop it in the middle."""
        missing = await handshake.missing_rights(connection, self.settings)
        if missing:
            self._retire_all(handshake.lacks_rights(missing))
            raise StoreUnavailable(missing)


async def replicated(answer: defer.Deferred[Any], replication: Replication, waiting: Connection) -> Any:
    """The answer of a durable script, when replicas have what it wrote."""
    result = await answer
    await replication.reached(waiting)
    return result
