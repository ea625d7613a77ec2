"""A queue's history, as daemons read it for consumers that reconnect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet import defer

from restmq.core import RedisOperations
from restmq.queues.results import ReplayPage
from restmq.store.keys import one_redis
from tests.integration.conftest import Run
from tests.servers import Redis, wait_until


@pytest.fixture
def heard(run: Run, core: RedisOperations, queue: str) -> Iterator[list[bytes]]:
    """The messages on the queue's channel, in order: keys of messages, and markers. Confirms each round at once."""
    payloads: list[bytes] = []

    def receive(_channel: bytes, payload: bytes) -> None:
        kind, *words = payload.partition(b"\n")[0].split(b" ")
        if kind == b"sync":
            defer.ensureDeferred(core.queue_confirm(queue, int(words[0]), 1 << 20, b"RESTMQ-DAEMON:test"))
        else:
            payloads.append(words[1] if kind == b"stored" else words[0])

    subscriber = core.pubsub(receive)

    async def listen() -> None:
        await subscriber.subscribe(one_redis().for_queue(queue).channel)

    async def stop() -> None:
        await core.store.drop(subscriber)

    run(listen)
    yield payloads
    run(stop)


def add(run: Run, core: RedisOperations, queue: str, values: list[bytes]) -> list[str]:
    """Adds messages and waits until all are broadcast. Returns their keys."""
    keys: list[str] = run(core.queue_add_many, queue, values)
    wait_until(lambda: run(core.queue_len, queue) == 0)
    return keys


def pages(
    run: Run, core: RedisOperations, queue: str, after: str, between: Callable[[], Any] = lambda: None, **options: Any
) -> list[ReplayPage]:
    """All pages from there to the end of the history."""
    found = [run(core.queue_replay, queue, after, "marker", **options)]
    while found[-1].more:
        between()
        found.append(run(core.queue_replay, queue, found[-1].last_key, "marker", continues=True, **options))
    return found


def keys_of(found: list[ReplayPage]) -> list[str]:
    return [message.key for page in found for message in page.messages]


def test_a_history_is_read_in_pages_of_a_limited_size(
    run: Run, core: RedisOperations, queue: str, heard: list[bytes]
) -> None:
    run(core.queue_settings_set, queue, {"history": 10_000})
    keys = add(run, core, queue, [b"x" * 1000] * 100)
    found = pages(run, core, queue, keys[9], page_bytes=10_000)
    assert [len(page.messages) for page in found] == [10] * 9
    assert keys_of(found) == keys[10:]
    for _ in range(3):
        keys += add(run, core, queue, [b"y"] * 1000)
    assert [len(page.messages) for page in pages(run, core, queue, keys[0])] == [1000, 1000, 1000, 99]


def test_pages_and_channel_have_neither_gap_nor_repeat_while_messages_arrive(
    run: Run, core: RedisOperations, queue: str, heard: list[bytes]
) -> None:
    run(core.queue_settings_set, queue, {"history": 1000})
    run(core.queue_add_many, queue, [b"x" * 100] * 50)
    found = pages(
        run, core, queue, f"{queue}:1", lambda: run(core.queue_add_many, queue, [b"x" * 100] * 2), page_bytes=500
    )
    run(core.queue_add_many, queue, [b"y"] * 3)
    wait_until(lambda: len(heard) == run(core.queue_stats, queue).totals["in"] + 1)
    assert heard.count(b"marker") == 1  # only the last page publishes it
    live = [key.decode() for key in heard[heard.index(b"marker") + 1 :]]
    total = run(core.queue_stats, queue).totals["in"]
    assert not any(page.gap for page in found)
    assert keys_of(found) + live == [f"{queue}:{number}" for number in range(2, total + 1)]


def test_a_reader_that_falls_behind_the_history_gets_a_gap(
    run: Run, core: RedisOperations, queue: str, heard: list[bytes]
) -> None:
    run(core.queue_settings_set, queue, {"history": 10})
    run(core.queue_add_many, queue, [b"x" * 100] * 10)
    first = run(core.queue_replay, queue, f"{queue}:1", "marker", page_bytes=200)
    assert (first.gap, first.more, first.last_key) == (False, True, f"{queue}:3")
    run(core.queue_add_many, queue, [b"y"] * 8)
    rest = run(core.queue_replay, queue, first.last_key, "marker", continues=True)
    assert (rest.gap, keys_of([rest])) == (True, [f"{queue}:{number}" for number in range(9, 19)])
    run(core.queue_settings_set, queue, {"history": 0})
    switched_off = run(core.queue_replay, queue, first.last_key, "marker", continues=True)
    assert (switched_off.kept, switched_off.gap, switched_off.more) == (False, True, False)
    assert run(core.queue_replay, queue, first.last_key, "marker").gap is False


