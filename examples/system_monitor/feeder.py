#!/usr/bin/env python3
"""System monitor, the asking side: has every machine with a consumer.py run a command, and prints what they say.

Shows messages that expire: a command that no machine hears within a few seconds is not run later.

    ./feeder.py load disk                    asks once, and waits for one machine's answers
    ./feeder.py load --machines 3 --every 10 asks three machines every ten seconds

Prints a line of JSON an answer. Exit status 1 if not all answers came within --wait seconds.
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
    """Puts the command into the queue; returns the id by which its answers are known."""
    number = uuid.uuid4().hex
    asked = {"value": json.dumps({"id": number, "command": command}), "ttl": COMMAND_TTL_SECONDS}
    urllib.request.urlopen(place(url, "q", queue), urllib.parse.urlencode(asked).encode()).close()
    return number


def answers(stream: Any) -> Iterator[dict[str, Any]]:
    """What comes, but for what is no answer of a consumer.py."""
    for line in stream:
        try:
            said = json.loads(json.loads(line)["value"])
        except (ValueError, KeyError):
            continue
        if isinstance(said, dict) and isinstance(said.get("id"), str):
            yield said


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("commands", nargs="+", metavar="command", help="a name on consumer.py's list, such as load")
    described.add_argument("--url", default="http://127.0.0.1:8888", help="where RestMQ is")
    described.add_argument("--queue", default="monitor", help="the queue that the consumers listen to")
    described.add_argument("--machines", type=int, default=1, help="how many answers to wait for")
    described.add_argument("--every", type=float, metavar="SECONDS", help="ask again and again")
    described.add_argument("--wait", type=float, default=15, metavar="SECONDS", help="how long to wait for an answer")
    given = described.parse_args()

    try:
        run(given)
    except (OSError, ValueError, HTTPException) as problem:
        sys.exit(f"feeder: {problem}")


def run(given: argparse.Namespace) -> None:
    # ListenerStatistics begins before asking: the answers are the first thing to come.
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
                if missing.get(number, 0) > 0:  # else it is another feeder's, or comes too late
                    missing[number] -= 1
                    print(json.dumps(said), flush=True)
            if given.every is None:
                return
            time.sleep(given.every)


if __name__ == "__main__":
    main()
