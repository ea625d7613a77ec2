"""Rules and tokens change while somebody listens: who would not be let in any more is closed within seconds.

All listeners of this daemon are looked at together: their tokens are asked for a thousand in a call, and not at all
while nobody listens with one.
"""

from __future__ import annotations

from typing import Any

from twisted.application import service
from twisted.internet import defer, task
from twisted.logger import Logger

from restmq.auth.guard import Guard
from restmq.core import RedisOperations
from restmq.delivery.consumer import CloseReason
from restmq.delivery.fanout import Fanout
from restmq.errors import RestMQError

log = Logger()

LOOK_SECONDS = 3.0
_AT_ONCE = 500


class Revocation(service.Service):  # type: ignore[misc]  # untyped
    """Looks every few seconds at who listens. While Redis does not answer, all stay: it sends them nothing either."""

    def __init__(self, fanout: Fanout, guard: Guard, core: RedisOperations, reactor: Any) -> None:
        self._fanout = fanout
        self._guard = guard
        self._core = core
        self._reactor = reactor
        self._timer = task.LoopingCall(self._look)
        self._timer.clock = reactor

    def startService(self) -> None:
        super().startService()
        self._timer.start(LOOK_SECONDS, now=False)

    def stopService(self) -> None:
        super().stopService()
        if self._timer.running:
            self._timer.stop()

    def _look(self) -> defer.Deferred[None]:
        return defer.ensureDeferred(self._close_refused()).addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if not failure.check(RestMQError):
            log.failure("looking at who may still listen failed", failure=failure)

    async def _close_refused(self) -> None:
        listeners = [(queue, consumer) for queue in self._fanout.queues for consumer in self._fanout.consumers(queue)]
        tokens = {consumer.credentials.token for _, consumer in listeners}
        records = await self._core.authorizations_of(token for token in tokens if token is not None)
        for place, (queue, consumer) in enumerate(listeners, 1):
            record = records.get(consumer.credentials.token or "")
            stays = self._guard.still_admits(consumer.credentials, consumer.access, queue, record)
            if not stays and consumer in self._fanout.consumers(queue):
                self._fanout.leave(queue, consumer)
                consumer.close(CloseReason.NOT_ALLOWED)
            if place % _AT_ONCE == 0:
                await task.deferLater(self._reactor, 0)  # messages are let through in between
