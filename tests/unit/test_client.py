"""The parts of the client that need no server: URLs and credentials, requests, retries, streams."""

from __future__ import annotations

import inspect
import json
import math
import re
from pathlib import Path

import pytest

from restmq.client import AsyncClient, BadAnswer, Busy, Client, Message, Refused, Server, Unreachable, calls
from restmq.client.deferred import DeferredClient
from restmq.client.exchange import ApiResponse, RetryPolicy
from restmq.client.stream import LiveStream
from restmq.errors import Conflict, InvalidInput, LeaseGone, NotAuthenticated, NotFound

UNSENT = Unreachable("away", sent=False)
SENT = Unreachable("broke", sent=True)

# Servers


@pytest.mark.parametrize(
    ("url", "host", "port", "prefix"),
    [
        ("http://127.0.0.1:8888", "127.0.0.1", 8888, ""),
        ("http://mq.example", "mq.example", 80, ""),
        ("https://mq.example/", "mq.example", 443, ""),
        ("https://mq.example:8443/queues/", "mq.example", 8443, "/queues"),
        ("http://[::1]:8888", "::1", 8888, ""),
    ],
)
def test_a_url_gives_host_port_and_path_prefix(url: str, host: str, port: int, prefix: str) -> None:
    server = Server(url)
    assert (server.host, server.port, server.prefix) == (host, port, prefix)
    assert server.secure == url.startswith("https")


@pytest.mark.parametrize(
    "url",
    ["", "ftp://127.0.0.1:8888", "ftp://x", "http://", "http://x:99999", "http://x:y", "http://u:p@x", "http://u@x",
     "http://x/?a=b", "http://x/#a", "http://x/a b", "http://x/\r\nHost: y", "http://ü.example"],
)  # fmt: skip
def test_an_invalid_url_is_rejected(url: str) -> None:
    with pytest.raises(InvalidInput):
        Server(url)


def test_credentials_come_from_the_environment_then_from_netrc(tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine mq.example login ann password böb\ndefault login d password d\n", "utf-8")
    netrc.chmod(0o600)
    there = {"RESTMQ_URL": "http://mq.example:8888", "NETRC": str(netrc)}
    assert Server.from_environment(None, there).authorization == "Basic YW5uOmLDtmI="
    assert Server.from_environment("http://other.example", there).authorization == ""
    named = there | {"RESTMQ_USER": "u", "RESTMQ_PASSWORD": "p"}
    assert Server.from_environment(None, named).authorization == "Basic dTpw"
    token = Server.from_environment(None, named | {"RESTMQ_TOKEN": "t0ken"})
    assert token.authorization == "Bearer t0ken"
    assert "t0ken" not in repr(token)
    assert Server.from_environment(None, {"NETRC": str(tmp_path / "none")}).url == "http://127.0.0.1:8888"
    netrc.write_text("machine\n")
    with pytest.raises(InvalidInput, match="netrc"):
        Server.from_environment(None, there)
    with pytest.raises(InvalidInput, match="token"):
        Server.from_environment(None, {"RESTMQ_TOKEN": "a\r\nb"})


# Calls


def test_all_clients_have_a_method_for_every_call() -> None:
    functions = {
        name
        for name, function in inspect.getmembers(calls, inspect.isfunction)
        if function.__module__ == calls.__name__ and not name.startswith("_")
    }
    assert len(functions) > 20
    for client in (Client, AsyncClient, DeferredClient):
        assert functions <= set(dir(client))
        assert all(inspect.getdoc(getattr(client, name)) for name in functions)


def test_publish_generates_an_idempotency_key_which_makes_it_safe_to_retry() -> None:
    first, second = calls.publish("q", "a").request, calls.publish("q", "a").request
    assert re.fullmatch(r"[\w-]{16}", first.headers["Idempotency-Key"])
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]
    assert first.repeatable
    without = calls.publish("q", "a", idempotency_key="").request
    assert (dict(without.headers), without.repeatable) == ({}, False)
    assert not calls.take("q").request.repeatable
    assert calls.lease("q").request.repeatable


def test_requests_encode_names_and_numbers() -> None:
    request = calls.publish("a/b ü", b"\xff", delay_seconds=0.0005, ttl_seconds=1e7).request
    assert (request.path, request.body) == ("/q/a%2Fb%20%C3%BC?delay=0.001&ttl=10000000", b"\xff")
    assert calls.lease("q", 1.5, wait_seconds=60).request.path == "/q/q?count=1&lease=1.5&wait=60"
    assert calls.lease("q").request.path == "/q/q?count=1&lease="


