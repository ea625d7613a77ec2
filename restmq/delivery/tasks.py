"""Calls that a service has started, and must finish before it stops."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()


class PendingCalls:
    """The calls in progress."""

    def __init__(self) -> None:
        self._calls: set[defer.Deferred[Any]] = set()

    def run(self, call: Coroutine[Any, Any, Any]) -> defer.Deferred[Any]:
        """Starts a call. The caller handles its result or failure."""
        running = defer.ensureDeferred(call)
        self._calls.add(running)
        return running.addBoth(self._ended, running)

    def _ended(self, result: Any, running: defer.Deferred[Any]) -> Any:
        self._calls.discard(running)
        return result

    async def finish(self) -> None:
        """Returns when all calls have ended, and the calls that they started."""
        while self._calls:
            await defer.DeferredList(list(self._calls))

    def put_back(self, queue: str, count: int, call: Coroutine[Any, Any, Any]) -> None:
        """Starts a call that returns undelivered messages to their queue; logs a failure.

        Args:
            count: number of messages.
        """

        def failed(failure: Failure) -> None:
            log.error(
                "{count} messages of {queue} were not put back: {why}",
                count=count,
                queue=queue,
                why=failure.getErrorMessage(),
            )

        self.run(call).addErrback(failed)
