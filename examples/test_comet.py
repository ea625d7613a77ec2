#!/usr/bin/env python3
"""Comet: listens to a queue and prints each message when it comes, for as long as one likes.

Shows ``listen`` of RestMQ's client, which reads the stream at /c/<queue>. It goes on by itself when the server was
away; of a queue with a history (``curl -d history=1000 http://localhost:8888/p/test``) with what was missed meanwhile.

    PYTHONPATH=. .venv/bin/python examples/test_comet.py test         from a checkout
    python3 examples/test_comet.py test                               where RestMQ is installed
    curl -d value=hello http://localhost:8888/q/test                  in another terminal

Prints a line a message: its key, a tab, its value. Ends at SIGINT, or after --count messages.
"""

from __future__ import annotations

import argparse
import signal
import sys
from itertools import islice

from restmq.client import Client
from restmq.errors import RestMQError


def note(what: object, seconds: float) -> None:
    print(f"test_comet: {what} Again in {seconds:.1f} s.", file=sys.stderr, flush=True)


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("queue", nargs="?", default="test", help="the queue to listen to")
    described.add_argument("--url", default="http://127.0.0.1:8888", help="where RestMQ is")
    described.add_argument("--count", type=int, help="end after so many messages")
    given = described.parse_args()
    if given.count is not None and given.count < 0:
        sys.exit("test_comet: --count can't be less than 0")

    try:
        with Client(given.url, lasting=True, on_retry=note) as client:
            signal.signal(signal.SIGINT, lambda *_: client.stop())
            signal.signal(signal.SIGTERM, lambda *_: client.stop())
            missed = "messages were missed: the queue's history does not reach back to"
            messages = client.listen(given.queue, on_gap=lambda key: print(missed, key, file=sys.stderr, flush=True))
            for message in islice(messages, given.count):
                print(message.key, message.value.decode(errors="replace"), sep="\t", flush=True)
    except RestMQError as problem:
        sys.exit(f"test_comet: {problem}")


if __name__ == "__main__":
    main()
