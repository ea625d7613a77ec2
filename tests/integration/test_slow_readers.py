"""Consumers that do not read, and consumers whose machine has vanished."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import WEBSOCKET, Comet, Daemon, Redis, listeners, patched_twistd, stopping, wait_until

MIB = 1 << 20


@pytest.fixture
def daemon(private_folder: Path, private_redis: Redis) -> Iterator[Daemon]:
    server = Daemon(private_folder, "--max-unsent-total", str(100 * MIB), "--stall-timeout", "1", redis=private_redis)
    with stopping(server):
        yield server


@pytest.mark.parametrize(("path", "headers"), [("/c/", ""), ("/sse/", ""), ("/ws/", WEBSOCKET)])
def test_a_large_message_that_nobody_reads_is_in_memory_once(
    daemon: Daemon, private_redis: Redis, path: str, headers: str
) -> None:
    consumers = [daemon.connect() for _ in range(100)]
    for consumer in consumers:
        consumer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        consumer.sendall(f"GET {path}q HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode())
        assert consumer.recv(1000)
    wait_until(lambda: listeners(private_redis, "q"))
    before = daemon.resident_bytes
    with daemon.client() as http:
        body = b"x" * (16 * MIB - 1)
        http.post("/q/q", content=body, headers={"Content-Type": "text/plain"}).raise_for_status()
        wait_until(lambda: private_redis.command("EXISTS", "q:1") == 0, why="all consumers were given the message")
        assert http.get("/healthz").status_code == 200
    assert daemon.resident_bytes - before < 150 * MIB  # of 1.6 GB
    for consumer in consumers:
        consumer.close()


def test_consumers_with_the_most_unread_bytes_are_dropped_when_there_are_too_many(
    daemon: Daemon, private_redis: Redis
) -> None:
    slow = [Comet(daemon, f"/c/slow-{number}") for number in range(8)]
    wait_until(lambda: listeners(private_redis, "slow-7"))
    quick = Comet(daemon, "/c/quick")
    wait_until(lambda: listeners(private_redis, "quick"))
    with daemon.client(headers={"Content-Type": "text/plain"}) as http:
        for number in range(8):
            http.post(f"/q/slow-{number}", content=b"x" * (16 * MIB - 1)).raise_for_status()
        wait_until(lambda: "all consumers together left more than" in daemon.log)
        key = http.post("/q/quick", content=b"x").text.strip()
    assert json.loads(quick.lines(1)[0])["key"] == key
    for consumer in slow:
        consumer.close()


#: A daemon that checks more often whether its clients have vanished.
IMPATIENT = patched_twistd(
    "from restmq.delivery import local, transport_consumer",
    "local.KEEPALIVE_SECONDS, transport_consumer._VANISHED_SECONDS = 0.2, 1.0",
)


@pytest.mark.skipif(not shutil.which("unshare") or not shutil.which("ip"), reason="needs network namespaces")
def test_a_consumer_whose_machine_vanished_gives_its_messages_back(private_folder: Path, private_redis: Redis) -> None:
    in_namespace = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if subprocess.run([*in_namespace, "true"], check=False, capture_output=True).returncode:
        pytest.skip("network namespaces are not allowed here")
    daemon = Daemon(private_folder / "one", redis=private_redis, twistd=[*in_namespace, *IMPATIENT])
    other = Daemon(private_folder / "other", redis=private_redis)
    with stopping(daemon, other), other.client() as http:
        inside = ["nsenter", "-t", str(daemon.process.pid), "-U", "-n", "--preserve-credentials"]
        http.post("/p/q", data={"policy": "roundrobin"})
        curl = subprocess.Popen([*inside, "curl", "-sN", f"{daemon.url}/c/q?lease=600"], stdout=subprocess.PIPE)
        try:
            assert curl.stdout is not None
            wait_until(lambda: listeners(private_redis, "q"))
            http.post("/q/q", data={"value": "first"})
            assert json.loads(curl.stdout.readline())["value"] == "first"
            subprocess.run([*inside, "ip", "link", "set", "lo", "down"], check=True)
            http.post("/q/q", data={"value": "second"})
            wait_until(lambda: http.get("/stats/q").json()["leased"] == 2)
            wait_until(lambda: http.get("/stats/q").json()["ready"] == 2, why="its messages come back")
        finally:
            curl.kill()
            curl.wait()


def test_a_consumer_that_lives_and_does_not_read_stays_connected(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder, redis=private_redis, twistd=IMPATIENT)
    with stopping(daemon), daemon.client() as http:
        idle = Comet(daemon, "/c/q")
        wait_until(lambda: listeners(private_redis, "q"))
        key = http.post("/q/q", data={"value": "x" * (15 * MIB)}).text.strip()
        other = Comet(daemon, "/sse/q")  # its comments come while the window of the idle consumer is closed
        other.lines(20, b":\n")
        assert json.loads(idle.lines(1)[0])["key"] == key
