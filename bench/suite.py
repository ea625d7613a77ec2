"""Measures all figures of docs/performance.md, in interleaved repeats. See --help."""

from __future__ import annotations

import argparse
import contextlib
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import peers
import report
from clusters import serving_store
from fanout import listening
from figures import FULL_MESSAGES, IDLE_CONSUMERS, WORKERS, Figure, figures
from measures import MANY_QUEUES, TAKEN_A_SECOND, Measuring, all_stats
from rig import Missing, Run, Server, earlier, fill, fill_queues, hello, serving

Maker = Callable[[], contextlib.AbstractContextManager[Any]]


class Servers:
    """The measured servers. Each is started when it is first needed, and has its own Redis; all but one are idle."""

    def __init__(self, makers: dict[str, Maker], stack: contextlib.ExitStack) -> None:
        self._makers, self._stack = makers, stack
        self._known: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Returns a server, or the daemons of a store. Raises Missing if it cannot be had."""
        if name not in self._known:
            try:
                self._known[name] = self._stack.enter_context(self._makers[name]())
            except Missing as reason:
                self._known[name] = reason
        if isinstance(self._known[name], Missing):
            raise self._known[name]
        return self._known[name]


@contextlib.contextmanager
def full(messages: int, notes: list[str]) -> Iterator[Server]:
    with serving() as server:
        resident_kb = server.resident_kb()
        fill(server.store, "full", messages)
        grown = server.resident_kb() - resident_kb
        notes.append(
            f"A million waiting messages increased the daemon's memory by {grown:,} kB, because only Redis holds them."
        )
        yield server


@contextlib.contextmanager
def many(messages: int, notes: list[str]) -> Iterator[Server]:
    with serving() as server:
        fill_queues(server.store, MANY_QUEUES)
        server.store.command("CONFIG", "RESETSTAT")
        all_stats(server)
        said = server.store.command("INFO", "commandstats")
        calls = sum(int(count) / 10 for count in re.findall(r"cmdstat_(?:evalsha|smembers):calls=(\d+)", said))
        notes.append(
            f"The whole of `/stats/` with {MANY_QUEUES:,} queues takes {calls:.0f} calls to Redis: one for the names, "
            "and one for every 500 queues. A part of it (`?first=N&count=N`) reads only its own queues."
        )
        fill(server.store, "used", messages)
        yield server


@contextlib.contextmanager
def idle(messages: int, notes: list[str]) -> Iterator[Server]:
    with serving("--max-connections-per-address", "20000", "--max-connections", "20000") as server:
        fill(server.store, "used", messages)
        resident_kb = server.resident_kb()
        with listening(server, "idle", IDLE_CONSUMERS):
            grown_kb = (server.resident_kb() - resident_kb) / IDLE_CONSUMERS
            notes.append(f"An idle consumer uses {grown_kb:.1f} kB of the daemon's memory (aim: 5 kB at most).")
            yield server


def makers(given: argparse.Namespace, before: Path, notes: list[str]) -> dict[str, Maker]:
    """How each server is started, by name."""
    taken = int(2 * given.repeats * given.seconds * TAKEN_A_SECOND)
    daemons = max(given.daemons)
    found: dict[str, Maker] = {
        "": contextlib.nullcontext,
        "hello": hello,
        "plain": serving,
        "before": partial(serving, root=before),
        "full": partial(full, FULL_MESSAGES + taken, notes),
        "many": partial(many, taken, notes),
        "idle": partial(idle, taken, notes),
        "nchan": peers.nchan,
        "nchan with Redis": partial(peers.nchan, with_redis=True),
        "webdis": peers.webdis,
        "beanstalkd": peers.beanstalkd,
        **{name: maker for name, (maker, _) in peers.EMULATORS.items()},
    }
    for number in WORKERS:
        found[f"{number} workers"] = partial(serving, "--workers", str(number))
    for size in (0, *given.primaries):
        found[f"store of {size}"] = partial(serving_store, size, daemons)
        found[f"store of {size}, before"] = partial(serving_store, size, daemons, before)
    return found


def measure_once(figure: Figure, servers: Servers, name: str) -> Run | str:
    """Measures a figure on one of its servers, or says why that cannot be done."""
    try:
        return figure.measure(servers[name])
    except Missing as reason:
        return str(reason)


def measure_all(wanted: list[Figure], given: argparse.Namespace, notes: list[str]) -> None:
    with contextlib.ExitStack() as stack:
        before = stack.enter_context(earlier(given.before)) if given.before else Path()
        servers = Servers(makers(given, before, notes), stack)
        for turn in range(given.repeats):
            for figure in wanted:
                began = time.monotonic()
                figure.add(measure_once(figure, servers, figure.of))
                if figure.before and given.before:
                    figure.add_before(measure_once(figure, servers, figure.before))
                took = time.monotonic() - began
                print(f"{turn + 1}/{given.repeats} {figure} ({took:.1f} s)", file=sys.stderr, flush=True)


def main() -> None:
    described = argparse.ArgumentParser(prog="bench/run", description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--seconds", type=int, default=1, help="seconds per load (default 1)")
    described.add_argument(
        "--repeats", type=int, default=3, help="interleaved repeats, shown by their median (default 3)"
    )
    described.add_argument(
        "--only", default="", metavar="REGEX", help="print figures whose name, or their table's, has a match"
    )
    described.add_argument("--before", default="", metavar="REVISION", help="earlier revision to measure beside it")
    described.add_argument("--print", action="store_true", help="do not write the tables into docs/performance.md")
    clusters = described.add_argument_group("figures of Redis Cluster")
    clusters.add_argument("--primaries", type=int, nargs="*", default=[3], help="sizes of clusters (default 3)")
    clusters.add_argument("--queues", type=int, nargs="*", default=[12], help="numbers of queues (default 12)")
    clusters.add_argument("--daemons", type=int, nargs="*", default=[1], help="numbers of daemons (default 1)")
    clusters.add_argument("--connections", type=int, default=32, help="connections to each daemon (default 32)")
    given = described.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    began = time.monotonic()
    notes: list[str] = []
    tables = figures(
        Measuring(given.seconds),
        primaries=given.primaries,
        queues=given.queues,
        daemons=given.daemons,
        connections=given.connections,
    )
    wanted = {
        title: [figure for figure in rows if re.search(given.only, f"{title}: {figure.what}")]
        for title, rows in tables.items()
    }
    measure_all([figure for rows in wanted.values() for figure in rows], given, notes)
    of = f"{given.repeats} repeats of {given.seconds} s per load, {time.monotonic() - began:.0f} s in total; CPython "
    of += f"{platform.python_version()}, {platform.machine()}"
    text = report.tables(wanted, of, notes, given.before)
    print(text)
    if not (given.print or given.only):
        report.write(text, report.plot(wanted["Requests"]))


if __name__ == "__main__":
    main()
