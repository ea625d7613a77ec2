"""The connection to Redis: pool, time limits, reconnecting. The only room that imports txredisapi.

What the rest may rely on: a call either answers, or raises StoreUnavailable within the time limit, or raises
StoreRefused. Nothing queues for a server that is not there. A call that was sent is never cancelled: after
StoreUnavailable it is not known whether Redis ran it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import txredisapi
from twisted.application import service
from twisted.internet import defer, endpoints, task
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.errors import StoreRefused, StoreUnavailable
from restmq.scripts import Script

log = Logger()

_WATCH_INTERVAL_SECONDS = 0.5
_SUBSCRIBER_PING_SECONDS = 15


@dataclass(slots=True, frozen=True)
class StoreSettings:
    """Where Redis is, and how long and how much we wait for it."""

    host: str = "127.0.0.1"
    port: int = 6379
    db: int = 0
    pool: int = 10
    username: str | None = None
    password: str | None = None
    socket_path: str | None = None
    call_timeout_seconds: float = 5.0
    calls_in_flight_max: int = 10_000

    def where(self) -> str:
        """For people: the address, without any secret."""
        return self.socket_path or f"{self.host}:{self.port}"


class Encoded:
    """Several arguments of a command, encoded once and sent many times."""

    __slots__ = ("count", "wire")

    def __init__(self, args: Iterable[Any]) -> None:
        parts = [_encode(arg) for arg in args]
        self.count = len(parts)
        self.wire = b"".join(parts)


def _encode(arg: Any) -> bytes:
    value = arg if isinstance(arg, bytes) else str(arg).encode()
    return b"$%d\r\n%b\r\n" % (len(value), value)


class _Connection(txredisapi.RedisProtocol):  # type: ignore[misc]  # untyped
    """A pooled connection that knows how long its oldest unanswered call has waited."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sent_at: deque[float] = deque()

    def _build_command(self, *args: Any, **kwargs: Any) -> bytes:
        # txredisapi's own builder takes several times as long, and knows no pre-encoded arguments.
        count, parts = 0, []
        for arg in args:
            if type(arg) is Encoded:
                count += arg.count
                parts.append(arg.wire)
            else:
                count += 1
                parts.append(_encode(arg))
        return b"*%d\r\n%b" % (count, b"".join(parts))

    def execute_command(self, *args: Any, **kwargs: Any) -> defer.Deferred[Any]:
        answer: defer.Deferred[Any] = super().execute_command(*args, **kwargs)
        self.sent_at.append(self.factory.seconds())
        return answer

    def replyReceived(self, reply: Any) -> None:
        if self.sent_at:
            self.sent_at.popleft()
        super().replyReceived(reply)

    def makeConnection(self, transport: Any) -> None:
        self.factory.connections.add(self)
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        super().makeConnection(transport)

    def connectionLost(self, why: Failure) -> None:
        super().connectionLost(why)
        self.factory.lost(self, why)


class _SubscriberConnection(_Connection):
    """A connection in subscriber mode. Confirmations are matched by channel, as one command may bring several."""

    def replyReceived(self, reply: Any) -> None:
        if not isinstance(reply, list) or len(reply) < 2:
            super().replyReceived(reply)
        elif reply[0] == b"message":
            self.factory.subscriber._message(reply[1], reply[2])
        elif reply[0] == b"subscribe":
            self.factory.subscriber._confirmed(reply[1])
        elif reply[0] == b"pong":
            self.sent_at.clear()

    def send(self, *args: Any) -> None:
        self.transport.write(self._build_command(*args))

    def ping(self) -> None:
        self.sent_at.append(self.factory.seconds())
        self.send(b"PING")


