#!/usr/bin/env python3
"""Worker: finds the prime factors of the numbers that stand in a queue, and loses none, whatever dies.

Shows leases: a message is hidden while it is worked on, its lease extended for as long as that takes, and it leaves
only when its result is safe. If a worker dies, its message comes back, for another one; what no worker can do becomes a
dead letter after three tries. Start as many workers as you like, on any machines:

    PYTHONPATH=. .venv/bin/python examples/worker.py              from a checkout
    python3 examples/worker.py                                    where RestMQ is installed
    curl -d value=600851475143 http://localhost:8888/q/jobs       work, in another terminal
    curl -N http://localhost:8888/c/jobs.results                  results: {"number": …, "factors": […]}
    curl http://localhost:8888/d/jobs                             what could not be done

It goes on by itself when the server was away. SIGTERM or SIGINT ends it when the number at hand is done and settled; a
second signal even where the server is away.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from restmq.client import Client, Message, Stopped
from restmq.errors import LeaseGone, RestMQError

DELIVERIES_MAX = 3
LARGEST = 10**15


def say(what: object) -> None:
    print(f"worker: {what}", file=sys.stderr, flush=True)


def factors(number: int) -> list[int]:
    """The prime factors, the smallest first. Raises ValueError for what has none, or would take too long."""
    if not 1 < number <= LARGEST:
        raise ValueError(f"{number} is not from 2 to {LARGEST}")
    found, divisor = [], 2
    while divisor * divisor <= number:
        if number % divisor:
            divisor += 1
        else:
            number //= divisor
            found.append(divisor)
    return [*found, number]


@contextmanager
def held(client: Client, message: Message, lease_seconds: float) -> Iterator[None]:
    """Extends the message's lease, again and again, by a thread of its own."""
    done = threading.Event()

    def extend() -> None:
        while not done.wait(lease_seconds / 3):
            try:
                client.extend(message, lease_seconds)
            except RestMQError as problem:  # if the lease is lost another worker has it, and the ack will say so
                say(f"{message.key} can't be kept: {problem}")
                return

    keeper = threading.Thread(target=extend, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()


def work(client: Client, message: Message, results: str, lease_seconds: float, slow_seconds: float) -> None:
    """Does what the message asks for, and acks it; or gives it back."""
    say(f"{message.key} begun, delivery {message.count} of {DELIVERIES_MAX}")
    try:
        with held(client, message, lease_seconds):
            time.sleep(slow_seconds)
            number = int(message.text)
            result = json.dumps({"number": number, "factors": factors(number)})
        # The same work done twice has one result: a message's key is never given again.
        client.publish(results, result, idempotency_key=hashlib.sha256(message.key.encode()).hexdigest())
        client.ack(message)
        say(f"{message.key} done: {result}")
    except ValueError as problem:
        say(f"{message.key} failed: {problem}")
        client.nack(message)


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--url", default="http://127.0.0.1:8888", help="where RestMQ is")
    described.add_argument("--queue", default="jobs", help="the queue with numbers; results go to QUEUE.results")
    described.add_argument("--lease", type=float, default=30, metavar="SECONDS", help="how long a lease lasts")
    described.add_argument("--slow", type=float, default=0, metavar="SECONDS", help="dawdle over each number, to watch")
    given = described.parse_args()

    def note(problem: RestMQError, seconds: float) -> None:
        say(f"{problem} Again in {seconds:.1f} s.")

    try:
        # One client leases and is stopped; what is under way then is still settled by the other.
        with Client(given.url, lasting=True, on_retry=note) as leasing, leasing.twin() as settling:
            for ending in (signal.SIGINT, signal.SIGTERM):
                signal.signal(ending, lambda *_: (settling if leasing.stopped_within(0) else leasing).stop())
            leasing.configure(given.queue, max_deliveries=DELIVERIES_MAX)
            for message in leasing.consume(given.queue, given.lease):
                try:
                    work(settling, message, f"{given.queue}.results", given.lease, given.slow)
                except LeaseGone as problem:
                    say(f"{message.key} was lost on the way, and comes again: {problem}")
    except Stopped:
        pass
    except RestMQError as problem:
        sys.exit(f"worker: {problem}")
    say("ended")


if __name__ == "__main__":
    main()
