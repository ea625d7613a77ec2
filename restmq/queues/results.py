"""What the operations of ``restmq.core`` return: a queue in numbers, what a daemon attends to, what was missed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from restmq.model import Message, Policy

TOTALS = ("out", "leased", "acked", "redelivered", "expired", "dead")


@dataclass(slots=True, frozen=True)
class QueueStats:
    """A queue in numbers: what is in it now, and totals since its first message.

    Attributes:
        oldest_age_ms: of the first message, exact to a second or half a percent where the queue is in the order of its
            numbers; of one that came back from a lease at least as much as of those behind it. None if nothing waits,
            or it is not known, as for messages that did not come through RestMQ.
        totals: ``in``, ``out`` (gone for good: taken, broadcast, acked), ``leased`` (deliveries under leases),
            ``acked``, ``redelivered``, ``expired``, ``dead``.
    """

    name: str
    ready: int
    leased: int
    delayed: int
    dead: int
    started: bool
    policy: Policy
    oldest_age_ms: int | None
    totals: dict[str, int]

    def fields(self) -> dict[str, Any]:
        """As a JSON answer shows it."""
        return {
            "queue": self.name,
            "len": self.ready,
            "ready": self.ready,
            "leased": self.leased,
            "delayed": self.delayed,
            "dead": self.dead,
            "status": int(self.started),
            "policy": self.policy.label,
            "oldest_age_seconds": None if self.oldest_age_ms is None else self.oldest_age_ms / 1000,
            "totals": self.totals,
        }


@dataclass(slots=True, frozen=True)
class QueueOverview:
    """A line of the list of queues.

    Attributes:
        number: the last number given, which is how many messages have come in.
        out: how many have gone for good: taken, broadcast, acked.
        oldest_ms: when the one that has waited longest came, in ms since 1970; None if there is none, or not known.
    """

    name: str
    length: int
    started: bool
    policy: Policy
    leased: int = 0
    delayed: int = 0
    dead: int = 0
    number: int = 0
    out: int = 0
    oldest_ms: int | None = None


@dataclass(slots=True, frozen=True)
class Attendance:
    """What a daemon learns when it attends to its consumers of a queue."""

    policy: Policy
    call_again: bool
    messages: list[Message]


@dataclass(slots=True, frozen=True)
class Missed:
    """What a consumer missed that comes back.

    Attributes:
        kept: whether the queue keeps a history at all.
        gap: whether it does, but no longer reaches back to the message that the consumer saw last.
    """

    kept: bool
    gap: bool
    messages: list[Message]
