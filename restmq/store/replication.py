"""Waits until replicas have what was written: one ``WAIT`` for all callers that ask at the same time.

``WAIT`` blocks its connection and covers only that connection's own writes. So it runs on a separate connection, which
first writes a no-op. A replica that has the no-op has everything that was written before it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure

from restmq.errors import StoreUnavailable

#: The no-op: a message on a channel without subscribers. Redis replicates it, and it needs no key.
_NO_OP = (b"PUBLISH", b"restmq:replicated", b"")


class Replication:
    """Waits for replicas.

    Args:
        call: makes one command on the separate connection, after the commands before it.
        replicas: number of replicas that must have what was written.
        wait_ms: time limit of one ``WAIT``. A caller that comes while one runs waits for up to twice this time.
    """

    def __init__(self, call: Callable[..., Awaitable[Any]], replicas: int, wait_ms: int) -> None:
        self._call = call
        self._replicas = replicas
        self._wait_ms = wait_ms
        self._asking: list[defer.Deferred[None]] = []
        self._is_waiting = False

    def reached(self) -> defer.Deferred[None]:
        """Fires when the replicas have all that was written up to now; fails with StoreUnavailable if they do not."""
        answer: defer.Deferred[None] = defer.Deferred()
        self._asking.append(answer)
        if not self._is_waiting:
            self._is_waiting = True
            defer.ensureDeferred(self._wait_for_all())
        return answer

    async def _wait_for_all(self) -> None:
        while self._asking:
            answers, self._asking = self._asking, []
            problem = await self._wait()
            for answer in answers:
                answer.callback(None) if problem is None else answer.errback(Failure(problem))
        self._is_waiting = False

    async def _wait(self) -> Exception | None:
        try:
            await self._call(*_NO_OP)
            have = await self._call(b"WAIT", self._replicas, self._wait_ms)
        except Exception as problem:
            return StoreUnavailable(f"it is done, but whether replicas have it is not known: {problem}")
        if have < self._replicas:
            return StoreUnavailable(
                f"it is done, but {have} of {self._replicas} replicas have it; it would be lost if Redis failed now."
            )
        return None
