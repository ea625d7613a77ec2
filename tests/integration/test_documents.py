"""What the documents say is true: their commands run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT, Daemon, Redis, listeners, wait_until


def commands(document: str) -> list[str]:
    """The lines of a document's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_two_commands_are_there_and_can_be_run() -> None:
    scripts = [line for line in commands("README.md") if not line.startswith("curl")]
    assert scripts == ["./start_scripts/restmq_server", "./start_scripts/run_tests"]
    for script in [*scripts, ".ci/run"]:
        assert os.access(ROOT / script, os.X_OK), script


@pytest.mark.needs("curl")
def test_each_curl_line_of_the_readme_does_what_it_says(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    answers: list[str] = []
    streams: list[subprocess.Popen[bytes]] = []
    for line in commands("README.md"):
        if not line.startswith("curl"):
            continue
        command = shlex.split(line.replace("http://localhost:8888", daemon.url).replace("curl ", "curl -sS --fail "))
        if "-N" in command:
            streams.append(subprocess.Popen(command, stdout=subprocess.PIPE))
            wait_until(lambda: listeners(private_redis, "test"))
        else:
            answers.append(subprocess.run(command, capture_output=True, check=True, timeout=20).stdout.decode())
    assert answers == [
        "test:1\r\n",
        '{"key":"test:1","value":"hello","count":0}\r\n',
        "OK\r\n",
        '{"queue":"test","value":"hello","key":"test:2"}',
    ]
    daemon.stop()  # ends the streams properly
    heard = [stream.communicate(timeout=20)[0] for stream in streams]
    assert sum(b"test:2" in each for each in heard) == 1  # round robin
    assert [stream.returncode for stream in streams] == [0, 0]


def test_every_flag_that_the_security_page_names_exists() -> None:
    named = set(re.findall(r"`(--[a-z-]+)", (ROOT / "docs" / "security.md").read_text())) - {
        "--queue",
        "--hash-password",
    }
    described = subprocess.run(
        [Path(sys.executable).with_name("twistd"), "restmq", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    ).stdout
    assert {flag for flag in named if flag not in described} == set()


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CHANGELOG.md",
        "docs/architecture.md",
        "docs/security.md",
        "docs/performance.md",
        "docs/operation.md",
    ],
)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / document).read_text()):
        assert ((ROOT / document).parent / target).exists(), target
