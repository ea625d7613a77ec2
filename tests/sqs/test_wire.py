"""Both protocols, byte for byte, as clients without an SDK would send them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from typing import Any

import httpx
import pytest

from tests.servers import ROOT

COMMON, SERVICE = "com.amazon.coral.service#", "com.amazonaws.sqs#"
MALFORMED = (COMMON + "SerializationException", "MalformedInput")
MISSING = (COMMON + "MissingRequiredParameterException", "MissingParameter")
UNKNOWN = (COMMON + "UnknownOperationException", "InvalidAction")
INVALID = (COMMON + "InvalidParameterValueException", "InvalidParameterValue")
NO_QUEUE = (SERVICE + "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue")
NO_ADDRESS = (SERVICE + "InvalidAddress", "InvalidAddress")
JSON = {"Content-Type": "application/x-amz-json-1.0"}
SPACE = "{http://queue.amazonaws.com/doc/2012-11-05/}"


def call(http: httpx.Client, operation: str, content: bytes | str, path: str = "/", **headers: str) -> httpx.Response:
    return http.post(path, content=content, headers={**JSON, "X-Amz-Target": f"AmazonSQS.{operation}", **headers})


def action(http: httpx.Client, name: str, path: str = "/", **fields: Any) -> ElementTree.Element:
    answer = http.post(path, data={"Action": name, "Version": "2012-11-05", **fields})
    assert answer.headers["content-type"].startswith("text/xml")
    return ElementTree.fromstring(answer.content)


def texts(answer: ElementTree.Element, name: str) -> list[str | None]:
    return [element.text for element in answer.iter(SPACE + name)]


@pytest.mark.parametrize("path", ["/", "/sqs", "/sqs/", "/000000000000/anything", "/q/x"])
def test_the_json_protocol_is_spoken_at_every_path(http: httpx.Client, queue: str, path: str) -> None:
    answer = call(http, "CreateQueue", f'{{"QueueName": "{queue}"}}', path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-amz-json-1.0"
    assert answer.headers["x-amzn-requestid"]
    assert answer.json()["QueueUrl"].endswith(f"/000000000000/{queue}")


@pytest.mark.parametrize(
    ("operation", "content", "error"),
    [
        ("SendMessage", b"{", MALFORMED),
        ("SendMessage", b"\xff\xfe", MALFORMED),
        ("SendMessage", b"[]", MALFORMED),
        ("SendMessage", b'{"QueueUrl": 7}', MALFORMED),
        ("SendMessage", b'{"QueueUrl":"x","MessageBody":"\\ud800"}', MALFORMED),
        ("SendMessage", b"", MISSING),
        ("SendMessage", b'{"QueueUrl":null}', MISSING),
        ("Nothing", b"{}", UNKNOWN),
        ("SendMessage.x", b"{}", UNKNOWN),
        ("", b"{}", UNKNOWN),
        ("GetQueueUrl", b'{"QueueName":"no-such-queue"}', NO_QUEUE),
        ("DeleteQueue", b'{"QueueUrl":"/"}', NO_ADDRESS),
        ("DeleteQueue", b'{"QueueUrl":"http://h/1/%ff"}', NO_ADDRESS),
        ("DeleteQueue", b'{"QueueUrl":"http://h/1/%00"}', INVALID),
    ],
)
def test_errors_in_json_have_a_type_and_the_code_of_the_query_protocol(
    http: httpx.Client, operation: str, content: bytes, error: tuple[str, str]
) -> None:
    answer = call(http, operation, content)
    assert 400 <= answer.status_code < 500
    assert (answer.json()["__type"], answer.headers["x-amzn-query-error"]) == (error[0], f"{error[1]};Sender")
    assert answer.json()["message"]


@pytest.mark.parametrize(
    "target", ["ListQueues", "AmazonSQS", "DynamoDB_20120810.ListQueues", "x.AmazonSQS.ListQueues"]
)
def test_the_target_of_another_service_is_unknown(http: httpx.Client, target: str) -> None:
    answer = call(http, "", b"{}", **{"X-Amz-Target": target})
    assert (answer.status_code, answer.headers["x-amzn-query-error"]) == (400, "InvalidAction;Sender")


def test_nested_json_is_refused_at_once(http: httpx.Client) -> None:
    answer = call(http, "SendMessage", b'{"MessageAttributes":' + b"[" * 100_000)
    assert answer.status_code == 400
    assert call(http, "SendMessage", b" " * (7 << 20)).status_code == 413


@pytest.mark.parametrize(
    "content",
    [
        b'{"Entries":[' + b",".join([b"{}"] * 500_000) + b"]}",
        b'{"Attributes":{' + b",".join(b'"%d":""' % number for number in range(100_000)) + b"}}",
        b'{"AttributeNames":[' + b",".join([b'"\\\\"'] * 100_000) + b"]}",
    ],
)
def test_a_million_members_are_refused_before_they_cost_time(http: httpx.Client, content: bytes) -> None:
    answer = call(http, "SendMessageBatch", content)
    assert (answer.status_code, answer.json()["message"]) == (413, "The request has too many members.")


def test_a_message_of_a_mebibyte_of_quotes_is_no_such_request(http: httpx.Client, queue: str) -> None:
    url = call(http, "CreateQueue", json.dumps({"QueueName": queue})).json()["QueueUrl"]
    body = '\\"{},[]' * 149_000
    answer = call(http, "SendMessage", json.dumps({"QueueUrl": url, "MessageBody": body}))
    assert answer.json()["MD5OfMessageBody"] == hashlib.md5(body.encode()).hexdigest()


def test_a_server_without_sqs_clients_does_not_load_their_modules() -> None:
    code = "import sys, restmq.server.service; print([name for name in sys.modules if 'frontends' in name])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_an_old_client_sends_receives_and_deletes_over_the_query_protocol(http: httpx.Client, queue: str) -> None:
    attributes = {"Attribute.1.Name": "VisibilityTimeout", "Attribute.1.Value": "5"}
    made = action(http, "CreateQueue", QueueName=queue, **attributes, **{"Tag.1.Key": "team", "Tag.1.Value": "mail"})
    (url,) = texts(made, "QueueUrl")
    path = f"/000000000000/{queue}"
    assert url is not None and url.endswith(path)
    assert made.findtext(f"{SPACE}CreateQueueResult/{SPACE}QueueUrl") == url
    body = 'a < b & "c"\r\n]]> ✓'
    sent = action(http, "SendMessage", path, MessageBody=body, DelaySeconds="0", **{
        "MessageAttribute.1.Name": "colour", "MessageAttribute.1.Value.DataType": "String",
        "MessageAttribute.1.Value.StringValue": "red", "MessageAttribute.2.Name": "raw",
        "MessageAttribute.2.Value.DataType": "Binary", "MessageAttribute.2.Value.BinaryValue": "AAE="})  # fmt: skip
    received = action(http, "ReceiveMessage", path, MaxNumberOfMessages="10", **{"AttributeName.1": "All",
                      "MessageAttributeName.1": "All"})  # fmt: skip
    assert texts(received, "Body") == [body]
    assert texts(received, "MessageId") == texts(sent, "MessageId")
    assert texts(received, "MD5OfMessageAttributes") == texts(sent, "MD5OfMessageAttributes")
    assert (texts(received, "StringValue"), texts(received, "BinaryValue")) == (["red"], ["AAE="])
    assert "ApproximateReceiveCount" in texts(received, "Name")
    (handle,) = texts(received, "ReceiptHandle")
    action(http, "ChangeMessageVisibility", path, ReceiptHandle=handle, VisibilityTimeout="10")
    deleted = action(http, "DeleteMessage", path, ReceiptHandle=handle)
    assert deleted.tag == SPACE + "DeleteMessageResponse"
    shown = action(http, "GetQueueAttributes", QueueUrl=url, **{"AttributeName.1": "VisibilityTimeout"})
    assert (texts(shown, "Name"), texts(shown, "Value")) == (["VisibilityTimeout"], ["5"])
    tags = action(http, "ListQueueTags", QueueUrl=url)
    assert (texts(tags, "Key"), texts(tags, "Value")) == (["team"], ["mail"])


def test_batches_over_the_query_protocol(http: httpx.Client, queue: str) -> None:
    action(http, "CreateQueue", QueueName=queue)
    path = f"/000000000000/{queue}"
    entry = "SendMessageBatchRequestEntry"
    fields = {
        f"{entry}.{n}.{name}": value for n in (1, 2, 10) for name, value in (("Id", f"e{n}"), ("MessageBody", f"b{n}"))
    }
    fields[f"{entry}.2.DelaySeconds"] = "9999"
    sent = action(http, "SendMessageBatch", path, **fields)
    results = [[element.findtext(SPACE + "Id") for element in sent.iter(SPACE + name)] for name in
               ("SendMessageBatchResultEntry", "BatchResultErrorEntry")]  # fmt: skip
    assert results == [["e1", "e10"], ["e2"]]
    received = action(http, "ReceiveMessage", path, MaxNumberOfMessages="10")
    assert texts(received, "Body") == ["b1", "b10"]


def test_a_query_may_stand_in_the_url(http: httpx.Client, queue: str) -> None:
    answer = http.get("/", params={"Action": "CreateQueue", "Version": "2012-11-05", "QueueName": queue})
    assert queue in answer.text
    listed = http.get("/", params={"Action": "ListQueues", "Version": "2012-11-05", "QueueNamePrefix": queue})
    assert texts(ElementTree.fromstring(listed.content), "QueueUrl") == texts(
        ElementTree.fromstring(answer.content), "QueueUrl"
    )


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"Action": "GetQueueUrl", "QueueName": "no-such-queue"}, "AWS.SimpleQueueService.NonExistentQueue"),
        ({"Action": "Nothing"}, "InvalidAction"),
        ({"Action": ""}, "InvalidAction"),
        *(
            ({"Action": "SendMessage", "QueueUrl": "x", "MessageBody": "x", name: "String"}, "MalformedInput")
            for name in (
                "MessageAttribute",
                "MessageAttribute.1",
                "MessageAttribute.1.Value.DataType",
                "MessageAttribute.x.Name",
                "MessageAttribute.1.Name.1",
                "MessageBody.1",
            )
        ),
        ({"Action": "ReceiveMessage", "QueueUrl": "x", "MaxNumberOfMessages": "ten"}, "MalformedInput"),
        ({"Action": "CreateQueue", "QueueName": "x", "Attribute.1": "y", "Attribute.1.Name": "z"}, "MalformedInput"),
    ],
)
def test_errors_of_the_query_protocol_are_xml(http: httpx.Client, fields: dict[str, Any], code: str) -> None:
    answer = http.post("/", data=fields)
    shown = ElementTree.fromstring(answer.content)
    assert (answer.status_code, shown.tag) == (400, SPACE + "ErrorResponse")
    assert (texts(shown, "Code"), texts(shown, "Type")) == ([code], ["Sender"])
    assert texts(shown, "RequestId") == [answer.headers["x-amzn-requestid"]]


def test_a_field_that_is_not_utf_8_is_refused(http: httpx.Client) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = http.post("/", content=b"Action=CreateQueue&Version=2012-11-05&QueueName=%ff", headers=form)
    assert (answer.status_code, texts(ElementTree.fromstring(answer.content), "Code")) == (400, ["MalformedInput"])


def test_a_form_of_another_service_is_none_of_sqs(http: httpx.Client) -> None:
    answer = http.post("/", data={"Action": "GetCallerIdentity", "Version": "2011-06-15"})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")


def test_a_form_with_the_field_queue_is_still_restmqs_own(http: httpx.Client, queue: str) -> None:
    fields = {"queue": queue, "value": "x", "Action": "SendMessage", "Version": "2012-11-05"}
    assert http.post("/", data=fields).text == f"{queue}:1\r\n"
    assert http.post("/", data={"queue": queue, "value": "Version=2012-11-05&Action=x"}).text == f"{queue}:2\r\n"
    raw = f"queue={queue}&value=Version=2012-11-05"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert http.post("/", content=raw, headers=form).text == f"{queue}:3\r\n"
