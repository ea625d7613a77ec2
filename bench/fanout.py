"""Fan-out: posts messages one after the other to a queue with many live consumers.

The consumers run in a separate process on raw sockets. Afterwards each of them must have each message once and in
order. The same load can be put on nchan in nginx (Debian packages nginx-light, libnginx-mod-nchan) for comparison.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import multiprocessing
import os
import re
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from rig import Run, Server, free_port, percentile

from tests.servers import wait_until

STAMP = re.compile(rb"<(\d+) (\d+)>")
UNCHUNK = re.compile(rb"\r\n[0-9a-f]+\r\n")
LATENCY_OF_EVERY = 20
_NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


@dataclass(slots=True, frozen=True)
class Transport:
    """How consumers listen, and how messages are posted."""

    path: str
    headers: str = ""
    post_path: str = "/q/"
    as_form: bool = True


COMET = Transport("/c/")
EVENTS = Transport("/sse/", "Accept: text/event-stream\r\n")
WEBSOCKET = Transport(
    "/ws/",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
)
NCHAN = Transport("/sub/", EVENTS.headers, "/pub/", as_form=False)


def fan_out(server: Server, transport: Transport, queue: str, consumers: int, messages: int) -> Run:
    """Measures deliveries per second, and the latency of a message."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.Process(target=consume, args=(server.port, transport, queue, consumers, messages, theirs))
    child.start()
    ours.recv()
    time.sleep(1)  # until the subscription has settled: only the live stream is to be measured
    produce(server.port, transport, queue, messages)
    rate, p50, p99, lost, wrong = ours.recv()
    ours.send("done")
    child.join()
    return Run(rate, p50, p99, lost + wrong)


def consume(port: int, transport: Transport, queue: str, consumers: int, messages: int, talk: Connection) -> None:
    """Opens the consumers, reports that, and reads all messages. Their data is stored, and checked at the end."""
    chosen = selectors.DefaultSelector()
    request = f"GET {transport.path}{queue} HTTP/1.1\r\nHost: 127.0.0.1\r\n{transport.headers}\r\n".encode()
    for number in range(consumers):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(request)
        chosen.register(connection, selectors.EVENT_READ, number)
    talk.send("connected")
    came: list[list[tuple[int, bytes]]] = [[] for _ in range(consumers)]
    seen, last_ns = 0, 0
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
            seen += data.count(b"<")
    talk.send(judge(came, messages, last_ns))
    talk.recv()


def judge(came: list[list[tuple[int, bytes]]], messages: int, last_ns: int) -> tuple[float, float, float, int, int]:
    """Returns deliveries per second, p50 and p99 in ms, and how many messages were lost, or repeated or misordered."""
    took_ms: list[float] = []
    lost = wrong = delivered = 0
    first_ns = last_ns
    for number, parts in enumerate(came):
        stream = b"".join(data for _, data in parts)
        stamps = [(int(stamp[1]), int(stamp[2]), stamp.end()) for stamp in STAMP.finditer(UNCHUNK.sub(b"", stream))]
        delivered += len(stamps)
        lost += messages - len({message for message, _, _ in stamps})
        wrong += sum(here[0] >= there[0] for here, there in itertools.pairwise(stamps))
        first_ns = min([first_ns, *(sent_ns for _, sent_ns, _ in stamps[:1])])
        if number % LATENCY_OF_EVERY == 0:
            took_ms += latencies_ms(parts)
    rate = delivered / max((last_ns - first_ns) / 1e9, 1e-9)
    return rate, percentile(took_ms, 0.5), percentile(took_ms, 0.99), lost, wrong


def latencies_ms(parts: list[tuple[int, bytes]]) -> Iterator[float]:
    """Yields for each message the time from its own time stamp to the arrival of its last byte."""
    tail = b""
    for came_ns, data in parts:
        end = 0
        for stamp in STAMP.finditer(tail + data):
            yield (came_ns - int(stamp[2])) / 1e6
            end = stamp.end()
        tail = (tail + data)[end:][-64:]


def produce(port: int, transport: Transport, queue: str, messages: int) -> None:
    """Posts messages, each after the answer to the one before. Each contains its number and the time."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    kind = {"Content-Type": "application/x-www-form-urlencoded" if transport.as_form else "text/plain"}
    for number in range(messages):
        value = f"<{number} {time.monotonic_ns()}>"
        body = "value=" + value.replace(" ", "+") if transport.as_form else value
        client.request("POST", transport.post_path + queue, body, kind)
        client.getresponse().read()


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


@contextlib.contextmanager
def nchan() -> Iterator[Server | None]:
    """Runs a private nginx with nchan; yields None if it is not installed."""
    if not _NCHAN.exists() or not shutil.which("nginx"):
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="nchan-bench-"))
    port = free_port()
    (folder / "nginx.conf").write_text(f"""
load_module {_NCHAN};
worker_processes 1; daemon off; error_log stderr error; pid {folder}/nginx.pid;
{"user root;" if os.geteuid() == 0 else ""}
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 10000000; nchan_max_reserved_memory 256M; client_body_temp_path {folder}/body;
  server {{
    listen 127.0.0.1:{port};
    location ~ /sub/(.+)$ {{ nchan_subscriber eventsource; nchan_channel_id $1; nchan_message_buffer_length 10000; }}
    location ~ /pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 10000; }}
  }}
}}
""")
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        wait_until(answers)
        yield Server(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
