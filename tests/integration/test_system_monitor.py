"""The system monitor: machines run only the commands on their list."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from examples.system_monitor import consumer
from tests.servers import ROOT, Daemon, Redis, listeners, stopping, wait_until

EXAMPLE = ROOT / "examples" / "system_monitor"


@contextmanager
def consuming(folder: Path, daemon: Daemon, redis: Redis, queue: str, machine: str) -> Iterator[Path]:
    """Runs a machine's consumer until it listens. Yields its log."""
    log = folder / f"{machine}.log"
    command = [sys.executable, EXAMPLE / "consumer.py", "--url", daemon.url, "--queue", queue, "--machine", machine]
    with log.open("wb") as written:
        process = subprocess.Popen(command, stderr=written)
    try:
        wait_until(lambda: f"{machine} listens" in log.read_text() and listeners(redis, queue))
        yield log
    finally:
        process.kill()
        process.wait()


def feed(daemon: Daemon, queue: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLE / "feeder.py", "--url", daemon.url, "--queue", queue, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def answers(fed: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert fed.returncode == 0, fed.stderr
    return [json.loads(line) for line in fed.stdout.splitlines()]


def test_every_monitored_machine_answers(daemon: Daemon, redis: Redis, queue: str, private_folder: Path) -> None:
    with (
        consuming(private_folder, daemon, redis, queue, "one"),
        consuming(private_folder, daemon, redis, queue, "other"),
    ):
        said = answers(feed(daemon, queue, "kernel", "load", "--machines", "2"))
    assert sorted((each["machine"], each["command"]) for each in said) == [
        ("one", "kernel"), ("one", "load"), ("other", "kernel"), ("other", "load")
    ]  # fmt: skip
    assert {each["status"] for each in said} == {0}
    assert all(os.uname().release in each["output"] for each in said if each["command"] == "kernel")


@pytest.mark.parametrize("command", ["rm", "load; touch /tmp/x", "cat /etc/passwd", "", "__class__"])
def test_a_command_that_is_not_on_the_list_is_not_run(
    daemon: Daemon, redis: Redis, queue: str, private_folder: Path, command: str
) -> None:
    with consuming(private_folder, daemon, redis, queue, "one"):
        (said,) = answers(feed(daemon, queue, command))
    assert said == {"machine": "one", "command": command, "error": "this command is not on the list"}


def test_an_invalid_message_does_not_stop_the_monitor(
    daemon: Daemon, redis: Redis, queue: str, private_folder: Path
) -> None:
    with consuming(private_folder, daemon, redis, queue, "one") as log, daemon.client() as http:
        for value in ("", "no JSON", "[]", "null", '{"command": "load"}', '{"id": 1}', b"\xff"):
            http.post(f"/q/{queue}", data={"value": value}).raise_for_status()
        http.post(f"/q/{queue}", data={"value": '{"id": 1, "command": ["load"]}'}).raise_for_status()
        assert [each["status"] for each in answers(feed(daemon, queue, "load"))] == [0]
        assert log.read_text().count("skipped an invalid message") == 7


def test_a_command_without_a_listener_is_not_run_later_and_the_sender_is_told(
    daemon: Daemon, redis: Redis, queue: str
) -> None:
    fed = feed(daemon, queue, "load", "--wait", "1")
    assert (fed.returncode, fed.stderr) == (1, "feeder: 1 answers are missing\n")
    (key,) = redis.command("LRANGE", f"{queue}:queue", "0", "-1")
    assert 0 < int(redis.command("TTL", key)) <= 5


def test_the_monitor_reconnects_after_the_server_was_away(redis: Redis, queue: str, private_folder: Path) -> None:
    daemon = Daemon(private_folder / "d", redis=redis)
    with stopping(daemon), consuming(private_folder, daemon, redis, queue, "one") as log:
        daemon.stop()
        wait_until(lambda: "the stream has ended; again in 1 s" in log.read_text())
        daemon.start()
        wait_until(lambda: log.read_text().count("one listens") == 2)
        assert [each["status"] for each in answers(feed(daemon, queue, "load"))] == [0]


def test_commands_that_take_too_long_or_print_too_much_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "RUN_SECONDS_MAX", 0.2)
    assert consumer.run(["sleep", "60"])["status"] < 0
    monkeypatch.setattr(consumer, "RUN_SECONDS_MAX", 20)
    endless = consumer.run(["yes"])
    assert endless["status"] < 0
    assert len(endless["output"]) == consumer.OUTPUT_BYTES_MAX
    assert consumer.run(["sh", "-c", "echo said; exit 3"]) | {"seconds": 0} == {
        "status": 3,
        "output": "said\n",
        "seconds": 0,
    }
