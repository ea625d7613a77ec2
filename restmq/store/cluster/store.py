"""Calls to a Redis Cluster: each partition's calls go to the node that has its slot.

Theory of operation.

Names
1.  All keys and channels of a queue are in one of 1,024 partitions, and a partition is in one slot (``keys``). So each
    script, and each command with a key, runs on one node, atomically, as on one Redis. A call about all queues
    is made for each partition (``partitions``).

Nodes
2.  Each primary of the cluster is a ``ClusterNode``: a store like that of one Redis, with its own pool, its own
    connection for ``WAIT``, and its own reports. ``MapKeeper`` keeps the map of nodes up to date.
3.  While a node has no connection, calls to its partitions fail at once, and calls to others are not affected. A node
    that hangs delays only its own calls; when its replica is promoted, the new map closes its connections.

Slots that move
4.  A node answers MOVED, ASK, TRYAGAIN, CLUSTERDOWN, LOADING, MASTERDOWN or READONLY before it runs anything. Such a
    call is sent again, until its time limit, and never runs twice (``gate``).
5.  MOVED and ASK are followed only to members of the cluster, which the map names. If a node names another address, by
    mistake or on purpose, the map is read again, and nothing else happens.
6.  While a slot is moved key by key, scripts on it get ASK, until the slot has moved: each declares a key that never
    exists (``keys.Partitioned.declare``). Scripts do not follow ASK, so none begins on a node that lacks some of its
    messages. Other commands have one key, and follow it.
7.  Calls are sent in the order in which they are made, also after they had to wait.

Failures
8.  A call whose connection is lost fails, and it is unknown whether it ran, as with one Redis. It is never sent again.
9.  With ``replicas``, an answer waits until replicas of the node that ran the script have its writes. The connection
    for ``WAIT`` leads to the same process, or the call fails before it is sent.

A maintainer must give each new script keys of one partition only, and each new command its key as the first argument.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.errors import StoreUnavailable
from restmq.store import keys
from restmq.store.base import BaseStore, ChannelEvents
from restmq.store.cluster.gate import Gate, HeldCall
from restmq.store.cluster.map import ClusterMap, MapKeeper
from restmq.store.cluster.node import ClusterNode, Redirection, layout_version, warn_of_full_coverage
from restmq.store.cluster.subscriber import ClusterSubscriber
from restmq.store.connection import Encoded
from restmq.store.pool import NOT_READY, Store
from restmq.store.reports import Outage
from restmq.store.scripts import Script
from restmq.store.settings import Address, StoreSettings

log = Logger()

_Way = Callable[..., defer.Deferred[Any]]

_NOT_REACHABLE = "the message store (Redis Cluster) is not reachable; try again in a moment."
_NO_NODE = "no node of the message store (Redis Cluster) has this queue's part; try again in a moment."
_OVERLOADED = "too many calls wait for parts of the message store (Redis Cluster) that are being moved; try again."
#: After the first node, the others get this long to connect before clients are served.
_OTHERS_SECONDS = 1.0


def make_store(settings: StoreSettings, reactor: Any) -> BaseStore:
    """The store that the settings describe."""
    return ClusterStore(settings, reactor) if settings.cluster else Store(settings, reactor)


class ClusterStore(BaseStore):
    """Makes all calls to a Redis Cluster; the module's docstring has the rules."""

    def __init__(self, settings: StoreSettings, reactor: Any) -> None:
        super().__init__(settings, keys.cluster(), reactor)
        self._outage = Outage(settings.where(), reactor)
        self._nodes: dict[Address, ClusterNode] = {}
        self._leaving: set[defer.Deferred[Any]] = set()
        self._members: frozenset[Address] = frozenset()
        self._coming: set[Address] = set()  # the nodes to which slots are moved that have none in the map yet
        self._owners: list[ClusterNode | None] = [None] * keys.PARTITIONS
        self._partitions: dict[ClusterNode, list[int]] = {}
        self._gates: dict[int, Gate] = {}
        self._subscribers: list[ClusterSubscriber] = []
        self._has_moved = False
        self._is_checked = self._is_checking = False
        self._rejected = ""
        self._serving: Any = None
        self._map = MapKeeper(
            settings,
            nodes=lambda: [node for node in self.servers if node.connected and not node.is_slow()],
            is_troubled=lambda: any(not node.connected or node.is_slow() for node in self.servers),
            adopt=self._adopt,
            fail=lambda reason: self._outage.problem(reason, "", is_down=not self.connected),
            reactor=reactor,
        )

    def startService(self) -> None:
        super().startService()
        self._map.start()

    def stopService(self) -> defer.Deferred[Any]:
        super().stopService()
        self._map.stop()
        if self._serving is not None and self._serving.active():
            self._serving.cancel()
        for subscriber in self._subscribers:
            subscriber.stop()
        return defer.gatherResults([*self._leaving, *(node.stopService() for node in self._nodes.values())])

    # The map

    def renew_map(self) -> None:
        self._map.renew()

    def _adopt(self, found: ClusterMap) -> None:
        """Follows a new map."""
        if not self.running:
            return
        if not self._rejected:
            self._outage.usable()
            self._outage.end()
        self._members = found.members
        nodes = {address: self._node_at(address) for address in dict.fromkeys(found.owners) if address is not None}
        self._coming &= found.members - nodes.keys()
        for address, node in list(self._nodes.items()):
            if address not in nodes and address not in self._coming:
                self._remove(address, node)
        owners = [nodes[address] if address is not None else None for address in found.owners]
        if owners != self._owners or self._has_moved:
            self._owners, self._has_moved = owners, False
            self._partitions = {}
            for partition, owner in enumerate(owners):
                if owner is not None:
                    self._partitions.setdefault(owner, []).append(partition)
            for subscriber in self._subscribers:
                subscriber.map_changed(self._nodes.values())

    def _node_at(self, address: Address) -> ClusterNode:
        """The node at the address of a member; it begins to connect if it is new."""
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = ClusterNode(address, self.settings, self, self._reactor)
            node.counters = self.counters
            self.counters.failovers += any(self._owners)
            log.info("{where} is a primary of the cluster.", where=node.settings.where())
            node.startService()
        return node

    def _remove(self, address: Address, node: ClusterNode) -> None:
        log.info("{where} is no longer a primary of the cluster.", where=node.settings.where())
        del self._nodes[address]
        left = node.leave()
        self._leaving.add(left)
        left.addBoth(lambda _: self._leaving.discard(left))

    def partitions_of(self, node: ClusterNode) -> list[int]:
        return self._partitions.get(node, [])

    def node_of(self, partition: int) -> ClusterNode | None:
        return self._owners[partition]

    def node_joined(self, node: ClusterNode) -> None:
        self.facts = node.facts
        if not self._is_checked and node is self._owners[0]:
            self._is_checked = self._is_checking = True
            checked = defer.ensureDeferred(self._check(node))
            checked.addErrback(lambda failure: log.failure("checking the cluster failed", failure))
            checked.addCallback(lambda _: self._end_check())
        if self.first_connected.called or self._rejected:
            return
        if all(one.connected for one in self._nodes.values()):
            self._serve()
        elif self._serving is None:
            self._serving = self._reactor.callLater(_OTHERS_SECONDS, self._serve)

    def node_lost(self, node: ClusterNode) -> None:
        self._map.renew()

    def _serve(self) -> None:
        """Clients can be served."""
        if self._serving is not None and self._serving.active():
            self._serving.cancel()
        if self._is_checking or self._rejected:
            return
        if not self.first_connected.called and self.running:
            self.first_connected.callback(None)

    def _end_check(self) -> None:
        self._is_checking = False
        is_late = self._serving is not None and not self._serving.active()
        if is_late or all(one.connected for one in self._nodes.values()):
            self._serve()

    async def _check(self, node: ClusterNode) -> None:
        version = await layout_version(self)
        if version is None:
            self._is_checked = False
        elif version != keys.LAYOUT_VERSION:
            self._rejected = (
                f"its data has a layout that this version does not know ({version.decode(errors='replace')})"
            )
            self._outage.problem(self._rejected, "", is_down=True)
        await warn_of_full_coverage(node)

    # State

    @property
    def servers(self) -> list[ClusterNode]:
        return list(self._nodes.values())

    @property
    def connected(self) -> bool:
        return any(node.connected for node in self._nodes.values())

    def reaches(self, stored: bytes) -> bool:
        node = self._owners[self.layout.partition_of(stored)]
        return node is not None and node.connected

    @property
    def reason(self) -> str:
        if self.connected and not self._rejected:
            return ""
        return self._outage.reason or "; ".join(node.reason for node in self.servers if node.reason)

    def describe(self) -> str:
        connections = sum(node.connection_count for node in self.servers)
        if not connections:
            return "<Redis Connection: Not connected>"
        return f"<Redis Connection: {self.settings.where()} - {connections} connection(s)>"

    # Calls

    def command(self, *args: Any) -> defer.Deferred[Any]:
        return self._call(self.layout.partition_of(args[1]), ClusterNode.command, ClusterNode.command_asking, args)

    def publish(self, channel: bytes, payload: bytes) -> defer.Deferred[int]:
        return self.command(b"SPUBLISH", channel, payload)

    def run(self, script: Script, first_args: Encoded, *args: Any) -> defer.Deferred[Any]:
        return self._call(first_args.partition, ClusterNode.run, None, (script, first_args, *args))

    def _call(self, partition: int, way: _Way, way_asking: _Way | None, args: tuple[Any, ...]) -> defer.Deferred[Any]:
        """Makes a call in one of two ways: the second is for a node that is about to get the slot; None if none."""
        node = self._owners[partition]
        if node is None or self._rejected:
            return defer.fail(StoreUnavailable(self._why_no_node()))
        if partition in self._gates:
            return self._hold(partition, way, way_asking, args)
        return way(node, *args).addErrback(self._redirected, partition, way, way_asking, args)

    def _why_no_node(self) -> str:
        if self._nodes and not self._rejected:
            return _NO_NODE
        return self._outage.complaint or _NOT_REACHABLE

    def _redirected(self, failure: Failure, partition: int, way: _Way, way_asking: _Way | None, args: Any) -> Any:
        if not isinstance(failure.value, Redirection):
            return failure
        return self._hold(partition, way, way_asking, args, failure.value)

    def _hold(
        self, partition: int, way: _Way, way_asking: _Way | None, args: Any, problem: Redirection | None = None
    ) -> defer.Deferred[Any]:
        if sum(map(len, self._gates.values())) >= self.settings.calls_in_flight_max:
            return defer.fail(StoreUnavailable(_OVERLOADED))
        deadline = self._reactor.seconds() + self.settings.call_timeout_seconds
        call = HeldCall(lambda node: way(node, *args), way_asking and (lambda node: way_asking(node, *args)), deadline)
        self._enter(partition, call, problem)
        return call.answer

    def _enter(self, partition: int, call: HeldCall, problem: Redirection | None) -> None:
        gate = self._gates.get(partition)
        if gate is None:
            gate = self._gates[partition] = Gate(self, partition, self._reactor)
        gate.hold(call, problem)

    def follow(self, partition: int, problem: Redirection) -> ClusterNode | None:
        self._map.renew()
        if problem.address is None or problem.address not in self._members or not self.running:
            return None
        node = self._node_at(problem.address)
        if problem.code == "ASK":
            self._coming.add(problem.address)
        else:
            self._owners[partition] = node
            self._has_moved = True  # the next map tells the subscribers
        return node

    def opened(self, partition: int, calls: list[HeldCall]) -> None:
        del self._gates[partition]
        for call in calls:
            node = self._owners[partition]
            if node is None:
                call.answer.errback(Failure(StoreUnavailable(self._why_no_node())))
            elif partition in self._gates:
                self._enter(partition, call, None)
            else:
                call.send(node).addCallbacks(call.answer.callback, self._held_failed, errbackArgs=(partition, call))

    def _held_failed(self, failure: Failure, partition: int, call: HeldCall) -> None:
        if isinstance(failure.value, Redirection):
            self._enter(partition, call, failure.value)
        else:
            call.answer.errback(failure)

    async def check_ready(self, may_explain: Callable[[], Awaitable[bool]]) -> str | None:
        asked = [defer.ensureDeferred(node.check_ready(may_explain)) for node in self.servers]
        for one in asked:
            one.addTimeout(self.part_seconds, self._reactor)
        results = await defer.DeferredList(asked, consumeErrors=True)
        ready = sum(success for success, _ in results)
        if not ready or self._rejected:
            why = self.reason or _NOT_REACHABLE if await may_explain() else NOT_READY
            problems = [str(found.value) for success, found in results if not success]
            raise StoreUnavailable(problems[0] if problems and not self._rejected else why)
        return f"{ready} of {len(results) + (None in self._owners)}"

    # Pub/sub

    def subscriber(self, events: ChannelEvents) -> ClusterSubscriber:
        subscriber = ClusterSubscriber(self, self.layout.partition_of, events, self._reactor)
        self._subscribers.append(subscriber)
        return subscriber

    def drop(self, subscriber: ClusterSubscriber) -> defer.Deferred[Any]:
        self._subscribers.remove(subscriber)
        return subscriber.close()
