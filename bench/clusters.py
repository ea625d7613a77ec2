"""Measures the CPU time of a request with one Redis and with Redis Clusters. Prints tables. See --help.

On a machine with few cores, the rate says little about a cluster, because all nodes share the cores. The CPU time says
what each process could serve on a core of its own: a store can serve as many requests per second as its busiest node
has CPU seconds for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path

import httpx
import loads
from rig import VALUE, Server, cpu_seconds, median, spawned

from restmq.store.keys import PARTITIONS, crc16
from tests.clusters import Cluster, slot_of
from tests.servers import Daemon, Redis, free_port

DAEMONS = 3
#: More messages than all daemons can deliver in a second.
_TAKEN_A_SECOND = 30_000
_BATCH = 1000
_FORM = "application/x-www-form-urlencoded"

#: Begins each script for wrk: queue() names the queues in turn.
_IN_TURN = """
local names, n = {{{names}}}, 0
local function queue() n = n % #names + 1; return names[n] end
"""
SCRIPTS = {
    "POST": f"""
local headers = {{["Content-Type"] = "{_FORM}"}}
function request() return wrk.format("POST", "/q/" .. queue(), headers, "value={VALUE}") end
""",
    "GET": 'function request() return wrk.format("GET", "/q/" .. queue()) end',
    "lease, ack": """
local leased = {}
function request()
  local message = table.remove(leased)
  if message then return wrk.format("DELETE", "/m/" .. message) end
  return wrk.format("GET", "/q/" .. queue() .. "?lease=60")
