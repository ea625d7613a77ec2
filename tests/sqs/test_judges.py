"""Real clients and other projects' own test suites, against a running server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT, Daemon, Redis, environment, stopping, wait_until
from tests.sqs.clients import connect
from tests.sqs.judges import AWS, node_with, python_with, sources_of

FOLDER = Path(__file__).parent
DOCUMENT = (ROOT / "docs" / "sqs.md").read_text()
MOTO, KOMBU = "5.2.5", "5.7.0"
_OUTCOME = re.compile(r"^\S*/(test_\w+\.py)::(\S+) (PASSED|FAILED|SKIPPED|ERROR)", re.MULTILINE)


def outcomes(shown: str) -> dict[str, set[str]]:
    """The names of tests by their outcome, from the output of ``pytest -v``."""
    found: dict[str, set[str]] = {"PASSED": set(), "FAILED": set(), "SKIPPED": set(), "ERROR": set()}
    for _, name, outcome in _OUTCOME.findall(shown):
        found[outcome].add(name)
    return found


def documented(heading: str) -> set[str]:
    """The tests that a table of docs/sqs.md names as those that can't hold."""
    section = DOCUMENT.partition(f"\n### {heading}\n")[2].partition("\n##")[0]
    return {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)
    }


def run_suite(python: Path, cwd: Path, tests: list[str], **env: str) -> dict[str, set[str]]:
    command = [python, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-W", "ignore", "--rootdir", str(cwd), *tests]
    done = subprocess.run(
        command, cwd=cwd, env=environment(**AWS, **env), capture_output=True, text=True, timeout=600, check=False
    )
    found = outcomes(done.stdout)
    assert found["PASSED"], done.stdout[-3000:] + done.stderr[-3000:]
    return found


@pytest.fixture
def judged(private_folder: Path, private_redis: Redis) -> Iterator[Daemon]:
    """A daemon with what the suites need besides SQS (``shim.py``)."""
    command = [sys.executable, "-m", "tests.sqs.shim"]
    with stopping(Daemon(private_folder / "daemon", redis=private_redis, twistd=command,
                         env={"PYTHONPATH": str(ROOT)})) as server:  # fmt: skip
        yield server


def test_motos_tests_of_sqs_hold_but_for_those_that_the_document_names(judged: Daemon, private_folder: Path) -> None:
    python = python_with("moto", f"moto[server]=={MOTO}", "boto3", "pytest", "requests", "freezegun", "flaky")
    suite = private_folder / "moto"
    shutil.copytree(sources_of("moto", MOTO) / "tests", suite / "tests")
    for path in (suite / "tests" / "test_sqs").glob("*.py"):  # moto's own port is written into its tests
        path.write_text(path.read_text().replace("http://localhost:5000", f"http://localhost:{judged.port}"))
    tests = [f"tests/test_sqs/{name}.py" for name in ("test_sqs", "test_sqs_message_attributes")]
    found = run_suite(python, suite, tests, TEST_SERVER_MODE="true", MOTO_PORT=str(judged.port))
    assert found["FAILED"] | found["ERROR"] == documented("moto")
    assert len(found["PASSED"]) >= 140


def test_kombus_integration_tests_hold_but_for_those_that_the_document_names(judged: Daemon) -> None:
    python = python_with("celery", "celery[sqs]", f"kombu[sqs]=={KOMBU}", "pytest")
    sources = sources_of("kombu", KOMBU)
    found = run_suite(python, sources, ["t/integration/test_sqs.py"], SQS_HOST="127.0.0.1", SQS_PORT=str(judged.port))
    assert found["FAILED"] | found["ERROR"] == documented("kombu")
    assert len(found["PASSED"]) >= 40


def test_a_celery_worker_runs_a_thousand_tasks_with_retries_and_eta(daemon: Daemon, queue: str, tmp_path: Path) -> None:
    python = python_with("celery", "celery[sqs]", f"kombu[sqs]=={KOMBU}", "pytest")
    done = tmp_path / "done"
    done.touch()
    env = environment(**AWS, PORT=str(daemon.port), QUEUE=queue, DONE=str(done))
    subprocess.run([python, "celery_app.py", "1000"], cwd=FOLDER, env=env, check=True, timeout=200)
    command = [python, "-m", "celery", "-A", "celery_app", "worker", "--pool", "threads", "-c", "4", "-l", "WARNING"]
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(command, cwd=FOLDER, env=env, stdout=log, stderr=log)
    try:
        wait_until(lambda: done.read_text().count("done") >= 1000 and done.read_text().count("enough") >= 10, 200)
    finally:
        worker.terminate()
        worker.wait(30)
    lines = Counter(done.read_text().splitlines())
    assert [lines[f"done {number}"] for number in range(1000)] == [1] * 1000
    assert [number for number in range(1000) if lines[f"retry {number}"] != (number % 10 == 0)] == []
    assert lines["late enough"] == 10
    numbers = connect(daemon.port).get_queue_attributes(
        QueueUrl=f"http://x/0/{queue}", AttributeNames=["All"]
    )["Attributes"]  # fmt: skip
    assert (numbers["ApproximateNumberOfMessages"], numbers["ApproximateNumberOfMessagesNotVisible"]) == ("0", "0")


def test_aws_cli_makes_a_queue_sends_and_receives(daemon: Daemon, queue: str) -> None:
    aws = python_with("aws-cli", "awscli").with_name("aws")

    def run(*words: str) -> dict[str, object]:
        command = [aws, "--endpoint-url", f"http://127.0.0.1:{daemon.port}", "--output", "json", "sqs", *words]
        shown = subprocess.run(command, env=environment(**AWS), capture_output=True, text=True, check=True).stdout
        return dict(json.loads(shown or "{}"))

    url = str(run("create-queue", "--queue-name", queue)["QueueUrl"])
    attributes = '{"colour": {"DataType": "String", "StringValue": "red"}}'
    run("send-message", "--queue-url", url, "--message-body", "größe", "--message-attributes", attributes)
    (message,) = run("receive-message", "--queue-url", url, "--message-attribute-names", "All")["Messages"]  # type: ignore[misc]
    assert (message["Body"], message["MessageAttributes"]["colour"]["StringValue"]) == ("größe", "red")
    assert run("delete-message", "--queue-url", url, "--receipt-handle", message["ReceiptHandle"]) == {}


def test_aiobotocore_waits_for_a_message(daemon: Daemon, queue: str) -> None:
    python = python_with("aiobotocore", "aiobotocore")
    program = """
import asyncio, sys
from aiobotocore.session import get_session

async def main(endpoint, queue):
    async with get_session().create_client("sqs", endpoint_url=endpoint) as sqs:
        url = (await sqs.create_queue(QueueName=queue))["QueueUrl"]
        waiting = asyncio.create_task(sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20))
        await sqs.send_message(QueueUrl=url, MessageBody="hello")
        (message,) = (await waiting)["Messages"]
        await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        print(message["Body"])

asyncio.run(main(*sys.argv[1:]))
"""
    command = [python, "-c", program, f"http://127.0.0.1:{daemon.port}", queue]
    shown = subprocess.run(command, env=environment(**AWS), capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout == "hello\n"


@pytest.mark.needs("node", "npm")
@pytest.mark.parametrize("path", ["", "/sqs"])
def test_sqs_consumer_on_the_javascript_sdk_handles_each_message(daemon: Daemon, queue: str, path: str) -> None:
    folder = node_with("sqs-consumer", "@aws-sdk/client-sqs", "sqs-consumer")
    program = folder / f"consumer-{os.getpid()}.mjs"
    program.write_text((FOLDER / "consumer.mjs").read_text())
    command = ["node", str(program), f"http://127.0.0.1:{daemon.port}{path}", queue]
    shown = subprocess.run(command, env=environment(**AWS), capture_output=True, text=True, check=True, timeout=100)
    assert json.loads(shown.stdout) == {"handled": 50, "failed": 5, "left": ["0", "0"]}
