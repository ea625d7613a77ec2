"""Loads of the SQS interface, for RestMQ and for moto's server: the JSON protocol, with a new queue for each run."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import httpx
from loads import Load
from rig import VALUE, Missing, Run, Server

BATCH = 10
#: By the number of messages in a request.
CONNECTIONS = {1: 32, BATCH: 4}

_HEADERS = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-amz-json-1.0"
wrk.headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/sqs/aws4_request, \
SignedHeaders=host, Signature=any"
local function call(operation, body)
  wrk.headers["X-Amz-Target"] = "AmazonSQS." .. operation
  return wrk.format("POST", "/", nil, body)
end
"""
_SEND = "function request() return call(%s, %s) end"
#: Deletes what was received before it receives more. wrk calls request() once per request, for any connection.
_RECEIVE_AND_DELETE = """
local url, size = %s, %d
local received = {}
function request()
  local handles = table.remove(received)
  if not handles then
    return call("ReceiveMessage", '{"QueueUrl":"' .. url .. '","MaxNumberOfMessages":' .. size .. '}')
  end
  if size == 1 then
    return call("DeleteMessage", '{"QueueUrl":"' .. url .. '","ReceiptHandle":"' .. handles[1] .. '"}')
  end
  local entries = {}
  for i, handle in ipairs(handles) do entries[i] = '{"Id":"' .. i .. '","ReceiptHandle":"' .. handle .. '"}' end
  return call("DeleteMessageBatch", '{"QueueUrl":"' .. url .. '","Entries":[' .. table.concat(entries, ",") .. ']}')
end
function response(status, headers, body)
  local handles = {}
  for handle in string.gmatch(body, '"ReceiptHandle": ?"([^"]+)"') do handles[#handles + 1] = handle end
  if handles[1] then received[#received + 1] = handles end
end
"""
_numbers = count()


def _call(server: Server, operation: str, **members: object) -> dict[str, Any]:
    headers = {"X-Amz-Target": f"AmazonSQS.{operation}", "Content-Type": "application/x-amz-json-1.0"}
    headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/sqs/aws4_request"
    answer = httpx.post(server.url, content=json.dumps(members), headers=headers, timeout=60)
    if operation == "CreateQueue" and not answer.is_success:
        raise Missing("not in this revision")
    assert answer.is_success, answer.text
    return dict(answer.json() or {}) if answer.content else {}


def _new_queue(server: Server) -> str:
    return str(_call(server, "CreateQueue", QueueName=f"bench-{next(_numbers)}")["QueueUrl"])


def _number(server: Server, url: str, name: str = "") -> int:
    found = _call(server, "GetQueueAttributes", QueueUrl=url, AttributeNames=["All"])
    return int(found["Attributes"][f"ApproximateNumberOfMessages{name}"])


def _sending(url: str, size: int) -> str:
    entries = [{"Id": str(n), "MessageBody": VALUE} for n in range(size)]
    body = {"QueueUrl": url, **({"MessageBody": VALUE} if size == 1 else {"Entries": entries})}
    return _SEND % ('"SendMessage"' if size == 1 else '"SendMessageBatch"', f"[==[{json.dumps(body)}]==]")


def send(server: Server, seconds: float, size: int) -> Run:
    """Sends messages, alone or in batches. Operations are messages that the queue has afterwards."""
    url = _new_queue(server)
    return _measure(server, url, _sending(url, size), seconds, size, lambda: _number(server, url))


def receive(server: Server, seconds: float, size: int, prepared_a_second: int) -> Run:
    """Receives messages and deletes them. Operations are messages that are gone afterwards."""
    url = _new_queue(server)
    while _number(server, url) < prepared_a_second * seconds:
        Load("/", connections=4, script=_HEADERS + _sending(url, BATCH)).run(server, 1)
    script = _RECEIVE_AND_DELETE % (f"[==[{url}]==]", size)

    def gone() -> int:
        left = _number(server, url)
        assert left > 0, "the queue ran empty, so answers without a message were measured"
        return -left - _number(server, url, "NotVisible")

    return _measure(server, url, script, seconds, size, gone)


def _measure(server: Server, url: str, script: str, seconds: float, size: int, counted: Callable[[], int]) -> Run:
    """Runs a load, and deletes the queue.

    Args:
        counted: returns a number that grows by one for each message.
    """
    before = counted()
    run = Load("/", connections=CONNECTIONS[size], script=_HEADERS + script).run(server, seconds)
    run.operations = max(1, counted() - before)
    _call(server, "DeleteQueue", QueueUrl=url)
    return run