@pytest.mark.parametrize(
    "make",
    [
        lambda: calls.publish("", "a"),
        lambda: calls.publish("a\n", "a"),
        lambda: calls.publish("q", "\ud800"),
        lambda: calls.publish("q", "a", idempotency_key="a\r\nb"),
        lambda: calls.publish("q", "a", idempotency_key="x" * 256),
        lambda: calls.publish_many("q", [b"\xff"]),
        lambda: calls.find("no key"),
    ],
)
def test_invalid_input_is_rejected_before_it_is_sent(make: object) -> None:
    with pytest.raises(InvalidInput):
        make()  # type: ignore[operator]


# Answers


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidInput), (401, NotAuthenticated), (404, NotFound), (409, Conflict), (410, LeaseGone)],
)
def test_an_error_response_raises_the_servers_own_text(status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^because$"):
        ApiResponse(status, {}, b'{"error": "because"}').check()


def test_other_error_responses_keep_their_status_and_retry_after() -> None:
    with pytest.raises(Refused) as refused:
        ApiResponse(413, {}, b'{"error": "too long"}').check()
    assert refused.value.status == 413
    for said, seconds in (("7", 7), ("", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)):
        with pytest.raises(Busy) as busy:
            ApiResponse(503, {"retry-after": said}, b"<html>").check()
        assert busy.value.retry_after_seconds == seconds
    with pytest.raises(BadAnswer, match="302"):
        ApiResponse(302, {}, b"").check()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b'{"queues": 1}', b"\xff"])
def test_a_response_that_is_not_from_restmq_is_reported(body: bytes) -> None:
    for call in (calls.queues(), calls.find("q:1"), calls.publish("q", "a")):
        with pytest.raises(BadAnswer):
            call.result(ApiResponse(200, {}, body))


def test_a_message_is_read_from_json_with_its_exact_bytes() -> None:
    assert Message.parse({"key": "q:1", "value": "/w==", "encoding": "base64"}) == Message("q:1", b"\xff")
    leased = Message.parse({"key": "q:1", "value": "ü", "count": 2, "receipt": "r", "state": "leased"})
    assert leased == Message("q:1", "ü".encode(), count=2, receipt="r", more={"state": "leased"})
    assert leased.text == "ü"


# RetryPolicy


class Seconds:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_retry_delays_grow_until_the_time_is_over() -> None:
    seconds = Seconds()
    policy = RetryPolicy(30, seconds)
    pauses = []
    with pytest.raises(Unreachable):
        while True:
            pauses.append(policy.delay_seconds(UNSENT, False))
            seconds.now += pauses[-1]
    assert 0.1 <= pauses[0] <= 0.15
    assert sum(pauses) <= 30 < sum(pauses) + 7.5
    assert max(pauses) <= 7.5


def test_retry_after_sets_the_delay() -> None:
    policy = RetryPolicy(30, Seconds())
    assert policy.delay_seconds(Busy("full", 3), False) == 3
    with pytest.raises(Busy):
        policy.delay_seconds(Busy("too many wrong passwords", 60), True)


def test_a_retry_that_could_do_harm_or_can_not_help_is_not_made() -> None:
    policy = RetryPolicy(math.inf, Seconds())
    assert policy.delay_seconds(SENT, True) > 0
    for error in (SENT, NotFound("no"), BadAnswer("what?")):
        with pytest.raises(type(error)):
            policy.delay_seconds(error, False)
    with pytest.raises(Unreachable):
        RetryPolicy(0, Seconds()).delay_seconds(UNSENT, True)


# Streams


def test_lines_of_a_stream_are_joined_across_chunks() -> None:
    text = b'{"key":"q:1","value":"a\\r\\nb"}\r\n\r\n{"key":"q:2","value":"\xc3\xbc"}\r\n'
    for size in range(1, len(text) + 1):
        stream = LiveStream("q")
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        found = [message for piece in pieces for message in stream.feed(piece)]
        assert [message.value for message in found] == [b"a\r\nb", "ü".encode()]


def test_a_reconnect_requests_missed_messages_and_drops_an_incomplete_line() -> None:
    gaps: list[str] = []
    stream = LiveStream("q", last_key="q:1", lease_seconds=0, prefetch=5, on_gap=gaps.append)
    assert stream.request().path == "/c/q?lease=&prefetch=5&last_event_id=q%3A1"
    assert stream.feed(b'{"event":"gap","last_event_id":"q:1"}\r\n{"key":"q:7","value":"a"}\r\n{"key":') == [
        Message("q:7", b"a")
    ]
    assert gaps == ["q:1"]
    assert stream.request().path.endswith("last_event_id=q%3A7")
    assert stream.feed(b'{"key":"q:8","value":"b"}\n') == [Message("q:8", b"b")]


@pytest.mark.parametrize("line", [b"<html>\n", b"[]\n", b"{}\n", json.dumps({"key": "q:1"}).encode() + b"\n"])
def test_a_stream_that_is_not_of_messages_is_reported(line: bytes) -> None:
    with pytest.raises(BadAnswer):
        LiveStream("q").feed(line)
