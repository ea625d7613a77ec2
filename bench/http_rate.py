#!/usr/bin/env python3
"""Requests a second: POST and GET of messages, beside a bare cyclone hello handler in the same run.

    .venv/bin/python bench/http_rate.py

Drives with wrk if it is there, else with a client of its own (which costs more of the machine, so the figures are
lower, for hello as well). Every answer's status is checked, and so is the number of messages in Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rig import Daemon, Redis, median, percentile, rig, table

from tests.servers import free_port

VALUE = "x" * 64
WRK_POST = f"""
wrk.method = "POST"
wrk.body = "value={VALUE}"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
"""


class Run:
    """What one run of a load gave."""

    def __init__(self, rate: float, p50_ms: float, p99_ms: float, failed: int) -> None:
        self.rate, self.p50_ms, self.p99_ms, self.failed = rate, p50_ms, p99_ms, failed


def with_wrk(url: str, post: bool, seconds: float, connections: int) -> Run:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_POST if post else "")
        script.flush()
        said = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", script.name, url],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def latency_ms(share: str) -> float:
        number, unit = re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", said).groups()  # type: ignore[union-attr]
        return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]

    failures = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    failed = int(failures[1]) if failures else 0
    failed += sum(map(int, errors.groups())) if errors else 0
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]
    return Run(rate, latency_ms("50"), latency_ms("99"), failed)


def with_asyncio(url: str, post: bool, seconds: float, connections: int) -> Run:
    return asyncio.run(_drive(url, post, seconds, connections))


async def _drive(url: str, post: bool, seconds: float, connections: int) -> Run:
    address, _, path = url.removeprefix("http://").partition("/")
    host, _, port = address.partition(":")
    body = f"value={VALUE}" if post else ""
    request = (
        f"{'POST' if post else 'GET'} /{path} HTTP/1.1\r\nHost: {address}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    took_ms: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.perf_counter() < end:
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if length:
                await reader.readexactly(int(length[1]))
            took_ms.append((time.perf_counter() - began) * 1000)
            failed += not head.startswith(b"HTTP/1.1 2")
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return Run(len(took_ms) / seconds, percentile(took_ms, 0.5), percentile(took_ms, 0.99), failed)


def fill(redis: Redis, queue: str, count: int) -> None:
    """Lays messages into a queue, in the plain layout."""
    for start in range(1, count + 1, 5000):
        numbers = range(start, min(start + 5000, count + 1))
        redis.commands([("MSET", *(part for n in numbers for part in (f"{queue}:{n}", VALUE)))])
        redis.commands([("LPUSH", f"{queue}:queue", *(f"{queue}:{n}" for n in numbers))])
    redis.commands([("SADD", "QUEUESET", queue), ("SET", f"{queue}:UUID", str(count))])


def measure(load: Callable[..., Run], given: argparse.Namespace, redis: Redis, daemon: Daemon, hello: str) -> None:
    runs: dict[str, list[Run]] = {"hello POST": [], "POST": [], "hello GET": [], "GET": []}
    for turn in range(given.repeats):
        queue = f"bench-{turn}"
        runs["hello POST"].append(load(f"{hello}/q/x", True, given.seconds, given.connections))
        runs["POST"].append(load(f"{daemon.url}/q/{queue}", True, given.seconds, given.connections))
        stored, numbered = redis.command("LLEN", f"{queue}:queue"), int(redis.command("GET", f"{queue}:UUID"))
        assert stored == numbered, (stored, numbered)
        runs["hello GET"].append(load(f"{hello}/q/x", False, given.seconds, given.connections))
        fill(redis, f"get-{turn}", int(given.seconds * 60_000))
        runs["GET"].append(load(f"{daemon.url}/q/get-{turn}", False, given.seconds, given.connections))
        left = redis.command("LLEN", f"get-{turn}:queue")
        assert left > 0, "the queue ran empty: what was measured is a 204"
        redis.command("FLUSHDB")
    rows: list[list[object]] = []
    for name, of_name in runs.items():
        rate = median([run.rate for run in of_name])
        floor = median([run.rate for run in runs["hello " + name.removeprefix("hello ")]])
        p50, p99 = (median([getattr(run, p) for run in of_name]) for p in ("p50_ms", "p99_ms"))
        rows.append([name, round(rate), rate / floor, p50, p99, sum(run.failed for run in of_name)])
    print(table(["what", "requests/s", "ratio to hello", "p50 ms", "p99 ms", "failed"], rows))


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--seconds", type=float, default=5, help="length of each load")
    described.add_argument("--repeats", type=int, default=3, help="interleaved repeats, of which medians are shown")
    described.add_argument("--connections", type=int, default=32)
    given = described.parse_args()
    port = free_port()
    hello = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("hello.py")), str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert hello.stdout is not None
        hello.stdout.readline()
        with rig() as (redis, daemon):
            load = with_wrk if shutil.which("wrk") else with_asyncio
            measure(load, given, redis, daemon, f"http://127.0.0.1:{port}")
    finally:
        hello.kill()


if __name__ == "__main__":
    main()
