"""Random operations on a FIFO queue, compared with a simple model of one. The test controls the clock."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from restmq.core import RedisOperations
from restmq.model import Message
from restmq.queues.sqs import Handle, SqsEntry
from tests.integration.conftest import Clock, Run

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "100"))
KNOWN_MS = 300_000
fresh = itertools.count()


@dataclass
class Entry:
    """A message in the model. ``until_ms`` is the end of its lease or delay, or its time of death."""

    number: int
    group: str
    state: str = "ready"
    until_ms: int = 0
    delivered: int = 0
    receipt: str = ""


@dataclass
class Model:
    """A simple model of a FIFO queue."""

    now: int = 0
    number: int = 0
    delay_ms: int = 0
    max_deliveries: int = 0
    entries: list[Entry] = field(default_factory=list)
    ids: dict[str, tuple[int, int]] = field(default_factory=dict)

    def of(self, state: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.state == state]

    def send(self, group: str, deduplication_id: str) -> tuple[str, int]:
        forgotten_ms, number = self.ids.get(deduplication_id, (0, 0))
        if forgotten_ms > self.now:
            return "duplicate", number
        self.number += 1
        due_ms = self.now + self.delay_ms
        self.entries.append(Entry(self.number, group, "delayed" if self.delay_ms else "ready", due_ms))
        self.ids[deduplication_id] = self.now + KNOWN_MS, self.number
        return "sent", self.number

    def promote(self) -> None:
        for entry in sorted(self.of("leased"), key=lambda entry: entry.until_ms):
            if entry.until_ms <= self.now:
                self.fail(entry, entry.until_ms)
        for entry in self.of("delayed"):
            if entry.until_ms <= self.now:
                entry.state = "ready"

    def fail(self, entry: Entry, ended_ms: int, delay_ms: int = 0) -> None:
        entry.state, entry.until_ms = "ready", 0
        if self.max_deliveries and entry.delivered >= self.max_deliveries:
            entry.state, entry.until_ms = "dead", ended_ms
        elif ended_ms + delay_ms > self.now:
            entry.state, entry.until_ms = "delayed", ended_ms + delay_ms

    def pop(self, count: int) -> list[Entry]:
        """What comes next: as much as possible of the group with the oldest first message, then of the next group."""
        self.promote()
        groups: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.state != "dead":
                groups.setdefault(entry.group, []).append(entry)
        found: list[Entry] = []
        for group in sorted(groups.values(), key=lambda group: group[0].number):
            if all(entry.state != "leased" for entry in group):
                found += itertools.takewhile(lambda entry: entry.state == "ready", group)
        return found[:count]


def test_random_operations_on_a_fifo_queue_keep_to_the_model(run: Run, core: RedisOperations, clock: Clock) -> None:
    timed = RedisOperations(core.store, now_ms=lambda: clock.now_ms)
    groups, counts = st.sampled_from(["a", "b", "a!", "A", "~"]), st.sampled_from([1, 2, 3, 10])
    times = st.sampled_from([1, 1000])

    with_messages = precondition(lambda self: self.model.entries)

    class Operations(RuleBasedStateMachine):
        """Each rule does the same with Redis and with the model."""

        @initialize(deliveries=st.sampled_from([0, 1, 2]))
        def start(self, deliveries: int) -> None:
            self.queue = f"model-{os.getpid()}-{next(fresh)}.fifo"
            self.model = Model(clock.now_ms, max_deliveries=deliveries)
            self.handles: list[Handle] = []
            run(timed.sqs_create, self.queue, {"FifoQueue": "true"}, {}, {"max_deliveries": deliveries})

        def by_handle(self, handle: Handle) -> tuple[Entry | None, str]:
            """The message of a handle, and its state for the handle."""
            number = int(handle.key.rpartition(":")[2])
            entry = next((one for one in self.model.entries if one.number == number), None)
            if entry is None or entry.state == "dead" or not entry.delivered:
                return None, "gone"
            is_held = entry.state == "leased" and entry.until_ms > self.model.now
            return entry, "good" if is_held and entry.receipt == handle.receipt else "old"

        def some_handle(self, data: st.DataObject) -> Handle:
            return data.draw(st.sampled_from([*self.handles, Handle(f"{self.queue}:1", "nonsense")]))

        def same(self, expected: list[Entry], found: list[Message]) -> None:
            assert [message.key for message in found] == [f"{self.queue}:{entry.number}" for entry in expected]

        @rule(sent=st.lists(st.tuples(groups, st.integers(0, 99).map(str)), min_size=1, max_size=9))
        def send(self, sent: list[tuple[str, str]]) -> None:
            self.model.promote()
            entries = [SqsEntry(b"x", {}, None, group, name) for group, name in sent]
            found = run(timed.sqs_send, self.queue, entries)
            assert [(one.state, one.number) for one in found] == [self.model.send(*one) for one in sent]

        @with_messages
        @rule(lease_ms=times)
        def receive_one(self, lease_ms: int) -> None:
            self.receive(1, lease_ms)

        @with_messages
        @rule(lease_ms=times)
        def receive_two(self, lease_ms: int) -> None:
            self.receive(2, lease_ms)

        @with_messages
        @rule(lease_ms=times)
        def receive_ten(self, lease_ms: int) -> None:
            self.receive(10, lease_ms)

        def receive(self, count: int, lease_ms: int) -> None:
            found = run(timed.queue_lease, self.queue, count, lease_ms)
            expected = self.model.pop(count)
            self.same(expected, found)
            for entry, message in zip(expected, found, strict=True):
                entry.state, entry.until_ms = "leased", self.model.now + lease_ms
                entry.delivered, entry.receipt = entry.delivered + 1, message.receipt
                assert message.count == entry.delivered
                self.handles.append(Handle.of(message))

        @with_messages
        @rule(count=counts, is_kept=st.booleans())
        def take(self, count: int, is_kept: bool) -> None:
            found = run(timed.queue_tail, self.queue, count)
            expected = self.model.pop(count)
            self.same(expected, found)
            if not is_kept and found:
                run(timed.queue_put_back, self.queue, found)
            elif found:
                self.model.entries = [entry for entry in self.model.entries if entry not in expected]

        @with_messages
        @rule(data=st.data())
        def delete_by_handle(self, data: st.DataObject) -> None:
            handle = self.some_handle(data)
            entry, state = self.by_handle(handle)
            if entry is not None and state == "good":
                self.model.entries.remove(entry)
            assert run(timed.sqs_delete, self.queue, [handle]) == [state.replace("good", "deleted")]

        @with_messages
        @rule(data=st.data(), seconds=st.sampled_from([0, 0, 1, 30]))
        def change_visibility(self, data: st.DataObject, seconds: int) -> None:
            handle = self.some_handle(data)
            entry, state = self.by_handle(handle)
            if entry is not None and state == "good":
                state, entry.until_ms = "changed", self.model.now + seconds * 1000
                if not seconds:
                    self.model.fail(entry, self.model.now)
            assert run(timed.sqs_change_visibility, self.queue, [(handle, seconds)]) == [state]

        @with_messages
        @rule(delay_ms=times)
        def give_all_back(self, delay_ms: int) -> None:
            held = [entry for entry in self.model.of("leased") if entry.until_ms > self.model.now]
            leases = [(f"{self.queue}:{entry.number}", entry.receipt) for entry in held]
            for entry in held:
                self.model.fail(entry, self.model.now, delay_ms)
            assert run(timed.queue_release, self.queue, leases, delay_ms=delay_ms) == len(held)

        @with_messages
        @rule(number=st.integers(1, 30))
        def delete_by_key(self, number: int) -> None:
            there = [entry for entry in self.model.entries if entry.number == number]
            self.model.entries = [entry for entry in self.model.entries if entry.number != number]
            assert run(timed.queue_del, self.queue, f"{self.queue}:{number}") is bool(there)

        @rule(seconds=st.sampled_from([0.001, 1, 1, 5, 299]))
        def time_passes(self, seconds: float) -> None:
            clock.go_on(seconds)
            self.model.now = clock.now_ms

        @rule(delay_seconds=st.sampled_from([0, 0, 5]), deliveries=st.sampled_from([0, 1, 2]))
        def configure(self, delay_seconds: int, deliveries: int) -> None:
            self.model.promote()
            run(timed.queue_promote, self.queue)
            self.model.delay_ms, self.model.max_deliveries = delay_seconds * 1000, deliveries
            run(timed.sqs_set, self.queue, {"DelaySeconds": str(delay_seconds)}, {"max_deliveries": deliveries})

        @with_messages
        @rule()
        def redrive(self) -> None:
            for entry in self.model.of("dead"):
                entry.state, entry.delivered = "ready", 0
            run(timed.queue_redrive, self.queue)

        @with_messages
        @rule()
        def purge(self) -> None:
            run(timed.queue_purge, self.queue)
            self.model.entries = []

        @invariant()
        def counts_and_order_are_the_same(self) -> None:
            self.model.promote()
            found = run(timed.sqs_get, self.queue)
            states = ("ready", "leased", "delayed", "dead")
            assert [getattr(found, state) for state in states] == [len(self.model.of(state)) for state in states]
            expected = [f"{self.queue}:{entry.number}" for entry in self.model.of("ready")]
            assert [message.key for message in run(timed.queue_peek, self.queue, "next", 0, 100).messages] == expected

    run_state_machine_as_test(
        Operations,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
