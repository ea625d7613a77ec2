"""What the documents say is true: their commands run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT, Daemon, Redis, listeners, stopping, wait_until


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
    heard: list[Path] = []
    for line in commands("README.md"):
        if not line.startswith("curl"):
            continue
        command = shlex.split(line.replace("http://localhost:8888", daemon.url).replace("curl ", "curl -sS --fail "))
        if "-N" in command:
            heard.append(private_folder / f"stream-{len(streams)}")
            with heard[-1].open("wb") as output:
                streams.append(subprocess.Popen(command, stdout=output))
            wait_until(lambda: listeners(private_redis, "test"))
        else:
            answers.append(subprocess.run(command, capture_output=True, check=True, timeout=20).stdout.decode())
    leased = answers.pop()
    assert answers == [
        "test:1\r\n",
        '{"key":"test:1","value":"hello","count":0}\r\n',
        "OK\r\n",
        '{"queue":"test","value":"hello","key":"test:2"}',
        '{"queue":"jobs","keys":["jobs:1"]}\r\n',
    ]
    assert re.fullmatch(r'{"key":"jobs:1","value":"dig","receipt":"[^"]+","count":1}\r\n', leased)
    wait_until(lambda: any(b"test:2" in each.read_bytes() for each in heard))
    daemon.stop()  # ends the streams properly
    assert [stream.wait(20) for stream in streams] == [0, 0]
    assert sum(b"test:2" in each.read_bytes() for each in heard) == 1  # round robin


@pytest.mark.parametrize(
    ("document", "commands", "of_other_programs"),
    [
        ("docs/security.md", ["restmq"], {"--queue", "--hash-password"}),
        ("docs/syslog-collectd.md", ["syslogd", "collectd"], set()),
        ("docs/deploy.md", ["restmq"], {"--stop-timeout"}),
        ("docs/delivery.md", ["restmq"], {"--kills"}),
        ("docs/operation.md", ["restmq"], set()),
        ("docs/performance.md", ["restmq"], {"--deliveries", "--seconds", "--headless"}),
        ("docs/from-restmq-1.md", ["restmq"], {"--redis-"}),
    ],
)
def test_every_flag_that_a_page_names_exists(document: str, commands: list[str], of_other_programs: set[str]) -> None:
    named = set(re.findall(r"`(--[a-z-]+)", (ROOT / document).read_text())) - of_other_programs
    described = "".join(
        subprocess.run(
            [Path(sys.executable).with_name("twistd"), command, "--help"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        ).stdout
        for command in commands
    )
    assert named
    assert {flag for flag in named if flag not in described} == set()


@pytest.mark.needs("curl", "logger")
def test_the_lines_of_the_syslog_page_do_what_it_says(private_folder: Path, private_redis: Redis) -> None:
    lines = commands("docs/syslog-collectd.md")
    curl_line, logger_line = (next(line for line in lines if line.startswith(name)) for name in ("curl", "logger"))
    for script in set(lines) - {curl_line, logger_line}:
        assert os.access(ROOT / script, os.X_OK), script
    restmq = Daemon(private_folder, redis=private_redis)
    syslogd = Daemon(private_folder, redis=private_redis, plugin="syslogd")
    command = shlex.split(curl_line.replace("http://localhost:8888", restmq.url).replace("curl ", "curl -sS "))
    stream = subprocess.Popen(command, stdout=subprocess.PIPE)
    wait_until(lambda: listeners(private_redis, "syslogd:127.0.0.1"))
    subprocess.run(shlex.split(logger_line.replace("25000", str(syslogd.port))), check=True, timeout=20)
    syslogd.stop()
    restmq.stop()  # ends the stream properly
    heard = json.loads(json.loads(stream.communicate(timeout=20)[0])["value"])
    assert (heard["app"], heard["message"], stream.returncode) == ("backup", "all done", 0)


PAGES = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("document", PAGES)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / document).read_text()):
        assert ((ROOT / document).parent / target).exists(), target


def shell_blocks(document: str) -> str:
    """All that a page shows for a shell, in order."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL))


@pytest.mark.needs("curl")
@pytest.mark.parametrize("page", ["docs/delivery.md", "docs/quickstart.md"])
def test_all_commands_of_a_page_run(private_folder: Path, private_redis: Redis, page: str) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    script = shell_blocks(page).replace("http://localhost:8888", daemon.url)
    assert script.count("curl") > 3
    # --fail: an answer from 400 up is a failure.
    script = 'set -eu -o pipefail\ncurl() { command curl -sS --fail "$@"; }\n' + script
    with stopping(daemon):
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, cwd=private_folder)
    assert done.returncode == 0, done.stderr + done.stdout
