"""Malformed HTTP against a running daemon: ``python -m tests.fuzz.fuzz_http --seconds 600``.

Each round takes a piece of the corpus, mutates it, sends it in random pieces with an ordinary request behind it, and
then leaves. None of these may be seen: a status 500, an answer that is no HTTP, a connection that does not end when the
client leaves, a traceback in the log, descriptors or memory that did not come back. An input that did it is kept beside
the corpus, in ``found/``; once understood it belongs into the corpus.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import select
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.servers import Daemon, Redis, stopping, wait_until  # noqa: E402

CORPUS = Path(__file__).with_name("corpus")
FOUND = Path(__file__).with_name("found")
LAST = b"GET /q/fuzz-last HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
SILENCE_SECONDS = 0.05
END_SECONDS = 15.0
SPARE_DESCRIPTORS = 4  # for connections to Redis that are opened on demand
MEMORY_SLACK_BYTES = 24 * 1024 * 1024

TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"\x0b", b"\xff", b":", b",", b";", b"=", b"%", b"%00", b"%zz",
    b"\r\n\r\n", b"0\r\n\r\n", b"-1", b"+1", b"ffffffffffffffff", b"99999999999999999999",
    b"Content-Length: 5\r\n", b"#", b"*", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"//", b"..", b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/9.9",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HEAD", b"POST", b"OPTIONS", b"--B", b"--B--\r\n",
    b"A: " + b"x" * 5000, b"Authorization: Basic ", b"Authorization: Bearer \xff", b"Origin: http://x\r\n",
    b"Accept: text/html\r\n", b"[::1", b"Content-Type: multipart/form-data; boundary=B\r\n",
    b"Content-Type: application/json\r\n", b"{", b"[", b'"', b"<", b"Cookie: auth=\xff%ff\r\n",
    b"Last-Event-ID: 0\r\n", b"?callback=x", b"?wait=1", b"&", b"\xc3\xa9", b"\xed\xa0\x80",
]  # fmt: skip


def corpus() -> list[bytes]:
    return [path.read_bytes() for path in sorted(CORPUS.glob("*.http"))]


def mutate(chance: random.Random, inputs: list[bytes]) -> bytes:
    """Returns one of the inputs with a few changes."""
    data = bytearray(chance.choice(inputs))
    for _ in range(chance.choice([0, 1, 1, 2, 3, 5, 8])):
        at = chance.randrange(len(data) + 1)
        length = chance.choice([1, 1, 2, 4, 8, 16, 64])
        kind = chance.randrange(7)
        if kind == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = chance.choice(TOKENS)
        elif kind == 3:
            data[at : at + length] = chance.choice(TOKENS)
        elif kind == 4:
            data[at:at] = data[at : at + length] * chance.choice([1, 2, 50])
        elif kind == 5:
            data[at:] = chance.choice(inputs)[chance.randrange(len(data) + 1) :]
        else:
            data += chance.choice(inputs)
    return bytes(data)


def pieces(chance: random.Random, data: bytes) -> list[bytes]:
    """Splits the data as a network may: not at all, into a few pieces, or into bytes if it is short."""
    count = chance.choice([0, 0, 1, 3, 20])
    if len(data) < 400 and chance.random() < 0.1:
        return [data[i : i + 1] for i in range(len(data))]
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(count))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def exchange(port: int, parts: list[bytes], silence_seconds: float = SILENCE_SECONDS) -> tuple[bytes, str]:
    """Sends the parts, reads until the server is silent, and closes. Returns the answer and its problem, or ''."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), END_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                connection.sendall(part)
            while select.select([connection], [], [], silence_seconds)[0]:
                part = connection.recv(65536)
                if not part:
                    break
                received += part
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except TimeoutError:
            return received, "the connection does not end"
        except OSError:
            pass  # a reset: the server closed first
    if received and not received.startswith(b"HTTP/1."):
        return received, "the answer is no HTTP"
    if re.search(rb"HTTP/1\.[01] 500 ", received):
        return received, "status 500"
    if b"Traceback" in received or b".py" in received:
        return received, "the server's inside was shown"
    return received, ""


