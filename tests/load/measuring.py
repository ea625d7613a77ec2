"""Measures a server under load: its memory, its open sockets, and the time that a second client waits."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.rig import Server, earlier, percentile, serving
from tests.servers import ROOT, wait_until

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


def resident(process_id: int) -> int:
    """Current memory of a process in bytes."""
    return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * PAGE_BYTES


def peak(process_id: int) -> int:
    """Peak memory of a process in bytes since ``forget_peak``."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak(process_id: int) -> None:
    Path(f"/proc/{process_id}/clear_refs").write_text("5")


def sockets(process_id: int) -> int:
    """Number of open sockets of a process."""
    count = 0
    for descriptor in Path(f"/proc/{process_id}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(descriptor).startswith("socket:")
    return count


def redis_process(server: Server) -> int:
    assert server.store.process is not None
    return server.store.process.pid


def occupied_seconds(process_id: int) -> float:
    """Seconds in which the threads of a process ran, or waited for a CPU."""
    spent = 0
    for task in Path(f"/proc/{process_id}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            running, waiting, _ = (task / "schedstat").read_text().split()
            spent += int(running) + int(waiting)
    return spent / 1e9


class Rest:
    """Waits until all clients have disconnected: the server has no more sockets than at the start, or it is idle."""

    SPARE = 12  # for connections to Redis that are opened on demand
    IDLE_SECONDS = 0.5

    def __init__(self, server: Server) -> None:
        self._process_id = server.process_id
        self._allowed = sockets(server.process_id) + self.SPARE

    def wait_for_clients(self, seconds: float = 60) -> None:
        wait_until(lambda: sockets(self._process_id) <= self._allowed, seconds, "the server closes its connections")

    def wait_for_idleness(self, seconds: float = 300) -> None:
        """Waits until the server has used a tenth of a CPU at most for some time."""
        wait_until(self._is_idle, seconds, "the server is idle")

    def _is_idle(self) -> bool:
        before = occupied_seconds(self._process_id)
        time.sleep(self.IDLE_SECONDS)
        return occupied_seconds(self._process_id) - before < self.IDLE_SECONDS / 10


@contextlib.contextmanager
def target(*options: str, before: str | None = None) -> Iterator[Server]:
    """Runs a server of these sources, or of an earlier revision."""
    with earlier(before) if before else contextlib.nullcontext(ROOT) as root, serving(*options, root=root) as server:
        yield server


def tracebacks(server: Server) -> list[str]:
    """The first traceback in the server's log; empty if there is none."""
    folder = Path(os.readlink(f"/proc/{server.process_id}/cwd"))
    log = "".join(path.read_text(errors="replace") for path in folder.glob("daemon-*.log"))
    return [f"in the log: {log[log.index('Traceback') :][:2000]}"] if "Traceback" in log else []


@dataclass(frozen=True, slots=True)
class Waits:
    """Milliseconds that a second client waited for each answer, and those of them in which the server was busy."""

    name: str
    waited: list[float]
    busy: list[float]

    HEADING = f"{'/healthz':<22}{'asked':>7}{'p50':>9}{'p99':>9}{'p99.9':>9}{'largest':>9}"

    def __str__(self) -> str:
        rows = []
        for name, values in ((f"{self.name}, ms", self.waited), ("  of it server busy", self.busy)):
            figures = [percentile(values, share) for share in (0.5, 0.99, 0.999)]
            shown = "".join(f"{figure:>9.1f}" for figure in [*figures, max(values, default=float("nan"))])
            rows.append(f"{name:<22}{len(values):>7}{shown}")
        return "\n".join(rows)


class Probe:
    """The second client, in a separate process; see ``tests/load/probe.py``."""

    def __init__(self, server: Server) -> None:
        command = [sys.executable, "-m", "tests.load.probe", str(server.port), str(server.process_id)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.waits: tuple[Waits, ...] = ()
        self.silent = 0

    def stop(self, seconds: float = 150) -> None:
        """Ends the process, and reads its figures."""
        try:
            found = json.loads(self._process.communicate("", seconds)[0])
        finally:
            self._process.kill()
            self._process.wait()
        self.waits = Waits("kept connection", *found["kept"]), Waits("new connection", *found["new"])
        self.silent = found["silent"]
