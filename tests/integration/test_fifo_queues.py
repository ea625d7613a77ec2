"""FIFO queues: order in each group, locked groups, deduplication, and their numbers, as SQS and HTTP use them."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from typing import Any

import pytest

from restmq.core import RedisOperations
from restmq.errors import Conflict, QueueFull
from restmq.model import Message, Metadata, Policy
from restmq.queues.sqs import Handle, Sent, SqsEntry
from tests.integration.conftest import Clock, Run
from tests.servers import Redis

FIFO = {"FifoQueue": "true"}
fresh = itertools.count()


@pytest.fixture
def fifo(run: Run, timed: RedisOperations, queue: str) -> str:
    run(timed.sqs_create, queue + ".fifo", FIFO, {}, {})
    return queue + ".fifo"


def send(run: Run, core: RedisOperations, queue: str, *texts: str, **options: Any) -> list[Sent]:
    """Sends texts such as a1, a2 and b1, each to the group that its letter names."""
    entries = [SqsEntry(text.encode(), {"id": f"id-{text}"}, None, text[0], text, **options) for text in texts]
    sent: list[Sent] = run(core.sqs_send, queue, entries)
    return sent


def receive(run: Run, core: RedisOperations, queue: str, count: int = 10) -> list[Message]:
    messages: list[Message] = run(core.queue_lease, queue, count, 30_000)
    return messages


def texts(messages: list[Message]) -> list[str]:
    return [message.value.decode() for message in messages]


def delete(run: Run, core: RedisOperations, messages: list[Message]) -> None:
    assert set(run(core.sqs_delete, Handle.of(messages[0]).queue, list(map(Handle.of, messages)))) == {"deleted"}


def test_a_receiver_gets_as_many_as_possible_of_one_group_and_locks_it(
    run: Run, timed: RedisOperations, fifo: str
) -> None:
    assert [sent.state for sent in send(run, timed, fifo, "a1", "b1", "a2", "b2", "c1")] == ["sent"] * 5
    first = receive(run, timed, fifo, 1)
    assert texts(first) == ["a1"]
    second = receive(run, timed, fifo, 3)
    assert texts(second) == ["b1", "b2", "c1"]
    assert receive(run, timed, fifo) == []
    delete(run, timed, first)
    assert texts(receive(run, timed, fifo)) == ["a2"]
    send(run, timed, fifo, "b3", "d1")
    assert texts(receive(run, timed, fifo)) == ["d1"]
    delete(run, timed, second[:1])
    assert receive(run, timed, fifo) == []
    delete(run, timed, second[1:2])
    assert texts(receive(run, timed, fifo)) == ["b3"]


@pytest.mark.parametrize("by", ["ack", "handle", "key", "lease"])
def test_the_end_of_a_lease_wakes_the_next_waiter(
    run: Run, timed: RedisOperations, redis: Redis, clock: Clock, fifo: str, by: str
) -> None:
    """The waiter is of a daemon that is gone, so to wake it removes it."""
    send(run, timed, fifo, "a1", "a2")
    (message,) = receive(run, timed, fifo, 1)
    assert run(timed.queue_lease, fifo, 1, 1000, timed.layout.daemon_channel("gone", fifo)) == []
    assert redis.command("LLEN", f"{fifo}:waiters") == 1
    if by == "ack":
        run(timed.queue_ack, message.key, message.receipt)
    elif by == "handle":
        delete(run, timed, [message])
    elif by == "key":
        run(timed.queue_del, fifo, message.key)
    else:
        clock.go_on(31)
        run(timed.queue_promote, fifo)
    assert redis.command("LLEN", f"{fifo}:waiters") == 0


def test_messages_whose_lease_ends_come_before_the_rest_of_their_group(
    run: Run, timed: RedisOperations, clock: Clock, fifo: str
) -> None:
    send(run, timed, fifo, "a1", "a2", "a3", "b1")
    held = receive(run, timed, fifo, 2)
    assert texts(held) == ["a1", "a2"]
    delete(run, timed, held[:1])
    assert texts(receive(run, timed, fifo)) == ["b1"]
    clock.go_on(31)
    again = receive(run, timed, fifo, 2)
    assert texts(again) == ["a2", "a3"]
    assert [message.count for message in again] == [2, 1]


def test_a_message_with_visibility_0_keeps_its_group_locked_until_the_others_are_back_or_deleted(
    run: Run, timed: RedisOperations, fifo: str
) -> None:
    send(run, timed, fifo, "a1", "a2")
    one, two = map(Handle.of, receive(run, timed, fifo))
    assert run(timed.sqs_change_visibility, fifo, [(one, 0)]) == ["changed"]
    assert receive(run, timed, fifo) == []
    assert run(timed.sqs_change_visibility, fifo, [(two, 0)]) == ["changed"]
    assert texts(receive(run, timed, fifo)) == ["a1", "a2"]


def test_a_duplicate_is_not_added_for_five_minutes(run: Run, timed: RedisOperations, clock: Clock, fifo: str) -> None:
    (first,) = send(run, timed, fifo, "a1")
    assert first == Sent("sent", 1, "id-a1")
    clock.go_on(299.999)
    assert send(run, timed, fifo, "a1") == [Sent("duplicate", 1, "id-a1")]
    delete(run, timed, receive(run, timed, fifo))
    assert send(run, timed, fifo, "a1") == [Sent("duplicate", 1, "id-a1")]
    clock.go_on(0.001)
    assert send(run, timed, fifo, "a1") == [Sent("sent", 2, "id-a1")]
    assert send(run, timed, fifo, "a1", "a2", "a2") == [
        Sent("duplicate", 2, "id-a1"),
        Sent("sent", 3, "id-a2"),
        Sent("duplicate", 3, "id-a2"),
    ]


@pytest.mark.parametrize("scope", ["queue", "messageGroup"])
def test_duplicates_are_of_the_queue_or_of_the_group(run: Run, timed: RedisOperations, fifo: str, scope: str) -> None:
    run(timed.sqs_set, fifo, {"DeduplicationScope": scope}, {})
    entries = [SqsEntry(b"x", {}, None, group, "same") for group in ("a", "b", "a")]
    states = [sent.state for sent in run(timed.sqs_send, fifo, entries)]
    assert states == ["sent", "duplicate" if scope == "queue" else "sent", "duplicate"]


def test_a_queue_may_take_the_content_as_the_deduplication_id(run: Run, timed: RedisOperations, fifo: str) -> None:
    entries = [SqsEntry(b"x", {}, None, "a"), SqsEntry(b"x", {}, None, "b"), SqsEntry(b"y", {}, None, "a")]
    assert [sent.state for sent in run(timed.sqs_send, fifo, entries)] == ["no_deduplication"] * 3
    run(timed.sqs_set, fifo, {"ContentBasedDeduplication": "true"}, {})
    assert [sent.state for sent in run(timed.sqs_send, fifo, entries)] == ["sent", "duplicate", "sent"]
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert [sent.state for sent in run(timed.sqs_send, fifo, [SqsEntry(b"z", {}, None, "a", digest)])] == ["duplicate"]
    assert json.loads(receive(run, timed, fifo)[0].record)["dedup"] == digest


def test_a_message_for_a_fifo_queue_needs_a_group(run: Run, timed: RedisOperations, fifo: str) -> None:
    assert [sent.state for sent in run(timed.sqs_send, fifo, [SqsEntry(b"x", {}, None, "", "d")])] == ["no_group"]


def test_forgotten_ids_leave_redis(run: Run, timed: RedisOperations, redis: Redis, clock: Clock, fifo: str) -> None:
    send(run, timed, fifo, *(f"a{number}" for number in range(50)))
    clock.go_on(301)
    for number in range(60, 80):
        send(run, timed, fifo, f"a{number}")
    assert redis.command("ZCARD", f"{fifo}:senttimes") == redis.command("HLEN", f"{fifo}:sentids") == 20


def test_thousands_of_messages_in_one_call_replace_as_many_that_have_expired(
    run: Run, timed: RedisOperations, redis: Redis, clock: Clock, fifo: str
) -> None:
    run(timed.sqs_set, fifo, {"MessageRetentionPeriod": "60"}, {})
    for _ in range(3):
        assert {one.state for one in send(run, timed, fifo, *(f"a{number}" for number in range(3000)))} == {"sent"}
        clock.go_on(301)
    assert redis.command("ZCARD", f"{fifo}:ordered") == redis.command("ZCARD", f"{fifo}:senttimes") == 3000


def test_a_delay_of_the_queue_keeps_the_order(run: Run, timed: RedisOperations, clock: Clock, fifo: str) -> None:
    run(timed.sqs_set, fifo, {"DelaySeconds": "10"}, {})
    send(run, timed, fifo, "a1")
    run(timed.sqs_set, fifo, {"DelaySeconds": "0"}, {})
    send(run, timed, fifo, "a2", "b1")
    assert texts(receive(run, timed, fifo)) == ["b1"]
    stats = run(timed.queue_stats, fifo)
    assert (stats.ready, stats.delayed, stats.leased) == (1, 1, 1)
    clock.go_on(10)
    assert texts(receive(run, timed, fifo)) == ["a1", "a2"]


def test_a_retry_delay_holds_up_the_group_alone(run: Run, timed: RedisOperations, clock: Clock, fifo: str) -> None:
    send(run, timed, fifo, "a1", "a2", "b1")
    (one,) = receive(run, timed, fifo, 1)
    run(timed.queue_nack, one.key, one.receipt, 10_000)
    assert texts(receive(run, timed, fifo)) == ["b1"]
    clock.go_on(10)
    assert texts(receive(run, timed, fifo)) == ["a1", "a2"]


def test_the_retention_ends_messages_in_any_state(run: Run, timed: RedisOperations, clock: Clock, fifo: str) -> None:
    run(timed.sqs_set, fifo, {"MessageRetentionPeriod": "60"}, {})
    send(run, timed, fifo, "a1", "a2", "b1")
    assert texts(receive(run, timed, fifo, 1)) == ["a1"]
    clock.go_on(61)
    assert run(timed.queue_len, fifo) == 0
    send(run, timed, fifo, "a3")
    assert texts(receive(run, timed, fifo)) == ["a3"]
    assert run(timed.queue_stats, fifo).totals["expired"] == 3


@pytest.mark.parametrize("by", ["ack", "handle", "key", "lease"])
def test_a_message_that_expires_while_it_is_leased_does_not_lock_its_group_for_ever(
    run: Run, timed: RedisOperations, clock: Clock, fifo: str, by: str
) -> None:
    run(timed.sqs_set, fifo, {"MessageRetentionPeriod": "60"}, {})
    send(run, timed, fifo, "a1")
    (message,) = run(timed.queue_lease, fifo, 1, 100_000)
    clock.go_on(61)
    send(run, timed, fifo, "a2")
    assert receive(run, timed, fifo) == []
    if by == "ack":
        run(timed.queue_ack, message.key, message.receipt)
    elif by == "handle":
        delete(run, timed, [message])
    elif by == "key":
        run(timed.queue_del, fifo, message.key)
    else:
        clock.go_on(40)
    assert texts(receive(run, timed, fifo)) == ["a2"]


def test_expired_messages_of_a_queue_without_receivers_leave_redis(
    run: Run, timed: RedisOperations, redis: Redis, clock: Clock, fifo: str
) -> None:
    run(timed.sqs_set, fifo, {"MessageRetentionPeriod": "60"}, {})
    send(run, timed, fifo, *(f"{letter}{number}" for number in range(10) for letter in "abcde"))
    clock.go_on(61)
    for number in range(10, 20):
        send(run, timed, fifo, f"a{number}")
    assert redis.command("ZCARD", f"{fifo}:ordered") == redis.command("ZCARD", f"{fifo}:grouped") == 10
    assert redis.command("ZCARD", f"{fifo}:groups") == 1


def test_dead_letters_of_a_fifo_queue_keep_their_order_and_group(
    run: Run, timed: RedisOperations, clock: Clock, fifo: str
) -> None:
    dead = "dead-" + fifo
    run(timed.sqs_create, dead, FIFO, {}, {})
    run(timed.sqs_set, fifo, {}, {"max_deliveries": 1, "dead_letter": dead})
    send(run, timed, fifo, *(f"a{number}" for number in range(12)), "b1")
    receive(run, timed, fifo, 11)
    clock.go_on(31)
    run(timed.queue_promote, fifo)
    assert texts(receive(run, timed, fifo)) == ["a11", "b1"]
    found = receive(run, timed, dead, 100)
    assert texts(found) == [f"a{number}" for number in range(11)]
    record = json.loads(found[0].record)
    assert (record["group"], record["id"], record["origin"]["key"]) == ("a", "id-a0", f"{fifo}:1")
    run(timed.queue_release, dead, [(message.key, message.receipt) for message in found])
    assert texts(receive(run, timed, dead, 3)) == ["a0", "a1", "a2"]


def test_redriven_dead_letters_take_their_old_places(run: Run, timed: RedisOperations, fifo: str) -> None:
    run(timed.sqs_set, fifo, {}, {"max_deliveries": 1})
    send(run, timed, fifo, "a1", "a2", "a3")
    for message in receive(run, timed, fifo, 2):
        run(timed.queue_nack, message.key, message.receipt)
    assert run(timed.queue_list_dead, fifo)[0] == 2
    assert run(timed.queue_redrive, fifo) == 2
    assert texts(receive(run, timed, fifo)) == ["a1", "a2", "a3"]


@pytest.mark.parametrize("remove", [False, True])
def test_a_purge_leaves_nothing_of_any_group(
    run: Run, private_core: RedisOperations, private_redis: Redis, remove: bool
) -> None:
    core, queue = private_core, "q.fifo"
    run(core.sqs_create, queue, FIFO | {"MessageRetentionPeriod": "60"}, {}, {"max_deliveries": 1})
    send(run, core, queue, *(f"{letter}{number}" for letter in "abc" for number in range(5)))
    one, two, _ = receive(run, core, queue, 3)
    run(core.queue_nack, one.key, one.receipt)
    run(core.queue_nack, two.key, two.receipt)
    assert run(core.queue_remove if remove else core.queue_purge, queue) == (True if remove else 15)
    kept = {"q.fifo:lastnumber"} if remove else {"QUEUESET", "q.fifo:UUID", "q.fifo:totals", "q.fifo:sqs"}
    kept |= set() if remove else {"q.fifo:settings", "q.fifo:queuepolicy", "q.fifo:sentids", "q.fifo:senttimes"}
    assert private_redis.keys() == kept
    if remove:
        run(core.sqs_create, queue, FIFO, {}, {})
    assert [sent.state for sent in send(run, core, queue, "a0", "z9")] == ["sent" if remove else "duplicate", "sent"]
    assert texts(receive(run, core, queue)) == (["a0", "z9"] if remove else ["z9"])


def test_numbers_states_and_peeks_are_those_of_every_queue(run: Run, timed: RedisOperations, fifo: str) -> None:
    send(run, timed, fifo, "a1", "b1", "a2", "c1")
    (leased,) = receive(run, timed, fifo, 1)
    assert run(timed.queue_len, fifo) == 3
    (row,) = run(timed.queue_overview, [fifo], counts=True)
    assert (row.length, row.leased, row.policy) == (3, 1, Policy.ROUNDROBIN)
    assert row.oldest_ms is not None
    assert [peeked.beginning for peeked in run(timed.queue_peek, fifo, "next").messages] == [b"b1", b"a2", b"c1"]
    assert [peeked.beginning for peeked in run(timed.queue_peek, fifo, "newest", 0, 2).messages] == [b"c1", b"a2"]
    assert run(timed.queue_get, fifo, softget=True).value == b"b1"
    assert [run(timed.queue_find, f"{fifo}:{number}").state for number in (1, 2, 3)] == ["leased", "ready", "ready"]
    assert run(timed.queue_del, fifo, leased.key)
    assert run(timed.queue_del, fifo, f"{fifo}:2")
    assert texts(receive(run, timed, fifo)) == ["a2", "c1"]
    found = run(timed.sqs_get, fifo)
    assert (found.ready, found.leased) == (0, 2)


def test_http_sends_to_the_group_that_a_header_names(run: Run, timed: RedisOperations, fifo: str) -> None:
    for text in ("a1", "b1", "a2"):
        run(timed.queue_add_many, fifo, [text.encode()], metadata=Metadata("", {"x-message-group": text[0]}))
    assert run(timed.queue_add, fifo, b"without") == f"{fifo}:4"
    run(timed.queue_add_many, fifo, [b"without, too"], idempotency_key=b"key")
    assert run(timed.queue_add_many, fifo, [b"without, too"], idempotency_key=b"key") == [f"{fifo}:5"]
    with pytest.raises(Conflict):
        run(timed.queue_add_many, fifo, [b"other"], idempotency_key=b"key")
    assert texts(receive(run, timed, fifo, 1)) == ["a1"]
    assert texts(receive(run, timed, fifo)) == ["b1", "without", "without, too"]


@pytest.mark.parametrize("other", ["", "a b", "a!", "a\tb", "A", "ü", "a" * 9000, " ", "{1}", "default"])
def test_groups_of_any_name_over_http_are_apart(run: Run, timed: RedisOperations, fifo: str, other: str) -> None:
    for number in range(2):
        for group in ("a", other):
            value = [f"{group[:9]}{number}".encode()]
            run(timed.queue_add_many, fifo, value, metadata=Metadata("", {"x-message-group": group}))
    for number in range(2):
        found = [receive(run, timed, fifo, 1)[0] for _ in range(2)]
        assert texts(found) == [f"a{number}", f"{other[:9]}{number}"]
        assert receive(run, timed, fifo) == []
        run(timed.queue_ack_many, fifo, [(message.key, message.receipt) for message in found])


def test_a_full_fifo_queue_refuses_messages_of_both_sides(run: Run, timed: RedisOperations, fifo: str) -> None:
    run(timed.sqs_set, fifo, {}, {"max_length": 2})
    assert [sent.state for sent in send(run, timed, fifo, "a1", "a2", "a3")] == ["sent", "sent", "full"]
    with pytest.raises(QueueFull):
        run(timed.queue_add, fifo, b"more")
    with pytest.raises(QueueFull):
        run(timed.queue_add_many, fifo, [b"more"])


def test_messages_taken_for_good_come_in_order_and_return_to_their_places(
    run: Run, timed: RedisOperations, fifo: str
) -> None:
    send(run, timed, fifo, "a1", "b1", "a2")
    taken = run(timed.queue_tail, fifo, 2)
    assert texts(taken) == ["a1", "a2"]
    run(timed.queue_put_back, fifo, taken)
    assert texts(run(timed.queue_tail, fifo, 10)) == ["a1", "a2", "b1"]


def test_a_plain_queue_may_have_the_name_of_a_fifo_queue(run: Run, timed: RedisOperations, queue: str) -> None:
    name = queue + ".fifo"
    run(timed.queue_add_many, name, [b"1", b"2"])
    assert not run(timed.queue_is_fifo, name)
    with pytest.raises(Conflict):
        run(timed.sqs_create, name, FIFO, {}, {})
    assert texts(receive(run, timed, name, 1)) == ["1"]
    assert texts(run(timed.queue_tail, name)) == ["2"]
    run(timed.queue_purge, name)
    assert run(timed.sqs_create, name, FIFO, {}, {}).made
    assert run(timed.queue_is_fifo, name)


def test_ten_thousand_groups_cost_a_call_no_more_than_ten(
    run: Run, private_core: RedisOperations, private_redis: Redis
) -> None:
    """Counted in commands that Redis executes, which does not depend on the machine."""
    core, queue = private_core, "many.fifo"
    run(core.sqs_create, queue, FIFO, {}, {})

    def executed() -> int:
        info = private_redis.command("INFO", "commandstats").splitlines()
        return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in info if line.startswith("cmdstat"))

    def cost() -> int:
        before = executed()
        number = next(fresh)
        run(core.sqs_send, queue, [SqsEntry(b"x", {}, None, f"last-{number}", f"cost-{number}")])
        delete(run, core, receive(run, core, queue, 1))
        return executed() - before

    cost()
    few = cost()
    for start in range(0, 10_000, 500):
        entries = [SqsEntry(b"x", {}, None, f"g{start + n}", f"d{start + n}") for n in range(500)]
        run(core.sqs_send, queue, entries)
    assert run(core.sqs_get, queue).ready == 10_000
    assert cost() <= few + 2
    assert {message.value for _ in range(10) for message in receive(run, core, queue, 1000)} == {b"x"}
    assert run(core.sqs_get, queue).leased == 10_000


@pytest.mark.parametrize("seed", range(4))
def test_groups_and_locks_stay_consistent_whatever_expires(
    run: Run, timed: RedisOperations, redis: Redis, clock: Clock, fifo: str, seed: int
) -> None:
    """Random operations while messages expire in all states; the keys are compared with each other after each."""
    chance = random.Random(seed)
    run(timed.sqs_set, fifo, {}, {"max_deliveries": 3})
    leased: list[Message] = []

    def some_leased() -> list[Message]:
        return chance.sample(leased, min(len(leased), chance.randint(1, 3)))

    def receive_some() -> None:
        found = run(timed.queue_lease, fifo, chance.randint(1, 4), chance.choice([500, 5000, 60_000]))
        for group in {json.loads(message.record)["group"] for message in found}:
            numbers = [int(one.key.rpartition(":")[2]) for one in found if json.loads(one.record)["group"] == group]
            assert numbers == sorted(numbers)
        leased.extend(found)

    operations = [
        lambda: send(run, timed, fifo, *(f"{chance.choice('abc')}{next(fresh)}" for _ in range(chance.randint(1, 4)))),
        receive_some,
        receive_some,
        lambda: run(timed.sqs_delete, fifo, list(map(Handle.of, some_leased()))),
        lambda: run(timed.queue_ack_many, fifo, [(one.key, one.receipt) for one in some_leased()]),
        lambda: run(
            timed.sqs_change_visibility, fifo, [(Handle.of(one), chance.choice([0, 9])) for one in some_leased()]
        ),
        lambda: run(timed.queue_release, fifo, [(one.key, one.receipt) for one in some_leased()], blameless=True),
        lambda: [run(timed.queue_del, fifo, one.key) for one in some_leased()],
        lambda: run(timed.queue_tail, fifo, 1),
        lambda: run(timed.queue_get, fifo, softget=True),
        lambda: run(timed.queue_redrive, fifo),
        lambda: run(timed.queue_promote, fifo),
        lambda: clock.go_on(chance.choice([0.3, 1, 4, 12])),
        lambda: run(timed.sqs_set, fifo, {"MessageRetentionPeriod": chance.choice(["1", "5", "60"])}, {}),
        lambda: run(timed.sqs_set, fifo, {"DelaySeconds": chance.choice(["0", "0", "2"])}, {}),
    ]
    for _ in range(300):
        chance.choice(operations)()
        assert_consistent(redis, fifo)


def assert_consistent(redis: Redis, queue: str) -> None:
    """The rules of ``lua/fifo/_groups.lua``."""

    def keys_in(name: str) -> set[str]:
        return set(redis.command("ZRANGE", f"{queue}:{name}", "0", "-1"))

    ordered, leased, delayed = keys_in("ordered"), keys_in("leased"), keys_in("delayed")
    grouped = [member.split(" ") for member in redis.command("ZRANGE", f"{queue}:grouped", "0", "-1")]
    groups = {f"{queue}:{int(number)}": group for group, number in grouped}
    assert groups.keys() == ordered | leased | delayed
    assert len(groups) == len(ordered) + len(leased) + len(delayed)
    locked = Counter(groups[key] for key in leased)
    flat = redis.command("HGETALL", f"{queue}:locked")
    assert dict(zip(flat[::2], map(int, flat[1::2]), strict=True)) == locked
    first = {group: int(number) for group, number in reversed(grouped)}
    free = {name for name, number in first.items() if name not in locked and f"{queue}:{number}" not in delayed}
    assert keys_in("groups") == free
    assert all(redis.command("ZSCORE", f"{queue}:groups", name) == str(first[name]) for name in free)
