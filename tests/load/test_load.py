"""Runs the load scripts for a moment: nothing fails, and the counts in Redis agree with theirs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import ROOT, Daemon, Redis, stopping

LOAD = ROOT / "tests" / "load"


def totals(http: httpx.Client, queue: str) -> dict[str, Any]:
    stats = http.get(f"/stats/{queue}").json()
    return {**stats["totals"], "ready": stats["ready"], "held": stats["leased"]}


def test_locust(private_redis: Redis, private_folder: Path) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    command = [sys.executable, "-m", "locust", "-f", LOAD / "locustfile.py", "--host", daemon.url]
    command += [
        "--headless",
        "--users",
        "12",
        "--spawn-rate",
        "12",
        "--run-time",
        "4s",
        "--stop-timeout",
        "10",
        "--json",
    ]
    with stopping(daemon), daemon.client() as http:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=private_folder)
        assert done.returncode == 0, done.stdout + done.stderr
        figures = {line["name"]: line for line in json.loads(done.stdout)}
        assert set(figures) == {"put", "take", "lease", "ack"}
        assert all(line["num_requests"] and not line["num_failures"] for line in figures.values()), figures
        found = [totals(http, f"load-{number}") for number in range(4)]
        assert sum(each["in"] for each in found) == figures["put"]["num_requests"]
        assert sum(each["acked"] for each in found) == figures["ack"]["num_requests"]
        assert sum(each["in"] - each["out"] - each["ready"] - each["held"] for each in found) == 0


def ab(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LOAD / "ab.sh", daemon.url, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.needs("ab")
def test_ab(daemon: Daemon, http: httpx.Client, queue: str) -> None:
    done = ab(daemon, "500", "10", queue)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Requests per second") == 2
    assert totals(http, queue).items() >= {"in": 500, "out": 500, "ready": 0}.items()


@pytest.mark.needs("ab")
def test_ab_says_that_requests_failed(daemon: Daemon) -> None:
    done = subprocess.run(
        [LOAD / "ab.sh", daemon.url, "10", "1", "AUTHKEY"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "Non-2xx responses:      10" in done.stdout


@pytest.mark.needs("wrk")
def test_wrk(daemon: Daemon, http: httpx.Client, queue: str) -> None:
    command = ["wrk", "-t1", "-c8", "-d1s", "-s", LOAD / "messages.lua", f"{daemon.url}/q/{queue}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert not re.search("Non-2xx|Socket errors", done.stdout), done.stdout
    found = totals(http, queue)
    assert found["in"] >= 8  # one for each connection
    assert found["in"] == found["out"] + found["ready"]
