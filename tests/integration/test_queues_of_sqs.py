"""What SQS needs of the store: attributes and tags, receipt handles, and messages that both sides see."""

from __future__ import annotations

from typing import Any

import pytest

from restmq.core import RedisOperations
from restmq.errors import InvalidInput, NotFound
from restmq.model import Message, Metadata, Policy, read_record
from restmq.queues.sqs import Handle, SqsEntry
from tests.integration.conftest import Clock, Run
from tests.servers import Redis


def send(run: Run, core: RedisOperations, queue: str, *values: bytes, **options: Any) -> list[str]:
    """Sends values, and returns their states."""
    return [sent.state for sent in run(core.sqs_send, queue, [SqsEntry(value, **options) for value in values])]


def receive(run: Run, core: RedisOperations, queue: str, count: int = 10, seconds: int = 30) -> list[Message]:
    messages: list[Message] = run(core.queue_lease, queue, count, seconds * 1000)
    return messages


def test_a_created_queue_has_its_attributes_tags_and_settings(run: Run, timed: RedisOperations, queue: str) -> None:
    attributes, tags = {"DelaySeconds": "5", "Policy": '{"a": "ü"}'}, {"team": "a b", "blank": " ", "empty": ""}
    made = run(timed.sqs_create, queue, attributes, tags, {"lease": 7, "dead_letter": "other"})
    assert made.made
    found = run(timed.sqs_get, queue)
    assert (found.attributes, found.tags, found.settings) == (attributes, tags, {"lease": 7, "dead_letter": "other"})
    assert found.policy == Policy.ROUNDROBIN
    assert found.created_ms == found.modified_ms == timed._clock()
    assert queue in run(timed.queue_all)
    assert run(timed.queue_settings_get, queue) == {"lease": 7, "dead_letter": "other"}


def test_creating_a_queue_again_changes_nothing_and_returns_what_there_is(
    run: Run, core: RedisOperations, queue: str
) -> None:
    run(core.sqs_create, queue, {"DelaySeconds": "5"}, {"a": "b"}, {})
    again = run(core.sqs_create, queue, {"DelaySeconds": "9"}, {"c": "d"}, {"lease": 3})
    assert (again.made, again.attributes, again.tags, again.settings) == (False, {"DelaySeconds": "5"}, {"a": "b"}, {})


def test_a_queue_of_http_becomes_one_of_sqs_and_keeps_its_policy_and_messages(
    run: Run, core: RedisOperations, queue: str
) -> None:
    run(core.queue_add, queue, b"from curl")
    run(core.queue_policy_set, queue, Policy.BROADCAST)
    found = run(core.sqs_get, queue)
    assert (found.attributes, found.created_ms, found.ready) == ({}, 0, 1)
    made = run(core.sqs_create, queue, {"DelaySeconds": "0"}, {}, {})
    assert (made.made, made.policy, made.ready) == (True, Policy.BROADCAST, 1)
    assert [message.value for message in receive(run, core, queue)] == [b"from curl"]


def test_attributes_tags_and_settings_are_changed_and_removed(run: Run, timed: RedisOperations, clock: Clock) -> None:
    queue = "changes"
    run(timed.sqs_create, queue, {"A": "1", "B": "2"}, {"x": "1", "y": "2"}, {"lease": 7})
    clock.go_on(5)
    assert run(timed.sqs_set, queue, {"A": "3", "B": ""}, {"lease": 0, "max_deliveries": 4})
    assert run(timed.sqs_tag, queue, {"z": "3"})
    assert run(timed.sqs_untag, queue, ["x", "unknown"])
    found = run(timed.sqs_get, queue)
    assert (found.attributes, found.tags, found.settings) == ({"A": "3"}, {"y": "2", "z": "3"}, {"max_deliveries": 4})
    assert found.modified_ms - found.created_ms == 5000


def test_an_unknown_queue_is_told_apart_from_an_empty_one(run: Run, core: RedisOperations, queue: str) -> None:
    assert run(core.sqs_get, queue) is None
    assert not run(core.sqs_set, queue, {"A": "1"}, {})
    assert not run(core.sqs_tag, queue, {"a": "1"})
    with pytest.raises(NotFound):
        run(core.sqs_send, queue, [SqsEntry(b"x")])
    assert run(core.sqs_get, queue) is None


def test_a_removed_queue_leaves_nothing_to_sqs(run: Run, private_core: RedisOperations, private_redis: Redis) -> None:
    core = private_core
    for name in ("q", "q.fifo"):
        run(core.sqs_create, name, {"FifoQueue": "true"} if name == "q.fifo" else {}, {"a": "b"}, {"dead_letter": "d"})
        states = send(run, core, name, b"1", b"2", group="g", deduplication_id="d") + send(
            run, core, name, b"3", group="h", deduplication_id="e", delay_seconds=None
        )
        assert states[0] == states[2] == "sent"
        receive(run, core, name, 1)
        assert run(core.queue_remove, name)
    assert private_redis.keys() == {"q:lastnumber", "q.fifo:lastnumber"}


