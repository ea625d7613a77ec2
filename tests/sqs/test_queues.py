"""Queues, their attributes and tags, with boto3."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.servers import Redis, wait_until


def attributes_of(sqs: Any, url: str) -> dict[str, str]:
    found: dict[str, str] = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return found


def test_a_queue_made_twice_with_equal_attributes_is_the_same(sqs: Any, queue: str) -> None:
    attributes = {"VisibilityTimeout": "45", "DelaySeconds": "3"}
    first = sqs.create_queue(QueueName=queue, Attributes=attributes)["QueueUrl"]
    assert sqs.create_queue(QueueName=queue, Attributes=attributes)["QueueUrl"] == first
    assert sqs.create_queue(QueueName=queue)["QueueUrl"] == first
    with pytest.raises(sqs.exceptions.QueueNameExists) as raised:
        sqs.create_queue(QueueName=queue, Attributes={"DelaySeconds": "4"})
    assert raised.value.response["Error"]["Code"] == "QueueAlreadyExists"
    assert sqs.get_queue_url(QueueName=queue)["QueueUrl"] == first


def test_a_new_queue_has_amazons_defaults(sqs: Any, url: str, queue: str) -> None:
    found = attributes_of(sqs, url)
    assert found["QueueArn"] == f"arn:aws:sqs:us-east-1:000000000000:{queue}"
    expected = {
        "VisibilityTimeout": "30",
        "MessageRetentionPeriod": "345600",
        "MaximumMessageSize": "1048576",
        "DelaySeconds": "0",
        "ReceiveMessageWaitTimeSeconds": "0",
        "ApproximateNumberOfMessages": "0",
    }
    assert expected.items() <= found.items()


def test_a_message_has_the_time_to_live_that_the_queue_shows(sqs: Any, url: str, queue: str, redis: Redis) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="for four days")
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "60"})
    sqs.send_message(QueueUrl=url, MessageBody="for a minute")
    remaining_ms = [redis.command("PTTL", f"{queue}:{number}") for number in (1, 2)]
    assert 345_500_000 < remaining_ms[0] <= 345_600_000
    assert 0 < remaining_ms[1] <= 60_000


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"Colour": "red"}, "InvalidAttributeName"),
        ({"QueueArn": "x"}, "InvalidAttributeName"),
        ({"VisibilityTimeout": "43201"}, "InvalidAttributeValue"),
        ({"VisibilityTimeout": "-1"}, "InvalidAttributeValue"),
        ({"VisibilityTimeout": "١"}, "InvalidAttributeValue"),
        ({"MessageRetentionPeriod": "59"}, "InvalidAttributeValue"),
        ({"MaximumMessageSize": "1023"}, "InvalidAttributeValue"),
        ({"RedrivePolicy": "{"}, "InvalidAttributeValue"),
        ({"RedrivePolicy": "{}"}, "InvalidParameterValue"),
        ({"Policy": "[" * 100_000}, "InvalidAttributeValue"),
        ({"RedriveAllowPolicy": '{"redrivePermission": "byQueue", "sourceQueueArns": 5}'}, "InvalidAttributeValue"),
        ({"RedriveAllowPolicy": '{"redrivePermission": []}'}, "InvalidAttributeValue"),
        *(
            (
                {"RedriveAllowPolicy": json.dumps({"redrivePermission": "byQueue", "sourceQueueArns": arns})},
                "InvalidAttributeValue",
            )
            for arns in ([1], ["arn:aws:s3:::x"], ["arn:aws:sqs:us-east-1:0:x"] * 11)
        ),
        ({"Policy": json.dumps({"Version": "x" * 65_536})}, "InvalidAttributeValue"),
        ({"RedrivePolicy": '{"deadLetterTargetArn": [], "maxReceiveCount": {}}'}, "InvalidParameterValue"),
        ({"ContentBasedDeduplication": "true"}, "InvalidAttributeName"),
        ({"FifoQueue": "true"}, "InvalidParameterValue"),
    ],
)
def test_an_invalid_attribute_makes_no_queue(sqs: Any, queue: str, attributes: dict[str, str], expected: str) -> None:
    with pytest.raises(ClientError) as raised:
        sqs.create_queue(QueueName=queue, Attributes=attributes)
    assert raised.value.response["Error"]["Code"] == expected
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName=queue)


@pytest.mark.parametrize("name", ["", "x" * 81, "a b", "a/b", "a.b", "ä", "x" * 76 + ".fifo"])
def test_a_name_that_sqs_does_not_allow_makes_no_queue(sqs: Any, name: str) -> None:
    with pytest.raises(ClientError) as raised:
        sqs.create_queue(QueueName=name)
    assert raised.value.response["Error"]["Code"] == "InvalidParameterValue"


def test_attributes_are_changed_and_shown(sqs: Any, url: str) -> None:
    wanted = {"VisibilityTimeout": "0", "DelaySeconds": "900", "Policy": json.dumps({"Version": "2012-10-17"})}
    sqs.set_queue_attributes(QueueUrl=url, Attributes=wanted)
    assert wanted.items() <= attributes_of(sqs, url).items()
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "7", "Policy": ""})
    found = attributes_of(sqs, url)
    assert (found["VisibilityTimeout"], "Policy" in found) == ("7", False)
    some = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", "DelaySeconds"])["Attributes"]
    assert some.keys() == {"QueueArn", "DelaySeconds"}


def test_the_numbers_of_messages_are_shown_by_state(sqs: Any, url: str) -> None:
    for delay in (0, 0, 60):
        sqs.send_message(QueueUrl=url, MessageBody="x", DelaySeconds=delay)
    sqs.receive_message(QueueUrl=url)
    found = attributes_of(sqs, url)
    names = (
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    )
    assert [found[name] for name in names] == ["1", "1", "1"]


def test_the_queues_delay_and_size_hold_for_its_messages(sqs: Any, url: str) -> None:
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"DelaySeconds": "60", "MaximumMessageSize": "1024"})
    sqs.send_message(QueueUrl=url, MessageBody="later")
    assert attributes_of(sqs, url)["ApproximateNumberOfMessagesDelayed"] == "1"
    with pytest.raises(ClientError) as raised:
        sqs.send_message(QueueUrl=url, MessageBody="x" * 1025)
    assert "1024 bytes" in raised.value.response["Error"]["Message"]


def test_tags_are_set_listed_and_removed(sqs: Any, queue: str) -> None:
    url = sqs.create_queue(QueueName=queue, tags={"team": "mail", "owner": "x"})["QueueUrl"]
    sqs.tag_queue(QueueUrl=url, Tags={"stage": "test"})
    sqs.untag_queue(QueueUrl=url, TagKeys=["team"])
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"owner": "x", "stage": "test"}
    with pytest.raises(ClientError):
        sqs.tag_queue(QueueUrl=url, Tags={str(n): "x" for n in range(51)})


def test_queues_are_listed_by_prefix_and_page(sqs: Any, queue: str) -> None:
    urls = [sqs.create_queue(QueueName=f"{queue}-{n}")["QueueUrl"] for n in range(5)]
    assert sqs.list_queues(QueueNamePrefix=queue)["QueueUrls"] == urls
    pages = list(sqs.get_paginator("list_queues").paginate(QueueNamePrefix=queue, PaginationConfig={"PageSize": 2}))
    assert [page["QueueUrls"] for page in pages] == [urls[:2], urls[2:4], urls[4:]]
    assert "QueueUrls" not in sqs.list_queues(QueueNamePrefix=queue + "-nothing")
    with pytest.raises(ClientError):
        sqs.list_queues(MaxResults=0)


def test_a_deleted_queue_is_gone_with_its_messages(sqs: Any, url: str, queue: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="x")
    sqs.delete_queue(QueueUrl=url)
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.receive_message(QueueUrl=url)
    again = sqs.create_queue(QueueName=queue)["QueueUrl"]
    assert "Messages" not in sqs.receive_message(QueueUrl=again)


def test_a_purged_queue_is_empty_and_keeps_its_attributes(sqs: Any, queue: str) -> None:
    url = sqs.create_queue(QueueName=queue, Attributes={"VisibilityTimeout": "77"})["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="x")
    sqs.purge_queue(QueueUrl=url)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    assert attributes_of(sqs, url)["VisibilityTimeout"] == "77"


def test_a_message_received_too_often_goes_to_the_dead_letter_queue(sqs: Any, url: str, queue: str) -> None:
    dead = sqs.create_queue(QueueName=f"{queue}-dead")["QueueUrl"]
    policy = {"deadLetterTargetArn": attributes_of(sqs, dead)["QueueArn"], "maxReceiveCount": "2"}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    text = {"colour": {"DataType": "String", "StringValue": "red"}}
    sent = sqs.send_message(QueueUrl=url, MessageBody="poison", MessageAttributes=text)
    for _ in range(2):
        (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    (letter,) = wait_until(
        lambda: sqs.receive_message(QueueUrl=dead, AttributeNames=["All"], MessageAttributeNames=["All"]).get(
            "Messages"
        )
    )
    assert (letter["Body"], letter["MessageId"], letter["MessageAttributes"]) == ("poison", sent["MessageId"], text)
    assert letter["Attributes"]["DeadLetterQueueSourceArn"].endswith(f":{queue}")
    assert letter["Attributes"]["ApproximateReceiveCount"] == "3", "receives are counted across all queues"
    assert json.loads(attributes_of(sqs, url)["RedrivePolicy"])["maxReceiveCount"] == 2


def test_a_dead_letter_is_kept_for_the_retention_of_its_queue(
    sqs: Any, url: str, queue: str, http: httpx.Client
) -> None:
    kept = {"MessageRetentionPeriod": "1209600"}
    dead = sqs.create_queue(QueueName=f"{queue}-dead", Attributes=kept)["QueueUrl"]
    policy = json.dumps({"deadLetterTargetArn": attributes_of(sqs, dead)["QueueArn"], "maxReceiveCount": 1})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "60", "RedrivePolicy": policy})
    sqs.send_message(QueueUrl=url, MessageBody="poison")
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    (letter,) = sqs.receive_message(QueueUrl=dead, AttributeNames=["SentTimestamp"], WaitTimeSeconds=20)["Messages"]
    key = base64.urlsafe_b64decode(letter["ReceiptHandle"]).decode().split("\n")[0]
    expires_ms = http.get(f"/m/{key}").json()["expires"]
    assert expires_ms - int(letter["Attributes"]["SentTimestamp"]) == 1_209_600_000


def test_the_sources_of_a_dead_letter_queue_are_listed_by_page(sqs: Any, queue: str) -> None:
    names = [f"{queue}-{number}" for number in range(3)]
    for name in (*names, f"{queue}-dead", f"{queue}-dead2"):
        sqs.create_queue(QueueName=name)

    def redrive(name: str, target: str) -> None:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        policy = {"deadLetterTargetArn": f"arn:aws:sqs:us-east-1:0:{target}", "maxReceiveCount": 2}
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy) if target else ""})

    def sources(**more: Any) -> list[str]:
        dead = sqs.get_queue_url(QueueName=f"{queue}-dead")["QueueUrl"]
        pages = sqs.get_paginator("list_dead_letter_source_queues").paginate(QueueUrl=dead, **more)
        return [url.rpartition("/")[2] for page in pages for url in page["queueUrls"]]

    for name in names:
        redrive(name, f"{queue}-dead")
    assert sources() == sources(PaginationConfig={"PageSize": 1}) == names
    redrive(names[0], "")
    redrive(names[1], f"{queue}-dead2")
    assert sources() == names[2:]
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=names[2])["QueueUrl"])
    assert sources() == []


def test_one_task_at_a_time_moves_the_messages_of_a_dead_letter_queue(sqs: Any, url: str, queue: str) -> None:
    dead = sqs.create_queue(QueueName=f"{queue}-dead")["QueueUrl"]
    source = attributes_of(sqs, dead)["QueueArn"]
    task = {"SourceArn": source, "DestinationArn": attributes_of(sqs, url)["QueueArn"]}

    def refused(function: Any, **arguments: Any) -> tuple[str, str]:
        with pytest.raises(ClientError) as raised:
            function(**arguments)
        error = raised.value.response["Error"]
        return error["Code"], error["Message"].partition(".")[0]

    start, invalid = sqs.start_message_move_task, "InvalidParameterValue"
    assert refused(start, **task) == (invalid, "Source queue must be configured as a Dead Letter Queue")
    policy = json.dumps({"deadLetterTargetArn": source, "maxReceiveCount": 1})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    for number in (-1, 0, 501):
        assert refused(start, **task, MaxNumberOfMessagesPerSecond=number)[0] == invalid
    for _ in range(6):  # more than are moved before the last line
        sqs.send_message_batch(QueueUrl=dead, Entries=[{"Id": str(n), "MessageBody": str(n)} for n in range(10)])
    handle = start(**task, MaxNumberOfMessagesPerSecond=1)["TaskHandle"]
    assert refused(start, **task) == (invalid, "There is already a task running")
    sqs.cancel_message_move_task(TaskHandle=handle)
    assert refused(sqs.cancel_message_move_task, TaskHandle=handle)[0] == "AWS.SimpleQueueService.UnsupportedOperation"
    assert refused(sqs.cancel_message_move_task, TaskHandle="nonsense")[0] == invalid
    assert sqs.list_message_move_tasks(SourceArn=source)["Results"][0]["Status"] == "CANCELLED"


@pytest.mark.parametrize("other", ["no-such-queue-anywhere", None])
def test_a_dead_letter_queue_must_exist_and_be_another_one(sqs: Any, url: str, queue: str, other: str | None) -> None:
    arn = f"arn:aws:sqs:us-east-1:000000000000:{other or queue}"
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    with pytest.raises(ClientError) as raised:
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    expected = "AWS.SimpleQueueService.NonExistentQueue" if other else "InvalidParameterValue"
    assert raised.value.response["Error"]["Code"] == expected


def test_a_dead_letter_queue_can_refuse_sources(sqs: Any, url: str, queue: str) -> None:
    allow = json.dumps({"redrivePermission": "denyAll"})
    dead = sqs.create_queue(QueueName=f"{queue}-dead", Attributes={"RedriveAllowPolicy": allow})["QueueUrl"]
    policy = json.dumps({"deadLetterTargetArn": attributes_of(sqs, dead)["QueueArn"], "maxReceiveCount": 2})
    with pytest.raises(ClientError) as raised:
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    assert raised.value.response["Error"]["Code"] == "InvalidParameterValue"


def test_permissions_of_queues_are_not_supported(sqs: Any, url: str) -> None:
    with pytest.raises(sqs.exceptions.UnsupportedOperation):
        sqs.add_permission(QueueUrl=url, Label="x", AWSAccountIds=["111111111111"], Actions=["SendMessage"])
