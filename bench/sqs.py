"""Measures the SQS interface beside moto's server, in interleaved repeats. See --help.

Both get the same requests from wrk: the JSON protocol, with values of 64 bytes. Each run has a new queue. pip installs
moto's server into a folder of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from loads import Load
from rig import VALUE, free_port, median, serving

from tests.servers import wait_until
from tests.sqs.judges import python_with

BATCH = 10
#: By the number of messages in a request.
CONNECTIONS = {1: 32, BATCH: 4}
#: Messages per second that are prepared for the loads that receive.
_RECEIVED_A_SECOND = {"RestMQ": 12_000, "moto_server": 60}

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


@dataclass(slots=True)
class SqsRun:
    """The result of a run: messages per second, CPU time of the server in µs per message, median latency."""

    rate: float
    cpu_us: float
    p50_ms: float
    failed: int


@dataclass(slots=True)
class Endpoint:
    """A server of SQS.

    Attributes:
        cpu_seconds: the CPU time that it has used so far, with its Redis.
    """

    name: str
    url: str
    cpu_seconds: Callable[[], float]
    queues: int = 0

    def call(self, operation: str, **members: object) -> dict[str, object]:
        headers = {"X-Amz-Target": f"AmazonSQS.{operation}", "Content-Type": "application/x-amz-json-1.0"}
        headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/sqs/aws4_request"
        answer = httpx.post(self.url, content=json.dumps(members), headers=headers, timeout=60)
        assert answer.is_success, answer.text
        return dict(answer.json() or {}) if answer.content else {}

    def new_queue(self) -> str:
        self.queues += 1
        return str(self.call("CreateQueue", QueueName=f"bench-{self.queues}")["QueueUrl"])

    def number(self, url: str, name: str) -> int:
        found = self.call("GetQueueAttributes", QueueUrl=url, AttributeNames=["All"])
        return int(found["Attributes"][f"ApproximateNumberOfMessages{name}"])  # type: ignore[index]

    def send(self, seconds: float, size: int) -> SqsRun:
        """Sends messages, alone or in batches. The rate is that of messages that the queue has afterwards."""
        url = self.new_queue()
        entries = [{"Id": str(n), "MessageBody": VALUE} for n in range(size)]
        body = {"QueueUrl": url, **({"MessageBody": VALUE} if size == 1 else {"Entries": entries})}
        operation = "SendMessage" if size == 1 else "SendMessageBatch"
        script = _SEND % (json.dumps(operation), _as_lua(json.dumps(body)))
        measured = self._measure(script, seconds, size, lambda: self.number(url, ""))
        self.call("DeleteQueue", QueueUrl=url)
        return measured

    def receive(self, seconds: float, size: int) -> SqsRun:
        """Receives messages and deletes them. The rate is that of messages that are gone afterwards."""
        url = self.new_queue()
        filled = int(_RECEIVED_A_SECOND[self.name] * seconds * (1 if size == 1 else 3))
        body = {"QueueUrl": url, "Entries": [{"Id": str(n), "MessageBody": VALUE} for n in range(BATCH)]}
        fill = _HEADERS + _SEND % ('"SendMessageBatch"', _as_lua(json.dumps(body)))
        while self.number(url, "") < filled:
            Load("/", connections=4, script=fill).run(self.url, 1)
        script = _RECEIVE_AND_DELETE % (_as_lua(url), size)
        measured = self._measure(script, seconds, size, lambda: -self.number(url, "") - self.number(url, "NotVisible"))
        assert self.number(url, "") > 0, "the queue ran empty, so answers without a message were measured"
        self.call("DeleteQueue", QueueUrl=url)
        return measured

    def _measure(self, script: str, seconds: float, size: int, count: Callable[[], int]) -> SqsRun:
        """Runs a load.

        Args:
            count: a number that grows by one for each message.
        """
        counted, cpu_seconds = count(), self.cpu_seconds()
        run = Load("/", connections=CONNECTIONS[size], script=_HEADERS + script).run(self.url, seconds)
        cpu_seconds, counted = self.cpu_seconds() - cpu_seconds, max(1, count() - counted)
        return SqsRun(counted / seconds, cpu_seconds / counted * 1e6, run.p50_ms or 0, run.failed)


def _as_lua(text: str) -> str:
    return f"[==[{text}]==]"


@dataclass(slots=True)
class Row:
    """A load, and its results by server."""

    what: str
    size: int
    sends: bool
    runs: dict[str, list[SqsRun]] = field(default_factory=dict)

    def measure(self, server: Endpoint, seconds: float) -> None:
        run = (server.send if self.sends else server.receive)(seconds, self.size)
        self.runs.setdefault(server.name, []).append(run)

    def __str__(self) -> str:
        cells = [self.what]
        for name in ("rate", "cpu_us", "p50_ms"):
            ours, other = (median([getattr(run, name) for run in runs]) for runs in self.runs.values())
            cells += [f"{ours:,.0f}", f"{other:,.0f}"]
            if name != "p50_ms":
                cells.append(f"{max(ours, other) / min(ours, other):.1f}")
        failed = sum(run.failed for runs in self.runs.values() for run in runs)
        return f"| {' | '.join(cells)} | {failed} |"


@contextlib.contextmanager
def moto() -> Iterator[Endpoint]:
    program = python_with("moto", "moto[server]", "boto3", "pytest", "requests", "freezegun", "flaky")
    port = free_port()
    server = subprocess.Popen(
        [program.with_name("moto_server"), "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(url), 30, "moto_server starts")
        yield Endpoint("moto_server", url, lambda: _cpu_with_ended_threads(server.pid))
    finally:
        server.kill()
        server.wait()


def _cpu_with_ended_threads(process_id: int) -> float:
    """As ``cpu_seconds``, in hundredths: moto has a thread for each connection."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code > 0
    except httpx.HTTPError:
        return False


def main() -> None:
    described = argparse.ArgumentParser(prog="bench/sqs", description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--seconds", type=float, default=2, help="duration of a run (default 2)")
    described.add_argument("--repeats", type=int, default=3, help="interleaved repeats; medians are shown (default 3)")
    given = described.parse_args()
    rows = [
        Row("SendMessage", 1, sends=True),
        Row(f"SendMessageBatch of {BATCH}", BATCH, sends=True),
        Row("ReceiveMessage and DeleteMessage", 1, sends=False),
        Row(f"ReceiveMessage and DeleteMessageBatch of {BATCH}", BATCH, sends=False),
    ]
    with serving() as ours, moto() as other:
        servers = [Endpoint("RestMQ", ours.url, lambda: sum(ours.cpu_seconds())), other]
        for _ in range(given.repeats):
            for row in rows:
                for server in servers:
                    row.measure(server, given.seconds)
    head = [
        "load",
        "messages a second",
        "moto_server",
        "ratio",
        "CPU µs",
        "moto_server",
        "ratio",
        "p50 ms",
        "moto_server",
    ]
    print(f"| {' | '.join([*head, 'failed'])} |\n|{' --- |' * (len(head) + 1)}")
    print("\n".join(map(str, rows)))


if __name__ == "__main__":
    main()
