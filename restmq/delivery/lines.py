"""The lines of clients that wait for queues. ``delivery/longpoll.py`` serves them, and its rules hold here too.

A client that waits for several queues stands in the line of each. Rules:

1.  Its lines that must ask for it are *due*, in the order of its queues: all of them when it joins, later those that
    were notified.
2.  At most one line asks for the client at a time, and only the first that is due. So nothing is taken for it from two
    queues. When the queue of that line is known to be empty, the next due line asks. It is not known to be empty if a
    notice came during the call.
3.  A line with such a client asks at the end of the reactor turn in which it was notified. If messages come to several
    queues at once, all of their lines are due by then, and the first asks.
4.  If other lines ask for all clients of a line, it becomes due for them, but only if it is not REGISTERED. Otherwise
    two lines with the same clients would make each other ask again and again.
5.  A client that has its message, or has left, leaves all its lines. Those that were due ask for their other clients,
    or unregister (rule 7 there).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet import defer
from twisted.python.failure import Failure

from restmq.delivery.shared import PendingCalls
from restmq.model import BATCH_MAX, Message, may_be_fifo
from restmq.store.batching import SingleFlight
from restmq.transport import Presence

ASKED_FOR_MIN = 16


@dataclass(slots=True, frozen=True)
class TakeRequest:
    """A client's request: up to ``count`` messages, taken for good or leased.

    Attributes:
        lease_ms: length of the lease; None for no lease, 0 for the queue's setting.
    """

    count: int = 1
    lease_ms: int | None = None


#: The queue that messages are from, and the messages.
Taken = tuple[str, list[Message]]
NOTHING_TAKEN: Taken = ("", [])


@dataclass(slots=True, eq=False)
class Waiter:
    """A client that waits.

    Attributes:
        since_seconds: when it began to wait, in reactor seconds.
        lines: those of its queues, in order.
        due: of several lines those that must ask for it, in order; always empty for one line.
        is_asked_for: whether a line has a call in progress that asks for it.
    """

    request: TakeRequest
    presence: Presence
    since_seconds: float
    lines: list[Line] = field(default_factory=list)
    due: list[Line] = field(default_factory=list)
    is_asked_for: bool = False
    answer: defer.Deferred[Taken] = field(default_factory=defer.Deferred)

    def join(self, lines: list[Line]) -> None:
        self.lines = lines
        for line in lines:
            line.waiters.append(self)
        if len(lines) > 1:
            self.due = list(lines)
            for line in lines:
                line.several.append(self)

    def leave(self, served: Line | None = None) -> None:
        """Leaves its lines (rule 5), and lets those that were due ask. The line that serves it asks by itself.

        It leaves all lines before any line asks, because a line that fails at once makes its other clients leave too.
        """
        lines, due = self.lines, self.due
        self.lines, self.due = [], []
        for line in lines:
            line.waiters.remove(self)
            if len(lines) > 1:
                line.several.remove(self)
        for line in lines:
            if line is not served and (not line.waiters or line in due):
                line.serving.request()

    def make_due(self, line: Line) -> None:
        self.due = [each for each in self.lines if each is line or each in self.due]


class LineServer(Protocol):
    """Serves lines: ``longpoll.LongPolls``."""

    async def serve_once(self, line: Line) -> None:
        """Asks Redis for the clients of a line."""

    def serving_failed(self, line: Line, failure: Failure) -> None: ...


@dataclass(slots=True, weakref_slot=True, eq=False)
class Line:
    """The clients that wait for a queue.

    Attributes:
        channel: the daemon's channel for this queue.
        registered: whether Redis may have our channel among the queue's waiters.
        registered_at: time of the last registration, in reactor seconds.
        is_notified: whether a notice came since its last call began.
        asked_for_max: maximum number of clients that the next call asks for.
        several: those of its clients that wait for other queues too.
        serving: has the server ask Redis for its clients.
    """

    queue: str
    channel: bytes
    server: LineServer
    calls: PendingCalls
    registered: bool = False
    registered_at: float = 0.0
    is_notified: bool = False
    asked_for_max: int = ASKED_FOR_MIN
    waiters: deque[Waiter] = field(default_factory=deque)
    several: list[Waiter] = field(default_factory=list)
    serving: SingleFlight = field(init=False)

    def __post_init__(self) -> None:
        self.serving = SingleFlight(self._serve, self._fail, self.calls.run)

    async def _serve(self) -> None:
        await self.server.serve_once(self)

    def _fail(self, failure: Failure) -> None:
        self.server.serving_failed(self, failure)

    def first_alike(self) -> list[Waiter]:
        """The first clients with the same kind of delivery that it may ask for, for up to 1000 messages.

        Only one of a FIFO queue, because several would share out the messages of a group.
        """
        alike: list[Waiter] = []
        count, most = 0, 1 if may_be_fifo(self.queue) else self.asked_for_max
        for waiter in self.waiters:
            if count >= BATCH_MAX or len(alike) >= most:
                break
            if not waiter.is_asked_for and (not waiter.due or waiter.due[0] is self):
                if alike and waiter.request.lease_ms != alike[0].request.lease_ms:
                    break
                alike.append(waiter)
                count += waiter.request.count
        return alike

    def make_due(self) -> None:
        """It must ask for each of its clients; other lines may ask first (rule 2)."""
        for waiter in self.several:
            waiter.make_due(self)

    def pass_on(self) -> None:
        """Its queue is empty: of each client that waits for several queues, the next due line asks (rule 2)."""
        passed_on = [waiter for waiter in self.several if self in waiter.due]
        for waiter in passed_on:
            waiter.due.remove(self)
        ask_next(passed_on)


def ask_next(waiters: Iterable[Waiter]) -> None:
    """Lets the first due line of each of these clients ask, unless another line asks for the client already."""
    for waiter in waiters:
        if waiter.due and not waiter.is_asked_for:
            waiter.due[0].serving.request()
