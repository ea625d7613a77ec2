#!/usr/bin/env python3
"""collectd: prints the values and notifications that collectd sends to ``twistd collectd``.

Shows RestMQ's client for Twisted listening to two queues at once, in one process.

    ./start_scripts/collectd_restmq_server
    PYTHONPATH=. .venv/bin/python examples/test_collectd.py      from a checkout
    python3 examples/test_collectd.py                            if RestMQ is installed

docs/syslog-collectd.md shows the configuration of collectd. To try it by hand:

    curl -H 'Content-Type: text/plain' -d 'PUTVAL web/load/load interval=10 N:0.1:0.2:0.3' \\
        http://localhost:8888/collectd/data
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

from twisted.internet import defer, task

from restmq.client.deferred import DeferredClient
from restmq.errors import RestMQError

VALUES, NOTIFICATIONS = "collectd_data", "collectd_event"


def named(item: dict[str, Any], what: str) -> str:
    """The name in collectd's notation: ``cpu-0`` for plugin ``cpu`` and instance ``0``."""
    instance = item.get(f"{what}_instance")
    return f"{item[what]}-{instance}" if instance else str(item[what])


def values(items: list[dict[str, Any]]) -> Iterator[str]:
    """One line per list of values: its identifier, time and values."""
    for item in items:
        if "plugin_instance" in item and "value" in item:  # write_http's format Command
            yield f"{item['host']}/{item['plugin_instance']}/{item['type_instance']} {item['value']}"
        else:  # write_http's format JSON
            yield f"{item['host']}/{named(item, 'plugin')}/{named(item, 'type')} {item['time']}:{item['values']}"


def notification(items: list[dict[str, Any]]) -> Iterator[str]:
    """A notification as one line of JSON."""
    fields: dict[str, Any] = {}
    for item in items:
        fields |= item
    yield json.dumps(fields, ensure_ascii=False)


SHOW = {VALUES: values, NOTIFICATIONS: notification}


async def listen(client: DeferredClient, queue: str) -> None:
    async with aclosing(client.listen(queue)) as messages:
        async for message in messages:
            try:
                lines = list(SHOW[queue](json.loads(message.value)))
            except (ValueError, TypeError, KeyError, AttributeError) as problem:
                print(
                    f"test_collectd: skipped {message.key}: {problem!r}",
                    file=sys.stderr,
                    flush=True,
                )
                continue
            for line in lines:
                print(line, flush=True)


async def main(reactor: Any, *arguments: str) -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--url", default="http://127.0.0.1:8888", help="URL of the twistd collectd server")
    given = described.parse_args(arguments)

    def note(problem: RestMQError, seconds: float) -> None:
        print(f"test_collectd: {problem} Again in {seconds:.1f} s.", file=sys.stderr, flush=True)

    try:
        client = DeferredClient(reactor, given.url, lasting=True, on_retry=note)
    except RestMQError as problem:
        sys.exit(f"test_collectd: {problem}")
    both = [defer.ensureDeferred(listen(client, queue)) for queue in (VALUES, NOTIFICATIONS)]
    try:
        await defer.gatherResults(both, consumeErrors=True)
    except defer.FirstError as first:
        sys.exit(f"test_collectd: {first.subFailure.getErrorMessage()}")


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
