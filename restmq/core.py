"""The operations on queues: one method, one guarantee, one Lua script or one command.

All of them are atomic: nobody sees half of one, whatever dies meanwhile. All raise StoreUnavailable where Redis does
not answer in time (whether the operation ran is then not known), StoreRefused where it answers with an error, and
InvalidInput for a queue name that is none.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger

from restmq.errors import Conflict, InvalidInput, QueueFull, StoreRefused, StoreUnavailable
from restmq.model import BATCH_MAX, DEAD_LETTER, Message, Policy, check_queue_name, is_queue_name
from restmq.queues.base import PROMOTE_FIRST, messages
from restmq.queues.leases import Leasing, new_receipt
from restmq.queues.peek import Peeking
from restmq.queues.results import TOTALS, Attendance, Missed, QueueOverview, QueueStats
from restmq.queues.tokens import Tokens
from restmq.store import keys, scripts
from restmq.store.batching import Batcher
from restmq.store.connection import Encoded
from restmq.store.pool import Store
from restmq.store.subscriber import Subscriber

log = Logger()

_OVERVIEW_QUEUES_A_CALL = 500
_of_overview = attrgetter(
    *("ready", "expiring", "status", "policy", "leased", "delayed", "dead"),
    *("number", "totals", "times"),
)
_GATHERED_BYTES = 1 << 20
_IDEMPOTENCY_SECONDS = 86_400
_PLAIN_ADD = (0, 0, 0, "", 0)  # no ttl, no delay, each on its own, no fingerprint


def _full() -> QueueFull:
    return QueueFull("the queue holds as many messages as its setting max_length allows; try again later.")


class RedisOperations(Leasing, Peeking, Tokens):
    """Queue operations on one Redis, shared by any number of daemons and tools."""

    def __init__(self, store: Store, now_ms: Callable[[], int] | None = None) -> None:
        super().__init__(store, now_ms)
        later = store.clock.callLater
        self._adds: Batcher[str, bytes, str] = Batcher(later, self._add_each)
        self._takes: Batcher[str, None, Message | None] = Batcher(later, self._take_each)

    async def queue_add(self, queue: str, value: bytes, ttl_seconds: float = 0) -> str:
        """Adds a message; the queue exists from its first one on.

        Returns:
            The message's key. Once it is returned, the message is in Redis, or was handed to at least one daemon with
            connected consumers (broadcast with no backlog; that delivery is at-most-once).

        Raises:
            QueueFull: the queue's setting ``max_length`` does not allow it.
        """
        if ttl_seconds:
            return (await self.queue_add_many(queue, [value], ttl_seconds))[0]
        key: str = await self._adds.add(check_queue_name(queue), value, len(value))
        return key

    async def _add_each(self, queue: str, values: list[bytes]) -> list[str | Exception]:
        """Each on its own: where the queue is full, those that came first are in."""
        _, *added = await self._run("add", queue, *_PLAIN_ADD, *values)
        keys: list[str | Exception] = [key.decode() for key in added]
        return keys + [_full() for _ in values[len(added) :]]

    async def queue_add_many(
        self,
        queue: str,
        values: Sequence[bytes],
        ttl_seconds: float = 0,
        delay_seconds: float = 0,
        idempotency_key: bytes = b"",
    ) -> list[str]:
        """Adds messages in one atomic step, in order; all of them or none. Returns their keys in the same order.

        Args:
            ttl_seconds: the messages vanish after this time; 0 for never.
            delay_seconds: they come up after this time; 0 for at once.
            idempotency_key: what was sent with this key in the last 24 hours is not added again; the keys of then are
                returned.

        Raises:
            QueueFull: the queue's setting ``max_length`` does not allow all of them.
            Conflict: something else was sent with this idempotency key.
        """
        if ttl_seconds < 0 or delay_seconds < 0:
            raise InvalidInput("a time to live, or a delay, can't be negative.")
        check_queue_name(queue)
        if not values:
            return []
        self._adds.flush(queue)  # what came before goes before
        times_ms = [max(1, round(seconds * 1000)) if seconds else 0 for seconds in (ttl_seconds, delay_seconds)]
        fingerprint = ""
        more_keys: tuple[bytes, ...] = ()
        if idempotency_key:
            said = b"".join(b"%d:%b" % (len(value), value) for value in values)
            fingerprint = hashlib.sha256(b"%d,%d," % tuple(times_ms) + said).hexdigest()
            more_keys = (keys.idempotency(queue, hashlib.sha256(idempotency_key).hexdigest()),)
        state, *added = await self._run(
            "add", queue, *times_ms, 1, fingerprint, _IDEMPOTENCY_SECONDS * 1000, *values, more_keys=more_keys
        )
        if state == b"full":
            raise _full()
        if state == b"conflict":
            raise Conflict("something else was sent with this Idempotency-Key before; choose another key.")
        return [key.decode() for key in added]

    async def queue_get(self, queue: str, softget: bool = False) -> Message | None:
        """The next message, or None. With softget it stays where it is and its count goes up; else see queue_getdel."""
        if not softget:
            return await self.queue_getdel(queue)
        found = messages(await self._run_promoted("peek_next", queue))
        return found[0] if found else None

    async def queue_getdel(self, queue: str) -> Message | None:
        """Takes the next message for good: at-most-once. Nothing of it stays in Redis; a lost answer loses it."""
        message: Message | None = await self._takes.add(check_queue_name(queue), None)
        return message

    async def _take_each(self, queue: str, askers: list[None]) -> list[Message | Exception | None]:
        return await self._share_out(len(askers), lambda count: self._run_to_bound("take", queue, count, b""))

    async def queue_tail(self, queue: str, count: int = 10, waiter: bytes = b"") -> list[Message]:
        """Takes up to ``count`` (1 to 1000) messages off the front for good, the oldest first; as queue_getdel.

        Fewer than there are where they are large: at most 16 MiB, or one message.

        Args:
            waiter: a daemon's channel. Where there were not enough, it is told when something comes, until queue_leave.
        """
        return messages(await self._run_promoted("take", queue, min(count, BATCH_MAX), waiter))

    async def queue_leave(self, queue: str, waiter: bytes) -> None:
        """The waiter of queue_tail or queue_lease no longer waits; what it was told of is offered to the next."""
        await self._run("unregister_waiter", queue, waiter)

    async def queue_block_multi_get(
        self, queues: Sequence[str], timeout_seconds: float = 60, stop: defer.Deferred[None] | None = None
    ) -> tuple[str, Message] | None:
        """Takes a message from the first of these queues that has one, waiting for it if need be; as queue_getdel.

        Args:
            stop: the waiting ends when it fires. (Cancelling could lose a message that Redis has just handed out.)

        Returns:
            The queue and its message, or None after the time is over or the waiting was stopped.
        """
        for queue in queues:
            check_queue_name(queue)
        clock: Any = self.store.clock
        deadline = clock.seconds() + timeout_seconds
        channel = keys.daemon_channel(secrets.token_hex(8))
        woken: defer.DeferredQueue[None] = defer.DeferredQueue()
        if stop is not None:
            stop.addCallback(lambda _: woken.put(None))
        subscriber = self.pubsub(lambda *_: woken.put(None), on_renewed=lambda: woken.put(None))
        try:
            confirmed = subscriber.subscribe(channel)
            await confirmed.addTimeout(self.store.settings.call_timeout_seconds, clock, not_reachable)
            while stop is None or not stop.called:
                for queue in queues:
                    for message in await self.queue_tail(queue, 1, channel):
                        return queue, message
                remaining = deadline - clock.seconds()
                if remaining <= 0:
                    return None
                try:
                    await woken.get().addTimeout(remaining, clock)
                except defer.TimeoutError:
                    return None
            return None
        finally:
            await self._stop_waiting(queues, channel, subscriber)

    async def _stop_waiting(self, queues: Sequence[str], channel: bytes, subscriber: Subscriber) -> None:
        """Must not fail: what was taken before would be lost. A waiter that stays behind is struck off when told."""
        try:
            for queue in queues:
                await self.queue_leave(queue, channel)
        except (StoreUnavailable, StoreRefused) as problem:
            log.debug("a waiter was left behind: {problem}", problem=problem)
        await self.store.drop(subscriber)

    async def queue_del(self, queue: str, key: str) -> bool:
        """Deletes a message wherever it stands in the queue. Returns whether it was there."""
        return bool(await self._run("delete", queue, key))

    async def queue_len(self, queue: str) -> int:
        """How many messages wait; expired ones don't count."""
        return int(await self._run("length", queue))

    async def queue_count_elements(self, queue: str) -> int:
        """How many messages Redis holds for the queue."""
        return await self.queue_len(queue)

    async def queue_all(self) -> list[str]:
        """The names of all queues, sorted; names in old data that no queue may have any more are passed over."""
        names = [name.decode(errors="replace") for name in await self.store.command("SMEMBERS", keys.QUEUE_SET)]
        return sorted(name for name in names if "\ufffd" not in name and is_queue_name(name))

    async def queue_overview(self, queues: Iterable[str]) -> list[QueueOverview]:
        """Many queues in numbers; one call to Redis per 500."""
        names = list(queues)
        lines: list[QueueOverview] = []
        for start in range(0, len(names), _OVERVIEW_QUEUES_A_CALL):
            part = names[start : start + _OVERVIEW_QUEUES_A_CALL]
            uncached = keys.for_queue.__wrapped__  # the cache is for queues in use
            wanted = [key for name in part for key in _of_overview(uncached(check_queue_name(name)))]
            flat = await self.store.run(scripts.load("queue_rows"), Encoded([len(wanted), *wanted]))
            lines += [
                QueueOverview(name, ready, bool(started), Policy(policy), *beside)
                for i, name in enumerate(part)
                for ready, started, policy, *beside in [flat[9 * i : 9 * i + 9]]
            ]
        return lines

    async def queue_stats(self, queue: str) -> QueueStats:
        """The queue in numbers."""
        found = await self._run_promoted("stats", queue)
        ready, leased, delayed, dead, started, policy, age_ms, number, *flat = found
        totals = {"in": number} | dict.fromkeys(TOTALS, 0)
        totals |= {flat[i].decode(): int(flat[i + 1]) for i in range(0, len(flat), 2)}
        age = age_ms if age_ms >= 0 else None
        return QueueStats(queue, ready, leased, delayed, dead, bool(started), Policy(policy), age, totals)

    async def multi_queue_by_status(self, queues: Iterable[str], started: bool = True) -> list[str]:
        """Those of the queues that are started, or those that are stopped."""
        return [line.name for line in await self.queue_overview(queues) if line.started == started]

    async def queue_last_items(self, queue: str, count: int = 10) -> list[Message]:
        """Looks at the newest messages, the newest first, without counting it as a look."""
        return messages(await self._run("peek_newest", queue, max(1, min(count, BATCH_MAX))))

    async def queue_purge(self, queue: str, close_consumers: bool = False) -> int:
        """Empties the queue in one atomic step and drops what was in it: waiting, leased, delayed and dead messages.

        Message numbers go on where they were.

        Args:
            close_consumers: also close the queue's connected consumers, on every daemon.

        Returns:
            How many messages it held.
        """
        dropping = keys.for_queue(check_queue_name(queue)).being_dropped()
        purged, renamed, left = 0, 0, 1
        while not renamed or left:
            renamed, count, left = await self._run(
                "purge", queue, int(not renamed), int(close_consumers), more_keys=dropping
            )
            purged += count
        return purged

    async def queue_policy_set(self, queue: str, policy: Policy) -> None:
        """Sets who gets the queue's messages; every daemon follows at once."""
        await self._run("policy", queue, policy.value)

    async def queue_policy_get(self, queue: str) -> Policy:
        """The queue's policy; broadcast if none was ever set."""
        found = await self.store.command("GET", keys.for_queue(check_queue_name(queue)).policy)
        return Policy.ROUNDROBIN if found == b"2" else Policy.BROADCAST

    async def queue_settings_set(self, queue: str, settings: Mapping[str, int | str]) -> None:
        """Changes the settings that are named, in one step; 0 or '' takes one away. See ``restmq.model.SETTINGS``."""
        other = settings.get(DEAD_LETTER)
        if other and check_queue_name(other) == queue:
            raise InvalidInput("a queue's dead letters can't go to the queue itself; leave dead_letter empty for /d/.")
        await self._run("settings", queue, *(part for setting in settings.items() for part in setting))

    async def queue_settings_get(self, queue: str) -> dict[str, int | str]:
        """The queue's settings; those that nobody set are not there."""
        flat = await self.store.command("HGETALL", keys.for_queue(check_queue_name(queue)).settings)
        said = {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}
        return {name: value if name == DEAD_LETTER else int(value) for name, value in said.items()}

    async def queue_missed(self, queue: str, last_key: str, mark: str) -> Missed:
        """What the queue's history holds after a message; in the same instant the mark is published on its channel."""
        kept, gap, *flat = await self._run("replay", queue, last_key, mark)
        return Missed(bool(kept), bool(gap), [Message(flat[i].decode(), flat[i + 1]) for i in range(0, len(flat), 2)])

    async def queue_changestatus(self, queue: str, started: bool) -> bool:
        """Starts or stops the delivery to connected consumers, on every daemon; also before the first message."""
        await self._run("status", queue, int(started))
        return started

    async def queue_status(self, queue: str) -> bool:
        """Whether the queue is started; one of which nobody ever said anything is."""
        return bool(await self.store.command("GET", keys.for_queue(check_queue_name(queue)).status) != b"0")

    async def queue_attend(
        self, queue: str, daemon: bytes, weight: int, room: int, lease_ms: int = 0, backlog_bytes: int = 1 << 20
    ) -> Attendance:
        """A daemon looks after its consumers of the queue; ``lua/attend.lua`` says what happens.

        Args:
            daemon: its channel.
            weight: how many of its consumers are ready for more; 0 when it goes.
            room: how many messages they can hold, up to 1000.
            lease_ms: the consumers hold messages under leases of this length; 0 for no leases.
            backlog_bytes: after so much of what waits for a broadcast no more is published; 0 for a daemon without
                consumers, which publishes nothing.

        Returns:
            With round robin, messages that are from now on the daemon's own to deliver, or leased to it.
        """
        receipt = new_receipt() if lease_ms else ""
        args = (daemon, weight, min(room, BATCH_MAX), lease_ms, receipt, backlog_bytes)
        policy, again, *taken = await self._run("attend", queue, *args)
        if again == PROMOTE_FIRST:
            await self.queue_promote(queue)
        return Attendance(Policy(policy), bool(again), messages(taken))

    def pubsub(self, on_message: Any, **callbacks: Any) -> Subscriber:
        """A connection of its own to hear on channels; see ``restmq.store.subscriber.Subscriber``."""
        return self.store.subscriber(on_message, **callbacks)


def not_reachable(_failure: Any, _timeout: float) -> None:
    """What a Deferred that waits for Redis is to do when its time is over."""
    raise StoreUnavailable("the message store (Redis) is not reachable; try again in a moment.")
