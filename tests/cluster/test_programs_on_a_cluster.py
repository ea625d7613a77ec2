"""All programs on a cluster that requires TLS and a user with few rights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.clusters import Cluster
from tests.servers import ROOT, Comet, Daemon, environment, free_port, refusal, stopping, wait_until

USER = ("--redis-username", "mq", "--redis-password", "secret")


@pytest.fixture(scope="module")
def small(module_folder: Path) -> Iterator[Cluster]:
    """Three primaries with a replica each, and a user for RestMQ."""
    cluster = Cluster(module_folder / "small-cluster", "--cluster-require-full-coverage", "yes")
    engine = [sys.executable, str(ROOT / "restmq_engine.py"), "--redis-cluster", cluster.addresses, "--acl-user", "mq"]
    line = subprocess.run(engine, capture_output=True, text=True, check=True, env=environment()).stdout
    for node in cluster.nodes:
        assert node.command(*line.strip().replace("PASSWORD", "secret").split()) == "OK"
    yield cluster
    cluster.stop()


def test_all_programs_run_on_a_cluster_with_the_rights_that_the_engine_prints(
    private_folder: Path, small: Cluster
) -> None:
    url = {"REDIS_URL": f"redis+cluster://mq:secret@{small.addresses}"}
    workers = Daemon(private_folder / "w", "--workers", "2", env=url, starts="workers are ready")
    collectd = Daemon(private_folder / "c", env=url, plugin="collectd")
    syslogd = Daemon(private_folder / "s", "--no-udp", env=url, plugin="syslogd")
    engine = [sys.executable, str(ROOT / "restmq_engine.py")]
    with stopping(workers, collectd, syslogd), workers.client() as http, collectd.client() as data:
        stream = Comet(workers, "/c/news")
        http.post("/q/news", content=b"heard")
        assert b"heard" in stream.lines(1)[0]
        stream.close()
        http.post("/p/x", data={"max_deliveries": 1, "history": 5, "dead_letter": "graves"})
        http.post("/q/x", data={"value": "1", "ttl": 60}, headers={"Idempotency-Key": "k"})
        http.post("/q/x", data={"value": "2", "delay": 0.1})
        leased = http.get("/q/x?lease=5&wait=5").json()
        assert http.post(f"/m/{leased['key']}", data={"receipt": leased["receipt"], "lease": 0}).status_code < 300
        wait_until(lambda: http.get("/stats/graves").json()["ready"] == 1)
        for path in (
            "/q/x?wait=5",
            "/stats/",
            "/stats/?counts=true",
            "/stats/x",
            "/metrics",
            "/j/x",
            "/q/?count=9",
            "/readyz",
        ):
            assert http.get(path).status_code == 200, path
        command = [*engine, "-p", "--queue", "x", "--value", "by hand"]
        subprocess.run(command, env=environment(**url), capture_output=True, check=True)
        assert http.get("/q/x").json()["value"] == "by hand"
        listed = http.get("/stats/?counts=true").json()["queues"]["graves"]
        assert (listed["ready"], listed["consumers"], listed["totals"]) == (1, 0, {"in": 1, "out": 0})
        made = [*engine, "-r", "--queue", "x", "--name", "ci", "--expires", "600"]
        token = subprocess.run(made, env=environment(**url), capture_output=True, text=True, check=True).stdout.strip()
        assert http.get("/stats/x", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        revoke = [*engine, "-d", "--name", "ci"]
        subprocess.run(revoke, env=environment(**url), capture_output=True, check=True)
        assert http.get("/stats/x", headers={"Authorization": f"Bearer {token}"}).status_code == 401
        posted = data.post("/collectd/data", content="PUTVAL h/p/t 1:2", headers={"Content-Type": "text/plain"})
        assert posted.status_code == 200
        with syslogd.connect() as sender:
            sender.sendall(b"<1>a line\n")
        wait_until(lambda: http.get("/q/syslogd%3A127.0.0.1").status_code == 200)
        assert all("NOPERM" not in program.log for program in (workers, collectd, syslogd))
        assert "cluster-require-full-coverage" in workers.log


def test_an_answer_waits_for_replicas_of_the_node_that_has_the_queue(private_folder: Path, small: Cluster) -> None:
    options = ("--redis-cluster", small.addresses, *USER, "--durable", "--replicas", "1")
    daemon = Daemon(private_folder, *options)
    with stopping(daemon), daemon.client() as http:
        assert {http.post(f"/q/d{number}", content=b"x").status_code for number in range(10)} == {200}
        primary = small.owner("d1")
        replica = small.replica_of(primary)
        replica.pause()
        try:
            answer = http.post("/q/d1", content=b"x")
            assert answer.status_code == 503
            assert "0 of 1 replicas" in answer.text
            other = next(f"d{number}" for number in range(99) if small.owner(f"d{number}") is not primary)
            assert http.post(f"/q/{other}", content=b"x").status_code == 200
        finally:
            replica.go_on()


@pytest.mark.parametrize("names", ["IP:127.0.0.1", "DNS:elsewhere"])
def test_each_node_of_a_cluster_with_tls_must_show_its_name(private_folder: Path, names: str) -> None:
    authority = Authority(private_folder)
    certificate, key = authority.issue("node", names)
    files = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", str(authority.path))
    files += ("--tls-cluster", "yes", "--tls-auth-clients", "no")
    cluster = Cluster(private_folder / "cluster", *files, replicas=0)
    where = ("--redis-url", f"rediss+cluster://{cluster.addresses}", "--redis-tls-ca", str(authority.path))
    daemon = Daemon(private_folder, *where, starts="waiting for the store")
    try:
        with stopping(daemon), daemon.client() as http:
            if names.startswith("IP"):
                wait_until(lambda: http.get("/readyz").status_code == 200)
                assert {http.post(f"/q/t{number}", content=b"x").status_code for number in range(10)} == {200}
            else:
                wait_until(lambda: "the certificate is for another name" in daemon.log)
                assert http.post("/q/x", content=b"x").status_code == 503
    finally:
        cluster.stop()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--redis-cluster", "one", "--redis-host", "two"), "omit --redis-host"),
        (("--redis-cluster", "one", "--redis-url", "redis://two"), "omit --redis-host"),
        (("--redis-cluster", "one", "--redis-url", "redis+cluster://two"), "contradict each other"),
        (("--redis-cluster", "one", "--redis-sentinel", "two"), "omit --redis-host"),
        (("--redis-cluster", "one:x"), "--redis-cluster 'one:x'"),
        (("--redis-cluster", "one", "--redis-db", "1"), "only database 0"),
        (("--redis-url", "redis+cluster://one/1"), "nothing after the hosts"),
        (("--redis-url", "redis+cluster://one", "--redis-tls"), "use rediss+cluster://"),
        (("--redis-cluster", "one", "--embedded", "always"), "--embedded=always starts a private store"),
    ],
)
def test_a_daemon_does_not_start_on_contradictions(private_folder: Path, arguments: tuple[str, ...], says: str) -> None:
    assert says in refusal(private_folder, "restmq", "--port", str(free_port()), *arguments)


def test_a_cluster_and_one_redis_are_not_taken_for_each_other(private_folder: Path, small: Cluster) -> None:
    port = str(small.nodes[0].port)
    daemon = Daemon(private_folder, "--redis-port", port, starts="waiting for the store")
    with stopping(daemon):
        wait_until(lambda: "pass its address to --redis-cluster" in daemon.log)


def test_data_of_another_layout_is_not_touched(private_folder: Path, private_cluster: Cluster) -> None:
    private_cluster.command("SET", "{0}RESTMQ-LAYOUT", "2 2048")
    where = ("--redis-cluster", private_cluster.addresses)
    daemon = Daemon(private_folder, *where, starts="waiting for the store")
    with stopping(daemon), daemon.client() as http:
        wait_until(lambda: "a layout that this version does not know (2 2048)" in daemon.log)
        assert http.post("/q/x", content=b"x").status_code == 503
        assert http.get("/readyz").status_code == 503
