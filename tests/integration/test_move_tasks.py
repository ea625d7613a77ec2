"""Tasks that move dead letters back: complete, in order, each message once, whatever fails."""

from __future__ import annotations

import json
import uuid

import pytest

from restmq.core import RedisOperations
from restmq.errors import Conflict, InvalidInput, NotFound, StoreRefused
from restmq.queues.moves import Move
from restmq.queues.sqs import SqsEntry
from restmq.store.keys import DEAD_LETTERS
from tests.integration.conftest import Clock, Run
from tests.servers import Redis


def make(run: Run, core: RedisOperations, *queues: str) -> None:
    for queue in queues:
        run(core.sqs_create, queue, {"FifoQueue": "true"} if queue.endswith(".fifo") else {}, {}, {})


def bury(run: Run, core: RedisOperations, source: str, dead: str, *texts: str) -> None:
    """Sends texts whose first deliveries fail, so that they go to the queue `dead`."""
    run(core.queue_settings_set, source, {"max_deliveries": 1, "dead_letter": dead})
    entries = [SqsEntry(text.encode(), {"id": f"id-{text}"}, None, text[0], text) for text in texts]
    run(core.sqs_send, source, entries)
    leased = run(core.queue_lease, source, 1000, 1000)
    run(core.queue_release, source, [(message.key, message.receipt) for message in leased])


def step(run: Run, core: RedisOperations, queue: str) -> None:
    run(core.queue_on_due, f"{queue}\nmove")


def test_a_queue_whose_setting_an_older_version_made_is_a_source_from_its_next_dead_letter_on(
    run: Run, core: RedisOperations, queue: str
) -> None:
    one, dead = f"{queue}-one", f"{queue}-dead"
    make(run, core, one, dead)
    bury(run, core, one, dead, "a")
    tag = core.layout.tag(one)
    assert run(core.store.command, b"ZREM", tag + DEAD_LETTERS, f"{dead}\n".encode() + tag + one.encode()) == 1
    assert run(core.sqs_dead_letter_sources, dead) == []
    run(core.sqs_send, one, [SqsEntry(b"b", {"id": "id-b"}, None, "b", "b")])
    leased = run(core.queue_lease, one, 1000, 1000)
    run(core.queue_release, one, [(message.key, message.receipt) for message in leased])
    assert run(core.sqs_dead_letter_sources, dead) == [one]


def task_of(run: Run, core: RedisOperations, queue: str) -> Move:
    move: Move = run(core.sqs_moves, queue)[0]
    return move


def values(run: Run, core: RedisOperations, queue: str) -> list[str]:
    return [message.value.decode() for message in run(core.queue_lease, queue, 1000, 1000)]


@pytest.mark.parametrize("end", ["", ".fifo"])
def test_dead_letters_go_back_to_the_queues_where_they_came_from(
    run: Run, timed: RedisOperations, queue: str, end: str
) -> None:
    one, two, dead = (f"{queue}-{name}{end}" for name in ("one", "two", "dead"))
    make(run, timed, one, two, dead)
    bury(run, timed, one, dead, *(f"a{number}" for number in range(150)))
    bury(run, timed, two, dead, "b1", "b2")
    assert run(timed.sqs_dead_letter_sources, dead) == [one, two]
    move = run(timed.sqs_move_start, dead)
    assert (move.status, move.to_move, move.source, move.destination) == ("RUNNING", 152, dead, "")
    for _ in range(3):
        step(run, timed, dead)
    assert task_of(run, timed, dead).moved == 152
    step(run, timed, dead)
    assert task_of(run, timed, dead).status == "COMPLETED"
    assert values(run, timed, one) == [f"a{number}" for number in range(150)]
    assert values(run, timed, two) == ["b1", "b2"]
    assert values(run, timed, dead) == []
    found = json.loads(run(timed.queue_find, f"{two}:3").message.record)
    assert uuid.UUID(found["id"]), "a message that a task moves is a new one, as on SQS"
    assert ("origin" in found, found["count"], "received" in found) == (False, 1, False)


def test_dead_letters_go_to_the_destination(run: Run, timed: RedisOperations, queue: str) -> None:
    dead, other = queue + "-dead", queue + "-other"
    make(run, timed, queue, dead, other)
    bury(run, timed, queue, dead, "a1")
    run(timed.queue_add, dead, b"sent to it directly")
    run(timed.sqs_move_start, dead, other)
    step(run, timed, dead)
    assert values(run, timed, other) == ["a1", "sent to it directly"]


def test_a_message_of_unknown_origin_ends_the_task_and_stays(run: Run, timed: RedisOperations, queue: str) -> None:
    make(run, timed, queue)
    run(timed.queue_add, queue, b"sent to it directly")
    run(timed.sqs_move_start, queue)
    step(run, timed, queue)
    move = task_of(run, timed, queue)
    assert (move.status, move.failure, move.moved) == ("FAILED", "CouldNotDetermineMessageSource", 0)
    assert values(run, timed, queue) == ["sent to it directly"]


