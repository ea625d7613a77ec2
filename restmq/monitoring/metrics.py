"""The metric families of ``/metrics``, from the counters of queues, requests, consumers and processes.

Any worker of a server can show all of them. The counters of queues are always read by the oldest worker, the leader:
the sum of the queues without a label depends on the times of all readings, so two workers would show different sums.
The leader stores each snapshot in Redis, from which the next leader continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import accumulate
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from twisted.internet import defer

from restmq import __version__
from restmq.core import RedisOperations
from restmq.delivery.fanout import Fanout
from restmq.errors import RestMQError, StoreUnavailable
from restmq.monitoring.listeners import NOBODY, TRANSPORTS, Listeners, ListenerStatistics
from restmq.monitoring.peers import Peers
from restmq.monitoring.queue_counters import QueueCounterReader, QueuesSnapshot
from restmq.monitoring.request_counters import BOUNDS_SECONDS, Traffic
from restmq.monitoring.worker_counters import Counts, Membership, Sample, WorkerCounters, WorkerRecord
from restmq.store.base import BaseStore
from restmq.store.batching import SharedCall

#: The queue label of the sum of all queues without a label of their own. No queue has an empty name.
OTHERS = ""
#: The field of the workers' hash with the last snapshot of the queues, and the id of the worker that took it.
_SNAPSHOT = "queues"
_BOUNDS = [str(float(bound)) for bound in BOUNDS_SECONDS]
#: A reading of the queues takes up to two seconds, and the time of one more call to Redis.
_QUEUES_SECONDS = 3.0

#: The counters of a queue: by metric, its name in QueueCounters and its description.
_COUNTERS = {
    "published": ("published", "Messages published."),
    "delivered": ("delivered", "Messages delivered: taken, broadcast, or leased (each lease counts)."),
    "leased": ("leased", "Leases granted."),
    "acked": ("acked", "Leased messages that were acked."),
    "redelivered": ("redelivered", "Messages returned because a lease expired or a consumer nacked."),
    "expired": ("expired", "Messages whose time to live ended before they were taken."),
    "dead": ("died", "Messages that became dead letters."),
}
#: The label of each state, and the number of messages in it, as QueueCounters names it.
_STATES = {"ready": "ready", "leased": "under_lease", "delayed": "delayed", "dead": "dead"}

#: The counters of the fan-out and of the store, as FanoutCounters and StoreCounters name them: metric and description.
_PLAIN_COUNTERS = {
    "dropped": ("restmq_consumers_dropped", "Consumers dropped because they read too slowly."),
    "gaps": ("restmq_consumers_told_of_gaps", "Consumers and taps that were told that they missed messages."),
    "lost_subscriptions": ("restmq_subscriptions_lost", "Times that the subscription to Redis broke."),
    "redis_refusals": ("restmq_redis_refusals", "Operations that Redis answered with an error."),
    "failovers": ("restmq_redis_failovers", "Times that another Redis server became the primary."),
}


#: The gauges that each worker knows its part of, as ``Metrics`` is given them.
_GAUGES = {
    "connections": ("restmq_http_connections", "Connections of clients, live consumers included."),
    "taps": ("restmq_taps", "Clients that watch a queue of this server with a tap."),
}


class Metrics(Collector):
    """All metrics of this server, and of the queues, which all servers on one Redis share.

    Args:
        membership: the place of this process among the server's workers.
        gauges: returns this process's numbers of client ``connections`` and of ``taps``.
        queues_max: maximum number of queues with a label of their own; the others are summed under an empty label.
    """

    def __init__(
        self,
        core: RedisOperations,
        fanout: Fanout,
        listening: ListenerStatistics,
        peers: Peers,
        membership: Membership,
        traffic: Traffic,
        gauges: Callable[[], dict[str, int]],
        queues_max: int,
    ) -> None:
        self._core = core
        self._fanout = fanout
        self._listening = listening
        self._peers = peers
        self._traffic = traffic
        self._group = membership.group
        self._reader = QueueCounterReader(core, queues_max, traffic.clock)
        self.workers = WorkerCounters(
            core=core,
            membership=membership,
            peer=peers.id,
            counts=self._count,
            gauges=gauges,
            samples=self._process_samples,
        )
        #: The duration of a PING to each server that answered, by its address.
        self._pings: dict[str, float] = {}
        self._counts: Counts | None = None
        self._live: list[WorkerRecord] = []
        self._listeners: Listeners = {}
        self._queues: QueuesSnapshot | None = None
        self._read_all, self._read_queues = SharedCall(self._read), SharedCall(self._read_and_store_queues)
        self._process = CollectorRegistry(auto_describe=False)
        for kind in (ProcessCollector, PlatformCollector, GCCollector):
            kind(registry=self._process)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        peers.answer("queues", None, self._answer_queues)

    async def render(self, as_openmetrics: bool) -> tuple[bytes, str]:
        """The metrics as they are now, and their content type. Simultaneous scrapes share one reading."""
        await self._read_all()
        if as_openmetrics:
            rendered: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return rendered, openmetrics.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    async def _read(self) -> None:
        """Reads everything that ``collect`` shows. Without Redis, only the metrics that come from Redis are absent."""
        self._queues, self._pings = None, {}
        listeners = defer.ensureDeferred(self._listening.in_group())
        self._counts, self._live = await self.workers.read()
        self._listeners = await listeners
        with suppress(RestMQError):
            self._pings = await self._ping_all()
            leader = self._live[0].peer
            self._queues = await self._peers.ask_one(leader, "queues", None, QueuesSnapshot, _QUEUES_SECONDS)

    async def _ping_all(self) -> dict[str, float]:
        """Raises StoreUnavailable if no server answers."""
        store = self._core.store
        began = self._traffic.clock()
        answered: dict[str, float] = {}

        def note(_: Any, server: BaseStore) -> None:
            answered[server.settings.where()] = self._traffic.clock() - began

        asked = [server.command("PING").addCallback(note, server) for server in store.servers]
        if not store.layout.is_partitioned:
            await asked[0]
        elif asked:
            all_asked = defer.DeferredList(asked, consumeErrors=True)
            enough: defer.Deferred[None] = defer.Deferred()
            all_asked.addCallback(lambda _: enough.called or enough.callback(None))
            await enough.addTimeout(store.part_seconds, store.clock, lambda *_: None)
        if not answered:
            raise StoreUnavailable("no node of the message store (Redis Cluster) answers.")
        return dict(answered)

    async def _answer_queues(self, _: None) -> QueuesSnapshot | None:
        try:
            snapshot: QueuesSnapshot = await self._read_queues()
            return snapshot
        except RestMQError:
            return None

    async def _read_and_store_queues(self) -> QueuesSnapshot:
        """Takes a snapshot and stores it. Continues from the stored snapshot if another worker took that one."""
        if not self._group:
            return await self._reader.read()
        key, store = self._core.layout.worker_counters(self._group), self._core.store
        last = await store.command("HGET", key, _SNAPSHOT)
        if last is not None:
            by, stored = msgspec.json.decode(last, type=tuple[str, QueuesSnapshot])
            if by != self._peers.id:
                self._reader.continue_from(stored)
        snapshot = await self._reader.read()
        await store.command("HSET", key, _SNAPSHOT, msgspec.json.encode([self._peers.id, snapshot]))
        return snapshot

    def _count(self) -> Counts:
        """This process's counts by name: the kind and the labels, separated by blanks (no label contains one)."""
        counts: Counts = {
            f"http {route} {method} {status}": [*seen.counts, seen.seconds]
            for route, outcomes in self._traffic.routes.items()
            for (method, status), seen in outcomes.items()
        }
        counts |= {f"refused {status}": [number] for status, number in self._traffic.refusals.items()}
        counts |= {f"sqs {' '.join(labels)}": [number] for labels, number in self._traffic.sqs_errors.items()}
        plain = asdict(self._fanout.counters) | asdict(self._core.store.counters)
        return counts | {name: [number] for name, number in plain.items() if name in _PLAIN_COUNTERS}

    def _process_samples(self) -> list[Sample]:
        families = self._process.collect()
        return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]

    def collect(self) -> Iterator[Metric]:
        """The metric families, from the last reading. prometheus-client calls this."""
        yield from self._of_redis()
        if self._queues is not None:
            yield from self._of_queues(self._queues)
        yield from self._of_listeners()
        if self._counts is not None:
            yield from self._of_requests(self._counts)
        for name, (family, text) in _GAUGES.items():
            yield GaugeMetricFamily(family, text, value=sum(worker.gauges.get(name, 0) for worker in self._live))
        text = "1; the label is the version of RestMQ."
        yield _gauge("restmq_build_info", text, ("version",), [((__version__,), 1)])
        yield from self._of_processes()

    def _of_redis(self) -> Iterator[Metric]:
        """Of a cluster, a sample for each node, with its address as the label."""
        store = self._core.store
        labels = ("node",) if store.layout.is_partitioned else ()
        nodes = {where: (where,) if labels else () for where in sorted(each.settings.where() for each in store.servers)}
        up = ((labelled, int(where in self._pings)) for where, labelled in nodes.items())
        yield _gauge("restmq_redis_up", "1 if Redis answered at this scrape, else 0.", labels, up)
        if self._pings:
            pings = ((labelled, self._pings[where]) for where, labelled in nodes.items() if where in self._pings)
            yield _gauge("restmq_redis_ping_seconds", "Duration of a PING to Redis at this scrape.", labels, pings)

    def _of_queues(self, snapshot: QueuesSnapshot) -> Iterator[Metric]:
        labelled = dict(sorted(snapshot.labelled.items()))
        queues = {**labelled, OTHERS: snapshot.others} if snapshot.others is not None else labelled
        yield GaugeMetricFamily("restmq_queues", "Number of queues.", value=snapshot.queues)
        for metric, (name, text) in _COUNTERS.items():
            counter = CounterMetricFamily(f"restmq_messages_{metric}", text, labels=["queue"])
            for queue, counters in queues.items():
                counter.add_metric([queue], getattr(counters, name))
            yield counter
        yield _gauge(
            "restmq_messages",
            "Messages in the queue now.",
            ("queue", "state"),
            (((queue, state), getattr(of, name)) for queue, of in queues.items() for state, name in _STATES.items()),
        )
        yield _gauge(
            "restmq_oldest_message_age_seconds",
            "Age of the oldest ready message; absent if there is none or its age is unknown.",
            ("queue",),
            (((queue,), known.oldest_age_ms / 1000) for queue, known in queues.items() if known.oldest_age_ms >= 0),
        )
        text = "1 if connected consumers are served, 0 if the queue was stopped."
        started = (((queue,), known.started) for queue, known in labelled.items())
        yield _gauge("restmq_queue_started", text, ("queue",), started)

    def _of_listeners(self) -> Iterator[Metric]:
        """The consumers and waiters of this server. A queue without a label counts with the others."""
        labelled = self._queues.labelled if self._queues is not None else {}
        counted: dict[str, tuple[int, ...]] = dict.fromkeys((*labelled, OTHERS), NOBODY)
        for queue, counts in self._listeners.items():
            label = queue if queue in labelled else OTHERS
            counted[label] = tuple(map(sum, zip(counted[label], counts, strict=True)))
        rows = sorted(counted.items())
        consumers = (
            ((queue, transport), number)
            for queue, counts in rows
            for transport, number in zip(TRANSPORTS, counts, strict=False)
        )
        yield _gauge("restmq_consumers", "Consumers connected to this server.", ("queue", "transport"), consumers)
        waiters = (((queue,), counts[-1]) for queue, counts in rows)
        yield _gauge("restmq_waiters", "Clients of this server in a long poll.", ("queue",), waiters)

    def _of_requests(self, counts_by_name: Counts) -> Iterator[Metric]:
        durations = HistogramMetricFamily(
            "restmq_http_request_duration_seconds",
            "Time from the request's last byte to its answer (of a stream: to its head), with the waits of long polls.",
            labels=["route", "method", "status"],
        )
        refused = CounterMetricFamily(
            "restmq_http_refused",
            "Requests rejected before routing: malformed, too long, too slow, too many connections.",
            labels=["status"],
        )
        plain = {name: CounterMetricFamily(family, text, labels=()) for name, (family, text) in _PLAIN_COUNTERS.items()}
        sqs_errors = CounterMetricFamily(
            "restmq_sqs_errors",
            "Errors that SQS clients got, with those of entries of batches, by Amazon's code.",
            labels=["operation", "code"],
        )
        for name, numbers in sorted(counts_by_name.items()):
            kind, *labels = name.split(" ")
            if kind == "http" and len(labels) == 3 and len(numbers) == len(_BOUNDS) + 2:
                *counts, seconds = numbers
                durations.add_metric(labels, list(zip((*_BOUNDS, "+Inf"), accumulate(counts), strict=True)), seconds)
            elif kind == "refused" and len(labels) == len(numbers) == 1:
                refused.add_metric(labels, numbers[0])
            elif kind == "sqs" and len(labels) == 2 and len(numbers) == 1:
                sqs_errors.add_metric(labels, numbers[0])
            elif name in plain and len(numbers) == 1:
                plain[name].add_metric([], numbers[0])
        yield from (*plain.values(), durations, refused, sqs_errors)

    def _of_processes(self) -> Iterator[Metric]:
        """Metrics of this process; with workers, those of each worker, labelled with the worker's number.

        While a worker is being replaced, these are the new worker's metrics.
        """
        if not self._group:
            yield from self._process.collect()
            return
        workers = {str(worker.worker): worker.samples for worker in self._live}
        for family in self._process.collect():
            known = {(sample.name, tuple(sample.labels)) for sample in family.samples}
            shown = Metric(family.name, family.documentation, family.type)
            for place, samples in workers.items():
                for name, labels, value in samples:
                    if (name, tuple(labels)) in known:
                        shown.add_sample(name, {"worker": place, **labels}, value)
            yield shown


def _gauge(name: str, text: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]) -> Metric:
    """A gauge with samples: the labels of each, and its value."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in samples:
        family.add_metric(values, number)
    return family
