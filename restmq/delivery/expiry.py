"""Finds queues that may end, but that no script watches yet (``queues/lua/_idle.lua``).

Scripts watch a queue from its first message or setting on. A queue that is older than ``--queue-expires``, or that was
added by another program, is found here.
"""

from __future__ import annotations

from typing import Any

from twisted.application import service
from twisted.internet import defer
from twisted.logger import Logger

from restmq.core import RedisOperations
from restmq.errors import RestMQError

log = Logger()

_EVERY_SECONDS = 3600.0
_RETRY_SECONDS = 60.0


class ExpiringQueues(service.Service):  # type: ignore[misc]  # untyped
    """Looks through all queues, at the start and once an hour."""

    def __init__(self, core: RedisOperations, reactor: Any) -> None:
        self._core = core
        self._reactor = reactor
        self._timer: Any = None

    def startService(self) -> None:
        super().startService()
        self._core.store.first_connected.addCallback(lambda _: self._look_after(0))

    def stopService(self) -> None:
        super().stopService()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _look(self) -> None:
        looked = defer.ensureDeferred(self._core.queue_watch_all())
        looked.addCallbacks(lambda _: _EVERY_SECONDS, self._failed)
        looked.addCallback(self._look_after)

    def _failed(self, failure: Any) -> float:
        if not failure.check(RestMQError):
            log.failure("finding the queues that are to end failed", failure=failure)
        return _RETRY_SECONDS

    def _look_after(self, seconds: float) -> None:
        if self.running:
            self._timer = self._reactor.callLater(seconds, self._look)
