"""How the figures are measured: each with a new queue, and with a check that the load did what it should."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count

import httpx
import loads
from fanout import Transport, fan_out, keep_history, reading, replay
from rig import ROOT, VALUE, Meter, Run, Server, fill, median, on_cores

from tests.servers import free_port, wait_until

BATCH = 1000
HISTORY = 1000
MANY_QUEUES = 10_000
#: Deliveries of a burst, and those per second at a fixed pace.
_DELIVERIES, _PACED_DELIVERIES = 150_000, 20_000
#: Messages prepared per second of load: more than any server here can deliver.
TAKEN_A_SECOND = 100_000
_BATCHED_A_SECOND = 800_000


class Measuring:
    """Measures each figure, with a new queue each time that is deleted afterwards."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self._numbers = count(1)

    def queue(self) -> str:
        return f"bench-{next(self._numbers)}"

    def load(self, load: Callable[[str], loads.Load], *, pops: bool = False) -> Callable[[Server], Run]:
        """A load that needs no check of the store; ``pops`` fills the list first."""

        def measure(server: Server) -> Run:
            queue = self.queue()
            if pops:
                for _ in range(int(self.seconds * TAKEN_A_SECOND) // 5000):
                    server.store.command("LPUSH", queue, *[VALUE] * 5000)
            run = load(queue).run(server, self.seconds)
            server.forget()
            return run

        return measure

    def post(
        self, connections: int = 32, around: Callable[[Server, str], AbstractContextManager[None]] | None = None
    ) -> Callable[[Server], Run]:
        """POSTs to a new queue.

        Args:
            around: a context in which the queue has a consumer, so that messages are not stored.
        """

        def measure(server: Server) -> Run:
            queue = self.queue()
            with around(server, queue) if around else contextlib.nullcontext():
                run = loads.post(queue, connections).run(server, self.seconds)
            if around is None:
                why = "every numbered message is stored when no request is left"
                wait_until(lambda: _unstored(server, queue) == 0, why=why)
            server.forget()
            return run

        return measure

    def get(self, connections: int = 32) -> Callable[[Server], Run]:
        def measure(server: Server) -> Run:
            queue = self.queue()
            fill(server.store, queue, int(self.seconds * TAKEN_A_SECOND))
            run = loads.get(queue, connections).run(server, self.seconds)
            _check_not_empty(server, queue)
            server.forget()
            return run

        return measure

    def pinned(self, measure: Callable[[Server], Run]) -> Callable[[Server], Run]:
        """The server has one core, and the client and Redis share the other ones."""

        def measure_pinned(server: Server) -> Run:
            with on_cores(server):
                return measure(server)

        return measure_pinned

    def post_to(self, queue: str) -> Callable[[Server], Run]:
        return lambda server: loads.post(queue).run(server, self.seconds)

    def get_from(self, queue: str) -> Callable[[Server], Run]:
        def measure(server: Server) -> Run:
            run = loads.get(queue).run(server, self.seconds)
            _check_not_empty(server, queue)
            return run

        return measure

    def lease_and_ack(self, server: Server) -> Run:
        fill(server.store, "leased", int(self.seconds * TAKEN_A_SECOND))
        run = loads.LEASE_AND_ACK.run(server, self.seconds)
        _check_not_empty(server, "leased")
        run.operations = int(server.store.command("HGET", "leased:totals", "acked"))
        server.forget()
        return run

    def add_batches(self, server: Server) -> Run:
        queue = self.queue()
        run = loads.add_batches(queue, BATCH).run(server, self.seconds)
        run.operations = server.store.command("LLEN", f"{queue}:queue")
        server.forget()
        return run

    def take_batches(self, server: Server) -> Run:
        queue, messages = self.queue(), int(self.seconds * _BATCHED_A_SECOND)
        fill(server.store, queue, messages)
        run = loads.take_batches(queue, BATCH).run(server, self.seconds)
        run.operations = messages - _check_not_empty(server, queue)
        server.forget()
        return run

    def fan_out(self, transport: Transport, consumers: int, *, paced: bool) -> Callable[[Server], Run]:
        messages = int(self.seconds * _PACED_DELIVERIES if paced else _DELIVERIES) // consumers
        pace_seconds = consumers / _PACED_DELIVERIES if paced else 0
        return lambda server: fan_out(server, transport, self.queue(), consumers, messages, pace_seconds)

    def replay(self, server: Server) -> Run:
        run = replay(server, self.queue(), 100, HISTORY)
        server.forget()
        return run


def _unstored(server: Server, queue: str) -> int:
    """Returns the number of messages that have a number but are not stored."""
    return int(server.store.command("GET", f"{queue}:UUID")) - int(server.store.command("LLEN", f"{queue}:queue"))


def _check_not_empty(server: Server, queue: str) -> int:
    left = int(server.store.command("LLEN", f"{queue}:queue"))
    assert left > 0, f"{queue} ran empty, so answers without a message were measured. Fill it with more messages."
    return left


def one_consumer(server: Server, queue: str) -> AbstractContextManager[None]:
    return reading(server, f"/c/{queue}")


def one_tap(server: Server, queue: str) -> AbstractContextManager[None]:
    return reading(server, f"/tap/{queue}")


@contextlib.contextmanager
def kept_history(server: Server, queue: str) -> Iterator[None]:
    keep_history(server, queue, HISTORY)
    with one_consumer(server, queue):
        yield


def all_stats(server: Server) -> Run:
    """Requests /stats/ ten times, one after the other."""
    took_ms = []
    meter, began = Meter(server), time.perf_counter()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for _ in range(10):
            asked = time.perf_counter()
            answer = client.get("/stats/")
            took_ms.append((time.perf_counter() - asked) * 1000)
            assert len(answer.json()["queues"]) >= MANY_QUEUES
    return meter.stop(Run(None, time.perf_counter() - began, median(took_ms), max(took_ms)))


def start(_: None) -> Run:
    """Starts a prepared checkout as a user does, with a new private store, until it answers."""
    port, began = free_port(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="restmq-bench-") as folder:
        script = [f"{ROOT}/start_scripts/restmq_server", "--embedded", "always", "--data-dir", f"{folder}/data"]
        process = subprocess.Popen(
            [*script, "--port", str(port)], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: _is_ready(port), 120, "the server answers")
            took_ms = (time.perf_counter() - began) * 1000
        finally:
            process.terminate()
            process.wait()
    return Run(None, took_ms / 1000, took_ms, took_ms)


def _is_ready(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).is_success
    return False
