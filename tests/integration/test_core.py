"""Each operation keeps its guarantee, on a real Redis."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from twisted.internet import defer, reactor, task

from restmq.core import RedisOperations
from restmq.errors import InvalidInput, LeaseGone, StoreUnavailable
from restmq.model import Message, Metadata, Policy, read_record
from restmq.store.keys import one_redis
from restmq.store.pool import Store
from restmq.store.settings import StoreSettings
from tests.integration.conftest import Clock, Run
from tests.servers import Redis, wait_until

VALUES = [b"007", b"1.10", b" x ", b"1_000", b"", b"\x00", b"\xff\xfe", "ü😀".encode(), b"a\r\nb", os.urandom(1 << 20)]


def test_the_keys_in_redis_are_those_of_the_first_restmq(
    run: Run, core: RedisOperations, redis: Redis, queue: str
) -> None:
    assert run(core.queue_add, queue, b"first") == f"{queue}:1"
    assert run(core.queue_add, queue, b"second") == f"{queue}:2"
    run(core.queue_get, queue, softget=True)
    run(core.queue_policy_set, queue, Policy.ROUNDROBIN)
    run(core.queue_changestatus, queue, False)
    assert redis.command("SISMEMBER", "QUEUESET", queue) == 1
    assert redis.command("GET", f"{queue}:UUID") == "2"
    assert redis.command("GET", f"{queue}:1") == "first"
    assert redis.command("LRANGE", f"{queue}:queue", "0", "-1") == [f"{queue}:2", f"{queue}:1"]
    assert redis.command("GET", f"{queue}:1:refcount") == "1"
    assert redis.command("GET", f"{queue}:queuepolicy") == "2"
    assert redis.command("GET", f"queuestat::{queue}") == "0"


def test_a_queue_written_by_hand_is_served(run: Run, core: RedisOperations, redis: Redis, queue: str) -> None:
    for number, value in enumerate(("old", "data"), 1):
        redis.command("SET", f"{queue}:{number}", value)
        redis.command("LPUSH", f"{queue}:queue", f"{queue}:{number}")
    redis.command("SET", f"{queue}:UUID", "2")
    redis.command("SADD", "QUEUESET", queue)
    assert run(core.queue_len, queue) == 2
    assert run(core.queue_getdel, queue).value == b"old"
    assert run(core.queue_add, queue, b"new") == f"{queue}:3"
    assert [message.value for message in run(core.queue_tail, queue)] == [b"data", b"new"]
    assert queue in run(core.queue_all)


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_bytes_come_back_as_they_went_in(run: Run, core: RedisOperations, queue: str, value: bytes) -> None:
    run(core.queue_add, queue, value)
    assert run(core.queue_get, queue, softget=True).value == value
    assert run(core.queue_getdel, queue).value == value


def test_a_message_that_is_gone_leaves_no_key(run: Run, private_core: RedisOperations, private_redis: Redis) -> None:
    core = private_core
    stays = {"QUEUESET", "q:UUID", "q:totals"}
    keys = run(core.queue_add_many, "q", [b"taken", b"deleted", b"purged", b"looked at"])
    run(core.queue_add, "q", b"with ttl", ttl_seconds=100)
    run(core.queue_get, "q", softget=True)
    run(core.queue_getdel, "q")
    assert run(core.queue_del, "q", keys[1])
    for _ in range(2):
        run(core.queue_get, "q", softget=True)
    run(core.queue_settings_set, "q", {"history": 5})
    run(core.queue_settings_set, "q", {"history": 0})
    assert run(core.queue_purge, "q") == 3
    assert private_redis.keys() == stays


def test_numbers_never_repeat(run: Run, core: RedisOperations, queue: str) -> None:
    run(core.queue_add_many, queue, [b"x"] * 5)
    run(core.queue_purge, queue)
    run(core.queue_getdel, queue)
    assert run(core.queue_add, queue, b"y") == f"{queue}:6"


def test_expired_messages_are_never_returned_or_counted(
    run: Run, core: RedisOperations, redis: Redis, queue: str
) -> None:
    run(core.queue_add_many, queue, [b"soon gone"] * 2500, ttl_seconds=0.001)
    stays = run(core.queue_add, queue, b"stays", ttl_seconds=1000)
    wait_until(lambda: redis.command("EXISTS", f"{queue}:2500") == 0)
    wait_until(lambda: run(core.queue_len, queue) == 1)
    assert run(core.queue_len, queue) == 1
    assert [line.length for line in run(core.queue_overview, [queue])] == [1]
    looked = run(core.queue_get, queue, softget=True)
    assert (looked.key, looked.count) == (stays, 1)
    assert [message.key for message in run(core.queue_tail, queue)] == [stays]
    assert run(core.queue_getdel, queue) is None
    assert run(core.queue_del, queue, f"{queue}:1") is False
    assert redis.command("EXISTS", f"{queue}:expiring", f"{queue}:queue") == 0


def test_peeks_are_counted_until_the_message_is_taken(run: Run, core: RedisOperations, queue: str) -> None:
    run(core.queue_add, queue, b"x")
    assert [run(core.queue_get, queue, softget=True).count for _ in range(3)] == [1, 2, 3]
    assert run(core.queue_get, queue).count == 3
    assert run(core.queue_get, queue, softget=True) is None


def test_adds_of_one_reactor_turn_are_one_call_and_keep_their_order(
    run: Run, private_core: RedisOperations, private_redis: Redis
) -> None:
    core = private_core

    async def at_once() -> Any:
        adds = [defer.ensureDeferred(core.queue_add(f"m{n % 2}", str(n).encode())) for n in range(100)]
        return await defer.gatherResults(adds)

    run(core.queue_add, "warm", b"up")
    before = scripts_run(private_redis)
    keys = run(at_once)
    assert scripts_run(private_redis) - before == 2  # one for each queue
    assert keys == [f"m{n % 2}:{n // 2 + 1}" for n in range(100)]
    assert [int(message.value) for message in run(core.queue_tail, "m1", 100)] == list(range(1, 100, 2))


def test_calls_of_one_reactor_turn_on_many_queues_reach_redis_together(
    run: Run, private_core: RedisOperations, private_redis: Redis
) -> None:
    core = private_core

    async def at_once() -> Any:
        adds = [defer.ensureDeferred(core.queue_add(f"m{n}", b"x")) for n in range(90)]
        return await defer.gatherResults(adds)

    def reads() -> int:
        stats = private_redis.command("INFO", "stats").splitlines()
        return int(next(line for line in stats if line.startswith("total_reads_processed:")).partition(":")[2])

    for n in range(30):  # so that each node of a cluster knows the script
        run(core.queue_add, f"warm{n}", b"up")
    before = reads()
    assert run(at_once) == [f"m{n}:1" for n in range(90)]
    assert reads() - before < 20  # one, and some for what the daemon asks by itself


def test_calls_of_one_reactor_turn_run_in_their_order(run: Run, core: RedisOperations, queue: str) -> None:
    async def at_once() -> Any:
        other = core.queue_getdel(f"{queue}-other")
        added = defer.ensureDeferred(core.queue_add(queue, b"x"))
        taken = core.queue_getdel(queue)
        return await defer.gatherResults([other, added, taken])

    assert run(at_once) == [None, f"{queue}:1", Message(f"{queue}:1", b"x")]


def scripts_run(redis: Redis) -> int:
    stats = redis.command("INFO", "commandstats")
    lines = [line for line in stats.splitlines() if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:"))]
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in lines)


def test_a_script_that_redis_forgot_is_sent_again(run: Run, core: RedisOperations, redis: Redis, queue: str) -> None:
    run(core.queue_add, queue, b"x")
    redis.command("SCRIPT", "FLUSH")
    assert run(core.queue_add, queue, b"y") == f"{queue}:2"


def test_deleting_takes_a_message_from_anywhere_and_only_from_its_queue(
    run: Run, core: RedisOperations, redis: Redis, queue: str
) -> None:
    keys = run(core.queue_add_many, queue, [b"a", b"b", b"c"])
    other = run(core.queue_add, queue + "-other", b"safe")
    assert run(core.queue_del, queue, keys[1]) is True
    assert run(core.queue_del, queue, keys[1]) is False
    assert run(core.queue_del, queue, other) is False
    assert run(core.queue_del, queue, f"{queue}:UUID") is False
    assert redis.command("GET", other) == "safe"
    assert [message.key for message in run(core.queue_tail, queue)] == [keys[0], keys[2]]


def test_an_invalid_name_in_old_data_does_not_hide_the_other_queues(
    run: Run, private_core: RedisOperations, private_redis: Redis
) -> None:
    run(private_core.queue_add, "fine", b"x")
    private_redis.command("SADD", "QUEUESET", "AUTHKEY", "", "a\nb", b"\xff")
    assert run(private_core.queue_all) == ["fine"]


def test_purging_a_large_queue_empties_it_and_completes_an_interrupted_purge(
    run: Run, private_core: RedisOperations, private_redis: Redis
) -> None:
    for _ in range(20):
        run(private_core.queue_add_many, "big", [b"x"] * 1000)
    private_redis.command("SET", "big:left", "behind")
    private_redis.command("LPUSH", "big:queue:purging", "big:left")
    assert run(private_core.queue_purge, "big") == 20_000
    assert private_redis.keys() == {"QUEUESET", "big:UUID"}
    assert run(private_core.queue_purge, "big") == 0


def test_policy_and_status_can_come_before_the_first_message(run: Run, core: RedisOperations, queue: str) -> None:
    assert run(core.queue_policy_get, queue) is Policy.BROADCAST
    assert run(core.queue_status, queue) is True
    run(core.queue_changestatus, queue, False)
    run(core.queue_add, queue, b"x")
    assert run(core.queue_status, queue) is False
    assert run(core.queue_getdel, queue).value == b"x"  # stopped is for connected consumers only
    assert [row.started for row in run(core.queue_overview, [queue, queue + "2"])] == [False, True]


def test_a_lease_that_has_ended_is_not_in_force_even_before_the_message_has_come_back(
    run: Run, timed: RedisOperations, clock: Clock, queue: str
) -> None:
    run(timed.queue_add, queue, b"x")
    (message,) = run(timed.queue_lease, queue, 1, 1000)
    clock.go_on(1)
    for operation, *more in ((timed.queue_ack,), (timed.queue_extend, 1000), (timed.queue_nack,)):
        with pytest.raises(LeaseGone):
            run(operation, message.key, message.receipt, *more)
    assert run(timed.queue_ack_many, queue, [(message.key, message.receipt)] * 2) == [False, False]
    (again,) = run(timed.queue_lease, queue, 1, 1000)
    assert (again.key, again.count) == (message.key, 2)


def test_a_waiter_that_died_is_skipped(run: Run, core: RedisOperations, redis: Redis, queue: str) -> None:
    redis.command("LPUSH", f"{queue}:waiters", "RESTMQ-DAEMON:dead")
    run(core.queue_add, queue, b"x")
    assert redis.command("EXISTS", f"{queue}:waiters") == 0
    assert run(core.queue_len, queue) == 1


def test_tokens(run: Run, core: RedisOperations, redis: Redis, queue: str) -> None:
    run(core.authorization_create, f"t-{queue}", [queue], ["create"])
    record = json.loads(redis.command("GET", f"AUTHKEY:t-{queue}"))
    assert record.pop("created") > 0
    assert record == {"queues": [queue], "privs": ["create"]}
    rights = run(core.authorization, f"t-{queue}")
    assert (rights.covers(queue), rights.covers("other")) == (True, False)
    assert run(core.authorization, "unknown") is None
    assert run(core.authorization_revoke, f"t-{queue}") is True
    assert run(core.authorization, f"t-{queue}") is None


@pytest.mark.parametrize("name", ["", "AUTHKEY:x", "queuestat::x", "a\nb", "x" * 256])
def test_every_operation_rejects_an_invalid_queue_name(run: Run, core: RedisOperations, name: str) -> None:
    for operation in (
        lambda: core.queue_add(name, b""),
        lambda: core.queue_add(name, b"", 1),
        lambda: core.queue_getdel(name),
        lambda: core.queue_purge(name),
        lambda: core.queue_policy_get(name),
        lambda: core.queue_status(name),
    ):
        with pytest.raises(InvalidInput):
            run(operation)


def test_without_redis_calls_fail_at_once_and_work_again_when_it_is_back(
    run: Run, private_core: RedisOperations, private_redis: Redis
) -> None:
    run(private_core.queue_add, "q", b"before")
    private_redis.kill()
    wait_until(lambda: not private_core.store.connected)
    with pytest.raises(StoreUnavailable):
        run(private_core.queue_add, "q", b"lost")
    private_redis.start()
    wait_until(lambda: private_core.store.connected)
    assert run(private_core.queue_add, "q", b"after") == "q:2"
    assert [message.value for message in run(private_core.queue_tail, "q")] == [b"before", b"after"]


def test_a_call_to_a_redis_that_hangs_times_out(run: Run, private_core: RedisOperations, private_redis: Redis) -> None:
    private_redis.pause()
    with pytest.raises(StoreUnavailable):
        run(private_core.queue_add, "q", b"x")
    private_redis.go_on()
    wait_until(lambda: private_core.store.connected)
    run(private_core.queue_purge, "q")  # whether it ran is not known
    assert run(private_core.queue_len, "q") == 0


def test_an_expired_message_of_old_data_is_skipped(run: Run, core: RedisOperations, redis: Redis, queue: str) -> None:
    for number in (1, 2, 3):
        redis.command("SET", f"{queue}:{number}", str(number))
        redis.command("LPUSH", f"{queue}:queue", f"{queue}:{number}")
    redis.command("PEXPIRE", f"{queue}:1", "1")
    redis.command("PEXPIRE", f"{queue}:3", "1")
    wait_until(lambda: redis.command("EXISTS", f"{queue}:1", f"{queue}:3") == 0)
    assert [seen.beginning for seen in run(core.queue_peek, queue, "newest").messages] == [b"2"]
    assert run(core.queue_get, queue, softget=True).value == b"2"
    assert [message.value for message in run(core.queue_tail, queue)] == [b"2"]
    assert redis.command("KEYS", f"{queue}:[0-9]*") == []


def test_messages_that_a_daemon_puts_back_are_the_next_in_order(run: Run, core: RedisOperations, queue: str) -> None:
    run(core.queue_policy_set, queue, Policy.ROUNDROBIN)
    run(core.queue_add_many, queue, [b"1", b"2"], ttl_seconds=1000)
    run(core.queue_add_many, queue, [b"3"])
    attend = functools.partial(core.queue_attend, weight=1, capacity=2)
    given_out = run(attend, queue, core.layout.daemon_channel("test", queue)).messages
    assert [message.value for message in given_out] == [b"1", b"2"]
    assert run(core.queue_len, queue) == 1
    run(core.queue_put_back, queue, given_out)
    assert run(core.queue_tail, queue) == [*given_out, Message(f"{queue}:3", b"3")]


@pytest.mark.parametrize("lease_ms", [None, 60_000])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_messages_put_back_by_several_calls_are_in_order_again(
    run: Run, core: RedisOperations, queue: str, order: tuple[int, ...], lease_ms: int | None
) -> None:
    run(core.queue_add_many, queue, [b"1", b"2", b"3", b"4", b"5"])
    if lease_ms:
        shares = [run(core.queue_lease, queue, count, lease_ms) for count in (1, 2, 1)]
    else:
        shares = [run(core.queue_tail, queue, count) for count in (1, 2, 1)]
    for share in order:
        run(core.queue_put_back, queue, shares[share])
    assert [message.value for message in run(core.queue_tail, queue)] == [b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize("turns", [(3,), (1, 1, 1)], ids=["together", "one by one"])
def test_leases_and_acks_of_one_message_leave_the_same_in_redis_as_those_of_several(
    run: Run, timed: RedisOperations, clock: Clock, redis: Redis, queue: str, turns: tuple[int, ...]
) -> None:
    """Those of one have a short way (``lua/_lease_one.lua``, ``lua/_ack_one.lua``)."""
    run(timed.queue_add, queue, b"returned")
    returned = run(timed.queue_lease, queue, 1, 1000)
    run(timed.queue_nack, returned[0].key, returned[0].receipt)
    run(timed.queue_add_many, queue, [b"with a header"], metadata=Metadata(headers={"x-a": "b"}))
    redis.command("RPUSH", f"{queue}-list", "somebody else's")
    redis.command("LPUSH", f"{queue}:queue", f"{queue}:missing", f"{queue}-list")
    run(timed.queue_add, queue, b"plain")
    first_ms = clock.now_ms
    clock.go_on(1)
    found = [message for count in turns for message in run(timed.queue_lease, queue, count, 60_000)]
    keys = [message.key for message in found]
    assert [(message.value, message.count) for message in found] == [
        (b"returned", 2),
        (b"with a header", 1),
        (b"plain", 1),
    ]
    assert [read_record(message.record)["first"] for message in found] == [first_ms, clock.now_ms, clock.now_ms]
    assert {message.key: message.receipt for message in found} == hash_of(redis, f"{queue}:receipts")
    assert {message.key: message.record.decode() for message in found} == hash_of(redis, f"{queue}:deliveries")
    assert redis.command("ZRANGE", f"{queue}:leased", "0", "-1") == sorted(keys)
    assert {int(redis.command("ZSCORE", f"{queue}:leased", key)) for key in keys} == {clock.now_ms + 60_000}
    assert run(timed.queue_lease, queue, 1, 60_000) == []
    leases, acked = iter((message.key, message.receipt) for message in found), []
    for count in turns:
        acked += run(timed.queue_ack_many, queue, [*itertools.islice(leases, count)])
    assert acked == [True] * 3
    assert run(timed.queue_ack_many, queue, [(found[0].key, found[0].receipt)]) == [False]
    assert set(redis.command("KEYS", f"{queue}*")) == {f"{queue}:{rest}" for rest in ("UUID", "totals", "times")} | {
        f"{queue}-list"
    }
    assert hash_of(redis, f"{queue}:totals") == {
        "leased": "4", "redelivered": "1", "out": "3", "acked": "3", "expired": "2"
    }  # fmt: skip


def hash_of(redis: Redis, key: str) -> dict[str, str]:
    flat = redis.command("HGETALL", key)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def test_messages_put_back_in_one_turn_are_one_call(
    run: Run, private_core: RedisOperations, private_redis: Redis
) -> None:
    run(private_core.queue_add_many, "q", [b"%d" % number for number in range(100)])
    taken = run(private_core.queue_tail, "q", 100)

    async def all_at_once() -> None:
        await defer.gatherResults(
            defer.ensureDeferred(private_core.queue_put_back("q", [message])) for message in reversed(taken)
        )

    private_redis.command("CONFIG", "RESETSTAT")
    run(all_at_once)
    stats = private_redis.command("INFO", "commandstats")
    calls, failed = (int(re.search(rf"evalsha:.*\b{what}=(\d+)", stats)[1]) for what in ("calls", "failed_calls"))
    assert calls - failed == 1  # it fails first if this Redis does not know the script yet
    assert run(private_core.queue_tail, "q", 100) == taken


def test_messages_put_back_out_of_order_find_their_places(run: Run, core: RedisOperations, queue: str) -> None:
    run(core.queue_add_many, queue, [b"1", b"2", b"3", b"4", b"5", b"6"])
    taken = run(core.queue_tail, queue, 5)
    run(core.queue_put_back, queue, taken[1::2])
    run(core.queue_put_back, queue, taken[0::2])
    assert [message.value for message in run(core.queue_tail, queue)] == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_messages_put_back_go_before_newer_ones_and_expired_ones_are_dropped(
    run: Run, core: RedisOperations, redis: Redis, queue: str
) -> None:
    run(core.queue_add_many, queue, [b"1"])
    run(core.queue_add_many, queue, [b"2"], ttl_seconds=0.001)
    run(core.queue_add_many, queue, [b"3", b"4"])
    wait_until(lambda: redis.command("EXISTS", f"{queue}:2") == 0)
    taken = run(core.queue_tail, queue, 2)
    assert [message.value for message in taken] == [b"1", b"3"]
    run(core.queue_put_back, queue, taken[:1])
    redis.command("RPUSH", f"{queue}:queue", f"{queue}:2")
    run(core.queue_put_back, queue, taken[1:])
    assert [message.value for message in run(core.queue_tail, queue)] == [b"1", b"3", b"4"]


def test_tokens_are_listed_even_if_a_record_is_invalid(
    run: Run, private_core: RedisOperations, private_redis: Redis
) -> None:
    run(private_core.authorization_create, "good", ["a", "b-*"], ["read"])
    for number, record in enumerate(("", "no json", "[]", '{"queues": []}', '{"queues": "a", "privs": []}')):
        private_redis.command("SET", f"AUTHKEY:broken-{number}", record)

    async def listed() -> dict[str, Any]:
        return {token: record async for token, record in private_core.authorizations()}

    records = run(listed)
    good = records.pop("good")
    assert (good.queues, good.privileges) == (("a", "b-*"), frozenset(["read"]))
    assert records == {f"broken-{number}": None for number in range(5)}


@pytest.fixture
def locked_redis(private_redis: Redis) -> Redis:
    """A Redis with a password, and with a user who has another password."""
    private_redis.commands(
        [
            ("ACL", "SETUSER", "alice", "on", ">alices", "~*", "&*", "+@all"),
            ("CONFIG", "SET", "requirepass", "secret"),
        ]
    )
    return private_redis


def with_store(run: Run, store_settings: StoreSettings, work: Callable[[RedisOperations], Awaitable[Any]]) -> Any:
    async def there_and_back() -> Any:
        store = Store(store_settings, reactor)
        store.startService()
        try:
            return await work(RedisOperations(store))
        finally:
            await store.stopService()

    return run(there_and_back)


async def add_when_connected(core: RedisOperations) -> str:
    await core.store.first_connected
    return await core.queue_add("q", b"x")


@pytest.mark.parametrize(("username", "password"), [(None, "secret"), ("alice", "alices"), ("default", "secret")])
def test_redis_may_require_a_password(run: Run, locked_redis: Redis, username: str | None, password: str) -> None:
    where = StoreSettings(socket_path=locked_redis.socket_path, username=username, password=password)
    assert with_store(run, where, add_when_connected) == "q:1"


def test_without_its_password_redis_is_not_used(run: Run, locked_redis: Redis) -> None:
    async def add(core: RedisOperations) -> str:
        while not core.store.reason:
            await task.deferLater(reactor, 0.01)
        assert "requires a password" in core.store.reason
        return await core.queue_add("q", b"x")

    with pytest.raises(StoreUnavailable):
        with_store(run, StoreSettings(socket_path=locked_redis.socket_path), add)


@pytest.mark.parametrize(("username", "password"), [(None, "wrong"), ("alice", "secret"), ("nobody", "secret")])
def test_with_a_wrong_password_the_store_is_unavailable(
    run: Run, locked_redis: Redis, username: str | None, password: str
) -> None:
    store = Store(
        StoreSettings(socket_path=locked_redis.socket_path, username=username, password=password, pool=1), reactor
    )

    async def start() -> None:
        store.startService()

    async def stop() -> None:
        await store.stopService()

    run(start)
    try:
        wait_until(lambda: locked_redis.commands([("AUTH", "secret"), ("ACL", "LOG")])[1], why="Redis refuses it")
        with pytest.raises(StoreUnavailable):
            run(RedisOperations(store).queue_add, "q", b"x")
    finally:
        run(stop)


def test_data_is_kept_apart_by_database_number(run: Run, private_redis: Redis) -> None:
    for db in (0, 1):
        where = StoreSettings(socket_path=private_redis.socket_path, db=db)
        assert with_store(run, where, add_when_connected) == "q:1"


def test_two_databases_of_one_redis_do_not_share_channels(
    run: Run, private_core: RedisOperations, private_redis: Redis
) -> None:
    heard: list[bytes] = []
    other = private_core.pubsub(lambda _channel, payload: heard.append(payload))

    async def listen() -> None:
        await other.subscribe(one_redis(1).for_queue("q").channel)

    run(listen)
    run(private_core.queue_add, "q", b"for database 0")
    assert run(private_core.queue_len, "q") == 1
    assert heard == []


def test_a_channel_that_is_left_and_followed_again_before_redis_answers_is_not_lost(
    run: Run, core: RedisOperations, queue: str
) -> None:
    heard: list[bytes] = []
    lost: list[bytes] = []
    channel = core.layout.for_queue(queue).channel
    subscriber = core.pubsub(lambda _channel, payload: heard.append(payload), on_lost=lost.extend)

    async def follow() -> list[bool]:
        await subscriber.subscribe(channel)
        confirmed = []
        for _ in range(3):
            subscriber.unsubscribe(channel)
            confirmed.append(subscriber.subscribe(channel))
        await confirmed[-1]
        return [each.called for each in confirmed]

    assert run(follow) == [False, False, True]  # those before were given up
    run(core.queue_attend, queue, b"daemon", is_first=True)
    wait_until(lambda: heard)
    assert lost == []


def test_adding_no_messages_creates_no_queue_and_the_order_of_adds_is_kept(
    run: Run, core: RedisOperations, redis: Redis, queue: str
) -> None:
    assert run(core.queue_add_many, queue, []) == []
    assert redis.command("SISMEMBER", "QUEUESET", queue) == 0
    with pytest.raises(InvalidInput):
        run(core.queue_add, queue, b"x", -1)

    async def both() -> Any:
        plain = defer.ensureDeferred(core.queue_add(queue, b"first"))
        return [await core.queue_add(queue, b"second", 100), await plain]

    assert run(both) == [f"{queue}:2", f"{queue}:1"]
