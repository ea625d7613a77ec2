"""Lean raw clients for the load tests: they send exactly the bytes they are given, and keep a part of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass

HOST = "127.0.0.1"
_PIECE_BYTES = 256 * 1024
_KEPT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """A request, and the bytes that a client sends after it.

    Attributes:
        line: method and target, such as ``GET /healthz``.
        headers: header lines.
        body: bytes behind the head, as they are: a body, further requests, or WebSocket frames.
        until: bytes in the answer after which the client leaves; empty to wait for the end of the connection.
    """

    line: str
    headers: tuple[str, ...] = ()
    body: bytes = b""
    until: bytes = b""

    def head(self, *more: str) -> bytes:
        """The head, with more header lines."""
        return "\r\n".join([f"{self.line} HTTP/1.1", f"Host: {HOST}", *self.headers, *more, "", ""]).encode()


def post(path: str, media_type: str, body: bytes, *headers: str) -> Request:
    content = f"Content-Type: {media_type}", f"Content-Length: {len(body)}", "Connection: close"
    return Request(f"POST {path}", (*content, *headers), body)


def get(path: str, *headers: str) -> Request:
    return Request(f"GET {path}", ("Connection: close", *headers))


def websocket(path: str, frames: bytes, *headers: str, until: bytes = b"") -> Request:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    return Request(f"GET {path}", (*upgrade, "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", *headers), frames, until)


def frame(payload: bytes, opcode: int = 1, *, final: bool = True, compressed: bool = False) -> bytes:
    """A client's WebSocket frame (RFC 6455 section 5.2). Its mask is zero, so the payload stays as it is."""
    first = opcode | (final << 7) | (compressed << 6)
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


@dataclass(slots=True)
class Answer:
    """The beginning and the end of an answer, and its size."""

    start: bytes = b""
    end: bytes = b""
    size: int = 0
    unfinished: bool = False

    def feed(self, received: bytes) -> None:
        self.size += len(received)
        if len(self.start) < _KEPT_BYTES:
            self.start += received[:_KEPT_BYTES]
        self.end = (self.end + received)[-_KEPT_BYTES:]

    def __str__(self) -> str:
        """Names the outcome: a status, for WebSocket also a close code, or how it ended without one."""
        if self.unfinished:
            return "unfinished"
        status = self.start[9:12].decode(errors="replace")
        if not status:
            return "cut"
        code = self.close_code()
        return f"closed {code}" if code else status

    def close_code(self) -> int:
        """The code of a WebSocket close frame at the end of the answer; 0 if there is none."""
        if not self.start.startswith(b"HTTP/1.1 101"):
            return 0
        for at in range(max(0, len(self.end) - 127), len(self.end) - 3):
            if self.end[at] == 0x88 and at + 2 + self.end[at + 1] == len(self.end):
                return int(struct.unpack_from("!H", self.end, at + 2)[0])
        return 0


async def _send(writer: asyncio.StreamWriter, *parts: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        for part in parts:
            for at in range(0, len(part), _PIECE_BYTES):
                writer.write(part[at : at + _PIECE_BYTES])
                await writer.drain()


async def exchange(port: int, request: Request, *headers: str, seconds: float) -> Answer:
    """Sends the request on a new connection while it reads the answer. Disconnects after a number of seconds."""
    answer = Answer()
    reader, writer = await asyncio.open_connection(HOST, port)
    sending = asyncio.create_task(_send(writer, request.head(*headers), request.body))
    try:
        async with asyncio.timeout(seconds):
            while received := await reader.read(_PIECE_BYTES):
                answer.feed(received)
                if request.until and request.until in answer.end:
                    break
    except TimeoutError:
        answer.unfinished = True
    except ConnectionError:
        pass
    finally:
        sending.cancel()
        writer.transport.abort()
    return answer
