"""Subscriptions on a cluster: each channel on the node that has its slot (sharded pub/sub).

1. A script publishes on the node where it runs, and counts the subscribers there. So a channel must be subscribed on
   the node that has its slot, and on no other.
2. When a slot leaves a node, the node ends the subscriptions of that slot. Then the map is read again, and the channels
   are subscribed on the new node of the slot. They are also moved if a new map shows another node for the slot, even if
   the old node does not answer.
3. Between the end of a subscription and its confirmation elsewhere, messages are missed. ``on_lost`` and ``on_renewed``
   name the channels concerned, and no others: the loss of one node does not touch the queues of the others.
4. A node that does not have the slot of a channel rejects the subscription. The rejection names no channel. So all
   channels that are not confirmed are asked for again after a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from twisted.internet import defer

from restmq.store.base import ChannelEvents, Channels, Subscription
from restmq.store.cluster.node import AT_ANOTHER_NODE, TRY_LATER, ClusterNode
from restmq.store.connection import ErrorReply
from restmq.store.subscriber import Subscriber

_ASK_AGAIN_SECONDS = 0.25


class Nodes(Protocol):
    """The cluster's store, as its subscribers see it."""

    def node_of(self, partition: int) -> ClusterNode | None: ...
    def renew_map(self) -> None: ...
    def command(self, *args: Any) -> defer.Deferred[Any]: ...


@dataclass(slots=True)
class _Channel:
    """A channel.

    Attributes:
        node: the node where it is subscribed, or will be.
        is_lost: whether messages may have been missed since it was confirmed.
        waiting: fire when it is confirmed.
    """

    partition: int
    node: ClusterNode | None = None
    is_confirmed: bool = False
    is_lost: bool = False
    waiting: list[defer.Deferred[None]] = field(default_factory=list)


