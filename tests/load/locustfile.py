"""A load of producers, consumers and workers, for locust.

    .venv/bin/locust -f tests/load/locustfile.py --headless --users 200 --spawn-rate 50 --run-time 60s \\
        --host http://127.0.0.1:8888
    .venv/bin/locust -f tests/load/locustfile.py --host http://127.0.0.1:8888     with a page at http://127.0.0.1:8089

Producers put messages in, as fast as they are answered; consumers take them; workers lease and ack them. What comes out
is checked to be what went in, and whatever fails, locust counts and ends with status 1. --queues says how many queues
there are, --value-bytes how long a message is. It needs queues of its own: "load-0" and so on.
"""

from __future__ import annotations

import hashlib
import os
import random
from argparse import ArgumentParser
from typing import Any
from urllib.parse import quote

from locust import FastHttpUser, events, tag, task

SUM_CHARACTERS = 16
WAIT_SECONDS = 1
LEASE_SECONDS = 60


@events.init_command_line_parser.add_listener
def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--queues", type=int, default=4, help="how many queues the load is spread over")
    parser.add_argument("--value-bytes", type=int, default=256, help="how long a message is")


def make_value(size_bytes: int) -> str:
    """A value with a checksum."""
    text = os.urandom(size_bytes).hex()[: max(0, size_bytes - SUM_CHARACTERS)]
    return sum_of(text) + text


def is_whole(value: str) -> bool:
    return value[:SUM_CHARACTERS] == sum_of(value[SUM_CHARACTERS:])


def sum_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:SUM_CHARACTERS]


class Client(FastHttpUser):
    """The common part of all clients."""

    abstract = True
    connection_timeout = network_timeout = 30.0

    def a_queue(self) -> str:
        return f"/q/load-{random.randrange(self.environment.parsed_options.queues)}"

    def receive(self, name: str, query: str) -> dict[str, Any] | None:
        """The next message of a queue, or None if none came."""
        with self.client.get(self.a_queue() + query, name=name, catch_response=True) as answer:
            if answer.status_code == 204:
                answer.success()
                return None
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                return None
            message: dict[str, Any] = answer.json()
            if not is_whole(message["value"]):
                answer.failure("the message is not as it was put in")
            return message


class Producer(Client):
    weight = 2

    @tag("put")
    @task
    def put(self) -> None:
        value = make_value(self.environment.parsed_options.value_bytes)
        self.client.post(self.a_queue(), data={"value": value}, name="put")


class Consumer(Client):
    weight = 1

    @tag("take")
    @task
    def take(self) -> None:
        self.receive("take", f"?wait={WAIT_SECONDS}")


class Worker(Client):
    weight = 1

    @tag("lease")
    @task
    def lease_and_ack(self) -> None:
        message = self.receive("lease", f"?wait={WAIT_SECONDS}&lease={LEASE_SECONDS}")
        if message is not None:
            path = f"/m/{quote(message['key'], safe='')}?receipt={quote(message['receipt'])}"
            self.client.delete(path, name="ack")
