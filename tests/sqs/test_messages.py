"""Sending, receiving and deleting messages with boto3."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.servers import Daemon, wait_until
from tests.sqs.clients import bodies, connect

ATTRIBUTES = {
    "Colour": {"DataType": "String", "StringValue": "red\nand grün"},
    "size": {"DataType": "Number.int", "StringValue": "17"},
    "raw": {"DataType": "Binary.png", "BinaryValue": bytes(range(256))},
}


def code(raised: pytest.ExceptionInfo[ClientError]) -> str:
    return str(raised.value.response["Error"]["Code"])


def receive(sqs: Any, url: str, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sqs.receive_message(
        QueueUrl=url, AttributeNames=["All"], MessageAttributeNames=["All"], **more
    ).get("Messages", [])
    return found


def test_a_message_comes_with_its_attributes_exactly_as_they_were_sent(sqs: Any, url: str) -> None:
    sent = sqs.send_message(QueueUrl=url, MessageBody="größe ✓", MessageAttributes=ATTRIBUTES)
    (message,) = receive(sqs, url)
    assert message["Body"] == "größe ✓"
    assert message["MessageAttributes"] == ATTRIBUTES
    assert message["MessageId"] == sent["MessageId"]
    assert message["MD5OfBody"] == sent["MD5OfMessageBody"] == hashlib.md5("größe ✓".encode()).hexdigest()
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


def test_the_md5_of_attributes_is_that_of_the_developer_guide(sqs: Any, url: str) -> None:
    attributes = {"b": {"DataType": "Binary", "BinaryValue": b"\0\1"}, "a": {"DataType": "String", "StringValue": "é"}}
    encoded = b"".join(
        [b"\0\0\0\1a", b"\0\0\0\6String", b"\1", b"\0\0\0\2\xc3\xa9", b"\0\0\0\1b", b"\0\0\0\6Binary", b"\2"]
    )
    encoded += b"\0\0\0\2\0\1"
    sent = sqs.send_message(QueueUrl=url, MessageBody="x", MessageAttributes=attributes)
    assert sent["MD5OfMessageAttributes"] == hashlib.md5(encoded).hexdigest()


def test_only_the_attributes_that_are_asked_for_come(sqs: Any, url: str) -> None:
    text = {"DataType": "String", "StringValue": "x"}
    names = dict.fromkeys(("app.one", "app.two", "other"), text)
    sqs.send_message(QueueUrl=url, MessageBody="x", MessageAttributes=names)
    asked = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["app.*"], VisibilityTimeout=0)
    assert asked["Messages"][0]["MessageAttributes"].keys() == {"app.one", "app.two"}
    wait_until(lambda: sqs.receive_message(QueueUrl=url, VisibilityTimeout=0).get("Messages"))
    none = wait_until(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))
    assert none[0].keys() == {"MessageId", "ReceiptHandle", "MD5OfBody", "Body"}


@pytest.mark.parametrize("value", ["x\r\ny", "x" * 1025, ""])
def test_an_invalid_trace_header_is_refused(sqs: Any, url: str, value: str) -> None:
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": value}}
    with pytest.raises(ClientError) as raised:
        sqs.send_message(QueueUrl=url, MessageBody="x", MessageSystemAttributes=trace)
    assert code(raised) == "InvalidParameterValue"


def test_the_group_of_a_message_of_a_standard_queue_is_shown(
    sqs: Any, url: str, queue: str, http: httpx.Client
) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="x", MessageGroupId="tenant-1")
    http.post(f"/q/{queue}", content=b"y", headers={"X-Message-Group": "tenant-2"})
    sqs.send_message(QueueUrl=url, MessageBody="z")
    messages = receive(sqs, url, MaxNumberOfMessages=10)
    assert [message["Attributes"].get("MessageGroupId") for message in messages] == ["tenant-1", "tenant-2", None]
    assert not any("SequenceNumber" in message["Attributes"] or "MessageAttributes" in message for message in messages)


def test_a_trace_header_travels_with_its_message(sqs: Any, url: str) -> None:
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793"}}
    sent = sqs.send_message(QueueUrl=url, MessageBody="x", MessageSystemAttributes=trace)
    (message,) = receive(sqs, url)
    assert message["Attributes"]["AWSTraceHeader"] == trace["AWSTraceHeader"]["StringValue"]
    assert "MessageAttributes" not in message
    assert sent["MD5OfMessageSystemAttributes"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"MessageBody": "\x01"}, "InvalidMessageContents"),
        ({"MessageBody": ""}, "MissingParameter"),
        ({"MessageBody": "x" * 1_048_577}, "InvalidParameterValue"),
        ({"MessageBody": "x", "DelaySeconds": 901}, "InvalidParameterValue"),
        ({"MessageBody": "x", "DelaySeconds": -1}, "InvalidParameterValue"),
        ({"MessageBody": "x", "MessageDeduplicationId": "a"}, "InvalidParameterValue"),
        *(({"MessageBody": "x", "MessageGroupId": group}, "InvalidParameterValue") for group in ("", "a b", "g" * 129)),
        *(
            ({"MessageBody": "x", "MessageAttributes": {name: one}}, "InvalidParameterValue")
            for name, one in {
                "": {"DataType": "String", "StringValue": "x"},
                "AWS.x": {"DataType": "String", "StringValue": "x"},
                ".x": {"DataType": "String", "StringValue": "x"},
                "n" * 257: {"DataType": "String", "StringValue": "x"},
                "a": {"DataType": "Text", "StringValue": "x"},
                "b": {"DataType": "Number", "StringValue": "seven"},
                "c": {"DataType": "String", "StringValue": ""},
                "d": {"DataType": "String", "BinaryValue": b"x"},
                "e": {"DataType": "String", "StringValue": "\x01"},
            }.items()
        ),
        (
            {"MessageBody": "x", "MessageAttributes": {f"a{n}": ATTRIBUTES["size"] for n in range(11)}},
            "InvalidParameterValue",
        ),
    ],
)  # fmt: skip
def test_an_invalid_message_is_refused_with_amazons_code(
    sqs: Any, url: str, wanted: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ClientError) as raised:
        sqs.send_message(QueueUrl=url, **wanted)
    assert code(raised) == expected
    assert receive(sqs, url) == []


@pytest.mark.parametrize("operation", ["send_message", "receive_message", "delete_message", "purge_queue"])
def test_an_unknown_queue_is_told(sqs: Any, queue: str, daemon: Daemon, operation: str) -> None:
    more = {"send_message": {"MessageBody": "x"}, "delete_message": {"ReceiptHandle": "x"}}.get(operation, {})
    with pytest.raises(sqs.exceptions.QueueDoesNotExist) as raised:
        getattr(sqs, operation)(QueueUrl=f"http://127.0.0.1:{daemon.port}/000000000000/{queue}", **more)
    assert code(raised) == "AWS.SimpleQueueService.NonExistentQueue"


def test_entries_of_a_batch_succeed_and_fail_each_on_its_own(sqs: Any, url: str) -> None:
    entries = [
        {"Id": "good", "MessageBody": "one"},
        {"Id": "bad", "MessageBody": "two", "DelaySeconds": 9999},
        {"Id": "also-good", "MessageBody": "three", "MessageAttributes": ATTRIBUTES},
    ]
    answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert [one["Id"] for one in answer["Successful"]] == ["good", "also-good"]
    assert [(one["Id"], one["Code"], one["SenderFault"]) for one in answer["Failed"]] == [
        ("bad", "InvalidParameterValue", True)
    ]
    received = receive(sqs, url, MaxNumberOfMessages=10)
    assert [message["Body"] for message in received] == ["one", "three"]
    handles = [{"Id": "x", "ReceiptHandle": "nonsense"}]
    handles += [{"Id": f"m{n}", "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(received)]
    changed = sqs.change_message_visibility_batch(
        QueueUrl=url, Entries=[{**one, "VisibilityTimeout": 60} for one in handles]
    )
    assert ([one["Id"] for one in changed["Successful"]], changed["Failed"][0]["Id"]) == (["m0", "m1"], "x")
    deleted = sqs.delete_message_batch(QueueUrl=url, Entries=handles)
    assert [one["Id"] for one in deleted["Successful"]] == ["m0", "m1"]
    assert deleted["Failed"][0]["Code"] == "ReceiptHandleIsInvalid"


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([], "EmptyBatchRequest"),
        ([str(n) for n in range(11)], "TooManyEntriesInBatchRequest"),
        (["a", "a"], "BatchEntryIdsNotDistinct"),
        (["a b"], "InvalidBatchEntryId"),
        (["x" * 81], "InvalidBatchEntryId"),
    ],
)
def test_a_batch_that_is_wrong_as_a_whole_sends_nothing(sqs: Any, url: str, ids: list[str], expected: str) -> None:
    with pytest.raises(ClientError) as raised:
        sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": one, "MessageBody": "x"} for one in ids])
    assert code(raised) == f"AWS.SimpleQueueService.{expected}"
    assert receive(sqs, url) == []


def test_a_batch_of_more_than_a_mebibyte_is_refused(sqs: Any, url: str) -> None:
    entries = [{"Id": str(n), "MessageBody": "x" * 600_000} for n in range(2)]
    with pytest.raises(sqs.exceptions.BatchRequestTooLong):
        sqs.send_message_batch(QueueUrl=url, Entries=entries)


def test_a_received_message_is_hidden_until_its_visibility_timeout(sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="x")
    (first,) = receive(sqs, url, VisibilityTimeout=1)
    assert receive(sqs, url) == []
    (again,) = receive(sqs, url, WaitTimeSeconds=10)
    assert again["MessageId"] == first["MessageId"]
    assert again["Attributes"]["ApproximateReceiveCount"] == "2"
    assert (
        again["Attributes"]["ApproximateFirstReceiveTimestamp"]
        == first["Attributes"]["ApproximateFirstReceiveTimestamp"]
    )


def test_visibility_0_gives_a_message_back_at_once(sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="x")
    (first,) = receive(sqs, url)
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0)
    (again,) = receive(sqs, url)
    with pytest.raises(ClientError) as raised:
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=again["ReceiptHandle"], VisibilityTimeout=43_201)
    assert code(raised) == "InvalidParameterValue"


def test_a_handle_of_another_queue_is_invalid(sqs: Any, url: str, queue: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="x")
    (message,) = receive(sqs, url)
    other = sqs.create_queue(QueueName=f"{queue}-2")["QueueUrl"]
    with pytest.raises(sqs.exceptions.ReceiptHandleIsInvalid):
        sqs.delete_message(QueueUrl=other, ReceiptHandle=message["ReceiptHandle"])


def test_a_delayed_message_comes_later_and_counts_as_delayed(sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=1)
    assert receive(sqs, url) == []
    assert bodies(sqs.receive_message(QueueUrl=url, WaitTimeSeconds=10)) == ["later"]


def test_a_long_poll_answers_when_a_message_comes(sqs: Any, url: str, daemon: Daemon) -> None:
    got: list[str] = []
    waiting = threading.Thread(
        target=lambda: got.extend(bodies(connect(daemon.port).receive_message(QueueUrl=url, WaitTimeSeconds=20)))
    )
    waiting.start()
    with daemon.client() as http:
        name = url.rpartition("/")[2]
        wait_until(lambda: http.get(f"/stats/{name}").json()["waiters"] == 1)
    sqs.send_message(QueueUrl=url, MessageBody="now")
    waiting.join(10)
    assert got == ["now"]


def test_the_queues_own_wait_time_is_a_long_poll(sqs: Any, url: str, daemon: Daemon) -> None:
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"ReceiveMessageWaitTimeSeconds": "20"})
    got: list[str] = []
    waiting = threading.Thread(target=lambda: got.extend(bodies(connect(daemon.port).receive_message(QueueUrl=url))))
    waiting.start()
    with daemon.client() as http:
        wait_until(lambda: http.get(f"/stats/{url.rpartition('/')[2]}").json()["waiters"] == 1)
    sqs.send_message(QueueUrl=url, MessageBody="now")
    waiting.join(10)
    assert got == ["now"]


@pytest.mark.parametrize(
    "wrong",
    [{"MaxNumberOfMessages": 0}, {"MaxNumberOfMessages": 11}, {"WaitTimeSeconds": 21}, {"VisibilityTimeout": -1}],
)
def test_numbers_out_of_their_ranges_are_refused(sqs: Any, url: str, wrong: dict[str, int]) -> None:
    with pytest.raises(ClientError) as raised:
        sqs.receive_message(QueueUrl=url, **wrong)
    assert code(raised) == "InvalidParameterValue"
