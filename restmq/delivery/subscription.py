"""The local consumers of one queue, their turns (round robin), and their leases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from restmq.delivery.consumer import Consumer, write_messages
from restmq.delivery.replay import Replay
from restmq.model import Message, Policy, number_of, position_of


@dataclass(slots=True)
class Lease:
    """A message leased to a consumer.

    Attributes:
        due_seconds: known end of the lease, in reactor seconds. A client may have extended it since.
    """

    consumer: Consumer
    key: str
    due_seconds: float


class QueueSubscription:
    """The local consumers of one queue, their turns, and their leases.

    Attributes:
        consumers: all consumers.
        live: the consumers that get new messages.
        replays: bring the other consumers up to date.
        last_key: key of the last broadcast message, as far as it is known from the channel or from the history.
        last_number: the highest message number that is known here; -1 if none is.
    """

    __slots__ = ("consumers", "cursor", "last_key", "last_number", "leases", "live", "policy", "replays")

    def __init__(self) -> None:
        self.consumers: list[Consumer] = []
        self.live: list[Consumer] = []
        self.replays: list[Replay] = []
        self.cursor = 0
        self.last_key = ""
        self.last_number = -1
        self.policy = Policy.BROADCAST
        #: By receipt, because a message can be leased again before the end of its last lease is known here.
        self.leases: dict[str, Lease] = {}

    def remove(self, consumer: Consumer) -> None:
        """The consumer has left."""
        self.consumers.remove(consumer)
        if consumer in self.live:
            position = self.live.index(consumer)
            del self.live[position]
            if position < self.cursor:
                self.cursor -= 1
        for replay in self.replays:
            if consumer in replay.members:
                replay.leave(consumer)

    def take_live(self) -> list[Consumer]:
        """Takes all live consumers out, for a replay."""
        taken = list(self.live)
        self.live.clear()
        self.cursor = 0
        return taken

    def position(self) -> str:
        """The position of a live consumer that has got no message (see ``several.py``); empty if it is not known."""
        if self.policy is not Policy.BROADCAST or self.last_number < 0:
            return ""
        return position_of(self.last_key, self.last_number)

    def reach_marker(self, marker: str, last_number: int, last_key: str) -> None:
        """A marker arrived on the channel."""
        self.last_number = max(self.last_number, last_number)
        self.last_key = last_key or self.last_key
        for replay in self.replays:
            if replay.marker == marker:
                replay.reach_marker(last_number)

    def demand(self) -> tuple[int, int, int]:
        """The request of round robin to Redis: duration of leases, number of ready consumers, number of messages.

        If the ready consumers have leases of different lengths, one message is requested, for the consumer in turn.
        """
        in_turn = self.live[self.cursor :] + self.live[: self.cursor]
        ready = [(consumer.lease_ms, capacity) for consumer in in_turn if (capacity := consumer.capacity())]
        if not ready:
            return 0, 0, 0
        is_alike = len({lease_ms for lease_ms, _ in ready}) == 1
        return ready[0][0], len(ready), sum(capacity for _, capacity in ready) if is_alike else 1

    def broadcast(self, messages: list[Message]) -> None:
        """Writes messages to the live consumers, and passes them to the replays."""
        self.last_key = messages[-1].key
        self.last_number = max(self.last_number, number_of(self.last_key))
        write_messages(self.live, messages)
        for replay in self.replays:
            replay.arrive(messages)

    def assign(
        self, messages: list[Message], lease_ms: int, now_seconds: float
    ) -> tuple[list[tuple[Consumer, list[Message]]], list[Message]]:
        """Assigns each message to the next ready consumer, and notes its lease.

        Returns:
            The messages for each consumer, and the messages that no consumer can take.
        """
        capacities = [consumer.capacity() if consumer.lease_ms == lease_ms else 0 for consumer in self.live]
        shares: dict[int, list[Message]] = {}
        left: list[Message] = []
        for number, message in enumerate(messages):
            position, self.cursor = next_in_turn(capacities, self.cursor)
            if position is None:
                left = messages[number:]
                break
            capacities[position] -= 1
            shares.setdefault(position, []).append(message)
        served = [(self.live[position], share) for position, share in shares.items()]
        for consumer, share in served:
            for message in share:
                if message.receipt:
                    consumer.leases[message.key] = message.receipt
                    self.leases[message.receipt] = Lease(consumer, message.key, now_seconds + lease_ms / 1000)
        return served, left

    def end_lease(self, receipt: str) -> bool:
        """A lease has ended. Returns whether its consumer had no capacity before, and now has."""
        lease = self.leases.pop(receipt, None)
        if lease is None or lease.consumer.leases.get(lease.key) != receipt:
            return False
        was_full = not lease.consumer.capacity()
        del lease.consumer.leases[lease.key]
        return was_full

    def overdue(self, now_seconds: float, count_max: int) -> list[tuple[str, str]]:
        """Key and receipt of leases that should have ended: they were extended, or their end is not known here."""
        found = [(lease.key, receipt) for receipt, lease in self.leases.items() if lease.due_seconds <= now_seconds]
        return found[:count_max]

    def update_leases(
        self, leases: Sequence[tuple[str, str]], left_seconds: Sequence[float | None], now_seconds: float
    ) -> bool:
        """Notes the remaining time of each lease, None for one that has ended. Returns as ``end_lease``."""
        has_capacity = False
        for (_, receipt), seconds in zip(leases, left_seconds, strict=True):
            lease = self.leases.get(receipt)
            if seconds is None:
                has_capacity |= self.end_lease(receipt)
            elif lease is not None:
                lease.due_seconds = now_seconds + seconds
        return has_capacity

    def mark_leases_overdue(self) -> None:
        """Any lease may have ended without a notice."""
        for lease in self.leases.values():
            lease.due_seconds = 0.0

    def forget_leases(self, consumer: Consumer) -> list[tuple[str, str]]:
        """Key and receipt of all leases of a consumer, which it no longer holds."""
        leases = list(consumer.leases.items())
        for _, receipt in leases:
            self.leases.pop(receipt, None)
        consumer.leases.clear()
        return leases


def next_in_turn(capacities: Sequence[int], cursor: int) -> tuple[int | None, int]:
    """Round robin: whose turn it is among those with capacity.

    Args:
        capacities: number of messages that each consumer can take now, in the order of their arrival.
        cursor: the position after the consumer that was served last.

    Returns:
        The position of the consumer to serve, or None if none has capacity; and the new cursor.
    """
    size = len(capacities)
    for step in range(size):
        position = (cursor + step) % size
        if capacities[position] > 0:
            return position, (position + 1) % size
    return None, cursor
