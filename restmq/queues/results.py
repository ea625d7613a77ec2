"""Results of the operations of ``restmq.core``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from restmq.model import DEAD_LETTER, Message, Policy
from restmq.queues.base import rows

TOTALS = ("out", "leased", "acked", "redelivered", "expired", "dead")


@dataclass(slots=True, frozen=True)
class QueueStats:
    """A queue in numbers: its messages now, and totals since its first message.

    Attributes:
        oldest_age_ms: age of the first ready message, exact to a second or half a percent while the queue is in the
            order of its numbers. For a message that came back from a lease: at least the age of those behind it. None
            if no message is ready, or if the age is unknown, as for messages that were not added through RestMQ.
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
        """The members of a JSON answer."""
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
    """A row of the list of queues.

    Attributes:
        length: number of ready messages.
        number: number of the last message, which is the number of messages added so far.
        out: number of messages gone for good: taken, broadcast, acked.
        oldest_ms: time of the first ready message, in ms since 1970; None if there is none or it is unknown.
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

    def counts(self, now_ms: int) -> dict[str, Any]:
        """Its counters in a JSON answer, named as those of QueueStats."""
        return {
            "ready": self.length,
            "leased": self.leased,
            "delayed": self.delayed,
            "dead": self.dead,
            "oldest_age_seconds": None if self.oldest_ms is None else max(0, now_ms - self.oldest_ms) / 1000,
            "totals": {"in": self.number, "out": self.out},
        }


@dataclass(slots=True, frozen=True)
class Attendance:
    """The result of ``queue_attend``.

    Attributes:
        call_again: whether the daemon must attend again now.
        messages: the messages that the daemon has to deliver.
        is_held_back: whether the daemon must attend again in a second, or earlier if it is notified.
    """

    policy: Policy
    call_again: bool
    messages: list[Message]
    is_held_back: bool = False


@dataclass(slots=True, frozen=True, kw_only=True)
class ReplayPage:
    """A page of a queue's history; see ``queue_replay``.

    Attributes:
        is_broadcast: whether the queue broadcasts. A round robin queue keeps its messages until they are delivered.
        kept: whether the queue keeps a history.
        gap: whether messages before this page are lost: the history no longer has the message to begin after.
        more: whether there is another page; the marker was published only if not.
        last_key: the key after which the next page begins.
        messages: the messages of the page that have not expired.
    """

    is_broadcast: bool
    kept: bool
    gap: bool
    more: bool
    last_key: str
    messages: list[Message]


def read_settings(flat: Iterable[bytes]) -> dict[str, int | str]:
    """A queue's settings from their hash."""
    found = {name.decode(): value.decode() for name, value in rows(flat, 2)}
    return {name: value if name == DEAD_LETTER else int(value) for name, value in found.items()}
