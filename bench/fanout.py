#!/usr/bin/env python3
"""Deliveries a second: messages posted to a queue with many consumers of Server-Sent Events, in a burst and paced.

    .venv/bin/python bench/fanout.py

In a burst a producer posts each message as soon as the one before is answered. The consumers live in a process of their
own, on raw sockets; afterwards it is checked that each of them got each message once and in order. Where nginx with
nchan is installed (Debian: nginx-light, libnginx-mod-nchan) the same load runs on it, beside ours.
"""

from __future__ import annotations

import argparse
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
from multiprocessing.connection import Connection
from pathlib import Path

from rig import Daemon, percentile, rig, table

from tests.servers import free_port, wait_until

STAMP = re.compile(rb"<(\d+) (\d+)>")
UNCHUNK = re.compile(rb"\r\n[0-9a-f]+\r\n")
LATENCY_OF_EVERY = 20
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


def consume(port: int, path: str, consumers: int, messages: int, talk: Connection) -> None:
    """Opens consumers, says so, then reads all messages; what came is only kept meanwhile, and checked afterwards."""
    chosen = selectors.DefaultSelector()
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode()
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
            came[key.data].append((last_ns, data))
            seen += data.count(b"<")
    talk.send(judge(came, messages, last_ns))
    talk.recv()


def judge(came: list[list[tuple[int, bytes]]], messages: int, last_ns: int) -> tuple[float, float, float, int, int]:
    """Deliveries a second, p50 and p99 in ms, how many were lost, and how many came twice or out of order."""
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
    """From the time in each message to that at which its last byte came."""
    tail = b""
    for came_ns, data in parts:
        end = 0
        for stamp in STAMP.finditer(tail + data):
            yield (came_ns - int(stamp[2])) / 1e6
            end = stamp.end()
        tail = (tail + data)[end:][-64:]


def produce(port: int, path: str, messages: int, per_second: float | None, as_form: bool) -> None:
    """Posts messages, each as soon as the one before is answered, or paced; each carries its number and the time."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    kind = {"Content-Type": "application/x-www-form-urlencoded" if as_form else "text/plain"}
    for number in range(messages):
        began = time.monotonic()
        value = f"<{number} {time.monotonic_ns()}>"
        client.request("POST", path, ("value=" + value.replace(" ", "+")) if as_form else value, kind)
        client.getresponse().read()
        if per_second:
            time.sleep(max(0.0, began + 1 / per_second - time.monotonic()))


def measure(port: int, path: str, post_path: str, as_form: bool, given: argparse.Namespace) -> list[list[object]]:
    rows: list[list[object]] = []
    for consumers in given.consumers:
        for paced in (False, True):
            messages = max(10, (given.deliveries if not paced else given.deliveries // 4) // consumers)
            ours, theirs = multiprocessing.Pipe()
            queue = f"fan-{consumers}-{int(paced)}"
            child = multiprocessing.Process(target=consume, args=(port, path + queue, consumers, messages, theirs))
            child.start()
            ours.recv()
            time.sleep(1)  # let the subscription settle: what is measured is the live stream
            produce(port, post_path + queue, messages, given.per_second if paced else None, as_form)
            rate, p50, p99, lost, wrong = ours.recv()
            ours.send("done")
            child.join()
            rows.append([consumers, "paced" if paced else "burst", messages, round(rate), p50, p99, lost, wrong])
    return rows


def idle_kb(daemon: Daemon, consumers: int) -> float:
    """Memory of one idle consumer, in kB of the daemon's resident set."""

    def resident_kb() -> int:
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{daemon.process.pid}/status").read_text())[1])  # type: ignore[index]

    def connect(count: int) -> list[socket.socket]:
        opened = [daemon.connect() for _ in range(count)]
        for connection in opened:
            connection.sendall(b"GET /sse/idle HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        for connection in opened:
            connection.recv(65536)
        return opened

    warm = connect(50)
    before = resident_kb()
    opened = connect(consumers)
    used = resident_kb() - before
    for connection in warm + opened:
        connection.close()
    return used / consumers


@contextlib.contextmanager
def nchan() -> Iterator[int]:
    """A private nginx with nchan; its port."""
    folder = Path(tempfile.mkdtemp(prefix="nchan-bench-"))
    port = free_port()
    (folder / "nginx.conf").write_text(f"""
load_module {NCHAN};
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
        yield port
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--consumers", type=int, nargs="+", default=[100, 1000])
    described.add_argument(
        "--deliveries", type=int, default=1_000_000, help="deliveries of a burst, all consumers together"
    )
    described.add_argument("--per-second", type=float, default=50, help="messages a second when paced")
    given = described.parse_args()
    head = [
        "server",
        "consumers",
        "how",
        "messages",
        "deliveries/s",
        "p50 ms",
        "p99 ms",
        "lost",
        "repeated or out of order",
    ]
    rows: list[list[object]] = []
    with rig() as (_redis, daemon):
        memory = idle_kb(daemon, 1000)
        rows += [["RestMQ", *row] for row in measure(daemon.port, "/sse/", "/q/", True, given)]
    if NCHAN.exists() and shutil.which("nginx"):
        with nchan() as port:
            theirs = measure(port, "/sub/", "/pub/", False, given)
        rows += [["nchan", *row] for row in theirs]
    print(table(head, rows))
    print(f"\nMemory of an idle consumer: {memory:.1f} kB.")
    if len(rows) > 2 * len(given.consumers):
        half = len(rows) // 2
        for ours, other in zip(rows[:half], rows[half:], strict=True):
            print(f"Ratio to nchan, {ours[1]} consumers, {ours[2]}: {ours[4] / other[4]:.2f}")  # type: ignore[operator]
    else:
        print("nchan is not installed here: no ratio.")


if __name__ == "__main__":
    main()
