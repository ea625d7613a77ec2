"""The crash test: ``python -m tests.crash.crash --kills 50``.

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
    """What the journals say, and what is wrong with it."""

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


def read(folder: Path, kills: Counter[str]) -> Findings:
    found = Findings(set(), Counter(), set(), kills, [])
    highest: dict[str, int] = {}
    acked_at: dict[str, int] = {}
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
            if "delivered" in entry:
                message = entry["delivered"]
                found.delivered[message["value"]] += 1
                highest[message["key"]] = max(message["count"], highest.get(message["key"], 0))
                keys.setdefault(message["value"], set()).add(message["key"])
            if "acked" in entry:
                found.acked.add(entry["acked"]["value"])
                acked_at[entry["acked"]["key"]] = entry["acked"]["count"]
    found.wrong += [f"lost: {value}" for value in found.answered - set(found.delivered)]
    found.wrong += [f"came back after its ack: {key}" for key, count in acked_at.items() if highest[key] > count]
    found.wrong += [f"queued twice: {value} as {names}" for value, names in keys.items() if len(names) > 1]
    return found


def left_in_redis(redis: Redis) -> set[str]:
    """All that is not about the queue as such, and does not end by itself."""
    about = {"QUEUESET", f"{QUEUE}:UUID", f"{QUEUE}:totals", f"{QUEUE}:times"}
    return {key for key in redis.keys() - about if redis.command("TTL", key) < 0}


def crash(folder: Path, kills: int, seed: int) -> Findings:
    """Runs it all; returns what was found."""
    chance = random.Random(seed)
    redis = Redis(folder / "redis", "--appendfsync", "always")
    daemons = [Daemon(folder / name, "--redis-timeout", "2", redis=redis) for name in ("one", "two")]
    clients = Clients(folder, [daemon.url for daemon in daemons])
    for role, count in (("produce", PRODUCERS), ("work", WORKERS)):
        for _ in range(count):
            clients.start(role)
    killed: Counter[str] = Counter()
    try:
        for _ in range(kills):
            time.sleep(chance.uniform(*KILL_EVERY_SECONDS))  # a random moment is what is wanted
            what = chance.choice(["Redis", "daemon", "producer", "worker"])
            killed[what] += 1
            if what == "Redis":
                redis.kill()
                redis.start()
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
        wait_until(lambda: not redis.command("EXISTS", "QUEUEDUE"), 20, "no lease is waited for")
        found = read(folder, killed)
        found.wrong += [f"left in Redis: {key}" for key in left_in_redis(redis)]
        for daemon in daemons:
            if "Traceback" in daemon.log:
                found.wrong.append(f"a traceback in {daemon.log_path}")
        return found
    finally:
        for role in clients.running:
            while clients.running[role]:
                clients.kill(role)
        for server in (*daemons, redis):
            server.stop()


def nothing_waits(http: Any) -> bool:
    stats = http.get(f"/stats/{QUEUE}").json()
    return stats.get("ready") == stats.get("leased") == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        began = time.monotonic()
        found = crash(Path(folder), asked.kills, asked.seed)
        print(f"seed {asked.seed}, {time.monotonic() - began:.0f} s: {found}")
        print(*found.wrong[:20], sep="\n")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
