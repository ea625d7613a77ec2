"""Hostile inputs against one server, all at once: ``python -m tests.load.hostile --seconds 120``.

Meanwhile a second client asks for /healthz every 20 ms. Prints how long that client waited, the answers to each input,
and the memory of the server and of its Redis: before, at the peak, and a minute after the last client has left.
Exit status 1 if the server failed, fell silent, or did not close the connections of clients that had left.

``--only INPUT`` (may be repeated) sends only that input; ``--before REVISION`` runs an earlier revision's server.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.rig import Server
from restmq.auth.passwords import hash_password
from tests.load import inputs
from tests.load.clients import exchange
from tests.load.inputs import Input
from tests.load.measuring import MIB, Probe, Rest, Waits, forget_peak, peak, redis_process, resident, target, tracebacks
from tests.servers import Redis

INPUTS: dict[str, Callable[..., Input]] = {
    "deflate": inputs.deflate_bombs,
    "frames": inputs.small_frames,
    "pipelined": inputs.pipelined,
    "xml": inputs.large_xml,
    "json": inputs.large_json,
    "ndjson": inputs.large_lines,
    "forms": inputs.large_forms,
    "passwords": inputs.wrong_passwords,
    "queues": inputs.many_queues,
}


@dataclass(slots=True)
class Findings:
    """The results of a run.

    Attributes:
        answers: outcomes of each input.
        waits: waits of the second client.
        memory: bytes of each process before, at the peak, and after.
        wrong: what must not happen.
    """

    answers: dict[str, Counter[str]]
    waits: tuple[Waits, ...]
    memory: dict[str, tuple[int, int, int]]
    wrong: list[str]

    def __str__(self) -> str:
        lines = [Waits.HEADING, *map(str, self.waits), "", "input      answers"]
        for name, outcomes in self.answers.items():
            lines.append(f"{name:<11}" + ", ".join(f"{count} x {what}" for what, count in outcomes.most_common()))
        lines += ["", f"{'memory, MiB':<12}{'before':>8}{'peak':>8}{'after':>8}"]
        for name, figures in self.memory.items():
            lines.append(f"{name:<12}" + "".join(f"{figure // MIB:>8}" for figure in figures))
        return "\n".join([*lines, *(f"WRONG: {each}" for each in self.wrong)])


class _Attack:
    """The clients of all inputs, and the outcomes of their requests."""

    def __init__(self, port: int, sent: Mapping[str, Input], seconds: float, last_answers_seconds: float) -> None:
        self._port = port
        self._sent = sent
        self._end = time.monotonic() + seconds
        self._leave = self._end + last_answers_seconds
        self.answers: dict[str, Counter[str]] = {name: Counter() for name in sent}

    async def run(self) -> None:
        clients = (self._client(name, each) for name, what in self._sent.items() for each in range(what.clients))
        await asyncio.gather(*clients)

    async def _client(self, name: str, client: int) -> None:
        """Sends the variants in turns, each client beginning with another one, and each at least once."""
        sent = self._sent[name]
        for turn in itertools.count():
            number = turn * sent.clients + client
            request = sent.requests[(turn + client) % len(sent.requests)]
            try:
                headers = sent.headers(client, number)
                answer = await exchange(self._port, request, *headers, seconds=self._leave - time.monotonic())
                self.answers[name][str(answer)] += 1
            except OSError as error:
                self.answers[name][type(error).__name__] += 1
            if time.monotonic() > self._end:
                return
            await asyncio.sleep(sent.pause_seconds)


def make_queues(redis: Redis, count: int) -> None:
    """Makes queues that have had a message, writing directly to Redis."""
    for start in range(0, count, 5000):
        names = [f"queue-{number:06}" for number in range(start, min(start + 5000, count))]
        numbers = itertools.chain.from_iterable((f"{name}:UUID", "1") for name in names)
        redis.commands([("SADD", "QUEUESET", *names), ("MSET", *numbers)])


def attack(
    server: Server,
    sent: Mapping[str, Input],
    *,
    seconds: float,
    last_answers_seconds: float = 10,
    settle_seconds: float = 0,
) -> Findings:
    """Sends the inputs, waits for the last answers, and measures the memory again some time later."""
    processes = {"server": server.process_id, "Redis": redis_process(server)}
    before = {name: resident(process_id) for name, process_id in processes.items()}
    for process_id in processes.values():
        forget_peak(process_id)
    rest, probe, wrong = Rest(server), Probe(server), []
    clients = _Attack(server.port, {**sent, "purges": inputs.purges()}, seconds, last_answers_seconds)
    try:
        asyncio.run(clients.run())
    finally:
        probe.stop()
    highest = {name: peak(process_id) for name, process_id in processes.items()}
    try:
        rest.wait_for_clients()
    except AssertionError as error:
        wrong.append(str(error))
    time.sleep(settle_seconds)
    memory = {name: (before[name], highest[name], resident(process_id)) for name, process_id in processes.items()}
    if probe.silent:
        wrong.append(f"/healthz was not answered {probe.silent} times")
    for name, outcomes in clients.answers.items():
        wrong += [f"{name}: {count} x {what}" for what, count in outcomes.items() if what == "500"]
    wrong += tracebacks(server)
    return Findings(clients.answers, probe.waits, memory, wrong)


def options(folder: Path) -> tuple[str, ...]:
    """Options of a server whose streams need a password, and that learns addresses from a proxy."""
    rules = folder / "acl.conf"
    rules.write_text(f"[comet:consumer]\nusername = consumer\npassword = {hash_password('right')}\n")
    return "--acl", str(rules), "--trusted-proxies", "127.0.0.1"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--settle", type=float, default=60, help="seconds until the memory is measured again")
    parser.add_argument("--queues", type=int, default=100_000, help="number of queues for the input 'queues'")
    parser.add_argument("--only", action="append", choices=INPUTS, metavar="INPUT", help=", ".join(INPUTS))
    parser.add_argument("--before", metavar="REVISION")
    asked = parser.parse_args()
    sent = {name: make() for name, make in INPUTS.items() if not asked.only or name in asked.only}
    with tempfile.TemporaryDirectory() as folder, target(*options(Path(folder)), before=asked.before) as server:
        if "queues" in sent:
            make_queues(server.store, asked.queues)
        found = attack(server, sent, seconds=asked.seconds, settle_seconds=asked.settle)
    print(found)
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
