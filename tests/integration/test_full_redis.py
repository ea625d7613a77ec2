"""Redis has no memory left (``maxmemory-policy noeviction``): only what needs more memory is refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from restmq.core import RedisOperations
from restmq.errors import StoreRefused
from restmq.model import Message, Policy
from restmq.store.keys import one_redis
from tests.integration.conftest import Run, operations
from tests.servers import Redis, valkey_program, wait_until

DAEMON = b"RESTMQ-DAEMON:test"


@pytest.fixture(params=["redis-server", "valkey-server"])
def server(request: pytest.FixtureRequest, private_folder: Path) -> Iterator[Redis]:
    program = valkey_program() if request.param == "valkey-server" else shutil.which(request.param)
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    redis = Redis(private_folder / "redis", program=program)
    yield redis
    redis.stop()


@pytest.fixture
def core(run: Run, server: Redis) -> Iterator[RedisOperations]:
    yield from operations(run, server)


def fill(server: Redis) -> None:
    server.command("CONFIG", "SET", "maxmemory", "1")


def values(messages: list[Message]) -> list[bytes]:
    return [message.value for message in messages]


def add_refused(run: Run, core: RedisOperations, queue: str) -> None:
    with pytest.raises(StoreRefused, match="OOM"):
        run(core.queue_add, queue, b"more")


def test_messages_leave_a_full_redis_by_every_way(run: Run, core: RedisOperations, server: Redis) -> None:
    keys = run(core.queue_add_many, "q", [b"%d" % number for number in range(10)])
    fill(server)
    assert run(core.queue_getdel, "q").value == b"0"
    assert values(run(core.queue_tail, "q", 2, DAEMON)) == [b"1", b"2"]
    leased = run(core.queue_lease, "q", 2, 60_000, DAEMON)
    assert values(leased) == [b"3", b"4"]
    run(core.queue_ack, leased[0].key, leased[0].receipt)
    run(core.queue_nack, leased[1].key, leased[1].receipt)
    assert run(core.queue_get, "q", softget=True).value == b"4"
    assert run(core.queue_del, "q", keys[5])
    add_refused(run, core, "q")
    assert run(core.queue_purge, "q") == 5
    add_refused(run, core, "q")
    server.command("CONFIG", "SET", "maxmemory", "0")
    assert run(core.queue_add, "q", b"more") == "q:11"  # nothing was half done


def test_leases_are_extended_and_messages_put_back_in_a_full_redis(
    run: Run, core: RedisOperations, server: Redis
) -> None:
    run(core.queue_add_many, "q", [b"1", b"2", b"3"])
    leased = run(core.queue_lease, "q", 1, 1000)
    taken = run(core.queue_tail, "q", 1)
    fill(server)
    run(core.queue_extend, leased[0].key, leased[0].receipt, 60_000)
    assert run(core.queue_lease_remaining, "q", [(leased[0].key, leased[0].receipt)])[0] > 30
    run(core.queue_put_back, "q", taken)
    run(core.queue_put_back, "q", leased)
    assert values(run(core.queue_tail, "q", 5)) == [b"1", b"2", b"3"]


def test_due_messages_come_up_in_a_full_redis(run: Run, core: RedisOperations, server: Redis) -> None:
    run(core.queue_add_many, "q", [b"delayed"], delay_seconds=0.05)
    run(core.queue_add_many, "r", [b"leased"])
    run(core.queue_lease, "r", 1, 50)
    fill(server)
    for queue, value in (("q", b"delayed"), ("r", b"leased")):
        message: Any = wait_until(lambda queue=queue: run(core.queue_getdel, queue))
        assert message.value == value


@pytest.mark.parametrize("lease_ms", [0, 60_000])
def test_live_consumers_are_served_in_turn_from_a_full_redis(
    run: Run, core: RedisOperations, server: Redis, lease_ms: int
) -> None:
    run(core.queue_policy_set, "q", Policy.ROUNDROBIN)
    run(core.queue_add_many, "q", [b"1", b"2"])
    fill(server)
    assert values(run(core.queue_attend, "q", DAEMON, weight=1, capacity=1, lease_ms=lease_ms).messages) == [b"1"]
    assert values(run(core.queue_attend, "q", DAEMON, weight=1, capacity=5, lease_ms=lease_ms).messages) == [b"2"]


def test_a_backlog_is_broadcast_from_a_full_redis(run: Run, core: RedisOperations, server: Redis) -> None:
    heard: list[bytes] = []
    subscriber = core.pubsub(lambda _channel, payload: heard.append(payload))

    async def listen() -> None:
        await subscriber.subscribe(one_redis().for_queue("q").channel)

    run(core.queue_settings_set, "q", {"history": 10})
    run(core.queue_add_many, "q", [b"1", b"2"])
    run(listen)
    fill(server)
    run(core.queue_attend, "q", DAEMON, weight=1, capacity=10, window_bytes=1 << 20)
    wait_until(lambda: heard[:2] == [b"message q:1\n1", b"message q:2\n2"])


def test_a_full_redis_lets_operators_act(run: Run, core: RedisOperations, server: Redis) -> None:
    run(core.queue_add_many, "q", [b"1"])
    fill(server)
    run(core.queue_changestatus, "q", False)
    assert run(core.queue_status, "q") is False
    run(core.queue_changestatus, "q", True)
    run(core.queue_settings_set, "q", {"max_length": 5, "history": 1})
    assert run(core.queue_settings_get, "q") == {"max_length": 5, "history": 1}
    run(core.queue_policy_set, "q", Policy.ROUNDROBIN)
    assert run(core.queue_policy_get, "q") is Policy.ROUNDROBIN
    run(core.queue_unregister_waiter, "q", DAEMON)
    run(core.queue_postpone, "q")


def test_dead_letters_move_and_go_in_a_full_redis(run: Run, core: RedisOperations, server: Redis) -> None:
    run(core.queue_settings_set, "q", {"max_deliveries": 1})
    run(core.queue_add_many, "q", [b"1", b"2", b"3"])
    leased = run(core.queue_lease, "q", 3, 60_000)
    fill(server)
    run(core.queue_release, "q", [(message.key, message.receipt) for message in leased])
    assert run(core.queue_list_dead, "q")[0] == 3
    assert run(core.queue_redrive, "q", leased[0].key) == 1
    assert run(core.queue_drop_dead, "q", leased[1].key) == 1
    run(core.queue_settings_set, "q", {"dead_letter": "grave"})
    run(core.queue_promote, "q")
    assert values(run(core.queue_tail, "grave", 5)) == [b"3"]
    assert values(run(core.queue_tail, "q", 5)) == [b"1"]
