"""The map of a cluster: which node has which partition. ``MapKeeper`` keeps it up to date.

1. Any node knows the whole map (``CLUSTER SLOTS``). Until a node is connected, and when none answers, the addresses of
   ``--redis-cluster`` are asked, all at once; the first map counts.
2. The map is read again when a call or a subscription shows that it is out of date, when a connection is lost, every
   half second while a node is away or slow to answer or a partition has no node, and otherwise every 15 seconds. One
   question is in progress at a time. A partition has no node for a moment if its old primary, which hung, says that it
   is a replica before the others have heard of the new one.
3. Each node is also asked which nodes it knows (``CLUSTER NODES``), because the map lacks primaries without slots.
4. A node that was cut off from the others has an old map. The highest epoch of its nodes tells: it rises with each
   failover and each slot that moves. A map of an older epoch is used only if there was no newer one for 15 seconds.
5. Only addresses that nodes name so are members of the cluster. A connection, and with it the password, goes to members
   and to the addresses of ``--redis-cluster``, and to no others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from twisted.internet import defer, task
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.store import keys
from restmq.store.asking import ask_once, why_no_answer
from restmq.store.batching import SingleFlight
from restmq.store.connection import ErrorReply
from restmq.store.handshake import Unusable
from restmq.store.settings import Address, StoreSettings, endpoint_to, show_address

log = Logger()

SLOTS = 16384
_LOOK_SECONDS = 0.5
_RENEW_SECONDS = 15.0
_ANSWER_SECONDS = 1.0
_QUESTIONS = ((b"CLUSTER", b"SLOTS"), (b"CLUSTER", b"NODES"))


def _slot_of(tag: bytes) -> int:
    return keys.crc16(tag[1:-1]) % SLOTS


_PARTITION_SLOTS = tuple(map(_slot_of, keys.Partitioned.tags))


@dataclass(slots=True, frozen=True)
class ClusterMap:
    """A node's answer.

    Attributes:
        owners: the address of the primary that has each partition; None if no node has it.
        members: the addresses of all primaries and replicas; without those that have no slots, if the node does not
            permit the question.
        epoch: the highest epoch of a node; None if the node does not permit the question.
    """

    owners: tuple[Address | None, ...]
    members: frozenset[Address]
    epoch: int | None = None


def parse_map(slots: Any, nodes: Any, asked: Address) -> ClusterMap:
    """Reads the answers to ``CLUSTER SLOTS`` and ``CLUSTER NODES`` of the node at this address.

    Raises Unusable for an invalid answer.
    """
    if isinstance(slots, ErrorReply):
        raise Unusable(f"it names no nodes of a cluster: {slots}")
    by_slot: list[Address | None] = [None] * SLOTS
    members: set[Address] = set()
    try:
        for first, last, primary, *replicas in slots:
            addresses = [_address(node, asked) for node in (primary, *replicas)]
            members.update(address for address in addresses if address is not None)
            by_slot[first : last + 1] = [addresses[0]] * (last + 1 - first)
    except (TypeError, ValueError, AttributeError, UnicodeDecodeError) as problem:
        raise Unusable(f"its answer to CLUSTER SLOTS cannot be read: {problem}") from None
    owners = tuple(by_slot[slot] for slot in _PARTITION_SLOTS)
    if not any(owners):
        raise Unusable("it belongs to no cluster, or to one without slots")
    epochs = []
    for member in read_members(nodes, asked):
        members.update(member.addresses)
        epochs.append(member.epoch)
    return ClusterMap(owners, frozenset(members), max(epochs, default=None))


def _address(node: Sequence[Any], asked: Address) -> Address | None:
    """The address of a node. An empty host means the node that was asked; '?' or null: its name is unknown."""
    host, port = node[0], int(node[1])
    if host is None or host == b"?":
        return None
    return (host.decode() or asked[0], port)


@dataclass(slots=True, frozen=True)
class Member:
    """A node in an answer to ``CLUSTER NODES``.

    Attributes:
        addresses: of its host by number and, if it has one, by name.
        primary: the id of a replica's primary; ``-`` for a primary.
        link: the state of the link to it, as the node that was asked sees it; "connected" if all is well.
        slots: the number of its slots.
    """

    id: str
    addresses: list[Address]
    flags: frozenset[str]
    primary: str
    epoch: int
    link: str
    slots: int


def read_members(nodes: Any, asked: Address) -> Iterator[Member]:
    """The nodes in an answer to ``CLUSTER NODES``, without those that have no known address."""
    text = nodes.decode("utf-8", "replace") if isinstance(nodes, bytes) else ""
    for line in text.splitlines():
        node, places, flag_names, primary, _, _, epoch, link, *slots = [*line.split(" "), *[""] * 8]
        place, name, *_ = [*places.split(","), ""]  # host:port@port[,name[,other=fields]]
        host, _, port = place.partition("@")[0].rpartition(":")
        flags = frozenset(flag_names.split(","))
        if port.isdigit() and epoch.isdigit() and not {"handshake", "noaddr"} & flags:
            hosts = (host or asked[0], *([name] if name and "=" not in name else ()))
            addresses = [(each, int(port)) for each in hosts]
            yield Member(node, addresses, flags, primary, int(epoch), link, sum(map(_count_slots, slots)))


def _count_slots(slots: str) -> int:
    """The number of slots in one slot, or in a range; none in a slot that is being moved, such as ``[7->-id]``."""
    first, _, last = slots.partition("-")
    return int(last or first) - int(first) + 1 if first.isdecimal() and (last or "0").isdecimal() else 0


class MapKeeper:
    """Keeps the map up to date.

    Args:
        settings: has the addresses that are asked first.
        nodes: returns the nodes that are connected and answer.
        is_troubled: whether a node is away or slow to answer.
        adopt: called with each new map.
        fail: called with the reason if no node answers with a map.
    """

    def __init__(
        self,
        settings: StoreSettings,
        *,
        nodes: Callable[[], list[Any]],
        is_troubled: Callable[[], bool],
        adopt: Callable[[ClusterMap], None],
        fail: Callable[[str], None],
        reactor: Any,
    ) -> None:
        self._settings = settings
        self._nodes = nodes
        self._is_troubled = is_troubled
        self._adopt = adopt
        self._fail = fail
        self._reactor = reactor
        self._epoch = 0
        self._adopted_at = 0.0
        self._is_whole = False
        self._asking = SingleFlight(self._ask, lambda failure: log.failure("reading the cluster's map failed", failure))
        self._stopped = False
        self._look = task.LoopingCall(self._look_whether_it_is_time)
        self._look.clock = reactor

    def start(self) -> None:
        self._look.start(_LOOK_SECONDS)

    def stop(self) -> None:
        self._stopped = True
        if self._look.running:
            self._look.stop()

    def _look_whether_it_is_time(self) -> None:
        is_old = self._reactor.seconds() - self._adopted_at >= _RENEW_SECONDS
        if is_old or not self._is_whole or self._is_troubled():
            self.renew()

    def renew(self) -> None:
        """Reads the map now, or once more after the question in progress."""
        if not self._stopped:
            self._asking.request()

    async def _ask(self) -> None:
        found = await self._ask_nodes() or await self._ask_addresses()
        if found is None or self._stopped:
            return
        now = self._reactor.seconds()
        if found.epoch is not None:
            if found.epoch < self._epoch and now - self._adopted_at < _RENEW_SECONDS:
                return
            self._epoch = found.epoch
        self._adopted_at = now
        self._is_whole = None not in found.owners
        self._adopt(found)

    async def _ask_nodes(self) -> ClusterMap | None:
        nodes = self._nodes()
        random.shuffle(nodes)
        for node in nodes[:3]:
            with suppress(Exception):  # another node tells it
                slots, known = await node.ask_for_map().addTimeout(_ANSWER_SECONDS, self._reactor)
                return parse_map(slots, known, node.address)
        return None

    async def _ask_addresses(self) -> ClusterMap | None:
        """Asks all addresses of the configuration; returns the first map."""
        first: defer.Deferred[ClusterMap | None] = defer.Deferred()
        problems: list[str] = []
        addresses = self._settings.cluster

        def told(result: Any, address: Address) -> None:
            if isinstance(result, Failure):
                problems.append(f"{show_address(address)}: {why_no_answer(result)}")
                if len(problems) == len(addresses):
                    self._fail(f"no node says which nodes there are ({'; '.join(sorted(problems))})")
                    first.callback(None)
            elif not first.called:
                first.callback(result)

        for address in addresses:
            asked = defer.ensureDeferred(self._ask_address(address))
            asked.addTimeout(_ANSWER_SECONDS, self._reactor).addBoth(told, address)
        found: ClusterMap | None = await first
        return found

    async def _ask_address(self, address: Address) -> ClusterMap:
        settings = self._settings
        endpoint = endpoint_to(address, settings, self._reactor, _ANSWER_SECONDS)
        slots, nodes = await ask_once(
            endpoint, self._reactor, settings, settings.username, settings.password, _QUESTIONS
        )
        return parse_map(slots, nodes, address)
