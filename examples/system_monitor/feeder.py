#!/usr/bin/env python3
"""System monitor, the sender: makes every machine with a consumer.py run a command, and prints their answers.

Shows messages that expire: a command that no machine receives within a few seconds is not run later.

    ./feeder.py load disk                    asks once and waits for the answers of one machine
    ./feeder.py load --machines 3 --every 10 asks three machines every ten seconds

Prints each answer as a line of JSON. Exits with status 1 if an answer is missing after --wait seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any

COMMAND_TTL_SECONDS = 5


def place(url: str, kind: str, queue: str) -> str:
    return f"{url}/{kind}/{urllib.parse.quote(queue, safe='')}"


def ask(url: str, queue: str, command: str) -> str:
    """Publishes the command; returns the id that its answers will have."""
    number = uuid.uuid4().hex
    asked = {"value": json.dumps({"id": number, "command": command}), "ttl": COMMAND_TTL_SECONDS}
    urllib.request.urlopen(place(url, "q", queue), urllib.parse.urlencode(asked).encode()).close()
    return number


def answers(stream: Any) -> Iterator[dict[str, Any]]:
    """Yields the answers of consumer.py; skips all other messages."""
    for line in stream:
        try:
            said = json.loads(json.loads(line)["value"])
        except (ValueError, KeyError):
            continue
        if isinstance(said, dict) and isinstance(said.get("id"), str):
            yield said


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("commands", nargs="+", metavar="command", help="a name from consumer.py's list, e.g. load")
    described.add_argument("--url", default="http://127.0.0.1:8888", help="URL of the RestMQ server")
    described.add_argument("--queue", default="monitor", help="queue that the consumers listen to")
    described.add_argument("--machines", type=int, default=1, help="number of answers to wait for (default 1)")
    described.add_argument("--every", type=float, metavar="SECONDS", help="repeat with this pause (default: once)")
    described.add_argument("--wait", type=float, default=15, metavar="SECONDS", help="wait for an answer (default 15)")
    given = described.parse_args()

    try:
        run(given)
    except (OSError, ValueError, HTTPException) as problem:
        sys.exit(f"feeder: {problem}")


def run(given: argparse.Namespace) -> None:
    # Listen before asking, so that no answer is missed.
    with urllib.request.urlopen(place(given.url, "c", f"{given.queue}.answers"), timeout=given.wait) as stream:
        heard = answers(stream)
        while True:
            missing = {ask(given.url, given.queue, command): given.machines for command in given.commands}
            deadline = time.monotonic() + given.wait
            while any(missing.values()):
                try:
                    said = next(heard)
                except (TimeoutError, StopIteration):
                    said = {}
                if not said or time.monotonic() > deadline:
                    sys.exit(f"feeder: {sum(missing.values())} answers are missing")
                number = said.pop("id")
                if missing.get(number, 0) > 0:  # otherwise the answer is another feeder's, or too late
                    missing[number] -= 1
                    print(json.dumps(said), flush=True)
            if given.every is None:
                return
            time.sleep(given.every)


if __name__ == "__main__":
    main()
