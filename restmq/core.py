"""All operations on queues: one method, one guarantee, one Lua script or one command.

Each operation is atomic, whatever fails meanwhile. Each raises StoreUnavailable if Redis does not answer in time (then
it is unknown whether the operation ran), StoreRefused if Redis answers with an error, and InvalidInput for an invalid
queue name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

from twisted.internet import defer

from restmq.errors import Conflict, InvalidInput, QueueFull, StoreUnavailable
from restmq.model import BATCH_MAX, DEAD_LETTER, Message, Metadata, Policy, check_queue_name, position_of
from restmq.queues.base import State
from restmq.queues.broadcast import BroadcastOperations
from restmq.queues.leases import new_receipt
from restmq.queues.moves import MoveOperations
from restmq.queues.results import Attendance, ReplayPage, read_settings
from restmq.queues.tokens import TokenOperations
from restmq.store.base import BaseStore, ChannelEvents, Subscription
from restmq.store.batching import Batcher

#: Time for which Redis keeps a fingerprint.
_FINGERPRINT_MS = 86_400_000


def _full() -> QueueFull:
    return QueueFull("the queue holds as many messages as its setting max_length allows; try again later.")


class RedisOperations(BroadcastOperations, MoveOperations, TokenOperations):
    """All operations, on one Redis that any number of daemons and tools share."""

    def __init__(self, store: BaseStore, now_ms: Callable[[], int] | None = None, expires_seconds: int = 0) -> None:
        super().__init__(store, now_ms)
        self.expires_seconds = expires_seconds
        self._adds: Batcher[str, bytes, str] = Batcher(store.turn_end, self._add_each)
        self._takes: Batcher[str, None, Message | None] = Batcher(store.turn_end, self._take_each)

    async def queue_add(self, queue: str, value: bytes, ttl_seconds: float = 0) -> str:
        """Adds a message; the queue exists from its first message on.

        Returns:
            The message's key. From then on the message is in Redis, or (broadcast without backlog) at least one daemon
            with consumers has it; that delivery is at-most-once.

        Raises:
            QueueFull: the queue's setting ``max_length`` does not allow the message.
        """
        if ttl_seconds:
            return (await self.queue_add_many(queue, [value], ttl_seconds))[0]
        key: str = await self._adds.add(queue, value, len(value))
        return key

    async def _add_each(self, queue: str, values: list[bytes]) -> list[str | Exception]:
        """Adds each value separately: if the queue becomes full, the first ones are in."""
        options = self._options(expires=self.expires_seconds)
        _, *added = await self._run("add", queue, *options, *values)
        keys: list[str | Exception] = [*self._shown(queue, added)]
        return keys + [_full() for _ in values[len(added) :]]

    @staticmethod
    def _options(**options: Any) -> list[Any]:
        """Options as ``lua/_options.lua`` expects them: the number of arguments, then names and values."""
        flat = [part for option in options.items() if option[1] for part in option]
        return [len(flat), *flat]

    async def queue_add_many(
        self,
        queue: str,
        values: Sequence[bytes],
        ttl_seconds: float = 0,
        delay_seconds: float = 0,
        idempotency_key: bytes = b"",
        metadata: Metadata | None = None,
        dead: bool = False,
    ) -> list[str]:
        """Adds messages in one atomic step, in order; all of them or none. Returns their keys in the same order.

        Args:
            ttl_seconds: time until the messages expire; 0 for never.
            delay_seconds: time until the messages can be delivered; 0 for at once.
            idempotency_key: if the same messages were added with this key in the last 24 hours, nothing is added, and
                the keys of that call are returned.
            metadata: is kept with each message.
            dead: add the messages as dead letters that died now; ``max_length`` and a delay then have no effect.

        Raises:
            QueueFull: the queue's setting ``max_length`` does not allow all of the messages.
            Conflict: other messages were added with this idempotency key.
        """
        if ttl_seconds < 0 or delay_seconds < 0:
            raise InvalidInput("a time to live, or a delay, can't be negative.")
        check_queue_name(queue)
        if not values:
            return []
        self._adds.flush(queue)  # earlier adds go first
        times_ms = [max(1, round(seconds * 1000)) if seconds else 0 for seconds in (ttl_seconds, delay_seconds)]
        parameters = b"dead,%d," % times_ms[0] if dead else b"%d,%d," % tuple(times_ms)
        fingerprint, more_keys = self._fingerprint(queue, idempotency_key, parameters, values, metadata)
        options = self._options(
            whole=1,
            ttl_ms=times_ms[0],
            delay_ms=times_ms[1],
            fingerprint=fingerprint,
            fingerprint_ms=fingerprint and _FINGERPRINT_MS,
            record=metadata.record(self.store.time_ms()) if metadata is not None else b"",
            expires=self.expires_seconds,
        )
        script = "add_dead" if dead else "add"
        state, *added = await self._run(script, queue, *options, *values, more_keys=more_keys)
        if state == b"full":
            raise _full()
        if state == b"conflict":
            raise Conflict("another message was sent with this Idempotency-Key before; choose another key.")
        return self._shown(queue, added)

    def _fingerprint(
        self, queue: str, idempotency_key: bytes, options: bytes, values: Sequence[bytes], metadata: Metadata | None
    ) -> tuple[str, tuple[bytes, ...]]:
        """The fingerprint of what is added with an idempotency key, and the Redis keys that keep it; empty without."""
        if not idempotency_key:
            return "", ()
        record = metadata.record(0) if metadata is not None else b""
        content = b"".join(b"%d:%b" % (len(value), value) for value in values)
        fingerprint = hashlib.sha256(options + record + content).hexdigest()
        digest = hashlib.sha256(idempotency_key).hexdigest()
        return fingerprint, (self.layout.idempotency(check_queue_name(queue), digest),)

    async def queue_get(self, queue: str, softget: bool = False) -> Message | None:
        """Takes the next message as queue_getdel. With ``softget``, only peeks at the message, and counts the peek."""
        if not softget:
            message: Message | None = await self.queue_getdel(queue)
            return message
        found = self._messages(queue, await self._run_promoted("peek_next", queue))
        return found[0] if found else None

    def queue_getdel(self, queue: str) -> defer.Deferred[Message | None]:
        """Takes the next message for good, or returns None: at-most-once. If the answer is lost, so is the message."""
        return self._takes.add(queue, None)

    async def _take_each(self, queue: str, askers: list[None]) -> list[Message | Exception | None]:
        return await self._share_out(queue, len(askers), lambda count: self._run_to_limit("take", queue, count, b""))

    async def queue_tail(self, queue: str, count: int = 10, waiter: bytes = b"") -> list[Message]:
        """Takes up to ``count`` (1 to 1000) messages from the front for good, the oldest first: at-most-once.

        Stops at about 16 MiB of values, but takes at least one message.

        Args:
            waiter: a daemon's channel. If there were fewer messages, the daemon is notified of new ones, until it calls
                queue_unregister_waiter.
        """
        return self._messages(queue, await self._run_promoted("take", queue, min(count, BATCH_MAX), waiter))

    async def queue_unregister_waiter(self, queue: str, waiter: bytes) -> None:
        """Ends the wait of queue_tail or queue_lease. If there are messages, the next waiting party is notified."""
        await self._run("unregister_waiter", queue, waiter)

    async def queue_del(self, queue: str, key: str) -> bool:
        """Deletes a message in any state. Returns whether it existed."""
        return bool(await self._run("delete", queue, self.layout.tag(queue) + key.encode()))

    async def queue_len(self, queue: str) -> int:
        """The number of ready messages that have not expired."""
        return int(await self._run("length", queue))

    async def queue_purge(self, queue: str, close_consumers: bool = False) -> int:
        """Empties the queue in one atomic step: drops its ready, leased, delayed and dead messages.

        Message numbers are not reset.

        Args:
            close_consumers: whether to close the queue's live consumers too, on every daemon.

        Returns:
            The number of messages that the queue held.
        """
        return (await self._purge(queue, close_consumers, remove=False))[0]

    async def queue_remove(self, queue: str) -> bool:
        """Purges the queue, closes its live consumers, and drops its settings, policy, status and counters in one step.

        If it comes again within a day, its message numbers go on. Returns whether there was anything to remove.
        """
        purged, removed = await self._purge(queue, close_consumers=True, remove=True)
        return purged + removed > 0

    async def _purge(self, queue: str, close_consumers: bool, remove: bool) -> tuple[int, int]:
        dropping = self.layout.for_queue(check_queue_name(queue)).being_dropped()
        purged, removed, renamed, remaining = 0, 0, 0, 1
        while not renamed or remaining:
            args = (int(not renamed), int(close_consumers), int(remove))
            renamed, count, remaining, keys_removed = await self._run("purge", queue, *args, more_keys=dropping)
            purged += count
            removed += keys_removed
        return purged, removed

    async def queue_policy_set(self, queue: str, policy: Policy) -> None:
        """Sets the queue's policy; every daemon follows at once."""
        await self._run("policy", queue, policy.value, self.expires_seconds)

    async def queue_policy_get(self, queue: str) -> Policy:
        """The queue's policy; broadcast if it was never set."""
        found = await self.store.command("GET", self.layout.for_queue(check_queue_name(queue)).policy)
        return Policy.ROUNDROBIN if found == b"2" else Policy.BROADCAST

    async def queue_settings_set(self, queue: str, settings: Mapping[str, int | str]) -> None:
        """Changes these settings (``restmq.model.SETTINGS``) in one step; 0 or '' resets one to its default."""
        other = settings.get(DEAD_LETTER)
        if other and check_queue_name(other) == queue:
            raise InvalidInput("a queue's dead letters can't go to the queue itself; leave dead_letter empty for /d/.")
        await self._run(
            "settings", queue, self.expires_seconds, *(part for setting in settings.items() for part in setting)
        )

    async def queue_settings_get(self, queue: str) -> dict[str, int | str]:
        """The queue's settings, without those that have their defaults."""
        return read_settings(
            await self.store.command("HGETALL", self.layout.for_queue(check_queue_name(queue)).settings)
        )

    async def queue_replay(
        self, queue: str, after: str, marker: str, *, page_bytes: int = 1 << 20, continues: bool = False
    ) -> ReplayPage:
        """Reads one page of the queue's history: the messages that were broadcast after the message ``after``.

        Call it with the key that the consumer saw last, and then, with ``continues``, with each page's ``last_key``
        while the page says ``more``. The last page publishes the marker on the queue's channel in the same step. So
        the pages have all messages broadcast before the marker, and the channel has all others behind the marker. A
        caller that subscribed before its first call drops the messages that arrive before the marker, and so has
        neither a gap nor a repeat. If the queue keeps no history (``kept`` is False), the pages are empty, and the
        caller delivers the messages that arrive before the marker.

        A page has at most 1000 messages. It ends at the message that reaches ``page_bytes``.
        """
        args = (self.layout.tag(queue) + after.encode(), marker, page_bytes, int(continues))
        is_broadcast, kept, gap, state, last_key, has_records, *flat = await self._run("replay", queue, *args)
        width = 3 if has_records else 2
        found = self._shown(queue, [last_key, *flat[::width]])
        records = flat[2::3] if has_records else repeat(b"", len(found) - 1)
        return ReplayPage(
            is_broadcast=bool(is_broadcast),
            kept=bool(kept),
            gap=bool(gap),
            more=state == State.MORE,
            last_key=found[0],
            messages=[
                Message(key, value, record=record)
                for key, value, record in zip(found[1:], flat[1::width], records, strict=True)
            ],
        )

    async def queue_position(self, queue: str) -> str:
        """The position (``position_of``) of a consumer that begins now; empty if the queue is round robin."""
        found = await self._run("position", queue)
        return position_of(self._shown(queue, found[:1])[0], found[1]) if found else ""

    async def queue_changestatus(self, queue: str, started: bool) -> bool:
        """Starts or stops delivery to live consumers, on every daemon; works before the first message too."""
        await self._run("status", queue, int(started), self.expires_seconds)
        return started

    async def queue_status(self, queue: str) -> bool:
        """Whether the queue is started, as every queue is by default."""
        return bool(await self.store.command("GET", self.layout.for_queue(check_queue_name(queue)).status) != b"0")

    async def queue_attend(
        self,
        queue: str,
        daemon: bytes,
        *,
        weight: int = 0,
        capacity: int = 0,
        lease_ms: int = 0,
        window_bytes: int = 0,
        is_first: bool = False,
    ) -> Attendance:
        """Serves a daemon's live consumers of the queue; ``lua/attend.lua`` has the rules.

        Args:
            daemon: the daemon's channel.
            weight: number of its consumers that can take more; 0 if it has none any more.
            capacity: number of messages that they can take, up to 1000.
            lease_ms: length of the leases for these consumers; 0 for consumers without leases.
            window_bytes: maximum unconfirmed bytes of broadcasts (``lua/_flow.lua``); 0 for a daemon without consumers.
            is_first: publish a marker on the queue's channel first, which tells the daemon where it begins.

        Returns:
            With round robin, the messages that the daemon must deliver: taken, or leased to it.
        """
        receipt = new_receipt() if lease_ms else ""
        args = (daemon, weight, min(capacity, BATCH_MAX), lease_ms, receipt, window_bytes, int(is_first))
        policy, state, *taken = await self._run("attend", queue, *args)
        if state == State.PROMOTE_FIRST:
            await self.queue_promote(queue)
        call_again = state in (State.MORE, State.PROMOTE_FIRST)
        return Attendance(Policy(policy), call_again, self._messages(queue, taken), state == State.HELD_BACK)

    def pubsub(self, on_message: Any, **callbacks: Any) -> Subscription:
        """A separate connection for channels; see ``ChannelEvents``."""
        return self.store.subscriber(ChannelEvents(on_message, **callbacks))


def not_reachable(_failure: Any, _timeout: float) -> None:
    """Fails a Deferred that waited too long for Redis; for ``addTimeout``."""
    raise StoreUnavailable("the message store (Redis) is not reachable; try again in a moment.")
