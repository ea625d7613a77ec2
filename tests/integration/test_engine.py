"""The command line tool, on a real Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from restmq.auth.passwords import matches
from tests import forked
from tests.servers import ROOT, Redis, environment, free_port, wait_until

ENGINE = str(ROOT / "restmq_engine.py")


def run(*arguments: str | bytes, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    words = [os.fsdecode(word) for word in arguments]
    return forked.program("restmq_engine", words, ROOT, environment(**env), stdin)


def engine(redis: Redis, *arguments: str | bytes, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return run("--redis-socket", redis.socket_path, *arguments, stdin=stdin)


def output(redis: Redis, *arguments: str | bytes, stdin: bytes = b"") -> bytes:
    result = engine(redis, *arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_message_is_added_peeked_at_and_taken(redis: Redis, queue: str) -> None:
    assert output(redis, "-p", "--queue", queue, "--value", " 007 ") == f"{queue}:1\n".encode()
    assert output(redis, "-p", "--queue", queue, stdin=b"raw\xff\x00") == f"{queue}:2\n".encode()
    assert output(redis, "-g", "--queue", queue) == b" 007 \n"
    assert output(redis, "-u", "--queue", queue) == b"2\n"
    assert output(redis, "-i", "--queue", queue) == f"{queue}:2\traw".encode() + b"\xff\x00\n" + (
        f"{queue}:1\t 007 \n".encode()
    )
    assert output(redis, "-s", "--queue", queue) == f"{queue}\t2\tbroadcast\tstarted\n".encode()
    assert output(redis, "-k", "--queue", queue) == b" 007 \n"
    assert output(redis, "-t", "--queue", queue) == b"raw\xff\x00\n"
    for switch in ("-k", "-g", "-t", "-i"):
        empty = engine(redis, switch, "--queue", queue)
        assert (empty.returncode, empty.stdout, empty.stderr) == (1, b"", b"empty queue\n")


def test_policy_is_shown_and_set(redis: Redis, queue: str) -> None:
    assert output(redis, "-q", "--queue", queue) == b"broadcast\n"
    output(redis, "-j", "--queue", queue)
    assert output(redis, "-q", "--queue", queue) == b"roundrobin\n"


def test_consume_prints_messages_until_interrupted(redis: Redis, queue: str) -> None:
    command = [sys.executable, ENGINE, "-c", "--queue", queue, "--redis-socket", redis.socket_path]
    consuming = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: redis.command("LLEN", f"{queue}:waiters"))
    assert consuming.stdout is not None
    for value in (b"one", b"two"):
        output(redis, "-p", "--queue", queue, stdin=value)
        assert consuming.stdout.readline() == value + b"\n"
    wait_until(lambda: redis.command("LLEN", f"{queue}:waiters"))
    consuming.send_signal(signal.SIGINT)
    _, errors = consuming.communicate(timeout=30)
    assert (consuming.returncode, errors) == (0, b"")
    assert redis.command("EXISTS", f"{queue}:waiters") == 0
    output(redis, "-p", "--queue", queue, "--value", "stays")
    assert output(redis, "-u", "--queue", queue) == b"1\n"


def test_consume_empties_a_backlog_over_a_few_connections(private_redis: Redis) -> None:
    for n in range(200):
        private_redis.command("SET", f"q:{n}", str(n))
        private_redis.command("LPUSH", "q:queue", f"q:{n}")
    before = connections_made(private_redis)
    command = [sys.executable, ENGINE, "-c", "--queue", "q", "--redis-socket", private_redis.socket_path]
    consuming = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert consuming.stdout is not None
    assert [int(consuming.stdout.readline()) for _ in range(200)] == list(range(200))
    assert connections_made(private_redis) - before < 50
    consuming.terminate()
    consuming.communicate(timeout=30)
    assert consuming.returncode == 0


def connections_made(redis: Redis) -> int:
    return int(redis.command("INFO", "stats").partition("total_connections_received:")[2].split()[0])


def test_consume_continues_after_redis_was_restarted(private_redis: Redis) -> None:
    command = [sys.executable, ENGINE, "-c", "--queue", "q", "--redis-socket", private_redis.socket_path]
    consuming = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert consuming.stdout is not None
    wait_until(lambda: private_redis.command("LLEN", "q:waiters"))
    private_redis.kill()
    private_redis.start()
    output(private_redis, "-p", "--queue", "q", "--value", "after")
    assert consuming.stdout.readline() == b"after\n"
    consuming.send_signal(signal.SIGINT)
    _, errors = consuming.communicate(timeout=30)
    assert consuming.returncode == 0
    assert b"Traceback" not in errors


def test_a_pipe_reader_that_exits_causes_no_error(redis: Redis, queue: str) -> None:
    for _ in range(3):
        output(redis, "-p", "--queue", queue, stdin=b"x" * 100_000)
    command = [sys.executable, ENGINE, "-t", "--queue", queue, "--redis-socket", redis.socket_path]
    taking = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert taking.stdout is not None
    assert taking.stdout.read(10) == b"x" * 10
    taking.stdout.close()
    assert taking.stderr is not None
    assert (taking.stderr.read(), taking.wait(30)) == (b"", 1)
    taking.stderr.close()


def test_tokens_are_made_listed_checked_and_revoked(redis: Redis, queue: str) -> None:
    token = output(redis, "-r", "--queue", f"{queue},{queue}-*", "--privs", "read").decode().strip()
    record = json.loads(redis.command("GET", f"AUTHKEY:{token}"))
    assert record.pop("created") > 0
    assert record == {"queues": [queue, f"{queue}-*"], "privs": ["read"]}
    assert token not in output(redis, "-l").decode()
    assert output(redis, "-a", "--queue", f"{queue}-7", "--value", token) == b"authorized: read\n"
    assert engine(redis, "-a", "--queue", "other", "--value", token).returncode == 1
    output(redis, "-d", "--value", token)
    assert engine(redis, "-d", "--value", token).returncode == 1
    assert engine(redis, "-a", "--queue", queue, "--value", token).returncode == 1
    redis.command("SET", f"AUTHKEY:broken-{queue}", '{"queues": "all", "privs": []}')
    assert '\t{"broken": true}' in output(redis, "-l").decode()
    assert engine(redis, "-a", "--queue", "all", "--value", f"broken-{queue}").returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-p"],
        ["-g", "-c", "--queue", "x"],
        ["--nonsense"],
        ["-a", "--queue", "x"],
        ["-g", "--redis-port", "x"],
        ["-s", "--redis-host"],
        ["-r", "--queue", "x", "--privs", "raed"],
        ["-r", "--queue", "x", "--privs", ""],
        ["-r", "--queue", "x", "--expires", "0"],
        ["-r", "--queue", "x", "--expires", "soon"],
        ["-d"],
    ],
)
def test_wrong_usage_is_status_2(redis: Redis, arguments: list[str]) -> None:
    result = engine(redis, *arguments)
    assert result.returncode == 2
    assert b"usage:" in result.stderr
    assert b"Traceback" not in result.stderr


def test_errors_are_one_line(redis: Redis, private_folder: Path) -> None:
    for arguments in (
        ("-g", "--queue", "AUTHKEY:x"),
        ("-r", "--queue", "x,,y"),
        ("-r", "--queue", "x", "--name", "a\tb"),
        ("-r", "--queue", "x", "--name", "n" * 101),
        ("-g", "--queue", b"\xff"),
        ("-a", "--queue", "x", "--value", b"\xff"),
        ("-d", "--value", b"\xff"),
    ):
        refused = engine(redis, *arguments)
        assert (refused.returncode, refused.stdout, refused.stderr.count(b"\n")) == (1, b"", 1)
        assert refused.stderr.startswith(b"restmq_engine: ")
    result = run("-s", "--redis-port", str(free_port()), "--redis-timeout", "0.2")
    assert result.returncode == 1
    assert result.stderr.count(b"\n") == 1
    assert b"does not answer" in result.stderr
    assert b"--redis-socket" in result.stderr
    assert b"--data-dir" in result.stderr


def test_the_private_store_of_a_server_on_this_machine_is_found(private_folder: Path, redis: Redis) -> None:
    (private_folder / "store.sock").symlink_to(redis.socket_path)
    assert run("-u", "--queue", "none", "--data-dir", str(private_folder)).stdout == b"0\n"


def test_a_password_for_redis_comes_from_the_environment(private_folder: Path) -> None:
    redis = Redis(private_folder / "r")
    redis.command("CONFIG", "SET", "requirepass", "s3cret")
    try:
        command = ("-s", "--redis-socket", redis.socket_path, "--redis-timeout", "1")
        assert run(*command, RESTMQ_REDIS_PASSWORD="s3cret").returncode == 0
        for wrong in ({}, {"RESTMQ_REDIS_PASSWORD": "wrong"}):
            refused = run(*command, **wrong)
            assert (refused.returncode, refused.stderr.count(b"\n")) == (1, 1)
        assert b"WRONGPASS" in refused.stderr
    finally:
        redis.kill()


def test_a_password_is_hashed_for_acl_conf() -> None:
    result = run("--hash-password", stdin=b"s\xc3\xa9cret\n")
    stored = result.stdout.decode().strip()
    assert matches(stored, "sécret".encode())
    assert not matches(stored, b"secret")


@pytest.mark.parametrize("given", [b"", b"\n", b"\xff\n"])
def test_an_empty_or_invalid_password_is_not_hashed(given: bytes) -> None:
    result = run("--hash-password", stdin=given)
    assert (result.returncode, result.stdout, result.stderr.count(b"\n")) == (1, b"", 1)


def test_help_names_every_switch(redis: Redis) -> None:
    shown = output(redis, "-h").decode()
    for switch in "pcgsqjktuiarh":
        assert f"-{switch}," in shown or f"-{switch} " in shown
    assert "--redis-socket" in shown