class ClusterSubscriber(Subscription):
    """Channels on all nodes; each node that has any gets one connection."""

    def __init__(self, nodes: Nodes, partition_of: Callable[[bytes], int], events: ChannelEvents, reactor: Any) -> None:
        self._nodes = nodes
        self._partition_of = partition_of
        self._events = events
        self._reactor = reactor
        self._channels: dict[bytes, _Channel] = {}
        self._parts: dict[ClusterNode, Subscriber] = {}
        self._lost: set[bytes] = set()
        self._renewed: set[bytes] = set()
        self._telling: Any = None
        self._asking_again: Any = None

    def subscribe(self, channel: bytes) -> defer.Deferred[None]:
        confirmed: defer.Deferred[None] = defer.Deferred()
        known = self._channels.get(channel)
        if known is None:
            known = self._channels[channel] = _Channel(self._partition_of(channel))
        if known.is_confirmed:
            confirmed.callback(None)
        else:
            known.waiting.append(confirmed)
            self._place(channel, known)
        return confirmed

    def unsubscribe(self, channel: bytes) -> None:
        known = self._channels.pop(channel, None)
        if known is not None:
            self._leave(channel, known)

    def stop(self) -> None:
        for part in self._parts.values():
            part.stop()
        for timer in (self._telling, self._asking_again):
            if timer is not None and timer.active():
                timer.cancel()

    def close(self) -> defer.Deferred[Any]:
        """Closes all connections."""
        self.stop()
        parts, self._parts = self._parts, {}
        return defer.gatherResults([node.drop(part) for node, part in parts.items()])

    # Where the channels are

    def map_changed(self, nodes: Iterable[ClusterNode]) -> None:
        """Moves channels whose slots have moved. These nodes are in the new map."""
        for channel, known in list(self._channels.items()):
            self._place(channel, known)
        for node in self._parts.keys() - set(nodes):  # the node itself closes the connection
            self._parts.pop(node).stop()

    def _place(self, channel: bytes, known: _Channel) -> None:
        node = self._nodes.node_of(known.partition)
        if node is known.node:
            return
        self._leave(channel, known)
        self._lose(channel, known)
        known.node = node
        if node is None:
            return
        # A command that fails does not keep the channel from being subscribed.
        commands = self._events.before_renewal([channel]) if known.is_lost else []
        answered = defer.DeferredList([self._nodes.command(*command) for command in commands], consumeErrors=True)
        answered.addCallback(self._subscribe, channel, known, node)

    def _subscribe(self, _: Any, channel: bytes, known: _Channel, node: ClusterNode) -> None:
        if self._channels.get(channel) is known and known.node is node:
            self._part_of(node).subscribe(channel).addCallback(self._confirmed, channel, known, node)

    def _leave(self, channel: bytes, known: _Channel) -> None:
        if known.node in self._parts:
            self._parts[known.node].unsubscribe(channel)

    def _part_of(self, node: ClusterNode) -> Subscriber:
        part = self._parts.get(node)
        if part is None:
            events = replace(
                self._events,
                on_lost=lambda channels: self._node_lost(node, channels),
                on_renewed=lambda channels: self._node_renewed(node, channels),
            )
            part = self._parts[node] = node.subscriber(events, shard=self)
        return part

    # What the nodes tell

    def _confirmed(self, _: None, channel: bytes, known: _Channel, node: ClusterNode) -> None:
        if self._channels.get(channel) is known and known.node is node:
            self._is_there(channel, known)

    def _is_there(self, channel: bytes, known: _Channel) -> None:
        known.is_confirmed = True
        waiting, known.waiting = known.waiting, []
        for confirmed in waiting:
            confirmed.callback(None)
        if known.is_lost:
            known.is_lost = False
            self._renewed.add(channel)
            self._tell_later()

    def _lose(self, channel: bytes, known: _Channel) -> None:
        if known.is_confirmed:
            known.is_confirmed, known.is_lost = False, True
            self._lost.add(channel)
            self._tell_later()

    def _of_node(self, node: ClusterNode, channels: Channels) -> list[tuple[bytes, _Channel]]:
        found = [(channel, self._channels.get(channel)) for channel in channels]
        return [(channel, known) for channel, known in found if known is not None and known.node is node]

    def _node_lost(self, node: ClusterNode, channels: Channels) -> None:
        for channel, known in self._of_node(node, channels):
            self._lose(channel, known)

    def _node_renewed(self, node: ClusterNode, channels: Channels) -> None:
        for channel, known in self._of_node(node, channels):
            if known.is_lost:
                self._is_there(channel, known)

    def ended(self, channel: bytes) -> None:
        """The channel's slot has left its node."""
        known = self._channels.get(channel)
        if known is not None:
            known.node = None
            self._lose(channel, known)
        self._move_later()

    def redirected(self, error: ErrorReply) -> bool:
        """A node does not have the slot of some channel."""
        if error.code not in (*AT_ANOTHER_NODE, *TRY_LATER):
            return False
        self._move_later()
        return True

    def _move_later(self) -> None:
        self._nodes.renew_map()
        if self._asking_again is None:
            self._asking_again = self._reactor.callLater(_ASK_AGAIN_SECONDS, self._ask_again)

    def _ask_again(self) -> None:
        self._asking_again = None
        for channel, known in list(self._channels.items()):
            if known.is_confirmed:
                continue
            before = known.node
            self._place(channel, known)
            if known.node is before and known.node in self._parts:  # otherwise it is about to be subscribed
                self._parts[known.node].ask_again(channel)

    def _tell_later(self) -> None:
        """Reports all channels of this turn in one call: a node has many, and its loss is one event."""
        if self._telling is None:
            self._telling = self._reactor.callLater(0, self._tell)

    def _tell(self) -> None:
        self._telling = None
        lost, self._lost = self._lost, set()
        renewed, self._renewed = self._renewed, set()
        if lost:
            self._events.on_lost(lost)
        if renewed:
            self._events.on_renewed(renewed)
