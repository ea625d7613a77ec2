#!/usr/bin/env python3
"""System monitor, on each machine: runs the commands that feeder.py names, if they are on the list below.

Shows how a broadcast queue reaches every machine at once, over comet, with a program that reconnects when the server
was away. Start one on each machine, then send commands with feeder.py:

    ./consumer.py --url http://queue.example.org:8888

A message only names a command: there is no shell, and a message cannot set arguments. Everybody who may publish to the
queue can run these commands, so guard the queue (docs/security.md).
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from http.client import HTTPException
from typing import Any

COMMANDS = {
    "disk": ["df", "-P"],
    "kernel": ["uname", "-a"],
    "load": ["cat", "/proc/loadavg"],
    "memory": ["cat", "/proc/meminfo"],
}
RUN_SECONDS_MAX = 10
OUTPUT_BYTES_MAX = 65536
RETRY_SECONDS = (1, 2, 5, 10, 30)


def run(arguments: list[str]) -> dict[str, Any]:
    """Runs a command; returns its exit status and output. Ends it if it runs too long or prints too much."""
    started = time.monotonic()
    with subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        overdue = threading.Timer(RUN_SECONDS_MAX, process.kill)
        overdue.start()
        assert process.stdout is not None
        output = process.stdout.read(OUTPUT_BYTES_MAX)
        if len(output) == OUTPUT_BYTES_MAX:
            process.kill()
        status = process.wait()
        overdue.cancel()
    took = round(time.monotonic() - started, 3)
    return {"status": status, "output": output.decode(errors="replace"), "seconds": took}


def answer(value: str) -> dict[str, Any] | None:
    """Returns the answer to a message, or None if the message is not a command."""
    try:
        asked = json.loads(value)
        name, number = asked["command"], asked["id"]
    except (ValueError, TypeError, KeyError):
        return None
    about = {"id": number, "command": name}
    arguments = COMMANDS.get(name) if isinstance(name, str) else None
    if arguments is None:
        return {**about, "error": "this command is not on the list"}
    try:
        return {**about, **run(arguments)}
    except OSError as problem:
        return {**about, "error": str(problem)}


def listen(url: str, queue: str, machine: str) -> None:
    """Answers each message for as long as the connection lasts."""
    with urllib.request.urlopen(f"{url}/c/{urllib.parse.quote(queue, safe='')}") as stream:
        print(f"consumer: {machine} listens to {queue}", file=sys.stderr, flush=True)
        for line in stream:
            said = answer(json.loads(line)["value"])
            if said is None:
                print(f"consumer: skipped an invalid message: {line!r}", file=sys.stderr, flush=True)
                continue
            form = urllib.parse.urlencode({"value": json.dumps({"machine": machine, **said}), "ttl": 60}).encode()
            urllib.request.urlopen(f"{url}/q/{urllib.parse.quote(queue + '.answers', safe='')}", form).close()


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--url", default="http://127.0.0.1:8888", help="URL of the RestMQ server")
    described.add_argument("--queue", default="monitor", help="queue with the commands")
    described.add_argument("--machine", default=socket.gethostname(), help="name of this machine (host name)")
    given = described.parse_args()
    if not given.url.startswith(("http://", "https://")):
        sys.exit(f"consumer: invalid --url {given.url}: it must begin with http:// or https://")
    attempt = 0
    while True:
        started = time.monotonic()
        try:
            listen(given.url, given.queue, given.machine)
            problem: Exception | str = "the stream has ended"
        except (OSError, ValueError, HTTPException) as failure:
            problem = failure
        attempt = 0 if time.monotonic() - started > RETRY_SECONDS[-1] else attempt
        pause = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
        attempt += 1
        print(f"consumer: {problem}; again in {pause} s", file=sys.stderr, flush=True)
        time.sleep(pause)


if __name__ == "__main__":
    main()
