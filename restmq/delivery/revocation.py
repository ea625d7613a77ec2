"""Closes connected consumers and taps within seconds when the access rules or their token no longer admit them.

All consumers of this daemon are checked together. Their tokens are read a thousand per call, and only if a consumer
uses one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application import internet
from twisted.internet import defer, task
from twisted.logger import Logger

from restmq.auth.guard import Guard
from restmq.core import RedisOperations
from restmq.delivery.consumer import CloseReason
from restmq.delivery.local import LocalConsumers
from restmq.errors import RestMQError

log = Logger()

CHECK_SECONDS = 3.0
_CHECKS_PER_TURN = 500


class Revocation(internet.TimerService):  # type: ignore[misc]  # untyped
    """Checks all consumers every few seconds. While Redis does not answer, all stay: they get no messages either."""

    def __init__(
        self, connected: Sequence[LocalConsumers[Any]], guard: Guard, core: RedisOperations, reactor: Any
    ) -> None:
        super().__init__(CHECK_SECONDS, self._check)
        self.clock = reactor
        self._connected = connected
        self._guard = guard
        self._core = core
        self._reactor = reactor

    def _check(self) -> defer.Deferred[None]:
        return defer.ensureDeferred(self._close_refused()).addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if not failure.check(RestMQError):
            log.failure("checking the access of connected consumers failed", failure=failure)

    async def _close_refused(self) -> None:
        connected = [
            (part, queue, consumer)
            for part in self._connected
            for queue in part.queues
            for consumer in part.consumers(queue)
        ]
        tokens = {consumer.credentials.token for _, _, consumer in connected}
        records = await self._core.authorizations_of(token for token in tokens if token is not None)
        for number, (part, queue, consumer) in enumerate(connected, 1):
            token = consumer.credentials.token
            if token is not None and token not in records:
                continue  # its part of the store does not answer
            record = records.get(token or "")
            admitted = await self._guard.still_admits(consumer.credentials, consumer.access, queue, record)
            if not admitted and consumer in part.consumers(queue):
                part.leave(queue, consumer)
                consumer.close(CloseReason.NOT_ALLOWED)
            if number % _CHECKS_PER_TURN == 0:
                await task.deferLater(self._reactor, 0)  # messages pass in between
