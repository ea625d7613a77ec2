"""Delivery at-least-once: leases, and what becomes of messages that nobody could deal with.

A leased message is hidden, not gone. It leaves for good by ``queue_ack`` alone. When its lease is over, is given back,
or its daemon's consumer goes, it returns to the front, or after ``max_deliveries`` to the dead letters.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from restmq.errors import LeaseGone, NotFound
from restmq.model import (
    BATCH_MAX,
    LEASE_SECONDS_DEFAULT,
    Deliveries,
    Message,
    check_queue_name,
    number_of,
    queue_of,
)
from restmq.queues.base import Operations, messages
from restmq.store import keys, scripts
from restmq.store.batching import Batcher
from restmq.store.connection import Encoded
from restmq.store.pool import Store

_DUE_QUEUES_A_CALL = 100
#: What a message that is given back counts beside its value: a call has some two thousand of them at most.
_RETURNED_BESIDE_BYTES = 1024
_LATER_MS = 10_000
_LEASE_GONE = "the receipt holds no lease on the message: it is over, was acked, or never was; lease the message again."


@dataclass(slots=True, frozen=True)
class FoundMessage:
    """A message, and where it stands.

    Attributes:
        state: ``ready``, ``delayed``, ``leased``, ``dead``; ``unknown`` if its queue is too long to be searched for it.
        at_ms: when a delay or a lease ends, or a dead letter died, in ms since 1970; 0 for any other.
    """

    message: Message
    state: str
    at_ms: int
    deliveries: Deliveries

    def fields(self) -> dict[str, Any]:
        """As a JSON answer shows it."""
        shown = {**self.message.fields(), "state": self.state, "looks": self.message.count, **self.deliveries.fields()}
        when = {"delayed": "due", "leased": "due", "dead": "died"}.get(self.state)
        return {**shown, when: self.at_ms} if when else shown


@dataclass(slots=True, frozen=True)
class DeadLetters:
    """Some of a queue's dead letters, and how many there are in all."""

    count: int
    messages: list[FoundMessage]


def new_receipt() -> str:
    """What a script makes the receipts of one call from."""
    return secrets.token_urlsafe(12)