def test_lists_have_pages_and_only_names_that_sqs_allows(
    run: Run, private_core: RedisOperations, private_redis: Redis
) -> None:
    core = private_core
    for name in ("a-1", "a-2", "a_3", "a-4.fifo", "b"):
        run(core.sqs_create, name, {}, {}, {})
    run(core.queue_add, "a b", b"not a name of SQS")
    assert run(core.sqs_list, "a") == ["a-1", "a-2", "a-4.fifo", "a_3"]
    assert run(core.sqs_list, "a", 2) == ["a-1", "a-2"]
    assert run(core.sqs_list, "a", 2, "a-2") == ["a-4.fifo", "a_3"]
    assert run(core.sqs_list, "c") == []


def test_messages_have_the_delay_and_retention_of_their_queue(run: Run, timed: RedisOperations, clock: Clock) -> None:
    queue = "defaults"
    run(timed.sqs_create, queue, {"DelaySeconds": "5", "MessageRetentionPeriod": "60"}, {}, {})
    assert send(run, timed, queue, b"later") == ["sent"]
    assert send(run, timed, queue, b"now", delay_seconds=0) == ["sent"]
    assert [message.value for message in receive(run, timed, queue)] == [b"now"]
    clock.go_on(5)
    assert [message.value for message in receive(run, timed, queue, seconds=1)] == [b"later"]
    clock.go_on(55)
    assert receive(run, timed, queue) == []


@pytest.mark.parametrize("end", ["", ".fifo"])
def test_each_message_has_its_own_outcome(run: Run, core: RedisOperations, queue: str, end: str) -> None:
    queue, fifo = queue + end, {"FifoQueue": "true"} if end else {}
    run(core.sqs_create, queue, {"MaximumMessageSize": "1024", **fifo}, {}, {"max_length": 2})
    entries = [
        SqsEntry(b"%d" % size, {"id": f"id-{size}"}, None, "g", str(size), size_bytes=size)
        for size in (1024, 1025, 7, 8)
    ]
    sent = run(core.sqs_send, queue, entries)
    assert [one.state for one in sent] == ["sent", "too_large", "sent", "full"]
    assert sent[1].number == 1024, "the maximum is told"
    assert [(one.number, one.message_id) for one in sent if one.state == "sent"] == [(1, "id-1024"), (2, "id-7")]


def test_what_comes_with_a_message_of_sqs_is_seen_by_http(run: Run, core: RedisOperations, queue: str) -> None:
    run(core.sqs_create, queue, {}, {}, {})
    record = {"id": "an id", "headers": {"x-message-a": 'ü "quoted"'}, "content_type": "text/plain"}
    send(run, core, queue, b"value", record=record)
    found = run(core.queue_find, f"{queue}:1")
    assert Metadata.parse(read_record(found.message.record)) == Metadata("text/plain", {"x-message-a": 'ü "quoted"'})
    (leased,) = receive(run, core, queue)
    assert b'"id":"an id"' in leased.record


def test_text_that_is_no_unicode_is_rejected_before_anything_is_sent(
    run: Run, core: RedisOperations, queue: str
) -> None:
    run(core.sqs_create, queue, {}, {}, {})
    with pytest.raises(InvalidInput):
        run(core.sqs_send, queue, [SqsEntry(b"good"), SqsEntry(b"bad", {"id": "\ud800"})])
    assert run(core.queue_len, queue) == 0


def test_a_handle_is_read_as_it_was_written_and_nothing_else_is() -> None:
    handle = Handle("a queue:ü:17", "receipt.1")
    assert Handle.parse(str(handle)) == handle
    assert handle.queue == "a queue:ü"
    for text in ("", "x", "AAAA", "\ud800", "ü", str(handle)[:8], str(handle) * 2, "é" * 1000, "A" * 100_000):
        with pytest.raises(InvalidInput):
            Handle.parse(text)


@pytest.fixture(params=["standard", ".fifo"])
def received(request: pytest.FixtureRequest, run: Run, timed: RedisOperations, queue: str) -> Message:
    """A message that was received for ten seconds."""
    name = queue + request.param.removeprefix("standard")
    run(timed.sqs_create, name, {"FifoQueue": "true"} if request.param == ".fifo" else {}, {}, {})
    send(run, timed, name, b"it", group="g", deduplication_id="1")
    send(run, timed, name, b"next", group="g", deduplication_id="2")
    return receive(run, timed, name, 1, 10)[0]


def values(run: Run, core: RedisOperations, message: Message) -> list[bytes]:
    return [one.value for one in receive(run, core, Handle.of(message).queue)]


