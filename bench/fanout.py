"""Fan-out: posts messages to a queue with many live consumers, one after the other or at a fixed pace.

The consumers run in a separate process on raw sockets. Afterwards each of them must have each message once and in
order. nchan has the same paths (``peers.py``), so it gets the same load.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import multiprocessing
import re
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

import httpx
from rig import Meter, Missing, Run, Server, percentile

#: A message is its number and the time. The last character is not the length of a WebSocket frame.
STAMP = re.compile(rb"<(\d+)[ +](\d+)~")
UNCHUNK = re.compile(rb"\r\n[0-9a-f]+\r\n")
LATENCY_OF_EVERY = 20


@dataclass(slots=True, frozen=True)
class Transport:
    """How consumers listen.

    Attributes:
        replays: whether they first get the queue's history, which is all that they wait for.
    """

    path: str
    headers: str = ""
    replays: bool = False


COMET = Transport("/c/")
EVENTS = Transport("/sse/", "Accept: text/event-stream\r\n")
WEBSOCKET = Transport(
    "/ws/",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
)
REPLAY = Transport("/c/", "Last-Event-ID: 0\r\n", replays=True)


def fan_out(
    server: Server, transport: Transport, queue: str, consumers: int, messages: int, pace_seconds: float = 0
) -> Run:
    """Measures deliveries per second, the CPU time of a delivery, and the latency of a message."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.Process(target=consume, args=(server.port, transport, queue, consumers, messages, theirs))
    meter = Meter(server)
    child.start()
    ours.recv()
    if not transport.replays:
        time.sleep(0.5)  # until the subscription has settled: only the live stream is to be measured
        meter = Meter(server)
        produce(server.port, queue, messages, pace_seconds)
    rate, p50, p99, lost, wrong = ours.recv()
    deliveries = consumers * messages
    run = meter.stop(Run(deliveries, deliveries / rate if rate else 0, p50, p99, lost + wrong))
    ours.send("done")
    child.join()
    if not rate:
        raise Missing("delivered nothing in 10 s")
    return run


def replay(server: Server, queue: str, consumers: int, messages: int) -> Run:
    """Measures the replay of a queue's history to consumers that connect again."""
    keep_history(server, queue, messages)
    with reading(server, f"/c/{queue}"):
        produce(server.port, queue, messages)
    return fan_out(server, REPLAY, queue, consumers, messages)


def keep_history(server: Server, queue: str, messages: int) -> None:
    httpx.post(f"{server.url}/p/{queue}", data={"policy": "broadcast", "history": messages}).raise_for_status()


def consume(port: int, transport: Transport, queue: str, consumers: int, messages: int, talk: Connection) -> None:
    """Opens the consumers, reports that, and reads all messages. Their data is stored, and checked at the end."""
    chosen = selectors.DefaultSelector()
    request = f"GET {transport.path}{queue} HTTP/1.1\r\nHost: 127.0.0.1\r\n{transport.headers}\r\n".encode()
    began_ns = time.monotonic_ns()
    for number in range(consumers):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(request)
        chosen.register(connection, selectors.EVENT_READ, number)
    came: list[list[tuple[int, bytes]]] = []
    for key in chosen.get_map().values():  # the heads, and what came with them
        data = key.fileobj.recv(262_144)  # type: ignore[union-attr]
        came.append([(time.monotonic_ns(), data)])
    talk.send("connected")
    seen, last_ns = sum(data.count(b"~") for [(_, data)] in came), time.monotonic_ns()
    while seen < messages * consumers:
        ready = chosen.select(timeout=10)
        if not ready:
            break
        last_ns = time.monotonic_ns()
        for key, _ in ready:
            data = key.fileobj.recv(262_144)  # type: ignore[union-attr]
            if not data:
                raise SystemExit(f"the server closed a consumer of /{transport.path.strip('/')}/{queue}")
            came[key.data].append((last_ns, data))
            seen += data.count(b"~")
    talk.send(judge(came, messages, began_ns if transport.replays else None, last_ns))
    talk.recv()


def judge(
    came: list[list[tuple[int, bytes]]], messages: int, began_ns: int | None, last_ns: int
) -> tuple[float, float, float, int, int]:
    """Returns deliveries per second, p50 and p99 in ms, and how many messages were lost, or repeated or misordered.

    Args:
        began_ns: time of the first message, if the message does not have it.
    """
    took_ms: list[float] = []
    lost = wrong = delivered = 0
    first_ns = last_ns if began_ns is None else began_ns
    for number, parts in enumerate(came):
        stream = b"".join(data for _, data in parts)
        stamps = [(int(stamp[1]), int(stamp[2])) for stamp in STAMP.finditer(UNCHUNK.sub(b"", stream))]
        delivered += len(stamps)
        lost += messages - len({message for message, _ in stamps})
        wrong += sum(here[0] >= there[0] for here, there in itertools.pairwise(stamps))
        if began_ns is None:
            first_ns = min([first_ns, *(sent_ns for _, sent_ns in stamps[:1])])
        if number % LATENCY_OF_EVERY == 0:
            took_ms += latencies_ms(parts, began_ns)
    rate = delivered / max((last_ns - first_ns) / 1e9, 1e-9)
    return rate, percentile(took_ms, 0.5), percentile(took_ms, 0.99), lost, wrong


def latencies_ms(parts: list[tuple[int, bytes]], began_ns: int | None) -> Iterator[float]:
    """Yields for each message the time from its own time stamp to the arrival of its last byte."""
    tail = b""
    for came_ns, data in parts:
        end = 0
        for stamp in STAMP.finditer(tail + data):
            yield (came_ns - (began_ns or int(stamp[2]))) / 1e6
            end = stamp.end()
        tail = (tail + data)[end:][-64:]


def produce(port: int, queue: str, messages: int, pace_seconds: float = 0) -> None:
    """Posts messages, each after the answer to the one before, and not earlier than its turn."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    began = time.monotonic()
    for number in range(messages):
        time.sleep(max(0, began + number * pace_seconds - time.monotonic()))
        client.request("POST", f"/q/{queue}", f"value=<{number}+{time.monotonic_ns()}~", kind)
        client.getresponse().read()


@contextlib.contextmanager
def reading(server: Server, path: str) -> Iterator[None]:
    """Keeps a consumer connected that reads all it gets. Raises Missing if the server does not know the path."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
            raise Missing("not in this revision")

        def drain() -> None:
            with contextlib.suppress(ConnectionResetError):  # the queue may be deleted before the consumer leaves
                while connection.recv(262_144):
                    pass

        reader = threading.Thread(target=drain)
        reader.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            reader.join()


@contextlib.contextmanager
def listening(server: Server, queue: str, consumers: int) -> Iterator[None]:
    """Keeps idle consumers connected, in this process."""
    opened = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(consumers)]
    for connection in opened:
        connection.sendall(f"GET /sse/{queue} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    for connection in opened:
        connection.recv(65536)
    try:
        yield
    finally:
        for connection in opened:
            connection.close()
