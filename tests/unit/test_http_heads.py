"""Requests whose heads came before are read as if they had not."""

from __future__ import annotations

import random
from typing import Any

import pytest

from restmq.http.heads import KnownHeads, known_heads
from restmq.http.limits import Limits
from restmq.http.parser import RequestParser, _fields_seen
from tests.fuzz.fuzz_http import corpus, mutate, pieces
from tests.in_memory import App, Client, get, post


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was parsed, and not found among the known heads."""
    known_heads.cache_clear()
    _fields_seen.cache_clear()
    found: list[bytes] = []
    parse = RequestParser._parse

    def parse_and_note(self: RequestParser, data: bytes) -> None:
        found.append(data)
        parse(self, data)

    monkeypatch.setattr(RequestParser, "_parse", parse_and_note)
    return found


def seen(reads: list[list[bytes]]) -> list[Any]:
    """What an application and its clients see of these reads, those of each client in turn."""
    app, results = App(), []
    for one in reads:
        client, before = Client(app), len(app.requests)
        for data in one:
            client.connection.dataReceived(data)
            app.settle()
        requests = [
            (
                r.method,
                r.uri,
                r.path,
                r.query,
                r.version,
                dict(r.headers),
                r.body,
                r.media_type,
                r.keep_alive,
                r.upgrade,
            )
            for r in app.requests[before:]
        ]
        parser = client.connection._parser
        state = parser.in_request, parser.unparsed, parser.held_bytes, parser.is_new, parser.continue_owed
        results.append((requests, client.got, client.transport.closed, state))
        client.leave()
    return results


@pytest.mark.parametrize("seed", range(20))
def test_any_input_is_read_in_the_same_way_again(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, inputs, reads = random.Random(seed), corpus(), []
    for _ in range(50):
        data = mutate(chance, inputs) if chance.random() < 0.6 else chance.choice(inputs)
        reads += [chance.choice([[data], [data, data], pieces(chance, data), [data, *pieces(chance, data), data]])] * 3
    known_heads.cache_clear()
    _fields_seen.cache_clear()
    with_memory = seen(reads)
    assert known_heads(Limits())._heads
    monkeypatch.setattr(KnownHeads, "find", lambda *_: None)
    assert seen(reads) == with_memory


def test_a_request_with_the_same_head_is_not_parsed_again(parsed: list[bytes]) -> None:
    app = App()
    client = Client(app)
    bodies = [b"value=1", b"value=2", b"value=3", b"\r\n\r\n  \0", b"value=5"]
    for body in bodies[:-1]:
        client.send(post("/q/a", body))
    Client(app).send(post("/q/a", bodies[-1]))
    assert [request.body for request in app.requests] == bodies
    assert parsed == [post("/q/a", body) for body in bodies[:2]]  # the second one is remembered
    assert client.got == b"</q/a>" * 4


def test_a_known_head_without_its_whole_body_or_with_more_behind_it_is_parsed(parsed: list[bytes]) -> None:
    whole = post("/q/a", b"value=1")
    reads = [whole, whole, whole[:-1], whole[-1:], whole + get("/2"), whole + b"\r\n", whole]
    app = App()
    client = Client(app)
    for read in reads:
        client.send(read)
    assert [request.uri for request in app.requests] == [*["/q/a"] * 4, "/2", "/q/a", "/q/a"]
    assert parsed == reads[:-1]


@pytest.mark.parametrize(
    "fields",
    ["Expect: 100-continue\r\n", "Connection: close\r\n", "Content-Encoding: identity\r\n", f"X: {'y' * 1100}\r\n",
     "Connection: upgrade\r\nUpgrade: h2c\r\n"],
)  # fmt: skip
def test_a_head_after_which_more_is_to_be_done_is_parsed_again(parsed: list[bytes], fields: str) -> None:
    request = post("/q/a", b"value=1", fields)
    for _ in range(3):
        Client(App()).send(request)
    assert parsed.count(request) == 3


def test_the_body_of_a_get_is_ignored_each_time() -> None:
    client = Client(App())
    for _ in range(4):
        client.send(get("/", "Content-Length: 3\r\n") + b"abc")
    assert [request.body for request in client.app.requests] == [b""] * 4


def test_a_head_that_is_valid_by_other_limits_is_parsed_again(parsed: list[bytes]) -> None:
    request = post("/q/a", b"x" * 100)
    assert [Client(App()).send(request).got for _ in range(3)] == [b"</q/a>"] * 3
    assert parsed == [request] * 2
    assert Client(App(body_bytes=99)).send(request).got == b"[413]"


def test_a_server_remembers_a_limited_number_of_heads() -> None:
    known_heads.cache_clear()
    client = Client(App())
    for number in range(3000):
        client.send(get(f"/{number}"))  # the same fields each time
        assert len(known_heads(Limits())._heads) <= 1024
    assert known_heads(Limits())._heads
