"""``/servers`` shows the RestMQ servers on one Redis, and what Redis tells about itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_workers import workers_of
from tests.sentinels import SentinelSet
from tests.servers import Comet, Daemon, Redis, stopping, wait_until

#: However busy the machine: nobody is missing who does not hang.
PATIENT = ("--peer-timeout", "10")


@pytest.fixture
def own_daemon(private_folder: Path, private_redis: Redis) -> Iterator[Daemon]:
    with stopping(Daemon(private_folder / "one", *PATIENT, redis=private_redis)) as daemon:
        yield daemon


def report(daemon: Daemon, token: str = "") -> dict[str, Any]:
    with daemon.client() as http:
        answer = http.get("/servers", headers={"Authorization": f"Bearer {token}"} if token else {})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def only_node(daemon: Daemon) -> dict[str, Any]:
    (node,) = report(daemon)["redis"]["nodes"]
    found: dict[str, Any] = node
    return found


def test_all_servers_on_a_redis_are_listed_with_their_workers(
    own_daemon: Daemon, private_folder: Path, private_redis: Redis
) -> None:
    with stopping(Daemon(private_folder / "two", *PATIENT, "--workers", "2", redis=private_redis)) as other:
        stream = Comet(other, "/c/jobs")
        for daemon in (own_daemon, other):
            found = report(daemon)
            assert found["missing"] == 0
            by_address = {server["listens_on"][0]: server for server in found["servers"]}
            assert by_address.keys() == {f"{own_daemon.url}/", f"{other.url}/"}
            (alone,) = by_address[f"{own_daemon.url}/"]["workers"]
            assert alone["pid"] == own_daemon.process.pid
            workers = by_address[f"{other.url}/"]["workers"]
            assert [worker["worker"] for worker in workers] == [1, 2]
            assert {worker["pid"] for worker in workers} == set(workers_of(other))
            assert sum(worker["consumers"] for worker in workers) == 1
            assert sum(worker["connections"] for worker in workers) >= 1
        stream.close()


def test_a_server_that_hangs_is_counted_as_missing(private_folder: Path, private_redis: Redis) -> None:
    daemons = [Daemon(private_folder / name, "--peer-timeout", "1", redis=private_redis) for name in ("one", "two")]
    with stopping(*daemons):
        asking, hanging = daemons
        wait_until(lambda: report(asking)["missing"] == 0)
        os.kill(hanging.process.pid, signal.SIGSTOP)
        found = report(asking)
        os.kill(hanging.process.pid, signal.SIGCONT)
        assert found["missing"] == 1
        assert [server["listens_on"] for server in found["servers"]] == [[f"{asking.url}/"]]


def test_the_memory_the_persistence_and_the_version_of_redis_are_shown(
    own_daemon: Daemon, private_redis: Redis
) -> None:
    private_redis.command("CONFIG", "SET", "maxmemory", "500mb")
    private_redis.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    node = only_node(own_daemon)
    assert (node["role"], node["state"]) == ("primary", "up")
    assert node["memory_max_bytes"] == 500 << 20
    assert 0 < node["memory_bytes"] < 500 << 20
    assert node["eviction_policy"] == "volatile-lru"
    assert node["append_only_file"] is True
    assert node["failed_writes"] == []
    assert node["version"].split(" ")[0] in ("Redis", "Valkey")
    assert report(own_daemon)["redis"]["kind"] == "redis"
    assert private_redis.socket_path not in str(report(own_daemon)), "a path on the server's machine"


def test_a_snapshot_that_failed_is_told(private_folder: Path) -> None:
    redis = Redis(private_folder / "redis", "--dbfilename", "in-the-way")
    with stopping(Daemon(private_folder / "daemon", *PATIENT, redis=redis), redis) as daemon:
        assert only_node(daemon)["failed_writes"] == []
        (private_folder / "redis" / "in-the-way").mkdir()
        redis.command("BGSAVE")
        wait_until(lambda: only_node(daemon)["failed_writes"] == ["the last snapshot (RDB)"])


def test_without_redis_the_server_itself_is_shown_and_what_is_missing(own_daemon: Daemon, private_redis: Redis) -> None:
    assert report(own_daemon)["missing"] == 0
    private_redis.kill()
    wait_until(lambda: report(own_daemon)["missing"] is None)
    found = report(own_daemon)
    assert [server["workers"][0]["pid"] for server in found["servers"]] == [own_daemon.process.pid]
    (node,) = found["redis"]["nodes"]
    assert node["state"] == "no answer"
    wait_until(lambda: "connect" in report(own_daemon)["redis"].get("problem", "").lower())
    private_redis.start()
    wait_until(lambda: only_node(own_daemon)["state"] == "up")


def test_a_redis_that_hangs_is_not_waited_for(private_folder: Path, private_redis: Redis) -> None:
    options = ("--peer-timeout", "0.5", "--redis-timeout", "600")
    with stopping(Daemon(private_folder / "one", *options, redis=private_redis)) as daemon:
        private_redis.pause()
        node = only_node(daemon)
        private_redis.go_on()
        assert node["state"] == "no answer"
        wait_until(lambda: only_node(daemon)["state"] == "up")


def test_a_redis_that_does_not_permit_the_question_is_listed_without_facts(
    own_daemon: Daemon, private_redis: Redis
) -> None:
    private_redis.command("ACL", "SETUSER", "default", "-info")
    node = only_node(own_daemon)
    assert node["state"] == "up"
    assert "does not permit INFO" in node["problem"]
    assert "memory_bytes" not in node
    with own_daemon.client() as http:
        assert "restmq_redis_refusals_total 0.0" in http.get("/metrics").text


def test_only_a_token_for_all_queues_sees_the_servers(own_daemon: Daemon, private_redis: Redis) -> None:
    private_redis.command("SET", "AUTHKEY:two", '{"queues": ["a", "b"], "privs": ["read", "write", "admin"]}')
    private_redis.command("SET", "AUTHKEY:all", '{"queues": ["*"], "privs": ["read"]}')
    with own_daemon.client() as http:
        answer = http.get("/servers", headers={"Authorization": "Bearer two"})
        assert answer.status_code == 403
        assert answer.json() == {"error": "the token is not for all queues; make one with --queue '*'."}
    assert report(own_daemon, "all")["missing"] == 0


def test_the_primary_that_the_sentinels_know_is_shown_with_its_replicas(private_folder: Path) -> None:
    redis_set = SentinelSet(private_folder / "set", replicas=1)
    daemon = Daemon(private_folder, *PATIENT, "--redis-sentinel", redis_set.addresses)
    with stopping(daemon, redis_set):
        found = report(daemon)["redis"]
        assert (found["kind"], found["name"]) == ("sentinel", "mymaster")
        primary, replica = found["nodes"]
        assert (primary["address"], primary["state"]) == (f"127.0.0.1:{redis_set.primary()}", "up")
        assert replica["address"] in {f"127.0.0.1:{port}" for port in redis_set.servers} - {primary["address"]}
        assert (replica["role"], replica["state"], replica["primary"]) == ("replica", "up", primary["address"])
