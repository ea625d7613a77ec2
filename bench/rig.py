"""Shared by the benchmarks: servers on private Redis servers, how to fill them, and the result of a run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.servers import Daemon, Redis, free_port  # noqa: E402

VALUE = "x" * 64
_TWISTD = [sys.executable, str(Path(sys.executable).with_name("twistd"))]


class Missing(Exception):
    """What is to be measured is not there: a peer is not installed, or an earlier revision lacks the feature."""


@dataclass(slots=True)
class Run:
    """The result of one run of a load.

    Attributes:
        operations: number of operations; None if only the latency is measured.
        failed: number of failed requests, and of lost, repeated or misordered deliveries.
        server_seconds, redis_seconds: CPU time that the server used, and the busiest of its Redis servers.
    """

    operations: float | None
    seconds: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    failed: int = 0
    server_seconds: float = 0
    redis_seconds: float = 0

    @property
    def rate(self) -> float | None:
        return None if self.operations is None else self.operations / self.seconds

    @property
    def server_us(self) -> float | None:
        return self.server_seconds / self.operations * 1e6 if self.operations else None

    @property
    def redis_us(self) -> float | None:
        return self.redis_seconds / self.operations * 1e6 if self.operations else None

    @property
    def cpu_us(self) -> float | None:
        return (self.server_seconds + self.redis_seconds) / self.operations * 1e6 if self.operations else None


@dataclass(slots=True)
class Server:
    """A server under load.

    Attributes:
        stores: the Redis servers that hold its data. A cluster has several; most peers have none.
    """

    url: str
    process_id: int
    stores: Sequence[Redis] = ()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def store(self) -> Redis:
        return self.stores[0]

    def processes(self) -> list[int]:
        """The server and its workers."""
        workers = Path(f"/proc/{self.process_id}/task/{self.process_id}/children").read_text().split()
        return [self.process_id, *map(int, workers)]

    def store_processes(self) -> list[int]:
        return [store.process.pid for store in self.stores if store.process is not None]

    def cpu_seconds(self) -> list[float]:
        """CPU seconds used so far by the server with its workers, and by each of its Redis servers."""
        return [sum(map(cpu_seconds, self.processes())), *map(cpu_seconds, self.store_processes())]

    def forget(self) -> None:
        for store in self.stores:
            store.command("FLUSHALL")

    def resident_kb(self) -> int:
        status = Path(f"/proc/{self.process_id}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]


class Meter:
    """Measures the CPU time that servers use from now on.

    Args:
        servers: daemons that share their stores.
    """

    def __init__(self, *servers: Server) -> None:
        self._servers = servers
        self._before = self._read()

    def _read(self) -> list[float]:
        both = [server.cpu_seconds() for server in self._servers]
        return [sum(seconds[0] for seconds in both), *both[0][1:]]

    def stop(self, run: Run) -> Run:
        """Writes the CPU time into the result of a run."""
        run.server_seconds, *stores = (late - early for early, late in zip(self._before, self._read(), strict=True))
        run.redis_seconds = max(stores, default=0)
        return run


def cpu_seconds(process_id: int) -> float:
    """CPU seconds used so far by a process, with its threads that have ended."""
    return time.clock_gettime(~process_id << 3 | 2)  # the clock that clock_getcpuclockid(3) names


@contextlib.contextmanager
def on_cores(server: Server) -> Iterator[None]:
    """Gives one core to a server, and the other ones to its Redis, to this process, and so to the clients."""
    all_cores = os.sched_getaffinity(0)
    first, *others = sorted(all_cores)
    assert others, "this needs two cores"

    def allow(own: Collection[int], rest: Collection[int]) -> None:
        for process_ids, cores in ((server.processes(), own), ((*server.store_processes(), os.getpid()), rest)):
            for process_id in process_ids:
                for task in Path(f"/proc/{process_id}/task").iterdir():
                    with contextlib.suppress(ProcessLookupError):  # the thread has ended
                        os.sched_setaffinity(int(task.name), cores)

    allow({first}, others)
    try:
        yield
    finally:
        allow(all_cores, all_cores)


def spawned(
    folder: Path, *options: str, root: Path = ROOT, redis: Redis | None = None, twistd: list[str] = _TWISTD
) -> Daemon:
    """A daemon, spawned and not forked: a fork would run this revision's modules, and share memory with others."""
    return Daemon(folder, *options, redis=redis, env={"PYTHONPATH": str(root)}, twistd=twistd)


@contextlib.contextmanager
def serving(*options: str, root: Path = ROOT, twistd: list[str] = _TWISTD) -> Iterator[Server]:
    """Runs a daemon from the sources in ``root``, with its own Redis without a disk, in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="restmq-bench-"))
    redis = Redis(folder / "redis", "--appendonly", "no", "--maxclients", "20000")
    try:
        daemon = spawned(folder / "daemon", *options, root=root, redis=redis, twistd=twistd)
        try:
            yield Server(daemon.url, daemon.process.pid, [redis])
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


def fill_queues(redis: Redis, count: int) -> None:
    """Makes queues with one message each, writing directly to Redis."""
    for start in range(0, count, 500):
        names = [f"queue-{number}" for number in range(start, start + 500)]
        parts: list[tuple[str | bytes, ...]] = [("SADD", "QUEUESET", *names)]
        for name in names:
            parts.append(("SET", f"{name}:1", "x"))
            parts.append(("LPUSH", f"{name}:queue", f"{name}:1"))
            parts.append(("SET", f"{name}:UUID", "1"))
        redis.commands(parts)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values) or [float("nan")]
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


median = statistics.median
