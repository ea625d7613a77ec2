"""The documents are correct: their commands run, their flags and links exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.servers import ROOT, Daemon, Redis, listeners, stopping, twistd, wait_until

PAGES = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
]

#: The test that runs each shell block of each page (by the block's first line), or "no: " and why none can here.
RUN_BY = {
    (
        "README.md",
        "./start_scripts/restmq_server",
    ): "integration/test_service.py::test_a_start_script_runs_from_any_directory",
    ("README.md", "./start_scripts/run_tests"): "no: these are its tests",
    ("README.md", "curl -d value="): "boxes/test_first_session.py::test_a_first_session_goes_as_the_readme_says",
    ("CONTRIBUTING.md", "./start_scripts/run_tests"): "no: these are its tests",
    ("docs/command-line.md", ""): "integration/test_cli.py::test_every_command_in_the_document_runs",
    (
        "docs/protocol.md",
        "curl -H 'Content-Type",
    ): "integration/test_metadata.py::test_the_commands_of_the_protocol_run",
    ("docs/delivery.md", ""): "integration/test_documents.py::test_all_commands_of_a_page_run",
    (
        "docs/when-something-is-wrong.md",
        "restmq ping",
    ): "integration/test_trouble_document.py::test_the_first_commands_of_the_page_run",
    ("docs/quickstart.md", ""): "integration/test_documents.py::test_all_commands_of_a_page_run",
    (
        "docs/deploy.md",
        "docker ",
    ): "no: there is no Docker; boxes/test_dockerfile.py and test_container.py go without it",
    (
        "docs/deploy.md",
        "vagrant up",
    ): "no: there is no virtual machine; boxes/test_vagrant.py has Vagrant read its file",
    (
        "docs/deploy.md",
        "./start_scripts/provision",
    ): "boxes/test_machine.py::test_a_provisioned_machine_is_a_restmq_server",
    ("docs/deploy.md", "cp -r start_scripts/"): "boxes/test_machine.py::test_a_provisioned_machine_is_a_restmq_server",
    (
        "docs/from-restmq-1.md",
        "./start_scripts/",
    ): "integration/test_service.py::test_a_start_script_runs_from_any_directory",
    ("docs/from-restmq-1.md", "redis-cli "): (
        "integration/test_from_restmq_1.py::test_the_private_store_copies_the_data_of_another_redis"
    ),
    ("docs/from-restmq-1.md", "queue="): ("integration/test_from_restmq_1.py::test_leftover_values_can_be_deleted"),
    ("docs/from-restmq-1.md", "old="): (
        "integration/test_from_restmq_1.py::test_messages_of_a_queue_with_an_invalid_name_can_be_moved"
    ),
    (
        "docs/operation.md",
        ".venv/bin/python restmq_engine.py --acl-user",
    ): "integration/test_troubled_redis.py::test_the_redis_user_that_the_engine_describes_has_all_needed_rights",
    ("docs/operation.md", "redis-"): "integration/test_operation_documents.py::test_a_backup_can_be_restored",
    (
        "docs/operation.md",
        "curl ",
    ): "integration/test_operation_documents.py::test_the_curl_commands_of_the_operation_page_work",
    ("docs/performance.md", "bench/run"): "integration/test_documents.py::test_the_benchmarks_print_their_options",
    ("docs/performance.md", "bench/scripts"): "integration/test_documents.py::test_the_benchmarks_print_their_options",
    ("docs/performance.md", "bench/turns"): "integration/test_documents.py::test_the_benchmarks_print_their_options",
    ("docs/performance.md", "bench/cluster"): "integration/test_documents.py::test_the_benchmarks_print_their_options",
    ("docs/performance.md", "tests/load/"): "load/test_load.py::test_",
    (
        "docs/security.md",
        ".venv/bin/python ",
    ): "integration/test_documents.py::test_the_token_commands_of_the_security_page_work",
    ("docs/sqs.md", "export AWS_"): "sqs/test_document.py::test_the_commands_of_aws_cli_work",
    (
        "docs/sqs.md",
        ".venv/bin/python ",
    ): "sqs/test_document.py::test_the_command_that_makes_an_access_key_works",
    (
        "docs/syslog-collectd.md",
        "./start_scripts/",
    ): "integration/test_service.py::test_a_start_script_runs_from_any_directory",
    ("docs/syslog-collectd.md", "curl "): ("integration/test_documents.py::test_the_commands_of_the_syslog_page_work"),
}


def blocks(document: str) -> list[str]:
    """The shell blocks of a document in order, also those in lists."""
    found = re.findall(r"^( *)```sh\n(.*?)^\1```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(text) for _, text in found]


def commands(document: str) -> list[str]:
    """The lines of a document's shell blocks."""
    return [line for block in blocks(document) for line in block.splitlines()]


def test_every_shell_block_of_every_page_is_run_by_a_test() -> None:
    unused = set(RUN_BY)
    for page in PAGES:
        for block in blocks(page):
            known = {key for key in RUN_BY if key[0] == page and block.startswith(key[1])}
            assert len(known) == 1, f"{page}: which test runs this? Say it in RUN_BY.\n{block}"
            unused -= known
    assert unused == set()
    for runner in RUN_BY.values():
        if not runner.startswith("no: "):
            file, name = runner.split("::")
            assert f"\ndef {name}" in (ROOT / "tests" / file).read_text(), runner


