"""``restmq bench``: a small load test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace

import click

from restmq.cli.arguments import Commands, flag, option, queue_argument
from restmq.cli.output import print_error, print_json, print_table
from restmq.client import Client
from restmq.client.interrupts import interrupted_status, stopping
from restmq.errors import RestMQError
from restmq.model import BATCH_MAX

BENCH_QUEUE = "restmq-bench"
CLIENTS_MAX = 256
_PERCENTILES = (50, 90, 99, 100)


def add_to(commands: Commands) -> None:
    commands.add(
        "bench",
        run_bench,
        "publish and take messages, and print rates and latencies",
        f"QUEUE must be empty [default: {BENCH_QUEUE}]. Each client sends its next request when the previous one is "
        "answered. If OWN CPU is near 100 %, this program limits the result and the server can do more.",
        queue_argument(required=False, default=BENCH_QUEUE),
        option("--messages", "Number of messages.", "N", click.IntRange(1, 10_000_000), 5000),
        option("--size", "Size of a message.", "BYTES", click.IntRange(1, 16 << 20), 100),
        option("--clients", "Number of concurrent clients.", "N", click.IntRange(1, CLIENTS_MAX), 8),
        option("--batch", "Messages per request.", "N", click.IntRange(1, BATCH_MAX), 1),
        flag("--idempotent", "Publish with idempotency keys, which is the default of the Python client."),
    )


@dataclass(slots=True)
class BenchRun:
    """The measurements of one kind of request."""

    what: str
    messages: int = 0
    requests_seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0
    cpu_seconds: float = 0

    def percentile_ms(self, percent: int) -> float:
        """The latency percentile in milliseconds."""
        ordered = sorted(self.requests_seconds)
        return 1000 * ordered[max(0, -(-percent * len(ordered) // 100) - 1)] if ordered else 0.0

    def fields(self) -> dict[str, object]:
        latencies = {f"p{percent}_ms": round(self.percentile_ms(percent), 3) for percent in _PERCENTILES}
        return {
            "what": self.what,
            "messages": self.messages,
            "requests": len(self.requests_seconds),
            "failed": len(self.failures),
            "seconds": round(self.seconds, 3),
            "messages_per_second": round(self.messages / self.seconds, 1),
            **latencies,
            "client_cpu_percent": round(100 * self.cpu_seconds / self.seconds),
        }


def run_bench(args: SimpleNamespace, client: Client) -> int:
    stats = client.stats(args.queue)
    if any(stats[name] for name in ("ready", "leased", "delayed", "dead", "consumers", "waiters")):
        raise click.UsageError(f"{args.queue!r} is in use; a load test would take its messages. Name an empty queue.")
    client.retry_seconds = 0  # a retry would hide a failed request, which must be counted
    value, key = "x" * args.size, None if args.idempotent else ""

    def publish() -> int:
        if args.batch > 1:
            return len(client.publish_many(args.queue, [value] * args.batch, idempotency_key=key))
        client.publish(args.queue, value, idempotency_key=key)
        return 1

    def take() -> int:
        return len(client.take_many(args.queue, args.batch))

    interrupted, sweeper = threading.Event(), client.twin()

    def stop() -> None:
        """The first signal lets current requests finish; the second one cuts them off."""
        if interrupted.is_set():
            client.stop()
        interrupted.set()

    runs = []
    with stopping(stop, once=False):
        try:
            for what, request in (("publish", publish), ("take", take)):
                runs.append(_measure(what, request, args, interrupted))
        finally:
            sweeper.purge(args.queue)
    return interrupted_status() if interrupted.is_set() else _report(args, runs)


def _measure(what: str, request: Callable[[], int], args: SimpleNamespace, interrupted: threading.Event) -> BenchRun:
    """Sends the requests from all clients; an interruption ends this early. Returns when all clients have ended."""
    run, lock = BenchRun(what), threading.Lock()
    requests, clients = -(-args.messages // args.batch), args.clients
    shares = [requests // clients + (number < requests % clients) for number in range(clients)]

    def one_client(share: int) -> None:
        for _ in range(share):
            if interrupted.is_set():
                return
            began = time.perf_counter()
            try:
                messages = request()
                failure = ""
            except RestMQError as problem:
                messages, failure = 0, str(problem)
            seconds = time.perf_counter() - began
            with lock:
                run.messages += messages
                run.requests_seconds.append(seconds)
                if failure:
                    run.failures.append(failure)

    began, cpu_began = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(one_client, shares))
    run.seconds, run.cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return run


def _report(args: SimpleNamespace, runs: list[BenchRun]) -> int:
    """Prints the measurements and the errors; returns the exit status."""
    if args.json:
        print_json([run.fields() for run in runs])
    else:
        _print_runs(runs)
    failed = [failure for run in runs for failure in run.failures]
    for failure in sorted(set(failed)):
        print_error(f"{failed.count(failure)} failed: {failure}")
    return 1 if failed else 0


def _print_runs(runs: list[BenchRun]) -> None:
    head = ("", "MESSAGES", "FAILED", "MESSAGES/S", "P50 MS", "P90 MS", "P99 MS", "MAX MS", "OWN CPU")
    rows = []
    for run in runs:
        latencies = [f"{run.percentile_ms(percent):.2f}" for percent in _PERCENTILES]
        rate, cpu = run.messages / run.seconds, run.cpu_seconds / run.seconds
        rows.append([run.what, f"{run.messages:,}", len(run.failures), f"{rate:,.0f}", *latencies, f"{cpu:.0%}"])
    print_table(head, rows)
