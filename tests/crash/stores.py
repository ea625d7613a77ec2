"""The stores that the crash test breaks: one Redis, a set with Sentinels, a cluster.

Each has ``flags`` for daemons, ``faults`` that ``fail`` can cause, and ``lasting_keys``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tests.clusters import Cluster, Node, slot_of
from tests.crash.clients import QUEUES
from tests.sentinels import SentinelSet
from tests.servers import Redis, wait_until


def lasting_keys(redis: Redis) -> set[str]:
    """The names of all keys that do not expire."""
    names = sorted(redis.keys())
    lives = redis.commands([("TTL", name) for name in names]) if names else []
    return {name for name, life in zip(names, lives, strict=True) if life < 0}


class OneRedis:
    """A Redis that writes to disk before it answers. It is killed and started again."""

    faults = ("Redis",)

    def __init__(self, folder: Path) -> None:
        self._redis = Redis(folder / "redis", "--appendfsync", "always")
        self.flags = ("--redis-socket", self._redis.socket_path)

    def fail(self, _fault: str, _chance: random.Random) -> None:
        self._redis.kill()
        self._redis.start()

    def lasting_keys(self) -> set[str]:
        return lasting_keys(self._redis)

    def stop(self) -> None:
        self._redis.stop()


class Failovers:
    """A primary, two replicas and three Sentinels. The primary is killed and started again, or replaced."""

    faults = ("primary", "failover")

    def __init__(self, folder: Path) -> None:
        self._set = SentinelSet(folder / "set")
        self.flags = ("--redis-sentinel", self._set.addresses, "--durable", "--replicas", "2")

    def fail(self, fault: str, _chance: random.Random) -> None:
        if fault == "failover":
            self._set.failover()
        else:
            old = self._set.primary()
            self._set.servers[old].kill()
            self._set.moved_from(old)
            self._set.servers[old].start()
        wait_until(self._set.is_whole, 60, "the others follow the new primary")

    def lasting_keys(self) -> set[str]:
        return lasting_keys(self._set.servers[self._set.primary()])

    def stop(self) -> None:
        self._set.stop()


class Nodes:
    """A cluster of three primaries, each with a replica. Faults come one after the other: it has one replica only.

    Args:
        lag_seconds: how late the data of a primary arrives at its replica.
        replicas: the number of replicas for which an answer waits.
    """

    faults = ("primary", "replica", "hang", "pause", "failover")

    def __init__(self, folder: Path, lag_seconds: float = 0.0, replicas: int = 1) -> None:
        self._cluster = Cluster(folder / "cluster", lag_seconds=lag_seconds)
        durable = ("--durable", "--replicas", str(replicas)) if replicas else ()
        self.flags = ("--redis-cluster", self._cluster.addresses, *durable)
        self._faults: dict[str, Callable[[Node, Node], None]] = {
            "primary": self._kill_primary,
            "replica": self._kill_replica,
            "hang": self._hang,
            "pause": self._pause,
            "failover": self._failover,
        }

    def fail(self, fault: str, chance: random.Random) -> None:
        """Breaks the node of one of the queues, and waits until the cluster is whole."""
        if fault == "move":
            slot = slot_of(chance.choice(QUEUES))
            here = self._cluster.owner_of_slot(slot)
            there = chance.choice([node for node in self._cluster.primaries() if node is not here])
            self._cluster.move(slot, there)
        else:
            primary = self._cluster.owner(chance.choice(QUEUES))
            self._faults[fault](primary, self._cluster.replica_of(primary))
        self._wait_until_whole()

    def _kill_primary(self, primary: Node, replica: Node) -> None:
        primary.kill()
        wait_until(replica.is_primary, 60, "the replica takes over")
        primary.start()

    def _kill_replica(self, _primary: Node, replica: Node) -> None:
        replica.kill()
        replica.start()

    def _hang(self, primary: Node, replica: Node) -> None:
        primary.pause()
        try:
            wait_until(replica.is_primary, 60, "the replica takes over")
        finally:
            primary.go_on()

    def _pause(self, primary: Node, _replica: Node) -> None:
        primary.pause()
        try:
            wait_until(lambda: "fail" in self._cluster.flags_of(primary), 60, "another node misses it")
        finally:
            primary.go_on()

    def _failover(self, _primary: Node, replica: Node) -> None:
        wait_until(lambda: replica.is_primary() or not replica.command("CLUSTER", "FAILOVER"), 60, "it takes over")
        wait_until(replica.is_primary, 60, "the replica takes over")

    def _wait_until_whole(self) -> None:
        """Waits until each replica has all data that its primary has now: a slot that has just moved too."""
        wanted: dict[Node, int] = {}

        def is_whole() -> bool:
            self._cluster.settle()
            roles = {node: node.command("ROLE") for node in self._cluster.primaries()}
            if any(kind != "master" for kind, *_ in roles.values()):
                return False
            if wanted.keys() != roles.keys():
                wanted.clear()
                wanted.update({node: offset for node, (_, offset, _) in roles.items()})
            return all(
                any(int(replica[2]) >= wanted[node] for replica in replicas) for node, (_, _, replicas) in roles.items()
            )

        wait_until(is_whole, 60, "the cluster is whole")

    def lasting_keys(self) -> set[str]:
        found = set().union(*map(lasting_keys, self._cluster.primaries()))
        return {key.partition("}")[2] for key in found}

    def stop(self) -> None:
        self._cluster.stop()


Store = OneRedis | Failovers | Nodes
