"""RestMQ behind a real nginx, Caddy, HAProxy, Apache and Traefik, with the configurations in examples/."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.servers import ROOT, START_SECONDS, Comet, Daemon, Redis, curl, free_port, listeners, stopping, wait_until


class Proxy:
    """A proxy on its own port, in front of the daemons. Has a daemon's interface."""

    def __init__(self, folder: Path, *daemons: Daemon) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.folder = folder
        self.log_path = folder / "proxy.log"
        command = self.configure([f"127.0.0.1:{daemon.port}" for daemon in daemons])
        homes = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **homes}, stderr=log)
        wait_until(self._answers, START_SECONDS, "the proxy starts")

    def configure(self, servers: list[str]) -> list[str | Path]:
        """Writes the configuration. Returns the command that starts the proxy."""
        raise NotImplementedError

    def adapted(self, name: str, *replacements: tuple[str, str]) -> str:
        """The configuration in examples/, after replacements that must fit once each."""
        text = (ROOT / "examples" / name).read_text()
        for old, new in replacements:
            text, count = re.subn(old, new, text, flags=re.MULTILINE)
            assert count == 1, old
        return text

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


class Nginx(Proxy):
    """nginx with examples/nginx.conf."""

    def configure(self, servers: list[str]) -> list[str | Path]:
        upstream = "\n".join(f"server {server};" for server in servers)
        listen = f"listen 127.0.0.1:{self.port};"
        example = self.adapted("nginx.conf", (r"server 127\.0\.0\.1:8888;", upstream), ("listen 80;", listen))
        (self.folder / "restmq.conf").write_text(example)
        places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        own = "".join(f"{place}_temp_path {self.folder}/{place};\n" for place in places)
        configuration = self.folder / "nginx.conf"
        configuration.write_text(
            f"daemon off; user root; worker_processes 2; pid {self.folder}/nginx.pid; error_log stderr;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{own}include {self.folder}/restmq.conf;\n}}\n"
        )
        return ["nginx", "-p", self.folder, "-c", configuration, "-e", "stderr"]


class Caddy(Proxy):
    """Caddy with examples/Caddyfile."""

    def configure(self, servers: list[str]) -> list[str | Path]:
        upstream = f"reverse_proxy {' '.join(servers)}"
        listen = f":{self.port} {{\n\tbind 127.0.0.1"
        example = self.adapted("Caddyfile", (r"reverse_proxy 127\.0\.0\.1:8888", upstream), (r"^:80 \{", listen))
        configuration = self.folder / "Caddyfile"
        # It opens no other port and fetches nothing.
        configuration.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + example)
        return ["caddy", "run", "--adapter", "caddyfile", "--config", configuration]


class HAProxy(Proxy):
    """HAProxy with examples/haproxy.cfg."""

    def configure(self, servers: list[str]) -> list[str | Path]:
        def listed(options: str) -> str:
            names = enumerate(servers)
            return "".join(f"    server s{n} {server} {options.replace('one', f's{n}')}\n" for n, server in names)

        example = self.adapted(
            "haproxy.cfg",
            (r"^    bind :80 ", f"    bind 127.0.0.1:{self.port} "),
            (r"^    server one \S+ check inter 2s\n", listed("check inter 2s")),
            (r"^    server one \S+ track restmq/one\n", listed("track restmq/one")),
        )
        configuration = self.folder / "haproxy.cfg"
        configuration.write_text(example)
        return ["haproxy", "-db", "-f", configuration]


class Apache(Proxy):
    """Apache with examples/apache.conf. It learns of a disconnect only when it sends something."""

    def configure(self, servers: list[str]) -> list[str | Path]:
        host = self.adapted("apache.conf", (r"\*:80", f"*:{self.port}")).replace("127.0.0.1:8888", servers[0])
        modules = ("mpm_event", "authz_core", "proxy", "proxy_http", "proxy_wstunnel")
        own = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in modules)
        own += f"ServerName localhost\nListen 127.0.0.1:{self.port}\nPidFile {self.folder}/pid\n"
        own += f"DefaultRuntimeDir {self.folder}\nErrorLog /dev/stderr\n"
        configuration = self.folder / "apache.conf"
        configuration.write_text(own + host)
        return ["apache2", "-D", "FOREGROUND", "-f", configuration]


