"""Request bodies with a content coding."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest

from tests.in_memory import App, Client, chunked, get, post

TEXT = b'{"cmd":"add","value":"' + bytes(range(32, 127)).replace(b'"', b"") * 40 + b'"}'


def bare_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


@pytest.mark.parametrize(
    ("coding", "encoded"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("GZip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", bare_deflate(TEXT)),
        ("identity", TEXT),
        ("Identity", TEXT),
    ],
    ids=["gzip", "capitals", "two members", "deflate", "bare deflate", "identity", "Identity"],
)
def test_a_coded_body_arrives_decoded(connect: Callable[..., Client], coding: str, encoded: bytes) -> None:
    fields = f"Content-Encoding: {coding}\r\n"
    client = connect().send(post("/1", encoded, fields) + chunked("/2", encoded[:7], encoded[7:], fields=fields))
    client.send(get("/3"))
    assert [request.body for request in client.app.requests] == [TEXT, TEXT, b""]


def test_an_empty_body_may_name_a_coding() -> None:
    client = Client(App()).send(post("/", b"", "Content-Encoding: gzip\r\n"))
    assert client.got == b"</>"


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", ""])
def test_another_coding_gets_415(connect: Callable[..., Client], coding: str) -> None:
    assert connect().send(post("/", TEXT, f"Content-Encoding: {coding}\r\n")).got == b"[415]"


@pytest.mark.parametrize(
    ("coding", "encoded"),
    [
        ("gzip", TEXT),
        ("gzip", gzip.compress(TEXT)[:-1]),
        ("gzip", gzip.compress(TEXT) + b"rubbish"),
        ("deflate", b"\xff\xff\xff"),
        ("deflate", zlib.compress(TEXT)[:-1]),
        ("deflate", zlib.compress(TEXT) + b"x"),
        ("deflate", b"\x78"),
    ],
    ids=["not gzip", "cut", "rubbish after it", "not deflate", "cut deflate", "deflate and more", "one byte"],
)
def test_a_body_that_is_not_in_its_coding_gets_400(connect: Callable[..., Client], coding: str, encoded: bytes) -> None:
    client = connect().send(post("/", encoded, f"Content-Encoding: {coding}\r\n") + get("/2"))
    assert client.got == b"[400]"
    assert client.app.requests == []


@pytest.mark.parametrize("body", [b"x" * 16_000_000, b"\0" * 60_000_000], ids=["16 MB", "60 MB"])
def test_a_body_that_expands_too_much_gets_413(body: bytes) -> None:
    client = Client(App(), 1400).send(post("/", gzip.compress(body), "Content-Encoding: gzip\r\n"))
    assert client.got == b"[413]"


def test_the_limit_of_a_body_holds_for_the_decoded_one() -> None:
    app = App(body_bytes=1000)
    assert Client(app).send(post("/", gzip.compress(b"x" * 1000), "Content-Encoding: gzip\r\n")).got == b"</>"
    assert Client(app).send(post("/", gzip.compress(b"x" * 1001), "Content-Encoding: gzip\r\n")).got == b"[413]"


def test_a_decoded_body_counts_with_its_decoded_length() -> None:
    client = Client(App(answer_at_once=False))
    client.send(post("/", gzip.compress(b"x" * 1_000_000), "Content-Encoding: gzip\r\n"))
    assert client.app.received.used == 1_000_000 - 16_384
