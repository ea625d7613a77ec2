"""Measures the time from a post until one of many waiting clients has the message."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

from rig import Run, Server, percentile


class Connection:
    """A keep-alive connection that sends a request and reads its answer."""

    async def open(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)

    def close(self) -> None:
        self._writer.transport.abort()

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        if body:
            head += f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return int(answer[9:12]), await self._reader.readexactly(int(length)) if length else b""


def wake_ups(server: Server, waiters: int, messages: int) -> Run:
    """Posts messages one after the other. A client that got one waits again, at the end of the line."""
    began = time.perf_counter()
    took_ms = asyncio.run(_wake_ups(server.port, waiters, messages))
    seconds = time.perf_counter() - began
    return Run(None, seconds, percentile(took_ms, 0.5), percentile(took_ms, 0.99), messages - len(took_ms))


async def _wake_ups(port: int, waiters: int, messages: int) -> list[float]:
    took_ms: list[float] = []
    posted: dict[str, float] = {}
    woken = asyncio.Event()

    async def wait() -> None:
        connection = Connection()
        await connection.open(port)
        with contextlib.closing(connection):
            while len(took_ms) < messages:
                status, body = await connection.ask("GET", "/q/waited?wait=60")
                if status == 200:
                    took_ms.append((time.perf_counter() - posted[json.loads(body)["value"]]) * 1000)
                    woken.set()

    tasks = [asyncio.create_task(wait()) for _ in range(waiters)]
    producer = Connection()
    await producer.open(port)
    while json.loads((await producer.ask("GET", "/stats/waited"))[1])["waiters"] < waiters:
        await asyncio.sleep(0.05)
    for number in range(messages):
        value = str(number)
        woken.clear()
        posted[value] = time.perf_counter()
        await producer.ask("POST", "/q/waited", value.encode())
        await woken.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return took_ms
