"""The consumers of one queue on one daemon: who they are, whose turn it is, and what they hold under leases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet import defer

from restmq.delivery.consumer import Consumer, Format
from restmq.delivery.replay import ReplayBuffer
from restmq.model import Message, Policy


@dataclass(slots=True)
class Held:
    """A message that a consumer has under a lease.

    Attributes:
        due_seconds: when the lease ends as far as is known here, on the fan-out's clock. It may have been extended.
    """

    consumer: Consumer
    key: str
    due_seconds: float


class QueueSubscription:
    """A queue that this daemon attends to, or did."""

    __slots__ = ("arrived", "attend_again", "attending", "consumers", "cursor", "holders", "policy", "subscribed")

    def __init__(self) -> None:
        self.consumers: list[Consumer] = []
        self.cursor = 0
        self.policy = Policy.BROADCAST
        self.arrived: list[Message] = []
        self.subscribed: defer.Deferred[None] | None = None
        self.attending = False
        self.attend_again = False
        #: By receipt: the same message may be leased anew before it is heard that its last lease is over.
        self.holders: dict[str, Held] = {}

    def position(self, consumer: Consumer) -> int | None:
        """Where a consumer stands, also while it is held back."""
        for position, other in enumerate(self.consumers):
            if other is consumer or (isinstance(other, ReplayBuffer) and other.consumer is consumer):
                return position
        return None

    def demand(self) -> tuple[int, int, int]:
        """The lease that messages are to be taken with, how many consumers are ready, how many messages they can hold.

        Where consumers ask for leases of different lengths, or some for none, it is a message at a time for the one
        whose turn it is.
        """
        in_turn = self.consumers[self.cursor :] + self.consumers[: self.cursor]
        ready = [(consumer.lease_ms, room) for consumer in in_turn if (room := consumer.room())]
        if not ready:
            return 0, 0, 0
        alike = len({lease_ms for lease_ms, _ in ready}) == 1
        return ready[0][0], len(ready), sum(room for _, room in ready) if alike else 1

    def to_all(self, messages: list[Message]) -> None:
        """Writes messages to every consumer, rendered once per format."""
        rendered: dict[Format, bytes] = {}
        for consumer in list(self.consumers):
            frames = rendered.get(consumer.format)
            if frames is None:
                frames = rendered[consumer.format] = b"".join(map(consumer.format.message, messages))
            consumer.write(frames)

    def share_out(
        self, messages: list[Message], lease_ms: int, now_seconds: float
    ) -> tuple[list[tuple[Consumer, list[Message]]], list[Message]]:
        """Gives each message to the next consumer that is ready, and puts it down as held if it is leased.

        Returns:
            What each consumer is to be sent, and what none could take.
        """
        rooms = [consumer.room() if consumer.lease_ms == lease_ms else 0 for consumer in self.consumers]
        shares: dict[int, list[Message]] = {}
        left: list[Message] = []
        for number, message in enumerate(messages):
            position, self.cursor = next_in_turn(rooms, self.cursor)
            if position is None:
                left = messages[number:]
                break
            rooms[position] -= 1
            shares.setdefault(position, []).append(message)
        served = [(self.consumers[position], share) for position, share in shares.items()]
        for consumer, share in served:
            for message in share:
                if message.receipt:
                    consumer.held[message.key] = message.receipt
                    self.holders[message.receipt] = Held(consumer, message.key, now_seconds + lease_ms / 1000)
        return served, left

    def settle(self, receipt: str) -> bool:
        """A lease has ended. Returns whether its consumer was full, and may have another message now."""
        held = self.holders.pop(receipt, None)
        if held is None or held.consumer.held.get(held.key) != receipt:
            return False
        was_full = not held.consumer.room()
        del held.consumer.held[held.key]
        return was_full

    def overdue(self, now_seconds: float, at_most: int) -> list[tuple[str, str]]:
        """Key and receipt of leases that should be over by now: extended, or their end was not heard of."""
        found = [(held.key, receipt) for receipt, held in self.holders.items() if held.due_seconds <= now_seconds]
        return found[:at_most]

    def check(
        self, leases: Sequence[tuple[str, str]], left_seconds: Sequence[float | None], now_seconds: float
    ) -> bool:
        """Puts down how long leases still last; None for one that is over. Returns as ``settle`` does."""
        has_room = False
        for (_, receipt), seconds in zip(leases, left_seconds, strict=True):
            held = self.holders.get(receipt)
            if seconds is None:
                has_room |= self.settle(receipt)
            elif held is not None:
                held.due_seconds = now_seconds + seconds
        return has_room

    def doubt_all(self) -> None:
        """Any lease may have ended without a word."""
        for held in self.holders.values():
            held.due_seconds = 0.0

    def let_go(self, consumer: Consumer) -> list[tuple[str, str]]:
        """Key and receipt of all that a consumer held, which it no longer does."""
        leases = list(consumer.held.items())
        for _, receipt in leases:
            self.holders.pop(receipt, None)
        consumer.held.clear()
        return leases


def next_in_turn(rooms: Sequence[int], cursor: int) -> tuple[int | None, int]:
    """Round robin: whose turn it is among those that have room.

    Args:
        rooms: for each consumer, in the order in which they came, how many messages it can take now.
        cursor: the position after the one that was served last.

    Returns:
        The position of the consumer to serve, or None if none has room, and the new cursor.
    """
    size = len(rooms)
    for step in range(size):
        position = (cursor + step) % size
        if rooms[position] > 0:
            return position, (position + 1) % size
    return None, cursor
