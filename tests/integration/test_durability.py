"""--durable and --replicas keep their promises when Redis processes are stopped and killed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.servers import Daemon, Redis, free_port, stopping, wait_until


def replica_of(folder: Path, primary: Redis) -> Redis:
    """A replica of the first Redis. Replication needs TCP, so the primary listens on a loopback port."""
    port = primary.command("CONFIG", "GET", "port")[1]
    return Redis(folder / "replica", "--appendonly", "no", "--replicaof", "127.0.0.1", port)


def with_port(folder: Path) -> Redis:
    at_once = ("--repl-diskless-sync-delay", "0")
    return Redis(folder / "primary", "--port", str(free_port()), "--bind", "127.0.0.1", *at_once)


def test_with_replicas_a_post_is_answered_once_the_replica_has_it(private_folder: Path) -> None:
    primary = with_port(private_folder)
    replica = replica_of(private_folder, primary)
    follows = [("SET", "ready", ""), ("DEL", "ready"), ("WAIT", "1", "100")]
    wait_until(lambda: primary.commands(follows)[-1] == 1, why="the replica says that it has what was written")
    options = ("--durable", "--replicas", "1", "--redis-timeout", "2")
    daemon = Daemon(private_folder, *options, redis=primary)
    with stopping(daemon, replica, primary), daemon.client() as http:
        assert http.post("/q/test", data={"value": "kept"}).status_code == 200
        assert replica.command("LRANGE", "test:queue", "0", "-1") == ["test:1"]
        replica.pause()
        refused = http.post("/q/test", data={"value": "not yet"})
        assert (refused.status_code, "replicas" in refused.json()["error"]) == (503, True)
        assert http.get("/stats/test").json()["len"] == 2  # reading asks nobody else
        replica.go_on()
        wait_until(lambda: http.post("/q/test", data={"value": "again"}).status_code == 200)
        held = http.get("/q/test?lease=60").json()
        assert http.delete(f"/m/{held['key']}?receipt={held['receipt']}").status_code == 204
        assert replica.command("EXISTS", held["key"]) == 0


def test_waiting_for_replicas_delays_only_writes(private_folder: Path) -> None:
    primary = with_port(private_folder)
    daemon = Daemon(private_folder, "--durable", "--replicas", "1", "--redis-timeout", "4", redis=primary)
    with stopping(daemon, primary), ThreadPoolExecutor(40) as pool:
        urls = [f"{daemon.url}/q/test-{number}" for number in range(40)]  # one queue's would share a call
        posts = [pool.submit(httpx.post, url, data={"value": "x"}, timeout=20) for url in urls]
        wait_until(lambda: primary.command("SCARD", "QUEUESET") == 40)
        with daemon.client() as http:
            assert http.get("/q/test-0").json()["key"] == "test-0:1"
        for post in posts:
            assert (post.result().status_code, "0 of 1 replicas" in post.result().json()["error"]) == (503, True)
    assert "is lost" not in daemon.log


def test_with_durable_an_answered_message_is_on_disk(private_folder: Path) -> None:
    daemon = Daemon(private_folder, "--embedded", "always", "--durable", "--data-dir", str(private_folder / "data"))
    with stopping(daemon), daemon.client() as http:
        key = http.post("/q/test", data={"value": "on disk"}).text.strip()
        written = b"".join(path.read_bytes() for path in (private_folder / "data").rglob("*.aof"))
        assert b"on disk" in written
        assert key.encode() in written


def test_durable_with_an_outside_redis_warns(private_folder: Path, redis: Redis) -> None:
    with stopping(Daemon(private_folder, "--durable", redis=redis)) as daemon:
        assert "appendfsync" in daemon.log
