"""One queue for all: what SQS clients, curl and browsers see of each other."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from tests.servers import Daemon, wait_until
from tests.sqs.clients import bodies

ATTRIBUTES = {
    "Colour": {"DataType": "String", "StringValue": "grün"},
    "size": {"DataType": "Number", "StringValue": "17"},
    "raw": {"DataType": "Binary", "BinaryValue": b"\0\1"},
    "lines": {"DataType": "String", "StringValue": "a\nb"},
}


def receive(sqs: Any, url: str) -> dict[str, Any]:
    answer = sqs.receive_message(QueueUrl=url, AttributeNames=["All"], MessageAttributeNames=["All"], WaitTimeSeconds=5)
    (message,) = answer["Messages"]
    return dict(message)


def test_curl_takes_a_message_of_boto3_with_its_attributes_as_headers(
    sqs: Any, url: str, queue: str, daemon: Daemon
) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="größe", MessageAttributes=ATTRIBUTES)
    command = ["curl", "-si", f"http://127.0.0.1:{daemon.port}/q/{queue}?raw=1"]
    head, _, body = subprocess.run(command, capture_output=True, check=True).stdout.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert body.decode() == "größe"
    assert {"x-message-attribute-colour: grün", "x-message-attribute-size: 17", "x-message-attribute-raw: aae="} <= {
        *lines
    }
    assert not [line for line in lines if line.startswith("x-message-attribute-lines")]


def test_json_shows_all_attributes_with_their_types(sqs: Any, url: str, queue: str, http: httpx.Client) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="x", MessageAttributes=ATTRIBUTES)
    assert http.get(f"/q/{queue}").json()["attributes"] == {
        "Colour": {"type": "String", "value": "grün"},
        "size": {"type": "Number", "value": "17"},
        "raw": {"type": "Binary", "value": "AAE="},
        "lines": {"type": "String", "value": "a\nb"},
    }


def test_boto3_receives_a_message_of_curl_with_its_headers_as_attributes(
    sqs: Any, url: str, queue: str, http: httpx.Client
) -> None:
    headers = {
        "Content-Type": "image/svg+xml",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "X-Message-Attribute-Colour": "red",
        "X-Message-Kind": "picture",
    }
    http.post(f"/q/{queue}", content=b"<svg/>", headers=headers)
    message = receive(sqs, url)
    assert message["Body"] == "<svg/>"
    assert {name: one["StringValue"] for name, one in message["MessageAttributes"].items()} == {
        "content-type": "image/svg+xml",
        "traceparent": headers["traceparent"],
        "colour": "red",
        "x-message-kind": "picture",
    }


def test_a_plain_form_and_bytes_of_curl_are_received_too(
    sqs: Any, queue: str, http: httpx.Client, daemon: Daemon
) -> None:
    http.post(f"/p/{queue}", data={"policy": "roundrobin"})
    http.post(f"/q/{queue}", data={"value": "plain"})
    http.post(f"/q/{queue}", content=b"\xff\0", headers={"Content-Type": "application/octet-stream"})
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    plain, binary = receive(sqs, url), receive(sqs, url)
    assert (plain["Body"], "MessageAttributes" in plain) == ("plain", False)
    assert int(plain["Attributes"]["SentTimestamp"]) > 0
    assert base64.b64decode(binary["Body"]) == b"\xff\0"
    assert binary["MessageAttributes"]["restmq-encoding"]["StringValue"] == "base64"
    sqs.delete_message(QueueUrl=url, ReceiptHandle=plain["ReceiptHandle"])
    assert http.get(f"/stats/{queue}").json()["leased"] == 1


def test_a_received_message_keeps_its_id_whoever_sent_it(sqs: Any, queue: str, http: httpx.Client) -> None:
    http.post(f"/q/{queue}", data={"value": "x"})
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    first = receive(sqs, url)
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=0)
    assert receive(sqs, url)["MessageId"] == first["MessageId"]


@pytest.mark.parametrize("path", ["/sse/", "/tap/"])
def test_a_browser_sees_what_boto3_sends(sqs: Any, url: str, queue: str, http: httpx.Client, path: str) -> None:
    if path == "/sse/":
        http.post(f"/p/{queue}", data={"policy": "broadcast"})
    with connect_sse(http, "GET", f"{path}{queue}", timeout=20) as events:
        assert events.response.status_code == 200
        stream = events.iter_sse()
        sqs.send_message(QueueUrl=url, MessageBody="seen")
        shown = next(event for event in stream if "seen" in event.data)
    assert shown.data
    left = bodies(sqs.receive_message(QueueUrl=url))
    assert left == ([] if path == "/sse/" else ["seen"])


def test_a_queue_that_sqs_makes_is_round_robin_so_nobody_else_takes_its_messages(
    sqs: Any, url: str, queue: str, http: httpx.Client
) -> None:
    assert http.get(f"/p/{queue}").json()["value"] == "roundrobin"


def test_settings_and_attributes_are_the_same_on_both_sides(sqs: Any, url: str, queue: str, http: httpx.Client) -> None:
    dead = sqs.create_queue(QueueName=f"{queue}-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "90", "RedrivePolicy": policy})
    settings = http.get(f"/p/{queue}").json()
    assert (settings["lease"], settings["max_deliveries"], settings["dead_letter"]) == (90, 5, f"{queue}-dead")
    http.post(f"/p/{queue}", data={"policy": "roundrobin", "lease": "12", "max_deliveries": "3"})
    shown = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert (shown["VisibilityTimeout"], json.loads(shown["RedrivePolicy"])["maxReceiveCount"]) == ("12", 3)
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [url]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": ""})
    assert http.get(f"/p/{queue}").json().get("dead_letter", "") == ""


def test_leases_of_one_side_are_leases_of_the_other(sqs: Any, url: str, queue: str, http: httpx.Client) -> None:
    for body in ("of sqs", "of http"):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    message = receive(sqs, url)
    leased = http.get(f"/q/{queue}", params={"lease": 60}).json()
    assert (message["Body"], leased["value"]) == ("of sqs", "of http")
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    shown = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert shown["ApproximateNumberOfMessagesNotVisible"] == "2"
    states = [http.get(f"/m/{queue}:{number}").json()["state"] for number in (1, 2)]
    assert states == ["leased", "leased"]
    assert http.delete(f"/m/{leased['key']}", params={"receipt": leased["receipt"]}).status_code == 204
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert http.get(f"/stats/{queue}").json()["totals"]["acked"] == 2


def test_dead_letters_of_http_and_of_sqs_are_the_same(sqs: Any, url: str, queue: str, http: httpx.Client) -> None:
    dead = sqs.create_queue(QueueName=f"{queue}-dead")["QueueUrl"]
    http.post(f"/p/{queue}", data={"policy": "roundrobin", "max_deliveries": "1", "dead_letter": f"{queue}-dead"})
    http.post(f"/q/{queue}", content=b"poison", headers={"X-Message-Kind": "bad", "Content-Type": "text/plain"})
    leased = http.get(f"/q/{queue}", params={"lease": 60}).json()
    http.post(f"/m/{leased['key']}", data={"receipt": leased["receipt"], "lease": "0"})
    asked = {"QueueUrl": dead, "AttributeNames": ["All"], "MessageAttributeNames": ["All"]}
    (letter,) = wait_until(lambda: sqs.receive_message(**asked).get("Messages"))
    assert letter["Body"] == "poison"
    assert letter["MessageAttributes"]["x-message-kind"]["StringValue"] == "bad"
    assert letter["Attributes"]["DeadLetterQueueSourceArn"].endswith(f":{queue}")


def test_the_timeout_of_a_queue_is_its_lease_even_if_it_is_0(
    sqs: Any, url: str, queue: str, http: httpx.Client
) -> None:
    for setting, hidden_seconds in (("77", 77), ("0", 30)):
        http.post(f"/p/{queue}", data={"lease": setting})
        sqs.send_message(QueueUrl=url, MessageBody="x")
        (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
        key = base64.urlsafe_b64decode(message["ReceiptHandle"]).decode().split("\n")[0]
        found = http.get(f"/m/{key}").json()
        assert found["due"] - found["last"] == hidden_seconds * 1000
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "0"})
    sqs.send_message(QueueUrl=url, MessageBody="seen")
    for _ in range(2):
        wait_until(lambda: bodies(sqs.receive_message(QueueUrl=url)) == ["seen"])


def test_metrics_count_operations_and_errors(sqs: Any, url: str, http: httpx.Client) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="x")
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName="no-such-queue")
    sqs.delete_message_batch(QueueUrl=url, Entries=[{"Id": "x", "ReceiptHandle": "nonsense"}])
    lines = http.get("/metrics").text.splitlines()

    def value(name: str) -> float:
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    assert value('restmq_http_request_duration_seconds_count{method="POST",route="sqs:SendMessage",status="200"}') >= 1
    missing = "AWS.SimpleQueueService.NonExistentQueue"
    assert value(f'restmq_sqs_errors_total{{code="{missing}",operation="GetQueueUrl"}}') >= 1
    assert value('restmq_sqs_errors_total{code="ReceiptHandleIsInvalid",operation="DeleteMessageBatch"}') >= 1


def test_queues_with_other_names_are_reached_by_their_encoded_urls(sqs: Any, queue: str, http: httpx.Client) -> None:
    name = f"{queue}/größe x"
    http.post(f"/q/{queue}%2Fgr%C3%B6%C3%9Fe%20x", data={"value": "found"})
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    assert bodies(sqs.receive_message(QueueUrl=url)) == ["found"]
    assert "QueueUrls" not in sqs.list_queues(QueueNamePrefix=f"{queue}/")
