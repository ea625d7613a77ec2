"""Calls that a service has begun, and must see ended before it stops."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet import defer


class PendingCalls:
    """The calls that are under way."""

    def __init__(self) -> None:
        self._calls: set[defer.Deferred[Any]] = set()

    def run(self, call: Coroutine[Any, Any, Any]) -> defer.Deferred[Any]:
        """Starts a call; its result or failure is for whoever adds a callback."""
        running = defer.ensureDeferred(call)
        self._calls.add(running)
        return running.addBoth(self._ended, running)

    def _ended(self, result: Any, running: defer.Deferred[Any]) -> Any:
        self._calls.discard(running)
        return result

    async def settle(self) -> None:
        """Returns when all have ended, and those that they began."""
        while self._calls:
            await defer.DeferredList(list(self._calls))
