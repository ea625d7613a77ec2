#!/usr/bin/env python3
"""Comet: listens to a queue and prints each message.

Shows ``listen`` of RestMQ's client, which reads the stream at /c/<queue> and reconnects when the server was away. If
the queue keeps a history (``curl -d history=1000 http://localhost:8888/p/test``), it then gets the missed messages too.

    PYTHONPATH=. .venv/bin/python examples/test_comet.py test         from a checkout
    python3 examples/test_comet.py test                               if RestMQ is installed
    curl -d value=hello http://localhost:8888/q/test                  in another terminal

Prints one line per message: key, tab, value. Ends at SIGINT, or after --count messages.
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
    described.add_argument("queue", nargs="?", default="test", help="queue to listen to (default: test)")
    described.add_argument("--url", default="http://127.0.0.1:8888", help="URL of the RestMQ server")
    described.add_argument("--count", type=int, help="number of messages after which to end (default: no end)")
    given = described.parse_args()
    if given.count is not None and given.count < 0:
        sys.exit("test_comet: invalid --count: it must be at least 0")

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
