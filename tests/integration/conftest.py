"""The core in this process, for tests below HTTP. A reactor runs in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from typing import Any

import pytest
from twisted.internet import defer, reactor
from twisted.internet.threads import blockingCallFromThread

from restmq.core import RedisOperations
from restmq.store.cluster.store import make_store
from tests.servers import START_SECONDS, Redis

Run = Callable[..., Any]


@cache
def _start_reactor() -> None:
    """Starts the reactor once per process: it cannot be restarted, and with xdist a session may end twice."""
    threading.Thread(target=reactor.run, kwargs={"installSignalHandlers": False}, daemon=True).start()  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs a coroutine function in the reactor's thread and returns its result."""
    _start_reactor()

    def run_there(function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        return blockingCallFromThread(reactor, lambda: defer.ensureDeferred(function(*args, **kwargs)))  # type: ignore[arg-type]

    return run_there


@pytest.fixture
def core(run: Run, redis: Redis) -> Iterator[RedisOperations]:
    """The operations on the shared Redis."""
    yield from operations(run, redis)


@pytest.fixture
def private_core(run: Run, private_redis: Redis) -> Iterator[RedisOperations]:
    """The operations on a Redis that the test may kill."""
    yield from operations(run, private_redis, call_timeout_seconds=3.0)


def operations(run: Run, redis: Redis, **settings: Any) -> Iterator[RedisOperations]:
    store = make_store(redis.store_settings(**settings), reactor)
    store.part_seconds = START_SECONDS  # no node is away here, but a busy machine may be slow

    async def start() -> None:
        store.startService()
        await store.first_connected

    async def stop() -> None:
        await store.stopService()

    run(start)
    yield RedisOperations(store)
    run(stop)


class Clock:
    """The time that scripts get. It is years ahead of Redis' own clock, so that Redis itself expires no key."""

    AHEAD_MS = 10 * 365 * 86_400_000

    def __init__(self) -> None:
        self.now_ms = int(time.time() * 1000) + self.AHEAD_MS

    def go_on(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(core: RedisOperations, clock: Clock) -> RedisOperations:
    """The operations with a clock that the test controls."""
    return RedisOperations(core.store, now_ms=lambda: clock.now_ms)
