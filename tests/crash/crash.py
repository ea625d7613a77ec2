"""The crash test: ``python -m tests.crash.crash --kills 50``, and with ``--failovers 50`` by Sentinels.

Producers, leasing workers, two daemons and their Redis (append-only, fsync always) are killed -9 at random moments.
At the end every value that was answered 200 was delivered, nothing that was acked came back, no value was queued twice,
and nothing is left in Redis. Prints the counts; exit status 1 if anything of that is not so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.clients import QUEUE
from tests.sentinels import SentinelSet
from tests.servers import ROOT, Daemon, Redis, wait_until

PRODUCERS, WORKERS = 2, 3
KILL_EVERY_SECONDS = (0.1, 0.9)


class Clients:
    """The producers and workers that run now."""

    def __init__(self, folder: Path, urls: list[str]) -> None:
        self._folder = folder
        self._urls = urls
        self._numbers = itertools.count(1)
        self.running: dict[str, list[subprocess.Popen[bytes]]] = {"produce": [], "work": []}

    def start(self, role: str) -> None:
        number = next(self._numbers)
        command = [sys.executable, "-m", "tests.crash.clients", role, str(self._folder / f"{role}-{number}.journal")]
        self.running[role].append(subprocess.Popen([*command, str(number), *self._urls], cwd=ROOT))

    def kill(self, role: str, which: int = 0) -> None:
        client = self.running[role].pop(which)
        client.kill()
        client.wait()


@dataclass
class Findings:
    """The messages in the journals, and the problems found."""

    answered: set[str]
    delivered: Counter[str]
    acked: set[str]
    kills: Counter[str]
    wrong: list[str]

    def __str__(self) -> str:
        killed = ", ".join(f"{what} {count}" for what, count in sorted(self.kills.items()))
        again = sum(self.delivered.values()) - len(self.delivered)
        return (
            f"{self.kills.total()} kills ({killed}); {len(self.answered)} values answered 200, "
            f"{len(self.delivered)} delivered ({again} deliveries more than once), {len(self.acked)} acks answered; "
            f"{len(self.wrong)} wrong"
        )


def read(folder: Path, kills: Counter[str], failovers: int) -> Findings:
    """Reads the journals.

    A failover may undo what was not answered 200, although a worker saw it: then the same key can be another message's,
    and the value, posted again, has another key. So after failovers a value counts as queued twice if it was acked so.
    """
    found = Findings(set(), Counter(), set(), kills, [])
    highest: dict[tuple[str, str], int] = {}
    acked_at: dict[tuple[str, str], int] = {}
    keys: dict[str, set[str]] = {}
    for journal in folder.glob("*.journal"):
        for line in journal.read_text().splitlines():
            if not line.endswith("}"):
                continue  # it was killed while it wrote
            entry: dict[str, Any] = json.loads(line)
            if "problem" in entry:
                found.wrong.append(entry["problem"])
            if "answered" in entry:
                found.answered.add(entry["answered"])
            if message := entry.get("delivered"):
                found.delivered[message["value"]] += 1
                identity = message["key"], message["value"]
                highest[identity] = max(message["count"], highest.get(identity, 0))
            if message := entry.get("acked"):
                found.acked.add(message["value"])
                acked_at[message["key"], message["value"]] = message["count"]
    for key, value in acked_at if failovers else highest:
        keys.setdefault(value, set()).add(key)
    found.wrong += [f"lost: {value}" for value in found.answered - set(found.delivered)]
    found.wrong += [f"came back after its ack: {name}" for name, count in acked_at.items() if highest[name] > count]
    found.wrong += [f"queued twice: {value} as {names}" for value, names in keys.items() if len(names) > 1]
    return found


def left_in_redis(redis: Redis) -> set[str]:
    """The keys that do not describe the queue itself and do not expire."""
    about = {"QUEUESET", f"{QUEUE}:UUID", f"{QUEUE}:totals", f"{QUEUE}:times"}
    return {key for key in redis.keys() - about if redis.command("TTL", key) < 0}


class OneRedis:
    """A Redis that writes to disk before it answers. It is killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.redis = Redis(folder / "redis", "--appendfsync", "always")
        self.flags = ("--redis-socket", self.redis.socket_path)

    def fail(self, _chance: random.Random) -> None:
        self.redis.kill()
        self.redis.start()

    def stop(self) -> None:
        self.redis.stop()


class Failovers:
    """A primary, two replicas and three Sentinels. The primary is killed and started again, or replaced."""

    def __init__(self, folder: Path) -> None:
        self._set = SentinelSet(folder / "set")
        self.flags = ("--redis-sentinel", self._set.addresses, "--durable", "--replicas", "2")

    @property
    def redis(self) -> Redis:
        return self._set.servers[self._set.primary()]

    def fail(self, chance: random.Random) -> None:
        if chance.random() < 0.5:
            self._set.failover()
        else:
            old = self._set.primary()
            self._set.servers[old].kill()
            self._set.moved_from(old)
            self._set.servers[old].start()
        wait_until(self._set.is_whole, 60, "the others follow the new primary")

    def stop(self) -> None:
        self._set.stop()


def crash(folder: Path, kills: int, seed: int, failovers: int = 0) -> Findings:
    """Runs the whole test. Returns the findings.

    Args:
        failovers: so many times the primary of a set is killed or replaced; 0 for a single Redis.
    """
    chance = random.Random(seed)
    store = Failovers(folder) if failovers else OneRedis(folder)
    plan = chance.choices(["daemon", "producer", "worker", *([] if failovers else ["Redis"])], k=kills)
    plan += ["Redis"] * failovers
    chance.shuffle(plan)
    daemons = [Daemon(folder / name, "--redis-timeout", "2", *store.flags) for name in ("one", "two")]
    clients = Clients(folder, [daemon.url for daemon in daemons])
    for role, count in (("produce", PRODUCERS), ("work", WORKERS)):
        for _ in range(count):
            clients.start(role)
    killed: Counter[str] = Counter()
    try:
        for what in plan:
            time.sleep(chance.uniform(*KILL_EVERY_SECONDS))  # the moment must be random
            killed[what] += 1
            if what == "Redis":
                store.fail(chance)
            elif what == "daemon":
                daemon = chance.choice(daemons)
                daemon.kill()
                daemon.start()
            else:
                role = "produce" if what == "producer" else "work"
                clients.kill(role, chance.randrange(len(clients.running[role])))
                clients.start(role)
        while clients.running["produce"]:
            clients.kill("produce")
        with daemons[0].client() as http:
            wait_until(lambda: nothing_waits(http), 60, "the workers have done all")
        while clients.running["work"]:
            clients.kill("work")
        wait_until(lambda: not store.redis.command("EXISTS", "QUEUEDUE"), 20, "no lease is waited for")
        found = read(folder, killed, failovers)
        found.wrong += [f"left in Redis: {key}" for key in left_in_redis(store.redis)]
        for daemon in daemons:
            if "Traceback" in daemon.log:
                found.wrong.append(f"a traceback in {daemon.log_path}")
        return found
    finally:
        for role in clients.running:
            while clients.running[role]:
                clients.kill(role)
        for server in (*daemons, store):
            server.stop()


def nothing_waits(http: Any) -> bool:
    stats = http.get(f"/stats/{QUEUE}").json()
    return stats.get("ready") == stats.get("leased") == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--failovers", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        began = time.monotonic()
        found = crash(Path(folder), asked.kills, asked.seed, asked.failovers)
        print(f"seed {asked.seed}, {time.monotonic() - began:.0f} s: {found}")
        print(*found.wrong[:20], sep="\n")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
