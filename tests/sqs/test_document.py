"""docs/sqs.md is correct: its examples run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.servers import ROOT, Daemon, Redis, environment, stopping
from tests.sqs.clients import connect
from tests.sqs.judges import python_with

PAGE = (ROOT / "docs" / "sqs.md").read_text()


def block(language: str, beginning: str) -> str:
    """The page's block of this language that begins so."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return next(str(text) for text in found if text.startswith(beginning))


def test_the_example_of_boto3_runs(private_folder: Path, private_redis: Redis) -> None:
    with stopping(Daemon(private_folder / "daemon", redis=private_redis)) as server:
        program = block("python", "import boto3").replace(":8888", f":{server.port}") + "\nprint(message['Body'])\n"
        shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        assert shown.stdout == "hello\n"
        left = connect(server.port).get_queue_attributes(QueueUrl="http://x/0/jobs", AttributeNames=["All"])
        assert left["Attributes"]["ApproximateNumberOfMessagesNotVisible"] == "0"


def test_the_commands_of_aws_cli_work(private_folder: Path, private_redis: Redis) -> None:
    aws = python_with("aws-cli", "awscli").with_name("aws")
    with stopping(Daemon(private_folder / "daemon", redis=private_redis)) as server:
        script = block("sh", "export AWS_").replace(":8888", f":{server.port}")
        path = {"PATH": f"{aws.parent}:{environment()['PATH']}"}
        subprocess.run(["sh", "-ec", script], env=environment(**path), check=True, capture_output=True, timeout=60)
        received = connect(server.port).receive_message(QueueUrl="http://x/0/jobs")
        assert received["Messages"][0]["Body"] == "hello"


def test_the_command_that_makes_an_access_key_works(private_folder: Path, private_redis: Redis) -> None:
    command = [
        sys.executable,
        *shlex.split(block("sh", ".venv/bin/python"))[1:],
        "--redis-socket",
        private_redis.socket_path,
    ]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    key, secret = told.split()
    with stopping(Daemon(private_folder / "daemon", "--sqs-auth=sigv4", redis=private_redis)) as server:
        assert "QueueUrls" not in connect(server.port, key, secret).list_queues()
