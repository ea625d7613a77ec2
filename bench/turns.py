"""Measures the longest turn of the event loop while a daemon does long work. See --help.

Other clients wait for that turn. It is measured in CPU time, which holds on a busy machine too: the beginning of each
turn reads the CPU time of the thread, and a signal has the daemon write the longest difference since the last signal.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from fanout import listening, produce
from rig import ROOT, Meter, Run, Server, earlier, fill_queues, median, serving

from tests.servers import patched_twistd, wait_until

QUEUES, CONSUMERS = 100_000, 5000
_LISTS = ("/q/", "/stats/", "/stats/?counts=true", "/metrics")
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
    """A daemon, and the work that it is measured with.

    Attributes:
        runs: by the name of the work: the results, each with the seconds of the longest turn.
    """

    server: Server
    report: Path
    runs: dict[str, list[tuple[Run, float]]] = field(default_factory=dict)

    def longest_seconds(self) -> float:
        self.report.unlink(missing_ok=True)
        os.kill(self.server.process_id, signal.SIGUSR2)
        wait_until(lambda: self.report.exists() and self.report.read_text() != "", why="the daemon reports")
        return float(self.report.read_text())

    def measure(self, name: str, work: Callable[[Server], object]) -> None:
        self.longest_seconds()
        meter, began = Meter(self.server), time.perf_counter()
        work(self.server)
        run = meter.stop(Run(None, time.perf_counter() - began))
        self.runs.setdefault(name, []).append((run, self.longest_seconds()))


def read(path: str) -> Callable[[Server], object]:
    return lambda server: httpx.get(server.url + path, timeout=60).raise_for_status()


def post_one(server: Server) -> None:
    produce(server.port, "idle", 1)


def wait_for_comments(_server: Server) -> None:
    time.sleep(13)  # there are comments every 12 seconds


def row(name: str, measured: list[Traced]) -> str:
    cells = [name]
    for one in measured:
        runs = one.runs[name]
        for seconds in (
            [run.seconds for run, _ in runs],
            [run.server_seconds for run, _ in runs],
            [run.redis_seconds for run, _ in runs],
            [longest for _, longest in runs],
        ):
            cells.append(f"{median(seconds) * 1000:,.1f}")
    return f"| {' | '.join(cells)} |"


def table(measured: dict[str, Traced]) -> str:
    columns = [f"{what}{title}" for title in measured for what in ("ms", "CPU, daemon", "CPU, Redis", "longest turn")]
    ones = list(measured.values())
    rows = [row(name, ones) for name in ones[0].runs]
    return "\n".join([f"| work | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns), *rows])


def main() -> None:
    described = argparse.ArgumentParser(prog="bench/turns", description=(__doc__ or "").partition("\n")[0])
    described.add_argument(
        "--repeats", type=int, default=3, help="interleaved repeats, shown by their median (default 3)"
    )
    described.add_argument("--before", default="", metavar="REVISION", help="earlier revision to measure beside it")
    given = described.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="restmq-bench-")))
        roots = {"": ROOT}
        if given.before:
            roots[", before"] = stack.enter_context(earlier(given.before))
        measured = {}
        for title, root in roots.items():
            report = folder / f"longest{title}"
            server = stack.enter_context(serving(*_LIMITS, root=root, twistd=traced_twistd(report)))
            measured[title] = Traced(server, report)
            fill_queues(server.store, QUEUES)
            stack.enter_context(listening(server, "idle", CONSUMERS))
        for _ in range(given.repeats):
            for one in measured.values():
                for path in _LISTS:
                    one.measure(f"`{path}`, {QUEUES:,} queues", read(path))
                one.measure(f"a message to {CONSUMERS:,} consumers", post_one)
                one.measure(f"comments to {CONSUMERS:,} idle consumers", wait_for_comments)
    print(table(measured))


if __name__ == "__main__":
    main()
