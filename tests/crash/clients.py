"""Clients as separate programs, so that they can be killed too.

``python -m tests.crash.clients ROLE <journal> <seed> <url>…``: each writes down what it knows in a journal, a line of
JSON at a time, which stays when it is killed. The roles are the functions of ``ROLES``.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

#: Its messages are leased, and some are delayed. Those that fail twice go to GRAVES.
JOBS, GRAVES = "crash", "graves"
#: Round robin: its messages are leased to live consumers.
TURNS = "turns"
#: A broadcast with a history.
NEWS = "news"
#: Its messages are taken by one client.
LINE = "line"
QUEUES = (JOBS, GRAVES, TURNS, NEWS, LINE)
SETTINGS = {
    JOBS: "max_deliveries=2&dead_letter=" + GRAVES,
    TURNS: "policy=roundrobin",
    NEWS: "history=10000",
}
LEASE_SECONDS = 2
PAUSE_SECONDS = 0.05
_STREAM_SECONDS = 20
_NACKED_EACH, _DELAYED_EACH, _TO_TURNS_EACH = 7, 5, 3


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

    def stream(self, path: str) -> Any:
        """The JSON objects of one comet stream, until it ends."""
        connection = http.client.HTTPConnection(self._random.choice(self._addresses), timeout=_STREAM_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            while answer.status == 200 and (line := answer.readline()):
                if line.strip():
                    yield json.loads(line)
        except (OSError, http.client.HTTPException, json.JSONDecodeError):  # it was cut, perhaps in a line
            pass
        finally:
            connection.close()
        time.sleep(PAUSE_SECONDS)


class Journal:
    """A client's record. When ``write`` returns, the system has the line, and a kill does not lose it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, **fields: Any) -> None:
        self._file.write(json.dumps(fields).encode() + b"\n")


def _post(daemons: Daemons, journal: Journal, path: str, value: str) -> None:
    """Posts a value, with an idempotency key, until it gets an answer."""
    began = time.monotonic()
    status = 0
    while status != 200:
        headers = {"Content-Type": "text/plain", "Idempotency-Key": value}
        status, body = daemons.ask("POST", path, value.encode(), **headers)
        if status == 503:
            time.sleep(PAUSE_SECONDS)
        elif status not in (0, 200):
            journal.write(problem=f"POST {path} {status} {body!r}")
    waited = time.monotonic() - began
    journal.write(answered=value, queue=path[3:].partition("?")[0], waited=round(waited, 2))


def produce(daemons: Daemons, journal: Journal, seed: int) -> None:
    """Posts values until it is killed."""
    number = 0
    while True:
        number += 1
        path = f"/q/{JOBS}" + ("?delay=0.3" if number % _DELAYED_EACH == 0 else "")
        _post(daemons, journal, f"/q/{TURNS}" if number % _TO_TURNS_EACH == 0 else path, f"{seed}-{number}")
        time.sleep(0.02)


def count(daemons: Daemons, journal: Journal, _seed: int) -> None:
    """Posts numbers to the queues that must keep their order, until it is killed."""
    number = 0
    while True:
        number += 1
        for queue in (NEWS, LINE):
            _post(daemons, journal, f"/q/{queue}", str(number))
        time.sleep(0.01)


def work(daemons: Daemons, journal: Journal, seed: int) -> None:
    """Leases and acks until it is killed. It nacks some messages, until they are in the other queue."""
    chance = random.Random(seed)
    while True:
        queue = GRAVES if chance.random() < 0.2 else JOBS
        status, body = daemons.ask("GET", f"/q/{queue}?lease={LEASE_SECONDS}&wait=0.2")
        if status not in (0, 200, 204, 503):
            journal.write(problem=f"GET {status} {body!r}")
        if status == 200:
            _finish(daemons, journal, queue, json.loads(body))


def serve(daemons: Daemons, journal: Journal, _seed: int) -> None:
    """A live consumer that acks, until it is killed."""
    while True:
        for message in daemons.stream(f"/c/{TURNS}?lease={LEASE_SECONDS}&prefetch=2"):
            _finish(daemons, journal, TURNS, message)


def _finish(daemons: Daemons, journal: Journal, queue: str, message: dict[str, Any]) -> None:
    named = {"value": message["value"], "queue": queue, "key": message["key"], "count": message["count"]}
    journal.write(delivered=named)
    if queue == JOBS and int(message["value"].partition("-")[2]) % _NACKED_EACH == 0:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        daemons.ask("POST", f"/m/{message['key']}", f"receipt={message['receipt']}&lease=0".encode(), **form)
        return
    status, body = daemons.ask("DELETE", f"/m/{message['key']}?receipt={message['receipt']}")
    if status == 204:
        journal.write(acked=named)
    elif status not in (0, 410, 503):
        journal.write(problem=f"DELETE {status} {body!r}")


def listen(daemons: Daemons, journal: Journal, _seed: int) -> None:
    """A live consumer of the broadcast, which resumes where it was."""
    last_key = ""
    while True:
        for message in daemons.stream(f"/c/{NEWS}" + (f"?last_event_id={last_key}" if last_key else "")):
            if "event" in message:
                journal.write(told=message["event"])
            else:
                last_key = message["key"]
                journal.write(heard=message["value"])


def take(daemons: Daemons, journal: Journal, _seed: int) -> None:
    """Takes the messages of the line, alone."""
    while True:
        status, body = daemons.ask("GET", f"/q/{LINE}?wait=1")
        if status == 200:
            journal.write(taken=json.loads(body)["value"])
        elif status in (0, 503):
            journal.write(untaken=status)
            time.sleep(PAUSE_SECONDS)
        elif status != 204:
            journal.write(problem=f"GET {status} {body!r}")


ROLES = {role.__name__: role for role in (produce, count, work, serve, listen, take)}
#: These roles may be played several times at once, so that there is load even if each answer waits for replicas.
_AT_ONCE = {"produce": 4, "work": 4, "serve": 2}


def main() -> None:
    role, path, seed, *urls = sys.argv[1:]
    journal = Journal(Path(path))
    for number in range(_AT_ONCE.get(role, 1)):
        own = int(seed) * 100 + number
        threading.Thread(target=ROLES[role], args=(Daemons(urls, own), journal, own)).start()


if __name__ == "__main__":
    main()
