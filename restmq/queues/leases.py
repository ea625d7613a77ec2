"""At-least-once delivery: leases and dead letters.

A lease hides a message; only ``queue_ack`` removes it. The message returns to the front of the queue if the lease
expires, if the consumer gives it back, or if the live consumer that holds it disconnects. After ``max_deliveries``
deliveries it becomes a dead letter instead.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet import defer

from restmq.errors import LeaseGone, NotFound
from restmq.model import (
    BATCH_MAX,
    LEASE_SECONDS_DEFAULT,
    Message,
    check_queue_name,
    deliveries_of,
    may_be_fifo,
    number_of,
    queue_of,
)
from restmq.queues.base import Operations, rows
from restmq.store import keys
from restmq.store.base import BaseStore
from restmq.store.batching import Batcher

_DUE_QUEUES_A_CALL = 100
#: Counted for each message that is put back, beside its value, so that a call has about a thousand at most.
_PUT_BACK_OVERHEAD_BYTES = 1024
_POSTPONE_MS = 10_000
_LEASE_GONE = (
    "this receipt is not valid: the lease expired, the message was acked, or the receipt never existed. "
    "Lease the message again."
)


@dataclass(slots=True, frozen=True)
class FoundMessage:
    """A message and its state.

    Attributes:
        state: ``ready``, ``delayed``, ``leased`` or ``dead``; ``unknown`` if its queue is too long to search.
        at_ms: end of the delay or lease, or time of death of a dead letter, in ms since 1970; 0 for other states.
    """

    message: Message
    state: str
    at_ms: int

    def fields(self) -> dict[str, Any]:
        """As a JSON answer shows it."""
        message = self.message
        shown = {**message.fields(), "state": self.state, "looks": message.count, **deliveries_of(message.record)}
        if message.expires_ms:
            shown["expires"] = message.expires_ms
        when = {"delayed": "due", "leased": "due", "dead": "died"}.get(self.state)
        return {**shown, when: self.at_ms} if when else shown


def new_receipt() -> str:
    """The beginning of all receipts that one script call makes."""
    return secrets.token_urlsafe(12)


class LeaseOperations(Operations):
    """Operations on leases, dead letters and due queues."""

    def __init__(self, store: BaseStore, now_ms: Callable[[], int] | None = None) -> None:
        super().__init__(store, now_ms)
        self._leases: Batcher[tuple[str, int], None, Message | None] = Batcher(store.turn_end, self._lease_each)
        self._acks: Batcher[str, tuple[str, str], None] = Batcher(store.turn_end, self._ack_each)
        self._put_backs: Batcher[tuple[str, bool], Sequence[Message], None] = Batcher(
            store.turn_end, self._put_back_each
        )

    def queue_lease_one(self, queue: str, lease_ms: int) -> defer.Deferred[Message | None]:
        """Leases the next message, or returns None; otherwise as queue_lease."""
        if may_be_fifo(queue):  # one call for several clients would share out a group
            return defer.ensureDeferred(self._lease_alone(queue, lease_ms))
        return self._leases.add((queue, lease_ms), None)

    async def _lease_alone(self, queue: str, lease_ms: int) -> Message | None:
        return next(iter(await self.queue_lease(queue, 1, lease_ms)), None)

    async def _lease_each(self, kind: tuple[str, int], askers: list[None]) -> list[Message | Exception | None]:
        queue, lease_ms = kind
        return await self._share_out(queue, len(askers), lambda count: self._lease(queue, count, lease_ms, b""))

    async def queue_lease(self, queue: str, count: int, lease_ms: int, waiter: bytes = b"") -> list[Message]:
        """Leases up to ``count`` (1 to 1000) messages from the front, the oldest first: at-least-once.

        If the answer is lost or the daemon dies, the messages come back when the lease expires.

        Args:
            lease_ms: length of the lease; 0 for the queue's setting ``lease``.
            waiter: as for queue_tail.
        """
        return self._messages(queue, (await self._lease(queue, min(count, BATCH_MAX), lease_ms, waiter))[0])

    async def _lease(self, queue: str, count: int, lease_ms: int, waiter: bytes) -> tuple[list[Any], bool]:
        args = (count, waiter, lease_ms, new_receipt(), LEASE_SECONDS_DEFAULT * 1000)
        return await self._run_to_limit("lease", queue, *args)

    def queue_ack(self, key: str, receipt: str) -> defer.Deferred[None]:
        """Removes a leased message for good. Raises LeaseGone if the receipt is not that of a lease in force."""
        return self._acks.add(queue_of(key), (key, receipt))

    async def _ack_each(self, queue: str, leases: list[tuple[str, str]]) -> list[Exception | None]:
        acked = await self._run("ack", queue, *self._flat(queue, leases))
        return [None if done else LeaseGone(_LEASE_GONE) for done in acked]

    def _flat(self, queue: str, leases: Iterable[tuple[str, str]]) -> list[bytes | str]:
        """Keys and receipts as scripts expect them."""
        tag = self.layout.tag(queue)
        return [part for key, receipt in leases for part in (tag + key.encode(), receipt)]

    async def queue_extend(self, key: str, receipt: str, lease_ms: int) -> None:
        """Makes the lease end ``lease_ms`` from now. Raises LeaseGone as queue_ack does."""
        if not await self._run("extend", queue_of(key), self.layout.stored_key(key), receipt, lease_ms):
            raise LeaseGone(_LEASE_GONE)

    async def queue_lease_remaining(self, queue: str, leases: Sequence[tuple[str, str]]) -> list[float | None]:
        """The remaining seconds of each of these leases (key, receipt); None for those that have ended."""
        remaining_ms = await self._run("lease_remaining", queue, *self._flat(queue, leases))
        return [ms / 1000 if ms > 0 else None for ms in remaining_ms]

    async def queue_ack_many(self, queue: str, leases: Sequence[tuple[str, str]]) -> list[bool]:
        """Acks up to 1000 messages of one queue, each as queue_ack. Returns for each whether its lease was in force."""
        return list(map(bool, await self._run("ack", queue, *self._flat(queue, leases))))

    async def queue_nack(self, key: str, receipt: str, delay_ms: int | None = None, reason: str = "") -> None:
        """Returns the message to its place, as a failed delivery. Raises LeaseGone as queue_ack does.

        Args:
            delay_ms: time until it comes back; None for the queue's setting ``retry_delay``.
            reason: why the delivery failed; kept with the message.
        """
        if not await self.queue_release(queue_of(key), [(key, receipt)], delay_ms=delay_ms, reason=reason):
            raise LeaseGone(_LEASE_GONE)

    async def queue_release(
        self,
        queue: str,
        leases: Sequence[tuple[str, str]],
        *,
        blameless: bool = False,
        delay_ms: int | None = None,
        reason: str = "",
    ) -> int:
        """Returns leased messages of one queue to their places. Skips leases that have ended.

        Args:
            leases: keys and receipts, the oldest first.
            blameless: whether the messages reached no consumer, so that these deliveries do not count, and the messages
                come back at once.
            delay_ms, reason: as for queue_nack.

        Returns:
            The number of leases that were in force.
        """
        when: int | str = "" if delay_ms is None else delay_ms
        flat = self._flat(queue, leases)
        released, dead_letter = await self._run("release", queue, int(blameless), when, reason, *flat)
        await self._forward(queue, dead_letter)
        return int(released)

    async def queue_put_back(self, queue: str, taken: Sequence[Message]) -> None:
        """Returns messages that were taken or leased, and reached no consumer, to the front of the queue.

        They go behind any older messages there, so the order is right even if several calls put messages back.
        """
        size_bytes = sum(len(message.value) + _PUT_BACK_OVERHEAD_BYTES for message in taken)
        await self._put_backs.add((check_queue_name(queue), bool(taken[0].receipt)), taken, size_bytes)

    async def _put_back_each(self, kind: tuple[str, bool], lots: list[Sequence[Message]]) -> list[Exception | None]:
        queue, leased = kind
        taken = [message for lot in sorted(lots, key=lambda lot: number_of(lot[0].key)) for message in lot]
        if leased:
            await self.queue_release(queue, [(message.key, message.receipt) for message in taken], blameless=True)
        else:
            tag = self.layout.tag(queue)
            parts = [(tag + one.key.encode(), one.value, one.expires_ms, one.record) for one in taken]
            await self._run("put_back", queue, *(part for message in parts for part in message))
        return [None] * len(lots)

    async def queue_list_dead(self, queue: str, first: int = 0, count: int = 100) -> tuple[int, list[FoundMessage]]:
        """The number of dead letters, and up to ``count`` of them after the ``first`` ones, in the order of deaths."""
        total, *flat = await self._run("peek", queue, "dead", first, min(count, BATCH_MAX), 0)
        return total, [
            FoundMessage(Message(self.layout.shown(key), value, count=int(looks), record=record), "dead", int(died_ms))
            for key, value, _size, died_ms, looks, record in rows(flat, 6)
        ]

    async def queue_redrive(self, queue: str, key: str = "", to: str = "") -> int:
        """Moves dead letters to the end of their queue, as if never delivered. Returns their number.

        Args:
            key: the key of one dead letter; empty for all.
            to: another queue, to which they go as new messages with a note of their origin.

        Raises:
            NotFound: the queue has no dead letter with this key.
        """
        if to in ("", queue):
            return await self._for_dead("redrive", queue, key)

        async def move() -> tuple[int, int]:
            return (await self._move_dead(queue, to, key, by_user=True))[:2]

        return await self._for_all(move, key)

    async def queue_drop_dead(self, queue: str, key: str = "") -> int:
        """Drops dead letters for good; arguments and errors as queue_redrive. Returns their number."""
        return await self._for_dead("drop_dead", queue, key)

    async def _for_dead(self, script: str, queue: str, key: str) -> int:
        wanted_key = self.layout.tag(queue) + key.encode() if key else ""
        return await self._for_all(lambda: self._run(script, queue, wanted_key), key)

    async def _for_all(self, step: Callable[[], Awaitable[tuple[int, int]]], key: str) -> int:
        """Repeats a step for dead letters, which returns the numbers done and remaining."""
        done, remaining = await step()
        if key and not done:
            raise NotFound("there is no dead letter with this key.")
        wanted = done + remaining  # messages that die meanwhile stay
        while remaining and done < wanted:
            more, remaining = await step()
            done += more
        return int(done)

    async def queue_end_delay(self, key: str) -> bool:
        """Ends the delay of a message, which becomes ready. Returns False if the message was not delayed."""
        return bool(await self._run("end_delay", queue_of(key), self.layout.stored_key(key)))

    async def queue_find(self, key: str) -> FoundMessage | None:
        """Finds a message in any state and does not change it. None if the queue does not hold such a message.

        In a queue of more than 100,000 messages, the state is ``unknown`` for a message that is out of order and far
        from both ends.
        """
        state, *found = await self._run("find", queue_of(key), self.layout.stored_key(key)) or (None,)
        if state is None:
            return None
        at_ms, value, looks, record, expires_ms = found
        message = Message(key, value, count=int(looks), expires_ms=max(0, int(expires_ms)), record=record)
        return FoundMessage(message, state.decode(), int(at_ms))

    async def due_queues(self, partition: int = 0) -> tuple[float | None, list[str]]:
        """The queues of one partition that are due now, up to 100.

        Returns:
            Seconds until the next queue is due (None if no queue will be), and the queues.
        """
        due = self.layout.tags[partition] + keys.DUE
        until_ms, *queues = await self.run_on("due_queues", [due], self._clock(), _DUE_QUEUES_A_CALL)
        return None if until_ms < 0 else until_ms / 1000, [self.layout.shown(queue) for queue in queues]

    async def queue_postpone(self, name: str) -> None:
        """Makes what is due, but cannot be done, due again in ten seconds, so that it does not hold up others."""
        tag = self.layout.tag(name.partition("\n")[0])  # the name may be one of a task (lua/_moves.lua)
        await self.run_on("postpone", [tag + keys.DUE], self._clock(), tag + name.encode(), _POSTPONE_MS)
