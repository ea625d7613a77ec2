"""Clients that make the server use much memory: ``python -m tests.load.memory``.

Each row has a server of its own. Prints by how much the memory of the server and of its Redis rose while the clients
were there, by how much it is still higher after they have left, how long a second client waited for /healthz, and
the clients' answers.

``--only ROW`` (may be repeated) runs only that row; ``--before REVISION`` runs an earlier revision's server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.rig import Server
from tests.load.clients import HOST, Request, frame, websocket
from tests.load.measuring import MIB, Probe, Rest, forget_peak, peak, redis_process, resident, target
from tests.servers import listeners, wait_until

ANSWER_SECONDS = 20.0
LARGE = b"\x01" * (16 * MIB - 4096)  # a byte that JSON needs six bytes for


class Client:
    """A blocking client. It reads no more than the test asks for."""

    def __init__(self, server: Server, sent: bytes = b"", buffer_bytes: int = 0) -> None:
        self._socket = socket.socket()
        if buffer_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self._socket.settimeout(60)
        self._socket.connect((HOST, server.port))
        self.send(sent)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)

    def head(self) -> bytes:
        """Reads the head of the answer, or the part of it that comes."""
        received = b""
        with contextlib.suppress(ConnectionError):
            while not received.endswith(b"\r\n\r\n") and (more := self._socket.recv(1)):
                received += more
        return received

    def count(self, wanted: bytes, most: int, seconds: float) -> int:
        """Reads until the bytes came a number of times, the stream ends, or the time is over. Returns the count."""
        found, tail, deadline = 0, b"", time.monotonic() + seconds
        with contextlib.suppress(ConnectionError, TimeoutError):
            while found < most and (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                received = self._socket.recv(1 << 20)
                if not received:
                    break
                tail += received
                found += tail.count(wanted)
                tail = tail[-(len(wanted) - 1) :]
        return found

    def answered(self, seconds: float = 0.01) -> str:
        """The status of the answer if it comes in time, or ``waits``, or ``cut``. Reads no more."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(12)[9:].decode() or "cut"
        except TimeoutError:
            return "waits"
        except ConnectionError:
            return "cut"

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def clients(server: Server, count: int, sent: bytes, buffer_bytes: int = 0) -> Iterator[list[Client]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Client(server, sent, buffer_bytes))) for _ in range(count)]


def post(server: Server, path: str, body: bytes, media_type: str = "application/octet-stream") -> str:
    """Posts on a new connection. Returns the status."""
    head = Request(f"POST {path}", (f"Content-Type: {media_type}", f"Content-Length: {len(body)}")).head()
    with contextlib.closing(Client(server, head + body)) as client:
        return client.head()[9:12].decode()


def fill_history(server: Server, queue: str, count: int, size: int) -> None:
    """Publishes messages to a consumer that reads them, into a history that keeps them all."""
    form = f"history={count}&history_bytes={1 << 30}"
    if post(server, f"/p/{queue}", form.encode(), "application/x-www-form-urlencoded") == "400":
        post(server, f"/p/{queue}", f"history={count}".encode(), "application/x-www-form-urlencoded")
    with contextlib.closing(Client(server, Request(f"GET /c/{queue}").head())) as reader:
        wait_until(lambda: listeners(server.store, queue), why="the consumer listens")
        for _ in range(count):
            assert post(server, f"/q/{queue}", b"h" * size) == "200"
            assert reader.count(b'"}\r\n', 1, 30) == 1


def leaving_resumers(server: Server) -> Counter[str]:
    """60 consumers resume through 20 x 1 MB, and disconnect 15 ms after the head."""
    answers: Counter[str] = Counter()
    for _ in range(60):
        with contextlib.closing(Client(server, Request("GET /c/h?last_event_id=h:1").head())) as client:
            answers[client.head()[9:12].decode()] += 1
            time.sleep(0.015)
    return answers


def unread_answers(server: Server, count: int) -> Counter[str]:
    """Clients, one after the other, ask for a message of 16 MB, which is 96 MB as JSON, and do not read it."""
    answers: Counter[str] = Counter()
    with clients(server, count, b"", 4096) as asked:
        for client in asked:
            client.send(Request("GET /m/big:1").head())
            answers[client.answered(ANSWER_SECONDS)] += 1
        Rest(server).wait_for_idleness()
    return answers


def unread_broadcast(server: Server, request: Request, count: int = 20) -> Counter[str]:
    """One message of 16 MB, which is 96 MB as JSON, for consumers that do not read."""
    with clients(server, count, request.head(), 4096) as consumers:
        for client in consumers:
            client.head()
        wait_until(lambda: listeners(server.store, "b"), why="the consumers listen")
        status = post(server, "/q/b", LARGE)
        Rest(server).wait_for_idleness()
        return Counter([status])


def large_history(server: Server, consumers: int) -> Counter[str]:
    """Consumers resume through a history of 600 x 1 MB as fast as they can; counts the messages that each got."""
    with clients(server, consumers, Request("GET /c/h?last_event_id=h:1").head()) as resumed:

        async def read_all() -> list[int]:
            return await asyncio.gather(*(asyncio.to_thread(each.count, b'"}\r\n', 599, 40) for each in resumed))

        return Counter(f"{count} messages" for count in asyncio.run(read_all()))