def test_every_code_block_names_its_language() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *```(.*)$", (ROOT / page).read_text(), re.MULTILINE)
        assert set(fences[1::2]) <= {""}, page
        assert set(fences[::2]) <= {"sh", "python", "json", "yaml", "text", "nginx", "apache", "js", ""}, page


def test_the_commands_of_the_readme_exist_and_are_executable() -> None:
    scripts = [line for line in commands("README.md") if line.startswith("./")]
    assert scripts == ["./start_scripts/restmq_server", "./start_scripts/run_tests"]
    for script in [*scripts, "./start_scripts/restmq", ".ci/run"]:
        assert os.access(ROOT / script, os.X_OK), script


@pytest.mark.parametrize(
    ("document", "commands", "of_other_programs"),
    [
        (
            "docs/security.md",
            ["restmq"],
            {"--queue", "--hash-password", "--expires", "--value", "--name", "--revoke-token"},
        ),
        ("docs/syslog-collectd.md", ["syslogd", "collectd"], set()),
        ("docs/deploy.md", ["restmq"], {"--stop-timeout", "--no-healthcheck"}),
        ("docs/delivery.md", ["restmq"], {"--kills", "--failovers", "--sentinel", "--cluster", "--moves", "--lag"}),
        ("docs/operation.md", ["restmq"], {"--appendonly", "--create-token"}),
        ("docs/performance.md", ["restmq"], {"--before", "--headless", "--only"}),
        ("docs/from-restmq-1.md", ["restmq"], {"--redis-"}),
    ],
)
def test_every_flag_that_a_page_names_exists(
    private_folder: Path, document: str, commands: list[str], of_other_programs: set[str]
) -> None:
    named = set(re.findall(r"`(--[a-z-]+)", (ROOT / document).read_text())) - of_other_programs
    described = "".join(twistd(private_folder, command, "--help").stdout for command in commands)
    assert named
    assert {flag for flag in named if flag not in described} == set()


def test_the_token_commands_of_the_security_page_work(private_redis: Redis) -> None:
    create, show, revoke = commands("docs/security.md")

    def run(line: str) -> str:
        command = [sys.executable, *shlex.split(line)[1:], "--redis-socket", private_redis.socket_path]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout

    run(create)
    (key,) = private_redis.keys()
    token = key.removeprefix("AUTHKEY:")
    listed = run(show)
    assert listed.startswith("ci\t")
    assert token not in listed
    assert "mail-*" in private_redis.command("GET", key)
    run(revoke)
    assert private_redis.keys() == set()


@pytest.mark.needs("curl", "logger")
def test_the_commands_of_the_syslog_page_work(private_folder: Path, private_redis: Redis) -> None:
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


@pytest.mark.parametrize("document", PAGES)
def test_links_have_targets(document: str) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / document).read_text()):
        assert ((ROOT / document).parent / target).exists(), target


@pytest.mark.needs("curl")
@pytest.mark.parametrize("page", ["docs/delivery.md", "docs/quickstart.md"])
def test_all_commands_of_a_page_run(private_folder: Path, private_redis: Redis, page: str) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    script = "\n".join(blocks(page)).replace("http://localhost:8888", daemon.url)
    assert script.count("curl") > 3
    # --fail: an answer from 400 up is a failure.
    script = 'set -eu -o pipefail\ncurl() { command curl -sS --fail "$@"; }\n' + script
    with stopping(daemon):
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, cwd=private_folder)
    assert done.returncode == 0, done.stderr + done.stdout


def test_the_checks_of_pre_commit_exist_and_pass() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["id"] for hook in local["hooks"]] == ["ruff-check", "ruff-format", "mypy"]
    for hook in local["hooks"]:
        program, *command = shlex.split(hook["entry"])
        assert program.startswith(".venv/bin/")
        command.insert(0, str(Path(sys.executable).with_name(Path(program).name)))  # a worktree may have no .venv
        command += [] if hook.get("pass_filenames", True) else ["--help"]  # mypy's run is long, and has its own place
        files = [__file__] if hook.get("pass_filenames", True) else []
        done = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout


def _benchmark(program: str, *options: str, **environment: str) -> str:
    command = [sys.executable, str(ROOT / "bench" / program), *options]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=env).stdout


def test_the_benchmarks_print_their_options() -> None:
    """All figures together take minutes. The benchmarks can be loaded, and have the flags that the page names."""
    assert "--before" in _benchmark("suite.py", "--help")
    assert "--primaries" in _benchmark("suite.py", "--help")
    assert "--before" in _benchmark("scripts.py", "--help")
    assert "--before" in _benchmark("turns.py", "--help")


def test_the_benchmark_prints_its_figures_beside_those_of_an_earlier_revision() -> None:
    said = _benchmark("suite.py", "--only", "^Requests: JSON add$", "--repeats", "1", "--before", "HEAD")
    figures, compared = said.split("### Beside revision HEAD\n")
    assert "### Requests\n" in figures
    rate = re.search(r"^\| JSON add \| ([\d,]+) requests \| [\d.,]+ \| [\d.,]+ \|.* 0 \|$", figures, re.MULTILINE)
    assert rate is not None and int(rate[1].replace(",", "")) > 0, said
    assert re.search(r"^\| JSON add( \| [\d.,]+){11} \|$", compared, re.MULTILINE), said


def test_the_benchmark_names_other_servers_that_are_not_installed(tmp_path: Path) -> None:
    said = _benchmark("suite.py", "--only", "webdis|nchan: POST|beanstalkd: put", "--repeats", "1", PATH=str(tmp_path))
    for peer, packages in (
        ("webdis: LPUSH", "webdis"),
        ("nchan: POST", "nginx-light libnginx-mod-nchan"),
        ("beanstalkd: put", "beanstalkd"),
    ):
        assert f"| {peer} | not installed (apt-get install {packages}) |" in said
