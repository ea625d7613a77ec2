"""Measures the time that Redis, Valkey and a node of a cluster need for the busiest scripts. See --help.

A daemon gets one request of each kind, and MONITOR shows its script calls. These are then repeated in pipelines,
without the daemon. ``INFO commandstats`` has their time, which is that of the wall. So the pipelines are short, and the
median of many is shown: most of them run undisturbed. Any revision can be measured, whatever the arguments of its
scripts are.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hiredis
import httpx
from rig import ROOT, VALUE, earlier, median, spawned

from tests.clusters import Cluster
from tests.servers import Redis, redis_program, valkey_program

QUEUE = "measured"
BATCH = 100
#: Messages of each kind of call and repeat, and calls per pipeline.
MESSAGES, PIPELINE = 4000, 100
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
Call = tuple[bytes, ...]


@dataclass(slots=True)
class Scripts:
    """The script calls of one revision on one Redis.

    Attributes:
        calls: by name; for 1 message and for a batch.
        took_us: measured times per call, by name.
    """

    title: str
    redis: Redis
    calls: dict[str, Call] = field(default_factory=dict)
    took_us: dict[str, list[float]] = field(default_factory=dict)

    def measure(self) -> None:
        for suffix, size in (("", 1), (f" of {BATCH}", BATCH)):
            calls = max(1, MESSAGES // size)
            self._timed("add" + suffix, [self.calls["add" + suffix]] * 3 * calls)
            self._timed("take" + suffix, [self.calls["take" + suffix]] * calls)
            leased = self._timed("lease" + suffix, [self.calls["lease" + suffix]] * calls)
            acks = []
            for answer in leased:
                pairs = zip(*keys_and_receipts(answer), strict=True)
                acks.append((*self.calls["ack"][:-2], *(part for pair in pairs for part in pair)))
            done = self._timed("ack" + suffix, acks)
            assert all(all(results) for results in done), "a lease was not in force"
        self.redis.command("FLUSHDB")

    def _timed(self, name: str, calls: list[Call]) -> list[Any]:
        replies: list[Any] = []
        pipeline = 1 if name.endswith(f" of {BATCH}") else PIPELINE
        for start in range(0, len(calls), pipeline):
            some = calls[start : start + pipeline]
            self.redis.command("CONFIG", "RESETSTAT")
            replies += self.redis.commands(list(some))
            said = self.redis.command("INFO", "commandstats")
            found = re.search(r"cmdstat_evalsha:calls=(\d+),usec=(\d+)", said)
            assert found is not None and int(found[1]) == len(some), said
            self.took_us.setdefault(name, []).append(int(found[2]) / len(some))
        return replies


def keys_and_receipts(answer: list[Any]) -> tuple[list[str], list[str]]:
    """Of leased messages, from a script's answer: a list per column, or, since lua/_columns.lua, a flat list."""
    _, kinds, *cells = answer
    if isinstance(kinds, list):
        return kinds, cells[3]
    size = len(cells) // (2 + kinds.bit_count())
    at = size * (2 + (kinds & 1) + (kinds >> 1 & 1))
    return cells[:size], cells[at : at + size]


@contextlib.contextmanager
def prepared(title: str, root: Path, program: str, in_cluster: bool = False) -> Iterator[Scripts]:
    """A Redis, or the only node of a cluster, that knows the scripts of the sources in ``root``."""
    with tempfile.TemporaryDirectory(prefix="restmq-bench-") as folder, contextlib.ExitStack() as stack:
        options = ("--appendonly", "no")
        if in_cluster:
            cluster = Cluster(Path(folder) / "cluster", *options, primaries=1, replicas=0, program=program)
            stack.callback(cluster.stop)
            redis, where = cluster.nodes[0], ("--redis-cluster", cluster.addresses)
        else:
            redis = Redis(Path(folder) / "redis", *options, program=program)
            stack.callback(redis.stop)
            where = ("--redis-socket", redis.socket_path)
        scripts = Scripts(title, redis)
        daemon = spawned(Path(folder) / "daemon", *where, root=root)
        try:
            capture(scripts, daemon.url)
        finally:
            daemon.stop()
        redis.command("FLUSHDB")
        yield scripts


def capture(scripts: Scripts, url: str) -> None:
    """Has a daemon make each call once."""
    lines = "\n".join([json.dumps(VALUE)] * BATCH)
    with httpx.Client(base_url=url) as client, watched(scripts.redis) as last_call:

        def call(name: str, method: str, path: str, body: str = "", kind: str = "") -> httpx.Response:
            answer = client.request(method, path, content=body, headers={"Content-Type": kind} if body else {})
            assert answer.is_success, answer.text
            scripts.calls[name] = last_call()
            return answer

        call("add", "POST", f"/q/{QUEUE}", f"value={VALUE}", "application/x-www-form-urlencoded")
        call(f"add of {BATCH}", "POST", f"/q/{QUEUE}", lines, "application/x-ndjson")
        call("take", "GET", f"/q/{QUEUE}")
        call(f"take of {BATCH}", "GET", f"/q/{QUEUE}?count={BATCH}")
        call(f"add of {BATCH}", "POST", f"/q/{QUEUE}", lines, "application/x-ndjson")
        leased = call("lease", "GET", f"/q/{QUEUE}?lease=600").json()
        call(f"lease of {BATCH}", "GET", f"/q/{QUEUE}?lease=600&count={BATCH}")
        call("ack", "DELETE", f"/m/{leased['key']}?receipt={leased['receipt']}")


@contextlib.contextmanager
def watched(redis: Redis) -> Iterator[Callable[[], Call]]:
    """MONITORs a Redis; yields a function that returns the last call of a script for the queue."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(redis.socket_path)
        connection.sendall(hiredis.pack_command(("MONITOR",)))
        lines = connection.makefile("rb")
        lines.readline()

        def last_call() -> Call:
            redis.command("ECHO", "seen")
            last: Call = ()
            while True:
                call = tuple(
                    ast.literal_eval("b" + word) for word in _QUOTED.findall(lines.readline().decode("latin-1"))
                )
                if call == (b"ECHO", b"seen"):
                    return last
                if call[0] == b"EVALSHA" and any(part.endswith(QUEUE.encode()) for part in call):
                    last = call

        yield last_call


def table(measured: list[Scripts]) -> str:
    rows = [f"| call | {' | '.join(one.title for one in measured)} |", "| --- |" + " --- |" * len(measured)]
    for name in measured[0].took_us:
        rows.append(f"| {name} | {' | '.join(f'{median(one.took_us[name]):.1f}' for one in measured)} |")
    return "\n".join(rows)


def main() -> None:
    described = argparse.ArgumentParser(prog="bench/scripts", description=(__doc__ or "").partition("\n")[0])
    described.add_argument(
        "--repeats", type=int, default=5, help="interleaved repeats, shown by their median (default 5)"
    )
    described.add_argument(
        "--before", action="append", default=[], metavar="REVISION", help="also measure this revision"
    )
    given = described.parse_args()
    with contextlib.ExitStack() as stack:
        roots = [(revision, stack.enter_context(earlier(revision))) for revision in given.before] + [("now", ROOT)]
        programs = {"Redis": redis_program(), "Valkey": valkey_program()}
        measured = [
            stack.enter_context(prepared(f"{title}, {program}{', in a cluster' * in_cluster}", root, path, in_cluster))
            for program, path in programs.items()
            for title, root in roots
            for in_cluster in ((False, True) if root == ROOT else (False,))
        ]
        for _ in range(given.repeats):
            for one in measured:
                one.measure()
    print(table(measured))


if __name__ == "__main__":
    main()
