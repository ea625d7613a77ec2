"""Calls that a service has started: those it must finish before it stops, and those that run one at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
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


class SingleFlight:
    """Runs a call one at a time. A request during a run causes one more run after it.

    Args:
        call: the coroutine function to run.
        failed: handles the failure of a run. Requests made during that run are dropped.
        start: starts the coroutine; for example ``PendingCalls.run``.
    """

    __slots__ = ("_again", "_call", "_failed", "_start", "running")

    def __init__(
        self,
        call: Callable[[], Awaitable[None]],
        failed: Callable[[Failure], None],
        start: Callable[[Coroutine[Any, Any, None]], defer.Deferred[None]] = defer.ensureDeferred,
    ) -> None:
        self._call = call
        self._failed = failed
        self._start = start
        self._again = False
        self.running = False

    def request(self) -> None:
        """Runs the call now, or once more after the run in progress."""
        if self.running:
            self._again = True
            return
        self.running = True
        self._start(self._run()).addErrback(self._failed)

    async def _run(self) -> None:
        try:
            self._again = True
            while self._again:
                self._again = False
                await self._call()
        finally:
            self.running = False
