"""Loads on many queues in turn, and daemons on a Redis Cluster or on one Redis by TCP.

On a machine with few cores, the rate says little about a cluster, because all nodes share the cores. The CPU time says
what each process could serve on a core of its own: a store can serve as many requests per second as its busiest node
has CPU seconds for.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from pathlib import Path

import httpx
import loads
from rig import ROOT, VALUE, Meter, Missing, Run, Server, spawned

from restmq.store.keys import PARTITIONS, crc16
from tests.clusters import Cluster, slot_of
from tests.servers import Redis, free_port

#: More messages than all daemons can deliver in a second.
_TAKEN_A_SECOND = 60_000
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


def run(load: str, daemons: Sequence[Server], queues: int, seconds: float, connections: int = 32) -> Run:
    """Puts a load on all daemons of a store. Its latencies are those of the first daemon."""
    if load != "POST":
        _fill(daemons[0], queues, int(_TAKEN_A_SECOND * seconds))
    script = _IN_TURN.format(names=", ".join(f"'{name}'" for name in names(queues))) + SCRIPTS[load]
    wanted = loads.Load("/", connections=connections, script=script)
    meter = Meter(*daemons)
    with ThreadPoolExecutor(len(daemons)) as threads:
        runs = list(threads.map(lambda server: wanted.run(server, seconds), daemons))
    whole = meter.stop(runs[0])
    whole.operations = sum(run.operations or 0 for run in runs)
    whole.failed = sum(run.failed for run in runs)
    if load != "POST":
        _check_not_empty(daemons[0], queues)
    daemons[0].forget()
    return whole


def _fill(server: Server, queues: int, messages: int) -> None:
    each = messages // queues + 1
    lines = "\n".join([json.dumps(VALUE)] * min(each, _BATCH))
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
        for name in names(queues):
            for _ in range(-(-each // _BATCH)):
                headers = {"Content-Type": "application/x-ndjson"}
                http.post(f"/q/{name}", content=lines, headers=headers).raise_for_status()


def _check_not_empty(server: Server, queues: int) -> None:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http:
        while "missing" in (shown := http.get("/stats/").json()):  # a busy node was too slow
            pass
    assert min(shown["queues"][name]["len"] for name in names(queues)) > 0, "a queue ran empty; fill it more"


@contextlib.contextmanager
def serving_store(primaries: int, daemons: int = 1, root: Path = ROOT) -> Iterator[list[Server]]:
    """Runs daemons on a cluster of some primaries, or on one Redis (0), by TCP. Raises Missing if they cannot."""
    options = ("--appendonly", "no", "--maxclients", "2000")
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="restmq-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if primaries:
            cluster = Cluster(folder / "cluster", *options, primaries=primaries, replicas=0)
            stack.callback(cluster.stop)
            stores: list[Redis] = list(cluster.nodes)
            where: tuple[str, ...] = ("--redis-cluster", cluster.addresses)
        else:
            port = str(free_port())  # not a Unix socket, which a cluster does not have
            stores = [Redis(folder / "plain", "--port", port, "--bind", "127.0.0.1", *options)]
            stack.callback(stores[0].stop)
            where = ("--redis-port", port)
        servers = []
        for number in range(daemons):
            try:
                daemon = spawned(folder / f"daemon-{number}", *where, root=root)
            except AssertionError as problem:
                if root == ROOT:
                    raise
                raise Missing("not in this revision") from problem
            stack.callback(daemon.stop)
            servers.append(Server(daemon.url, daemon.process.pid, stores))
        yield servers