def test_a_destination_that_was_removed_ends_the_task(run: Run, timed: RedisOperations, queue: str) -> None:
    dead = queue + "-dead"
    make(run, timed, queue, dead)
    bury(run, timed, queue, dead, "a1")
    run(timed.queue_remove, queue)
    run(timed.sqs_move_start, dead)
    step(run, timed, dead)
    assert task_of(run, timed, dead).failure == "AWS.SimpleQueueService.NonExistentQueue"
    assert values(run, timed, dead) == ["a1"]


def test_a_task_moves_a_number_of_messages_a_second(run: Run, timed: RedisOperations, clock: Clock, queue: str) -> None:
    other = queue + "-other"
    make(run, timed, queue, other)
    run(timed.queue_add_many, queue, [b"x"] * 5)
    run(timed.sqs_move_start, queue, other, 2)
    for moved in (2, 4, 5):
        step(run, timed, queue)
        step(run, timed, queue)
        assert task_of(run, timed, queue).moved == moved
        clock.go_on(1)
    step(run, timed, queue)
    assert task_of(run, timed, queue).status == "COMPLETED"


def test_messages_that_come_while_a_task_runs_stay(run: Run, timed: RedisOperations, queue: str) -> None:
    other = queue + "-other"
    make(run, timed, queue, other)
    run(timed.queue_add_many, queue, [b"before"] * 2)
    run(timed.sqs_move_start, queue, other)
    run(timed.queue_add, queue, b"after")
    for _ in range(3):
        step(run, timed, queue)
    assert task_of(run, timed, queue).status == "COMPLETED"
    assert values(run, timed, queue) == ["after"]


def test_a_queue_has_one_task_at_a_time_and_remembers_ten(
    run: Run, timed: RedisOperations, clock: Clock, queue: str
) -> None:
    other = queue + "-other"
    make(run, timed, queue, other)
    handles = []
    for number in range(12):
        clock.go_on(1)
        handles.insert(0, run(timed.sqs_move_start, queue, other, number).handle)
        with pytest.raises(Conflict):
            run(timed.sqs_move_start, queue, other)
        step(run, timed, queue)
    assert [move.handle for move in run(timed.sqs_moves, queue)] == handles[:10]
    assert [move.per_second for move in run(timed.sqs_moves, queue, 2)] == [11, 10]


def test_a_cancelled_task_moves_nothing_more(run: Run, timed: RedisOperations, queue: str) -> None:
    other = queue + "-other"
    make(run, timed, queue, other)
    run(timed.queue_add_many, queue, [b"x"] * 5)
    handle = run(timed.sqs_move_start, queue, other, 2).handle
    step(run, timed, queue)
    cancelled = run(timed.sqs_move_cancel, handle)
    assert (cancelled.status, cancelled.moved) == ("CANCELLED", 2)
    step(run, timed, queue)
    assert task_of(run, timed, queue) == cancelled
    with pytest.raises(Conflict):
        run(timed.sqs_move_cancel, handle)
    run(timed.sqs_move_start, queue, other)
    with pytest.raises(NotFound):
        run(timed.sqs_move_cancel, run(timed.sqs_move_start, other, queue).handle[:-8] + "AAAAAAA=")
    for text in ("", "x", "AAAA", "ü", "\ud800"):
        with pytest.raises(InvalidInput):
            run(timed.sqs_move_cancel, text)


def test_a_task_needs_its_queues(run: Run, timed: RedisOperations, queue: str) -> None:
    with pytest.raises(NotFound):
        run(timed.sqs_move_start, queue)
    make(run, timed, queue)
    with pytest.raises(NotFound):
        run(timed.sqs_move_start, queue, queue + "-other")
    with pytest.raises(InvalidInput):
        run(timed.sqs_move_start, queue, queue)


def test_a_step_that_was_cut_off_is_done_again_and_each_message_is_moved_once(
    run: Run, timed: RedisOperations, clock: Clock, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = queue + "-other"
    make(run, timed, queue, other)
    run(timed.queue_add_many, queue, [b"%d" % number for number in range(5)])
    run(timed.sqs_move_start, queue, other)

    async def dies(*_: object) -> None:
        raise StoreRefused("the daemon dies between the copies and the acks")

    with monkeypatch.context() as patch:
        patch.setattr(timed, "queue_ack_many", dies)
        step(run, timed, queue)
    assert run(timed.queue_len, other) == 5
    step(run, timed, queue)
    assert task_of(run, timed, queue).moved == 0  # the step is still claimed
    clock.go_on(10)
    step(run, timed, queue)
    step(run, timed, queue)
    assert (task_of(run, timed, queue).moved, task_of(run, timed, queue).status) == (5, "COMPLETED")
    assert values(run, timed, other) == ["0", "1", "2", "3", "4"]
    assert values(run, timed, queue) == []


def test_a_removed_queue_takes_its_tasks_along(run: Run, private_core: RedisOperations, private_redis: Redis) -> None:
    core = private_core
    make(run, core, "q", "other")
    run(core.queue_add, "q", b"x")
    run(core.sqs_move_start, "q", "other")
    run(core.queue_remove, "q")
    run(core.queue_remove, "other")
    assert private_redis.keys() == {"q:lastnumber"}