def test_a_message_is_deleted_with_its_handle_and_once_more(
    run: Run, timed: RedisOperations, received: Message
) -> None:
    handle = Handle.of(received)
    assert run(timed.sqs_delete, handle.queue, [handle, handle]) == ["deleted", "gone"]
    assert values(run, timed, received) == [b"next"]
    assert run(timed.queue_stats, handle.queue).totals["acked"] == 1


@pytest.mark.parametrize("promoted", [True, False])
def test_a_message_is_deleted_with_its_handle_after_the_lease_but_not_in_a_fifo_queue(
    run: Run, timed: RedisOperations, clock: Clock, received: Message, promoted: bool
) -> None:
    handle = Handle.of(received)
    is_fifo = handle.queue.endswith(".fifo")
    clock.go_on(11)
    if promoted:
        run(timed.queue_promote, handle.queue)
    assert run(timed.sqs_delete, handle.queue, [handle]) == ["old" if is_fifo else "deleted"]
    assert values(run, timed, received) == [b"it", b"next"] if is_fifo else [b"next"]


def test_a_message_that_was_received_again_has_two_good_handles_or_in_a_fifo_queue_one(
    run: Run, timed: RedisOperations, clock: Clock, received: Message
) -> None:
    handle = Handle.of(received)
    is_fifo = handle.queue.endswith(".fifo")
    clock.go_on(11)
    (again,) = receive(run, timed, handle.queue, 1, 10)
    assert (again.key, again.count) == (received.key, 2)
    clock.go_on(6)
    assert run(timed.sqs_change_visibility, handle.queue, [(handle, 9)]) == ["old" if is_fifo else "changed"]
    clock.go_on(5)
    assert (run(timed.queue_find, received.key).state == "leased") is not is_fifo
    run(timed.queue_promote, handle.queue)
    assert run(timed.sqs_delete, handle.queue, [handle]) == ["old" if is_fifo else "deleted"]
    assert run(timed.sqs_delete, handle.queue, [Handle.of(again)]) == ["old" if is_fifo else "gone"]


def test_an_invented_handle_of_a_message_that_nobody_received_deletes_nothing(
    run: Run, timed: RedisOperations, received: Message
) -> None:
    handle = Handle.of(received)
    other = Handle(f"{handle.queue}:2", handle.receipt)
    assert run(timed.sqs_delete, handle.queue, [other]) == ["gone"]
    assert run(timed.queue_find, f"{handle.queue}:2").state == "ready"


def test_a_handle_of_a_message_that_waits_for_its_retry_deletes_it_but_not_in_a_fifo_queue(
    run: Run, timed: RedisOperations, received: Message
) -> None:
    handle = Handle.of(received)
    is_fifo = handle.queue.endswith(".fifo")
    run(timed.queue_nack, received.key, received.receipt, 60_000)
    assert run(timed.queue_stats, handle.queue).delayed == 1
    assert run(timed.sqs_delete, handle.queue, [handle]) == ["old" if is_fifo else "deleted"]
    assert run(timed.queue_stats, handle.queue).delayed == int(is_fifo)


def test_a_dead_letter_is_gone_for_its_handle(run: Run, timed: RedisOperations, received: Message) -> None:
    handle = Handle.of(received)
    run(timed.queue_settings_set, handle.queue, {"max_deliveries": 1})
    assert run(timed.sqs_change_visibility, handle.queue, [(handle, 0)]) == ["changed"]
    assert run(timed.queue_stats, handle.queue).dead == 1
    assert run(timed.sqs_delete, handle.queue, [handle]) == ["gone"]
    assert run(timed.queue_stats, handle.queue).dead == 1


def test_a_changed_visibility_counts_from_now(
    run: Run, timed: RedisOperations, clock: Clock, received: Message
) -> None:
    handle = Handle.of(received)
    clock.go_on(9)
    assert run(timed.sqs_change_visibility, handle.queue, [(handle, 20)]) == ["changed"]
    clock.go_on(19)
    assert received.value not in values(run, timed, received)
    clock.go_on(1)
    over = "old" if handle.queue.endswith(".fifo") else "not_in_flight"
    assert run(timed.sqs_change_visibility, handle.queue, [(handle, 20)]) == [over]
    assert received.value in values(run, timed, received)


def test_with_visibility_0_the_message_comes_back_at_once(run: Run, timed: RedisOperations, received: Message) -> None:
    handle = Handle.of(received)
    run(timed.queue_settings_set, handle.queue, {"retry_delay": 60})
    over = "old" if handle.queue.endswith(".fifo") else "not_in_flight"
    assert run(timed.sqs_change_visibility, handle.queue, [(handle, 0), (handle, 0)]) == ["changed", over]
    assert receive(run, timed, handle.queue, 1)[0].key == received.key
