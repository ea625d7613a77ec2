"""``restmq ping``: whether a server and its store take messages."""

from __future__ import annotations

import time
from types import SimpleNamespace

from restmq.cli.arguments import Commands
from restmq.cli.output import print_json, print_text
from restmq.client import Client


def add_to(commands: Commands) -> None:
    more = (
        "Prints the time that the answer took. Exits with status 5 if the server is away or its store takes no writes."
    )
    commands.add("ping", run_ping, "check that the server and its store take messages", more)


def run_ping(args: SimpleNamespace, client: Client) -> int:
    if not args.retry_given:
        client.retry_seconds = 0
    began = time.perf_counter()
    answer = client.ready()
    took_ms = round(1000 * (time.perf_counter() - began), 1)
    if args.json:
        print_json({"url": client.server.url, **answer, "ms": took_ms})
    else:
        parts = f" ({answer['parts']} parts of the cluster)" if "parts" in answer else ""
        print_text(f"{client.server.url} is {answer['status']}{parts}: {took_ms} ms")
    return 0