class _Factory(txredisapi.RedisFactory):  # type: ignore[misc]  # untyped
    """txredisapi's pool with our connections in it.

    Reconnecting is ours: txredisapi's own logs a line for each attempt of each connection, and stops a connection twice
    at shutdown. Ours says once that Redis is gone, and once that it is back.
    """

    initialDelay = 0.05
    maxDelay = 2
    factor = 1.6
    protocol = _Connection

    def __init__(self, settings: StoreSettings, pool: int, reactor: Any) -> None:
        super().__init__(
            settings.where(),
            settings.db or None,
            pool,
            isLazy=True,
            charset=None,
            password=settings.password,
            convertNumbers=False,
            username=settings.username,
        )
        self.seconds = reactor.seconds
        self.connections: set[_Connection] = set()
        self._reactor = reactor
        self._where = settings.where()
        self._endpoint: Any = None
        self._attempts = 0
        self._pending: set[Any] = set()
        self.subscriber: Subscriber | None = None
        self.first_connected: defer.Deferred[None] = defer.Deferred()
        self._last_error = ""

    def abort_overdue(self, limit_seconds: float) -> None:
        """Drops each connection whose oldest call has waited too long; all its calls then fail."""
        now = self.seconds()
        for connection in list(self.connections):
            if connection.sent_at and now - connection.sent_at[0] > limit_seconds:
                log.warn(
                    "Redis has not answered for {limit} s; this connection to it is given up.", limit=limit_seconds
                )
                connection.sent_at.clear()
                connection.transport.abortConnection()

    def startConnecting(self, endpoint: Any) -> None:
        self._endpoint = endpoint
        for _ in range(self.poolsize):
            self._connect()

    def _connect(self) -> None:
        attempt = self._endpoint.connect(self)
        self._pending.add(attempt)
        attempt.addBoth(self._attempted, attempt)

    def _attempted(self, result: Any, attempt: Any) -> None:
        self._pending.discard(attempt)
        if isinstance(result, Failure):
            self._connect_later(result.getErrorMessage())

    def _connect_later(self, why: str) -> None:
        if self.stopped:
            return
        if self._attempts == 0 and self.first_connected.called:
            log.warn("the connection to Redis at {where} is lost: {why}", where=self._where, why=why)
        self._attempts += 1
        delay = self.retryDelay(1 + self._attempts // self.poolsize)
        retry = task.deferLater(self._reactor, delay, self._connect)
        self._pending.add(retry)
        retry.addErrback(lambda failure: failure.trap(defer.CancelledError))
        retry.addBoth(lambda _: self._pending.discard(retry))

    def lost(self, connection: _Connection, why: Failure) -> None:
        self.connections.discard(connection)
        self._connect_later(why.getErrorMessage())

    def disconnect(self) -> defer.Deferred[Any]:
        self.stopped = self.disconnectCalled = True
        for pending in list(self._pending):
            pending.cancel()
        for connection in list(self.connections):
            connection.transport.loseConnection()
        return self.waitForEmptyPool()

    def addConnection(self, conn: _Connection) -> None:
        super().addConnection(conn)
        if self.subscriber is not None:
            self.subscriber._connection_ready(conn)
        if self._attempts and self.first_connected.called:
            log.info("Redis at {where} answers again.", where=self._where)
        self._attempts = 0
        if self.pool and not self.first_connected.called:
            self.first_connected.callback(None)

    def stopTrying(self) -> defer.Deferred[Any]:
        # txredisapi gives up for ever when AUTH or SELECT fails; a server that has too many clients fails them too.
        return defer.succeed(None)

    def connectionError(self, why: str) -> None:
        if why != self._last_error:
            log.error("{why}", why=why)
        self._last_error = why
        super().connectionError(why)


class Store(service.Service):  # type: ignore[misc]  # untyped
    """All calls to Redis go through here. See the module's text for what a caller may rely on."""

    def __init__(self, settings: StoreSettings, reactor: Any) -> None:
        self.settings = settings
        self._reactor = reactor
        self._factory = _Factory(settings, settings.pool, reactor)
        self._factories = [self._factory]
        self._watch = task.LoopingCall(self._abort_overdue)
        self._watch.clock = reactor
        #: Wall clock, for what is shown to people and kept in Redis.
        self.time_ms: Callable[[], int] = lambda: int(time.time() * 1000)

    @property
    def clock(self) -> IReactorTime:
        return self._reactor

    def startService(self) -> None:
        super().startService()
        self._factory.startConnecting(self._endpoint())
        self._watch.start(_WATCH_INTERVAL_SECONDS, now=False)

    def stopService(self) -> defer.Deferred[Any]:
        super().stopService()
        if self._watch.running:
            self._watch.stop()
        return defer.gatherResults([factory.disconnect() for factory in self._factories])

    def _endpoint(self) -> Any:
        timeout = self.settings.call_timeout_seconds
        if self.settings.socket_path:
            return endpoints.UNIXClientEndpoint(self._reactor, self.settings.socket_path, timeout=timeout)
        return endpoints.HostnameEndpoint(self._reactor, self.settings.host, self.settings.port, timeout=timeout)

    def _abort_overdue(self) -> None:
        for factory in self._factories:
            factory.abort_overdue(self.settings.call_timeout_seconds)

    @property
    def first_connected(self) -> defer.Deferred[None]:
        """Fires with the first connection to Redis."""
        return self._factory.first_connected

    @property
    def connected(self) -> bool:
        return bool(self._factory.pool)

    def describe(self) -> str:
        """The words in which the first RestMQ showed its Redis, e.g. in ``/stats/``."""
        if not self.connected:
            return "<Redis Connection: Not connected>"
        return f"<Redis Connection: {self.settings.where()} - {len(self._factory.pool)} connection(s)>"

    def _connection(self) -> _Connection:
        """The connection with the fewest calls in flight: one, pipelined, while all goes well."""
        best: _Connection | None = None
        for connection in self._factory.pool:
            if best is None or len(connection.sent_at) < len(best.sent_at):
                best = connection
            if not best.sent_at:
                break
        if best is None:
            raise StoreUnavailable("the message store (Redis) is not reachable; try again in a moment.")
        if len(best.sent_at) >= self.settings.calls_in_flight_max:
            raise StoreUnavailable("the message store (Redis) is overloaded; try again in a moment.")
        return best

    def command(self, *args: Any) -> defer.Deferred[Any]:
        """One command of Redis; answers bytes, int, list or None."""
        try:
            return self._connection().execute_command(*args).addErrback(_translate)
        except (StoreUnavailable, txredisapi.RedisError):
            return defer.fail().addErrback(_translate)

    def run(self, script: Script, keys_and_queue: Encoded, *args: Any) -> defer.Deferred[Any]:
        """One script, atomically. ``keys_and_queue`` holds the number of keys, the keys, and the first arguments."""
        try:
            connection = self._connection()
            answer = connection.execute_command(b"EVALSHA", script.sha, keys_and_queue, *args)
        except (StoreUnavailable, txredisapi.RedisError):
            return defer.fail().addErrback(_translate)
        return answer.addErrback(self._teach, connection, script, keys_and_queue, args).addErrback(_translate)

    def _teach(
        self, failure: Failure, connection: _Connection, script: Script, keys: Encoded, args: tuple[Any, ...]
    ) -> Any:
        """Redis forgets its scripts in a restart: NOSCRIPT means that nothing ran, so the text is sent."""
        if failure.check(txredisapi.ResponseError) and str(failure.value).startswith("NOSCRIPT"):
            return connection.execute_command(b"EVAL", script.source, keys, *args)
        return failure

    def subscriber(self, on_message: Callable[[bytes, bytes], None], on_connected: Callable[[], None]) -> Subscriber:
        """A connection of its own for pub/sub; it connects with the first subscription."""
        factory = _Factory(self.settings, 1, self._reactor)
        subscriber = Subscriber(factory, self._endpoint, on_message, on_connected, self._reactor)
        self._factories.append(factory)
        return subscriber

    def drop(self, subscriber: Subscriber) -> defer.Deferred[Any]:
        """Closes a subscriber's connection."""
        subscriber.stop()
        self._factories.remove(subscriber.factory)
        return subscriber.factory.disconnect()


class Subscriber:
    """A set of channels that we listen to, whatever becomes of the connection.

    Args:
        on_message: called with channel and payload of each message, in the order in which Redis sent them.
        on_connected: called each time after all channels were subscribed on a new connection. What was published
            between two connections was not heard.
    """

    def __init__(
        self,
        factory: _Factory,
        endpoint: Callable[[], Any],
        on_message: Callable[[bytes, bytes], None],
        on_connected: Callable[[], None],
        reactor: Any,
    ) -> None:
        self.factory = factory
        factory.protocol = _SubscriberConnection
        factory.subscriber = self
        self._endpoint = endpoint
        self._message = on_message
        self._on_connected = on_connected
        self._connection: _SubscriberConnection | None = None
        self._channels: set[bytes] = set()
        self._unconfirmed: dict[bytes, list[defer.Deferred[None]]] = {}
        self._renewing: set[bytes] = set()
        self._started = False
        self._ping = task.LoopingCall(self._send_ping)
        self._ping.clock = reactor

    def subscribe(self, channel: bytes) -> defer.Deferred[None]:
        """Fires when Redis has confirmed it, be it after a reconnect: from then on nothing on the channel is missed."""
        confirmed: defer.Deferred[None] = defer.Deferred()
        self._channels.add(channel)
        self._unconfirmed.setdefault(channel, []).append(confirmed)
        if not self._started:
            self._started = True
            self.factory.startConnecting(self._endpoint())
            self._ping.start(_SUBSCRIBER_PING_SECONDS, now=False)
        elif self._connection is not None:
            self._connection.send(b"SUBSCRIBE", channel)
        return confirmed

    def unsubscribe(self, channel: bytes) -> None:
        self._channels.discard(channel)
        self._unconfirmed.pop(channel, None)
        if self._connection is not None:
            self._connection.send(b"UNSUBSCRIBE", channel)

    def stop(self) -> None:
        if self._ping.running:
            self._ping.stop()

    def _connection_ready(self, connection: Any) -> None:
        if not connection.connected:
            return
        self._connection = connection
        connection.whenDisconnected().addCallback(self._connection_gone)
        self._renewing = set(self._channels)
        if self._channels:
            connection.send(b"SUBSCRIBE", *self._channels)

    def _connection_gone(self, connection: _SubscriberConnection) -> None:
        if self._connection is connection:
            self._connection = None

    def _confirmed(self, channel: bytes) -> None:
        for confirmed in self._unconfirmed.pop(channel, []):
            confirmed.callback(None)
        if channel in self._renewing:
            self._renewing.discard(channel)
            if not self._renewing:
                self._on_connected()

    def _send_ping(self) -> None:
        if self._connection is not None:
            self._connection.ping()


def _translate(failure: Failure) -> Failure:
    """txredisapi's errors in our words; the one place where they meet."""
    error = failure.value
    if isinstance(error, txredisapi.ConnectionError):
        return Failure(StoreUnavailable("the message store (Redis) went away or took too long; try again in a moment."))
    if isinstance(error, txredisapi.ResponseError):
        log.warn("Redis refused an operation: {error}", error=str(error))
        code = str(error).split(" ", 1)[0]
        return Failure(StoreRefused(f"the message store (Redis) refused the operation ({code}); see the server's log."))
    return failure
