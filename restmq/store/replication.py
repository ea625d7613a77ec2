"""Waits until replicas have the data of an operation: one ``WAIT`` for all callers that wait at the same time.

``WAIT`` blocks its connection and covers only that connection's own writes. So it runs on a separate connection, which
first writes a no-op. A replica that has the no-op has everything that the same server wrote before it. If the script
ran on another server (during a failover), the answer of ``WAIT`` would prove nothing. So the connection for ``WAIT`` is
chosen before the script is sent: it must lead to the same server, and if it is lost, the result is unknown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure

from restmq.errors import StoreUnavailable
from restmq.store.connection import Connection

#: The no-op: a message on a channel without subscribers. Redis replicates it, and it needs no key and no memory. (In a
#: Redis Cluster, PUBLISH is not replicated; see ``cluster.node``.)
NO_OP = (b"PUBLISH", b"restmq:replicated", b"")
_NOT_THE_SAME = "the message store (Redis) is in a failover. Nothing was done; try again in a moment."


class Replication:
    """Waits for replicas.

    Args:
        connection: the separate connection; raises StoreUnavailable if there is none.
        replicas: number of replicas that must have the data.
        no_op: writes the no-op.
        wait_ms: time limit of one ``WAIT``. A caller that comes while one runs waits for up to twice this time.
    """

    def __init__(
        self,
        connection: Callable[[], Connection],
        replicas: int,
        wait_ms: int,
        no_op: Callable[[Connection], Awaitable[Any]],
    ) -> None:
        self._connection = connection
        self._replicas = replicas
        self._wait_ms = wait_ms
        self._no_op = no_op
        self._asking: list[tuple[Connection, defer.Deferred[None]]] = []
        self._is_waiting = False

    def connection_to(self, server: bytes) -> Connection:
        """The connection for ``WAIT`` that covers all that this server writes from now on.

        Raises StoreUnavailable if there is none; nothing must be written then.
        """
        connection = self._connection()
        if connection.server != server:
            raise StoreUnavailable(_NOT_THE_SAME)
        return connection

    def reached(self, connection: Connection) -> defer.Deferred[None]:
        """Fires when the replicas have all that was written up to now; fails with StoreUnavailable if they do not."""
        answer: defer.Deferred[None] = defer.Deferred()
        self._asking.append((connection, answer))
        if not self._is_waiting:
            self._is_waiting = True
            defer.ensureDeferred(self._wait_for_all())
        return answer

    async def _wait_for_all(self) -> None:
        while self._asking:
            asking, self._asking = self._asking, []
            for connection in dict.fromkeys(connection for connection, _ in asking):
                problem = await self._wait(connection)
                for asked, answer in asking:
                    if asked is connection:
                        answer.callback(None) if problem is None else answer.errback(Failure(problem))
        self._is_waiting = False

    async def _wait(self, connection: Connection) -> Exception | None:
        try:
            await self._no_op(connection)
            have = await connection.call(b"WAIT", self._replicas, self._wait_ms)
        except Exception as problem:
            return StoreUnavailable(f"it is done, but whether replicas have it is not known: {problem}")
        if have < self._replicas:
            return StoreUnavailable(
                f"it is done, but {have} of {self._replicas} replicas have it; it would be lost if Redis failed now."
            )
        return None
