"""Measures the longest turn of the event loop while a daemon does long work. See --help.

Other clients wait for that turn. It is measured in CPU time, which other programs disturb least. Each turn begins by
reading the CPU time of its thread. A signal makes the daemon write the longest difference since the last signal.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from fanout import listening, produce
from rig import ROOT, Meter, Run, Server, earlier, fill_queues, median, serving

from tests.servers import patched_twistd, wait_until

QUEUES, CONSUMERS = 100_000, 5000
_LIMITS = ("--max-connections-per-address", "20000", "--max-connections", "20000")


def traced_twistd(report: Path) -> list[str]:
    """The command of a ``twistd`` that writes the CPU time of its longest turn into a file at SIGUSR2."""
    return patched_twistd(
        "import pathlib, signal, time",
        "from twisted.internet.base import ReactorBase",
        "longest, last, run_timers = 0.0, time.thread_time(), ReactorBase.runUntilCurrent",
        "def begin_turn(reactor):",
        "    global longest, last",
        "    now = time.thread_time()",
        "    longest, last = max(longest, now - last), now",
        "    run_timers(reactor)",
        "def report(*_):",
        "    global longest",
        f"    pathlib.Path({str(report)!r}).write_text(str(longest))",
        "    longest = 0.0",
        "ReactorBase.runUntilCurrent = begin_turn",
        "signal.signal(signal.SIGUSR2, report)",
    )


@dataclass(slots=True)
class Traced:
    """A daemon that reports its longest turn."""

    server: Server
    report: Path

    def longest_seconds(self) -> float:
        """The longest turn since the last call."""
        self.report.unlink(missing_ok=True)
        os.kill(self.server.process_id, signal.SIGUSR2)
        wait_until(lambda: self.report.exists() and self.report.read_text() != "", why="the daemon reports")
        return float(self.report.read_text())

    def measure(self, work: Callable[[Server], object]) -> tuple[float, ...]:
        """Milliseconds: the time that the work takes, the CPU time of the daemon and of Redis, the longest turn."""
        self.longest_seconds()
        meter, began = Meter(self.server), time.perf_counter()
        work(self.server)
        run = meter.stop(Run(None, time.perf_counter() - began))
        seconds = run.seconds, run.server_seconds, run.redis_seconds, self.longest_seconds()
        return tuple(1000 * each for each in seconds)


@contextlib.contextmanager
def traced(root: Path) -> Iterator[Traced]:
    with tempfile.TemporaryDirectory(prefix="restmq-bench-") as folder:
        report = Path(folder) / "longest"
        with serving(*_LIMITS, root=root, twistd=traced_twistd(report)) as server:
            yield Traced(server, report)


def read(path: str) -> Callable[[Server], object]:
    return lambda server: httpx.get(server.url + path, timeout=60).raise_for_status()


def post_one(server: Server) -> None:
    produce(server.port, "idle", 1)
    time.sleep(1)  # the answer comes before the message


def wait_for_comments(_server: Server) -> None:
    time.sleep(13)  # there are comments every 12 seconds


#: With many queues, and with many consumers.
_LISTS = {f"`{path}`, {QUEUES:,} queues": read(path) for path in ("/q/", "/stats/", "/stats/?counts=true", "/metrics")}
_LIVE: dict[str, Callable[[Server], object]] = {
    f"a message to {CONSUMERS:,} consumers": post_one,
    f"13 seconds with {CONSUMERS:,} idle consumers": wait_for_comments,
}


def main() -> None:
    described = argparse.ArgumentParser(prog="bench/turns", description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--repeats", type=int, default=3, help="repeats, shown by their median (default 3)")
    described.add_argument("--before", default="", metavar="REVISION", help="earlier revision to measure beside it")
    given = described.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    measured: dict[str, list[list[tuple[float, ...]]]] = {}
    with contextlib.ExitStack() as stack:
        roots = [ROOT, stack.enter_context(earlier(given.before))] if given.before else [ROOT]
        for works in (_LISTS, _LIVE):
            daemons = [stack.enter_context(traced(root)) for root in roots]
            for daemon in daemons:
                if works is _LISTS:
                    fill_queues(daemon.server.store, QUEUES)
                else:
                    stack.enter_context(listening(daemon.server, "idle", CONSUMERS))
            for _ in range(given.repeats):
                for name, work in works.items():
                    measured.setdefault(name, []).append([daemon.measure(work) for daemon in daemons])
    columns = ["ms", "ms of CPU, daemon", "ms of CPU, Redis", "longest turn, ms of CPU"]
    columns += [f"{column}, before" for column in columns[: len(columns) * (len(roots) - 1)]]
    print(f"| work | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    for name, repeats in measured.items():
        figures = [median(values) for both in zip(*repeats, strict=True) for values in zip(*both, strict=True)]
        print(f"| {name} | {' | '.join(f'{figure:,.1f}' for figure in figures)} |")


if __name__ == "__main__":
    main()