class Traefik(Proxy):
    """Traefik with the files in examples/traefik."""

    def configure(self, servers: list[str]) -> list[str | Path]:
        dynamic = self.folder / "restmq.yml"
        listed = "".join(f"          - url: http://{server}\n" for server in servers)
        dynamic.write_text(self.adapted("traefik/restmq.yml", (r"^          - url: .*\n", listed)))
        static = self.folder / "traefik.yml"
        listen = f'"127.0.0.1:{self.port}"'
        static.write_text(
            self.adapted("traefik/traefik.yml", ('":80"', listen), ("/etc/traefik/restmq.yml$", str(dynamic)))
        )
        return ["traefik", f"--configFile={static}"]


#: requirements-dev.txt brings Traefik, but for x86_64 alone.
TRAEFIK_NEEDS = pytest.mark.skipif(shutil.which("traefik") is None, reason="traefik is not installed")
KINDS = [
    pytest.param(Nginx, id="nginx", marks=pytest.mark.needs("nginx")),
    pytest.param(Caddy, id="caddy", marks=pytest.mark.needs("caddy")),
    pytest.param(HAProxy, id="haproxy", marks=pytest.mark.needs("haproxy")),
    pytest.param(Traefik, id="traefik", marks=TRAEFIK_NEEDS),
]
APACHE = pytest.param(Apache, id="apache", marks=pytest.mark.needs("apache2"))


@pytest.fixture(params=[*KINDS, APACHE])
def kind(request: pytest.FixtureRequest) -> type[Proxy]:
    found: type[Proxy] = request.param
    return found


@pytest.fixture
def proxy(private_folder: Path, redis: Redis, kind: type[Proxy]) -> Iterator[Proxy]:
    daemon = Daemon(private_folder / "daemon", redis=redis)
    server = kind(private_folder / "proxy", daemon)
    with stopping(daemon, server):
        yield server


def test_messages_and_unusual_names_go_through_unchanged(proxy: Proxy, queue: str) -> None:
    value = os.urandom(6_000_000)  # nginx keeps it in a file on the way in
    with proxy.client() as http:
        for name in ("a%2Fb", "..%2F..", "a%20b", "%C3%A4", "a//b", "a%25b"):
            path = f"/q/{queue}{name}"
            assert http.post(path, data={"value": name}).status_code == 200
            assert http.get(path).json()["value"] == name
        http.post(f"/q/{queue}", content=value, headers={"Content-Type": "image/png"})
        assert http.get(f"/q/{queue}", headers={"Accept": "application/octet-stream"}).content == value


@pytest.mark.parametrize(
    ("path", "headers", "end"),
    [("c", "", b"\r\n"), ("sse", "", b"\n\n"), ("c", "Accept: text/event-stream\r\n", b"\n\n")],
)
def test_streams_pass_on_each_message_at_once(
    proxy: Proxy, redis: Redis, queue: str, path: str, headers: str, end: bytes
) -> None:
    stream = Comet(proxy, f"/{path}/{queue}", headers)  # type: ignore[arg-type]
    wait_until(lambda: listeners(redis, queue))
    if end == b"\n\n":
        assert stream.lines(1, b"\n")[0].startswith(b"retry:")
    with proxy.client() as http:
        for n in range(3):  # each is read before the next is sent: nothing waits for a buffer to fill
            http.post(f"/q/{queue}", data={"value": f"message {n}"})
            assert f"message {n}".encode() in stream.lines(1, end)[0]
    stream.close()
    if not isinstance(proxy, Apache):
        wait_until(lambda: not listeners(redis, queue), why="the proxy tells RestMQ that the client has disconnected")