@pytest.mark.parametrize(
    ("after", "repeats"), [(6, False), (9, False), (500, True)], ids=["undone", "several undone", "numbers began again"]
)
def test_a_reader_of_a_message_that_a_failover_undid_gets_a_gap_and_no_repeats(
    run: Run, core: RedisOperations, queue: str, heard: list[bytes], after: int, repeats: bool
) -> None:
    run(core.queue_settings_set, queue, {"history": 10})
    keys = add(run, core, queue, [b"x"] * 5)
    page = run(core.queue_replay, queue, f"{queue}:{after}", "marker")
    assert (page.gap, page.last_key, keys_of([page])) == (True, keys[-1], keys if repeats else [])


def test_the_history_keeps_at_most_history_bytes(
    run: Run, core: RedisOperations, redis: Redis, queue: str, heard: list[bytes]
) -> None:
    run(core.queue_settings_set, queue, {"history": 1000, "history_bytes": 10_000})
    keys = run(core.queue_add_many, queue, [b"x" * 998] * 50)
    kept = redis.command("LRANGE", f"{queue}:history", "0", "-1")
    assert kept == keys[-len(kept) :]
    assert 8 <= len(kept) <= 10
    run(core.queue_settings_set, queue, {"history_bytes": 3500})
    assert redis.command("LRANGE", f"{queue}:history", "0", "-1") == keys[-3:]
    large = run(core.queue_add, queue, b"x" * 4000)
    assert redis.command("EXISTS", f"{queue}:history", f"{queue}:historyvalues") == 0
    (page,) = pages(run, core, queue, large)
    assert (page.kept, page.gap, page.messages) == (True, True, [])


def test_a_history_without_a_set_limit_has_the_default_limit_in_bytes(
    run: Run, core: RedisOperations, redis: Redis, queue: str, heard: list[bytes]
) -> None:
    run(core.queue_settings_set, queue, {"history": 1000})
    for _ in range(10):
        add(run, core, queue, [b"x" * 10_000_000])
    assert redis.command("LLEN", f"{queue}:history") in (5, 6)
    run(core.queue_purge, queue)


def test_a_history_of_an_older_version_is_measured(
    run: Run, core: RedisOperations, redis: Redis, queue: str, heard: list[bytes]
) -> None:
    run(core.queue_settings_set, queue, {"history": 1000, "history_bytes": 10_000})
    keys = run(core.queue_add_many, queue, [b"x" * 998] * 10)
    redis.command("HDEL", f"{queue}:historyvalues", "bytes")
    keys.append(run(core.queue_add, queue, b"x" * 998))
    kept = redis.command("LRANGE", f"{queue}:history", "0", "-1")
    assert (len(kept), kept) == (8, keys[-8:])


def test_expired_messages_end_no_page_early(
    run: Run, core: RedisOperations, redis: Redis, queue: str, heard: list[bytes]
) -> None:
    run(core.queue_settings_set, queue, {"history": 10_000})
    first = run(core.queue_add, queue, b"first")
    for _ in range(2):
        run(core.queue_add_many, queue, [b"gone"] * 400, ttl_seconds=0.001)  # within the window of flow control
    (last,) = run(core.queue_add_many, queue, [b"last"], ttl_seconds=3600)
    wait_until(lambda: keys_of(pages(run, core, queue, first)) == [last])


def test_a_page_has_few_large_messages(run: Run, core: RedisOperations, queue: str, heard: list[bytes]) -> None:
    run(core.queue_settings_set, queue, {"history": 100})
    keys = [key for _ in range(20) for key in add(run, core, queue, [b"x" * 1_000_000])]
    found = pages(run, core, queue, keys[0])
    assert keys_of(found) == keys[1:]
    assert max(len(page.messages) for page in found) == 2
    run(core.queue_purge, queue)
