"""A producer and a worker as separate programs, so that they can be killed too.

``python -m tests.crash.clients produce|work <journal> <seed> <url>…``: each writes down what it knows in a journal, a
line of JSON at a time, which stays when it is killed.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

QUEUE = "crash"
LEASE_SECONDS = 2
PAUSE_SECONDS = 0.05


class Daemons:
    """Sends each request to one of the daemons, chosen at random."""

    def __init__(self, urls: list[str], seed: int) -> None:
        self._addresses = [urllib.parse.urlsplit(url).netloc for url in urls]
        self._random = random.Random(seed)
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Returns status and body. The status is 0 if there was no answer."""
        address = self._random.choice(self._addresses)
        connection = self._connections.pop(address, None) or http.client.HTTPConnection(address, timeout=10)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            time.sleep(PAUSE_SECONDS)
            return 0, b""
        self._connections[address] = connection
        return found


class Journal:
    """A client's record. When ``write`` returns, the system has the line, and a kill does not lose it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, **fields: Any) -> None:
        self._file.write(json.dumps(fields).encode() + b"\n")


def produce(daemons: Daemons, journal: Journal, seed: int) -> None:
    """Posts values until it is killed. It repeats each, with its idempotency key, until it gets an answer."""
    number = 0
    while True:
        number += 1
        value = f"{seed}-{number}"
        status = 0
        while status != 200:
            headers = {"Content-Type": "text/plain", "Idempotency-Key": value}
            status, body = daemons.ask("POST", f"/q/{QUEUE}", value.encode(), **headers)
            if status not in (0, 200, 503):
                journal.write(problem=f"POST {status} {body!r}")
        journal.write(answered=value)
        time.sleep(0.002)


def work(daemons: Daemons, journal: Journal, _seed: int) -> None:
    """Leases and acks until it is killed."""
    while True:
        status, body = daemons.ask("GET", f"/q/{QUEUE}?lease={LEASE_SECONDS}&wait=1")
        if status not in (0, 200, 204, 503):
            journal.write(problem=f"GET {status} {body!r}")
        if status != 200:
            continue
        message = json.loads(body)
        named = {"value": message["value"], "key": message["key"], "count": message["count"]}
        journal.write(delivered=named)
        path = f"/m/{message['key']}?receipt={message['receipt']}"
        status, body = daemons.ask("DELETE", path)
        if status == 204:
            journal.write(acked=named)
        elif status not in (0, 410, 503):
            journal.write(problem=f"DELETE {status} {body!r}")


def main() -> None:
    role, journal, seed, *urls = sys.argv[1:]
    play = {"produce": produce, "work": work}[role]
    play(Daemons(urls, int(seed)), Journal(Path(journal)), int(seed))


if __name__ == "__main__":
    main()
