"""Whether replicas have what was written: ``WAIT``, asked once for all who ask at the same time.

WAIT blocks the connection on which it is asked, and speaks of what that connection wrote. So it has a connection of its
own, which first writes something itself: whoever has that has all that was written before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure

from restmq.errors import StoreUnavailable

#: A message that nobody listens to: Redis hands it on to its replicas, and no key is needed for it.
_WRITE = (b"PUBLISH", b"restmq:replicated", b"")


class Replication:
    """Waits for replicas.

    Args:
        call: one command on the connection for this, after the one before.
        replicas: how many must have what was written.
        wait_ms: for how long they are waited for. Who asks while others are waited for waits twice as long at most.
    """

    def __init__(self, call: Callable[..., Awaitable[Any]], replicas: int, wait_ms: int) -> None:
        self._call = call
        self._replicas = replicas
        self._wait_ms = wait_ms
        self._asking: list[defer.Deferred[None]] = []
        self._under_way = False

    def reached(self) -> defer.Deferred[None]:
        """Fires when the replicas have all that was written up to now. Fails with StoreUnavailable if they have not."""
        answer: defer.Deferred[None] = defer.Deferred()
        self._asking.append(answer)
        if not self._under_way:
            self._under_way = True
            defer.ensureDeferred(self._ask())
        return answer

    async def _ask(self) -> None:
        while self._asking:
            asked, self._asking = self._asking, []
            problem = await self._wait()
            for answer in asked:
                answer.callback(None) if problem is None else answer.errback(Failure(problem))
        self._under_way = False

    async def _wait(self) -> Exception | None:
        try:
            await self._call(*_WRITE)
            have = await self._call(b"WAIT", self._replicas, self._wait_ms)
        except Exception as problem:
            return StoreUnavailable(f"it is done, but whether replicas have it is not known: {problem}")
        if have < self._replicas:
            return StoreUnavailable(
                f"it is done, but {have} of {self._replicas} replicas have it; it would be lost if Redis failed now."
            )
        return None
