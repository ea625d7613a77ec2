"""A pool of connections to Redis, which are made again when they are lost.

A new connection is examined (``handshake``) before it joins the pool. A server that cannot be used is treated like a
server that does not answer: the connection is closed, and the pool connects again, each time after a longer pause.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from twisted.internet import defer, error, protocol, task
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.errors import StoreUnavailable
from restmq.store.connection import Connection, ErrorReply
from restmq.store.handshake import RedisServer, Unusable, examine
from restmq.store.settings import StoreSettings

log = Logger()

_RETRY_SECONDS, _RETRY_FACTOR, _RETRY_SECONDS_MAX = 0.05, 1.6, 2.0
#: A connection that lasts this long shows that Redis is back. A proxy without a Redis closes it sooner.
_STABLE_SECONDS = 1.0
_CLOSE_SECONDS = 1.0
_OVERDUE_CHECK_SECONDS = 0.5


class PoolOwner(Protocol):
    """The part of the store that its pools call."""

    def joined(self, pool: Any, connection: Connection, server: RedisServer) -> None: ...
    def lost(self, pool: Any, connection: Connection, why: str) -> None:
        """The reason is empty if the pool itself closed the connection."""

    def problem(self, pool: Any, reason: str, complaint: str, answered: bool) -> None: ...
    def stable(self, pool: Any) -> None: ...
    def may_grow(self, pool: Any) -> bool: ...
    def refused(self, pool: Any, connection: Any, error: ErrorReply) -> Exception: ...


class ConnectionPool:
    """Connections of one kind to one Redis.

    Args:
        size: number of connections.
        kind: function that makes a connection.
        examine: asks a new connection's server what it is; raises Unusable if RestMQ cannot use it.

    Attributes:
        pool: the connections that can be used, the oldest first.
        first_attempted: fires when the first attempt has ended, whether there is a connection or not.
    """

    def __init__(
        self,
        *,
        settings: StoreSettings,
        size: int,
        owner: PoolOwner,
        reactor: Any,
        kind: Callable[..., Connection],
        examine: Callable[[Connection, StoreSettings], Awaitable[RedisServer]] = examine,
    ) -> None:
        self.seconds = reactor.seconds
        self.pool: list[Any] = []
        self.first_attempted: defer.Deferred[None] = defer.Deferred()
        self._settings = settings
        self._size = size
        self._owner = owner
        self._reactor = reactor
        self._kind = kind
        self._ask_server = examine
        self._endpoint: Any = None
        self._stopped = False
        self._connections: set[Connection] = set()
        self._retired: set[Connection] = set()
        self._attempts: set[defer.Deferred[Any]] = set()
        self._retries: dict[Any, int] = {}
        self._all_closed: defer.Deferred[None] | None = None
        self._overdue_check = task.LoopingCall.withCount(self._abort_overdue)
        self._overdue_check.clock = reactor

    # Connecting

    def start(self, endpoint: Any) -> None:
        """Connects, and from then on keeps the pool at its size."""
        self._endpoint = endpoint
        self._overdue_check.start(_OVERDUE_CHECK_SECONDS, now=False)
        self.grow()

    def grow(self) -> None:
        """Makes the missing connections. All but the first must wait until the owner permits them (``may_grow``)."""
        if self._endpoint is None or self._stopped:
            return
        there = len(self._connections) + len(self._attempts) + len(self._retries)
        wanted = self._size if self._owner.may_grow(self) else 1
        for _ in range(wanted - there):
            self._connect(0)

    def hurry(self) -> None:
        """Starts all attempts now that were scheduled for later."""
        for retry, attempt in list(self._retries.items()):
            retry.cancel()
            del self._retries[retry]
            self._connect(attempt)

    def _connect(self, attempt: int) -> None:
        factory = protocol.Factory()
        factory.noisy = False
        factory.buildProtocol = lambda _address: self._kind(self, attempt)
        connecting: defer.Deferred[Any] = self._endpoint.connect(factory)
        self._attempts.add(connecting)
        connecting.addBoth(self._attempted, connecting, attempt)

    def _attempted(self, result: Any, connecting: defer.Deferred[Any], attempt: int) -> None:
        self._attempts.discard(connecting)
        if isinstance(result, Failure) and not self._stopped:
            self._owner.problem(self, _why_not_connected(result), "", False)
            self._connect_later(attempt + 1)
            self._note_attempt()

    def _note_attempt(self) -> None:
        if not self.first_attempted.called:
            self.first_attempted.callback(None)

    def _connect_later(self, attempt: int) -> None:
        busy = self._connections or self._attempts or self._retries
        if self._stopped or (busy and not self._owner.may_grow(self)):
            return
        pause = min(_RETRY_SECONDS * _RETRY_FACTOR ** min(attempt, 20), _RETRY_SECONDS_MAX)
        pause *= random.uniform(0.9, 1.1)  # noqa: S311  not a secret

        def retry() -> None:
            del self._retries[later]
            self._connect(attempt)

        later = self._reactor.callLater(pause, retry)
        self._retries[later] = attempt

    # Events of a connection

    def connection_made(self, connection: Connection) -> None:
        self._connections.add(connection)
        examined = defer.ensureDeferred(self._examine(connection))
        examined.addErrback(lambda failure: log.failure("examining Redis failed", failure))

    async def _examine(self, connection: Connection) -> None:
        try:
            server = await self._ask_server(connection, self._settings)
        except StoreUnavailable:  # connection_lost tells why
            return
        except Unusable as problem:
            self.reject(connection, problem)
            return
        if not connection.connected or self._stopped:
            connection.transport.loseConnection()
            return
        connection.joined_at = self.seconds()
        self.pool.append(connection)
        self._owner.joined(self, connection, server)
        self._note_attempt()
        self._reactor.callLater(_STABLE_SECONDS, self._check_stable, connection)

    def _check_stable(self, connection: Connection) -> None:
        if connection.connected and not self._stopped:
            self._owner.stable(self)

    def reject(self, connection: Connection, problem: Unusable) -> None:
        """Closes a connection whose server cannot be used, and tells why."""
        self._owner.problem(self, str(problem), problem.complaint, True)
        self.retire(connection)

    def retire(self, connection: Connection) -> None:
        """Removes a connection from the pool, and closes it when its calls are answered."""
        self._retired.add(connection)
        self._leave_pool(connection)
        connection.close_when_answered()

    def connection_lost(self, connection: Connection, why: Failure) -> None:
        self._connections.discard(connection)
        was_retired = connection in self._retired
        self._retired.discard(connection)
        self._leave_pool(connection)
        if not self._connections and self._all_closed is not None:
            self._all_closed.callback(None)
        if self._stopped:
            return
        lasted = connection.joined_at and self.seconds() - connection.joined_at > _STABLE_SECONDS
        if connection.joined_at:
            self._owner.lost(self, connection, "" if was_retired else why.getErrorMessage())
        elif not was_retired:
            self._owner.problem(self, why_lost(connection, why, self._settings), "", False)
        self._note_attempt()
        self._connect_later(0 if lasted else connection.attempt + 1)

    def refused(self, connection: Any, error: ErrorReply) -> Exception:
        return self._owner.refused(self, connection, error)

    def _abort_overdue(self, intervals: int) -> None:
        """Closes each connection whose oldest call has waited longer than the limit; all its calls then fail."""
        if intervals > 1:  # this process itself was held up, so the answers may be here and unread
            return
        now, limit_seconds = self.seconds(), self._settings.call_timeout_seconds
        for connection in list(self._connections):
            if connection.sent_at and now - connection.sent_at[0] > limit_seconds:
                if connection.joined_at:
                    log.warn("Redis has not answered for {limit} s; closing this connection.", limit=limit_seconds)
                connection.is_overdue = True
                connection.sent_at.clear()
                self._abort(connection)

    def abort_others(self, is_right: Callable[[Connection], bool]) -> None:
        """Closes each connection that is not right; its calls fail."""
        for connection in list(self._connections):
            if not is_right(connection):
                self._abort(connection)

    def _abort(self, connection: Connection) -> None:
        """Closes a connection at once. Calls of the same reactor turn must not choose it any more."""
        self._leave_pool(connection)
        connection.transport.abortConnection()

    def _leave_pool(self, connection: Connection) -> None:
        if connection in self.pool:
            self.pool.remove(connection)

    def stop(self, after_answers: bool = False) -> defer.Deferred[None]:
        """Closes all connections; fires when they are closed.

        Args:
            after_answers: wait a second for the answers to calls that were sent.
        """
        self._stopped = True
        if self._overdue_check.running:
            self._overdue_check.stop()
        for retry in self._retries:
            retry.cancel()
        self._retries.clear()
        for connecting in list(self._attempts):
            connecting.cancel()
        closed: defer.Deferred[None] = defer.Deferred()
        if not self._connections:
            return defer.succeed(None)
        self._all_closed = closed
        for connection in list(self._connections):
            connection.close_when_answered() if after_answers else connection.transport.loseConnection()
        # With TLS, closing waits for the other side.
        late = self._reactor.callLater(_CLOSE_SECONDS, self.abort_others, lambda _: False)
        return closed.addCallback(lambda _: late.cancel() if late.active() else None)


def _why_not_connected(failure: Failure) -> str:
    if failure.check(error.DNSLookupError):
        return f"its name cannot be resolved ({failure.getErrorMessage()})"
    return str(failure.getErrorMessage())


def why_lost(connection: Connection, why: Failure, settings: StoreSettings) -> str:
    """Why a connection ended before the server had answered."""
    if why.check(ErrorReply):
        return str(why.value)
    if connection.is_overdue:
        return "it does not answer" + ("" if settings.tls is None else "; check that it uses TLS (--redis-tls)")
    if not why.check(error.ConnectionDone, error.ConnectionLost):
        return f"TLS failed: {_tls_error(why)}"
    hint = "" if settings.tls is not None else "; if it requires TLS, pass --redis-tls"
    return f"it closes the connection before it answers{hint}"


def _tls_error(why: Failure) -> str:
    problems = why.value.args[0] if why.value.args else None
    if isinstance(problems, list) and all(isinstance(problem, tuple) for problem in problems):  # OpenSSL's
        return "; ".join(str(problem[-1]) for problem in problems) or "the server ended the handshake"
    if why.type.__name__ == "VerificationError":
        return "the certificate is for another name; pass that name to --redis-tls-name"
    return str(why.getErrorMessage() or why.type.__name__)
