"""Order, age and expiry of messages. The test controls the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from restmq.core import RedisOperations
from restmq.monitoring.queue_counters import QueueCounterReader
from tests.integration.conftest import Clock, Run
from tests.servers import Redis

#: More than a script brings up in a call without need, and as many as a client can put in or lease at once.
MANY = [12, 600, 1000]


def numbered(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


def taken(run: Run, core: RedisOperations, queue: str) -> list[bytes]:
    """Takes all ready messages, in the order of delivery."""
    found: list[bytes] = []
    while more := run(core.queue_tail, queue, 1000):
        found += [message.value for message in more]
    return found


# Order


@pytest.mark.parametrize("many", MANY)
def test_a_delayed_batch_becomes_ready_in_order(
    run: Run, timed: RedisOperations, clock: Clock, queue: str, many: int
) -> None:
    run(timed.queue_add_many, queue, numbered(0, many), 0, 1)
    clock.go_on(1)
    assert taken(run, timed, queue) == numbered(0, many)


@pytest.mark.parametrize("many", MANY)
def test_leases_that_expire_together_return_in_order_before_ready_messages(
    run: Run, timed: RedisOperations, clock: Clock, queue: str, many: int
) -> None:
    run(timed.queue_add_many, queue, numbered(0, many))
    run(timed.queue_lease, queue, 1000, 1000)
    run(timed.queue_add, queue, b"later")
    clock.go_on(1)
    assert taken(run, timed, queue) == [*numbered(0, many), b"later"]


def test_expired_leases_beyond_one_call_return_in_order(
    run: Run, timed: RedisOperations, clock: Clock, queue: str
) -> None:
    run(timed.queue_add_many, queue, numbered(0, 1000))
    for _ in range(10):
        run(timed.queue_lease, queue, 100, 1000)
        clock.go_on(0.001)
    clock.go_on(1)
    assert taken(run, timed, queue) == numbered(0, 1000)


def die(run: Run, core: RedisOperations, clock: Clock, queue: str, many: int, **settings: str) -> None:
    """Makes this number of messages dead letters by one lease, all at the same time."""
    run(core.queue_settings_set, queue, {"max_deliveries": 1, **settings})
    run(core.queue_add_many, queue, numbered(0, many))
    run(core.queue_lease, queue, 1000, 1000)
    clock.go_on(1)
    run(core.queue_promote, queue)


@pytest.mark.parametrize("many", MANY)
def test_dead_letters_of_one_millisecond_keep_their_order(
    run: Run, timed: RedisOperations, clock: Clock, queue: str, many: int
) -> None:
    die(run, timed, clock, queue, many)
    _, letters = run(timed.queue_list_dead, queue, 0, 1000)
    assert [letter.message.value for letter in letters] == numbered(0, many)
    assert {letter.at_ms for letter in letters} == {clock.now_ms}
    assert run(timed.queue_find, letters[-1].message.key).at_ms == clock.now_ms
    peeked = run(timed.queue_peek, queue, "dead", 0, 12).messages
    assert [(each.beginning, each.at_ms) for each in peeked] == [(value, clock.now_ms) for value in numbered(0, 12)]
    assert run(timed.queue_redrive, queue) == many
    assert taken(run, timed, queue) == numbered(0, many)


@pytest.mark.parametrize("many", MANY)
def test_dead_letters_of_one_millisecond_are_forwarded_in_order(
    run: Run, timed: RedisOperations, clock: Clock, queue: str, many: int
) -> None:
    die(run, timed, clock, queue, many, dead_letter=f"{queue} grave")
    assert taken(run, timed, f"{queue} grave") == numbered(0, many)


def test_a_later_dead_letter_is_listed_after_all_earlier_ones(
    run: Run, timed: RedisOperations, clock: Clock, queue: str
) -> None:
    die(run, timed, clock, queue, 1000)
    run(timed.queue_add_many, queue, [b"a", b"b", b"c"])
    for message in run(timed.queue_lease, queue, 3, 1000):
        run(timed.queue_nack, message.key, message.receipt)
    _, letters = run(timed.queue_list_dead, queue, 990, 1000)
    assert [letter.message.value for letter in letters] == [*numbered(990, 1000), b"a", b"b", b"c"]


# What is left of messages whose time is over


@pytest.mark.parametrize("at_the_front", [[], [b"lives"] * 500])
def test_expired_messages_that_nobody_takes_do_not_pile_up(
    run: Run, timed: RedisOperations, clock: Clock, redis: Redis, queue: str, at_the_front: list[bytes]
) -> None:
    run(timed.queue_add_many, queue, at_the_front)
    for _ in range(1000):
        run(timed.queue_add_many, queue, [b"x", b"y"], 0.05)
        clock.go_on(0.05)
    assert run(timed.queue_len, queue) == len(at_the_front)
    entries, expiring = redis.command("LLEN", f"{queue}:queue"), redis.command("ZCARD", f"{queue}:expiring")
    assert (entries <= len(at_the_front) + 100, expiring <= 100) == (True, True), (entries, expiring)
    assert run(timed.queue_stats, queue).totals["expired"] == 2000 - expiring
    assert taken(run, timed, queue) == at_the_front


# Age


def age_seconds(run: Run, core: RedisOperations, queue: str) -> float | None:
    """The age in the statistics of one queue."""
    age_ms = run(core.queue_stats, queue).oldest_age_ms
    return None if age_ms is None else age_ms / 1000


Deed = Callable[[Run, RedisOperations, Clock, str], str]


def a_delay(run: Run, core: RedisOperations, clock: Clock, queue: str) -> str:
    run(core.queue_add_many, queue, [b"x"], 0, 60)
    clock.go_on(60)
    run(core.queue_promote, queue)
    return queue


def a_delay_after_others(run: Run, core: RedisOperations, clock: Clock, queue: str) -> str:
    run(core.queue_add, queue, b"long gone")
    clock.go_on(100)
    run(core.queue_getdel, queue)
    return a_delay(run, core, clock, queue)


def a_dead_letter_of_another_queue(run: Run, core: RedisOperations, clock: Clock, queue: str) -> str:
    die(run, core, clock, queue, 1, dead_letter=f"{queue} grave")
    return f"{queue} grave"


def a_redrive(run: Run, core: RedisOperations, clock: Clock, queue: str) -> str:
    die(run, core, clock, queue, 1)
    clock.go_on(100)
    run(core.queue_add, queue, b"y")
    run(core.queue_getdel, queue)
    run(core.queue_redrive, queue)
    return queue


def one_that_expired(run: Run, core: RedisOperations, clock: Clock, queue: str) -> str:
    run(core.queue_add_many, queue, [b"x"], 1)
    clock.go_on(3)
    run(core.queue_add, queue, b"y")
    return queue


@pytest.mark.parametrize(
    "joins", [a_delay, a_delay_after_others, a_dead_letter_of_another_queue, a_redrive, one_that_expired]
)
def test_the_age_of_the_oldest_message_is_its_time_in_the_queue(
    run: Run, timed: RedisOperations, clock: Clock, queue: str, joins: Deed
) -> None:
    joined = joins(run, timed, clock, queue)
    assert age_seconds(run, timed, joined) == 0
    clock.go_on(7)
    assert age_seconds(run, timed, joined) == 7


def test_a_returned_message_is_at_least_as_old_as_the_one_behind_it(
    run: Run, timed: RedisOperations, clock: Clock, queue: str
) -> None:
    run(timed.queue_add, queue, b"first")
    run(timed.queue_lease, queue, 1, 5000)
    clock.go_on(2)
    run(timed.queue_add, queue, b"second")
    clock.go_on(3)
    run(timed.queue_promote, queue)
    assert run(timed.queue_get, queue, True).value == b"first"
    assert age_seconds(run, timed, queue) == 3
    clock.go_on(2)
    run(timed.queue_add, queue, b"third")
    assert age_seconds(run, timed, queue) == 5


def test_redriven_dead_letters_do_not_lower_the_age_of_the_oldest_message(
    run: Run, timed: RedisOperations, clock: Clock, queue: str
) -> None:
    die(run, timed, clock, queue, 5)
    run(timed.queue_add, queue, b"waits")
    clock.go_on(100)
    run(timed.queue_redrive, queue)
    assert age_seconds(run, timed, queue) == 100


def test_all_statistics_agree_on_the_age_even_if_all_messages_have_expired(
    run: Run, core: RedisOperations, redis: Redis, queue: str
) -> None:
    def ages() -> tuple[bool, bool, bool]:
        reader = QueueCounterReader(core, 100_000, time.monotonic)
        snapshot = run(reader.read)
        told = run(core.queue_stats, queue).oldest_age_ms, run(core.queue_overview, [queue], counts=True)[0].oldest_ms
        return told[0] is not None, told[1] is not None, snapshot.labelled[queue].oldest_age_ms >= 0

    run(core.queue_add, queue, b"expires", 1000)
    assert ages() == (True, True, True)
    redis.command("ZADD", f"{queue}:expiring", "1", f"{queue}:1")  # as if that had been long ago
    assert ages() == (False, False, False)
    run(core.queue_add, queue, b"lives")
    assert ages() == (True, True, True)