def waiting_bodies(server: Server) -> Counter[str]:
    """40 long polls with a body of 16 MB."""
    body = b"x" * (16 * MIB - 4096)
    sent = Request("GET /q/none?wait=60", (f"Content-Length: {len(body)}",)).head() + body
    with clients(server, 40, sent) as waiting:
        Rest(server).wait_for_idleness()
        return Counter(client.answered() for client in waiting)


def unfinished_bodies(server: Server) -> Counter[str]:
    """40 requests that lack the last byte of 16 MB."""
    size = 16 * MIB - 4096
    sent = Request("POST /q/none", (f"Content-Length: {size}", "Content-Type: text/plain")).head() + b"x" * (size - 1)
    with clients(server, 40, sent) as sending:
        Rest(server).wait_for_idleness()
        return Counter(client.answered() for client in sending)


def unfinished_frames(server: Server, fragments: bytes, count: int) -> Counter[str]:
    """WebSocket clients that lack the end of a message."""
    request = websocket("/ws/none", fragments)
    with clients(server, count, request.head()) as sending:
        for client in sending:
            client.head()
            client.send(request.body)
        Rest(server).wait_for_idleness()
        return Counter({"101": len(sending)})


@dataclass(frozen=True, slots=True)
class Row:
    """The data in the server before the run, and the actions of the clients."""

    run: Callable[[Server], Counter[str]]
    prepare: Callable[[Server], object] = lambda server: None


def _big(server: Server) -> None:
    post(server, "/q/big", LARGE)


_HALF_FRAME = frame(b"x" * (16 * MIB - 4096))[:-1]
_FRAGMENTS = frame(b"x", final=False) + frame(b"x", 0, final=False) * 100_000
ROWS = {
    "leaving resumers": Row(leaving_resumers, lambda server: fill_history(server, "h", 20, MIB)),
    "12 unread answers": Row(lambda server: unread_answers(server, 12), _big),
    "40 unread answers": Row(lambda server: unread_answers(server, 40), _big),
    "comet broadcast": Row(lambda server: unread_broadcast(server, Request("GET /c/b"))),
    "SSE broadcast": Row(lambda server: unread_broadcast(server, Request("GET /sse/b"))),
    "WebSocket broadcast": Row(lambda server: unread_broadcast(server, websocket("/ws/b", b""))),
    "broadcast to 1000": Row(lambda server: unread_broadcast(server, Request("GET /c/b"), 1000)),
    "history, 1 reader": Row(lambda server: large_history(server, 1), lambda s: fill_history(s, "h", 600, MIB)),
    "history, 3 readers": Row(lambda server: large_history(server, 3), lambda s: fill_history(s, "h", 600, MIB)),
    "waiting bodies": Row(waiting_bodies),
    "unfinished bodies": Row(unfinished_bodies),
    "unfinished frames": Row(lambda server: unfinished_frames(server, _HALF_FRAME, 40)),
    "1-byte fragments": Row(lambda server: unfinished_frames(server, _FRAGMENTS, 4)),
}


@dataclass(frozen=True, slots=True)
class Result:
    """Growth of the memory in bytes, and further figures."""

    server_peak: int
    server_after: int
    redis_peak: int
    gap_ms: float
    busy_ms: float
    answers: Counter[str]

    HEADING = f"{'':<21}{'peak':>8}{'after':>8}{'Redis peak':>12}{'gap ms':>9}{'busy ms':>9}  answers"

    def __str__(self) -> str:
        memory = f"{self.server_peak / MIB:>+8.0f}{self.server_after / MIB:>+8.0f}{self.redis_peak / MIB:>+12.0f}"
        answers = ", ".join(f"{count} x {what}" for what, count in self.answers.items())
        return f"{memory}{self.gap_ms:>9.0f}{self.busy_ms:>9.0f}  {answers}"


def measure(row: Row, *options: str, before: str | None = None) -> Result:
    with target(*options, before=before) as server:
        rest = Rest(server)
        row.prepare(server)
        processes = server.process_id, redis_process(server)
        held = [resident(process_id) for process_id in processes]
        for process_id in processes:
            forget_peak(process_id)
        probe = Probe(server)
        try:
            answers = row.run(server)
        finally:
            probe.stop()
        rest.wait_for_clients()
        rest.wait_for_idleness()
        highest = [peak(process_id) - first for process_id, first in zip(processes, held, strict=True)]
        gap, busy = (
            max(map(max, values)) for values in zip(*((each.waited, each.busy) for each in probe.waits), strict=True)
        )
        return Result(highest[0], resident(server.process_id) - held[0], highest[1], gap, busy, answers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--before", metavar="REVISION")
    asked = parser.parse_args()
    print(f"MiB{Result.HEADING[3:]}")
    for name in asked.only or ROWS:
        print(f"{name:<21}{measure(ROWS[name], before=asked.before)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
