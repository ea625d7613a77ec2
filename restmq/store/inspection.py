"""What the store's servers tell about themselves, for operators: roles, memory, persistence, replicas, slots.

All servers are asked at the same time, each once: ``INFO`` and, of a cluster, ``CLUSTER NODES`` go in one round trip.
Replicas are not asked; their primaries tell about them. A server that does not answer in time is listed with the
reason. If Redis does not permit a question, the facts that it would tell are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from twisted.internet import defer

from restmq.store.base import BaseStore
from restmq.store.cluster.map import SLOTS, Member, read_members
from restmq.store.connection import ErrorReply
from restmq.store.handshake import info_fields
from restmq.store.settings import Address, show_address

#: The facts about one server, by name; those that are unknown are left out.
NodeFacts = dict[str, Any]

_INFO = (b"INFO", b"server", b"clients", b"memory", b"persistence", b"stats", b"replication")
_NODES = (b"CLUSTER", b"NODES")
#: Whole numbers, and the names that INFO has for them.
_NUMBERS = {
    "uptime_seconds": "uptime_in_seconds",
    "clients": "connected_clients",
    "clients_max": "maxclients",
    "memory_bytes": "used_memory",
    "memory_max_bytes": "maxmemory",
    "evicted_keys": "evicted_keys",
}
#: What INFO has the outcome of.
_WRITES = {
    "rdb_last_bgsave_status": "the last snapshot (RDB)",
    "aof_last_write_status": "the last write to the append-only file",
    "aof_last_bgrewrite_status": "the last rewrite of the append-only file",
}
_REPLICA = re.compile(r"slave\d+")
UP, NO_ANSWER = "up", "no answer"


async def inspect(store: BaseStore) -> dict[str, Any]:
    """Asks all servers of the store, within ``part_seconds``.

    Returns:
        ``kind``: "redis", "sentinel" or "cluster". ``name``: the name by which Sentinels know the primary. ``nodes``:
        the facts about each server. ``problem``: why the store cannot be used, or not all of it; absent if it can.
    """
    is_cluster = store.layout.is_partitioned
    servers = store.servers
    questions = (_INFO, _NODES) if is_cluster else (_INFO,)
    asked = [server.ask(*question) for server in servers for question in questions]
    answers = await defer.DeferredList(asked, consumeErrors=True).addTimeout(store.part_seconds, store.clock)
    infos, maps = answers[:: len(questions)], answers[1 :: len(questions)] if is_cluster else []
    nodes: dict[str, NodeFacts] = {}
    for server, (success, members) in zip(servers, maps, strict=False):
        if success and not nodes:
            nodes = _of_members(list(read_members(members, server.address)), {each.address for each in servers})
    for server, (success, info) in zip(servers, infos, strict=True):
        where = server.where
        found = nodes.setdefault(where, {"address": where, "role": "primary", "state": UP})
        if success:
            found |= _facts(info)
            for replica in _replicas(info, where):
                nodes[replica["address"]] = replica | nodes.get(replica["address"], {})
        else:
            found["state"] = NO_ANSWER if found["state"] == UP else found["state"]
            found |= {"problem": server.reason} if server.reason else {}
    sentinel = store.settings.sentinel
    kind = "cluster" if is_cluster else "sentinel" if sentinel is not None else "redis"
    problem = store.reason or _uncovered(nodes)
    return {
        "kind": kind,
        **({"name": sentinel.primary} if sentinel is not None else {}),
        **({"problem": problem} if problem else {}),
        "nodes": list(nodes.values()),
    }


def _facts(info: Any) -> NodeFacts:
    """The facts in an answer to ``INFO``."""
    if isinstance(info, ErrorReply):
        return {"problem": f"Redis does not permit INFO: {info}"}
    fields = info_fields(info)
    facts: NodeFacts = {name: int(fields[theirs]) for name, theirs in _NUMBERS.items() if _is_whole(fields, theirs)}
    for program in ("valkey", "redis"):
        if f"{program}_version" in fields and "version" not in facts:
            facts["version"] = f"{program.capitalize()} {fields[f'{program}_version']}"
    if "maxmemory_policy" in fields:
        facts["eviction_policy"] = fields["maxmemory_policy"]
    if "aof_enabled" in fields:
        facts["append_only_file"] = fields["aof_enabled"] == "1"
    if _is_whole(fields, "rdb_last_save_time"):
        facts["saved"] = int(fields["rdb_last_save_time"]) * 1000
    facts["failed_writes"] = [text for name, text in _WRITES.items() if fields.get(name, "ok") != "ok"]
    return facts


def _is_whole(fields: Mapping[str, str], name: str) -> bool:
    return fields.get(name, "").isascii() and fields.get(name, "").isdigit()


def _replicas(info: Any, primary: str) -> list[NodeFacts]:
    """The replicas that a primary's ``INFO`` names."""
    found = []
    for name, text in info_fields(info).items():
        if _REPLICA.fullmatch(name):
            fields = dict(pair.partition("=")[::2] for pair in text.split(","))
            state = UP if fields.get("state") == "online" else fields.get("state", "unknown")
            port = int(fields["port"]) if _is_whole(fields, "port") else 0
            address = show_address((fields.get("ip", "?"), port))
            replica: NodeFacts = {"address": address, "role": "replica", "state": state, "primary": primary}
            found.append(replica | ({"lag_seconds": int(fields["lag"])} if _is_whole(fields, "lag") else {}))
    return found


def _of_members(members: list[Member], servers: set[Address]) -> dict[str, NodeFacts]:
    """The nodes of a cluster by address, each primary before its replicas.

    Args:
        servers: the addresses by which the store knows the primaries.
    """
    shown = {
        member.id: show_address(next((each for each in member.addresses if each in servers), member.addresses[0]))
        for member in members
    }
    members = sorted(members, key=lambda member: (shown.get(member.primary, shown[member.id]), member.primary != "-"))
    nodes = {}
    for member in members:
        failed = "fail" if "fail" in member.flags else "fail?" if "fail?" in member.flags else ""
        is_linked = member.link == "connected" or "myself" in member.flags
        facts: NodeFacts = {
            "address": shown[member.id],
            "role": "replica" if "slave" in member.flags else "primary",
            "state": failed or (UP if is_linked else member.link),
            "slots": member.slots,
        }
        if member.primary in shown:
            facts["primary"] = shown[member.primary]
        nodes[shown[member.id]] = facts
    return nodes


def _uncovered(nodes: Mapping[str, NodeFacts]) -> str:
    """What is wrong if slots of a cluster have no primary that is there."""
    if not any("slots" in node for node in nodes.values()):
        return ""
    served = sum(node.get("slots", 0) for node in nodes.values() if node["state"] != "fail")
    return f"{SLOTS - served} of {SLOTS} slots have no primary that is up" if served < SLOTS else ""
