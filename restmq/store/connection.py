"""Connections to Redis and their pool. Only this module imports txredisapi; its oddities are dealt with here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

import txredisapi
from twisted.internet import defer, task
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.errors import StoreRefused, StoreUnavailable
from restmq.store import keys
from restmq.store.scripts import Script
from restmq.store.settings import StoreSettings
from restmq.transport import send_at_once

log = Logger()

#: Asks for the newest command that the scripts use. Redis has it from 7.0 on, and so has every Valkey.
_ASK_FOR_NEWEST = (b"COMMAND", b"INFO", b"PEXPIRETIME")
_TOO_OLD = "the message store (Redis) is too old; RestMQ needs Redis 7.0 or newer, or Valkey."
#: A connection that lasts this long shows that Redis is back.
_STABLE_SECONDS = 1.0


class Encoded:
    """Arguments of a command, encoded once and sent many times."""

    __slots__ = ("count", "wire")

    def __init__(self, args: Iterable[Any]) -> None:
        parts = [_encode(arg) for arg in args]
        self.count = len(parts)
        self.wire = b"".join(parts)


def _encode(arg: Any) -> bytes:
    value = arg if isinstance(arg, bytes) else str(arg).encode()
    return b"$%d\r\n%b\r\n" % (len(value), value)


class Connection(txredisapi.RedisProtocol):  # type: ignore[misc]  # untyped
    """A pooled connection.

    Attributes:
        sent_at: the times (reactor seconds) of its unanswered calls, the oldest first.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sent_at: deque[float] = deque()

    def _build_command(self, *args: Any, **kwargs: Any) -> bytes:
        # Several times as fast as txredisapi's own, and takes pre-encoded arguments.
        count, parts = 0, []
        for arg in args:
            if type(arg) is Encoded:
                count += arg.count
                parts.append(arg.wire)
            else:
                count += 1
                parts.append(_encode(arg))
        return b"*%d\r\n%b" % (count, b"".join(parts))

    def execute_command(self, *args: Any, **_: Any) -> defer.Deferred[Any]:
        # txredisapi's own also serves pipelines and transactions, which are not used here.
        if not self.connected:
            raise txredisapi.ConnectionError("Not connected")
        self.sent_at.append(self.factory.seconds())
        send_at_once(self.transport, self._build_command(*args))
        answer: defer.Deferred[Any] = self.replyQueue.get()
        return answer.addCallback(self.handle_reply)

    def tryConvertData(self, data: Any) -> Any:
        return data  # bytes stay bytes; txredisapi would inspect each one

    def call(self, *args: Any) -> defer.Deferred[Any]:
        """Makes a command. Fails with StoreUnavailable or StoreRefused."""
        try:
            return self.execute_command(*args).addErrback(_translate)
        except txredisapi.RedisError:
            return defer.fail().addErrback(_translate)

    def run(self, script: Script, first_args: Encoded, *args: Any) -> defer.Deferred[Any]:
        """Runs a script by its hash, or by its text if Redis does not know it (after a restart). Fails as ``call``."""
        try:
            answer = self.execute_command(b"EVALSHA", script.sha, first_args, *args)
        except txredisapi.RedisError:
            return defer.fail().addErrback(_translate)

        def send_text(failure: Failure) -> Any:
            if failure.check(txredisapi.ResponseError) and str(failure.value).startswith("NOSCRIPT"):
                return self.execute_command(b"EVAL", script.source, first_args, *args)
            return failure

        return answer.addErrback(send_text).addErrback(_translate)

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


class SubscriberConnection(Connection):
    """A connection in subscriber mode. Confirmations are matched by channel: one command may bring several."""

    def replyReceived(self, reply: Any) -> None:
        if not isinstance(reply, list) or len(reply) < 2:
            super().replyReceived(reply)
        elif reply[0] == b"message":
            self.factory.subscriber.message_received(reply[1], reply[2])
        elif reply[0] == b"subscribe":
            self.factory.subscriber.confirmed(reply[1])
        elif reply[0] == b"pong":
            self.sent_at.clear()

    def send(self, *args: Any) -> None:
        self.transport.write(self._build_command(*args))

    def ping(self) -> None:
        self.sent_at.append(self.factory.seconds())
        self.send(b"PING")


class _Subscriber(Protocol):
    """The owner of a pub/sub connection: ``restmq.store.subscriber.Subscriber``."""

    def message_received(self, channel: bytes, payload: bytes, /) -> None: ...
    def confirmed(self, channel: bytes) -> None: ...
    def connection_ready(self, connection: SubscriberConnection) -> None: ...


