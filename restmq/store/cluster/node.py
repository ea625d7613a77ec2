"""One node of a cluster: a store like any other, but it may answer that another node has a key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from twisted.internet import defer
from twisted.logger import Logger

from restmq.errors import RestMQError, StoreUnavailable
from restmq.store import handshake, keys, scripts
from restmq.store.base import BaseStore
from restmq.store.connection import Connection, ErrorReply, script_arguments
from restmq.store.pool import Store
from restmq.store.settings import Address, StoreSettings

log = Logger()

#: Answers after which nothing was done, and the same call may succeed soon, here or at another node.
AT_ANOTHER_NODE = ("MOVED", "ASK")
TRY_LATER = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY")
_MOVING = (
    "this queue's part of the message store (Redis Cluster) is being moved. Nothing was done; try again in a moment."
)
_DOWN = (
    "the message store (Redis Cluster) does not serve this queue's part now (CLUSTERDOWN). Nothing was done; try again "
    "in a moment."
)
_NO_OPS_MAX = 5
_SLOW_SECONDS = 0.5


class Redirection(StoreUnavailable):
    """A node did not run a call, because another node has the key, or because the key's slot is being moved.

    Attributes:
        code: the first word of the node's answer.
        address: the host that has the slot; None if the node names none, or its own host.
        port: the port of the node that has the slot.
    """

    def __init__(self, error: ErrorReply, asked: Address) -> None:
        super().__init__(_DOWN if error.code == "CLUSTERDOWN" else _MOVING)
        self.code = error.code
        self.address: Address | None = None
        words = str(error).split(" ")
        if self.code in AT_ANOTHER_NODE and len(words) == 3:
            host, _, port = words[2].rpartition(":")
            if port.isdigit():
                self.address = (host or asked[0], int(port))


class NodeOwner(Protocol):
    """The cluster's store, as its nodes see it."""

    def node_joined(self, node: Any) -> None: ...
    def node_lost(self, node: Any) -> None: ...
    def partitions_of(self, node: Any) -> list[int]: ...


class ClusterNode(Store):
    """One node: its pool for calls, its connection for ``WAIT``, and those of the subscribers."""

    def __init__(self, address: Address, settings: StoreSettings, cluster: NodeOwner, reactor: Any) -> None:
        self._cluster = cluster
        self.address = address
        node = replace(settings, host=address[0], port=address[1], cluster=(), is_cluster_node=True)
        super().__init__(node, reactor)

    def leave(self) -> defer.Deferred[Any]:
        """Closes the node's connections when their calls are answered: it is no longer a primary of the cluster."""
        return self._stop(after_answers=True)

    def is_slow(self, seconds: float = _SLOW_SECONDS) -> bool:
        """Whether a call has waited for its answer for this time."""
        now = self._reactor.seconds()
        return any(one.sent_at and now - one.sent_at[0] > seconds for one in self._pool.pool)

    # Calls

    def ask_for_map(self) -> defer.Deferred[list[Any]]:
        """The answers to ``CLUSTER SLOTS`` and ``CLUSTER NODES``."""
        answer: defer.Deferred[list[Any]] = defer.Deferred()
        asked = defer.gatherResults(
            [self.ask(b"CLUSTER", b"SLOTS"), self.ask(b"CLUSTER", b"NODES")], consumeErrors=True
        )
        asked.addCallbacks(
            lambda found: answer.called or answer.callback(found),
            lambda failure: None if answer.called else answer.errback(failure.value.subFailure),
        )
        return answer

    def command_asking(self, *args: Any) -> defer.Deferred[Any]:
        """Makes a command for a slot that this node is about to take over."""
        try:
            connection = self._least_busy(self._pool)
        except StoreUnavailable:
            return defer.fail()
        connection.ask(b"ASKING").addErrback(lambda _: None)
        return connection.call(*args)

    async def _no_op(self, connection: Connection) -> None:
        """A write for ``WAIT``. It must be to a key of this node, because PUBLISH is not replicated in a cluster."""
        script = scripts.load("replicated", True)
        for partition in self._cluster.partitions_of(self)[:_NO_OPS_MAX]:
            tag = self.layout.tags[partition]
            try:
                await connection.run(script, script_arguments(self.layout, tag, [tag + keys.WRITTEN]))
                return
            except Redirection:  # this slot is being moved
                continue
        raise StoreUnavailable("the node has no part of the store that it could write to")

    async def _try_to_write(self) -> None:
        for partition in self._cluster.partitions_of(self)[:1]:
            try:
                await self.run(
                    scripts.load("ready", True), script_arguments(self.layout, self.layout.tags[partition], ())
                )
            except Redirection as problem:
                if problem.code not in (*AT_ANOTHER_NODE, "TRYAGAIN"):
                    raise

    # Events of pools

    def joined(self, pool: Any, connection: Any, server: handshake.RedisServer) -> None:
        super().joined(pool, connection, server)
        if pool is self._pool:
            self._cluster.node_joined(self)

    def lost(self, pool: Any, connection: Any, why: str) -> None:
        super().lost(pool, connection, why)
        self._cluster.node_lost(self)

    def refused(self, pool: Any, connection: Any, error: ErrorReply) -> Exception:
        if error.code in ("READONLY", "MASTERDOWN"):
            super().refused(pool, connection, error)  # it retires all connections
        if error.code in AT_ANOTHER_NODE or error.code in TRY_LATER:
            return Redirection(error, self.address)
        return super().refused(pool, connection, error)


async def layout_version(store: BaseStore) -> bytes | None:
    """The layout of the data, which an empty cluster gets now; None if it cannot be read."""
    try:
        version: bytes | None = await store.command(b"GET", keys.LAYOUT)
        if version is None:
            await store.command(b"SET", keys.LAYOUT, keys.LAYOUT_VERSION, b"NX")
            version = await store.command(b"GET", keys.LAYOUT)
    except RestMQError:
        return None
    return version


async def warn_of_full_coverage(node: ClusterNode) -> None:
    """Warns of the setting that lets the loss of one node stop all."""
    coverage = await node.ask(b"CONFIG", b"GET", b"cluster-require-full-coverage")
    if isinstance(coverage, list) and coverage[-1:] == [b"yes"]:
        log.warn(
            "the cluster stops for all queues when one node is away without a replica "
            "(cluster-require-full-coverage yes); set it to no, so that only that node's queues stop."
        )
