"""Daemons are told when a deadline is nearer than all others, so none of them has to look in the meantime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from restmq.core import RedisOperations
from restmq.model import Message
from restmq.queues.sqs import Handle
from restmq.store.keys import one_redis
from tests.integration.conftest import Clock, Run
from tests.servers import Redis, wait_until


@pytest.fixture
def alone(private_core: RedisOperations, clock: Clock) -> RedisOperations:
    """The operations on a Redis that has no other queues, with a clock that the test controls."""
    return RedisOperations(private_core.store, now_ms=lambda: clock.now_ms)


@pytest.fixture
def told(run: Run, alone: RedisOperations) -> Iterator[list[int]]:
    """The deadlines that daemons were told, each as the seconds until it."""
    found: list[int] = []
    subscriber = alone.pubsub(lambda _, payload: found.append(int(payload) // 1000))

    async def listen() -> None:
        await subscriber.subscribe(one_redis().due_channel())

    async def stop() -> None:
        await alone.store.drop(subscriber)

    run(listen)
    yield found
    run(stop)


def lease(run: Run, core: RedisOperations, queue: str, seconds: int, count: int = 1) -> Message:
    run(core.queue_add_many, queue, [b"x"] * count)
    messages: list[Message] = run(core.queue_lease, queue, count, seconds * 1000)
    return messages[0]


@pytest.mark.parametrize("suffix", ["", ".fifo"])
def test_only_a_deadline_that_is_nearer_than_all_others_is_told(
    run: Run, alone: RedisOperations, private_redis: Redis, clock: Clock, told: list[int], suffix: str
) -> None:
    queues = [f"q{number}{suffix}" for number in range(7)]
    if suffix:
        for queue in queues:
            run(alone.sqs_create, queue, {"FifoQueue": "true"}, {}, {})
    run(alone.queue_add_many, queues[0], [b"x"], delay_seconds=9000)
    run(alone.queue_add_many, queues[0], [b"x"], delay_seconds=9500)
    run(alone.queue_add_many, queues[1], [b"x"], delay_seconds=9900)
    run(alone.queue_add_many, queues[1], [b"x"], delay_seconds=8000)
    first = lease(run, alone, queues[2], 7000)
    lease(run, alone, queues[3], 6000, count=2)
    run(alone.queue_extend, first.key, first.receipt, 5_000_000)
    failed = lease(run, alone, queues[4], 9999)
    run(alone.queue_nack, failed.key, failed.receipt, 4_000_000)
    changed = lease(run, alone, queues[5], 9999)
    assert run(alone.sqs_change_visibility, queues[5], [(Handle.of(changed), 3000)]) == ["changed"]
    run(alone.queue_add_many, queues[6], [b"x"], delay_seconds=2000)
    assert int(private_redis.command("ZSCORE", "QUEUEDUE", queues[0])) == clock.now_ms + 9_000_000
    expected = [9000, 8000, 7000, 6000, 5000, 4000, 3000, 2000]
    if not suffix:  # in a FIFO queue, the group waits for its delayed messages
        lease(run, alone, queues[0], 1500, count=2)
        lease(run, alone, queues[1], 1000)
        expected += [1500, 1000]
    wait_until(lambda: told[-1:] == expected[-1:])
    assert told == expected