class ConnectionPool(txredisapi.RedisFactory):  # type: ignore[misc]  # untyped
    """txredisapi's pool, with connections and reconnecting of our own.

    txredisapi logs a line for each attempt of each connection, and stops a connection twice at shutdown. This pool logs
    once that Redis is lost and once that it is back.

    Args:
        pool: number of connections.
        logs: whether this pool logs that Redis is lost and back; False if another pool does.

    Attributes:
        subscriber: the owner of the pool's connection, if the pool serves pub/sub.
        complaint: why the server that answers cannot be used, for clients; empty if it can.
    """

    initialDelay = 0.05
    maxDelay = 2
    factor = 1.6
    protocol = Connection

    def __init__(self, settings: StoreSettings, pool: int, reactor: Any, logs: bool = True) -> None:
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
        self.connections: set[Connection] = set()
        self._reactor = reactor
        self._where = settings.where()
        self._logs = logs
        self._endpoint: Any = None
        self._attempts = 0
        self._pending: set[Any] = set()
        self.subscriber: _Subscriber | None = None
        self.first_connected: defer.Deferred[None] = defer.Deferred()
        self._last_error = ""
        self.complaint = ""

    def abort_overdue(self, limit_seconds: float) -> None:
        """Closes each connection whose oldest call has waited longer than the limit; all its calls then fail."""
        now = self.seconds()
        for connection in list(self.connections):
            if connection.sent_at and now - connection.sent_at[0] > limit_seconds:
                log.warn("Redis has not answered for {limit} s; closing this connection.", limit=limit_seconds)
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

    @property
    def _logs_loss(self) -> bool:
        return self._logs and self.first_connected.called

    def _connect_later(self, why: str) -> None:
        if self.stopped:
            return
        if self._attempts == 0 and self._logs_loss:
            log.warn("the connection to Redis at {where} is lost: {why}", where=self._where, why=why)
        self._attempts += 1
        delay = self.retryDelay(1 + self._attempts // self.poolsize)
        retry = task.deferLater(self._reactor, delay, self._connect)
        self._pending.add(retry)
        retry.addErrback(lambda failure: failure.trap(defer.CancelledError))
        retry.addBoth(lambda _: self._pending.discard(retry))

    def lost(self, connection: Connection, why: Failure) -> None:
        self.connections.discard(connection)
        self._connect_later(why.getErrorMessage())

    def disconnect(self) -> defer.Deferred[Any]:
        self.stopped = self.disconnectCalled = True
        for pending in list(self._pending):
            pending.cancel()
        for connection in list(self.connections):
            connection.transport.loseConnection()
        return self.waitForEmptyPool()

    def addConnection(self, conn: Connection) -> None:
        if self.subscriber is not None:
            self._join(conn)
            return
        defer.ensureDeferred(self._examine(conn)).addErrback(lambda failure: log.failure("examining Redis", failure))

    async def _examine(self, conn: Connection) -> None:
        """Adds a connection to the pool if its server can be used; also if Redis does not permit the question."""
        try:
            questions = conn.execute_command(b"EXISTS", keys.QUEUE_SET), conn.execute_command(*_ASK_FOR_NEWEST)
            loading, newest = await defer.DeferredList(questions, consumeErrors=True)
        except txredisapi.RedisError:  # lost meanwhile; it is reconnected
            return
        if not loading[0] and loading[1].getErrorMessage().startswith("LOADING"):
            self.complaint = "the message store (Redis) is reading its data from disk; try again in a moment."
            conn.transport.loseConnection()
        elif newest[0] and newest[1] in ([None], [[]]):
            self._reject_too_old(conn)
        else:
            self._join(conn)

    def _reject_too_old(self, conn: Connection) -> None:
        """Closes the connection to a server that is too old; it is tried again like one that does not answer."""
        if self._logs and self.complaint != _TOO_OLD:
            log.error(
                "Redis at {where} is too old. Update it to Redis 7.0 or newer, or to Valkey; until then: 503.",
                where=self._where,
            )
        self.complaint = _TOO_OLD
        conn.transport.loseConnection()

    def _join(self, conn: Connection) -> None:
        if not conn.connected:  # a proxy in front of a dead Redis accepts and closes
            return
        super().addConnection(conn)
        self.complaint = ""
        if self.subscriber is not None:
            self.subscriber.connection_ready(conn)
        if self._attempts:
            self._reactor.callLater(_STABLE_SECONDS, self._check_stable, conn)
        if self.pool and not self.first_connected.called:
            self.first_connected.callback(None)

    def _check_stable(self, conn: Connection) -> None:
        """Redis is back if a connection lasts. A proxy without a Redis, or a Redis with too many clients, closes it."""
        if conn.connected and self._attempts and not self.stopped:
            if self._logs_loss:
                log.info("Redis at {where} answers again.", where=self._where)
            self._attempts = 0

    def stopTrying(self) -> defer.Deferred[Any]:
        # txredisapi gives up for ever if AUTH or SELECT fails. A server with too many clients makes them fail too.
        return defer.succeed(None)

    def connectionError(self, why: str) -> None:
        if why != self._last_error:
            log.error("{why}", why=why)
        self._last_error = why  # txredisapi would fail a Deferred that nobody uses


def _translate(failure: Failure) -> Failure:
    """Turns txredisapi's errors into ours."""
    error = failure.value
    if isinstance(error, txredisapi.ConnectionError):
        return Failure(StoreUnavailable("the message store (Redis) went away or took too long; try again in a moment."))
    if isinstance(error, txredisapi.ResponseError):
        log.warn("Redis refused an operation: {error}", error=str(error))
        code = str(error).split(" ", 1)[0]
        return Failure(StoreRefused(f"the message store (Redis) refused the operation ({code}); see the server's log."))
    return failure
