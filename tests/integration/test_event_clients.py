"""Server-Sent Events as real clients read them: each message is one event, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from aiosseclient import aiosseclient
from httpx_sse import connect_sse

from tests.servers import Comet, Daemon, Redis, listeners, patched_twistd, stopping, wait_until

NPM_EVENTSOURCE = "eventsource@4.1.1"
#: A server that sends its comments often.
TALKATIVE = patched_twistd("from restmq.delivery import local", "local.KEEPALIVE_SECONDS = 0.05")
VALUES = ["one", "two\nlines", ""]


@pytest.fixture(scope="module")
def talkative(module_folder: Path, redis: Redis) -> Iterator[Daemon]:
    daemon = Daemon(module_folder / "talkative", redis=redis, twistd=TALKATIVE)
    with stopping(daemon):
        yield daemon


def publish(daemon: Daemon, redis: Redis, queue: str) -> list[tuple[str, str]]:
    """Publishes the values, each after comments; returns the events that a client has to see."""
    wait_until(lambda: listeners(redis, queue))
    witness = Comet(daemon, f"/sse/{queue}")
    keys = []
    with daemon.client() as http:
        for value in VALUES:
            witness.lines(3, b":\n")
            keys.append(http.post(f"/q/{queue}", data={"value": value}).text.strip())
    witness.close()
    return list(zip(keys, VALUES, strict=True))


def test_httpx_sse(talkative: Daemon, redis: Redis, queue: str) -> None:
    with httpx.Client(trust_env=False) as http, connect_sse(http, "GET", f"{talkative.url}/sse/{queue}") as source:
        expected = publish(talkative, redis, queue)
        events = source.iter_sse()
        assert [(event.id, event.data) for _, event in zip(VALUES, events, strict=False)] == expected


def test_aiosseclient(talkative: Daemon, redis: Redis, queue: str) -> None:
    async def read() -> None:
        publishing = asyncio.create_task(asyncio.to_thread(publish, talkative, redis, queue))
        found = []
        async for event in aiosseclient(f"{talkative.url}/sse/{queue}", timeout_total=20):
            found.append((event.id, event.data))
            if len(found) == len(VALUES):
                break
        assert found == await publishing

    asyncio.run(read())


NODE = """
import { EventSource } from "eventsource";
const source = new EventSource(process.argv[2]);
source.onmessage = (event) => console.log(JSON.stringify([event.lastEventId, event.data]));
"""


@pytest.mark.needs("npm", "node")
def test_npm_eventsource(private_folder: Path, talkative: Daemon, redis: Redis, queue: str) -> None:
    subprocess.run(["npm", "install", "--silent", "--no-audit", NPM_EVENTSOURCE], cwd=private_folder, check=True)
    (private_folder / "read.mjs").write_text(NODE)
    reader = subprocess.Popen(
        ["node", "read.mjs", f"{talkative.url}/sse/{queue}"], cwd=private_folder, stdout=subprocess.PIPE
    )
    try:
        expected = publish(talkative, redis, queue)
        assert reader.stdout is not None
        assert [tuple(json.loads(reader.stdout.readline())) for _ in VALUES] == expected
    finally:
        reader.kill()
        reader.wait()
