#!/usr/bin/env python3
"""Worker: finds the prime factors of the numbers in a queue, and loses no number, whatever dies.

Shows leases: a message is hidden while a worker processes it, and the worker extends the lease as long as necessary.
The message leaves the queue only when its result is stored. If a worker dies, another worker gets its message. A
message that no worker can process becomes a dead letter after three tries. Start as many workers as you like, on any
machines:

    PYTHONPATH=. .venv/bin/python examples/worker.py              from a checkout
    python3 examples/worker.py                                    if RestMQ is installed
    curl -d value=600851475143 http://localhost:8888/q/jobs       a job, in another terminal
    curl -N http://localhost:8888/c/jobs.results                  results: {"number": …, "factors": […]}
    curl http://localhost:8888/d/jobs                             failed jobs

It reconnects when the server was away. SIGTERM or SIGINT ends it after the current number is done and acked. A second
signal ends it at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time

from restmq.client import Client, Message, Stopped
from restmq.errors import LeaseGone, RestMQError

DELIVERIES_MAX = 3
LARGEST = 10**15


def say(what: object) -> None:
    print(f"worker: {what}", file=sys.stderr, flush=True)


def factors(number: int) -> list[int]:
    """Returns the prime factors, the smallest first. Raises ValueError if there are none or it would take too long."""
    if not 1 < number <= LARGEST:
        raise ValueError(f"invalid number {number}: it must be from 2 to {LARGEST}")
    found, divisor = [], 2
    while divisor * divisor <= number:
        if number % divisor:
            divisor += 1
        else:
            number //= divisor
            found.append(divisor)
    return [*found, number]


def work(client: Client, message: Message, results: str, slow_seconds: float) -> None:
    """Processes the message. Raises ValueError if that is impossible."""
    say(f"{message.key} begun, delivery {message.count} of {DELIVERIES_MAX}")
    time.sleep(slow_seconds)
    number = int(message.text)
    result = json.dumps({"number": number, "factors": factors(number)})
    # The message's key is never reused, so a job done twice publishes its result once.
    client.publish(results, result, idempotency_key=hashlib.sha256(message.key.encode()).hexdigest())
    say(f"{message.key} done: {result}")


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--url", default="http://127.0.0.1:8888", help="URL of the RestMQ server")
    described.add_argument("--queue", default="jobs", help="queue with the numbers; results go to QUEUE.results")
    described.add_argument("--lease", type=float, default=30, metavar="SECONDS", help="length of a lease (default 30)")
    described.add_argument("--slow", type=float, default=0, metavar="SECONDS", help="extra time per number (default 0)")
    given = described.parse_args()

    def note(problem: RestMQError, seconds: float) -> None:
        say(f"{problem} Again in {seconds:.1f} s.")

    try:
        # A signal stops the client that leases; the other still publishes the current result.
        with (
            Client(given.url, lasting=True, on_retry=note) as leasing,
            leasing.twin() as publishing,
            leasing.until_interrupted(),
        ):
            leasing.configure(given.queue, max_deliveries=DELIVERIES_MAX)
            while True:
                try:
                    # Extends the lease while the block runs, then acks; nacks if the block raises an exception.
                    with leasing.leased(given.queue, given.lease, wait_seconds=30) as message:
                        if message is not None:
                            work(publishing, message, f"{given.queue}.results", given.slow)
                except ValueError as problem:
                    say(f"failed: {problem}")
                except LeaseGone as problem:
                    say(f"a lease was lost, so its message will be delivered again: {problem}")
    except Stopped:
        pass
    except RestMQError as problem:
        sys.exit(f"worker: {problem}")
    say("ended")


if __name__ == "__main__":
    main()
