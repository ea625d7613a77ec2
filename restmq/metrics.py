"""What Prometheus is told: the families of ``/metrics``, from the census of queues, the traffic, and the process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from twisted.internet import defer
from twisted.logger import Logger

from restmq import __version__
from restmq.census import Census, Tally
from restmq.core import RedisOperations
from restmq.errors import RestMQError
from restmq.fanout import Fanout
from restmq.longpoll import LongPolls
from restmq.traffic import BOUNDS_SECONDS, Traffic

log = Logger()

#: The queue label of what is added up. No queue has an empty name.
OTHERS = ""
_BOUNDS = [str(float(bound)) for bound in BOUNDS_SECONDS]
TRANSPORTS = ("comet", "sse", "websocket")

_COUNTERS: dict[str, tuple[str, Callable[[Tally], int]]] = {
    "published": ("Messages that came in.", lambda tally: tally.published),
    "delivered": (
        "Messages handed out: taken, broadcast, or leased (each time).",
        lambda tally: tally.out - tally.acked + tally.leased,
    ),
    "leased": ("Messages handed out under a lease (each time).", lambda tally: tally.leased),
    "acked": ("Leased messages that were acked.", lambda tally: tally.acked),
    "redelivered": ("Messages that came back: a lease ended, or was given back.", lambda tally: tally.redelivered),
    "expired": ("Messages that expired before anybody took them.", lambda tally: tally.expired),
    "dead": ("Messages that became dead letters.", lambda tally: tally.died),
}
_STATES: dict[str, Callable[[Tally], int]] = {
    "ready": lambda tally: tally.ready,
    "leased": lambda tally: tally.under_lease,
    "delayed": lambda tally: tally.delayed,
    "dead": lambda tally: tally.dead,
}


class Metrics(Collector):
    """All metrics of this daemon, and of the queues, which all daemons on one Redis share.

    Args:
        queues_max: how many queues have a label of their own; the others are added up under an empty one.
        connections: how many clients are connected.
    """

    def __init__(
        self,
        core: RedisOperations,
        fanout: Fanout,
        polls: LongPolls,
        traffic: Traffic,
        connections: Callable[[], int],
        queues_max: int,
    ) -> None:
        self._core = core
        self._fanout = fanout
        self._polls = polls
        self._traffic = traffic
        self._connections = connections
        self._census = Census(core, queues_max, traffic.clock)
        self._ping_seconds: float | None = None
        self._reading: defer.Deferred[None] | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        for kind in (ProcessCollector, PlatformCollector, GCCollector):
            kind(registry=self._registry)

    async def render(self, as_openmetrics: bool) -> tuple[bytes, str]:
        """The metrics as they are now, and their content type. Those who ask at the same time share one reading."""
        reading = self._reading
        if reading is None:
            reading = self._reading = defer.ensureDeferred(self._read())
            reading.addBoth(self._read_done)
        await _fork(reading)
        if as_openmetrics:
            rendered: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return rendered, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    def _read_done(self, result: Any) -> Any:
        self._reading = None
        return result

    async def _read(self) -> None:
        """Where Redis does not answer, that is what the metrics say; the rest of them stands all the same."""
        self._ping_seconds = None
        try:
            began = self._traffic.clock()
            await self._core.store.command("PING")
            ping_seconds = self._traffic.clock() - began
            await self._census.read()
            self._ping_seconds = ping_seconds
        except RestMQError as problem:
            log.debug("metrics without the store: {problem}", problem=problem)

    def collect(self) -> Iterator[Metric]:
        """For prometheus-client: the families, from what was read last."""
        up = self._ping_seconds is not None
        yield GaugeMetricFamily("restmq_redis_up", "1 if Redis answered at this scrape, else 0.", value=int(up))
        if self._ping_seconds is not None:
            yield GaugeMetricFamily(
                "restmq_redis_ping_seconds", "How long Redis took for a PING at this scrape.", value=self._ping_seconds
            )
            yield from self._of_queues()
        yield from self._of_listeners()
        yield from self._of_requests()
        about = GaugeMetricFamily("restmq_build_info", "1; the label says which version this is.", labels=["version"])
        about.add_metric([__version__], 1)
        yield about

    def _of_queues(self) -> Iterator[Metric]:
        census = self._census
        shown = dict(sorted(census.told_apart.items()))
        others = census.others
        tallies = {**shown, OTHERS: others} if others is not None else shown
        yield GaugeMetricFamily("restmq_queues", "How many queues there are.", value=census.queues)
        for name, (text, count) in _COUNTERS.items():
            counter = CounterMetricFamily(f"restmq_messages_{name}", text, labels=["queue"])
            for queue, tally in tallies.items():
                counter.add_metric([queue], count(tally))
            yield counter
        held = GaugeMetricFamily("restmq_messages", "Messages in the queue now.", labels=["queue", "state"])
        age = GaugeMetricFamily(
            "restmq_oldest_message_age_seconds",
            "How long the oldest message that is ready has waited; absent if none is, or it is not known.",
            labels=["queue"],
        )
        started = GaugeMetricFamily(
            "restmq_queue_started", "1 if connected consumers are served, 0 if the queue was stopped.", labels=["queue"]
        )
        for queue, tally in tallies.items():
            for state, number in _STATES.items():
                held.add_metric([queue, state], number(tally))
            if tally.oldest_age_ms >= 0:
                age.add_metric([queue], tally.oldest_age_ms / 1000)
        for queue, tally in shown.items():
            started.add_metric([queue], tally.started)
        yield from (held, age, started)

    def _of_listeners(self) -> Iterator[Metric]:
        """Of this daemon. A queue that is not told apart counts with the others."""
        connected: Counter[tuple[str, str]] = Counter()
        for queue in self._fanout.queues:
            label = self._label(queue)
            for consumer in self._fanout.consumers(queue):
                connected[label, consumer.format.transport] += 1
        waiting: Counter[str] = Counter()
        for queue in self._polls.queues:
            waiting[self._label(queue)] += self._polls.count(queue)
        consumers = GaugeMetricFamily(
            "restmq_consumers", "Consumers connected to this daemon.", labels=["queue", "transport"]
        )
        waiters = GaugeMetricFamily("restmq_waiters", "Clients of this daemon in a long poll.", labels=["queue"])
        for queue in sorted({*self._census.told_apart, *(queue for queue, _ in connected), *waiting, OTHERS}):
            for transport in TRANSPORTS:
                consumers.add_metric([queue, transport], connected[queue, transport])
            waiters.add_metric([queue], waiting[queue])
        yield from (consumers, waiters)
        yield CounterMetricFamily(
            "restmq_consumers_dropped", "Consumers dropped because they read too slowly.", value=self._fanout.dropped
        )

    def _label(self, queue: str) -> str:
        return queue if queue in self._census.told_apart else OTHERS

    def _of_requests(self) -> Iterator[Metric]:
        durations = HistogramMetricFamily(
            "restmq_http_request_duration_seconds",
            "From the request's last byte to its answer, of a stream to its head; waits of long polls included.",
            labels=["route", "method", "status"],
        )
        for route, outcomes in self._traffic.routes.items():
            for (method, status), seen in outcomes.items():
                below, buckets = 0, []
                for bound, number in zip((*_BOUNDS, "+Inf"), seen.counts, strict=True):
                    below += number
                    buckets.append((bound, float(below)))
                durations.add_metric([route, method, str(status)], buckets, seen.seconds)
        refused = CounterMetricFamily(
            "restmq_http_refused",
            "Requests and connections refused before any handler saw them: malformed, too long, too slow, too many.",
            labels=["status"],
        )
        for status, number in sorted(self._traffic.refusals.items()):
            refused.add_metric([str(status)], number)
        yield from (durations, refused)
        yield GaugeMetricFamily(
            "restmq_http_connections", "Connections of clients, live consumers included.", value=self._connections()
        )


def _fork(shared: defer.Deferred[None]) -> defer.Deferred[None]:
    """A Deferred of its own for one of several who wait for the same."""
    own: defer.Deferred[None] = defer.Deferred()
    shared.addBoth(own.callback)
    return own
