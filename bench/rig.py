"""What the benchmarks share: a private Redis, a daemon, and their end."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.servers import Daemon, Redis

__all__ = ["Daemon", "Redis", "percentile", "rig", "table"]


@contextlib.contextmanager
def rig(*options: str) -> Iterator[tuple[Redis, Daemon]]:
    """A Redis without a disk and a daemon on it, in a folder that vanishes."""
    folder = Path(tempfile.mkdtemp(prefix="restmq-bench-"))
    redis = Redis(folder / "redis", "--appendonly", "no")
    try:
        daemon = Daemon(folder / "daemon", *options, redis=redis)
        try:
            yield redis, daemon
        finally:
            daemon.stop()
    finally:
        redis.stop()
        shutil.rmtree(folder, ignore_errors=True)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values) or [float("nan")]
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(head: list[str], rows: list[list[object]]) -> str:
    """A Markdown table; floats with two digits, other numbers with thousands apart."""

    def show(cell: object) -> str:
        if isinstance(cell, float):
            return f"{cell:.2f}" if cell < 100 else f"{cell:,.0f}"
        return f"{cell:,}" if isinstance(cell, int) else str(cell)

    lines = [head, ["---"] * len(head), *[[show(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


median = statistics.median
