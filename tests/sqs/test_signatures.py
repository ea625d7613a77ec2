"""Signature Version 4: who must sign, and what is refused. botocore's own signer signs."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import botocore.auth
import httpx
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests import forked
from tests.servers import ROOT, Daemon, Redis, environment, stopping, wait_until
from tests.sqs.clients import connect


@pytest.fixture
def signing(private_folder: Path, private_redis: Redis) -> Iterator[Daemon]:
    """A daemon all of whose SQS clients must sign."""
    with stopping(Daemon(private_folder / "daemon", "--sqs-auth", "sigv4", redis=private_redis)) as server:
        yield server


def make_key(redis: Redis, queues: str = "*", privileges: str = "read,write,create,admin") -> tuple[str, str]:
    """The id and the secret of a new access key."""
    asked = [
        "--redis-socket",
        redis.socket_path,
        "--create-token",
        "--signing",
        "--queue",
        queues,
        "--privs",
        privileges,
    ]
    told = forked.program("restmq_engine", asked, ROOT, environment(), b"")
    key, secret = told.stdout.decode().split()
    return key, secret


def code_of(function: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as raised:
        function(**arguments)
    return str(raised.value.response["Error"]["Code"])


def signed(daemon: Daemon, key: tuple[str, ...], body: bytes, **headers: str) -> dict[str, str]:
    """The headers of a signed request."""
    target = {"X-Amz-Target": "AmazonSQS.ListQueues", "Content-Type": "application/x-amz-json-1.0", **headers}
    request = AWSRequest("POST", f"http://127.0.0.1:{daemon.port}/", headers=target, data=body)
    SigV4Auth(Credentials(*key), "sqs", "us-east-1").add_auth(request)
    return dict(request.headers)


def test_a_signed_request_is_served_and_others_are_refused(signing: Daemon, private_redis: Redis) -> None:
    key, secret = make_key(private_redis)
    sqs = connect(signing.port, key, secret)
    url = sqs.create_queue(QueueName="jobs")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="x")
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "x"
    assert code_of(connect(signing.port, key, secret + "x").list_queues) == "SignatureDoesNotMatch"
    assert code_of(connect(signing.port, "unknown", secret).list_queues) == "InvalidClientTokenId"
    with signing.client() as http:
        target = {"X-Amz-Target": "AmazonSQS.ListQueues"}
        unsigned = http.post("/", content=b"{}", headers=target)
        assert unsigned.headers["x-amzn-query-error"] == "MissingAuthenticationToken;Sender"
        half = http.post("/", content=b"{}", headers={**target, "Authorization": "AWS4-HMAC-SHA256 Credential=x"})
        assert half.headers["x-amzn-query-error"] == "IncompleteSignature;Sender"
        bearer = http.post("/", content=b"{}", headers={**target, "Authorization": f"Bearer {key}"})
        assert bearer.status_code == 400
        assert http.post("/", content=b"{}", headers=target, auth=("any", "any")).status_code == 400
        assert http.post("/", content=b"{}", headers=target, params={"authkey": key}).status_code == 403


def test_a_changed_body_header_or_path_is_refused(signing: Daemon, private_redis: Redis) -> None:
    key = make_key(private_redis)
    body = b'{"MaxResults": 5, "QueueUrl": "x"}'
    headers = signed(signing, key, body)
    with signing.client() as http:
        assert http.post("/", content=body, headers=headers).status_code == 200

        def refused(answer: httpx.Response) -> bool:
            return (answer.status_code, answer.headers["x-amzn-query-error"]) == (403, "SignatureDoesNotMatch;Sender")

        assert refused(http.post("/", content=body.replace(b"5", b"6"), headers=headers))
        assert refused(http.post("/?x=1", content=body, headers=headers))
        assert refused(http.post("/other", content=body, headers=headers))
        purge = {**headers, "X-Amz-Target": "AmazonSQS.PurgeQueue"}
        assert refused(http.post("/", content=body, headers=purge))
        extra = http.post("/", content=body, headers={**headers, "X-Amz-More": "x"})
        assert extra.headers["x-amzn-query-error"] == "IncompleteSignature;Sender"


def test_a_signature_may_have_a_session_token_and_come_with_a_chunked_body(
    signing: Daemon, private_redis: Redis
) -> None:
    headers = signed(signing, (*make_key(private_redis), "a-session-token"), b"{}")
    assert "x-amz-security-token" in headers["Authorization"]
    shuffled = dict(reversed(headers.items()))
    with signing.client() as http:
        assert http.post("/", content=b"{}", headers=shuffled).status_code == 200
        assert http.post("/", content=iter([b"{", b"}"]), headers=headers).status_code == 200


@pytest.mark.parametrize("way", ["another service", "unsigned payload", "presigned URL"])
def test_a_signature_that_does_not_cover_this_request_is_refused(
    signing: Daemon, private_redis: Redis, way: str
) -> None:
    key, path = Credentials(*make_key(private_redis)), "/"
    target = {"X-Amz-Target": "AmazonSQS.ListQueues", "Content-Type": "application/x-amz-json-1.0"}
    request = AWSRequest("POST", f"{signing.url}/", headers=target, data=b"{}")
    if way == "presigned URL":
        SigV4QueryAuth(key, "sqs", "us-east-1").add_auth(request)
        path = request.url.removeprefix(signing.url)
    else:
        if way == "unsigned payload":
            request.headers["X-Amz-Content-Sha256"] = "UNSIGNED-PAYLOAD"
        SigV4Auth(key, "s3" if way == "another service" else "sqs", "us-east-1").add_auth(request)
    with signing.client() as http:
        answer = http.post(path, content=b"{}", headers=dict(request.headers))
    assert answer.status_code == 403
    assert answer.headers["x-amzn-query-error"] in ("SignatureDoesNotMatch;Sender", "MissingAuthenticationToken;Sender")


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_signature_of_another_time_is_refused(signing: Daemon, private_redis: Redis, minutes: int) -> None:
    key = make_key(private_redis)
    moved = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(minutes=minutes)
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda: moved, create=True):
        headers = signed(signing, key, b"{}")
    with signing.client() as http:
        answer = http.post("/", content=b"{}", headers=headers)
    assert (answer.status_code, answer.headers["x-amzn-query-error"]) == (403, "SignatureDoesNotMatch;Sender")
    assert "expired" in answer.json()["message"]


def test_the_query_protocol_is_signed_too(signing: Daemon, private_redis: Redis) -> None:
    key = make_key(private_redis)
    body = b"Action=ListQueues&Version=2012-11-05&QueueNamePrefix=a%20b%2Fc"
    request = AWSRequest(
        "POST", f"http://127.0.0.1:{signing.port}/000000000000/a%2Fb", data=body,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )  # fmt: skip
    SigV4Auth(Credentials(*key), "sqs", "eu-west-1").add_auth(request)
    with signing.client() as http:
        right = http.post("/000000000000/a%2Fb", content=body, headers=dict(request.headers))
        assert (right.status_code, "ListQueuesResponse" in right.text) == (200, True)
        wrong = http.post("/000000000000/a%2Fb", content=body + b"d", headers=dict(request.headers))
        assert (wrong.status_code, "<Code>SignatureDoesNotMatch</Code>" in wrong.text) == (403, True)


def test_an_access_key_may_do_what_its_token_may(signing: Daemon, private_redis: Redis) -> None:
    all_rights = connect(signing.port, *make_key(private_redis))
    jobs, mail = (all_rights.create_queue(QueueName=name)["QueueUrl"] for name in ("jobs", "mail"))
    all_rights.send_message(QueueUrl=jobs, MessageBody="x")
    reader = connect(signing.port, *make_key(private_redis, "jobs", "read"))
    assert reader.receive_message(QueueUrl=jobs)["Messages"]
    assert reader.list_queues()["QueueUrls"] == [jobs]
    assert code_of(reader.send_message, QueueUrl=jobs, MessageBody="x") == "AccessDenied"
    assert code_of(reader.receive_message, QueueUrl=mail) == "AccessDenied"
    assert code_of(reader.purge_queue, QueueUrl=jobs) == "AccessDenied"
    owner = connect(signing.port, *make_key(private_redis, "jobs", "read,write,admin"))
    policy = '{"deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:mail", "maxReceiveCount": 3}'
    assert code_of(owner.set_queue_attributes, QueueUrl=jobs, Attributes={"RedrivePolicy": policy}) == "AccessDenied"
    writer = connect(signing.port, *make_key(private_redis, "jobs", "write"))
    assert writer.get_queue_url(QueueName="jobs")["QueueUrl"] == jobs
    assert code_of(writer.get_queue_url, QueueName="mail") == "AccessDenied"
    writer.send_message(QueueUrl=jobs, MessageBody="x")
    assert code_of(writer.receive_message, QueueUrl=jobs) == "AccessDenied"
    assert code_of(writer.set_queue_attributes, QueueUrl=jobs, Attributes={"DelaySeconds": "1"}) == "AccessDenied"


def test_a_key_for_a_dead_letter_queue_tells_nothing_of_other_queues(signing: Daemon, private_redis: Redis) -> None:
    all_rights = connect(signing.port, *make_key(private_redis))
    jobs, dead = (all_rights.create_queue(QueueName=name)["QueueUrl"] for name in ("jobs", "dead"))
    arn = "arn:aws:sqs:us-east-1:000000000000:dead"
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
    all_rights.set_queue_attributes(QueueUrl=jobs, Attributes={"RedrivePolicy": policy})
    assert all_rights.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [jobs]
    of_dead = connect(signing.port, *make_key(private_redis, "dead"))
    assert of_dead.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == []
    task = all_rights.start_message_move_task(SourceArn=arn)["TaskHandle"]
    of_jobs = connect(signing.port, *make_key(private_redis, "jobs"))
    assert code_of(of_jobs.cancel_message_move_task, TaskHandle=task) == "AccessDenied"
    assert code_of(of_jobs.list_message_move_tasks, SourceArn=arn) == "AccessDenied"


def test_signatures_are_checked_from_the_first_access_key_on(private_folder: Path, private_redis: Redis) -> None:
    with stopping(Daemon(private_folder / "daemon", redis=private_redis)) as server:
        anybody = connect(server.port)
        anybody.create_queue(QueueName="jobs")
        key = make_key(private_redis)

        def is_refused() -> bool:
            try:
                anybody.list_queues()
            except ClientError as refusal:
                return bool(refusal.response["Error"]["Code"] == "InvalidClientTokenId")
            return False

        wait_until(is_refused)
        assert connect(server.port, *key).list_queues()["QueueUrls"]
        with server.client() as http:
            target = {"X-Amz-Target": "AmazonSQS.ListQueues"}
            assert http.post("/", content=b"{}", headers=target, auth=("any", "any")).status_code == 400
            assert http.post("/", content=b"{}", headers=target).status_code == 403
            assert http.post("/", content=b"{}", headers={**target, "Authorization": "Bearer x"}).status_code == 403
            # Plain HTTP is a matter of acl.conf, and the key's id alone opens nothing.
            assert http.get("/q/jobs").status_code == 204
            assert http.get("/q/jobs", headers={"Authorization": f"Bearer {key[0]}"}).status_code == 401


def test_signatures_are_checked_where_acl_conf_has_a_password(private_folder: Path, private_redis: Redis) -> None:
    acl = private_folder / "acl.conf"
    acl.write_text("[rest:producer]\nusername = u\npassword = p\n[rest:consumer]\n")
    with stopping(Daemon(private_folder / "daemon", "--acl", str(acl), redis=private_redis)) as server:
        assert code_of(connect(server.port).create_queue, QueueName="jobs") == "InvalidClientTokenId"
        with server.client() as http:
            make = {"X-Amz-Target": "AmazonSQS.CreateQueue"}
            made = http.post("/", content=b'{"QueueName":"jobs"}', headers=make, auth=("u", "p"))
        assert made.status_code == 200
        assert connect(server.port).list_queues()["QueueUrls"] == [made.json()["QueueUrl"]]  # reading is open


def test_guessing_secrets_is_limited(signing: Daemon, private_redis: Redis) -> None:
    key, _ = make_key(private_redis)
    wrong = connect(signing.port, key, "wrong")
    codes = [code_of(wrong.list_queues) for _ in range(12)]
    assert codes[0] == "SignatureDoesNotMatch"
    assert codes[-1] == "ThrottlingException"
