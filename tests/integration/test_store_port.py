"""--store-port opens the private store over TCP: not by default, and with a password if one is set."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.servers import START_SECONDS, Daemon, Redis, command_lines, free_port, refusal, stopping, wait_until

WARNING = "without a password: anyone who reaches it can read, change and delete everything"
PASSWORD = "pä\"ss' \\x41#\n\tword"


def opened(folder: Path, port: int, *options: str, password: str = "") -> Daemon:
    """A daemon with a private store that other clients can reach on the port."""
    store = ["--embedded", "always", "--data-dir", str(folder / "data"), "--store-port", str(port)]
    return Daemon(folder, *store, *options, env={"RESTMQ_STORE_PASSWORD": password})


def ask(port: int, *commands: tuple[str, ...], address: str = "127.0.0.1") -> list[str]:
    """Sends commands to the store, as a client other than RestMQ; returns the first line of each reply."""
    import hiredis

    replies = []
    with socket.create_connection((address, port), START_SECONDS) as connection, connection.makefile("rb") as replied:
        for command in commands:
            connection.sendall(hiredis.pack_command(command))
            replies.append(replied.readline().decode().strip())
    return replies


def refused(folder: Path, *options: str) -> str:
    return refusal(folder, "restmq", "--port", str(free_port()), *options)


def test_other_clients_can_reach_the_private_store_and_see_its_queues(private_folder: Path) -> None:
    port = free_port()
    daemon = opened(private_folder, port)
    with stopping(daemon), daemon.client() as http:
        http.post("/q/shared", data={"value": "x"})
        assert ask(port, ("LLEN", "shared:queue")) == [":1"]
        assert f"other clients can reach it on 127.0.0.1:{port}" in daemon.log
        assert WARNING not in daemon.log  # loopback is no invitation


def test_without_the_flag_only_the_unix_socket_is_there(private_folder: Path) -> None:
    with stopping(Daemon(private_folder, "--embedded", "always", "--data-dir", str(private_folder / "data"))) as daemon:
        pids = command_lines(daemon.process.pid)
        inodes = {
            link.readlink().name.removeprefix("socket:[").rstrip("]")
            for pid in pids
            for link in Path(f"/proc/{pid}/fd").iterdir()
            if link.is_symlink() and str(link.readlink()).startswith("socket:")
        }
        tcp = [line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()]
        assert inodes  # it has sockets, but none of them is TCP's
        assert not {fields[9] for fields in tcp} & inodes


def test_with_a_password_only_restmq_and_clients_that_know_it_have_access(private_folder: Path) -> None:
    port = free_port()
    daemon = opened(private_folder, port, "--store-listen", "0.0.0.0", password=PASSWORD)
    with stopping(daemon), daemon.client() as http:
        assert http.post("/q/locked", data={"value": "x"}).status_code == 200
        unknown, wrong, right, length = ask(
            port, ("LLEN", "locked:queue"), ("AUTH", "guess"), ("AUTH", PASSWORD), ("LLEN", "locked:queue")
        )
        assert unknown.startswith("-NOAUTH")
        assert wrong.startswith("-WRONGPASS")
        assert (right, length) == ("+OK", ":1")
        assert WARNING not in daemon.log
        assert "pä" not in daemon.log
        (child,) = command_lines(daemon.process.pid)
        assert b"p\xc3\xa4" not in Path(f"/proc/{child}/cmdline").read_bytes()
        assert b"p\xc3\xa4" not in Path(f"/proc/{child}/environ").read_bytes()
        for file in (private_folder / "data").rglob("*"):
            assert not file.is_file() or b"p\xc3\xa4" not in file.read_bytes()


def test_beyond_loopback_without_a_password_the_log_warns(private_folder: Path) -> None:
    port = free_port()
    with stopping(opened(private_folder, port, "--store-listen", "0.0.0.0")) as daemon:
        assert f"the private store is open on 0.0.0.0:{port} {WARNING}" in daemon.log
        assert ask(port, ("PING",), address="127.0.0.9") == ["+PONG"]  # its protected mode does not stand in the way


def test_the_private_store_requires_its_password_again_after_it_was_killed(private_folder: Path) -> None:
    port = free_port()
    daemon = opened(private_folder, port, "--durable", password=PASSWORD)
    with stopping(daemon), daemon.client() as http:
        http.post("/q/kept", data={"value": "x"})
        (child,) = command_lines(daemon.process.pid)
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: "is started again" in daemon.log)
        wait_until(lambda: http.get("/stats/kept").status_code == 200)
        assert ask(port, ("AUTH", PASSWORD), ("LLEN", "kept:queue")) == ["+OK", ":1"]


@pytest.mark.parametrize("options", [[], ["--embedded", "never"], ["--redis-port", "7000"]])
def test_store_port_without_a_private_store_is_rejected(private_folder: Path, options: list[str]) -> None:
    assert "add --embedded=always" in refused(private_folder, *options, "--store-port", "7001")


@pytest.mark.parametrize("bad", [["--store-port", "0"], ["--store-listen", "everywhere"], ["--store-listen", "*"]])
def test_an_invalid_store_port_or_address_is_rejected(private_folder: Path, bad: list[str]) -> None:
    assert bad[0].strip("-") in refused(private_folder, "--embedded", "always", *bad)


def test_a_store_port_in_use_is_reported_in_one_line(private_folder: Path, private_redis: Redis) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        data = str(private_folder / "data")
        said = refused(private_folder, "--embedded", "always", "--data-dir", data, "--store-port", str(port))
        assert f"restmq: --store-port: can't listen on 127.0.0.1:{port}: Address already in use." in said
