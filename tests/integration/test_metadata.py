"""Headers and content types of messages: kept, shown in every answer, given back with the raw value."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloudevents.v1.conversion import to_binary, to_structured
from cloudevents.v1.http import CloudEvent, from_http
from websockets.sync.client import connect

from restmq.client import Client
from restmq.errors import InvalidInput
from tests.integration.test_documents import blocks
from tests.servers import Comet, Daemon, Redis, stopping, wait_until

PNG = b"\x89PNG\r\n\x1a\n\x00\xff"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS = {"traceparent": TRACE, "x-message-tenant": "Zürich", "ce-type": "com.example.made"}


def post(http: httpx.Client, queue: str, value: bytes = PNG, content_type: str = "image/png", **headers: str) -> str:
    answer = http.post(
        f"/q/{queue}", content=value, headers={"Content-Type": content_type, **_wire(headers or HEADERS)}
    )
    assert answer.status_code == 200, answer.text
    return answer.text.strip()


def _wire(headers: dict[str, str]) -> dict[str, Any]:
    return {name: value.encode() for name, value in headers.items()}


def assert_has_all(shown: dict[str, Any]) -> None:
    assert shown["headers"] == HEADERS
    assert shown["content_type"] == "image/png"
    assert shown["sent"] > 1_700_000_000_000


def test_a_message_keeps_its_content_type_and_headers(http: httpx.Client, queue: str) -> None:
    key = post(http, queue)
    assert_has_all(http.get(f"/m/{key}").json())
    assert_has_all(
        http.get(f"/j/{queue}", params={"list": "next"}, headers={"Accept": "application/json"}).json()["messages"][0]
    )
    assert_has_all(http.post("/queue", json={"cmd": "get", "queue": queue}).json())
    assert_has_all(http.get(f"/q/{queue}").json())


def test_a_raw_answer_has_the_same_bytes_type_and_headers(http: httpx.Client, queue: str) -> None:
    for query, accept in (("raw=1", "*/*"), ("", "application/octet-stream")):
        key = post(http, queue)
        answer = http.get(f"/q/{queue}?{query}", headers={"Accept": accept})
        assert answer.content == PNG
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["x-restmq-key"] == key
        answer.headers.encoding = "utf-8"
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]


def test_a_plain_message_has_no_entry_in_redis_and_nothing_more_in_its_json(
    http: httpx.Client, redis: Redis, queue: str
) -> None:
    http.post(f"/q/{queue}", data={"value": "hello"})
    http.post(f"/q/{queue}", content=b"raw", headers={"Content-Type": "application/octet-stream"})
    assert redis.command("EXISTS", f"{queue}:deliveries") == 0
    assert http.get(f"/q/{queue}").json() == {"key": f"{queue}:1", "value": "hello", "count": 0}
    assert http.get(f"/q/{queue}").json() == {"key": f"{queue}:2", "value": "raw", "count": 0}


def test_headers_stay_through_leases_failures_death_redrive_and_forwarding(http: httpx.Client, queue: str) -> None:
    grave = f"{queue}-grave"
    http.post(f"/p/{queue}", data={"max_deliveries": "2"})
    post(http, queue)
    for _ in range(2):
        leased = http.get(f"/q/{queue}?lease=60").json()
        assert_has_all(leased)
        http.post(f"/m/{leased['key']}", data={"receipt": leased["receipt"], "lease": "0"})
    assert_has_all(http.get(f"/d/{queue}").json()["messages"][0])
    assert http.post(f"/d/{queue}").json()["redriven"] == 1
    http.post(f"/p/{queue}", data={"max_deliveries": "1", "dead_letter": grave})
    leased = http.get(f"/q/{queue}?lease=60").json()
    assert_has_all(leased)
    http.post(f"/m/{leased['key']}", data={"receipt": leased["receipt"], "lease": "0"})
    forwarded = http.get(f"/q/{grave}?wait=10").json()
    assert_has_all(forwarded)
    assert forwarded["dead_letter"]["key"] == leased["key"]


def test_headers_stay_with_a_delay(http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}?delay=0.2", content=PNG, headers={"Content-Type": "image/png", **_wire(HEADERS)})
    assert_has_all(http.get(f"/q/{queue}?wait=10").json())


def test_a_command_takes_headers_and_a_content_type(http: httpx.Client, queue: str) -> None:
    command = {"cmd": "add", "queue": queue, "value": "v", "headers": HEADERS, "content_type": "image/png"}
    http.post("/queue", json=command).raise_for_status()
    assert_has_all(http.post("/queue", json={"cmd": "take", "queue": queue}).json())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Set-Cookie": "a=b"}, 400),
        ({"content-length": "1"}, 400),
        ({"x-message-a": "b\r\nSet-Cookie: a=b"}, 400),
        ({"x-message-a": "\x00"}, 400),
        ({"x-message-ä": "b"}, 400),
        ({"x-message-a": 5}, 400),
        ({"x-message-event": "gap"}, 400),
        (["x-message-a"], 400),
        ({f"x-message-{number}": "" for number in range(33)}, 431),
        ({"x-message-a": "x" * 8192}, 431),
    ],
)
def test_a_command_with_headers_that_must_not_be_kept_adds_nothing(
    http: httpx.Client, queue: str, headers: Any, status: int
) -> None:
    answer = http.post("/queue", json={"cmd": "add", "queue": queue, "value": "v", "headers": headers})
    assert answer.status_code == status
    assert "header" in answer.json()["error"]
    assert http.get(f"/q/{queue}").status_code == 204


def test_too_many_headers_of_a_request_are_431(http: httpx.Client, queue: str) -> None:
    many = {f"x-message-{number}": "" for number in range(33)}
    for headers in (many, {"x-message-a": "x" * 8192}):
        assert http.post(f"/q/{queue}", content=b"v", headers=headers).status_code == 431
    assert http.get(f"/q/{queue}").status_code == 204


def test_an_idempotency_key_covers_headers_but_not_the_time(http: httpx.Client, queue: str) -> None:
    def send(tenant: str) -> httpx.Response:
        return http.post(f"/q/{queue}", content=b"v", headers={"Idempotency-Key": "k", "x-message-tenant": tenant})

    assert send("a").text == send("a").text
    assert send("b").status_code == 409


@pytest.mark.parametrize("size", [10, 100_000], ids=["in the channel", "beside the channel"])
def test_live_consumers_get_headers_and_so_does_one_that_resumes(
    daemon: Daemon, http: httpx.Client, redis: Redis, queue: str, size: int
) -> None:
    http.post(f"/p/{queue}", data={"history": "10"})
    comet, events = Comet(daemon, f"/c/{queue}"), Comet(daemon, f"/sse/{queue}")
    with closing(comet), closing(events), connect(f"ws://127.0.0.1:{daemon.port}/ws/{queue}", max_size=None) as socket:
        wait_until(lambda: http.get(f"/stats/{queue}").json()["consumers"] == 3)
        headers = {**HEADERS, "x-message-event": "order"}
        key = post(http, queue, b"x" * size, **headers)
        plain = http.post(f"/q/{queue}", data={"value": "plain"}).text.strip()
        shown, second = json.loads(socket.recv(10)), json.loads(socket.recv(10))
        assert shown["headers"] == headers
        assert second == {"key": plain, "value": "plain"}
        assert [json.loads(line) for line in comet.lines(2)] == [shown, second]
        assert b"event: order\nid: " + key.encode() + b"\n" in events.lines(1, b"data: plain\n\n")[0]
        resumed = Comet(daemon, f"/c/{queue}?last_event_id={queue}:0")
        with closing(resumed):
            assert shown in [json.loads(line) for line in resumed.lines(3)]


def test_the_backlog_of_a_broadcast_queue_keeps_headers(daemon: Daemon, http: httpx.Client, queue: str) -> None:
    post(http, queue)
    comet = Comet(daemon, f"/c/{queue}")
    with closing(comet):
        assert_has_all(json.loads(comet.lines(1)[0]))


@pytest.fixture
def choosy(private_folder: Any, redis: Redis) -> Iterator[Daemon]:
    daemon = Daemon(private_folder, "--keep-headers", "x-tenant,my-*", redis=redis)
    with stopping(daemon):
        yield daemon


def test_the_operator_chooses_the_headers(choosy: Daemon, queue: str) -> None:
    with choosy.client() as http:
        post(http, queue, **{"x-tenant": "a", "my-own": "b", "ce-type": "c"})
        assert http.get(f"/q/{queue}").json()["headers"] == {"x-tenant": "a", "my-own": "b"}


def test_cloudevents_in_binary_and_structured_mode_go_through_a_queue(http: httpx.Client, queue: str) -> None:
    attributes = {"type": "com.example.made", "source": "/shop", "subject": "Zurich", "comexampleextension": "x"}
    attributes["datacontenttype"] = "application/json"
    event = CloudEvent(attributes, {"order": 17, "name": "Käse"})
    for render in (to_binary, to_structured):
        headers, body = render(event)
        http.post(f"/q/{queue}", content=body, headers=headers).raise_for_status()
        answer = http.get(f"/q/{queue}?raw=1")
        read = from_http(dict(answer.headers), answer.content)
        assert read.get_attributes() == event.get_attributes()
        assert read.get_data() == event.get_data()


def test_the_client_and_the_command_line_send_and_show_headers(daemon: Daemon, queue: str) -> None:
    with Client(daemon.url) as client:
        client.publish(queue, PNG, content_type="image/png", headers=HEADERS)
        received = client.take(queue)
        assert received is not None
        assert_has_all(dict(received.more))
        for wrong in ({"bad name": "x"}, {"x-message-a": "x\r\ny: z"}):
            with pytest.raises(InvalidInput):
                client.publish(queue, "v", headers=wrong)
        with pytest.raises(InvalidInput):
            client.publish(queue, "v", content_type="application/x-www-form-urlencoded")
    run = [sys.executable, "-m", "restmq", "--url", daemon.url]
    lines = b"one\ntwo\n"
    kept = ["--header", "x-message-tenant: acme", "--content-type", "text/csv"]
    subprocess.run([*run, "publish", queue, *kept], input=lines, check=True, stdout=subprocess.DEVNULL)
    shown = subprocess.run(
        [*run, "--json", "consume", queue, "--count", "2"], check=True, stdout=subprocess.PIPE
    ).stdout
    for line in shown.splitlines():
        message = json.loads(line)
        assert (message["headers"], message["content_type"]) == ({"x-message-tenant": "acme"}, "text/csv")


@pytest.mark.needs("curl")
def test_the_commands_of_the_protocol_run(daemon: Daemon, http: httpx.Client, private_folder: Path) -> None:
    (private_folder / "photo.png").write_bytes(PNG)
    http.delete("/q/photos")
    (commands,) = [block for block in blocks("docs/protocol.md") if "photo.png" in block]
    script = "set -e\n" + commands.replace("http://localhost:8888", daemon.url).replace("curl ", "curl -sS --fail ")
    subprocess.run(["sh", "-c", script], cwd=private_folder, check=True, timeout=60)
    assert (private_folder / "photo.png").read_bytes() == PNG
