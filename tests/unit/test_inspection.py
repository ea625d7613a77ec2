"""What is made of the answers of Redis servers about themselves, whole, partial and absent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet import defer, task

from restmq.errors import StoreUnavailable
from restmq.store.connection import ErrorReply
from restmq.store.inspection import inspect

WHOLE = b"""# Server\r
redis_version:7.2.4\r
valkey_version:8.1.1\r
uptime_in_seconds:90\r
# Persistence\r
aof_enabled:0\r
rdb_last_save_time:1700000000\r
rdb_last_bgsave_status:err\r
aof_last_write_status:ok\r
# Replication\r
role:master\r
connected_slaves:2\r
slave0:ip=::1,port=7001,state=online,offset=9,lag=1\r
slave1:ip=10.0.0.3,port=7002,state=wait_bgsave,offset=0,lag=-1\r
"""
NODES = b"""\
a 10.0.0.1:1@11 myself,master - 0 0 1 connected 0-8191
b 10.0.0.2:2@12 master,fail - 0 0 2 disconnected 8192-16383
c 10.0.0.3:3@13,,shard-id=x slave b 0 0 2 connected
"""


class Server:
    """A server with prepared answers; None for a question that is never answered."""

    def __init__(self, where: str, *answers: Any) -> None:
        host, port = where.rsplit(":", 1)
        self.where, self.address, self.reason = where, (host, int(port)), ""
        self._answers = list(answers)

    def ask(self, *_question: Any) -> defer.Deferred[Any]:
        answer = self._answers.pop(0)
        if answer is None:
            return defer.Deferred()
        return defer.fail(answer) if isinstance(answer, StoreUnavailable) else defer.succeed(answer)


def report(*servers: Server, is_cluster: bool = False, reason: str = "") -> dict[str, Any]:
    """The report, after the time limit."""
    clock = task.Clock()
    store: Any = SimpleNamespace(
        servers=list(servers),
        layout=SimpleNamespace(is_partitioned=is_cluster),
        settings=SimpleNamespace(sentinel=None),
        part_seconds=0.5,
        clock=clock,
        reason=reason,
    )
    results: list[dict[str, Any]] = []
    defer.ensureDeferred(inspect(store)).addCallback(results.append)
    clock.advance(0.5)
    return results[0]


def test_a_server_is_shown_with_its_replicas() -> None:
    found = report(Server("10.0.0.1:7000", WHOLE))
    assert found["kind"] == "redis"
    primary, *replicas = found["nodes"]
    assert primary == {
        "address": "10.0.0.1:7000", "role": "primary", "state": "up", "version": "Valkey 8.1.1", "uptime_seconds": 90,
        "append_only_file": False, "saved": 1_700_000_000_000, "failed_writes": ["the last snapshot (RDB)"],
    }  # fmt: skip
    of_it = {"role": "replica", "primary": "10.0.0.1:7000"}
    assert replicas == [
        {"address": "[::1]:7001", "state": "up", "lag_seconds": 1, **of_it},
        {"address": "10.0.0.3:7002", "state": "wait_bgsave", **of_it},
    ]


def test_what_a_server_does_not_tell_is_left_out() -> None:
    for answer in (b"", b"\xff\r\nrole\r\nuptime_in_seconds:\r\nmaxmemory:much\r\n", b"slave0:\r\n", []):
        node, *_ = report(Server("h:1", answer))["nodes"]
        assert node.keys() == {"address", "role", "state", "failed_writes"}, answer
    refused = report(Server("h:1", ErrorReply("NOPERM this user has no permissions")))
    assert refused["nodes"][0]["problem"] == "Redis does not permit INFO: NOPERM this user has no permissions"


def test_a_server_that_is_away_or_silent_is_listed() -> None:
    away = Server("h:1", StoreUnavailable("away"))
    away.reason = "Connection refused"
    found = report(away, reason="Connection refused")
    assert found["problem"] == "Connection refused"
    assert found["nodes"] == [
        {"address": "h:1", "role": "primary", "state": "no answer", "problem": "Connection refused"}
    ]
    assert report(Server("h:1", None))["nodes"] == [{"address": "h:1", "role": "primary", "state": "no answer"}]


def test_the_nodes_of_a_cluster_are_shown_as_any_of_them_knows_them() -> None:
    one, two = Server("10.0.0.1:1", b"redis_version:7.4.0\r\n", NODES), Server("10.0.0.2:2", None, None)
    found = report(two, one, is_cluster=True)
    assert found["problem"] == "8192 of 16384 slots have no primary that is up"
    assert [(node["address"], node["role"], node["state"], node["slots"]) for node in found["nodes"]] == [
        ("10.0.0.1:1", "primary", "up", 8192),
        ("10.0.0.2:2", "primary", "fail", 8192),
        ("10.0.0.3:3", "replica", "up", 0),
    ]
    assert found["nodes"][0]["version"] == "Redis 7.4.0"
    assert found["nodes"][2]["primary"] == "10.0.0.2:2"
    assert report(is_cluster=True, reason="no node answers") == {
        "kind": "cluster", "problem": "no node answers", "nodes": [],
    }  # fmt: skip


def test_a_cluster_that_does_not_permit_the_question_is_shown_by_its_primaries() -> None:
    answers = (b"redis_version:7.4.0\r\n", ErrorReply("NOPERM"))
    found = report(Server("10.0.0.1:1", *answers), Server("10.0.0.2:2", *answers), is_cluster=True)
    assert "problem" not in found
    assert [node["address"] for node in found["nodes"]] == ["10.0.0.1:1", "10.0.0.2:2"]
