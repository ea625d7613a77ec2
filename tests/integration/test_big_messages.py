"""Big messages: every way in stores them, and every way out delivers them, byte for byte."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Comet, Daemon, Redis, listeners, stopping, wait_until
from tests.ways import WAYS_IN_FOR_BYTES, WAYS_IN_FOR_TEXT, WAYS_OUT, In, Out, as_octets, as_raw_body, value_in

MIB = 1 << 20
BIG = 15 * MIB


@pytest.fixture(scope="module")
def redis(module_folder: Path) -> Iterator[Redis]:
    """A Redis that does not write a gigabyte to the disk."""
    with stopping(Redis(module_folder / "redis-big", "--appendonly", "no")) as server:
        yield server


@pytest.fixture(scope="module")
def daemon(module_folder: Path, redis: Redis) -> Iterator[Daemon]:
    with stopping(Daemon(module_folder / "big", redis=redis)) as server:
        yield server


def sum_of(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


@cache
def text(size_bytes: int) -> bytes:
    """Random letters that forms, JSON and XML write as one byte each."""
    return base64.urlsafe_b64encode(os.urandom(size_bytes))[:size_bytes]


@cache
def noise(size_bytes: int) -> bytes:
    """Random bytes."""
    return os.urandom(size_bytes)


def one(way_out: Out, daemon: Daemon, queue: str) -> bytes:
    """The value of the queue's only message."""
    ((key, value),) = way_out(daemon, queue, 1)
    assert key == f"{queue}:1"
    return value


def name(what: Any) -> str:
    return str(what.__name__)


@pytest.mark.parametrize("way_in", WAYS_IN_FOR_TEXT, ids=name)
def test_big_text_is_stored_whole(daemon: Daemon, redis: Redis, queue: str, way_in: In) -> None:
    way_in(daemon, queue, text(BIG))
    assert redis.command("STRLEN", f"{queue}:1") == BIG
    assert sum_of(one(as_octets, daemon, queue)) == sum_of(text(BIG))


@pytest.mark.parametrize("way_in", WAYS_IN_FOR_BYTES, ids=name)
def test_big_binary_values_are_stored_whole(daemon: Daemon, redis: Redis, queue: str, way_in: In) -> None:
    way_in(daemon, queue, noise(BIG))
    assert redis.command("STRLEN", f"{queue}:1") == BIG
    assert sum_of(one(as_octets, daemon, queue)) == sum_of(noise(BIG))


@pytest.mark.parametrize("way_out", WAYS_OUT, ids=name)
def test_big_messages_are_delivered_whole(daemon: Daemon, queue: str, way_out: Out) -> None:
    """Bytes make the longest responses, as most formats need base64 for them. Text is written in another way."""
    for value in (noise(BIG), text(MIB)):
        as_raw_body(daemon, queue, value)
        ((_, delivered),) = way_out(daemon, queue, 1)
        assert sum_of(delivered) == sum_of(value)


def test_consumers_that_listen_already_get_a_big_message_whole(daemon: Daemon, redis: Redis, queue: str) -> None:
    comets = [Comet(daemon, f"/c/{queue}") for _ in range(3)]
    wait_until(lambda: listeners(redis, queue))
    as_raw_body(daemon, queue, text(BIG))
    for comet in comets:
        assert sum_of(value_in(json.loads(comet.lines(1)[0]))) == sum_of(text(BIG))
        comet.close()


def test_big_messages_keep_their_order(daemon: Daemon, redis: Redis, queue: str) -> None:
    values = [str(n).encode() + text(MIB) for n in range(8)]
    for value in values:
        as_raw_body(daemon, queue, value)
    comet = Comet(daemon, f"/c/{queue}")
    found = [value_in(json.loads(line)) for line in comet.lines(len(values))]
    comet.close()
    assert [sum_of(value) for value in found] == [sum_of(value) for value in values]
