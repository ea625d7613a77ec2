"""Big messages: whichever way they go in and come out, they come out as they went in, down to the last byte."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Comet, Daemon, Redis, listeners, stopping, wait_until
from tests.ways import WAYS_IN_FOR_BYTES, WAYS_IN_FOR_TEXT, WAYS_OUT, In, Out, as_octets, as_raw_body, value_in

MIB = 1 << 20
SIZES = [MIB, 15 * MIB]


@pytest.fixture(scope="module")
def daemon(folder: Path, redis: Redis) -> Iterator[Daemon]:
    server = Daemon(folder / "big", redis=redis)
    with stopping(server):
        yield server
        server.assert_no_tracebacks()


def sum_of(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


@cache
def text(size_bytes: int) -> bytes:
    """Letters that no form, no JSON and no XML has to write in more than one byte; no two runs are alike."""
    return base64.urlsafe_b64encode(os.urandom(size_bytes))[:size_bytes]


@cache
def noise(size_bytes: int) -> bytes:
    """Every byte there is."""
    return os.urandom(size_bytes)


def one(way_out: Out, daemon: Daemon, queue: str) -> bytes:
    """The value of the queue's only message."""
    ((key, value),) = way_out(daemon, queue, 1)
    assert key == f"{queue}:1"
    return value


def name(what: Any) -> str:
    return what.__name__ if callable(what) else f"{what // MIB}MiB"


@pytest.mark.parametrize("size_bytes", SIZES, ids=name)
@pytest.mark.parametrize("way_in", WAYS_IN_FOR_TEXT, ids=name)
def test_text_goes_in_whole(daemon: Daemon, redis: Redis, queue: str, way_in: In, size_bytes: int) -> None:
    way_in(daemon, queue, text(size_bytes))
    assert redis.command("STRLEN", f"{queue}:1") == size_bytes
    assert sum_of(one(as_octets, daemon, queue)) == sum_of(text(size_bytes))


@pytest.mark.parametrize("size_bytes", SIZES, ids=name)
@pytest.mark.parametrize("way_in", WAYS_IN_FOR_BYTES, ids=name)
def test_bytes_go_in_whole(daemon: Daemon, redis: Redis, queue: str, way_in: In, size_bytes: int) -> None:
    way_in(daemon, queue, noise(size_bytes))
    assert redis.command("STRLEN", f"{queue}:1") == size_bytes
    assert sum_of(one(as_octets, daemon, queue)) == sum_of(noise(size_bytes))


@pytest.mark.parametrize("size_bytes", SIZES, ids=name)
@pytest.mark.parametrize("kind", [text, noise], ids=["text", "bytes"])
@pytest.mark.parametrize("way_out", WAYS_OUT, ids=name)
def test_what_went_in_comes_out_whole(
    daemon: Daemon, queue: str, way_out: Out, kind: Callable[[int], bytes], size_bytes: int
) -> None:
    as_raw_body(daemon, queue, kind(size_bytes))
    assert sum_of(one(way_out, daemon, queue)) == sum_of(kind(size_bytes))


@pytest.mark.parametrize("size_bytes", SIZES, ids=name)
def test_those_who_listen_already_get_it_whole_too(daemon: Daemon, redis: Redis, queue: str, size_bytes: int) -> None:
    comets = [Comet(daemon, f"/c/{queue}") for _ in range(3)]
    wait_until(lambda: listeners(redis, queue))
    as_raw_body(daemon, queue, text(size_bytes))
    for comet in comets:
        assert sum_of(value_in(json.loads(comet.lines(1)[0]))) == sum_of(text(size_bytes))
        comet.close()


def test_many_big_ones_come_out_in_order(daemon: Daemon, redis: Redis, queue: str) -> None:
    values = [str(n).encode() + text(MIB) for n in range(8)]
    for value in values:
        as_raw_body(daemon, queue, value)
    comet = Comet(daemon, f"/c/{queue}")
    found = [value_in(json.loads(line)) for line in comet.lines(len(values))]
    comet.close()
    assert [sum_of(value) for value in found] == [sum_of(value) for value in values]


def test_what_is_too_big_is_refused_before_it_is_read(daemon: Daemon, redis: Redis, queue: str) -> None:
    with daemon.client() as http:
        answer = http.post(f"/q/{queue}", content=noise(16 * MIB) + b"x", headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 413
    assert redis.command("EXISTS", f"{queue}:UUID") == 0
