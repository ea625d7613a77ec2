"""FIFO queues with boto3: order, groups, deduplication, dead letters and their way back, also while daemons die."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers import Daemon, Redis, stopping, wait_until
from tests.sqs.clients import bodies, connect

FIFO = {"FifoQueue": "true"}


@pytest.fixture
def url(sqs: Any, queue: str) -> str:
    return make(sqs, queue)


@pytest.fixture
def two(folder: Path, private_redis: Redis) -> Iterator[list[Daemon]]:
    """Two daemons of one store."""
    daemons = [Daemon(folder / f"sqs-{number}", redis=private_redis) for number in range(2)]
    with stopping(*daemons):
        yield daemons


def make(sqs: Any, name: str, **attributes: str) -> str:
    return str(sqs.create_queue(QueueName=name + ".fifo", Attributes=FIFO | attributes)["QueueUrl"])


def arn(sqs: Any, url: str) -> str:
    return str(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"])


def redrive_to(sqs: Any, url: str, dead: str, deliveries: int = 1) -> None:
    policy = {"deadLetterTargetArn": arn(sqs, dead), "maxReceiveCount": deliveries}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})


def send(sqs: Any, url: str, *texts: str) -> list[dict[str, Any]]:
    """Sends texts such as a1 and b1, each to the group that its letter names."""
    return [
        sqs.send_message(QueueUrl=url, MessageBody=text, MessageGroupId=text[0], MessageDeduplicationId=text)
        for text in texts
    ]


def send_many(sqs: Any, url: str, texts: list[str]) -> None:
    for start in range(0, len(texts), 10):
        entries = [
            {
                "Id": str(i),
                "MessageBody": text,
                "MessageGroupId": text.partition("-")[0],
                "MessageDeduplicationId": text,
            }
            for i, text in enumerate(texts[start : start + 10])
        ]
        assert len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == len(entries)


def receive(sqs: Any, url: str, count: int = 10, **more: Any) -> list[dict[str, Any]]:
    answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=count, AttributeNames=["All"], **more)
    found: list[dict[str, Any]] = answer.get("Messages", [])
    return found


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return bodies({"Messages": messages})


def delete(sqs: Any, url: str, message: dict[str, Any]) -> None:
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def fail(sqs: Any, url: str, messages: list[dict[str, Any]]) -> None:
    for message in messages:
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)


def test_messages_come_in_order_with_group_and_sequence_number(sqs: Any, url: str) -> None:
    sent = send(sqs, url, "a1", "a2", "b1")
    found = receive(sqs, url)
    assert texts(found) == ["a1", "a2", "b1"]
    attributes = [message["Attributes"] for message in found]
    assert [each["MessageGroupId"] for each in attributes] == ["a", "a", "b"]
    assert [each["MessageDeduplicationId"] for each in attributes] == ["a1", "a2", "b1"]
    numbers = [each["SequenceNumber"] for each in attributes]
    assert numbers == sorted(set(numbers)) == [each["SequenceNumber"] for each in sent]
    assert {len(number) for number in numbers} == {20}


def test_http_and_sqs_see_the_same_groups(sqs: Any, url: str, queue: str, http: httpx.Client) -> None:
    send(sqs, url, "a1")
    http.post(f"/q/{queue}.fifo", content="b1", headers={"Content-Type": "text/plain", "X-Message-Group": "b"})
    taken = http.get(f"/q/{queue}.fifo", params={"lease": 30, "raw": 1})
    assert (taken.text, taken.headers["X-Message-Group"]) == ("a1", "a")
    (message,) = receive(sqs, url, MessageAttributeNames=["All"])
    assert (message["Body"], message["Attributes"]["MessageGroupId"]) == ("b1", "b")
    assert message["MessageAttributes"].keys() == {"content-type"}


def test_a_handle_expires_with_the_visibility_timeout(sqs: Any, url: str) -> None:
    send(sqs, url, "g1")
    (message,) = receive(sqs, url, VisibilityTimeout=0)
    wait_until(lambda: receive(sqs, url))
    entry = {"Id": "x", "ReceiptHandle": message["ReceiptHandle"]}
    (failed,) = sqs.delete_message_batch(QueueUrl=url, Entries=[entry])["Failed"]
    assert (failed["Code"], failed["SenderFault"]) == ("InvalidParameterValue", True)
    with pytest.raises(ClientError) as raised:
        delete(sqs, url, message)
    assert raised.value.response["Error"]["Code"] == "InvalidParameterValue"
    assert "expired" in raised.value.response["Error"]["Message"]


def test_a_duplicate_gets_the_answer_of_the_first_message(sqs: Any, url: str) -> None:
    first, second = send(sqs, url, "a1", "a1")
    assert (second["MessageId"], second["SequenceNumber"]) == (first["MessageId"], first["SequenceNumber"])
    assert texts(receive(sqs, url)) == ["a1"]


def test_a_batch_without_a_group_or_deduplication_id_fails_as_a_whole(sqs: Any, url: str) -> None:
    whole = {"Id": "a", "MessageBody": "x", "MessageGroupId": "g", "MessageDeduplicationId": "1"}
    codes = {"MessageGroupId": "MissingParameter", "MessageDeduplicationId": "InvalidParameterValue"}
    for name, code in codes.items():
        half = {member: value for member, value in whole.items() if member != name} | {"Id": "b"}
        with pytest.raises(ClientError) as raised:
            sqs.send_message_batch(QueueUrl=url, Entries=[whole, half])
        assert raised.value.response["Error"]["Code"] == code
    assert receive(sqs, url) == []


def test_the_throughput_limit_per_group_needs_the_scope_of_a_group(sqs: Any, url: str, queue: str) -> None:
    limit, scope = {"FifoThroughputLimit": "perMessageGroupId"}, {"DeduplicationScope": "messageGroup"}
    with pytest.raises(sqs.exceptions.InvalidAttributeValue):
        make(sqs, "other-" + queue, **limit)
    with pytest.raises(sqs.exceptions.InvalidAttributeValue):
        sqs.set_queue_attributes(QueueUrl=url, Attributes=limit)
    sqs.set_queue_attributes(QueueUrl=url, Attributes=scope)
    sqs.set_queue_attributes(QueueUrl=url, Attributes=limit)
    with pytest.raises(sqs.exceptions.InvalidAttributeValue):
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"DeduplicationScope": "queue"})
    shown = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert shown.items() >= (limit | scope | FIFO).items()


def test_a_failed_message_comes_first_and_goes_to_the_dead_letters_in_order(sqs: Any, url: str, queue: str) -> None:
    dead = make(sqs, "dead-" + queue)
    redrive_to(sqs, url, dead, 2)
    sent = send(sqs, url, "a1", "a2", "a3", "b1")
    fail(sqs, url, receive(sqs, url, 2))
    again = receive(sqs, url, 3)
    assert texts(again) == ["a1", "a2", "a3"]
    assert [message["Attributes"]["ApproximateReceiveCount"] for message in again] == ["2", "2", "1"]
    fail(sqs, url, again)
    assert texts(receive(sqs, url)) == ["a3", "b1"]
    sent_ms = int(again[0]["Attributes"]["SentTimestamp"])
    letters = receive(sqs, dead)
    assert texts(letters) == ["a1", "a2"]
    assert [letter["MessageId"] for letter in letters] == [one["MessageId"] for one in sent[:2]]
    shown = letters[0]["Attributes"]
    assert (shown["MessageGroupId"], shown["DeadLetterQueueSourceArn"]) == ("a", arn(sqs, url))
    assert (shown["ApproximateReceiveCount"], shown["MessageDeduplicationId"]) == ("3", letters[0]["MessageId"])
    assert int(shown["SentTimestamp"]) > sent_ms


def test_a_purged_queue_and_a_queue_that_comes_again_are_empty(sqs: Any, url: str, queue: str) -> None:
    send(sqs, url, "a1", "a2")
    receive(sqs, url, 1)
    sqs.purge_queue(QueueUrl=url)
    send(sqs, url, "a3")
    assert texts(receive(sqs, url)) == ["a3"]
    sqs.delete_queue(QueueUrl=url)
    make(sqs, queue)
    send(sqs, url, "a1")
    assert texts(receive(sqs, url)) == ["a1"]


def visible(sqs: Any, url: str) -> int:
    names = ["ApproximateNumberOfMessages"]
    return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"][names[0]])


def test_after_a_crash_between_receive_and_delete_the_message_comes_first(two: list[Daemon]) -> None:
    dying, living = (connect(daemon.port) for daemon in two)
    url = make(living, "crash")
    send(living, url, "a1", "a2", "b1")
    (held,) = receive(dying, url, 1, VisibilityTimeout=1)
    two[0].kill()
    assert texts(receive(living, url, 1)) == ["b1"]
    (again,) = wait_until(lambda: receive(living, url, 1))
    assert (again["Body"], again["MessageId"]) == ("a1", held["MessageId"])
    with pytest.raises(ClientError):
        delete(living, url, held)
    assert receive(living, url) == []
    delete(living, url, again)
    assert texts(receive(living, url)) == ["a2"]


@pytest.mark.parametrize("end", ["", ".fifo"])
def test_a_handle_from_a_daemon_that_crashed_deletes_the_message_at_another_one(two: list[Daemon], end: str) -> None:
    dying, living = (connect(daemon.port) for daemon in two)
    url = make(living, "crash") if end else str(living.create_queue(QueueName="crash")["QueueUrl"])
    more = {"MessageGroupId": "g", "MessageDeduplicationId": "1"} if end else {}
    living.send_message(QueueUrl=url, MessageBody="x", **more)
    (held,) = receive(dying, url, 1, VisibilityTimeout=60 if end else 1)
    two[0].kill()
    wait_until(lambda: end or visible(living, url) == 1)
    delete(living, url, held)
    assert visible(living, url) == 0
    assert receive(living, url) == []


def test_each_group_keeps_its_order_under_twenty_consumers_of_two_daemons_one_of_which_is_killed(
    two: list[Daemon],
) -> None:
    """A message may come twice, but never before all older ones of its group were done."""
    count, groups = 300, 17
    clients = [connect(daemon.port, max_pool_connections=20) for daemon in two]
    url = make(clients[1], "work")
    send_many(clients[1], url, [f"{number % groups}-{number}" for number in range(count)])
    finished: dict[int, list[int]] = {group: [] for group in range(groups)}

    def finish(sqs: Any, message: dict[str, Any]) -> None:
        number = int(message["Body"].partition("-")[2])
        before, older = finished[number % groups], list(range(number % groups, number, groups))
        assert before in (older, [*older, number])  # the second if the answer to its delete was lost
        finished[number % groups] = [*older, number]
        delete(sqs, url, message)

    def consume(consumer: int) -> None:
        sqs = clients[consumer % 2]
        while sum(map(len, finished.values())) < count:
            try:
                for message in receive(sqs, url, 3, VisibilityTimeout=5, WaitTimeSeconds=1):
                    finish(sqs, message)
            except BotoCoreError:
                sqs = clients[1]

    with ThreadPoolExecutor(20) as pool:
        working = [pool.submit(consume, consumer) for consumer in range(20)]
        wait_until(lambda: sum(map(len, finished.values())) > count / 4 or any(done.done() for done in working))
        two[0].kill()
        for done in working:
            done.result()
    assert finished == {group: list(range(group, count, groups)) for group in range(groups)}


@pytest.mark.parametrize("end", ["", ".fifo"])
def test_a_move_task_goes_on_when_its_daemon_is_killed_and_moves_each_message_once(two: list[Daemon], end: str) -> None:
    sqs, count = connect(two[1].port), 30
    made = [
        sqs.create_queue(QueueName=name + end, Attributes=FIFO if end else {})["QueueUrl"] for name in ("jobs", "dead")
    ]
    url, dead = map(str, made)
    redrive_to(sqs, url, dead)
    for number in range(count):
        more = {"MessageGroupId": "g", "MessageDeduplicationId": str(number)} if end else {}
        sqs.send_message(QueueUrl=url, MessageBody=str(number), **more)
    for _ in range(count // 10):
        fail(sqs, url, receive(sqs, url))
    source = arn(sqs, dead)
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": ""})
    redrive_to(sqs, url, dead, 100)
    sqs.start_message_move_task(SourceArn=source, MaxNumberOfMessagesPerSecond=10)
    task = lambda: sqs.list_message_move_tasks(SourceArn=source)["Results"][0]  # noqa: E731
    wait_until(lambda: task()["ApproximateNumberOfMessagesMoved"])
    two[0].kill()
    wait_until(lambda: task()["Status"] == "COMPLETED", 40)
    assert task()["ApproximateNumberOfMessagesMoved"] == count
    found = [body for _ in range(count // 10) for body in texts(receive_and_delete(sqs, url))]
    assert found == [str(number) for number in range(count)]
    assert receive(sqs, dead) == []


def receive_and_delete(sqs: Any, url: str) -> list[dict[str, Any]]:
    messages = receive(sqs, url)
    for message in messages:
        delete(sqs, url, message)
    return messages