class Fuzz:
    """Sends mutated input to a daemon, and collects the problems."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.inputs = corpus()
        self.problems: list[str] = []
        self.statuses: Counter[str] = Counter()
        self.rounds = 0
        self._said = len(daemon.log)

    def one(self, data: bytes, parts: list[bytes]) -> None:
        received, problem = exchange(self.daemon.port, parts)
        self.rounds += 1
        self.statuses.update(status.decode() for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received))
        if problem:
            self.keep(data, problem)

    def keep(self, data: bytes, problem: str) -> None:
        FOUND.mkdir(exist_ok=True)
        path = FOUND / f"{hashlib.sha256(data).hexdigest()[:12]}.http"
        path.write_bytes(data)
        self.problems.append(f"{problem}: {path}")

    def whole_corpus(self) -> None:
        for data in self.inputs:
            self.one(data, [data + LAST])

    def mutations(self, seed: str, rounds: int | None = None, until: float = float("inf")) -> None:
        """Runs a number of rounds, or until a time of the monotonic clock. The same seed gives the same input."""
        chance = random.Random(seed)
        done = 0
        while (rounds is None or done < rounds) and time.monotonic() < until:
            done += 1
            data = mutate(chance, self.inputs) + LAST
            self.one(data, pieces(chance, data))

    def check_log(self) -> None:
        """Adds a problem if the log has a traceback."""
        news = self.daemon.log[self._said :]
        if "Traceback" in news or "Unhandled" in news:
            at = min(found for word in ("Traceback", "Unhandled") if (found := news.find(word)) >= 0)
            self.problems.append(f"the daemon's log has: {news[at : at + 3000]}")

    def check_alive(self, descriptors: int) -> None:
        received, problem = exchange(self.daemon.port, [LAST], END_SECONDS)
        if problem or not re.match(rb"HTTP/1\.1 20[04] ", received):
            self.problems.append(f"an ordinary request is answered with {received!r} {problem}")
        try:
            wait_until(lambda: open_descriptors(self.daemon) <= descriptors + SPARE_DESCRIPTORS, END_SECONDS)
        except AssertionError:
            self.problems.append(f"{open_descriptors(self.daemon)} descriptors are open; at first {descriptors} were")


def open_descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir()))


def run(daemon: Daemon, seconds: float, seed: int, threads: int) -> list[str]:
    """Runs for a long time, prints a summary and returns the problems."""
    fuzz = Fuzz(daemon)
    descriptors = open_descriptors(daemon)
    fuzz.whole_corpus()
    fuzz.mutations(f"{seed}/warm", rounds=500)  # loads and caches that happen once are no leak
    memory = daemon.resident_bytes
    until = time.monotonic() + seconds
    workers = [
        threading.Thread(target=fuzz.mutations, args=(f"{seed}/{number}", None, until)) for number in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    fuzz.check_alive(descriptors)
    fuzz.check_log()
    grown = daemon.resident_bytes - memory
    if grown > MEMORY_SLACK_BYTES:
        fuzz.problems.append(f"the daemon has grown by {grown >> 20} MiB")
    print(f"{fuzz.rounds} rounds; answers: {dict(fuzz.statuses.most_common())}; memory {grown >> 10:+} KiB.")
    return fuzz.problems


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options.add_argument("--threads", type=int, default=8)
    given = options.parse_args()
    print(f"seed {given.seed}")
    with (
        tempfile.TemporaryDirectory(prefix="restmq-") as folder,
        stopping(Redis(Path(folder) / "redis")) as redis,
        stopping(Daemon(Path(folder) / "daemon", redis=redis)) as daemon,
    ):
        problems = run(daemon, given.seconds, given.seed, given.threads)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
