"""RestMQ behind a real nginx with examples/nginx.conf: streams, failover, client addresses."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.servers import ROOT, START_SECONDS, Comet, Daemon, Redis, curl, free_port, listeners, stopping, wait_until

pytestmark = pytest.mark.needs("nginx")


class Nginx:
    """A real nginx on its own port, with examples/nginx.conf, in front of the daemons. Has a daemon's interface."""

    def __init__(self, folder: Path, *daemons: Daemon) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        example = (ROOT / "examples" / "nginx.conf").read_text()
        servers = "\n".join(f"server 127.0.0.1:{daemon.port};" for daemon in daemons)
        example, replaced = re.subn(r"server 127\.0\.0\.1:8888;", servers, example)
        example, listens = re.subn(r"listen 80;", f"listen 127.0.0.1:{self.port};", example)
        assert (replaced, listens) == (1, 1)
        (folder / "restmq.conf").write_text(example)
        places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        own = "".join(f"{place}_temp_path {folder}/{place};\n" for place in places)
        (folder / "nginx.conf").write_text(
            f"daemon off; user root; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{own}include {folder}/restmq.conf;\n}}\n"
        )
        self.process = subprocess.Popen(
            ["nginx", "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"], stderr=subprocess.PIPE
        )
        wait_until(self._answers, START_SECONDS, "nginx starts")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.process.stderr.read() if self.process.stderr else ""
        try:
            return httpx.get(self.url, trust_env=False).status_code < 500
        except httpx.TransportError:
            return False

    url = Daemon.url
    client = Daemon.client
    connect = Daemon.connect

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(START_SECONDS)


@pytest.fixture
def nginx(private_folder: Path, redis: Redis) -> Iterator[Nginx]:
    daemon = Daemon(private_folder / "daemon", redis=redis)
    server = Nginx(private_folder / "nginx", daemon)
    with stopping(daemon, server):
        yield server
        daemon.assert_no_tracebacks()


def test_a_big_message_goes_through(nginx: Nginx, queue: str) -> None:
    value = "0123456789äöü\n" * 350_000  # 6 MB, which nginx keeps in a file on the way in
    with nginx.client() as http:
        assert http.post(f"/q/{queue}", data={"value": value}).status_code == 200
        assert http.get(f"/q/{queue}").json()["value"] == value


def test_unusual_queue_names_reach_restmq_as_they_were_sent(nginx: Nginx, queue: str) -> None:
    with nginx.client() as http:
        for name in ("a%2Fb", "..%2F..", "a%20b", "%C3%A4", "a//b", "a%25b"):
            path = f"/q/{queue}{name}"
            assert http.post(path, data={"value": name}).status_code == 200
            assert http.get(path).json()["value"] == name


@pytest.mark.parametrize(
    ("path", "headers", "end"),
    [("c", "", b"\r\n"), ("sse", "", b"\n\n"), ("c", "Accept: text/event-stream\r\n", b"\n\n")],
)
def test_streams_pass_on_each_message_at_once(
    nginx: Nginx, redis: Redis, queue: str, path: str, headers: str, end: bytes
) -> None:
    stream = Comet(nginx, f"/{path}/{queue}", headers)  # type: ignore[arg-type]
    wait_until(lambda: listeners(redis, queue))
    if end == b"\n\n":
        assert stream.lines(1, end)[0].startswith(b"retry:")
    with nginx.client() as http:
        for n in range(3):  # each is read before the next is sent: nothing waits for a buffer to fill
            http.post(f"/q/{queue}", data={"value": f"message {n}"})
            assert f"message {n}".encode() in stream.lines(1, end)[0]
    stream.close()
    wait_until(lambda: not listeners(redis, queue), why="nginx tells RestMQ that the client has gone")


def test_a_websocket_gets_messages_and_runs_commands(nginx: Nginx, redis: Redis, queue: str) -> None:
    with connect(f"ws://127.0.0.1:{nginx.port}/ws/{queue}", origin=nginx.url) as socket:  # type: ignore[arg-type]
        wait_until(lambda: listeners(redis, queue))
        with nginx.client() as http:
            http.post(f"/q/{queue}", data={"value": "x" * 100_000})
        assert len(socket.recv(20)) > 100_000
        socket.send("echoed")
        assert socket.recv(20) == "echoed"
    wait_until(lambda: not listeners(redis, queue))


def test_pages_of_other_sites_are_rejected_behind_the_proxy_too(nginx: Nginx, queue: str) -> None:
    with nginx.client() as http:
        assert (
            http.post(f"/q/{queue}", data={"value": "x"}, headers={"Origin": "http://evil.example"}).status_code == 403
        )
        assert http.post(f"/q/{queue}", data={"value": "x"}, headers={"Origin": nginx.url}).status_code == 200


@pytest.mark.needs("curl")
def test_rules_apply_to_the_clients_address_and_forged_addresses_are_ignored(
    private_folder: Path, redis: Redis
) -> None:
    rules = private_folder / "acl.conf"
    rules.write_text("[rest:consumer]\nhosts_allow = 127.0.0.2\nhosts_deny = all\n[rest:producer]\n[comet:consumer]\n")
    daemon = Daemon(private_folder / "d", "--acl", str(rules), "--trusted-proxies", "127.0.0.1", redis=redis)
    nginx = Nginx(private_folder / "n", daemon)
    with stopping(daemon, nginx):

        def status(source: str, *headers: str) -> str:
            shown = ["-o", "/dev/null", "-w", "%{http_code}", "--interface", source]
            for header in headers:
                shown += ["-H", header]
            return curl(*shown, f"{nginx.url}/stats/x").decode()

        assert status("127.0.0.2") == "200"
        assert status("127.0.0.3") == "403"
        assert status("127.0.0.3", "X-Forwarded-For: 127.0.0.2") == "403"
        assert status("127.0.0.3", "X-Real-IP: 127.0.0.2") == "403"
        assert status("127.0.0.2", "X-Forwarded-For: 127.0.0.3") == "200"


def test_one_server_may_stop_without_a_client_noticing(private_folder: Path, redis: Redis, queue: str) -> None:
    one, other = (Daemon(private_folder / name, redis=redis) for name in ("one", "other"))
    nginx = Nginx(private_folder / "nginx", one, other)
    with stopping(one, other, nginx), nginx.client() as http:
        for n in range(40):
            if n == 20:
                one.stop()
            assert http.post(f"/q/{queue}", data={"value": str(n)}).status_code == 200
        taken = [http.get(f"/q/{queue}").json()["value"] for _ in range(40)]
        assert taken == [str(n) for n in range(40)]


@contextmanager
def open_streams(nginx: Nginx, queue: str, count: int) -> Iterator[list[Comet]]:
    streams = [Comet(nginx, f"/c/{queue}") for _ in range(count)]  # type: ignore[arg-type]
    try:
        yield streams
    finally:
        for stream in streams:
            stream.close()


def test_broadcast_reaches_the_listeners_of_both_servers(private_folder: Path, redis: Redis, queue: str) -> None:
    one, other = (Daemon(private_folder / name, redis=redis) for name in ("one", "other"))
    nginx = Nginx(private_folder / "nginx", one, other)
    with stopping(nginx, one, other), open_streams(nginx, queue, 4) as streams, nginx.client() as http:
        wait_until(lambda: listeners(redis, queue) == 2, why="nginx has shared the listeners out")
        assert http.post(f"/q/{queue}", data={"value": "to all"}).status_code == 200
        for stream in streams:
            assert b"to all" in stream.lines(1)[0]
