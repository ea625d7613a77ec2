"""Socket activation: the client whose connection starts the server gets an answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.servers import ROOT, START_SECONDS, Redis, free_port, refusal, wait_until

TWISTD = str(Path(sys.executable).with_name("twistd"))


@contextmanager
def waiting(folder: Path, port: int, *options: str, address: str = "", domain: str = "INET") -> Iterator[Path]:
    """Runs systemd's own tool, which listens and starts RestMQ at the first connection. Yields the log."""
    address = address or f"127.0.0.1:{port}"
    log = folder / "activated.log"
    environment = [
        f"--setenv={name}={value}" for name, value in {"PYTHONPATH": ROOT, "PATH": os.environ["PATH"]}.items()
    ]
    command = [
        "systemd-socket-activate",
        f"--listen={address}",
        "--fdname=restmq.socket",
        *environment,
        TWISTD,
        "-n",
        "--pidfile=",
    ]
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*command, "restmq", "--endpoint", f"systemd:domain={domain}:index=0", *options],
            cwd=folder,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "Listening on" in log.read_text(), START_SECONDS, "systemd-socket-activate listens")
        yield log
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


@pytest.mark.needs("systemd-socket-activate")
def test_the_first_client_is_answered_even_if_the_store_starts_with_the_server(private_folder: Path) -> None:
    port = free_port()
    with waiting(private_folder, port, "--embedded", "always", "--data-dir", str(private_folder / "data")) as log:
        assert "restmq" not in log.read_text().partition("Listening on")[2]  # nothing runs before somebody comes
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
            assert http.post("/q/woken", data={"value": "x"}).text == "woken:1\r\n"
            assert http.get("/q/woken").json()["value"] == "x"
        assert f"listens on http://127.0.0.1:{port}/" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.needs("systemd-socket-activate")
def test_the_first_client_waits_at_most_the_redis_timeout(private_folder: Path) -> None:
    port = free_port()
    with waiting(private_folder, port, "--redis-port", str(free_port()), "--redis-timeout", "0.5"):
        answer = httpx.get(f"http://127.0.0.1:{port}/q/x", timeout=60, trust_env=False)
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers


@pytest.mark.needs("systemd-socket-activate")
def test_the_first_client_is_answered_if_redis_runs_already(private_folder: Path, redis: Redis, queue: str) -> None:
    port = free_port()
    with waiting(private_folder, port, "--redis-socket", redis.socket_path):
        answer = httpx.post(f"http://127.0.0.1:{port}/q/{queue}", data={"value": "x"}, timeout=60, trust_env=False)
        assert answer.text == f"{queue}:1\r\n"


@pytest.mark.needs("systemd-socket-activate")
def test_the_socket_may_be_ipv6(private_folder: Path, redis: Redis, queue: str) -> None:
    port = free_port()
    store = ["--redis-socket", redis.socket_path]
    with waiting(private_folder, port, *store, address=f"[::1]:{port}", domain="INET6"):
        answer = httpx.post(f"http://[::1]:{port}/q/{queue}", data={"value": "x"}, timeout=60, trust_env=False)
        assert answer.text == f"{queue}:1\r\n"


@pytest.mark.needs("systemd-socket-activate")
def test_the_socket_may_be_a_unix_socket(private_folder: Path, redis: Redis, queue: str) -> None:
    path = str(private_folder / "http.sock")
    store = ["--redis-socket", redis.socket_path]
    with (
        waiting(private_folder, 0, *store, address=path, domain="UNIX"),
        httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=60) as http,
    ):
        assert http.post(f"http://localhost/q/{queue}", data={"value": "x"}).text == f"{queue}:1\r\n"


def test_a_systemd_endpoint_without_systemd_is_rejected_in_one_line(private_folder: Path) -> None:
    said = refusal(private_folder, "restmq", "--endpoint", "systemd:domain=INET:index=0").splitlines()[-1]
    assert said.endswith("--endpoint systemd:domain=INET:index=0: systemd did not hand over such a socket.")
