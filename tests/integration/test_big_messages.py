"""Big messages: whichever way they go in and come out, they come out as they went in, down to the last byte."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import xmlrpc.client
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from restmq.client import Client
from tests.servers import Comet, Daemon, Redis, listeners, stopping, wait_until

MIB = 1 << 20
SIZES = [MIB, 15 * MIB]
SECONDS_MAX = 60


@pytest.fixture(scope="module")
def daemon(folder: Path, redis: Redis) -> Iterator[Daemon]:
    """One that lets a live consumer be as far behind as several of these messages are long."""
    server = Daemon(folder / "big", "--max-unsent", str(64 * MIB), redis=redis)
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


# Ways in


def as_form(daemon: Daemon, queue: str, value: bytes) -> None:
    with daemon.client() as http:
        http.post(f"/q/{queue}", data={"value": value.decode()}).raise_for_status()


def as_form_at_the_root(daemon: Daemon, queue: str, value: bytes) -> None:
    with daemon.client() as http:
        http.post("/", data={"queue": queue, "value": value.decode()}).raise_for_status()


def as_multipart(daemon: Daemon, queue: str, value: bytes) -> None:
    with daemon.client() as http:
        http.post(f"/q/{queue}", files={"value": value}).raise_for_status()


def as_raw_body(daemon: Daemon, queue: str, value: bytes) -> None:
    with daemon.client() as http:
        http.post(f"/q/{queue}", content=value, headers={"Content-Type": "image/jpeg"}).raise_for_status()


def as_chunks(daemon: Daemon, queue: str, value: bytes) -> None:
    def chunks() -> Iterator[bytes]:
        for start in range(0, len(value), 100_000):
            yield value[start : start + 100_000]

    with daemon.client() as http:
        http.post(f"/q/{queue}", content=chunks(), headers={"Content-Type": "image/jpeg"}).raise_for_status()


def as_json_command(daemon: Daemon, queue: str, value: bytes) -> None:
    with daemon.client() as http:
        http.post("/queue", json={"cmd": "add", "queue": queue, "value": value.decode()}).raise_for_status()


def as_json_lines(daemon: Daemon, queue: str, value: bytes) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    with daemon.client() as http:
        http.post(f"/q/{queue}", content=json.dumps(value.decode()), headers=headers).raise_for_status()


def by_xmlrpc(daemon: Daemon, queue: str, value: bytes) -> None:
    with xmlrpc.client.ServerProxy(f"{daemon.url}/xmlrpc", allow_none=True) as server:
        server.set(queue, value.decode())


def as_websocket_command(daemon: Daemon, queue: str, value: bytes) -> None:
    async def conversation() -> None:
        async with connect(f"ws://127.0.0.1:{daemon.port}/ws/elsewhere", max_size=None) as socket:
            await socket.send(json.dumps({"cmd": "add", "queue": queue, "value": value.decode()}))
            assert "key" in json.loads(await socket.recv())

    asyncio.run(asyncio.wait_for(conversation(), SECONDS_MAX))


def by_the_client(daemon: Daemon, queue: str, value: bytes) -> None:
    with Client(daemon.url) as client:
        client.publish(queue, value)


In = Callable[[Daemon, str, bytes], None]
WAYS_IN_FOR_TEXT: list[In] = [
    as_form, as_form_at_the_root, as_json_command, as_json_lines, by_xmlrpc, as_websocket_command
]  # fmt: skip
WAYS_IN_FOR_BYTES: list[In] = [as_multipart, as_raw_body, as_chunks, by_the_client]


# Ways out


def value_in(fields: dict[str, Any]) -> bytes:
    """The value in a JSON answer."""
    said: str = fields["value"]
    return base64.b64decode(said, validate=True) if fields.get("encoding") == "base64" else said.encode()


def from_get(daemon: Daemon, queue: str) -> bytes:
    with daemon.client() as http:
        return value_in(http.get(f"/q/{queue}").raise_for_status().json())


def from_get_many(daemon: Daemon, queue: str) -> bytes:
    with daemon.client() as http:
        (fields,) = http.get(f"/q/{queue}?count=10").raise_for_status().json()
        return value_in(fields)


def as_octets(daemon: Daemon, queue: str) -> bytes:
    with daemon.client() as http:
        answer = http.get(f"/q/{queue}", headers={"Accept": "application/octet-stream"}).raise_for_status()
        return answer.content


def under_a_lease(daemon: Daemon, queue: str) -> bytes:
    with daemon.client() as http:
        fields = http.get(f"/q/{queue}?lease=60").raise_for_status().json()
        assert http.delete(f"/m/{fields['key']}", params={"receipt": fields["receipt"]}).status_code == 204
        return value_in(fields)


def from_looking(daemon: Daemon, queue: str) -> bytes:
    with daemon.client() as http:
        fields = http.get(f"/m/{queue}:1").raise_for_status().json()
        assert http.post("/queue", json={"cmd": "get", "queue": queue}).json()["value"] == fields["value"]
        return value_in(fields)


def from_json_take(daemon: Daemon, queue: str) -> bytes:
    with daemon.client() as http:
        return value_in(http.post("/queue", json={"cmd": "take", "queue": queue}).raise_for_status().json())


def from_xmlrpc(daemon: Daemon, queue: str) -> bytes:
    with xmlrpc.client.ServerProxy(f"{daemon.url}/xmlrpc", allow_none=True, use_builtin_types=True) as server:
        value = server.get(queue)["value"]  # type: ignore[index,call-overload]
        assert isinstance(value, str | bytes)
        return value.encode() if isinstance(value, str) else value


def from_comet(daemon: Daemon, queue: str) -> bytes:
    comet = Comet(daemon, f"/c/{queue}")
    with contextlib.closing(comet):
        return value_in(json.loads(comet.lines(1)[0]))


def from_events(daemon: Daemon, queue: str) -> bytes:
    comet = Comet(daemon, f"/sse/{queue}")
    with contextlib.closing(comet):
        _retry, event = comet.lines(2, b"\n\n")
    fields = dict(line.split(b": ", 1) for line in event.split(b"\n"))
    assert fields[b"id"].decode() == f"{queue}:1"
    is_text = fields.get(b"encoding") != b"base64"
    return fields[b"data"] if is_text else base64.b64decode(fields[b"data"], validate=True)


def from_websocket(daemon: Daemon, queue: str, compression: str | None = None) -> bytes:
    async def conversation() -> bytes:
        url = f"ws://127.0.0.1:{daemon.port}/ws/{queue}"
        async with connect(url, max_size=None, compression=compression) as socket:
            return value_in(json.loads(await socket.recv()))

    return asyncio.run(asyncio.wait_for(conversation(), SECONDS_MAX))


def from_compressed_websocket(daemon: Daemon, queue: str) -> bytes:
    return from_websocket(daemon, queue, "deflate")


def by_the_client_leased(daemon: Daemon, queue: str) -> bytes:
    with Client(daemon.url) as client:
        message = client.lease(queue, 60)
        assert message is not None
        client.ack(message)
        return message.value


Out = Callable[[Daemon, str], bytes]
WAYS_OUT: list[Out] = [
    from_get, from_get_many, as_octets, under_a_lease, from_looking, from_json_take, from_xmlrpc, from_comet,
    from_events, from_websocket, from_compressed_websocket, by_the_client_leased,
]  # fmt: skip


def name(what: Any) -> str:
    return what.__name__ if callable(what) else f"{what // MIB}MiB"


@pytest.mark.parametrize("size_bytes", SIZES, ids=name)
@pytest.mark.parametrize("way_in", WAYS_IN_FOR_TEXT, ids=name)
def test_text_goes_in_whole(daemon: Daemon, redis: Redis, queue: str, way_in: In, size_bytes: int) -> None:
    way_in(daemon, queue, text(size_bytes))
    assert redis.command("STRLEN", f"{queue}:1") == size_bytes
    assert sum_of(as_octets(daemon, queue)) == sum_of(text(size_bytes))


@pytest.mark.parametrize("size_bytes", SIZES, ids=name)
@pytest.mark.parametrize("way_in", WAYS_IN_FOR_BYTES, ids=name)
def test_bytes_go_in_whole(daemon: Daemon, redis: Redis, queue: str, way_in: In, size_bytes: int) -> None:
    way_in(daemon, queue, noise(size_bytes))
    assert redis.command("STRLEN", f"{queue}:1") == size_bytes
    assert sum_of(as_octets(daemon, queue)) == sum_of(noise(size_bytes))


@pytest.mark.parametrize("size_bytes", SIZES, ids=name)
@pytest.mark.parametrize("kind", [text, noise], ids=["text", "bytes"])
@pytest.mark.parametrize("way_out", WAYS_OUT, ids=name)
def test_what_went_in_comes_out_whole(
    daemon: Daemon, queue: str, way_out: Out, kind: Callable[[int], bytes], size_bytes: int
) -> None:
    as_raw_body(daemon, queue, kind(size_bytes))
    assert sum_of(way_out(daemon, queue)) == sum_of(kind(size_bytes))


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
