"""What ``bench/run`` measures: the figures, by table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import clusters
import loads
import peers
import sqs
from fanout import COMET, EVENTS, WEBSOCKET
from measures import BATCH, HISTORY, MANY_QUEUES, Measuring, all_stats, kept_history, one_consumer, one_tap, start
from rig import Run, Server, median
from waiting import wake_ups

WAITERS = 1000
WAKE_UPS = 1000
#: Enough connections to keep every worker busy.
MANY_CONNECTIONS = 128
WORKERS = (2, 4, 8)
CONNECTIONS_A_WORKER = 32
FULL_MESSAGES = 1_000_000
IDLE_CONSUMERS = 5000


@dataclass(slots=True)
class Figure:
    """One row of a table.

    Attributes:
        of: the server that is measured.
        before: the server of an earlier revision that is measured too, if that is wanted.
        beside: name of the figure that this one is compared with.
        by: what is compared: ``rate``, ``server_us`` and ``redis_us``, or ``cpu_us``, which is that of both.
        aim: required ratio, or required figure if there is no ratio.
        runs, runs_before: results of the current and of the earlier revision.
        missing, missing_before: why there are none.
    """

    what: str
    unit: str
    measure: Callable[[Any], Run]
    of: str = "plain"
    before: str = ""
    beside: str = ""
    by: str = "rate"
    aim: str = ""
    runs: list[Run] = field(default_factory=list)
    runs_before: list[Run] = field(default_factory=list)
    missing: str = ""
    missing_before: str = ""

    def add(self, result: Run | str) -> None:
        """Adds a result, or says why there is none."""
        if isinstance(result, Run):
            self.runs.append(result)
        else:
            self.missing = result

    def add_before(self, result: Run | str) -> None:
        if isinstance(result, Run):
            self.runs_before.append(result)
        else:
            self.missing_before = result

    def median(self, name: str) -> float | None:
        return _median(self.runs, name)

    def median_before(self, name: str) -> float | None:
        return _median(self.runs_before, name)

    def __str__(self) -> str:
        last = self.runs[-1] if self.runs else None
        if last is None:
            return f"{self.what}: {self.missing}"
        return f"{self.what}: {last.rate and round(last.rate)}, {last.cpu_us and round(last.cpu_us, 1)} µs"


def _median(runs: Sequence[Run], name: str) -> float | None:
    values = [value for run in runs if (value := getattr(run, name)) is not None]
    return median(values) if values else None


def _wakes(server: Server) -> Run:
    return wake_ups(server, WAITERS, WAKE_UPS)


def _live(m: Measuring) -> list[Figure]:
    """Fan-out, beside nchan, with few and with many consumers."""
    rows = []
    for title, transport in (("SSE", EVENTS), ("comet", COMET), ("WebSocket", WEBSOCKET)):
        for consumers, aim in ((1000, "> 1.00"), (100, "≥ 1.00")):
            for paced in (False, True):
                what = f"{title}, {consumers:,} consumers, {'paced' if paced else 'burst'}"
                measure = m.fan_out(transport, consumers, paced=paced)
                before = "before" if consumers == 1000 else ""
                rows.append(Figure(what, "", measure, before=before, aim="≤ 8 µs"))
                for of in ("nchan", "nchan with Redis"):
                    rows.append(Figure(f"{of}: {what}", "", measure, of, beside=what, by="cpu_us", aim=aim))
    return rows


def _sqs(m: Measuring) -> list[Figure]:
    def send(size: int) -> Callable[[Server], Run]:
        return lambda server: sqs.send(server, m.seconds, size)

    def receive(size: int, prepared_a_second: int) -> Callable[[Server], Run]:
        return lambda server: sqs.receive(server, m.seconds, size, prepared_a_second)

    rows = []
    for size, batch in ((1, ""), (sqs.BATCH, f"Batch of {sqs.BATCH}")):
        sends, receives = f"SendMessage{batch}", f"ReceiveMessage and DeleteMessage{batch}"
        rows.append(Figure(sends, "", send(size), before="before"))
        rows += [Figure(f"{of}: {sends}", "", send(size), of, beside=sends, by="cpu_us") for of in peers.EMULATORS]
        rows.append(Figure(receives, "", receive(size, 30_000), before="before"))
        rows += [
            Figure(f"{of}: {receives}", "", receive(size, prepared), of, beside=receives, by="cpu_us")
            for of, (_, prepared) in peers.EMULATORS.items()
        ]
    return rows


def _clusters(
    m: Measuring, primaries: Sequence[int], queues: Sequence[int], daemons: Sequence[int], connections: int
) -> list[Figure]:
    """Each load on one Redis, and on clusters."""
    rows = []
    for load in clusters.SCRIPTS:
        for names in queues:
            for used in daemons if names > 1 else (1,):
                of = f"{load}, {names:,} queue{'s' if names > 1 else ''}"
                of += f", {used} daemons" if used > 1 else ""

                def measure(servers: list[Server], load: str = load, names: int = names, used: int = used) -> Run:
                    return clusters.run(load, servers[:used], names, m.seconds, connections)

                rows.append(Figure(f"{of}, one Redis", "", measure, "store of 0"))
                for size in primaries:
                    what, store = f"{of}, cluster of {size}", f"store of {size}"
                    beside = f"{of}, one Redis"
                    rows.append(Figure(what, "", measure, store, f"{store}, before", beside, "server_us redis_us"))
    return rows


def _requests(m: Measuring) -> list[Figure]:
    posted, got = (f"{method}, {MANY_CONNECTIONS} connections" for method in ("POST", "GET"))
    post_many, get_many = m.post(MANY_CONNECTIONS), m.get(MANY_CONNECTIONS)
    was = "before"
    rows = [
        Figure("hello POST", "requests", m.load(loads.post), "hello"),
        Figure("POST", "requests", m.post(), "plain", was, "hello POST", aim="≥ 1.80"),
        Figure("hello GET", "requests", m.load(loads.get), "hello"),
        Figure("GET", "requests", m.get(), "plain", was, "hello GET", aim="≥ 1.50"),
        Figure("JSON add", "requests", m.load(loads.json_add), "plain", was, "hello POST"),
        Figure("lease and ack", "pairs", m.lease_and_ack, "plain", was),
        Figure(f"batch add, {BATCH:,} each", "messages", m.add_batches, "plain", was, aim="≥ 150,000"),
        Figure(f"batch take, {BATCH:,} each", "messages", m.take_batches, "plain", was, aim="≥ 150,000"),
        Figure(f"wake-up of one of {WAITERS:,} waiters", "", _wakes, "plain", was),
        Figure(posted, "requests", post_many, "plain", was),
        Figure(f"{posted}, two workers", "requests", post_many, "2 workers", beside=posted, aim="≥ 1.50"),
        Figure(got, "requests", get_many, "plain", was),
        Figure(f"{got}, two workers", "requests", get_many, "2 workers", beside=got, aim="≥ 1.50"),
    ]
    for of, queue, what in (
        ("full", "full", "a million messages waiting"),
        ("many", "used", f"{MANY_QUEUES:,} queues"),
        ("idle", "used", f"{IDLE_CONSUMERS:,} idle consumers"),
    ):
        for method, measure in (("POST", m.post_to(queue)), ("GET", m.get_from(queue))):
            rows.append(Figure(f"{method}, {what}", "", measure, of, "", method, "cpu_us", "≤ 1.10"))
    return [
        *rows,
        Figure(f"whole `/stats/`, {MANY_QUEUES:,} queues", "", all_stats, "many", aim="150 ms"),
        Figure("start of a prepared checkout", "", start, "", aim="1,000 ms"),
    ]


def _taps_and_histories(m: Measuring) -> list[Figure]:
    was, one = "before", "POST to one consumer"
    kept = f"{one}, history of {HISTORY:,}"
    return [
        Figure(one, "", m.post(around=one_consumer), "plain", was, "POST", "cpu_us"),
        Figure("POST with a tap", "", m.post(around=one_tap), "plain", was, "POST", "cpu_us"),
        Figure(kept, "", m.post(around=kept_history), "plain", was, one, "cpu_us"),
        Figure(f"replay of {HISTORY:,} to 100 consumers", "", m.replay, "plain", was),
    ]


def _other_servers(m: Measuring) -> list[Figure]:
    def beanstalk(*, takes: bool) -> Callable[[Server], Run]:
        return lambda server: peers.beanstalk(server, m.seconds, takes=takes)

    return [
        Figure(f"{of}: {what}", "", measure, of, beside=beside, by="cpu_us")
        for of, what, measure, beside in (
            ("webdis", "LPUSH", m.load(peers.webdis_push), "POST"),
            ("webdis", "RPOP", m.load(peers.webdis_pop, pops=True), "GET"),
            ("nchan", "POST", m.load(loads.post), "POST"),
            ("beanstalkd", "put", beanstalk(takes=False), "POST"),
            ("beanstalkd", "reserve and delete", beanstalk(takes=True), "lease and ack"),
        )
    ]


def _workers(m: Measuring) -> list[Figure]:
    """Workers that share one core, so that each of them costs and none gains."""
    rows = []
    for method, measure in (("POST", m.post), ("GET", m.get)):
        one = f"{method}, 1 worker"
        rows.append(Figure(one, "", m.pinned(measure(CONNECTIONS_A_WORKER))))
        for number in WORKERS:
            pinned, what = m.pinned(measure(CONNECTIONS_A_WORKER * number)), f"{method}, {number} workers"
            rows.append(Figure(what, "", pinned, f"{number} workers", "", one, "server_us", "≤ 1.05"))
    return rows


def figures(
    m: Measuring, *, primaries: Sequence[int], queues: Sequence[int], daemons: Sequence[int], connections: int
) -> dict[str, list[Figure]]:
    """All figures, by the title of their table."""
    return {
        "Requests": _requests(m),
        "Fan-out": _live(m),
        "Taps and histories": _taps_and_histories(m),
        "Other servers": _other_servers(m),
        "SQS": _sqs(m),
        "Workers on one core": _workers(m),
        "Clusters": _clusters(m, primaries, queues, daemons, connections),
    }
