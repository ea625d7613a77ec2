"""Back-pressure: how far a live consumer may fall behind, and how long a backlog waits for it.

Theory of operation. The states of a consumer's transport:

    WRITABLE --- a write leaves unsent bytes ---> FULL --- all is sent ---> WRITABLE
                                                   |
                                                   '-- too far behind ----> dropped

1.  A consumer is FULL while the system does not take bytes for it, until all of them are taken. The bytes wait in its
    outbox, shared with other consumers; TLS has some of them.
2.  A consumer's backlog: bytes written while it was FULL. The write that filled the transport does not count, so a
    single message of any size never drops a consumer.
3.  A FULL consumer has a deadline: ``stall_seconds``, and as much again for each MiB that it is given before the
    deadline. A lower limit on memory does not give more time.
4.  The next write drops a FULL consumer if its backlog exceeds ``unsent_bytes`` after the deadline, or
    ``unsent_bytes_max`` at any time. A consumer that is less far behind stays connected for ever.
5.  Before a daemon lets more broadcast messages come, it waits for each FULL consumer with more than half of
    ``unsent_bytes`` unsent (``SlowConsumers.wait``). The wait ends when the consumer is WRITABLE, has left, has reached
    its deadline, or has taken nothing at all for ``stall_seconds``. It also ends if ``stall_seconds`` have passed and
    half of ``unsent_bytes`` or less is left. A stalled consumer gets no second wait.
6.  While another consumer of the queue is ready, the wait for a consumer that takes nothing ends already after
    ``shared_stall_seconds``: consumers that read are held up only by consumers that read.
7.  Round robin never waits: it skips consumers that are FULL.
8.  The outboxes of all consumers together have at most ``unsent_bytes_total``, where bytes that several consumers share
    count once. If there are more, the consumers with the largest outboxes are dropped.

A maintainer must not count the write of rule 2, and must not extend a deadline that has passed: either one lets a
consumer that does not read hold up all others again and again.

A Twisted transport copies all bytes that it is given; a large message would be copied for each slow consumer. So a
consumer gives its transport only the bytes that the system takes at once, and keeps references to the rest in its
outbox: a message is in memory once per format.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet import defer


@dataclass(slots=True, frozen=True)
class BackpressureLimits:
    """How far a live consumer may fall behind, and for how long.

    Attributes:
        unsent_bytes: maximum backlog of a consumer that has reached its deadline.
        stall_seconds: time after which a backlog no longer waits for a consumer that takes nothing.
        unsent_bytes_total: maximum bytes that wait for all consumers of the daemon together.
    """

    unsent_bytes: int = 1 << 20
    stall_seconds: float = 10.0
    unsent_bytes_total: int = 256 << 20

    @property
    def shared_stall_seconds(self) -> float:
        """As ``stall_seconds``, while other consumers are ready."""
        return min(self.stall_seconds, 2.0)

    @property
    def unsent_bytes_max(self) -> int:
        """Maximum backlog of a consumer, even if it reads."""
        return 4 * self.unsent_bytes

    def seconds_for(self, size_bytes: int) -> float:
        """Time that a FULL consumer gets for these bytes."""
        return self.stall_seconds * size_bytes / max(self.unsent_bytes, 1 << 20)


class Waitable(Protocol):
    """A consumer that a queue's messages can wait for."""

    def wait_until(self, is_shared: bool = False) -> float:
        """The time (reactor seconds) until which messages wait before they ask again; 0 for no wait.

        Args:
            is_shared: whether another consumer of the queue is ready.
        """


class SlowConsumers:
    """Waits for FULL consumers (rules 5 and 6)."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._awaited: dict[Waitable, list[defer.Deferred[None]]] = {}

    async def wait(self, consumers: Sequence[Waitable], seconds_max: float = math.inf) -> bool:
        """Waits for each consumer.

        Args:
            consumers: the live list; a consumer that is removed from it is no longer waited for.

        Returns:
            False if ``seconds_max`` passed before.
        """
        end = self._reactor.seconds() + seconds_max
        is_shared = any(consumer.wait_until() == 0 for consumer in consumers)
        for consumer in list(consumers):
            while (until := consumer.wait_until(is_shared)) > (
                now := self._reactor.seconds()
            ) and consumer in consumers:
                if now >= end:
                    return False
                await self._release_of(consumer, min(until, end) - now)
        return True

    async def _release_of(self, consumer: Waitable, seconds: float) -> None:
        released: defer.Deferred[None] = defer.Deferred()
        awaited = self._awaited.setdefault(consumer, [])
        awaited.append(released)
        with contextlib.suppress(defer.TimeoutError):
            await released.addTimeout(seconds, self._reactor)
        if released in awaited:
            awaited.remove(released)
            if not awaited:
                self._awaited.pop(consumer, None)

    def release(self, consumer: Waitable) -> None:
        """The consumer is WRITABLE again, or has left."""
        for released in list(self._awaited.pop(consumer, [])):  # each removes itself
            released.callback(None)


class SharedBytes:
    """Counts the bytes of all outboxes of a daemon, each piece once.

    Args:
        bytes_max: maximum of these bytes.
        exceeded: called when there are more.
    """

    def __init__(self, bytes_max: int, exceeded: Callable[[], None]) -> None:
        self.total = 0
        self.bytes_max = bytes_max
        self._exceeded = exceeded
        #: By identity of a piece, which the outboxes keep alive: the number of outboxes that have it.
        self._holders: dict[int, int] = {}

    def hold(self, piece: bytes) -> None:
        """An outbox has the piece."""
        holders = self._holders.get(id(piece), 0)
        self._holders[id(piece)] = holders + 1
        if not holders:
            self.total += len(piece)
            if self.total > self.bytes_max:
                self._exceeded()

    def release(self, piece: bytes) -> None:
        """An outbox no longer has the piece."""
        holders = self._holders[id(piece)] - 1
        if holders:
            self._holders[id(piece)] = holders
        else:
            del self._holders[id(piece)]
            self.total -= len(piece)


class Outbox:
    """The bytes that are still to be sent to one consumer."""

    __slots__ = ("_offset", "_pieces", "_shared", "unsent_bytes")

    def __init__(self, shared: SharedBytes) -> None:
        self.unsent_bytes = 0
        self._shared = shared
        self._pieces: deque[bytes] = deque()
        self._offset = 0

    def append(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self.unsent_bytes += len(piece)
            self._shared.hold(piece)

    def peek(self, size_bytes: int) -> memoryview:
        """Up to ``size_bytes`` of the next piece."""
        return memoryview(self._pieces[0])[self._offset : self._offset + size_bytes]

    def consume(self, size_bytes: int) -> None:
        """Removes the first bytes of those that ``peek`` returned, because they are sent."""
        self.unsent_bytes -= size_bytes
        self._offset += size_bytes
        if self._offset == len(self._pieces[0]):
            self._shared.release(self._pieces.popleft())
            self._offset = 0

    def clear(self) -> None:
        """Removes everything, because the connection has ended."""
        while self._pieces:
            self._shared.release(self._pieces.popleft())
        self.unsent_bytes = self._offset = 0
