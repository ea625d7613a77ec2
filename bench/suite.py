"""Measures all figures of docs/performance.md, in interleaved repeats. See --help."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import loads
import report
from fanout import COMET, EVENTS, NCHAN, WEBSOCKET, Transport, fan_out, listening, nchan
from rig import Run, Server, earlier, fill, hello, median, serving
from waiting import wake_ups

from tests.servers import wait_until

BATCH = 1000
WAITERS = 1000
WAKE_UPS = 1000
CONSUMERS = 1000
#: Enough connections to keep every worker busy.
MANY_CONNECTIONS = 128
DELIVERIES = 300_000
FULL_MESSAGES = 1_000_000
MANY_QUEUES = 10_000
IDLE_CONSUMERS = 5000
#: Messages prepared per second of load: more than any server here can deliver.
_TAKEN_A_SECOND = 100_000
_BATCHED_A_SECOND = 800_000


@dataclass(slots=True)
class Servers:
    """The measured servers. Each has its own Redis; servers that are not under load are idle.

    Attributes:
        before: a server of an earlier revision, or None.
        full, many, idle: servers with a million messages waiting, with 10,000 queues, with 5,000 idle consumers.
    """

    hello: Server
    plain: Server
    workers: Server
    full: Server
    many: Server
    idle: Server
    before: Server | None
    nchan: Server | None


@dataclass(slots=True)
class Figure:
    """One row of the table.

    Attributes:
        beside: name of the figure that this one is divided by, if any.
        aim: required ratio, or required figure if there is no ratio.
        runs, before: results of the current and of the earlier revision.
    """

    what: str
    unit: str
    measure: Callable[[Server], Run]
    of: str = "plain"
    beside: str = ""
    aim: str = ""
    compared: bool = False
    runs: list[Run] = field(default_factory=list)
    before: list[Run] = field(default_factory=list)


class Measuring:
    """Measures each figure, with a new queue each time that is deleted afterwards."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self._number = 0

    def queue(self) -> str:
        self._number += 1
        return f"bench-{self._number}"

    def said_hello(self, load: Callable[[str], loads.Load]) -> Callable[[Server], Run]:
        return lambda server: load("x").run(server.url, self.seconds)

    def post_on(self, connections: int) -> Callable[[Server], Run]:
        return lambda server: self.post(server, connections)

    def get_on(self, connections: int) -> Callable[[Server], Run]:
        return lambda server: self.get(server, connections)

    def post(self, server: Server, connections: int = 32) -> Run:
        queue = self.queue()
        run = loads.post(queue, connections).run(server.url, self.seconds)
        wait_until(lambda: unstored(server, queue) == 0, why="every numbered message is stored when no request is left")
        forget(server)
        return run

    def get(self, server: Server, connections: int = 32) -> Run:
        queue = self.queue()
        fill(server.store, queue, int(self.seconds * _TAKEN_A_SECOND))
        run = loads.get(queue, connections).run(server.url, self.seconds)
        check_not_empty(server, queue)
        forget(server)
        return run

    def post_to(self, queue: str) -> Callable[[Server], Run]:
        return lambda server: loads.post(queue).run(server.url, self.seconds)

    def get_from(self, queue: str) -> Callable[[Server], Run]:
        def measure(server: Server) -> Run:
            run = loads.get(queue).run(server.url, self.seconds)
            check_not_empty(server, queue)
            return run

        return measure

    def json_add(self, server: Server) -> Run:
        queue = self.queue()
        run = loads.json_add(queue).run(server.url, self.seconds)
        forget(server)
        return run

    def lease_and_ack(self, server: Server) -> Run:
        fill(server.store, "leased", int(self.seconds * _TAKEN_A_SECOND))
        run = loads.LEASE_AND_ACK.run(server.url, self.seconds)
        check_not_empty(server, "leased")
        run.rate = int(server.store.command("HGET", "leased:totals", "acked")) / self.seconds
        forget(server)
        return run

    def add_batches(self, server: Server) -> Run:
        queue = self.queue()
        run = loads.add_batches(queue, BATCH).run(server.url, self.seconds)
        run.rate = server.store.command("LLEN", f"{queue}:queue") / self.seconds
        forget(server)
        return run

    def take_batches(self, server: Server) -> Run:
        queue, messages = self.queue(), int(self.seconds * _BATCHED_A_SECOND)
        fill(server.store, queue, messages)
        run = loads.take_batches(queue, BATCH).run(server.url, self.seconds)
        run.rate = (messages - check_not_empty(server, queue)) / self.seconds
        forget(server)
        return run

    def fan_out(self, transport: Transport) -> Callable[[Server], Run]:
        def measure(server: Server) -> Run:
            return fan_out(server, transport, self.queue(), CONSUMERS, DELIVERIES // CONSUMERS)

        return measure


def forget(server: Server) -> None:
    server.store.command("FLUSHDB")


def unstored(server: Server, queue: str) -> int:
    """Returns the number of messages that have a number but are not stored."""
    return int(server.store.command("GET", f"{queue}:UUID")) - int(server.store.command("LLEN", f"{queue}:queue"))


def check_not_empty(server: Server, queue: str) -> int:
    left = int(server.store.command("LLEN", f"{queue}:queue"))
    assert left > 0, f"{queue} ran empty, so answers without a message were measured. Fill it with more messages."
    return left


def wakes(server: Server) -> Run:
    return wake_ups(server, WAITERS, WAKE_UPS)


def who_computes(server: Server, method: str, load: loads.Load, seconds: int) -> str:
    """Describes the CPU time of a request in each of the three processes that share the cores."""
    before, drove_before = server.cpu_seconds(), os.times()
    run = load.run(server.url, seconds)
    spent, drove = server.cpu_seconds(), os.times()
    client = drove.children_user + drove.children_system - drove_before.children_user - drove_before.children_system
    assert run.rate is not None
    server_us, redis_us, client_us = (
        used / (run.rate * seconds) * 1e6 for used in (spent[0] - before[0], spent[1] - before[1], client)
    )
    cores = len(os.sched_getaffinity(0))
    most = cores * 1e6 / (server_us + redis_us + client_us)
    return (
        f"A {method} on {MANY_CONNECTIONS} connections uses {server_us:.1f} µs of CPU in the server, {redis_us:.1f} in "
        f"Redis and {client_us:.1f} in the client. One worker can use one core. With any number of workers, the "
        f"{cores} cores of this machine could serve at most {most:,.0f} requests per second, "
        f"{most / run.rate:.2f} times the rate of one worker."
    )


def all_stats(server: Server) -> Run:
    """Requests /stats/ ten times, one after the other."""
    import httpx

    took_ms = []
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(10):
            began = time.perf_counter()
            answer = client.get("/stats/")
            took_ms.append((time.perf_counter() - began) * 1000)
            assert len(answer.json()["queues"]) >= MANY_QUEUES
    return Run(None, median(took_ms), max(took_ms))


def figures(measuring: Measuring) -> list[Figure]:
    m = measuring
    requests, messages, deliveries = "requests", "messages", "deliveries"
    posted, got = (f"{method}, {MANY_CONNECTIONS} connections" for method in ("POST", "GET"))
    full, many, idle = "a million messages waiting", f"{MANY_QUEUES:,} queues", f"{IDLE_CONSUMERS:,} idle consumers"
    return [
        Figure("hello POST", requests, m.said_hello(loads.post), "hello"),
        Figure("POST", requests, m.post, beside="hello POST", aim="1.80", compared=True),
        Figure("hello GET", requests, m.said_hello(loads.get), "hello"),
        Figure("GET", requests, m.get, beside="hello GET", aim="1.50", compared=True),
        Figure("JSON add", requests, m.json_add, beside="hello POST", compared=True),
        Figure("lease and ack", "pairs", m.lease_and_ack, compared=True),
        Figure(f"batch add, {BATCH:,} each", messages, m.add_batches, aim="150,000", compared=True),
        Figure(f"batch take, {BATCH:,} each", messages, m.take_batches, aim="150,000", compared=True),
        Figure(f"wake-up of one of {WAITERS:,} waiters", "", wakes, compared=True),
        Figure(f"comet, {CONSUMERS:,} consumers", deliveries, m.fan_out(COMET), compared=True),
        Figure(f"SSE, {CONSUMERS:,} consumers", deliveries, m.fan_out(EVENTS), compared=True),
        Figure(f"WebSocket, {CONSUMERS:,} consumers", deliveries, m.fan_out(WEBSOCKET), compared=True),
        Figure(f"nchan (C), SSE, {CONSUMERS:,} consumers", deliveries, m.fan_out(NCHAN), "nchan"),
        Figure(posted, requests, m.post_on(MANY_CONNECTIONS)),
        Figure(f"{posted}, two workers", requests, m.post_on(MANY_CONNECTIONS), "workers", posted, "1.50"),
        Figure(got, requests, m.get_on(MANY_CONNECTIONS)),
        Figure(f"{got}, two workers", requests, m.get_on(MANY_CONNECTIONS), "workers", got, "1.50"),
        Figure(f"POST, {full}", requests, m.post_to("full"), "full", "POST", "0.90"),
        Figure(f"GET, {full}", requests, m.get_from("full"), "full", "GET", "0.90"),
        Figure(f"POST, {many}", requests, m.post_to("used"), "many", "POST", "0.90"),
        Figure(f"GET, {many}", requests, m.get_from("used"), "many", "GET", "0.90"),
        Figure(f"POST, {idle}", requests, m.post_to("used"), "idle", "POST", "0.90"),
        Figure(f"GET, {idle}", requests, m.get_from("used"), "idle", "GET", "0.90"),
        Figure(f"whole `/stats/`, {many}", "", all_stats, "many", aim="300 ms"),
    ]


@contextlib.contextmanager
def servers(before: str, seconds: float, notes: list[str]) -> Iterator[Servers]:
    """Starts all servers and fills them."""
    with contextlib.ExitStack() as stack:

        def serve(*options: str) -> Server:
            return stack.enter_context(serving(*options))

        roomy = ("--max-connections-per-address", "20000", "--max-connections", "20000")
        full, many, idle = serve(), serve(), serve(*roomy)
        resident_kb = full.resident_kb()
        fill(full.store, "full", FULL_MESSAGES + int(seconds * _TAKEN_A_SECOND))
        grown = full.resident_kb() - resident_kb
        notes.append(
            f"A million waiting messages increased the daemon's memory by {grown:,} kB, because only Redis holds them."
        )
        for start in range(0, MANY_QUEUES, 500):
            names = [f"queue-{number}" for number in range(start, start + 500)]
            parts = [("SADD", "QUEUESET", *names)]
            for name in names:
                parts += [
                    ("SET", f"{name}:1", "x"),
                    ("LPUSH", f"{name}:queue", f"{name}:1"),
                    ("SET", f"{name}:UUID", "1"),
                ]
            many.store.commands(parts)
        for server in (many, idle):
            fill(server.store, "used", int(4 * seconds * _TAKEN_A_SECOND))
        resident_kb = idle.resident_kb()
        stack.enter_context(listening(idle, "idle", IDLE_CONSUMERS))
        grown_kb = (idle.resident_kb() - resident_kb) / IDLE_CONSUMERS
        notes.append(f"An idle consumer uses {grown_kb:.1f} kB of the daemon's memory.")
        earlier_server = None
        if before:
            earlier_server = stack.enter_context(serving(root=stack.enter_context(earlier(before))))
        said = stack.enter_context(hello())
        yield Servers(
            said, serve(), serve("--workers", "2"), full, many, idle, earlier_server, stack.enter_context(nchan())
        )


def measure_all(wanted: list[Figure], given: argparse.Namespace, notes: list[str]) -> None:
    with servers(given.before, given.seconds, notes) as known:
        for turn in range(given.repeats):
            for figure in wanted:
                server = getattr(known, figure.of)
                if server is not None:
                    figure.runs.append(figure.measure(server))
                if figure.compared and known.before is not None:
                    figure.before.append(figure.measure(known.before))
                rate = figure.runs[-1].rate if figure.runs else None
                print(f"{turn + 1}/{given.repeats} {figure.what}: {rate and round(rate)}", file=sys.stderr, flush=True)
        fill(known.plain.store, "shared", given.seconds * _TAKEN_A_SECOND)
        for method, load in (("POST", loads.post), ("GET", loads.get)):
            notes.append(who_computes(known.plain, method, load("shared", MANY_CONNECTIONS), given.seconds))
        known.many.store.command("CONFIG", "RESETSTAT")
        all_stats(known.many)
        said = known.many.store.command("INFO", "commandstats")
        calls = {name: int(count) / 10 for name, count in re.findall(r"cmdstat_(evalsha|smembers):calls=(\d+)", said)}
        notes.append(
            f"The whole of `/stats/` with {MANY_QUEUES:,} queues takes {sum(calls.values()):.0f} calls to Redis: one "
            "for the names, and one for every 500 queues. A part of it (`?first=N&count=N`) reads only its own queues."
        )


def main() -> None:
    described = argparse.ArgumentParser(prog="bench/run", description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--seconds", type=int, default=2, help="seconds per load (default 2)")
    described.add_argument(
        "--repeats", type=int, default=3, help="interleaved repeats, shown by their median (default 3)"
    )
    described.add_argument("--only", default="", help="regular expression that selects figures by name (default: all)")
    described.add_argument("--before", default="", metavar="REVISION", help="earlier revision to measure beside it")
    described.add_argument("--print", action="store_true", help="print the table; do not write docs/performance.md")
    given = described.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    began = time.monotonic()
    notes: list[str] = []
    wanted = [figure for figure in figures(Measuring(given.seconds)) if re.search(given.only, figure.what)]
    measure_all(wanted, given, notes)
    of = f"{given.repeats} repeats of {given.seconds} s per load, {time.monotonic() - began:.0f} s in total; CPython "
    of += f"{platform.python_version()}, {platform.machine()}"
    text = report.figures(wanted, of, notes, given.before)
    if given.print:
        print(text)
    else:
        report.write(text, report.plot(wanted))


if __name__ == "__main__":
    main()
