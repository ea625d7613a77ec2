"""Single connections to Redis: the only room that imports txredisapi, and where its oddities are kept from the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import txredisapi
from twisted.internet import defer, task
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.errors import StoreRefused, StoreUnavailable
from restmq.store import keys
from restmq.store.scripts import Script
from restmq.transport import send_at_once

if TYPE_CHECKING:
    from restmq.store.settings import StoreSettings
    from restmq.store.subscriber import Subscriber

log = Logger()

#: The newest command that our scripts use: Redis has it from 7.0 on, and so has every Valkey.
_ASKS_FOR_NEWEST = (b"COMMAND", b"INFO", b"PEXPIRETIME")
_TOO_OLD = "the message store (Redis) is too old; RestMQ needs Redis 7.0 or newer, or Valkey."
_STAYS_SECONDS = 1.0


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


class Connection(txredisapi.RedisProtocol):  # type: ignore[misc]  # untyped
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

    def execute_command(self, *args: Any, **_: Any) -> defer.Deferred[Any]:
        # Without what txredisapi's own does for its pipelines and transactions, which are not used here.
        if not self.connected:
            raise txredisapi.ConnectionError("Not connected")
        self.sent_at.append(self.factory.seconds())
        send_at_once(self.transport, self._build_command(*args))
        answer: defer.Deferred[Any] = self.replyQueue.get()
        return answer.addCallback(self.handle_reply)

    def tryConvertData(self, data: Any) -> Any:
        return data  # bytes are what is wanted; txredisapi would look at each of them

    def call(self, *args: Any) -> defer.Deferred[Any]:
        """A command. Fails with StoreUnavailable or StoreRefused."""
        try:
            return self.execute_command(*args).addErrback(_translate)
        except txredisapi.RedisError:
            return defer.fail().addErrback(_translate)

    def run(self, script: Script, first_args: Encoded, *args: Any) -> defer.Deferred[Any]:
        """A script, by its hash; Redis forgets scripts in a restart, and is sent the text then. Fails as ``call``."""
        try:
            answer = self.execute_command(b"EVALSHA", script.sha, first_args, *args)
        except txredisapi.RedisError:
            return defer.fail().addErrback(_translate)

        def teach(failure: Failure) -> Any:
            if failure.check(txredisapi.ResponseError) and str(failure.value).startswith("NOSCRIPT"):
                return self.execute_command(b"EVAL", script.source, first_args, *args)
            return failure

        return answer.addErrback(teach).addErrback(_translate)

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
    """A connection in subscriber mode. Confirmations are matched by channel, as one command may bring several."""

    def replyReceived(self, reply: Any) -> None:
        if not isinstance(reply, list) or len(reply) < 2:
            super().replyReceived(reply)
        elif reply[0] == b"message":
            self.factory.subscriber.message_heard(reply[1], reply[2])
        elif reply[0] == b"subscribe":
            self.factory.subscriber.confirmed(reply[1])
        elif reply[0] == b"pong":
            self.sent_at.clear()

    def send(self, *args: Any) -> None:
        self.transport.write(self._build_command(*args))

    def ping(self) -> None:
        self.sent_at.append(self.factory.seconds())
        self.send(b"PING")


class ConnectionPool(txredisapi.RedisFactory):  # type: ignore[misc]  # untyped
    """txredisapi's pool with our connections in it.

    Reconnecting is ours: txredisapi's own logs a line for each attempt of each connection, and stops a connection twice
    at shutdown. Ours says once that Redis is gone, and once that it is back.
    """

    initialDelay = 0.05
    maxDelay = 2
    factor = 1.6
    protocol = Connection

    def __init__(self, settings: StoreSettings, pool: int, reactor: Any, tells: bool = True) -> None:
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
        self._tells = tells
        self._endpoint: Any = None
        self._attempts = 0
        self._pending: set[Any] = set()
        self.subscriber: Subscriber | None = None
        self.first_connected: defer.Deferred[None] = defer.Deferred()
        self._last_error = ""
        #: What is wrong with the server that answers, for clients; empty if nothing is.
        self.complaint = ""

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

    @property
    def _is_heard(self) -> bool:
        """Whether this pool tells of Redis' going and coming: others would say it once more."""
        return self._tells and self.first_connected.called

    def _connect_later(self, why: str) -> None:
        if self.stopped:
            return
        if self._attempts == 0 and self._is_heard:
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
        """Lets a connection in if its server can serve us. A user who may not ask is let in unasked."""
        try:
            asked = conn.execute_command(b"EXISTS", keys.QUEUE_SET), conn.execute_command(*_ASKS_FOR_NEWEST)
            loading, newest = await defer.DeferredList(asked, consumeErrors=True)
        except txredisapi.RedisError:  # lost meanwhile; it is made anew
            return
        if not loading[0] and loading[1].getErrorMessage().startswith("LOADING"):
            self.complaint = "the message store (Redis) is reading its data from disk; try again in a moment."
            conn.transport.loseConnection()
        elif newest[0] and newest[1] in ([None], [[]]):
            self._turn_away(conn)
        else:
            self._join(conn)

    def _turn_away(self, conn: Connection) -> None:
        """A server that lacks what we need: its connections are closed, and tried again as if it did not answer."""
        if self._tells and self.complaint != _TOO_OLD:
            log.error(
                "Redis at {where} is too old. Bring it up to Redis 7.0 or newer, or Valkey; until then: 503.",
                where=self._where,
            )
        self.complaint = _TOO_OLD
        conn.transport.loseConnection()

    def _join(self, conn: Connection) -> None:
        if not conn.connected:  # a proxy before a Redis that is down: it comes and goes
            return
        super().addConnection(conn)
        self.complaint = ""
        if self.subscriber is not None:
            self.subscriber.connection_ready(conn)
        if self._attempts:
            self._reactor.callLater(_STAYS_SECONDS, self._stays, conn)
        if self.pool and not self.first_connected.called:
            self.first_connected.callback(None)

    def _stays(self, conn: Connection) -> None:
        """Redis is back when a connection lasts: a proxy before none, or one with too many clients, ends it at once."""
        if conn.connected and self._attempts and not self.stopped:
            if self._is_heard:
                log.info("Redis at {where} answers again.", where=self._where)
            self._attempts = 0

    def stopTrying(self) -> defer.Deferred[Any]:
        # txredisapi gives up for ever when AUTH or SELECT fails; a server that has too many clients fails them too.
        return defer.succeed(None)

    def connectionError(self, why: str) -> None:
        if why != self._last_error:
            log.error("{why}", why=why)
        self._last_error = why  # txredisapi would fail a Deferred here that nobody waits for


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
