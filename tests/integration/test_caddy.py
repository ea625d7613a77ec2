"""RestMQ behind a real Caddy with examples/Caddyfile: streams, disconnected clients, client addresses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.servers import ROOT, START_SECONDS, Comet, Daemon, Redis, curl, free_port, listeners, stopping, wait_until

pytestmark = pytest.mark.needs("caddy")


class Caddy:
    """A real Caddy on a port of its own, with examples/Caddyfile, in front of the daemons. Has a daemon's interface."""

    def __init__(self, folder: Path, *daemons: Daemon) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        example = (ROOT / "examples" / "Caddyfile").read_text()
        servers = " ".join(f"127.0.0.1:{daemon.port}" for daemon in daemons)
        example, replaced = re.subn(r"reverse_proxy 127\.0\.0\.1:8888", f"reverse_proxy {servers}", example)
        example, listens = re.subn(r"^:80 \{", f":{self.port} {{\n\tbind 127.0.0.1", example, flags=re.MULTILINE)
        assert (replaced, listens) == (1, 1)
        # Nothing is kept, fetched, or listened for beside.
        (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + example)
        self.log_path = folder / "caddy.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                ["caddy", "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"],
                env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
                stderr=log,
            )
        wait_until(self._answers, START_SECONDS, "Caddy starts")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log_path.read_text()
        try:
            return httpx.get(f"{self.url}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    url = Daemon.url
    client = Daemon.client
    connect = Daemon.connect

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(START_SECONDS)


@pytest.fixture
def caddy(private_folder: Path, redis: Redis) -> Iterator[Caddy]:
    daemon = Daemon(private_folder / "daemon", redis=redis)
    server = Caddy(private_folder / "caddy", daemon)
    with stopping(daemon, server):
        yield server
        daemon.assert_no_tracebacks()


def test_messages_and_unusual_names_go_through_unchanged(caddy: Caddy, queue: str) -> None:
    value = os.urandom(6_000_000)
    with caddy.client() as http:
        for name in ("a%2Fb", "..%2F..", "a%20b", "%C3%A4", "a//b", "a%25b"):
            path = f"/q/{queue}{name}"
            assert http.post(path, data={"value": name}).status_code == 200
            assert http.get(path).json()["value"] == name
        http.post(f"/q/{queue}", content=value, headers={"Content-Type": "image/png"})
        assert http.get(f"/q/{queue}", headers={"Accept": "application/octet-stream"}).content == value


@pytest.mark.parametrize(("path", "end"), [("c", b"\r\n"), ("sse", b"\n\n")])
def test_streams_pass_on_each_message_at_once(caddy: Caddy, redis: Redis, queue: str, path: str, end: bytes) -> None:
    stream = Comet(caddy, f"/{path}/{queue}")  # type: ignore[arg-type]
    wait_until(lambda: listeners(redis, queue))
    if path == "sse":
        assert stream.lines(1, end)[0].startswith(b"retry:")
    with caddy.client() as http:
        for n in range(3):  # each is read before the next is sent: nothing waits for a buffer to fill
            http.post(f"/q/{queue}", data={"value": f"message {n}"})
            assert f"message {n}".encode() in stream.lines(1, end)[0]
    stream.close()
    wait_until(lambda: not listeners(redis, queue), why="Caddy tells RestMQ that the client has gone")


def test_a_websocket_gets_messages_and_runs_commands(caddy: Caddy, redis: Redis, queue: str) -> None:
    with connect(f"ws://127.0.0.1:{caddy.port}/ws/{queue}", origin=caddy.url) as socket:  # type: ignore[arg-type]
        wait_until(lambda: listeners(redis, queue))
        with caddy.client() as http:
            http.post(f"/q/{queue}", data={"value": "x" * 100_000})
        assert len(socket.recv(20)) > 100_000
        socket.send(f'{{"cmd": "stats", "queue": "{queue}", "id": 7}}')
        assert '"id":7' in str(socket.recv(20))
    wait_until(lambda: not listeners(redis, queue))


def test_a_long_poll_is_answered_at_once_and_takes_nothing_for_a_disconnected_client(caddy: Caddy, queue: str) -> None:
    def waiters() -> int:
        return int(http.get(f"/stats/{queue}").json()["waiters"])

    with caddy.client() as http:
        waiting = caddy.connect()
        waiting.sendall(f"GET /q/{queue}?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        wait_until(waiters)
        http.post(f"/q/{queue}", data={"value": "come"})
        assert b"200 OK" in waiting.recv(65536)
        waiting.sendall(f"GET /q/{queue}?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        wait_until(waiters)
        waiting.close()
        wait_until(lambda: not waiters(), why="Caddy tells RestMQ that the client has gone")
        http.post(f"/q/{queue}", data={"value": "stays"})
        assert http.get(f"/q/{queue}").json()["value"] == "stays"


def test_pages_of_other_sites_are_rejected_behind_the_proxy_too(caddy: Caddy, queue: str) -> None:
    with caddy.client() as http:
        for origin, status in (("http://evil.example", 403), (caddy.url, 200)):
            answer = http.post(f"/q/{queue}", data={"value": "x"}, headers={"Origin": origin})
            assert answer.status_code == status


@pytest.mark.needs("curl")
def test_rules_apply_to_the_clients_address_and_forged_addresses_are_ignored(
    private_folder: Path, redis: Redis
) -> None:
    rules = private_folder / "acl.conf"
    rules.write_text("[rest:consumer]\nhosts_allow = 127.0.0.2\nhosts_deny = all\n[rest:producer]\n[comet:consumer]\n")
    daemon = Daemon(private_folder / "d", "--acl", str(rules), "--trusted-proxies", "127.0.0.1", redis=redis)
    caddy = Caddy(private_folder / "n", daemon)
    with stopping(daemon, caddy):

        def status(source: str, *headers: str) -> str:
            shown = ["-o", "/dev/null", "-w", "%{http_code}", "--interface", source]
            for header in headers:
                shown += ["-H", header]
            return curl(*shown, f"{caddy.url}/stats/x").decode()

        assert status("127.0.0.2") == "200"
        assert status("127.0.0.3") == "403"
        assert status("127.0.0.3", "X-Forwarded-For: 127.0.0.2") == "403"
        assert status("127.0.0.3", "X-Real-IP: 127.0.0.2") == "403"
        assert status("127.0.0.2", "X-Forwarded-For: 127.0.0.3") == "200"


def test_if_one_server_stops_nothing_is_lost_or_queued_twice(private_folder: Path, redis: Redis, queue: str) -> None:
    one, other = (Daemon(private_folder / name, redis=redis) for name in ("one", "other"))
    caddy = Caddy(private_folder / "caddy", one, other)
    with stopping(one, other, caddy), caddy.client() as http:

        def post(n: int) -> bool:
            status = http.post(f"/q/{queue}", data={"value": str(n)}).status_code
            assert status in (200, 502)
            return status == 200

        for n in range(40):
            if n == 20:
                one.stop()
            wait_until(lambda n=n: post(n))
        taken = [http.get(f"/q/{queue}").json()["value"] for _ in range(40)]
        assert taken == [str(n) for n in range(40)]
        assert http.get(f"/q/{queue}").status_code == 204
