"""The crash test: ``python -m tests.crash.crash --kills 50``.

Clients and two daemons are killed -9 at random moments, and their Redis (append-only, fsync always) is killed and
started again. With ``--sentinel 50`` the primary of a set is killed or replaced 50 times; with ``--cluster 50 --moves
20 --lag 0.3`` nodes of a cluster are killed, stopped or replaced, and slots are moved, while the data of each primary
arrives late at its replica. At the end:

- Every value that was answered 200 was delivered, nothing that was acked came back, no value was queued twice, also not
  among the dead letters.
- Each consumer of the broadcast got all of it, in order, once.
- The client that takes messages got them in order, and misses at most as many as it had unanswered requests.
- Nothing is left in Redis.

Prints the counts; exit status 1 if anything of that is not so.
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
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.crash.clients import GRAVES, JOBS, LINE, NEWS, QUEUES, SETTINGS, TURNS
from tests.crash.stores import Failovers, Nodes, OneRedis, Store
from tests.servers import ROOT, Daemon, wait_until

CLIENTS = {"listen": 2, "take": 1, "work": 3, "serve": 2, "produce": 2, "count": 1}
#: These are killed and replaced.
KILLED_CLIENTS = ("produce", "work", "serve")
KILL_EVERY_SECONDS = (0.1, 0.9)
#: The keys of a queue that stay when it is empty.
STAYING = {"UUID", "totals", "times", "settings", "queuepolicy", "history", "historyvalues", "flow"}


class Clients:
    """The clients that run now."""

    def __init__(self, folder: Path, urls: list[str]) -> None:
        self._folder = folder
        self._urls = urls
        self._numbers = itertools.count(1)
        self.running: dict[str, list[subprocess.Popen[bytes]]] = {role: [] for role in CLIENTS}

    def start(self, role: str) -> None:
        number = next(self._numbers)
        command = [sys.executable, "-m", "tests.crash.clients", role, str(self._folder / f"{role}-{number}.journal")]
        self.running[role].append(subprocess.Popen([*command, str(number), *self._urls], cwd=ROOT))

    def kill(self, role: str, which: int = 0) -> None:
        client = self.running[role].pop(which)
        client.kill()
        client.wait()

    def kill_all(self, *roles: str) -> None:
        for role in roles:
            while self.running[role]:
                self.kill(role)


@dataclass
class Findings:
    """What the journals say, and the problems found.

    Attributes:
        answered: the values that were answered 200, by queue, in order.
        waited: the longest time until an answer.
    """

    kills: Counter[str]
    answered: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    delivered: Counter[tuple[str, str]] = field(default_factory=Counter)
    acked: set[tuple[str, str]] = field(default_factory=set)
    highest: dict[tuple[str, str, str], int] = field(default_factory=dict)
    acked_at: dict[tuple[str, str, str], int] = field(default_factory=dict)
    heard: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    taken: list[str] = field(default_factory=list)
    untaken: int = 0
    gaps: int = 0
    waited: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        killed = ", ".join(f"{what} {count}" for what, count in sorted(self.kills.items()))
        again = sum(self.delivered.values()) - len(self.delivered)
        buried = sum(queue == GRAVES for queue, _ in self.acked)
        return (
            f"{self.kills.total()} faults ({killed}); {sum(map(len, self.answered.values()))} values answered 200 (the "
            f"longest wait was {self.waited} s), {len(self.delivered)} leased ({again} more than once), "
            f"{len(self.acked)} acks answered ({buried} of dead letters), {len(self.taken)} taken, "
            f"{[len(values) for values in self.heard.values()]} heard ({self.gaps} gaps told); {len(self.wrong)} wrong"
        )

    def read(self, journal: Path) -> None:
        for line in journal.read_text().splitlines():
            if line.endswith("}"):  # otherwise it was killed while it wrote
                self._note(journal.name, json.loads(line))

    def _note(self, journal: str, entry: dict[str, Any]) -> None:
        if "problem" in entry:
            self.wrong.append(entry["problem"])
        if "answered" in entry:
            self.answered[entry["queue"]].append(entry["answered"])
            self.waited = max(self.waited, entry["waited"])
        if message := entry.get("delivered"):
            self.delivered[message["queue"], message["value"]] += 1
            identity = message["queue"], message["value"], message["key"]
            self.highest[identity] = max(message["count"], self.highest.get(identity, 0))
        if message := entry.get("acked"):
            self.acked.add((message["queue"], message["value"]))
            self.acked_at[message["queue"], message["value"], message["key"]] = message["count"]
        if "heard" in entry:
            self.heard[journal].append(entry["heard"])
        self.gaps += "told" in entry
        if "taken" in entry:
            self.taken.append(entry["taken"])
        self.untaken += "untaken" in entry

    def check(self, has_failovers: bool) -> None:
        """Finds what is wrong.

        A failover may undo what was not answered, although a client saw it: then the same key can be another message's,
        and the value, posted again, has another key. So after failovers a value counts as queued twice if it was acked
        so, a taken one may come again, and a consumer that saw it is told of a gap.
        """
        if self.gaps and not has_failovers:
            self.wrong.append(f"{self.gaps} gaps were told")
        keys: dict[tuple[str, str], set[str]] = {}
        for queue, value, key in self.acked_at if has_failovers else self.highest:
            keys.setdefault((queue, value), set()).add(key)
        for queue in (JOBS, TURNS):
            delivered = {value for at, value in self.delivered if at in (queue, GRAVES)}
            self.wrong += [f"lost of {queue}: {value}" for value in self.answered[queue] if value not in delivered]
        self.wrong += [
            f"came back after its ack: {at}" for at, count in self.acked_at.items() if self.highest[at] > count
        ]
        self.wrong += [f"queued twice: {name} as {names}" for name, names in keys.items() if len(names) > 1]
        twice = {value for queue, value in self.acked if queue == JOBS} & {
            v for queue, v in self.acked if queue == GRAVES
        }
        self.wrong += [f"acked, and a dead letter: {value}" for value in twice]
        for listener, values in self.heard.items():
            self._check_order(values, f"{listener} heard", has_failovers)
            self.wrong += [f"{listener} misses {value}" for value in self.answered[NEWS] if value not in set(values)]
        self._check_order(self.taken, "taken", has_failovers)
        missing = set(self.answered[LINE]) - set(self.taken)
        if len(missing) > self.untaken:
            self.wrong.append(f"{len(missing)} never taken, with {self.untaken} unanswered requests: {missing}")

    def _check_order(self, values: list[str], what: str, has_failovers: bool) -> None:
        first = list(map(int, dict.fromkeys(values)))
        if first != sorted(first):
            self.wrong.append(
                f"{what} in another order: {[pair for pair in itertools.pairwise(first) if pair[0] > pair[1]]}"
            )
        if len(first) < len(values) and not has_failovers:
            self.wrong.append(f"{what} twice: {[value for value, count in Counter(values).items() if count > 1]}")


def left(store: Store) -> set[str]:
    """The keys in Redis that describe a message."""
    about = {f"{queue}:{suffix}" for queue in QUEUES for suffix in STAYING}
    about |= {"QUEUESET", "QUEUEDEADLETTERS"}
    return {key for key in store.lasting_keys() - about if not key.startswith("RESTMQ-")}


def crash(folder: Path, store: Store, plan: list[str], chance: random.Random) -> Findings:
    """Runs the whole test, and stops the store.

    Args:
        plan: what fails, in order: a client's role, ``daemon``, or a fault of the store.
    """
    found = Findings(Counter(plan))
    daemons = [Daemon(folder / name, "--redis-timeout", "2", *store.flags) for name in ("one", "two")]
    clients = Clients(folder, [daemon.url for daemon in daemons])
    try:
        with daemons[0].client() as http:
            for queue, settings in SETTINGS.items():
                form = dict(pair.split("=") for pair in settings.split("&"))
                wait_until(lambda at=queue, form=form: http.post(f"/p/{at}", data=form).status_code == 200)  # type: ignore[misc]
            greetings = itertools.count(-(10**6))
            for role, number in CLIENTS.items():
                for _ in range(number):
                    clients.start(role)
                if role == "listen":
                    wait_until(lambda: all_hear(http, next(greetings), folder), 60, "the consumers listen")
        for what in plan:
            time.sleep(chance.uniform(*KILL_EVERY_SECONDS))  # the moment must be random
            if what == "daemon":
                daemon = chance.choice(daemons)
                daemon.kill()
                daemon.start()
            elif what in clients.running:
                clients.kill(what, chance.randrange(len(clients.running[what])))
                clients.start(what)
            else:
                store.fail(what, chance)
        clients.kill_all("produce", "count")
        with daemons[0].client() as http:
            wait_until(lambda: not waiting(http), 120, "the clients have done all")
        wait_until(lambda: all_have_heard(folder), 60, "the consumers have heard all")
        clients.kill_all("work", "serve", "take", "listen")
        wait_until(lambda: "QUEUEDUE" not in store.lasting_keys(), 20, "no lease is waited for")
        for journal in folder.glob("*.journal"):
            found.read(journal)
        found.check(has_failovers=not isinstance(store, OneRedis))
        found.wrong += [f"left in Redis: {key}" for key in left(store)]
        for daemon in daemons:
            if "Traceback" in daemon.log:
                found.wrong.append(f"a traceback in {daemon.log_path}")
        return found
    finally:
        clients.kill_all(*clients.running)
        for server in (*daemons, store):
            server.stop()


def waiting(http: Any) -> dict[str, int]:
    """The number of messages in each queue that has any."""
    found = {}
    for queue in (JOBS, GRAVES, TURNS, LINE):
        stats = http.get(f"/stats/{queue}").json()
        found[queue] = sum(stats.get(state, 1) for state in ("ready", "leased", "delayed", "dead"))
    return {queue: count for queue, count in found.items() if count}


def read_broadcast(folder: Path) -> Findings:
    """What was answered to the producers of the broadcast, and what its consumers have heard."""
    found = Findings(Counter())
    for journal in folder.glob("*.journal"):
        if journal.name.startswith(("listen", "count")):
            found.read(journal)
    return found


def all_hear(http: httpx.Client, greeting: int, folder: Path) -> bool:
    """Broadcasts a number. Returns whether each consumer has heard one: before, it has no position to resume at."""
    http.post(f"/q/{NEWS}", data={"value": greeting})
    return sum(map(bool, read_broadcast(folder).heard.values())) == CLIENTS["listen"]


def all_have_heard(folder: Path) -> bool:
    """Whether each consumer of the broadcast has heard the last value that was answered."""
    found = read_broadcast(folder)
    last = found.answered[NEWS][-1:]
    return not last or sum(last[0] in values for values in found.heard.values()) == CLIENTS["listen"]


def make_plan(chance: random.Random, store: Store, kills: int, faults: int, moves: int = 0) -> list[str]:
    """What fails, in random order."""
    killed = ["daemon", *KILLED_CLIENTS, *(store.faults if isinstance(store, OneRedis) else [])]
    plan = [*chance.choices(killed, k=kills), *chance.choices(store.faults, k=faults), *["move"] * moves]
    chance.shuffle(plan)
    return plan


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0, help="of clients, daemons, and one Redis")
    parser.add_argument("--sentinel", type=int, metavar="FAULTS", default=0, help="of the primary of a set")
    parser.add_argument("--cluster", type=int, metavar="FAULTS", default=0, help="of nodes of a cluster")
    parser.add_argument("--moves", type=int, default=0, help="of slots of a cluster")
    parser.add_argument("--only", nargs="*", choices=Nodes.faults, help="of the faults of a cluster")
    parser.add_argument("--lag", type=float, default=0.0, help="of replicas of a cluster, in seconds")
    parser.add_argument("--replicas", type=int, default=1, help="for which an answer of a cluster waits (default 1)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--keep", type=Path, help="use this folder, and leave journals and logs there")
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory(prefix="crash-") as temporary:
        folder = asked.keep or Path(temporary)
        store: Store
        if asked.cluster or asked.moves:
            store = Nodes(folder, asked.lag, asked.replicas)
            store.faults = tuple(asked.only or Nodes.faults)
        elif asked.sentinel:
            store = Failovers(folder)
        else:
            store = OneRedis(folder)
        plan = make_plan(chance, store, asked.kills, asked.cluster or asked.sentinel, asked.moves)
        began = time.monotonic()
        found = crash(folder, store, plan, chance)
        print(f"seed {asked.seed}, {time.monotonic() - began:.0f} s: {found}")
        print(*found.wrong[:20], sep="\n")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