class Leasing(Operations):
    """The operations on leases and dead letters."""

    def __init__(self, store: Store, now_ms: Callable[[], int] | None = None) -> None:
        super().__init__(store, now_ms)
        self._leases: Batcher[tuple[str, int], None, Message | None] = Batcher(store.clock.callLater, self._lease_each)
        self._acks: Batcher[str, tuple[str, str], None] = Batcher(store.clock.callLater, self._ack_each)
        self._returns: Batcher[tuple[str, bool], Sequence[Message], None] = Batcher(
            store.clock.callLater, self._return_each
        )

    async def queue_lease_one(self, queue: str, lease_ms: int) -> Message | None:
        """The next message under a lease, or None; else as queue_lease."""
        message: Message | None = await self._leases.add((check_queue_name(queue), lease_ms), None)
        return message

    async def _lease_each(self, kind: tuple[str, int], askers: list[None]) -> list[Message | Exception | None]:
        queue, lease_ms = kind
        return await self._share_out(len(askers), lambda count: self._lease(queue, count, lease_ms, b""))

    async def queue_lease(self, queue: str, count: int, lease_ms: int, waiter: bytes = b"") -> list[Message]:
        """Leases up to ``count`` (1 to 1000) messages off the front, the oldest first: at-least-once.

        If the answer is lost, or the daemon dies, they come back when the lease is over.

        Args:
            lease_ms: for how long; 0 for the queue's setting ``lease``.
            waiter: as for queue_tail.
        """
        return messages((await self._lease(queue, min(count, BATCH_MAX), lease_ms, waiter))[0])

    async def _lease(self, queue: str, count: int, lease_ms: int, waiter: bytes) -> tuple[list[Any], bool]:
        args = (count, waiter, lease_ms, new_receipt(), LEASE_SECONDS_DEFAULT * 1000)
        return await self._run_to_bound("lease", queue, *args)

    async def queue_ack(self, key: str, receipt: str) -> None:
        """The message is done with, and leaves for good. Raises LeaseGone if the receipt holds no lease on it."""
        await self._acks.add(queue_of(key), (key, receipt))

    async def _ack_each(self, queue: str, leases: list[tuple[str, str]]) -> list[Exception | None]:
        acked = await self._run("ack", queue, *(part for lease in leases for part in lease))
        return [None if done else LeaseGone(_LEASE_GONE) for done in acked]

    async def queue_extend(self, key: str, receipt: str, lease_ms: int) -> None:
        """The lease lasts ``lease_ms`` from now on. Raises LeaseGone if the receipt holds no lease on the message."""
        if not await self._run("extend", queue_of(key), key, receipt, lease_ms):
            raise LeaseGone(_LEASE_GONE)

    async def queue_leases_left(self, queue: str, leases: Sequence[tuple[str, str]]) -> list[float | None]:
        """How many seconds each of these leases (key, receipt) lasts still; None for those that are over."""
        left_ms = await self._run("lease_remaining", queue, *(part for lease in leases for part in lease))
        return [ms / 1000 if ms > 0 else None for ms in left_ms]

    async def queue_nack(self, key: str, receipt: str) -> None:
        """Gives the message back, to the front; the delivery has failed. Raises LeaseGone as queue_ack does."""
        if not await self.queue_release(queue_of(key), [(key, receipt)]):
            raise LeaseGone(_LEASE_GONE)

    async def queue_release(self, queue: str, leases: Sequence[tuple[str, str]], blameless: bool = False) -> int:
        """Gives messages of one queue back to the front, in their order; leases that are over are passed by.

        Args:
            leases: keys and receipts, the oldest first.
            blameless: the messages never reached anybody, so their deliveries don't count.

        Returns:
            How many leases were in force.
        """
        flat = [part for lease in leases for part in lease]
        released, dead_letter = await self._run("release", queue, int(blameless), *flat)
        await self._forward(queue, dead_letter)
        return int(released)

    async def queue_return(self, queue: str, taken: Sequence[Message]) -> None:
        """Puts messages that were taken or leased, and reached nobody, back to the front in their order.

        They go behind those in front that are older, so what several give back at once is in order again.
        """
        size_bytes = sum(len(message.value) + _RETURNED_BESIDE_BYTES for message in taken)
        await self._returns.add((check_queue_name(queue), bool(taken[0].receipt)), taken, size_bytes)

    async def _return_each(self, kind: tuple[str, bool], lots: list[Sequence[Message]]) -> list[Exception | None]:
        queue, leased = kind
        taken = [message for lot in sorted(lots, key=lambda lot: number_of(lot[0].key)) for message in lot]
        if leased:
            await self.queue_release(queue, [(message.key, message.receipt) for message in taken], blameless=True)
        else:
            parts = [(message.key, message.value, message.expires_ms, message.record) for message in taken]
            await self._run("put_back", queue, *chain.from_iterable(parts))
        return [None] * len(lots)

    async def queue_dead(self, queue: str, first: int = 0, count: int = 100) -> DeadLetters:
        """Looks at up to ``count`` dead letters after the ``first`` ones; those that died first come first."""
        total, *flat = await self._run("list_dead", queue, first, min(count, BATCH_MAX))
        found = []
        for key, value, died_ms, record in zip(*(flat[i::4] for i in range(4)), strict=True):
            deliveries = Deliveries.parse(record)
            message = Message(key.decode(), value, record=record)
            found.append(FoundMessage(message, "dead", int(died_ms), deliveries))
        return DeadLetters(total, found)

    async def queue_redrive(self, queue: str, key: str = "") -> int:
        """Dead letters go back to the end of the queue, as if never delivered. Returns how many did.

        Args:
            key: of the one that is meant; all if it is empty. NotFound if it is no dead letter of the queue.
        """
        return await self._for_dead("redrive", queue, key)

    async def queue_drop_dead(self, queue: str, key: str = "") -> int:
        """Drops dead letters for good, all or the one that is meant, as queue_redrive. Returns how many."""
        return await self._for_dead("drop_dead", queue, key)

    async def _for_dead(self, script: str, queue: str, key: str) -> int:
        done, left = await self._run(script, queue, key)
        if key and not done:
            raise NotFound("there is no dead letter with this key.")
        # No more than there were: what dies meanwhile is not meant.
        wanted = done + left
        while left and done < wanted:
            more, left = await self._run(script, queue, key)
            done += more
        return int(done)

    async def queue_find(self, key: str) -> FoundMessage | None:
        """Looks at one message, wherever it is, without touching it; None if there is no such message.

        A value that its queue does not hold is none. In a queue of more than 100,000 messages, one that is out of order
        and far from both ends is not looked for, and its state is ``unknown``.
        """
        state, *found = await self._run("find", queue_of(key), key) or (None,)
        if state is None:
            return None
        at_ms, value, looks, record = found
        message = Message(key, value, int(looks), record=record)
        return FoundMessage(message, state.decode(), int(at_ms), Deliveries.parse(record))

    async def queues_due(self) -> tuple[float | None, list[str]]:
        """How many seconds it is until a queue must be looked at, None for never; and some that must be now."""
        args: list[Any] = [self._clock(), _DUE_QUEUES_A_CALL]
        until_ms, *queues = await self.store.run(scripts.load("due_queues"), Encoded([1, keys.DUE]), *args)
        return None if until_ms < 0 else until_ms / 1000, [queue.decode() for queue in queues]

    async def queue_look_later(self, queue: str) -> None:
        """A queue that is due, and can't be looked at, is due again in ten seconds; others go before it."""
        args: list[Any] = [self._clock(), queue, _LATER_MS]
        await self.store.run(scripts.load("postpone"), Encoded([1, keys.DUE]), *args)
