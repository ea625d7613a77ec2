"""Random operations on a real Redis, compared with a simple model of a queue. The test controls the clock."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import os
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
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
from twisted.internet import reactor

from restmq.core import RedisOperations
from restmq.delivery.backpressure import BackpressureLimits
from restmq.delivery.format import Format
from restmq.delivery.shared import Shared
from restmq.delivery.taps import Taps
from restmq.errors import Conflict, LeaseGone, NotFound, QueueFull
from restmq.http.turns import Turns
from restmq.model import Message, Metadata, read_record
from restmq.queues.overview import PEEK_MAX
from tests.integration.conftest import Clock, Run
from tests.servers import Redis, wait_until
from tests.unit.fanout_scene import StubConsumer

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "150"))
fresh = itertools.count()
STEPS = [0]


@dataclass
class Entry:
    """A message in the model."""

    key: str
    value: bytes
    expires_ms: int = 0
    looks: int = 0
    delivered: int = 0
    first_ms: int = 0
    last_ms: int = 0
    died_ms: int = 0
    reason: str = ""
    origin: str = ""
    joined: tuple[int, int] = (0, 0)

    @property
    def number(self) -> int:
        return int(self.key.rpartition(":")[2])

    @property
    def order(self) -> tuple[int, int]:
        """Its place in the queue: the last number when it joined, and how many had joined late before."""
        return self.joined if any(self.joined) else (self.number, 0)


@dataclass
class Model:
    """A simple model of a queue. The first item of a list is the front."""

    name: str
    now: int = 0
    number: int = 0
    before: int = 0
    ready: list[Entry] = field(default_factory=list)
    leased: dict[str, tuple[int, str, Entry]] = field(default_factory=dict)
    delayed: dict[str, tuple[int, Entry]] = field(default_factory=dict)
    dead: list[Entry] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("out", "leased", "acked", "dead"), 0))
    max_deliveries: int = 0
    max_length: int = 0
    retry_delay: int = 0
    retry_delay_max: int = 0
    grave: Model | None = None
    sent: dict[bytes, tuple[object, list[str]]] = field(default_factory=dict)
    put: list[str] = field(default_factory=list)

    def alive(self, entry: Entry) -> bool:
        return entry.expires_ms == 0 or entry.expires_ms > self.now

    def living(self) -> list[Entry]:
        return [entry for entry in self.ready if self.alive(entry)]

    def next_key(self) -> str:
        self.number += 1
        self.put.append(f"{self.name}:{self.number}")
        return self.put[-1]

    def add(self, values: list[bytes], ttl_ms: int, delay_ms: int) -> list[str]:
        if (
            self.max_length
            and len(self.living()) + len(self.leased) + len(self.delayed) + len(values) > self.max_length
        ):
            raise QueueFull
        keys = []
        for value in values:
            entry = Entry(self.next_key(), value, self.now + ttl_ms if ttl_ms else 0)
            if delay_ms:
                self.delayed[entry.key] = self.now + delay_ms, entry
            else:
                self.ready.append(entry)
            keys.append(entry.key)
        return keys

    def join(self, entry: Entry) -> None:
        """Puts a message at the end that was added earlier."""
        entry.joined = self.number, next(fresh)
        self.ready.append(entry)

    def come_back(self, entries: list[Entry]) -> None:
        self.ready = sorted(self.living() + entries, key=lambda entry: entry.order)

    def pop(self, count: int) -> list[Entry]:
        self.promote()
        found = self.living()[:count]
        gone = {entry.key for entry in found}
        self.ready = [entry for entry in self.living() if entry.key not in gone]
        return found

    def take(self, count: int) -> list[Entry]:
        found = self.pop(count)
        self.totals["out"] += len(found)
        return found

    def lease(self, count: int, lease_ms: int) -> list[Entry]:
        found = self.pop(count)
        for entry in found:
            entry.delivered += 1
            entry.first_ms, entry.last_ms = entry.first_ms or self.now, self.now
            self.leased[entry.key] = self.now + lease_ms, "", entry
        self.totals["leased"] += len(found)
        return found

    def holds(self, key: str, receipt: str) -> bool:
        due_ms, held, _ = self.leased.get(key, (0, None, None))
        return held == receipt and due_ms > self.now

    def retry_delay_ms(self, entry: Entry, receipt: str) -> int:
        random = int(hashlib.sha1(receipt.encode()).hexdigest()[:4], 16) / 65535
        seconds: float = min(self.retry_delay * 2.0 ** (entry.delivered - 1), self.retry_delay_max or 3600)
        return int(1000 * seconds * (1 + 0.1 * random))

    def fail(
        self, entries: list[Entry], *, blameless: bool = False, delay_ms: int | None = None, reason: str = ""
    ) -> None:
        back = []
        for entry in sorted(entries, key=lambda entry: entry.order):
            ended_ms, receipt, _ = self.leased.pop(entry.key)
            if delay_ms is None:
                delay_ms_now = 0 if blameless or not self.retry_delay else self.retry_delay_ms(entry, receipt)
            else:
                delay_ms_now = delay_ms
            due_ms = min(ended_ms, self.now) + delay_ms_now
            entry.reason = reason or entry.reason
            if blameless:
                entry.delivered -= 1
                if not entry.delivered:
                    entry.first_ms = entry.last_ms = 0
            if not self.alive(entry):
                continue
            if self.max_deliveries and entry.delivered >= self.max_deliveries:
                entry.died_ms = min(ended_ms, self.now)
                bisect.insort(self.dead, entry, key=lambda letter: letter.died_ms)
                self.totals["dead"] += 1
            elif due_ms > self.now:
                self.delayed[entry.key] = due_ms, entry
            else:
                back.append(entry)
        self.come_back(back)

    def promote(self) -> None:
        self.fail([entry for due, _, entry in self.leased.values() if due <= self.now])
        up = sorted((due, entry.number, entry) for due, entry in self.delayed.values() if due <= self.now)
        for _, _, entry in up:
            del self.delayed[entry.key]
            if self.alive(entry) and not entry.delivered:
                self.join(entry)
        self.come_back([entry for _, _, entry in up if self.alive(entry) and entry.delivered])
        self.forward()

    def forward(self) -> None:
        if self.grave is not None:
            self.move_dead(self.grave)

    def move_dead(self, other: Model) -> int:
        living = [entry for entry in self.dead if self.alive(entry)]
        for entry in living:
            other.ready.append(Entry(other.next_key(), entry.value, entry.expires_ms, origin=entry.key))
        self.dead = []
        return len(living)

    def find(self, key: str) -> str | None:
        places = [("dead", self.dead), ("ready", self.ready)]
        for due, _, entry in self.leased.values():
            if entry.key == key and self.alive(entry):
                return "leased" if due > self.now else "ready"
        for due, entry in self.delayed.values():
            if entry.key == key and self.alive(entry):
                return "delayed" if due > self.now else "ready"
        for state, entries in places:
            if any(entry.key == key and self.alive(entry) for entry in entries):
                return state
        return None


#: Values that begin so are added with METADATA, so every message shows whether it kept its own.
HEADED, METADATA = b"\xffheaded:", Metadata("text/plain", {"x-message-name": 'ä/"'})
values = st.binary(max_size=20).filter(lambda value: not value.startswith(HEADED))
counts = st.integers(1, 4) | st.just(1000)
times_ms = st.integers(1, 40).map(lambda n: n * 50)


def metadata_of(message: Message) -> Metadata:
    return METADATA if message.value.startswith(HEADED) else Metadata()


class Tap(StubConsumer):
    """Notes the key of each message, and gaps."""

    def __init__(self) -> None:
        super().__init__(Format(lambda message: message.key.encode() + b"|", lambda last_key: b"gap|"))

    def write(self, *pieces: bytes) -> None:
        self.writes += b"".join(pieces).split(b"|")[:-1]


async def watch(taps: Taps, queue: str) -> Tap:
    tap = Tap()
    async with taps.opened(queue):
        taps.connect(queue, tap, None)
    return tap


async def leave(taps: Taps, queue: str, tap: Tap) -> None:
    taps.leave(queue, tap)


def machine(run: Run, redis: Redis, core: RedisOperations, clock: Clock, taps: Taps) -> type[RuleBasedStateMachine]:
    """The state machine on one Redis. Some of the queues have taps, which must make no difference."""

    class Queue(RuleBasedStateMachine):
        @initialize(
            max_deliveries=st.sampled_from([0, 1, 1, 2, 3]),
            max_length=st.sampled_from([0, 0, 0, 4, 7]),
            retry=st.sampled_from([(0, 0), (0, 0), (1, 0), (1, 2)]),
            with_grave=st.booleans(),
            large=st.booleans(),
            tapped=st.booleans(),
        )
        def begin(
            self,
            max_deliveries: int,
            max_length: int,
            retry: tuple[int, int],
            with_grave: bool,
            large: bool,
            tapped: bool,
        ) -> None:
            self.large = large
            number = next(fresh)
            self.grave = Model(f"grave {number}", clock.now_ms)
            said = {"max_deliveries": max_deliveries, "max_length": max_length}
            said |= {"retry_delay": retry[0], "retry_delay_max": retry[1]}
            self.model = Model(f"queue {number}", clock.now_ms, **said)
            self.queue = self.model.name
            self.model.grave = self.grave if with_grave else None
            run(core.queue_settings_set, self.queue, said | {"dead_letter": self.grave.name if with_grave else ""})
            self.taps = [run(watch, taps, name) for name in (self.queue, self.grave.name)] if tapped else []
            self.receipts: list[tuple[str, str]] = []
            self.keys: list[str] = [f"{self.queue}:1"]

        @rule(step=times_ms, promptly=st.booleans())
        def let_some_time_pass(self, step: int, promptly: bool) -> None:
            self.let_time_pass(step, promptly)

        def let_time_pass(self, step: int, promptly: bool) -> None:
            clock.now_ms += step
            self.model.now = self.grave.now = clock.now_ms
            if promptly:
                self.model.promote()
                while due := run(core.due_queues)[1]:
                    for queue in due:
                        run(core.queue_promote, queue)

        @rule(
            many=st.lists(values, min_size=1, max_size=5),
            ttl=st.just(0) | times_ms,
            delay=st.just(0) | times_ms,
            headed=st.booleans(),
        )
        def add_some(self, many: list[bytes], ttl: int, delay: int, headed: bool) -> None:
            self.add([HEADED + value for value in many] if headed else many, ttl, delay)

        def add(self, many: list[bytes], ttl: int, delay: int) -> None:
            sent = METADATA if many[0].startswith(HEADED) else None
            times = (ttl / 1000, delay / 1000)
            self.same(
                lambda: self.model.add(many, ttl, delay),
                lambda: run(core.queue_add_many, self.queue, many, *times, metadata=sent),
            )
            self.keys = [f"{self.queue}:{n}" for n in range(1, self.model.number + 1)] or self.keys

        # A call stops at 1,000 expired messages, so no more than that are there.
        @precondition(lambda self: self.large and self.model.number < 400)
        @rule(ttl=st.just(0) | times_ms, delay=st.just(0) | times_ms)
        def add_more_than_a_script_brings_up(self, ttl: int, delay: int) -> None:
            self.add([b"%d" % number for number in range(600)], ttl, delay)

        @rule(value=values)
        def add_plain(self, value: bytes) -> None:
            self.same(lambda: self.model.add([value], 0, 0)[0], lambda: run(core.queue_add, self.queue, value))

        @rule(value=st.sampled_from([b"a", b"b"]), key=st.sampled_from([b"x", b"y"]))
        def add_once(self, value: bytes, key: bytes) -> None:
            def expected() -> list[str]:
                if key in self.model.sent:
                    before, keys = self.model.sent[key]
                    if before != value:
                        raise Conflict
                    return keys
                keys = self.model.add([value], 0, 0)
                self.model.sent[key] = value, keys
                return keys

            self.same(expected, lambda: run(core.queue_add_many, self.queue, [value], idempotency_key=key))

        @rule(count=counts)
        def take(self, count: int) -> None:
            self.same_messages(self.model.take(count), run(core.queue_tail, self.queue, count), leased=False)

        @rule(count=counts)
        def take_for_one_who_left(self, count: int) -> None:
            taken = run(core.queue_tail, self.queue, count)
            expected = self.model.take(count)
            self.same_messages(expected, taken, leased=False)
            if taken:
                run(core.queue_put_back, self.queue, taken)
                for entry in expected:
                    entry.looks = 0
                self.model.come_back(expected)
                self.model.totals["out"] -= len(expected)

        @rule(count=counts, promptly=st.booleans())
        def lease_and_do_nothing(self, count: int, promptly: bool) -> None:
            self.lease(count, 50)
            self.let_time_pass(50, promptly)

        @rule(count=counts, lease=times_ms)
        def lease_some(self, count: int, lease: int) -> None:
            self.lease(count, lease)

        def lease(self, count: int, lease: int) -> None:
            found = run(core.queue_lease, self.queue, count, lease)
            self.same_messages(self.model.lease(count, lease), found, leased=True)
            for message in found:
                due_ms, _, entry = self.model.leased[message.key]
                self.model.leased[message.key] = due_ms, message.receipt, entry
                self.receipts.append((message.key, message.receipt))

        @rule(count=counts, lease=times_ms)
        def lease_for_one_who_left(self, count: int, lease: int) -> None:
            found = run(core.queue_lease, self.queue, count, lease)
            expected = self.model.lease(count, lease)
            self.same_messages(expected, found, leased=True)
            if found:
                run(core.queue_put_back, self.queue, found)
                self.model.fail(expected, blameless=True)
                self.model.forward()

        @rule(data=st.data())
        def ack(self, data: st.DataObject) -> None:
            key, receipt = self.some_receipt(data)

            def expected() -> None:
                if not self.model.holds(key, receipt):
                    raise LeaseGone
                del self.model.leased[key]
                self.model.totals["out"] += 1
                self.model.totals["acked"] += 1

            self.same(expected, lambda: run(core.queue_ack, key, receipt))

        @rule(data=st.data(), lease=times_ms)
        def extend(self, data: st.DataObject, lease: int) -> None:
            key, receipt = self.some_receipt(data)

            def expected() -> None:
                if not self.model.holds(key, receipt):
                    raise LeaseGone
                self.model.leased[key] = self.model.now + lease, receipt, self.model.leased[key][2]

            self.same(expected, lambda: run(core.queue_extend, key, receipt, lease))

        @rule(data=st.data())
        def ack_many(self, data: st.DataObject) -> None:
            leases = data.draw(st.lists(st.sampled_from([*self.receipts, (f"{self.queue}:1", "nonsense")]), max_size=9))
            expected = []
            for key, receipt in leases:
                expected.append(self.model.holds(key, receipt))
                if expected[-1]:
                    del self.model.leased[key]
                    self.model.totals["out"] += 1
                    self.model.totals["acked"] += 1
            assert run(core.queue_ack_many, self.queue, leases) == expected

        @rule(data=st.data(), delay=st.none() | st.just(0) | times_ms, reason=st.sampled_from(["", "a", "\u00fc\n\0"]))
        def nack(self, data: st.DataObject, delay: int | None, reason: str) -> None:
            key, receipt = self.some_receipt(data)

            def expected() -> None:
                if not self.model.holds(key, receipt):
                    raise LeaseGone
                self.model.fail([self.model.leased[key][2]], delay_ms=delay, reason=reason)
                self.model.forward()

            self.same(expected, lambda: run(core.queue_nack, key, receipt, delay, reason))

        @rule()
        def look(self) -> None:
            self.model.promote()
            found = run(core.queue_get, self.queue, True)
            living = self.model.living()
            if not living:
                assert found is None
            else:
                living[0].looks += 1
                assert (found.key, found.value, found.count) == (living[0].key, living[0].value, living[0].looks)

        @rule(data=st.data())
        def find(self, data: st.DataObject) -> None:
            key = data.draw(st.sampled_from(self.keys))
            found = run(core.queue_find, key)
            assert (found.state if found else None) == self.model.find(key)

        @rule(data=st.data())
        def delete(self, data: st.DataObject) -> None:
            key = data.draw(st.sampled_from(self.keys))
            expected = self.model.find(key) is not None
            self.model.ready = [entry for entry in self.model.ready if entry.key != key]
            self.model.dead = [entry for entry in self.model.dead if entry.key != key]
            self.model.leased.pop(key, None)
            self.model.delayed.pop(key, None)
            assert run(core.queue_del, self.queue, key) is expected

        @rule()
        def show_dead(self) -> None:
            count, found = run(core.queue_list_dead, self.queue, 0, 1000)
            expired = [entry for entry in self.model.dead[:1000] if not self.model.alive(entry)]
            shown = [entry for entry in self.model.dead[:1000] if self.model.alive(entry)]
            self.model.dead = [entry for entry in self.model.dead if entry not in expired]
            for letter in found:
                assert Metadata.parse(read_record(letter.message.record)) == metadata_of(letter.message)
            letters = [(letter, letter.message, read_record(letter.message.record)) for letter in found]
            assert [
                (message.key, message.value, letter.at_ms, record["count"], record.get("reason", ""))
                for letter, message, record in letters
            ] == [(entry.key, entry.value, entry.died_ms, entry.delivered, entry.reason) for entry in shown]
            assert count == len(self.model.dead)

        @rule(data=st.data(), drop=st.booleans())
        def settle_one_dead(self, data: st.DataObject, drop: bool) -> None:
            key = data.draw(st.sampled_from(self.keys))
            entry = next((entry for entry in self.model.dead if entry.key == key), None)

            def expected() -> int:
                if entry is None:
                    raise NotFound
                self.model.dead.remove(entry)
                if not drop:
                    if not self.model.alive(entry):
                        raise NotFound
                    self.revive(entry)
                return 1

            self.same(expected, lambda: run(core.queue_drop_dead if drop else core.queue_redrive, self.queue, key))

        @rule()
        def redrive_all(self) -> None:
            living = [entry for entry in self.model.dead if self.model.alive(entry)]
            self.model.dead = []
            for entry in living:
                self.revive(entry)
            assert run(core.queue_redrive, self.queue) == len(living)

        @rule()
        def redrive_to_the_grave(self) -> None:
            assert run(core.queue_redrive, self.queue, "", self.grave.name) == self.model.move_dead(self.grave)

        def revive(self, entry: Entry) -> None:
            entry.reason = ""
            entry.delivered = entry.first_ms = entry.last_ms = 0
            self.model.join(entry)

        @rule()
        def purge(self) -> None:
            model = self.model
            expected = len(model.living()) + len(model.leased) + len(model.delayed) + len(model.dead)
            assert run(core.queue_purge, self.queue) == expected
            model.ready, model.leased, model.delayed, model.dead = [], {}, {}, []

        @rule()
        def remove(self) -> None:
            model = self.model
            run(core.queue_remove, self.queue)
            assert run(core.queue_settings_get, self.queue) == {}
            assert self.queue not in run(core.queue_all)
            self.model = Model(self.queue, clock.now_ms, number=model.number, before=model.number)
            self.model.sent, self.model.put = model.sent, model.put

        @invariant()
        def the_numbers_are_the_same(self) -> None:
            if not hasattr(self, "model"):
                return
            STEPS[0] += 1
            self.model.promote()
            found = run(core.queue_stats, self.queue)
            expected = (len(self.model.living()), *map(len, (self.model.leased, self.model.delayed, self.model.dead)))
            assert (found.ready, found.leased, found.delayed, found.dead) == expected
            totals = {name: found.totals[name] for name in self.model.totals}
            assert totals == self.model.totals
            assert found.totals["in"] == self.model.number - self.model.before
            self.the_graves_are_the_same()

        def the_graves_are_the_same(self) -> None:
            shown: list[tuple[bytes, str]] = []
            first, count = 0, len(self.grave.living())
            while len(shown) < count:
                page = run(core.queue_peek, self.grave.name, "next", first, PEEK_MAX)
                assert page.count == count
                for seen in page.messages:
                    record = read_record(seen.record)
                    assert Metadata.parse(record) == metadata_of(Message(seen.key, seen.beginning))
                    shown.append((seen.beginning, record["origin"]["key"]))
                first += PEEK_MAX
            assert shown == [(entry.value, entry.origin) for entry in self.grave.living()]

        def some_receipt(self, data: st.DataObject) -> tuple[str, str]:
            return data.draw(st.sampled_from([*self.receipts, (f"{self.queue}:1", "nonsense")]))

        def same(self, expected: Any, done: Any) -> None:
            """Checks that the queue and the model return the same, or raise the same error."""
            try:
                wanted = expected()
            except (QueueFull, Conflict, LeaseGone, NotFound) as error:
                with pytest.raises(type(error)):
                    done()
            else:
                assert done() == wanted

        def same_messages(self, expected: list[Entry], found: list[Message], leased: bool) -> None:
            assert [(message.key, message.value) for message in found] == [(e.key, e.value) for e in expected]
            for entry, message in zip(expected, found, strict=True):
                assert message.expires_ms == entry.expires_ms
                assert message.count == (entry.delivered if leased else entry.looks)
                record = read_record(message.record)
                assert Metadata.parse(record) == metadata_of(message)
                shown = record["count"], record.get("first", 0), record.get("last", 0), record.get("reason", "")
                assert shown == (entry.delivered, entry.first_ms, entry.last_ms, entry.reason)

        def teardown(self) -> None:
            if not hasattr(self, "model"):
                return
            self.the_taps_saw_everything()
            for queue in (self.queue, self.grave.name):
                run(core.queue_purge, queue)
                left = {key.removeprefix(queue) for key in redis.command("KEYS", f"{queue}:*")}
                kept = {":UUID", ":settings", ":totals", ":lastnumber"}
                assert {key for key in left if not key.startswith((":idempotency:", ":adopted:", ":tap"))} <= kept

        def the_taps_saw_everything(self) -> None:
            for tap, model in zip(self.taps, (self.model, self.grave), strict=False):
                wait_until(lambda tap=tap, put=model.put: len(tap.writes) >= len(put))
                assert tap.writes == [key.encode() for key in model.put]
                run(leave, taps, model.name, tap)

    return Queue


def test_the_queue_does_what_a_plain_model_does(run: Run, redis: Redis, timed: RedisOperations, clock: Clock) -> None:
    turns = Turns(reactor.callLater, time.perf_counter)  # type: ignore[attr-defined]
    taps = Taps(Shared(core=timed, reactor=reactor, limits=BackpressureLimits(), turns=turns))
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine(run, redis, timed, clock, taps),
        settings=settings(
            max_examples=EXAMPLES if type(redis) is Redis else EXAMPLES // 3,  # a cluster is slower to look into
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{STEPS[0]} operations")
    assert STEPS[0] > 1000