def test_a_websocket_gets_messages_and_runs_commands(proxy: Proxy, redis: Redis, queue: str) -> None:
    with connect(f"ws://127.0.0.1:{proxy.port}/ws/{queue}", origin=proxy.url) as socket:  # type: ignore[arg-type]
        wait_until(lambda: listeners(redis, queue))
        with proxy.client() as http:
            http.post(f"/q/{queue}", data={"value": "x" * 100_000})
        assert len(socket.recv(20)) > 100_000
        socket.send(f'{{"cmd": "stats", "queue": "{queue}", "id": 7}}')
        assert '"id":7' in str(socket.recv(20))
    wait_until(lambda: not listeners(redis, queue))


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_a_long_poll_is_answered_at_once_and_takes_nothing_for_a_disconnected_client(proxy: Proxy, queue: str) -> None:
    def waiters() -> int:
        return int(http.get(f"/stats/{queue}").json()["waiters"])

    with proxy.client() as http:
        waiting = proxy.connect()
        waiting.sendall(f"GET /q/{queue}?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        wait_until(waiters)
        http.post(f"/q/{queue}", data={"value": "come"})
        assert b"200 OK" in waiting.recv(65536)
        waiting.sendall(f"GET /q/{queue}?wait=60 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        wait_until(waiters)
        waiting.close()
        wait_until(lambda: not waiters(), why="the proxy tells RestMQ that the client has disconnected")
        http.post(f"/q/{queue}", data={"value": "stays"})
        assert http.get(f"/q/{queue}").json()["value"] == "stays"


@pytest.mark.parametrize("kind", [APACHE], indirect=True)
def test_a_message_leased_for_a_disconnected_client_returns(proxy: Proxy, queue: str) -> None:
    with proxy.client() as http:
        waiting = proxy.connect()
        waiting.sendall(f"GET /q/{queue}?wait=60&lease=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        wait_until(lambda: http.get(f"/stats/{queue}").json()["waiters"])
        waiting.close()
        http.post(f"/q/{queue}", data={"value": "returns"})
        assert http.get(f"/q/{queue}").status_code == 204
        assert http.get(f"/q/{queue}?wait=20").json()["value"] == "returns"


def test_pages_of_other_sites_are_rejected_behind_the_proxy_too(proxy: Proxy, queue: str) -> None:
    with proxy.client() as http:
        for origin, status in (("http://evil.example", 403), (proxy.url, 200)):
            answer = http.post(f"/q/{queue}", data={"value": "x"}, headers={"Origin": origin})
            assert answer.status_code == status


@pytest.mark.needs("curl")
def test_rules_apply_to_the_clients_address_and_forged_addresses_are_ignored(
    private_folder: Path, redis: Redis, kind: type[Proxy]
) -> None:
    rules = private_folder / "acl.conf"
    rules.write_text("[rest:consumer]\nhosts_allow = 127.0.0.2\nhosts_deny = all\n")
    daemon = Daemon(private_folder / "d", "--acl", str(rules), "--trusted-proxies", "127.0.0.1", redis=redis)
    proxy = kind(private_folder / "p", daemon)
    with stopping(daemon, proxy):

        def status(source: str, *headers: str) -> str:
            shown = ["-o", "/dev/null", "-w", "%{http_code}", "--interface", source]
            for header in headers:
                shown += ["-H", header]
            return curl(*shown, f"{proxy.url}/stats/x").decode()

        assert status("127.0.0.2") == "200"
        assert status("127.0.0.3") == "403"
        assert status("127.0.0.3", "X-Forwarded-For: 127.0.0.2") == "403"
        assert status("127.0.0.3", "X-Real-IP: 127.0.0.2") == "403"
        assert status("127.0.0.2", "X-Forwarded-For: 127.0.0.3") == "200"


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_if_one_server_stops_nothing_is_lost_or_queued_twice(
    private_folder: Path, redis: Redis, queue: str, kind: type[Proxy]
) -> None:
    one, other = (Daemon(private_folder / name, redis=redis) for name in ("one", "other"))
    proxy = kind(private_folder / "proxy", one, other)
    # nginx and HAProxy retry at the other server. Caddy answers 502 until it has noticed.
    statuses = {200, 502} if kind is Caddy else {200}
    with stopping(one, other, proxy), proxy.client() as http:

        def post(n: int) -> bool:
            status = http.post(f"/q/{queue}", data={"value": str(n)}).status_code
            assert status in statuses
            return status == 200

        for n in range(40):
            if n == 20:
                one.stop()
            wait_until(lambda n=n: post(n))
        taken = [http.get(f"/q/{queue}").json()["value"] for _ in range(40)]
        assert taken == [str(n) for n in range(40)]
        assert http.get(f"/q/{queue}").status_code == 204


@pytest.mark.needs("nginx")
def test_broadcast_reaches_the_consumers_of_both_servers(private_folder: Path, redis: Redis, queue: str) -> None:
    one, other = (Daemon(private_folder / name, redis=redis) for name in ("one", "other"))
    nginx = Nginx(private_folder / "nginx", one, other)
    with stopping(nginx, one, other), nginx.client() as http:
        streams = [Comet(nginx, f"/c/{queue}") for _ in range(4)]  # type: ignore[arg-type]
        wait_until(lambda: listeners(redis, queue) == 2, why="nginx has distributed the consumers")
        assert http.post(f"/q/{queue}", data={"value": "to all"}).status_code == 200
        for stream in streams:
            assert b"to all" in stream.lines(1)[0]
            stream.close()
