"""Bytes become requests, or a refusal with a status."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.in_memory import CHUNKED_HEAD, EXPECT, GO_ON, App, Client, chunked, get, post

# Requests as they should be


def test_a_request_arrives_with_all_its_parts(connect: Callable[..., Client]) -> None:
    client = connect().send(post("/q/a?b=c&d=%20", b"value=1", "X-One: \t two  words \t\r\nEmpty:\r\nX-ONE: \xff\r\n"))
    (request,) = client.app.requests
    assert (request.method, request.uri, request.path, request.query) == ("POST", "/q/a?b=c&d=%20", "/q/a", "b=c&d=%20")
    assert (request.version, request.body, request.host) == ("HTTP/1.1", b"value=1", "a")
    assert (request.remote_ip, request.protocol) == ("192.0.2.1", "http")
    assert request.headers["x-one"] == "two  words, \xc3\xbf"
    assert request.headers["empty"] == ""
    assert "x-two" not in request.headers


def test_a_chunked_body_arrives_whole_and_its_trailers_are_ignored(connect: Callable[..., Client]) -> None:
    trailers = b"0;last\r\nX-Late: 1\r\nHost: evil\r\nAuthorization: Basic eDp5\r\n\r\n"
    client = connect().send(chunked("/1", b"value=", b"a b", b"\r\n0\r\n\r\n", end=trailers) + get("/2"))
    first, second = client.app.requests
    assert first.body == b"value=a b\r\n0\r\n\r\n"
    for request in (first, second):
        assert request.headers["host"] == "a"
        assert "x-late" not in request.headers and "authorization" not in request.headers
    assert client.got == b"</1></2>"


def test_chunk_extensions_are_ignored(connect: Callable[..., Client]) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    client = connect().send(head + b'03;a=b;c="d;e"\r\nabc\r\n0\r\n\r\n')
    assert [request.body for request in client.app.requests] == [b"abc"]


def test_empty_lines_before_a_request_are_skipped(connect: Callable[..., Client]) -> None:
    client = connect().send(b"\r\n\r\n" + get("/1") + b"\r\n" + get("/2"))
    assert client.got == b"</1></2>"


def test_a_body_of_tiny_chunks_takes_memory_of_about_its_size() -> None:
    app = App()
    client = Client(app, 1400)
    sent = chunked("/", *[b"ab"] * 100_000)
    tracemalloc.start()
    try:
        client.send(sent)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert app.requests[0].body == b"ab" * 100_000


def test_an_http_1_0_request_needs_no_host(connect: Callable[..., Client]) -> None:
    assert connect().send(b"GET /old HTTP/1.0\r\n\r\n").got == b"</old>"


# Targets and Host (RFC 9112, 3.2)


@pytest.mark.parametrize(
    ("target", "uri", "host"),
    [
        ("http://b:80/x?y", "/x?y", "b:80"),
        ("HTTPS://[::1]:8888/", "/", "[::1]:8888"),
        ("http://b", "/", "b"),
        ("http://b?x=/y", "/?x=/y", "b"),
        ("//b/c", "//b/c", "a"),
        ("/http://b/", "/http://b/", "a"),
    ],
)
def test_an_absolute_target_names_the_host_and_the_path(
    connect: Callable[..., Client], target: str, uri: str, host: str
) -> None:
    (request,) = connect().send(get(target)).app.requests
    assert (request.uri, request.headers["host"], request.host) == (uri, host, host)


def test_options_may_ask_about_the_whole_server(connect: Callable[..., Client]) -> None:
    assert connect().send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").got == b"<*>"
    assert connect().send(b"OPTIONS http://b/x HTTP/1.1\r\nHost: a\r\n\r\n").got == b"</x>"


@pytest.mark.parametrize("host", ["", "a.b", "a:80", "[::1]", "[::1]:8888", "a_b.example", "127.0.0.1:1"])
def test_a_valid_host_is_accepted(connect: Callable[..., Client], host: str) -> None:
    assert connect().send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).got == b"</>"


# Refusals: one answer, the connection is closed, and nothing that follows is read as a request


def refused(status: int, *requests: tuple[str, bytes]) -> list[Any]:
    return [pytest.param(status, request, id=f"{status} {name}") for name, request in requests]


def headed(*fields: bytes, line: bytes = b"POST / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([line, host, *fields, b"", b""])


CHUNKED = b"Transfer-Encoding: chunked"

REFUSED = [
    *refused(
        400,
        ("* with another method", headed(line=b"GET * HTTP/1.1")),
        ("length and coding", headed(b"Content-Length: 3", CHUNKED) + b"0\r\n\r\n"),
        ("coding and length", headed(CHUNKED, b"Content-Length: 3") + b"0\r\n\r\n"),
        ("two lengths", headed(b"Content-Length: 3", b"Content-Length: 4") + b"abc"),
        ("the same length twice", headed(b"Content-Length: 3", b"Content-Length: 3") + b"abc"),
        ("a list of lengths", headed(b"Content-Length: 3, 3") + b"abc"),
        ("length +3", headed(b"Content-Length: +3") + b"abc"),
        ("length -1", headed(b"Content-Length: -1")),
        ("length 0x3", headed(b"Content-Length: 0x3") + b"abc"),
        ("length 1_0", headed(b"Content-Length: 1_0") + b"abc"),
        ("length 3 3", headed(b"Content-Length: 3 3") + b"abc"),
        ("an empty length", headed(b"Content-Length:")),
        ("a length in Arabic digits", headed("Content-Length: ٣".encode()) + b"abc"),
        ("a length beyond 64 bits", headed(b"Content-Length: 99999999999999999999999")),
        ("an unknown coding", headed(b"Transfer-Encoding: gzip")),
        ("an unknown coding, then chunked", headed(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
        ("chunked, then another", headed(b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n"),
        ("chunked twice", headed(CHUNKED, CHUNKED) + b"0\r\n\r\n"),
        ("xchunked", headed(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n"),
        ("an empty coding", headed(b"Transfer-Encoding:") + b"0\r\n\r\n"),
        ("a coding after VT", headed(b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n"),
        ("a coding in HTTP/1.0", headed(CHUNKED, line=b"POST / HTTP/1.0") + b"0\r\n\r\n"),
        ("a bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
        ("a bare LF after a header", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
        ("a bare LF at the end of the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
        ("a bare CR after the request line", b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
        ("a bare CR in a value", headed(b"X: a\rb")),
        ("a bare CR at the end of the head", b"GET / HTTP/1.1\r\nHost: a\r\n\rX"),
        ("NUL in a value", headed(b"X: a\0b")),
        ("NUL in a name", headed(b"X\0: a")),
        ("NUL in the path", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("NUL first", b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("DEL in a value", headed(b"X: \x7f")),
        ("a blank before the colon", headed(b"Content-Length : 3") + b"abc"),
        ("a folded header", headed(b"X: a", b" b")),
        ("a folded header with a tab", headed(b"X: a", b"\tb")),
        ("a fold before the first header", headed(host=b" Host: a")),
        ("a header without a name", headed(b": x")),
        ("a header without a colon", headed(b"Content-Length 3")),
        ("no Host", b"GET / HTTP/1.1\r\nX: y\r\n\r\n"),
        ("two Hosts", headed(b"Host: a")),
        ("a Host with a path", headed(host=b"Host: a/b")),
        ("a Host with a user", headed(host=b"Host: u@a")),
        ("two hosts in one Host", headed(host=b"Host: a, b")),
        ("a Host with a letter beyond ASCII", headed(host=b"Host: \xe9")),
        ("a Host with an odd port", headed(host=b"Host: a:b")),
        ("an absolute target with a user", get("http://u@a/")),
        ("an absolute target for which Host is wrong", headed(line=b"GET http://a/ HTTP/1.1", host=b"Host: u@a")),
        ("another scheme", get("ftp://a/")),
        ("a fragment", get("/a#b")),
        ("a target that is a name", get("name")),
        ("the whole server for a GET", get("*")),
        ("bytes beyond ASCII in the path", get("/q/\xe9")),
        ("a tab in the request line", b"GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a blank after the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        ("a version in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n"),
        ("HTTP/1.2", get("/", version="1.2")),
        ("TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("two passwords", headed(b"Authorization: Basic eDp5", b"Authorization: Basic ejp6")),
        ("two types", headed(b"Content-Type: a/b", b"Content-Type: c/d")),
        ("a chunk longer than its size", CHUNKED_HEAD + b"3\r\nabcd\r\n0\r\n\r\n"),
        ("a chunk size and a bare LF", CHUNKED_HEAD + b"3\nabc\r\n0\r\n\r\n"),
        ("a chunk's end and a bare LF", CHUNKED_HEAD + b"3\r\nabc\n0\r\n\r\n"),
        ("the last chunk and a bare LF", CHUNKED_HEAD + b"0\r\n\n"),
        ("a chunk size and a bare CR", CHUNKED_HEAD + b"3\rXabc\r\n"),
        ("a chunk size and a blank", CHUNKED_HEAD + b"3 \r\nabc\r\n"),
        ("a blank and a chunk size", CHUNKED_HEAD + b" 3\r\nabc\r\n"),
        ("chunk size +3", CHUNKED_HEAD + b"+3\r\nabc\r\n"),
        ("chunk size 0x3", CHUNKED_HEAD + b"0x3\r\nabc\r\n"),
        ("chunk size -3", CHUNKED_HEAD + b"-3\r\nabc\r\n"),
        ("no chunk size", CHUNKED_HEAD + b"\r\nabc\r\n"),
        ("a chunk size beyond 64 bits", CHUNKED_HEAD + b"fffffffffffffffff\r\nabc\r\n"),
        ("a bare LF in a chunk extension", CHUNKED_HEAD + b"3;a\nabc\r\n"),
        ("a bare CR in a chunk extension", CHUNKED_HEAD + b"3;a\rb\r\nabc\r\n"),
        ("NUL in a chunk extension", CHUNKED_HEAD + b"3;a\0\r\nabc\r\n"),
        ("a length among the trailers", CHUNKED_HEAD + b"0\r\nContent-Length: 5\r\n\r\n"),
    ),
    *refused(
        501,
        ("an unknown method", b"FROB / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a method in lower case", b"get / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    *refused(
        505,
        ("HTTP/2 with prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("HTTP/2.0", get("/", version="2.0")),
        ("HTTP/0.9", b"GET /\r\n\r\n"),
    ),
    *refused(
        413,
        ("a body too long", post("/", b"x" * 1001)),
        ("a body too long, not yet sent", headed(b"Content-Length: 1001")),
        ("a chunked body too long", chunked("/", b"x" * 500, b"x" * 501)),
        ("one chunk too long", chunked("/", b"x" * 1001)),
    ),
    *refused(
        414,
        ("a URL too long", get("/" + "x" * 500)),
        ("a URL without end", b"GET /" + b"x" * 5000),
    ),
    *refused(
        431,
        ("headers too long", get("/", "".join(f"X-{n}: {'y' * 300}\r\n" for n in range(4)))),
        ("too many fields", get("/", "X: y\r\n" * 20)),
        ("a header without end", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 9000),
        ("a header's name without end", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"y" * 9000),
        ("blanks without end", b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b" " * 9000),
        ("a trailer without end", CHUNKED_HEAD + b"1\r\nx\r\n0\r\nX: " + b"y" * 9000),
        ("trailers too long", CHUNKED_HEAD + b"0\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 40),
        ("a chunk extension without end", CHUNKED_HEAD + b"1;" + b"y" * 9000),
    ),
]

SMALL = {"request_line_bytes": 500, "header_bytes": 1000, "header_fields": 20, "body_bytes": 1000}


@pytest.mark.parametrize(("status", "data"), REFUSED)
def test_an_invalid_request_is_refused_and_nothing_after_it_is_a_request(
    connect: Callable[..., Client], status: int, data: bytes
) -> None:
    client = connect(**SMALL).send(data + get("/smuggled"))
    assert client.got == b"[%d]" % status
    assert client.transport.half_closed, "a full close could be a reset, in which the answer is lost"
    client.send(get("/later"))
    assert client.app.requests == []
    assert client.got == b"[%d]" % status


@pytest.mark.parametrize(("status", "data"), REFUSED)
def test_a_refusal_comes_after_the_responses_to_earlier_requests(
    connect: Callable[..., Client], status: int, data: bytes
) -> None:
    client = connect(answer_at_once=False, **SMALL).send(get("/1") + post("/2", b"x") + data)
    assert client.got == b""
    client.answer()
    client.answer()
    assert client.got.startswith(b"</1></2>[")
    assert len(client.app.requests) == 2
    assert client.transport.half_closed


@pytest.mark.parametrize(
    "data",
    [
        get("/" + "x" * 499),
        get("/", "".join(f"{n:04}: {'y' * 92}\r\n" for n in range(9)) + f"Last: {'y' * 82}\r\n"),
        get("/", "".join(f"X{n}: y\r\n" for n in range(19))),
        post("/", b"x" * 1000),
        chunked("/", b"x" * 999, b"x"),
    ],
    ids=["URL", "headers", "fields", "body", "chunked body"],
)
def test_a_request_just_within_the_limits_is_accepted(connect: Callable[..., Client], data: bytes) -> None:
    client = connect(**SMALL).send(data + get("/2"))
    assert [request.uri for request in client.app.requests][1:] == ["/2"]


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        CHUNKED_HEAD + b"0\r\nX: ",
        CHUNKED_HEAD + b"1;",
    ],
)
def test_an_endless_line_takes_no_memory(begin: bytes) -> None:
    client = Client(App())
    client.send(begin)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(200):
            client.send(b"y" * 65536)
        assert client.transport.half_closed
        assert tracemalloc.get_traced_memory()[1] < 600_000
    finally:
        tracemalloc.stop()


def test_a_refused_client_has_two_seconds_to_read_the_refusal() -> None:
    client = Client(App()).send(b"LOCK / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.got == b"[501]"
    client.app.clock.advance(1.9)
    client.app.close_overdue()
    assert not client.transport.aborted
    client.app.clock.advance(0.2)
    client.app.close_overdue()
    assert client.transport.aborted


# Any split of any valid stream parses the same

tokens = st.text("abcXYZ-09", min_size=1, max_size=8)
values = st.binary(max_size=20).map(lambda raw: bytes(b for b in raw if b == 9 or (b > 31 and b != 127)))
bodies = st.binary(max_size=60)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A valid stream of requests: heads, lengths, chunks, trailers, upgrades and expectations."""
    stream = b""
    for _ in range(draw(st.integers(1, 6))):
        stream += draw(st.sampled_from([b"", b"\r\n"]))
        method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"]))
        target = b"/" + draw(tokens).encode() + draw(st.sampled_from([b"", b"?a=%20&b", b"//%2F+"]))
        target = draw(st.sampled_from([b"", b"http://b:1"])) + target
        stream += b"%b %b HTTP/1.1\r\nHost: a\r\n" % (method, target)
        for name, value in draw(st.lists(st.tuples(tokens, values), max_size=4)):
            stream += b"X%b:%b%b\r\n" % (name.encode(), draw(st.sampled_from([b"", b" ", b"\t "])), value)
        stream += draw(st.sampled_from([b"", b"", EXPECT.encode(), b"Connection: Upgrade\r\nUpgrade: h2c\r\n"]))
        framing = draw(st.sampled_from(["none", "length", "chunks"]))
        if framing == "none":
            stream += b"\r\n"
        elif framing == "length":
            body = draw(bodies)
            stream += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        else:
            stream += b"Transfer-Encoding: chunked\r\n\r\n"
            for chunk in draw(st.lists(bodies.filter(bool), max_size=4)):
                stream += b"%x%b\r\n%b\r\n" % (len(chunk), draw(st.sampled_from([b"", b";a", b';a="b"'])), chunk)
            stream += b"0\r\n" + draw(st.sampled_from([b"", b"X-Trailer: 1\r\nY: 2\r\n"])) + b"\r\n"
    return stream


def parsed(pieces: list[bytes], **limits: int) -> list[tuple[Any, ...]]:
    client = Client(App(**limits))
    for piece in pieces:
        client.send(piece)
    assert b"[" not in client.got, client.got
    assert not client.transport.closed
    answers = client.got.replace(GO_ON, b"")  # a client that has sent its body already need not be told
    assert answers == b"".join(b"<%b>" % request.uri.encode() for request in client.app.requests)
    return [(r.method, r.uri, r.host, sorted(r.headers.items()), r.body) for r in client.app.requests]


@settings(max_examples=300, deadline=None)
@given(streams(), st.data())
def test_any_split_of_any_valid_stream_parses_the_same(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=30)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = parsed([stream])
    assert whole
    assert parsed(pieces, requests_waiting=data.draw(st.integers(1, 3))) == whole
    assert parsed([stream[i : i + 1] for i in range(len(stream))]) == whole
