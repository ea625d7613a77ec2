"""All ways to add and to receive messages, each with a client that users have."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import xmlrpc.client
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote

from websockets.asyncio.client import connect

from restmq.client import Client
from tests.servers import Comet, Daemon

SECONDS_MAX = 60

#: Adds a message.
In = Callable[[Daemon, str, bytes], None]
#: Receives a number of messages. Returns their keys and values, in order.
Out = Callable[[Daemon, str, int], list[tuple[str, bytes]]]


def path(route: str, name: str) -> str:
    return f"/{route}/{quote(name, safe='')}"


# Ways in


def as_form(daemon: Daemon, queue: str, value: bytes) -> None:
    with daemon.client() as http:
        http.post(path("q", queue), data={"value": value.decode()}).raise_for_status()


def as_form_at_the_root(daemon: Daemon, queue: str, value: bytes) -> None:
    with daemon.client() as http:
        http.post("/", data={"queue": queue, "value": value.decode()}).raise_for_status()


def as_multipart(daemon: Daemon, queue: str, value: bytes) -> None:
    with daemon.client() as http:
        http.post(path("q", queue), files={"value": value}).raise_for_status()


def as_raw_body(daemon: Daemon, queue: str, value: bytes) -> None:
    with daemon.client() as http:
        http.post(path("q", queue), content=value, headers={"Content-Type": "image/jpeg"}).raise_for_status()


def as_chunks(daemon: Daemon, queue: str, value: bytes) -> None:
    def chunks() -> Iterator[bytes]:
        for start in range(0, len(value), 100_000):
            yield value[start : start + 100_000]

    with daemon.client() as http:
        http.post(path("q", queue), content=chunks(), headers={"Content-Type": "image/jpeg"}).raise_for_status()


def as_json_command(daemon: Daemon, queue: str, value: bytes) -> None:
    with daemon.client() as http:
        http.post("/queue", json={"cmd": "add", "queue": queue, "value": value.decode()}).raise_for_status()


def as_json_lines(daemon: Daemon, queue: str, value: bytes) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    with daemon.client() as http:
        http.post(path("q", queue), content=json.dumps(value.decode()), headers=headers).raise_for_status()


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


WAYS_IN_FOR_TEXT: list[In] = [
    as_form, as_form_at_the_root, as_json_command, as_json_lines, by_xmlrpc, as_websocket_command
]  # fmt: skip
WAYS_IN_FOR_BYTES: list[In] = [as_multipart, as_raw_body, as_chunks, by_the_client]


# Ways out


def value_in(fields: dict[str, Any]) -> bytes:
    """The value in a JSON response."""
    said: str = fields["value"]
    return base64.b64decode(said, validate=True) if fields.get("encoding") == "base64" else said.encode()


def message_in(fields: dict[str, Any]) -> tuple[str, bytes]:
    return fields["key"], value_in(fields)


def from_get(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    with daemon.client() as http:
        return [message_in(http.get(path("q", queue)).raise_for_status().json()) for _ in range(count)]


def from_get_at_the_root(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    with daemon.client() as http:
        asked = {"queue": queue}
        return [message_in(http.get("/", params=asked).raise_for_status().json()) for _ in range(count)]


def from_get_many(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    with daemon.client() as http:
        return [message_in(each) for each in http.get(path("q", queue), params={"count": count}).json()]


def as_octets(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    with daemon.client() as http:
        accept = {"Accept": "application/octet-stream"}
        answers = [http.get(path("q", queue), headers=accept).raise_for_status() for _ in range(count)]
        return [(unquote(answer.headers["X-RestMQ-Key"]), answer.content) for answer in answers]


def as_jsonp(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    with daemon.client() as http:
        calls = [http.get(path("q", queue), params={"callback": "got"}).raise_for_status() for _ in range(count)]
        return [message_in(json.loads(call.text.removeprefix("got(").removesuffix(");\r\n"))) for call in calls]


def under_a_lease(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    found = []
    with daemon.client() as http:
        for _ in range(count):
            fields = http.get(path("q", queue), params={"lease": 60}).raise_for_status().json()
            acked = http.delete(path("m", fields["key"]), params={"receipt": fields["receipt"]})
            assert acked.status_code == 204
            found.append(message_in(fields))
    return found


def from_looking(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    found = []
    with daemon.client() as http:
        for _ in range(count):
            looked = http.post("/queue", json={"cmd": "get", "queue": queue}).raise_for_status().json()
            again = http.get(path("m", looked["key"])).raise_for_status().json()
            assert again["value"] == looked["value"]
            deleted = http.post("/queue", json={"cmd": "del", "queue": queue, "key": looked["key"]}).json()
            assert deleted == {"queue": queue, "key": looked["key"], "deleted": True}
            found.append(message_in(looked))
    return found


def from_json_take(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    with daemon.client() as http:
        command = {"cmd": "take", "queue": queue}
        return [message_in(http.post("/queue", json=command).raise_for_status().json()) for _ in range(count)]


def from_xmlrpc(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    found = []
    with xmlrpc.client.ServerProxy(f"{daemon.url}/xmlrpc", allow_none=True, use_builtin_types=True) as server:
        for _ in range(count):
            message: Any = server.get(queue)
            value = message["value"]
            found.append((message["key"], value.encode() if isinstance(value, str) else value))
    return found


def from_comet(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    with contextlib.closing(Comet(daemon, path("c", queue))) as comet:
        return [message_in(json.loads(line)) for line in comet.lines(count)]


def from_events(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    events: list[bytes] = []
    with contextlib.closing(Comet(daemon, path("sse", queue))) as comet:
        while len(events) < count:
            events += [block for block in comet.lines(1, b"\n\n") if b"data:" in block]
    found = []
    for event in events:
        fields = [line.partition(b": ")[::2] for line in event.split(b"\n")]
        value = b"\n".join(said for field, said in fields if field == b"data")
        if (b"encoding", b"base64") in fields:
            value = base64.b64decode(value, validate=True)
        found.append((dict(fields)[b"id"].decode(), value))
    return found


def from_websocket(daemon: Daemon, queue: str, count: int, compression: str | None = None) -> list[tuple[str, bytes]]:
    async def conversation() -> list[tuple[str, bytes]]:
        url = f"ws://127.0.0.1:{daemon.port}{path('ws', queue)}"
        async with connect(url, max_size=None, compression=compression) as socket:
            return [message_in(json.loads(await socket.recv())) for _ in range(count)]

    return asyncio.run(asyncio.wait_for(conversation(), SECONDS_MAX))


def from_compressed_websocket(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    return from_websocket(daemon, queue, count, "deflate")


def from_websocket_commands(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    async def conversation() -> list[tuple[str, bytes]]:
        found = []
        async with connect(f"ws://127.0.0.1:{daemon.port}/ws/elsewhere", max_size=None) as socket:
            for _ in range(count):
                await socket.send(json.dumps({"cmd": "take", "queue": queue}))
                found.append(message_in(json.loads(await socket.recv())))
        return found

    return asyncio.run(asyncio.wait_for(conversation(), SECONDS_MAX))


def by_the_client_leased(daemon: Daemon, queue: str, count: int) -> list[tuple[str, bytes]]:
    found = []
    with Client(daemon.url) as client:
        for _ in range(count):
            message = client.lease(queue, 60)
            assert message is not None
            client.ack(message)
            found.append((message.key, message.value))
    return found


WAYS_OUT: list[Out] = [
    from_get, from_get_at_the_root, from_get_many, as_octets, as_jsonp, under_a_lease, from_looking, from_json_take,
    from_xmlrpc, from_comet, from_events, from_websocket, from_compressed_websocket, from_websocket_commands,
    by_the_client_leased,
]  # fmt: skip
