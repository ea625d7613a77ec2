"""Thousands of clients that disconnect early: ``python -m tests.load.leaks --rounds 20000``.

A round is one client of a kind. It sends its request, or a part of it, reads up to a random byte of the answer, and
leaves: with an orderly close, or with a reset. Prints the server's memory after each tenth of the rounds, when all
clients have left. Exit status 1 if it still grows after the first tenth, by more than ``SLACK_BYTES``.

``--only KIND`` (may be repeated) runs only that kind; ``--before REVISION`` runs an earlier revision's server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpx

from bench.rig import Server
from tests.load.clients import HOST, Request, frame, post, websocket
from tests.load.measuring import MIB, Rest, resident, target, tracebacks
from tests.servers import Redis, listeners, wait_until

CLIENTS = 24
POINTS = 10
GIVEN_BACK_SECONDS = 5.0
SLACK_BYTES = 4 * MIB
PATIENCE_SECONDS = 0.05
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing drops what is unsent and sends RST
HISTORY_COUNT, HISTORY_BYTES, BIG_BYTES = 20, 100_000, 200_000
ENOUGH_BYTES = 512 * MIB  # growth at which a kind is stopped


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of connection.

    Attributes:
        request: what each client sends.
        most_bytes: maximum that a client reads before it leaves.
        feeds: queue that gets messages meanwhile; empty for none.
    """

    request: Request
    most_bytes: int
    feeds: str = ""


_COMMAND = frame(b'{"cmd":"stats","queue":"leak"}')
_WAIT = frame(b'{"cmd":"take","queue":"leak-poll","wait":60}')
KINDS = {
    "comet": Kind(Request("GET /c/leak"), 1000, "leak"),
    "sse": Kind(Request("GET /sse/leak"), 1000, "leak"),
    "websocket": Kind(websocket("/ws/leak", _COMMAND, "Sec-WebSocket-Extensions: permessage-deflate"), 1000, "leak"),
    "command": Kind(websocket("/ws/leak", _WAIT), 300, "leak-poll"),
    "several": Kind(Request("GET /listen?queue=leak&queue=leak-poll", ("Accept: text/event-stream",)), 1000, "leak"),
    "tap": Kind(Request("GET /tap/leak"), 1000, "leak"),
    "xml": Kind(post("/xmlrpc", "text/xml", b"<methodCall>" + b" " * 100_000), 300),
    "half message": Kind(websocket("/ws/leak", frame(b"x" * 100_000)[:-1]), 1000),
    "long poll": Kind(Request("GET /q/leak-poll?wait=60"), 300, "leak-poll"),
    "resume": Kind(Request("GET /c/leak-history?last_event_id=leak-history:1"), 20_000),
    "lease": Kind(Request("GET /c/leak-lease?lease=30"), 2000),
    "big answer": Kind(Request("GET /m/leak-big:1"), 20_000),
}


def prepare(http: httpx.Client, redis: Redis) -> None:
    """Makes the queues: a history, messages to lease, and a big message."""
    http.post("/p/leak-history", data={"history": HISTORY_COUNT}).raise_for_status()
    with http.stream("GET", "/c/leak-history"):
        wait_until(lambda: listeners(redis, "leak-history"), why="the consumer listens")
        for _ in range(HISTORY_COUNT):
            http.post("/q/leak-history", content=b"h" * HISTORY_BYTES).raise_for_status()
    http.post("/p/leak-lease", data={"policy": "roundrobin"}).raise_for_status()
    for _ in range(50):
        http.post("/q/leak-lease", content=b"l" * 100).raise_for_status()
    http.post("/q/leak-big", content=b"\x01" * BIG_BYTES).raise_for_status()


async def leave_early(port: int, kind: Kind, chance: random.Random) -> None:
    """One round."""
    sent = kind.request.head() + kind.request.body
    if chance.random() < 0.1:
        sent = sent[: chance.randrange(len(sent))]
    wanted = chance.randrange(kind.most_bytes)
    loop = asyncio.get_running_loop()
    with socket.socket() as connection, contextlib.suppress(TimeoutError, ConnectionError):
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(connection, (HOST, port))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await loop.sock_sendall(connection, sent)
            while wanted > 0 and (received := await loop.sock_recv(connection, min(wanted, 4096))):
                wanted -= len(received)
        if chance.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def feed(port: int, queue: str) -> None:
    """Posts small messages until it is cancelled."""
    head = f"POST /q/{queue} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n"
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        while True:
            writer.write(head.encode() + b"v" * 100)
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.005)
            await reader.read(4096)
    finally:
        writer.transport.abort()


async def run_rounds(port: int, kind: Kind, count: int, chance: random.Random) -> None:
    """Runs rounds, a number of clients at a time."""
    rounds = iter(range(count))

    async def client() -> None:
        for _ in rounds:
            await leave_early(port, kind, chance)

    feeding = [asyncio.create_task(feed(port, kind.feeds))] if kind.feeds else []
    try:
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
    finally:
        for task in feeding:
            task.cancel()
        await asyncio.gather(*feeding, return_exceptions=True)


def wait_for_trim(process_id: int, wanted_bytes: int) -> None:
    """The server gives freed memory back every few seconds, not at once."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: resident(process_id) <= wanted_bytes, seconds=GIVEN_BACK_SECONDS)


def leak(server: Server, kind: Kind, rounds: int, chance: random.Random) -> list[int]:
    """Runs rounds of a kind; returns the server's memory in bytes after each tenth of them."""
    rest, found = Rest(server), []
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http:
        for _ in range(POINTS):
            asyncio.run(run_rounds(server.port, kind, rounds // POINTS, chance))
            if kind.feeds:
                http.delete(f"/q/{kind.feeds}").raise_for_status()
            rest.wait_for_clients()
            wait_for_trim(server.process_id, min(found, default=1 << 60) + SLACK_BYTES // 2)
            found.append(resident(server.process_id))
            if found[-1] - found[0] > ENOUGH_BYTES:
                break
    return found


def growth(memory: list[int]) -> int:
    """Bytes by which the memory grew after the first tenth. Compares the lowest of the first and last three points."""
    return min(memory[-3:]) - min(memory[:3])


def run(server: Server, names: Iterable[str], rounds: int, chance: random.Random) -> Iterator[tuple[str, list[int]]]:
    """Runs the kinds one after the other; yields the memory of each."""
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http:
        prepare(http, server.store)
    for name in names:
        yield name, leak(server, KINDS[name], rounds, chance)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20_000, help="number of clients of each kind")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", action="append", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--before", metavar="REVISION")
    asked = parser.parse_args()
    wrong = []
    counts = "".join(f"{asked.rounds * point // POINTS:>8}" for point in range(1, POINTS + 1))
    print(f"seed {asked.seed}\n{'MiB after round':<16}{counts}  growth")
    with target(before=asked.before) as server:
        for name, memory in run(server, asked.only or KINDS, asked.rounds, random.Random(asked.seed)):
            print(
                f"{name:<16}{''.join(f'{each / MIB:>8.1f}' for each in memory)}{growth(memory) / MIB:>8.1f}", flush=True
            )
            if growth(memory) > SLACK_BYTES:
                wrong.append(f"{name}: the memory grows by {growth(memory) / MIB:.1f} MiB")
        wrong += tracebacks(server)
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
