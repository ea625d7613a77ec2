"""A real Redis Cluster on loopback."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from restmq.store import keys
from restmq.store.settings import StoreSettings
from tests.proxy import Proxy
from tests.servers import Redis, free_port, wait_until

NODE_TIMEOUT_MS = 2000
_SLOTS = 16384


class Node(Redis):
    """A node, also reachable by TCP. Its id survives its process.

    Args:
        lag_seconds: how late its data arrives at its replicas. What is on its way when the node is killed is lost.
    """

    def __init__(self, folder: Path, *options: str, lag_seconds: float = 0.0, program: str | None = None) -> None:
        self.port = port = free_port()
        self.bus_port = bus_port = free_port()
        self.proxy = Proxy(port, lag_seconds) if lag_seconds else None
        ports = ("--tls-port", str(port), "--port", "0") if "--tls-cluster" in options else ("--port", str(port))
        at = (*ports, "--bind", "127.0.0.1", "--cluster-port", str(bus_port))
        cluster = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS))
        quick = ("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0")
        if self.proxy is not None:
            named = ("--cluster-announce-port", str(self.proxy.port), "--cluster-announce-bus-port", str(bus_port))
            quick += ("--cluster-announce-ip", "127.0.0.1", *named)
        super().__init__(folder, *at, *cluster, *quick, *options, program=program)
        self.id: str = self.command("CLUSTER", "MYID")

    @property
    def named_port(self) -> int:
        """The port that the cluster names."""
        return self.port if self.proxy is None else self.proxy.port

    def start_elsewhere(self) -> None:
        """Starts the node at other ports, with its data."""
        changed = {str(self.port): str(free_port()), str(self.bus_port): str(free_port())}
        self.port, self.bus_port = map(int, changed.values())
        self.options = tuple(changed.get(option, option) for option in self.options)
        self.start()

    def kill(self) -> None:
        super().kill()
        if self.proxy is not None:
            self.proxy.cut()

    def is_primary(self) -> bool:
        return bool(self.command("ROLE")[0] == "master")


class Cluster:
    """Primaries, each with its replicas, which have equal parts of all slots.

    Args:
        replicas: number of replicas of each primary.
        lag_seconds: how late the data of a primary arrives at its replicas.
        options: for each node.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        primaries: int = 3,
        replicas: int = 1,
        lag_seconds: float = 0.0,
        program: str | None = None,
    ) -> None:
        self.folder = folder
        self.options = options
        self._lag_seconds = lag_seconds
        self._program = program
        self.nodes: list[Node] = []
        try:
            for _ in range(primaries * (1 + replicas)):
                self.add_node()
            self._join(primaries)
        except BaseException:
            self.stop()
            raise

    def add_node(self) -> Node:
        """Starts a node that is in no cluster yet."""
        place = self.folder / f"node-{len(self.nodes)}"
        node = Node(place, *self.options, lag_seconds=self._lag_seconds, program=self._program)
        self.nodes.append(node)
        return node

    def _join(self, primaries: int) -> None:
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for number, node in enumerate(self.nodes[:primaries]):
            begin, end = (_SLOTS * at // primaries for at in (number, number + 1))
            node.command("CLUSTER", "ADDSLOTSRANGE", str(begin), str(end - 1))
        for node in self.nodes[1:]:
            self.meet(node)
        for number, node in enumerate(self.nodes[primaries:]):
            primary = self.nodes[number % primaries]
            wait_until(lambda node=node, primary=primary: primary.id in node.command("CLUSTER", "NODES"))  # type: ignore[misc]
            wait_until(lambda node=node, primary=primary: self._follows(node, primary))  # type: ignore[misc]
        self.settle()

    def meet(self, node: Node) -> None:
        """Makes a node known to the others."""
        self.nodes[0].command("CLUSTER", "MEET", "127.0.0.1", str(node.named_port), str(node.bus_port))

    def _follows(self, node: Node, primary: Node) -> bool:
        return bool(node.command("CLUSTER", "REPLICATE", primary.id) == "OK")

    def settle(self) -> None:
        """Waits until all nodes know all others, and replicas have their data."""

        def is_settled() -> bool:
            for node in self.nodes:
                info = node.command("CLUSTER", "INFO")
                known = node.command("CLUSTER", "NODES").splitlines()
                if "cluster_state:ok" not in info or len(known) != len(self.nodes) or "disconnected" in str(known):
                    return False
                if not node.is_primary() and "master_link_status:up" not in node.command("INFO", "replication"):
                    return False
            return len({tuple(map(tuple, self._owners(node))) for node in self.nodes}) == 1

        wait_until(is_settled, 60, "the cluster is whole")

    @staticmethod
    def _owners(node: Node) -> list[tuple[int, int, str]]:
        return sorted((first, last, primary[2]) for first, last, primary, *_ in node.command("CLUSTER", "SLOTS"))

    @property
    def addresses(self) -> str:
        """For ``--redis-cluster``."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])

    def primaries(self) -> list[Node]:
        return [node for node in self.nodes if node.is_alive() and node.is_primary()]

    def replica_of(self, primary: Node) -> Node:
        return next(node for node in self.nodes if node.is_alive() and node.command("ROLE")[2] == primary.named_port)

    def flags_of(self, node: Node) -> str:
        """What another node thinks of this one, such as ``master,fail``."""
        other = next(other for other in self.nodes if other is not node and other.is_alive())
        lines = other.command("CLUSTER", "NODES").splitlines()
        return next(line.split(" ")[2] for line in lines if line.startswith(node.id))

    def owner(self, queue: str) -> Node:
        """The primary that has a queue."""
        return self.owner_of_slot(slot_of(queue))

    def owner_of_slot(self, slot: int) -> Node:
        for node in self.nodes:
            if node.is_alive():
                with contextlib.suppress(OSError, AssertionError):
                    for first, last, primary, *_ in node.command("CLUSTER", "SLOTS"):
                        if first <= slot <= last:
                            return next(node for node in self.nodes if node.id == primary[2])
        raise AssertionError(f"no node has slot {slot}")

    def command(self, *args: str | bytes) -> Any:
        """One command, on the node that has the key, which is the second word."""
        key = args[1].encode() if isinstance(args[1], str) else args[1]
        return self.owner_of_slot(keys.crc16(key[1 : key.index(b"}")]) % _SLOTS).command(*args)

    def start_moving(self, slot: int, to: Node) -> Node:
        """Begins to move a slot. Returns the node that it leaves."""
        source = self.owner_of_slot(slot)
        assert to.command("CLUSTER", "SETSLOT", str(slot), "IMPORTING", source.id) == "OK"
        assert source.command("CLUSTER", "SETSLOT", str(slot), "MIGRATING", to.id) == "OK"
        return source

    def move_keys(self, slot: int, source: Node, to: Node, count: int = 1 << 30) -> int:
        """Moves keys of a slot that is being moved. Returns their number."""
        moved = 0
        while moved < count:
            some = source.command("CLUSTER", "GETKEYSINSLOT", str(slot), str(min(100, count - moved)))
            if not some:
                break
            source.command("MIGRATE", "127.0.0.1", str(to.port), "", "0", "5000", "KEYS", *some)
            moved += len(some)
        return moved

    def end_moving(self, slot: int, source: Node, to: Node) -> None:
        for node in (to, source, *self.primaries()):
            node.command("CLUSTER", "SETSLOT", str(slot), "NODE", to.id)

    def move(self, slot: int, to: Node) -> None:
        """Moves a slot with all its keys, as ``redis-cli --cluster reshard`` does."""
        source = self.start_moving(slot, to)
        self.move_keys(slot, source, to)
        self.end_moving(slot, source, to)

    def restart_elsewhere(self) -> None:
        """Kills all nodes, and starts them at other addresses with the same data."""
        for node in self.nodes:
            node.kill()
        for node in self.nodes:
            node.start_elsewhere()
        for node in self.nodes[1:]:
            self.meet(node)
        self.settle()

    def stop(self) -> None:
        for node in self.nodes:
            if node.is_alive():
                node.kill()
            if node.proxy is not None:
                node.proxy.stop()


def slot_of(queue: str) -> int:
    """The slot of a queue's partition."""
    return keys.crc16(keys.cluster().tag(queue)[1:-1]) % _SLOTS


class ClusterAsRedis(Cluster):
    """A cluster for tests that were written for one Redis: it has the names of the first RestMQ, and answers them."""

    @property
    def daemon_options(self) -> list[str]:
        return ["--redis-cluster", self.addresses]

    def store_settings(self, **settings: Any) -> StoreSettings:
        return StoreSettings(cluster=tuple(("127.0.0.1", node.port) for node in self.nodes[:3]), **settings)

    def command(self, *args: str | bytes) -> Any:
        name, *words = [arg.decode() if isinstance(arg, bytes) else arg for arg in args]
        if name in ("INFO", "CLIENT", "CONFIG", "SCRIPT"):
            return self.nodes[0].command(*args)
        if name == "KEYS":
            found = [key for node in self.primaries() for key in node.command("KEYS", "{*}" + words[0])]
            return [_shown(key) for key in found]
        words = [re.sub(r"^queuestat::(.*)$", r"\1:status", word) for word in words]
        if name in ("DEL", "EXISTS") and len(words) > 1:
            return sum(self.command(name, word) for word in words)
        if name == "PUBSUB":
            name, words = "PUBSUB SHARDNUMSUB", words[1:]
        if name == "PUBLISH":
            name = "SPUBLISH"
        queue = words[1] if words[0] in ("QUEUESET", "QUEUEDUE") else _queue_of(words[0])
        tag = keys.cluster().tag(queue).decode()
        names = (queue, f"{queue}:", f"{queue}-")
        stored = [tag + word if at == 0 or word.startswith(names) else word for at, word in enumerate(words)]
        return _shown(self.owner(queue).command(*name.split(" "), *stored))

    def commands(self, many: list[tuple[str | bytes, ...]]) -> list[Any]:
        return [self.command(*one) for one in many]

    def make_due(self, *queues: str) -> None:
        """As ``Redis.make_due``."""
        layout = keys.cluster()
        for queue in queues:
            names = layout.make_keys(queue)
            changed = super().command("ZADD", names.due, "XX", "CH", "1", layout.stored(queue))
            assert changed == 1, f"nothing is scheduled for {queue}"
            super().command("SPUBLISH", names.due_channel, "0")

    def keys(self) -> set[str]:
        """All keys but those that a cluster has by itself."""
        return {name for name in self.command("KEYS", "*") if not name.startswith("RESTMQ-")}

    def flush(self) -> None:
        for node in self.primaries():
            node.command("FLUSHALL")

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def start(self) -> None:
        for node in self.nodes:
            node.start()

    def pause(self) -> None:
        for node in self.nodes:
            node.pause()

    def go_on(self) -> None:
        for node in self.nodes:
            node.go_on()


def _queue_of(name: str) -> str:
    return name.partition(":")[0].removesuffix("-list")


def _shown(reply: Any) -> Any:
    """A reply without tags."""
    if isinstance(reply, list):
        return [_shown(part) for part in reply]
    return re.sub(r"^\{\d{1,4}\}", "", reply) if isinstance(reply, str) else reply
