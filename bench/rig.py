"""Shared by the benchmarks: servers on private Redis servers, how to fill them, and the result of a run."""

from __future__ import annotations

import contextlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.servers import Daemon, Redis, free_port  # noqa: E402

VALUE = "x" * 64
_TWISTD = [sys.executable, str(Path(sys.executable).with_name("twistd"))]


@dataclass(slots=True)
class Run:
    """The result of one run of a load.

    Attributes:
        rate: operations per second; None if only the latency is measured.
        failed: number of failed requests, and of lost, repeated or misordered deliveries.
    """

    rate: float | None
    p50_ms: float | None = None
    p99_ms: float | None = None
    failed: int = 0


@dataclass(slots=True)
class Server:
    """A server under load; hello has no Redis."""

    url: str
    process_id: int
    redis: Redis | None = None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def store(self) -> Redis:
        assert self.redis is not None
        return self.redis

    def cpu_seconds(self) -> tuple[float, float]:
        """CPU seconds used so far by the server with its workers, and by its Redis."""
        assert self.store.process is not None
        workers = Path(f"/proc/{self.process_id}/task/{self.process_id}/children").read_text().split()
        return sum(map(cpu_seconds, [self.process_id, *map(int, workers)])), cpu_seconds(self.store.process.pid)

    def resident_kb(self) -> int:
        status = Path(f"/proc/{self.process_id}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]


def cpu_seconds(process_id: int) -> float:
    """CPU seconds used so far by a process."""
    tasks = Path(f"/proc/{process_id}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def spawned(folder: Path, *options: str, root: Path = ROOT, redis: Redis | None = None) -> Daemon:
    """A daemon, spawned and not forked: a fork would run this revision's modules, and share memory with others."""
    return Daemon(folder, *options, redis=redis, env={"PYTHONPATH": str(root)}, twistd=_TWISTD)


@contextlib.contextmanager
def serving(*options: str, root: Path = ROOT) -> Iterator[Server]:
    """Runs a daemon from the sources in ``root``, with its own Redis without a disk, in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="restmq-bench-"))
    redis = Redis(folder / "redis", "--appendonly", "no", "--maxclients", "20000")
    try:
        daemon = spawned(folder / "daemon", *options, root=root, redis=redis)
        try:
            yield Server(daemon.url, daemon.process.pid, redis)
        finally:
            daemon.stop()
    finally:
        redis.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def hello() -> Iterator[Server]:
    """Runs a bare cyclone handler."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("hello.py")), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield Server(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def earlier(revision: str) -> Iterator[Path]:
    """Extracts the sources of a revision into a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="restmq-bench-"))
    try:
        archive = ["git", "-C", str(ROOT), "archive", revision]
        packed = subprocess.run(archive, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["tar", "-x", "-C", str(folder)], input=packed, check=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(redis: Redis, queue: str, count: int) -> None:
    """Fills a queue with plain messages, writing directly to Redis."""
    for start in range(1, count + 1, 5000):
        numbers = range(start, min(start + 5000, count + 1))
        redis.commands([("MSET", *(part for n in numbers for part in (f"{queue}:{n}", VALUE)))])
        redis.commands([("LPUSH", f"{queue}:queue", *(f"{queue}:{n}" for n in numbers))])
    redis.commands([("SADD", "QUEUESET", queue), ("SET", f"{queue}:UUID", str(count))])


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values) or [float("nan")]
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


median = statistics.median
