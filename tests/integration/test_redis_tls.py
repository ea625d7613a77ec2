"""TLS to Redis, with certificates made by openssl, and URLs as hosted services hand them out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.servers import ROOT, Comet, Daemon, Redis, environment, free_port, refusal, stopping, wait_until

WAITING = "waiting for the store"


class Secure:
    """A Redis that is reached by TLS only (and by its socket, for the test)."""

    def __init__(self, folder: Path, *options: str, names: str = "DNS:localhost,IP:127.0.0.1") -> None:
        folder.mkdir(exist_ok=True)
        self.authority = Authority(folder)
        certificate, key = self.authority.issue("redis", names)
        self.port = str(free_port())
        files = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", str(self.authority.path))
        bound = ("--tls-port", self.port, "--bind", "127.0.0.1")
        self.redis = Redis(folder / "redis", *bound, *files, *(options or ("--tls-auth-clients", "no")))

    @property
    def ca(self) -> tuple[str, str]:
        return ("--redis-tls-ca", str(self.authority.path))


@pytest.fixture(scope="module")
def secure(module_folder: Path) -> Iterator[Secure]:
    server = Secure(module_folder / "secure")
    yield server
    server.redis.stop()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_messages_and_streams_go_over_tls(private_folder: Path, secure: Secure, host: str, queue: str) -> None:
    where = ("--redis-tls", "--redis-host", host, "--redis-port", secure.port, *secure.ca)
    daemon = Daemon(private_folder, *where)
    with stopping(daemon), daemon.client() as http:
        stream = Comet(daemon, f"/c/{queue}-live")
        http.post(f"/q/{queue}-live", data={"value": "heard"})
        assert b"heard" in stream.lines(1)[0]
        large = b"\x00\xff" * 200_000
        http.post(f"/q/{queue}", content=large, headers={"Content-Type": "application/octet-stream"})
        assert http.get(f"/q/{queue}", headers={"Accept": "application/octet-stream"}).content == large
        assert http.get("/readyz").status_code == 200
    assert daemon.stop() is not None


def test_mutual_tls_presents_the_daemons_certificate(private_folder: Path) -> None:
    secure = Secure(private_folder, "--tls-auth-clients", "yes")
    certificate, key = secure.authority.issue("client")
    where = ("--redis-tls", "--redis-host", "localhost", "--redis-port", secure.port, *secure.ca)
    refused = Daemon(private_folder / "a", *where, starts=WAITING)
    daemon = Daemon(private_folder / "b", *where, "--redis-tls-cert", certificate, "--redis-tls-key", key)
    with stopping(refused, daemon, secure.redis), daemon.client() as http:
        assert http.post("/q/x", data={"value": "y"}).status_code == 200
        wait_until(lambda: "cannot be used: TLS failed" in refused.log)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("system's authorities", "certificate verify failed"),
        ("other name", "the certificate is for another name"),
        ("no TLS", "if it requires TLS, pass --redis-tls"),
    ],
)
def test_a_server_that_cannot_be_verified_is_not_used_and_the_log_says_why(
    private_folder: Path, secure: Secure, wrong: str, reason: str
) -> None:
    where: tuple[str, ...] = ("--redis-host", "127.0.0.1", "--redis-port", secure.port)
    if wrong == "system's authorities":
        where += ("--redis-tls",)
    elif wrong == "other name":
        where += ("--redis-tls", *secure.ca, "--redis-tls-name", "elsewhere.example")
    daemon = Daemon(private_folder, *where, starts=WAITING)
    with stopping(daemon), daemon.client() as http:
        wait_until(lambda: reason in daemon.log)
        wait_until(lambda: http.get("/readyz").status_code == 503)
        assert daemon.log.count(reason) == 1


def test_tls_to_a_redis_without_tls_fails_with_a_reason(private_folder: Path) -> None:
    port = str(free_port())
    redis = Redis(private_folder / "redis", "--port", port, "--bind", "127.0.0.1")
    daemon = Daemon(private_folder, "--redis-tls", "--redis-port", port, "--redis-timeout", "0.5", starts=WAITING)
    with stopping(daemon, redis):
        wait_until(lambda: "check that it uses TLS (--redis-tls)" in daemon.log)


def test_the_name_in_the_certificate_may_differ_from_the_host(private_folder: Path) -> None:
    secure = Secure(private_folder, names="DNS:redis.example")
    where = ("--redis-tls", "--redis-port", secure.port, *secure.ca)
    daemon = Daemon(private_folder, *where, "--redis-tls-name", "redis.example")
    with stopping(daemon, secure.redis), daemon.client() as http:
        assert http.get("/readyz").status_code == 200


def test_a_hosted_redis_is_found_by_its_url(private_folder: Path) -> None:
    secure = Secure(private_folder)
    secure.redis.command("CONFIG", "SET", "requirepass", "s/e:c@r t")
    url = f"rediss://default:s%2Fe%3Ac%40r%20t@localhost:{secure.port}/2"
    by_flag = Daemon(private_folder / "a", "--redis-url", url, *secure.ca)
    by_environment = Daemon(
        private_folder / "b", *secure.ca, "--workers", "2", env={"REDIS_URL": url}, starts="workers"
    )
    with stopping(by_flag, by_environment), by_flag.client() as one, by_environment.client() as two:
        one.post("/q/x", data={"value": "y"})
        assert two.get("/q/x").json()["value"] == "y"
        one.post("/q/x", data={"value": "z"})
        command = [sys.executable, str(ROOT / "restmq_engine.py"), "-k", "--queue", "x", *secure.ca]
        taken = subprocess.run(command, env=environment(REDIS_URL=url), capture_output=True, text=True, check=True)
        assert taken.stdout == "z\n"
        for daemon in (by_flag, by_environment):
            assert "s/e:c@r" not in daemon.log
            assert "s%2Fe" not in daemon.log
    secure.redis.kill()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--redis-url", "redis://u:hunter2@one", "--redis-host", "two"), "--redis-url and --redis-host contradict"),
        (
            ("--redis-url", "http://u:hunter2@one"),
            "--redis-url: it must begin with redis://, rediss://, redis+cluster://",
        ),
        (("--redis-url", "redis://u:hunter2@one:99999"), "its port is not a number"),
        (("--redis-url", "redis://one", "--redis-socket", "/x"), "contradict"),
        (("--redis-tls-ca", "/nowhere"), "--redis-tls-ca needs --redis-tls"),
        (("--redis-tls", "--redis-tls-ca", "/nowhere"), "/nowhere: No such file"),
        (("--redis-tls", "--redis-tls-ca", "/etc/passwd"), "/etc/passwd: it has no certificate"),
        (("--redis-tls", "--redis-tls-cert", "/etc/passwd"), "give both"),
    ],
)
def test_a_daemon_does_not_start_with_contradictory_options(
    private_folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    told = refusal(private_folder, "restmq", *arguments)
    assert says in told
    assert "hunter2" not in told