end
function response(status, headers, body)
  local key, receipt = body:match('"key":"([^"]+)"'), body:match('"receipt":"([^"]+)"')
  if receipt then leased[#leased + 1] = key .. "?receipt=" .. receipt end
end
""",
}


@cache
def names(queues: int) -> list[str]:
    """Names of queues that are spread evenly over the slots, so that each node has as many as the others."""
    slots = sorted(crc16(str(partition).encode()) % 16384 for partition in range(PARTITIONS))
    found: dict[int, str] = {}
    numbers = count()
    while len(found) < queues:
        name = f"bench-{next(numbers)}"
        found.setdefault(slots.index(slot_of(name)) * queues // PARTITIONS, name)
    return sorted(found.values())


@dataclass(slots=True)
class Sample:
    """The CPU time of one request, in microseconds: of the daemons together, and of the busiest node."""

    daemon_us: float
    busiest_us: float


@dataclass(slots=True)
class Setup:
    """A store and the daemons that use it.

    Attributes:
        samples: by load, number of queues and number of daemons.
    """

    name: str
    stores: list[Redis]
    daemons: list[Server]
    samples: dict[tuple[str, int, int], list[Sample]] = field(default_factory=dict)

    def measure(self, load: str, queues: int, daemons: int, seconds: float, connections: int) -> None:
        if load != "POST":
            self._fill(queues, int(_TAKEN_A_SECOND * seconds))
        script = _IN_TURN.format(names=", ".join(f"'{name}'" for name in names(queues))) + SCRIPTS[load]
        wanted = loads.Load("/", connections=connections, script=script)
        used = self.daemons[:daemons]
        before = self._cpu_seconds(used)
        with ThreadPoolExecutor(daemons) as threads:
            runs = list(threads.map(lambda server: wanted.run(server.url, seconds), used))
        after = self._cpu_seconds(used)
        requests = sum((run.rate or 0) * seconds for run in runs)
        failed = sum(run.failed for run in runs)
        assert not failed, f"{self.name}, {load}: {failed} requests failed"
        if load != "POST":
            self._check_not_empty(queues)
        daemon_seconds, *node_seconds = (late - early for early, late in zip(before, after, strict=True))
        sample = Sample(1e6 * daemon_seconds / requests, 1e6 * max(node_seconds) / requests)
        self.samples.setdefault((load, queues, daemons), []).append(sample)
        for store in self.stores:
            store.command("FLUSHALL")

    def _cpu_seconds(self, daemons: list[Server]) -> list[float]:
        """CPU seconds so far: of the daemons together, and of each node."""
        nodes = [store.process.pid for store in self.stores if store.process is not None]
        return [sum(cpu_seconds(daemon.process_id) for daemon in daemons), *map(cpu_seconds, nodes)]

    def _fill(self, queues: int, messages: int) -> None:
        each = messages // queues + 1
        lines = "\n".join([json.dumps(VALUE)] * min(each, _BATCH))
        with httpx.Client(base_url=self.daemons[0].url, trust_env=False, timeout=60) as http:
            for name in names(queues):
                for _ in range(-(-each // _BATCH)):
                    headers = {"Content-Type": "application/x-ndjson"}
                    http.post(f"/q/{name}", content=lines, headers=headers).raise_for_status()

    def _check_not_empty(self, queues: int) -> None:
        with httpx.Client(base_url=self.daemons[0].url, trust_env=False, timeout=60) as http:
            shown = http.get("/stats/").json()["queues"]
        assert min(shown[name]["len"] for name in names(queues)) > 0, "a queue ran empty; fill it more"

    def sample(self, *of: object) -> Sample:
        """The medians of some samples."""
        found = self.samples[of]  # type: ignore[index]
        return Sample(median(each.daemon_us for each in found), median(each.busiest_us for each in found))


@contextlib.contextmanager
def setups(sizes: list[int]) -> Iterator[list[Setup]]:
    """One Redis, and clusters with these numbers of primaries, each with its daemons."""
    options = ("--appendonly", "no", "--maxclients", "2000")
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="restmq-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = []
        for primaries in (0, *sizes):
            name = f"cluster of {primaries}" if primaries else "one Redis"
            if primaries:
                cluster = Cluster(folder / f"cluster-{primaries}", *options, primaries=primaries, replicas=0)
                stack.callback(cluster.stop)
                stores: list[Redis] = list(cluster.nodes)
                where: tuple[str, ...] = ("--redis-cluster", cluster.addresses)
            else:
                port = str(free_port())  # not a Unix socket, which a cluster does not have
                stores = [Redis(folder / "plain", "--port", port, "--bind", "127.0.0.1", *options)]
                stack.callback(stores[0].stop)
                where = ("--redis-port", port)
            daemons = []
            for number in range(DAEMONS):
                daemon: Daemon = spawned(folder / f"daemon-{primaries}-{number}", *where)
                stack.callback(daemon.stop)
                daemons.append(Server(daemon.url, daemon.process.pid))
            made.append(Setup(name, stores, daemons))
        yield made


def table(measured: list[Setup], load: str, queues: int) -> list[str]:
    """Rows of the setups under one load; the ratios are those to one Redis with the same number of daemons."""
    rows = []
    for setup in measured:
        for daemons in (1, DAEMONS):
            if (load, queues, daemons) not in setup.samples:
                continue
            found, plain = setup.sample(load, queues, daemons), measured[0].sample(load, queues, daemons)
            cells = [
                f"{load}, {queues:,} queue{'s' if queues > 1 else ''}",
                setup.name,
                str(daemons),
                f"{found.daemon_us:.1f}",
                f"{found.daemon_us / plain.daemon_us:.2f}",
                f"{found.busiest_us:.1f}",
                f"{1e6 / found.busiest_us:,.0f}",
                f"{plain.busiest_us / found.busiest_us:.2f}",
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="duration of each run (default 2)")
    parser.add_argument("--repeats", type=int, default=3, help="number of runs of each load (default 3)")
    parser.add_argument("--primaries", type=int, nargs="*", default=[1, 3, 5], help="sizes of clusters (default 1 3 5)")
    parser.add_argument("--queues", type=int, nargs="*", default=[1, 12, 1000], help="(default 1 12 1000)")
    parser.add_argument("--connections", type=int, default=32, help="to each daemon (default 32)")
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("bench: this needs wrk. Install Debian's package wrk.")
    with setups(asked.primaries) as measured:
        for repeat in range(asked.repeats):
            for load in SCRIPTS:
                for queues in asked.queues:
                    for daemons in (1, DAEMONS) if queues > 1 else (1,):
                        for setup in measured:
                            setup.measure(load, queues, daemons, asked.seconds, asked.connections)
            print(f"Medians of {repeat + 1} runs of {asked.seconds} s:\n")
            print("| load | store | daemons | daemon µs | ratio | busiest node µs | it could do a second | ratio |")
            print("| --- | --- | --- | --- | --- | --- | --- | --- |")
            for load in SCRIPTS:
                for queues in asked.queues:
                    print("\n".join(table(measured, load, queues)), flush=True)


if __name__ == "__main__":
    main()
