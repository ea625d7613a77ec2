"""What Prometheus is told: the families of ``/metrics``, from the census of queues, the traffic, and the processes.

Whichever worker of a server is asked tells of all of them. The census is that of the one who is there longest: what the
queues that are not told apart add up to depends on when they were looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from twisted.internet import defer
from twisted.logger import Logger

from restmq import __version__
from restmq.core import RedisOperations
from restmq.delivery.fanout import Fanout
from restmq.errors import RestMQError
from restmq.monitoring.ledger import Counts
from restmq.monitoring.listeners import NOBODY, TRANSPORTS, Listeners, ListenerStatistics
from restmq.monitoring.peers import JOIN_SECONDS, Peers
from restmq.monitoring.queue_counters import Census, Reading, Tally
from restmq.monitoring.request_counters import BOUNDS_SECONDS, Traffic
from restmq.monitoring.worker_counters import Membership, Present, Roster, Sample
from restmq.store import keys

log = Logger()

#: The queue label of what is added up. No queue has an empty name.
OTHERS = ""
_BOUNDS = [str(float(bound)) for bound in BOUNDS_SECONDS]
#: A census takes two seconds at most, and whatever Redis needs for one call more.
_CENSUS_SECONDS = 3.0

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
    """All metrics of this server, and of the queues, which all servers on one Redis share.

    Args:
        membership: which of the server's workers this process is.
        connections: how many clients are connected to it.
        queues_max: how many queues have a label of their own; the others are added up under an empty one.
    """

    def __init__(
        self,
        core: RedisOperations,
        fanout: Fanout,
        listening: ListenerStatistics,
        peers: Peers,
        membership: Membership,
        traffic: Traffic,
        connections: Callable[[], int],
        queues_max: int,
    ) -> None:
        self._core = core
        self._fanout = fanout
        self._listening = listening
        self._peers = peers
        self._traffic = traffic
        self._census = Census(core, queues_max, traffic.clock)
        self._roster = Roster(peers, membership, core.store.clock, self._count, connections, self._process_samples)
        self._ping_seconds: float | None = None
        self._present: list[Present] = []
        self._listeners: Listeners = {}
        self._found: Reading | None = None
        self._found_now = False
        self._read_all, self._read_census = _OneAtATime(self._read), _OneAtATime(self._census.read)
        self._process = CollectorRegistry(auto_describe=False)
        for kind in (ProcessCollector, PlatformCollector, GCCollector):
            kind(registry=self._process)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        peers.answer("census", self._give_census, self._take_census)
        peers.answer("last census", lambda _: self._found and self._found.pack())
        peers.on_joined, peers.on_leaving = self._join, self._roster.leave

    async def render(self, as_openmetrics: bool) -> tuple[bytes, str]:
        """The metrics as they are now, and their content type. Those who ask at the same time share one reading."""
        await self._read_all()
        if as_openmetrics:
            rendered: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return rendered, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    async def _read(self) -> None:
        """Where Redis does not answer, that is what the metrics say; the rest of them stands all the same."""
        self._ping_seconds = None
        listeners = defer.ensureDeferred(self._listening.in_group())
        self._present = await self._roster.call()
        self._listeners = await listeners
        try:
            began = self._traffic.clock()
            await self._core.store.command("PING")
            ping_seconds = self._traffic.clock() - began
            self._ping_seconds, found = ping_seconds, await self._take_stock()
            self._found, self._found_now = found or self._found, found is not None
        except RestMQError as problem:
            log.debug("metrics without the store: {problem}", problem=problem)

    async def _take_stock(self) -> Reading | None:
        """The census; None if the worker whose part it is does not answer: these metrics are absent then."""
        first = self._present[0].peer
        if first == self._peers.id:
            found: Reading = await self._read_census()
            await self._peers.tell("census", found.pack())
            return found
        channel = keys.peer_channel(first)
        for packed in (await self._peers.ask("census", None, channel, _CENSUS_SECONDS)).values():
            with suppress(ValueError):
                return Reading.unpack(packed)
        return None

    async def _give_census(self, _: Any) -> Any:
        try:
            return (await self._read_census()).pack()
        except RestMQError:
            return None

    def _take_census(self, packed: Any, by: str) -> None:
        if by != self._peers.id and not self._read_census.is_going_on:
            self._found = Reading.unpack(packed)
            self._census.go_on_from(self._found)

    async def _join(self) -> None:
        await self._roster.join()
        if self._peers.group is not None:
            found = await self._peers.ask("last census", None, self._peers.group, JOIN_SECONDS)
            for peer, packed in found.items():
                with suppress(ValueError):
                    self._take_census(packed, peer)

    def _count(self) -> Counts:
        """What this process has counted; names are kinds and labels, with blanks between, as none of them has one."""
        counts: Counts = {
            f"http {route} {method} {status}": [*seen.counts, seen.seconds]
            for route, outcomes in self._traffic.routes.items()
            for (method, status), seen in outcomes.items()
        }
        counts |= {f"refused {status}": [number] for status, number in self._traffic.refusals.items()}
        return counts | {"dropped": [self._fanout.dropped]}

    def _process_samples(self) -> list[Sample]:
        families = self._process.collect()
        return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]

    def collect(self) -> Iterator[Metric]:
        """For prometheus-client: the families, from what was read last."""
        up = self._ping_seconds is not None
        yield GaugeMetricFamily("restmq_redis_up", "1 if Redis answered at this scrape, else 0.", value=int(up))
        if self._ping_seconds is not None:
            yield GaugeMetricFamily(
                "restmq_redis_ping_seconds", "How long Redis took for a PING at this scrape.", value=self._ping_seconds
            )
            if self._found is not None and self._found_now:
                yield from self._of_queues(self._found)
        yield from self._of_listeners()
        yield from self._of_requests()
        about = GaugeMetricFamily("restmq_build_info", "1; the label says which version this is.", labels=["version"])
        about.add_metric([__version__], 1)
        yield about
        yield from self._of_processes()

    def _of_queues(self, found: Reading) -> Iterator[Metric]:
        shown = dict(sorted(found.told_apart.items()))
        tallies = {**shown, OTHERS: found.others} if found.others is not None else shown
        yield GaugeMetricFamily("restmq_queues", "How many queues there are.", value=found.queues)
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
        """Of this server. A queue that is not told apart counts with the others."""
        told_apart = self._found.told_apart if self._found is not None else {}
        counted: dict[str, tuple[int, ...]] = dict.fromkeys((*told_apart, OTHERS), NOBODY)
        for queue, counts in self._listeners.items():
            label = queue if queue in told_apart else OTHERS
            counted[label] = tuple(map(sum, zip(counted[label], counts, strict=True)))
        consumers = GaugeMetricFamily(
            "restmq_consumers", "Consumers connected to this server.", labels=["queue", "transport"]
        )
        waiters = GaugeMetricFamily("restmq_waiters", "Clients of this server in a long poll.", labels=["queue"])
        for queue, (*connected, waiting) in sorted(counted.items()):
            for transport, number in zip(TRANSPORTS, connected, strict=True):
                consumers.add_metric([queue, transport], number)
            waiters.add_metric([queue], waiting)
        yield from (consumers, waiters)

    def _of_requests(self) -> Iterator[Metric]:
        durations = HistogramMetricFamily(
            "restmq_http_request_duration_seconds",
            "From the request's last byte to its answer, of a stream to its head; waits of long polls included.",
            labels=["route", "method", "status"],
        )
        refused = CounterMetricFamily(
            "restmq_http_refused",
            "Requests and connections refused before any handler saw them: malformed, too long, too slow, too many.",
            labels=["status"],
        )
        text = "Consumers dropped because they read too slowly."
        dropped = CounterMetricFamily("restmq_consumers_dropped", text, labels=())
        for name, numbers in sorted(self._roster.total().items()):
            kind, *labels = name.split(" ")
            if kind == "http" and len(labels) == 3 and len(numbers) == len(_BOUNDS) + 2:
                *counts, seconds = numbers
                durations.add_metric(labels, list(zip((*_BOUNDS, "+Inf"), accumulate(counts), strict=True)), seconds)
            elif kind == "refused" and len(labels) == len(numbers) == 1:
                refused.add_metric(labels, numbers[0])
            elif name == "dropped" and len(numbers) == 1:
                dropped.add_metric([], numbers[0])
        yield from (dropped, durations, refused)
        connections = sum(worker.connections for worker in self._present)
        yield GaugeMetricFamily(
            "restmq_http_connections", "Connections of clients, live consumers included.", value=connections
        )

    def _of_processes(self) -> Iterator[Metric]:
        """The process, or each worker's with its place as a label; while one takes over, the new one's."""
        if self._peers.group is None:
            yield from self._process.collect()
            return
        workers = {str(worker.worker): worker.samples for worker in self._present}
        for family in self._process.collect():
            known = {(sample.name, tuple(sample.labels)) for sample in family.samples}
            shown = Metric(family.name, family.documentation, family.type)
            for place, samples in workers.items():
                for name, labels, value in samples:
                    if (name, tuple(labels)) in known:
                        shown.add_sample(name, {"worker": place, **labels}, value)
            yield shown


class _OneAtATime:
    """Has something done for all who want it at the same time: those who come meanwhile get the same."""

    def __init__(self, do: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._do = do
        self._waiting: list[defer.Deferred[Any]] | None = None

    @property
    def is_going_on(self) -> bool:
        return self._waiting is not None

    def __call__(self) -> defer.Deferred[Any]:
        mine: defer.Deferred[Any] = defer.Deferred()
        if self._waiting is not None:
            self._waiting.append(mine)
        else:
            self._waiting = [mine]
            defer.ensureDeferred(self._do()).addBoth(self._done)
        return mine

    def _done(self, result: Any) -> None:
        waiting, self._waiting = self._waiting or [], None
        for each in waiting:
            each.callback(result)
