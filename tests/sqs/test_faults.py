"""Standard queues while clients, daemons and Redis die, and input that is wrong on purpose."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers import Daemon, Redis, stopping, wait_until
from tests.sqs.clients import bodies, connect


@pytest.fixture
def two(folder: Path, private_redis: Redis) -> Iterator[list[Daemon]]:
    """Two daemons of one store."""
    daemons = [Daemon(folder / f"sqs-faults-{number}", redis=private_redis) for number in range(2)]
    with stopping(*daemons):
        yield daemons


def test_a_message_received_from_a_daemon_that_died_is_deleted_at_another_one(two: list[Daemon]) -> None:
    dying, living = (connect(daemon.port) for daemon in two)
    url = living.create_queue(QueueName="jobs")["QueueUrl"]
    dying.send_message_batch(QueueUrl=url, Entries=[{"Id": name, "MessageBody": name} for name in ("one", "two")])
    (first,) = dying.receive_message(QueueUrl=url)["Messages"]
    (second,) = dying.receive_message(QueueUrl=url, VisibilityTimeout=1)["Messages"]
    two[0].kill()
    living.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    (again,) = wait_until(lambda: living.receive_message(QueueUrl=url).get("Messages"))
    assert (again["Body"], again["MessageId"]) == ("two", second["MessageId"])
    living.delete_message(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"])
    numbers = living.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert (numbers["ApproximateNumberOfMessages"], numbers["ApproximateNumberOfMessagesNotVisible"]) == ("0", "0")


def test_twenty_consumers_of_two_daemons_one_of_which_dies_lose_nothing(two: list[Daemon]) -> None:
    clients = [connect(daemon.port, max_pool_connections=20) for daemon in two]
    url = clients[1].create_queue(QueueName="work", Attributes={"VisibilityTimeout": "2"})["QueueUrl"]
    wanted = {f"m{number}" for number in range(200)}
    handled: set[str] = set()
    ends = time.monotonic() + 60

    def consume(number: int) -> None:
        sqs = clients[number % 2]
        while handled < wanted and time.monotonic() < ends:
            try:
                received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=3, WaitTimeSeconds=1)
                for message in received.get("Messages", ()):
                    handled.add(message["Body"])
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            except (BotoCoreError, ClientError):
                sqs = clients[1]

    with ThreadPoolExecutor(20) as pool:
        consumers = [pool.submit(consume, number) for number in range(20)]
        for start in range(0, 200, 10):
            entries = [{"Id": str(number), "MessageBody": f"m{number}"} for number in range(start, start + 10)]
            assert len(clients[1].send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 10
            if start == 100:
                two[0].kill()
        for consumer in consumers:
            consumer.result()
    assert handled == wanted


def test_while_redis_is_away_the_error_says_that_a_retry_may_help(two: list[Daemon], private_redis: Redis) -> None:
    sqs = connect(two[0].port)
    url = sqs.create_queue(QueueName="jobs")["QueueUrl"]
    private_redis.kill()

    def refused() -> Any:
        try:
            return sqs.send_message(QueueUrl=url, MessageBody="x") and None
        except ClientError as problem:
            return problem.response

    answer = wait_until(refused)
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == ("ServiceUnavailable", 503)
    assert answer["ResponseMetadata"]["HTTPHeaders"]["retry-after"]
    private_redis.start()
    wait_until(lambda: refused() is None)
    assert bodies(sqs.receive_message(QueueUrl=url)) == ["x"]


@pytest.mark.parametrize("end", ["", ".fifo"])
def test_each_operation_on_a_message_is_one_call_to_redis(two: list[Daemon], private_redis: Redis, end: str) -> None:
    sqs = connect(two[0].port)
    fifo = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if end else {}
    hidden = {"VisibilityTimeout": "43200"}  # so nothing becomes due meanwhile
    url = sqs.create_queue(QueueName="jobs" + end, Attributes={**hidden, **fifo})["QueueUrl"]
    group = {"MessageGroupId": "g"} if end else {}

    def calls() -> list[str]:
        """The scripts of the queue that were called since the last time."""
        entries = private_redis.commands([("SLOWLOG", "GET", "-1"), ("SLOWLOG", "RESET")])[0]
        return [words[1] for _, _, _, words, *_ in entries if words[0] == "EVALSHA" and "jobs" + end in words]

    def one_message() -> list[int]:
        """Sends, receives, changes and deletes a message; returns the number of calls for each step."""
        calls()
        sqs.send_message(QueueUrl=url, MessageBody=uuid.uuid4().hex, **group)
        counts = [len(calls())]
        (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20, AttributeNames=["All"])["Messages"]
        counts.append(len(calls()))
        named = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
        sqs.change_message_visibility(**named, VisibilityTimeout=43_200)
        counts.append(len(calls()))
        sqs.delete_message(**named)
        return [*counts, len(calls())]

    private_redis.command("CONFIG", "SET", "slowlog-log-slower-than", "0")
    one_message()  # Redis does not know the scripts yet
    assert one_message() == [1, 1, 1, 1]


def head(operation: str, body: bytes) -> bytes:
    """The head of a request of the JSON protocol."""
    fields = f"Host: localhost\r\nX-Amz-Target: AmazonSQS.{operation}\r\nContent-Length: {len(body)}\r\n"
    return f"POST / HTTP/1.1\r\n{fields}\r\n".encode()


def test_a_client_that_leaves_a_long_poll_takes_no_message_with_it(
    daemon: Daemon, sqs: Any, url: str, queue: str
) -> None:
    body = json.dumps({"QueueUrl": url, "WaitTimeSeconds": 20}).encode()
    with daemon.client() as http:
        with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
            connection.sendall(head("ReceiveMessage", body) + body)
            wait_until(lambda: http.get(f"/stats/{queue}").json()["waiters"] == 1)
        wait_until(lambda: http.get(f"/stats/{queue}").json()["waiters"] == 0)
    sqs.send_message(QueueUrl=url, MessageBody="x")
    assert bodies(sqs.receive_message(QueueUrl=url)) == ["x"]


@pytest.mark.parametrize("sent", [1, 30, 150])
def test_half_a_request_sends_no_message(daemon: Daemon, sqs: Any, url: str, sent: int) -> None:
    body = json.dumps({"QueueUrl": url, "MessageBody": "x" * 200}).encode()
    with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
        connection.sendall(head("SendMessage", body) + body[:sent])
    assert "Messages" not in sqs.receive_message(QueueUrl=url)


_MEMBERS = """QueueUrl QueueName Attributes MessageBody Entries MaxNumberOfMessages ReceiptHandle MessageAttributes
    MessageSystemAttributes MessageAttributeNames NextToken MaxResults Tags tags SourceArn DestinationArn TaskHandle
    DelaySeconds MessageGroupId"""
_JUNK = [
    None,
    0,
    -1,
    2**63,
    1.5,
    True,
    "",
    "x" * 5000,
    "\0",
    "\ud7ff\U0010ffff",
    [],
    [[]],
    {},
    {"": None},
    [{"Id": {}}],
]


@pytest.mark.parametrize(
    "operation",
    ["CreateQueue", "SetQueueAttributes", "SendMessage", "SendMessageBatch", "ReceiveMessage", "DeleteMessage",
     "ChangeMessageVisibilityBatch", "ListQueues", "ListQueueTags", "TagQueue", "StartMessageMoveTask",
     "ListMessageMoveTasks", "CancelMessageMoveTask"],
)  # fmt: skip
def test_wrong_input_is_answered_with_an_error_of_the_client(http: httpx.Client, url: str, operation: str) -> None:
    for member in _MEMBERS.split():
        for junk in _JUNK:
            content = json.dumps({"QueueUrl": url, "QueueName": "a b", "MessageBody": "x", member: junk})
            answer = http.post("/", content=content, headers={"X-Amz-Target": f"AmazonSQS.{operation}"})
            assert answer.status_code < 500, (member, junk, answer.text)
            assert answer.status_code == 200 or answer.json()["__type"], (member, junk)
