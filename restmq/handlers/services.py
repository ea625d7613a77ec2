"""The parts of the server that handlers use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet import defer

from restmq.auth.guard import Credentials, Guard
from restmq.core import RedisOperations
from restmq.delivery.fanout import Fanout
from restmq.delivery.longpoll import LongPolls
from restmq.delivery.taps import Taps
from restmq.handlers.admission import Admission
from restmq.http.turns import Turns
from restmq.monitoring.dashboard_feed import DashboardFeed
from restmq.monitoring.listeners import ListenerStatistics
from restmq.monitoring.metrics import Metrics
from restmq.monitoring.request_counters import Traffic
from restmq.monitoring.samples import Samples
from restmq.monitoring.servers import Servers
from restmq.schema.metadata import KeptHeaders

#: A longer list of names takes some milliseconds to check and render.
_MANY_QUEUES = 10_000


@dataclass(slots=True, kw_only=True)
class Services:
    """The parts that handlers use. A process has one such object; every handler gets it.

    Attributes:
        command_bytes_max: maximum size of a JSON command or an XML-RPC call.
        metrics: is set after the application, because they count its connections.
        samples: is set after the metrics, which know the leading worker.
        servers: is set after the application too.
        description: the OpenAPI document. ``web.Application`` sets it from its route table.
        draining: whether the server is stopping. ``web.Application`` sets it.
    """

    core: RedisOperations
    fanout: Fanout
    taps: Taps
    polls: LongPolls
    guard: Guard
    admission: Admission
    listeners: ListenerStatistics
    dashboard_feed: DashboardFeed
    traffic: Traffic
    websockets: WebSocketServerFactory
    command_bytes_max: int
    turns: Turns
    metrics: Metrics = field(init=False)
    samples: Samples = field(init=False)
    servers: Servers = field(init=False)
    description: dict[str, Any] = field(default_factory=dict)
    kept_headers: KeptHeaders = field(default_factory=KeptHeaders)
    draining: bool = False

    async def visible_queues(self, credentials: Credentials) -> list[str]:
        """The names of all queues that this client may see, sorted."""
        return (await self._visible(credentials))[0]

    async def _visible(self, credentials: Credentials) -> tuple[list[str], int]:
        names, missing = await self.core.queue_names()
        if len(names) > _MANY_QUEUES:  # several lists may be there at once
            await self.turns.next()
        return list(filter(await self.guard.coverage(credentials), names)), missing

    async def page_of_queues(
        self, credentials: Credentials, first: int, count: int | None
    ) -> tuple[Sequence[str], int, int]:
        """A part of the same list: ``count`` names (None for all) after the ``first`` ones.

        Returns:
            The names, the length of the whole list, and the number of nodes of a cluster whose queues are missing.
        """
        names, missing = await self._visible(credentials)
        return names[first:] if count is None else names[first : first + count], len(names), missing

    async def queue_stats(self, queue: str) -> dict[str, Any]:
        """The answer of ``/stats/<queue>``. Consumers and waiting clients are those of all daemons."""
        counting = defer.ensureDeferred(self.listeners.count(queue))
        stats = await self.core.queue_stats(queue)
        consumers, waiters = await counting
        return {
            "redis": self.core.describe(queue),
            **stats.fields(),
            "consumers": consumers,
            "waiters": waiters,
        }
