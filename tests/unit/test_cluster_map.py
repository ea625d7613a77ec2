"""What the answers of a cluster's node to CLUSTER SLOTS and CLUSTER NODES say, and when it is asked."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import defer, task

from restmq.store.cluster.map import ClusterMap, MapKeeper, parse_map, read_members
from restmq.store.handshake import Unusable
from restmq.store.settings import StoreSettings

ASKED = ("node", 1)
ALL_SLOTS = [[0, 16383, [b"", 1, b"id"], [b"10.0.0.2", 2, b"id"]]]
NODES = b"""\
a :1@1001,primary.example,shard-id=s myself,master - 0 0 7 connected 0-16383
b 10.0.0.2:2@1002,,tls-port=0 slave a 0 0 7 connected
c ::1:3@1003 master - 0 0 9 connected
d 10.0.0.4:0@0 master,noaddr - 0 0 20 disconnected
e 10.0.0.5:5@1005 handshake - 0 0 0 connected
"""


def test_primaries_without_slots_and_host_names_are_members() -> None:
    found = parse_map(ALL_SLOTS, NODES, ASKED)
    assert set(found.owners) == {ASKED}
    assert found.members == {ASKED, ("primary.example", 1), ("10.0.0.2", 2), ("::1", 3)}
    assert found.epoch == 9


def test_slots_that_are_being_moved_belong_to_the_node_that_has_them() -> None:
    line = b"a h:1@2 myself,master - 0 0 7 connected 0-9 20 30-31 [20->-b] [40-<-c]\n"
    (member,) = read_members(line, ASKED)
    assert (member.slots, member.link, member.addresses) == (13, "connected", [("h", 1)])


@pytest.mark.parametrize("nodes", [Exception("NOPERM"), b"", b"\xff\n \na\n", b"a x:y@z master - 0 0 x connected"])
def test_without_a_list_of_nodes_the_map_still_counts(nodes: Any) -> None:
    found = parse_map(ALL_SLOTS, nodes, ASKED)
    assert (found.members, found.epoch) == ({ASKED, ("10.0.0.2", 2)}, None)


@pytest.mark.parametrize("slots", [[], [[0, 100, [b"?", 1, b"id"]]], [[0]], 5, [[0, 16383, [b"h", b"x"]]]])
def test_a_map_that_names_no_node_is_not_used(slots: Any) -> None:
    with pytest.raises(Unusable):
        parse_map(slots, NODES, ASKED)


class Node:
    """A node that answers each question at once."""

    address = ASKED
    slots: Any = ALL_SLOTS

    def ask_for_map(self) -> defer.Deferred[list[Any]]:
        return defer.succeed([self.slots, NODES])


def test_while_some_slots_have_no_node_the_map_is_read_again_each_half_second() -> None:
    """The old primary has said that it is a replica now, and the new one has not said yet that it is none."""
    node, clock, maps = Node(), task.Clock(), list[ClusterMap]()
    keeper = MapKeeper(
        StoreSettings(cluster=(ASKED,)),
        nodes=lambda: [node],
        is_troubled=lambda: False,
        adopt=maps.append,
        fail=pytest.fail,
        reactor=clock,
    )
    keeper.start()
    clock.pump([0.5] * 10)
    assert [None in found.owners for found in maps] == [False]
    node.slots = [[0, 8191, [b"", 1, b"id"]]]
    keeper.renew()
    clock.advance(0.5)
    node.slots = ALL_SLOTS
    clock.pump([0.5] * 10)
    assert [None in found.owners for found in maps] == [False, True, True, False]
    keeper.stop()
