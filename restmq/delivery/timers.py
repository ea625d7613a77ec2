"""Leases and delays that end: one timer for the nearest of all, and nothing polled.

Redis knows for each queue when it must be looked at. A script that makes a nearer deadline than all that were known
says so on a channel. Every daemon has a timer for the nearest; whichever comes first does the work, and the others find
it done. So what is due comes up as long as one daemon lives, and if none does, when the next one starts.
"""

from __future__ import annotations

from typing import Any

from twisted.application import service
from twisted.internet import defer
from twisted.logger import Logger

from restmq.core import RedisOperations
from restmq.errors import InvalidInput, RestMQError, StoreRefused
from restmq.store import keys

log = Logger()

#: Redis' clock and ours count milliseconds from different starts.
_ROUNDING_SECONDS = 0.001
#: After a failure, and at the latest: the clocks may drift apart.
_RETRY_SECONDS = 1.0
_LATEST_SECONDS = 60.0


class Deadlines(service.Service):  # type: ignore[misc]  # untyped
    """Brings up what is due."""

    def __init__(self, core: RedisOperations, reactor: Any) -> None:
        self._core = core
        self._reactor = reactor
        self._subscriber = core.pubsub(self._heard, on_renewed=lambda: self._look_in(0))
        self._timer: Any = None
        self._looking = False
        self._look_again = False

    def startService(self) -> None:
        super().startService()
        subscribed = self._subscriber.subscribe(keys.due_channel(self._core.store.settings.db))
        subscribed.addCallback(lambda _: self._look_in(0))

    def stopService(self) -> None:
        super().stopService()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._subscriber.stop()

    def _heard(self, _channel: bytes, until_ms: bytes) -> None:
        self._look_in(int(until_ms) / 1000 + _ROUNDING_SECONDS)

    def _look_in(self, delay_seconds: float) -> None:
        """Looks then, unless it is to look earlier anyway."""
        if not self.running:
            return
        at = self._reactor.seconds() + delay_seconds
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= at:
                return
            self._timer.cancel()
        self._timer = self._reactor.callLater(delay_seconds, self._look)

    def _look(self) -> None:
        if self._looking:
            self._look_again = True
            return
        self._looking = True
        defer.ensureDeferred(self._bring_up()).addErrback(self._failed)

    async def _bring_up(self) -> None:
        try:
            while True:
                self._look_again = False
                until_seconds, queues = await self._core.queues_due()
                for queue in queues:
                    await self._promote(queue)
                if not queues and not self._look_again:
                    break
        finally:
            self._looking = False
        wait = _LATEST_SECONDS if until_seconds is None else min(until_seconds + _ROUNDING_SECONDS, _LATEST_SECONDS)
        self._look_in(wait)

    async def _promote(self, queue: str) -> None:
        """Brings up what is due in one queue. What Redis refuses for this one must not hold up the others."""
        try:
            await self._core.queue_promote(queue)
        except (StoreRefused, InvalidInput) as problem:
            await self._core.queue_look_later(queue)  # fails too where Redis refuses everything
            log.warn("what is due in {queue} does not come up: {problem}", queue=queue, problem=problem)

    def _failed(self, failure: Any) -> None:
        if not failure.check(RestMQError):
            log.failure("bringing up what is due failed", failure=failure)
        self._look_in(_RETRY_SECONDS)
