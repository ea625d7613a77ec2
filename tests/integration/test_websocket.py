"""WebSocket: messages as frames, commands as frames, and closing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import select
import struct
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.servers import WEBSOCKET, Comet, Daemon, Redis, listeners, stopping, wait_until


def url(daemon: Daemon, queue: str, query: str = "") -> str:
    return f"ws://127.0.0.1:{daemon.port}/ws/{queue}{query}"


def run(conversation: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(conversation, 40))


async def heard(redis: Redis, queue: str, daemons: int = 1) -> None:
    await asyncio.to_thread(wait_until, lambda: listeners(redis, queue) == daemons)


async def post(daemon: Daemon, queue: str, value: str) -> str:
    def send() -> str:
        with daemon.client() as http:
            return http.post(f"/q/{queue}", data={"value": value}).text.strip()

    return await asyncio.to_thread(send)


async def command(socket: ClientConnection, **fields: Any) -> Any:
    await socket.send(json.dumps(fields))
    return json.loads(await socket.recv())


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("size", [1, 125, 126, 1023, 1024, 70_000])
def test_messages_arrive_as_text_frames(
    daemon: Daemon, redis: Redis, queue: str, compression: str | None, size: int
) -> None:
    async def conversation() -> None:
        async with connect(url(daemon, queue), compression=compression) as socket:
            await heard(redis, queue)
            for value in ("ü" * size, os.urandom(size // 2 + 1).hex()):
                key = await post(daemon, queue, value)
                assert json.loads(await socket.recv()) == {"key": key, "value": value}

    run(conversation())


def test_a_frame_that_is_no_command_is_echoed(daemon: Daemon, queue: str) -> None:
    async def conversation() -> None:
        async with connect(url(daemon, queue), subprotocols=["restmq"]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == "restmq"
            for said in ("hello", "", "[1]", '"cmd"', "{}", "ü" * 5000, b"\x00\xff", b""):
                await socket.send(said)
                assert await socket.recv() == said

    run(conversation())


def test_commands_are_answered_in_order_with_their_id(daemon: Daemon, queue: str) -> None:
    async def conversation() -> None:
        async with connect(url(daemon, "elsewhere")) as socket:
            for number in range(200):
                await socket.send(json.dumps({"cmd": "add", "queue": queue, "value": str(number), "id": number}))
            answers = [json.loads(await socket.recv()) for _ in range(200)]
            assert [answer["id"] for answer in answers] == list(range(200))
            assert answers[7]["key"] == f"{queue}:8"
            assert await command(socket, cmd="take", queue=queue, id="x") == {
                "queue": queue,
                "key": f"{queue}:1",
                "value": "0",
                "id": "x",
            }
            assert "unknown 'cmd'" in (await command(socket, cmd="_class__"))["error"]
            assert "'value'" in (await command(socket, cmd="add", queue=queue))["error"]

    run(conversation())


@pytest.mark.parametrize("levels", [2000, 100_000])
@pytest.mark.parametrize("field", ["value", "id"])
def test_a_command_that_is_too_deep_is_answered_with_an_error_and_nothing_is_done(
    daemon: Daemon, redis: Redis, queue: str, field: str, levels: int
) -> None:
    async def conversation() -> None:
        async with connect(url(daemon, "elsewhere")) as socket:
            deep = "[" * (levels - 1) + "]" * (levels - 1)
            rest = "" if field == "value" else ', "value": "v"'
            await socket.send(f'{{"cmd": "add", "queue": "{queue}", "{field}": {deep}{rest}}}')
            assert list(json.loads(await socket.recv())) == ["error"]
            assert redis.command("EXISTS", f"{queue}:queue") == 0
            assert (await command(socket, cmd="add", queue=queue, value="v"))["key"] == f"{queue}:1"

    run(conversation())


def test_a_command_without_a_queue_is_for_the_sockets_queue(daemon: Daemon, redis: Redis, queue: str) -> None:
    async def conversation() -> None:
        async with connect(url(daemon, queue)) as socket:
            await heard(redis, queue)
            await socket.send('{"cmd": "add", "value": "to myself"}')
            both = [json.loads(await socket.recv()) for _ in range(2)]
            assert [answer["value"] for answer in both] == ["to myself"] * 2

    run(conversation())


def test_a_socket_that_reconnects_gets_the_messages_that_it_missed(daemon: Daemon, redis: Redis, queue: str) -> None:
    with daemon.client() as http:
        http.post(f"/p/{queue}", data={"history": "100"})
    witness = Comet(daemon, f"/c/{queue}")
    wait_until(lambda: listeners(redis, queue))

    async def conversation() -> None:
        keys = [await post(daemon, queue, str(n)) for n in range(5)]
        async with connect(url(daemon, queue, f"?last_event_id={keys[1]}")) as socket:
            assert [json.loads(await socket.recv())["key"] for _ in range(3)] == keys[2:]

    run(conversation())
    witness.close()


def test_delete_closes_the_socket_normally(daemon: Daemon, redis: Redis, queue: str) -> None:
    async def conversation() -> None:
        async with connect(url(daemon, queue)) as socket:
            await heard(redis, queue)
            with daemon.client() as http:
                await asyncio.to_thread(http.delete, f"/q/{queue}")
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert (socket.close_code, socket.close_reason) == (1000, "the queue was deleted")

    run(conversation())


def test_at_shutdown_the_close_code_is_going_away(private_folder: Path, redis: Redis, queue: str) -> None:
    daemon = Daemon(private_folder, redis=redis)

    async def conversation() -> None:
        async with connect(url(daemon, queue)) as socket:
            await heard(redis, queue)
            daemon.process.terminate()
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1001

    with stopping(daemon):
        run(conversation())


def test_a_frame_beyond_the_limit_is_closed_as_too_big(private_folder: Path, redis: Redis, queue: str) -> None:
    daemon = Daemon(private_folder, "--max-body", "10000", redis=redis)

    async def conversation() -> None:
        for compression in (None, "deflate"):
            async with connect(url(daemon, queue), compression=compression) as socket:
                await socket.send("x" * 10_000)
                assert len(await socket.recv()) == 10_000
                await socket.send(
                    "x" * (10_001 if compression is None else 100_000)
                )  # what counts is what it unpacks to
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
                assert socket.close_code == 1009

    with stopping(daemon):
        run(conversation())


def test_a_socket_that_does_not_read_is_told_to_try_again_later(private_folder: Path, redis: Redis, queue: str) -> None:
    daemon = Daemon(private_folder, "--max-unsent", "100000", redis=redis)

    async def conversation() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port, limit=2**24)
        writer.write(f"GET /ws/{queue} HTTP/1.1\r\nHost: 127.0.0.1\r\n{WEBSOCKET}\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await heard(redis, queue)
        while "was dropped" not in daemon.log:
            await post(daemon, queue, "x" * 90_000)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        stream = b""
        with contextlib.suppress(ConnectionResetError):  # we do not answer the close: then it is cut
            while part := await reader.read(2**20):
                stream += part
        assert stream.endswith(struct.pack("!H", 1013) + b"the consumer reads too slowly")

    with stopping(daemon):
        run(conversation())


def test_a_client_that_does_not_read_its_echoes_is_not_read_either(
    daemon: Daemon, http: httpx.Client, queue: str
) -> None:
    frame = b"\x81\xfe" + struct.pack("!H", 60_000) + bytes(4) + b"x" * 60_000
    with stopping(Rude(daemon, queue)) as client:
        client.socket.setblocking(False)
        sent = in_vain = 0
        while in_vain < 200:  # requests of another client, in each of which the server could have read on
            assert sent < 64 * 1024 * 1024, "the server reads on, and keeps all echoes"
            try:
                sent += client.socket.send(frame[sent % len(frame) :])
                in_vain = 0
            except BlockingIOError:
                assert http.get(f"/q/{queue}").status_code == 204
                in_vain += 1
        assert sent > len(frame)


def test_access_is_checked_before_the_handshake(private_folder: Path, redis: Redis, queue: str) -> None:
    acl = private_folder / "acl.conf"
    acl.write_text("[websocket:consumer]\nusername = alice\npassword = p%:ü\n[rest:producer]\nhosts_deny = all\n")
    daemon = Daemon(private_folder, "--acl", str(acl), redis=redis)

    async def conversation() -> None:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(daemon, queue))
        assert refused.value.response.status_code == 401
        assert refused.value.response.headers["WWW-Authenticate"] == 'Basic realm="RestMQ Restricted Access"'
        with pytest.raises(InvalidStatus) as refused:
            await connect(url(daemon, queue), origin="http://evil.example")  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403
        basic = base64.b64encode("alice:p%:ü".encode()).decode()
        cookie = "auth=alice:p%25%3A%C3%BC"
        for headers in (
            {"Authorization": f"Basic {basic}"},
            {"Cookie": cookie},
            {"Cookie": f'theme="; {cookie}; lang=en'},
        ):
            async with connect(url(daemon, queue), additional_headers=headers) as socket:
                assert "address" in (await command(socket, cmd="add", value="x"))["error"]  # rest:producer is closed
                assert await command(socket, cmd="take") == {"error": "empty queue"}

    with stopping(daemon):
        run(conversation())


def test_plain_http_gets_426(daemon: Daemon, queue: str) -> None:
    with daemon.client() as http:
        answer = http.get(f"/ws/{queue}")
    assert answer.status_code == 426
    assert answer.headers["Upgrade"] == "websocket"
    assert "WebSocket" in answer.json()["error"]


def test_frames_in_the_same_segment_as_the_handshake_are_not_lost(daemon: Daemon, queue: str) -> None:
    with daemon.connect() as raw:
        mask = b"\x01\x02\x03\x04"
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(b"early"))
        head = f"GET /ws/{queue} HTTP/1.1\r\nHost: 127.0.0.1\r\n{WEBSOCKET}\r\n".encode()
        raw.sendall(head + bytes((0x81, 0x80 | 5)) + mask + masked)
        received = b""
        while not received.endswith(b"\x81\x05early"):
            more = raw.recv(65536)
            assert more, received
            received += more
        assert b"101 Switching Protocols" in received
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in received  # the example of RFC 6455, 1.3


def test_leased_messages_are_acked_over_the_same_socket(daemon: Daemon, redis: Redis, queue: str) -> None:
    async def conversation() -> None:
        async with connect(url(daemon, queue, "?lease=600&prefetch=1")) as refused:
            raise AssertionError(f"a broadcast was leased: {refused}")

    async def refused() -> None:
        with pytest.raises(InvalidStatus) as answer:
            await conversation()
        assert answer.value.response.status_code == 409

    async def leased() -> None:
        with daemon.client() as http:
            await asyncio.to_thread(http.post, f"/p/{queue}", data={"policy": "roundrobin"})
        async with connect(url(daemon, queue, "?lease=600&prefetch=1")) as socket:
            for value in ("one", "two"):
                await post(daemon, queue, value)
            first = json.loads(await socket.recv())
            assert (first["value"], first["count"]) == ("one", 1)
            proof = {"key": first["key"], "receipt": first["receipt"]}
            await socket.send(json.dumps({"cmd": "ack", **proof}))
            answers = [json.loads(await socket.recv()) for _ in range(2)]
            (acked,) = [answer for answer in answers if "acked" in answer]
            (second,) = [answer for answer in answers if "value" in answer]
            assert acked == {"queue": queue, "key": first["key"], "acked": True}
            assert second["value"] == "two"
            assert "error" in await command(socket, cmd="ack", **proof)
        async with connect(url(daemon, queue, "?lease=600")) as socket:  # what was not acked has come back at once
            again = json.loads(await socket.recv())
            assert (again["key"], again["count"]) == (second["key"], 2)
            await command(socket, cmd="ack", key=again["key"], receipt=again["receipt"])

    run(refused())
    run(leased())


class Rude:
    """A WebSocket client that sends given bytes, and answers no close frame."""

    def __init__(self, daemon: Daemon, queue: str) -> None:
        self.socket = daemon.get(f"/ws/{queue}", WEBSOCKET)
        while not self.read(1).endswith(b"\n\r\n"):
            pass

    def send(self, **fields: Any) -> None:
        text = json.dumps(fields).encode()
        assert len(text) < 126
        self.socket.sendall(bytes((0x81, 0x80 | len(text))) + bytes(4) + text)

    _got = b""

    def read(self, count: int) -> bytes:
        """Reads this number of further bytes; returns all that came."""
        for _ in range(count):
            self._got += self.socket.recv(1)
        return self._got

    def stop(self) -> None:
        self.socket.close()


@pytest.mark.parametrize("command", [{"cmd": "take"}, {"cmd": "lease", "lease": 600}], ids=["take", "lease"])
def test_a_socket_that_the_server_closes_takes_no_more_messages(
    daemon: Daemon, http: httpx.Client, queue: str, command: dict[str, Any]
) -> None:
    with stopping(Rude(daemon, queue)) as client:
        client.send(queue=f"{queue}-other", wait=60, **command)
        wait_until(lambda: http.get(f"/stats/{queue}-other").json()["waiters"] == 1)
        http.delete(f"/q/{queue}")
        http.post(f"/q/{queue}-other", data={"value": "kept"})
        assert http.get(f"/q/{queue}-other?wait=20").json()["value"] == "kept"


def test_commands_to_a_socket_that_is_being_closed_are_not_run(daemon: Daemon, http: httpx.Client, queue: str) -> None:
    with stopping(Rude(daemon, queue)) as client:
        client.send(cmd="take", queue=f"{queue}-other", wait=60)
        client.send(cmd="add", queue=f"{queue}-other", value="behind the wait")
        wait_until(lambda: http.get(f"/stats/{queue}-other").json()["waiters"] == 1)
        http.delete(f"/q/{queue}")
        assert client.read(2)[-2:-1] == b"\x88"  # a close frame
        client.send(cmd="add", queue=f"{queue}-other", value="after the end")
        with contextlib.suppress(ConnectionResetError):
            while client.socket.recv(65536):
                pass
        assert http.get(f"/stats/{queue}-other").json()["totals"]["in"] == 0


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux tells of an end behind what is not read")
def test_a_disconnected_socket_with_waiting_commands_takes_nothing(
    daemon: Daemon, http: httpx.Client, queue: str
) -> None:
    with stopping(Rude(daemon, queue)) as client:
        client.send(cmd="take", queue=f"{queue}-other", wait=60)
        for _ in range(40):
            client.send(cmd="list")
        wait_until(lambda: http.get(f"/stats/{queue}-other").json()["waiters"] == 1)
    http.post(f"/q/{queue}-other", data={"value": "kept"})
    assert http.get(f"/q/{queue}-other?wait=20").json()["value"] == "kept"


def test_a_waiting_command_ends_with_its_socket_and_takes_nothing(daemon: Daemon, redis: Redis, queue: str) -> None:
    def waiters() -> int:
        with daemon.client() as http:
            return int(http.get(f"/stats/{queue}").json()["waiters"])

    async def conversation() -> None:
        socket = await connect(url(daemon, f"{queue}-other"))
        await socket.send(json.dumps({"cmd": "take", "queue": queue, "wait": 60}))
        await asyncio.to_thread(wait_until, lambda: waiters() == 1)
        await socket.close()
        await asyncio.to_thread(wait_until, lambda: waiters() == 0)
        key = await post(daemon, queue, "kept")
        async with connect(url(daemon, f"{queue}-other")) as other:
            found = await command(other, cmd="take", queue=queue, wait=10)
            assert found == {"queue": queue, "key": key, "value": "kept"}

    run(conversation())


def test_mistakes_of_clients_are_not_logged(private_folder: Path, redis: Redis, queue: str) -> None:
    daemon = Daemon(private_folder, redis=redis)
    head = f"GET /ws/{queue} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    good = f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n\r\n"

    def answer_to(sent: bytes) -> bytes:
        """All bytes until the server ends the connection, properly or not."""
        answer = b""
        with daemon.connect() as connection, contextlib.suppress(ConnectionResetError):
            connection.sendall(sent)
            while received := connection.recv(65536):
                answer += received
        return answer

    with stopping(daemon):
        before = daemon.log
        assert answer_to(f"{head}\r\n".encode()).startswith(b"HTTP/1.1 400 ")
        unmasked = answer_to(good.encode() + b"\x81\x02hi")
        assert b"\x03\xea" in unmasked.partition(b"\r\n\r\n")[2]  # a close frame with 1002, which is not answered
        assert daemon.log == before
