#!/usr/bin/env python3
"""Leases, batches and long polls: pairs of lease and ack a second, messages a second in batches, time to wake a waiter.

    .venv/bin/python bench/delivery.py

The clients are asyncio in processes of their own, on the same machine: they cost about as much of it as the server.
Every answer is checked; what was put in is what came out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from typing import Any

from rig import Daemon, Redis, median, percentile, rig, table

BATCH = 1000
VALUE = "x" * 64


class Connection:
    """One keep-alive connection that sends a request and reads its answer."""

    async def open(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)

    def close(self) -> None:
        self._writer.close()

    async def ask(self, method: str, path: str, body: bytes = b"", kind: str = "text/plain") -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        if body:
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return int(answer[9:12]), await self._reader.readexactly(int(length)) if length else b""


Client = Callable[[Connection, float], Awaitable[int]]


async def _drive(client: Client, port: int, connections: int, end: float) -> int:
    async def one() -> int:
        connection = Connection()
        await connection.open(port)
        done = await client(connection, end)
        connection.close()
        return done

    return sum(await asyncio.gather(*(one() for _ in range(connections))))


def _in_process(client: Client, port: int, connections: int, end: float, results: Any) -> None:
    results.put(asyncio.run(_drive(client, port, connections, end)))


def rate(client: Client, daemon: Daemon, seconds: float, connections: int) -> float:
    """What one process of these clients gets done a second."""
    results: multiprocessing.Queue[int] = multiprocessing.Queue()
    end = time.time() + seconds + 0.3
    args = (client, daemon.port, connections, end, results)
    process = multiprocessing.Process(target=_in_process, args=args)
    began = time.time()
    process.start()
    done = results.get()
    process.join()
    return done / (time.time() - began)


async def lease_and_ack(connection: Connection, end: float) -> int:
    done = 0
    while time.time() < end:
        status, body = await connection.ask("GET", "/q/leased?lease=60")
        assert status == 200, status
        message = json.loads(body)
        status, _ = await connection.ask("DELETE", f"/m/{message['key']}?receipt={message['receipt']}")
        assert status == 204, status
        done += 1
    return done


async def add_batches(connection: Connection, end: float) -> int:
    body = b"\n".join([json.dumps(VALUE).encode()] * BATCH)
    done = 0
    while time.time() < end:
        status, answer = await connection.ask("POST", "/q/batches", body, "application/x-ndjson")
        assert status == 200, (status, answer)
        assert answer.count(b"batches:") == BATCH
        done += BATCH
    return done


async def take_batches(connection: Connection, end: float) -> int:
    done = 0
    while time.time() < end:
        status, answer = await connection.ask("GET", f"/q/taken?count={BATCH}")
        assert status == 200, "the queue ran empty"
        assert answer.count(b'"key"') == BATCH
        done += BATCH
    return done


def fill(redis: Redis, queue: str, count: int) -> None:
    """Lays messages into a queue, in the plain layout."""
    for start in range(1, count + 1, 5000):
        numbers = range(start, min(start + 5000, count + 1))
        redis.commands([("MSET", *(part for n in numbers for part in (f"{queue}:{n}", VALUE)))])
        redis.commands([("LPUSH", f"{queue}:queue", *(f"{queue}:{n}" for n in numbers))])
    redis.commands([("SADD", "QUEUESET", queue), ("SET", f"{queue}:UUID", str(count))])


async def wake_ups(port: int, waiters: int, messages: int) -> list[float]:
    """Milliseconds from before a message is posted until its waiter has it; all others go on waiting."""
    took_ms: list[float] = []
    posted: dict[str, float] = {}
    woken = asyncio.Event()

    async def wait() -> None:
        connection = Connection()
        await connection.open(port)
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
    return took_ms


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--seconds", type=float, default=5, help="length of each load")
    described.add_argument("--repeats", type=int, default=3, help="repeats, of which medians are shown")
    described.add_argument("--waiters", type=int, default=1000)
    given = described.parse_args()
    rates: dict[str, list[float]] = {"lease and ack, pairs": [], "batch add, messages": [], "batch take, messages": []}
    with rig() as (redis, daemon):
        for _ in range(given.repeats):
            fill(redis, "leased", int(given.seconds * 10_000))
            rates["lease and ack, pairs"].append(rate(lease_and_ack, daemon, given.seconds, 32))
            rates["batch add, messages"].append(rate(add_batches, daemon, given.seconds, 4))
            redis.command("FLUSHDB")
            fill(redis, "taken", int(given.seconds * 400_000))
            rates["batch take, messages"].append(rate(take_batches, daemon, given.seconds, 4))
            redis.command("FLUSHDB")
        took_ms = asyncio.run(wake_ups(daemon.port, given.waiters, 2000))
    print(table(["what", "a second"], [[name, round(median(found))] for name, found in rates.items()]))
    print()
    row = [given.waiters, len(took_ms), percentile(took_ms, 0.5), percentile(took_ms, 0.99)]
    print(table(["waiters", "messages", "p50 ms", "p99 ms"], [row]))


if __name__ == "__main__":
    main()
