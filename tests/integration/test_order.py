"""Messages that come back keep the order in which they were delivered, whatever brings them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from restmq.core import RedisOperations
from restmq.model import Message, Policy
from tests.integration.conftest import Clock, Run
from tests.servers import Redis

LEASE_MS = 60_000


def delayed(run: Run, core: RedisOperations, clock: Clock, queue: str) -> None:
    """Six messages that come up against the order of their numbers, amid others."""
    for number, seconds in enumerate((1.5, 0.5, 2.5, 0, 0.2, 1.0)):
        run(core.queue_add_many, queue, [b"%d" % number], delay_seconds=seconds)
    for _ in range(5):
        clock.go_on(0.5)
        run(core.queue_promote, queue)


def redriven(run: Run, core: RedisOperations, clock: Clock, queue: str) -> None:
    """Dead letters that did not die in the order of their numbers, redriven behind a message that waits."""
    run(core.queue_settings_set, queue, {"max_deliveries": 1})
    run(core.queue_add_many, queue, [b"0", b"1", b"2", b"3"])
    leased = run(core.queue_lease, queue, 4, LEASE_MS)
    for index in (2, 0, 3, 1):
        run(core.queue_nack, leased[index].key, leased[index].receipt)
        clock.go_on(0.001)
    run(core.queue_settings_set, queue, {"max_deliveries": 0})
    run(core.queue_add, queue, b"4")
    run(core.queue_redrive, queue, leased[3].key)
    run(core.queue_redrive, queue)


def lease_ends(run: Run, core: RedisOperations, clock: Clock, queue: str, leased: list[Message]) -> None:
    clock.go_on(LEASE_MS / 1000)


def nack_in_turn(run: Run, core: RedisOperations, clock: Clock, queue: str, leased: list[Message]) -> None:
    for message in leased:
        run(core.queue_nack, message.key, message.receipt)


def nack_backwards(run: Run, core: RedisOperations, clock: Clock, queue: str, leased: list[Message]) -> None:
    nack_in_turn(run, core, clock, queue, leased[::-1])


def consumer_goes(run: Run, core: RedisOperations, clock: Clock, queue: str, leased: list[Message]) -> None:
    run(core.queue_release, queue, [(message.key, message.receipt) for message in leased[::-1]])


def client_is_gone(run: Run, core: RedisOperations, clock: Clock, queue: str, leased: list[Message]) -> None:
    for message in (*leased[1::2], *leased[0::2]):
        run(core.queue_put_back, queue, [message])


def some_by_nack_and_some_by_time(
    run: Run, core: RedisOperations, clock: Clock, queue: str, leased: list[Message]
) -> None:
    for message in leased[::2]:
        run(core.queue_nack, message.key, message.receipt)
    clock.go_on(LEASE_MS / 1000)


Comes = Callable[[Run, RedisOperations, Clock, str], None]
Returns = Callable[[Run, RedisOperations, Clock, str, list[Message]], None]
RETURNS = [lease_ends, nack_in_turn, nack_backwards, consumer_goes, client_is_gone, some_by_nack_and_some_by_time]


@pytest.mark.parametrize("returns", RETURNS)
@pytest.mark.parametrize("comes", [delayed, redriven])
def test_messages_leased_together_return_in_the_order_of_delivery(
    run: Run, timed: RedisOperations, clock: Clock, queue: str, comes: Comes, returns: Returns
) -> None:
    comes(run, timed, clock, queue)
    run(timed.queue_add, queue, b"last")
    first = run(timed.queue_lease, queue, 6 if comes is delayed else 5, LEASE_MS)
    delivered = [message.value for message in first]
    assert delivered != sorted(delivered)
    for _ in range(2):
        returns(run, timed, clock, queue, first)
        first = run(timed.queue_lease, queue, len(first), LEASE_MS)
        assert [message.value for message in first] == delivered
    returns(run, timed, clock, queue, first)
    assert [message.value for message in run(timed.queue_tail, queue, 10)] == [*delivered, b"last"]


def test_messages_taken_for_a_disconnected_client_return_in_order(
    run: Run, timed: RedisOperations, clock: Clock, queue: str
) -> None:
    delayed(run, timed, clock, queue)
    taken = run(timed.queue_tail, queue, 6)
    for message in taken[::-1]:
        run(timed.queue_put_back, queue, [message])
    assert [message.value for message in run(timed.queue_tail, queue, 6)] == [message.value for message in taken]


def test_messages_of_consumers_served_in_turn_return_in_order(
    run: Run, timed: RedisOperations, clock: Clock, queue: str
) -> None:
    run(timed.queue_policy_set, queue, Policy.ROUNDROBIN)
    delayed(run, timed, clock, queue)
    options = {"weight": 1, "capacity": 2, "lease_ms": LEASE_MS}
    shares = [run(timed.queue_attend, queue, b"RESTMQ-DAEMON:%d" % n, **options).messages for n in range(3)]
    delivered = [message.value for share in shares for message in share]
    for share in (shares[1], shares[2], shares[0]):
        run(timed.queue_release, queue, [(message.key, message.receipt) for message in share])
    assert [message.value for message in run(timed.queue_tail, queue, 6)] == delivered


def test_a_thousand_nacks_one_by_one_keep_the_order(run: Run, core: RedisOperations, queue: str) -> None:
    numbers = [b"%d" % number for number in range(1000)]
    run(core.queue_add_many, queue, numbers)
    nack_in_turn(run, core, Clock(), queue, run(core.queue_lease, queue, 1000, LEASE_MS))
    assert [message.value for message in run(core.queue_tail, queue, 1000)] == numbers


def test_the_search_for_the_place_of_a_message_is_bounded(run: Run, core: RedisOperations, queue: str) -> None:
    for start in range(0, 3000, 1000):
        run(core.queue_add_many, queue, [b"%d" % number for number in range(start, start + 1000)])
    taken = [message for _ in range(3) for message in run(core.queue_tail, queue, 1000)]
    run(core.queue_add, queue, b"last")
    for start in range(0, 2990, 1000):
        run(core.queue_put_back, queue, taken[start : start + 1000][:990])
    run(core.queue_put_back, queue, taken[2999:])
    found: list[Any] = []
    while more := run(core.queue_tail, queue, 1000):
        found += [message.value for message in more]
    assert sorted(found) == sorted([b"%d" % n for n in range(3000) if n % 1000 < 990] + [b"2999", b"last"])
    assert found.index(b"2999") >= 2000


def test_a_queue_of_an_older_version_keeps_the_order_of_its_numbers(
    run: Run, core: RedisOperations, redis: Redis, queue: str
) -> None:
    run(core.queue_add_many, queue, [b"1", b"2", b"3"])
    leased = run(core.queue_lease, queue, 2, LEASE_MS)
    redis.command("HSET", f"{queue}:deliveries", leased[0].key, '{"count":1,"first":1,"last":1}')
    redis.command("HDEL", f"{queue}:deliveries", leased[1].key)
    nack_backwards(run, core, Clock(), queue, leased)
    assert [message.value for message in run(core.queue_tail, queue, 3)] == [b"1", b"2", b"3"]
