"""How fast waiting messages may come: as fast as those who listen take them; and how long a slow one is waited for.

A consumer is full when its transport has more to send than the system takes. From then on it has ``stall_seconds``,
and as much again for each MiB that it is given, to take it all. For so long a backlog waits for it, unless it takes
nothing at all for ``stall_seconds``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet import defer


@dataclass(slots=True, frozen=True)
class BackpressureLimits:
    """How far behind a live consumer may be, and for how long.

    Attributes:
        unsent_bytes: it may be behind by so much however long it takes.
        stall_seconds: the time after which one that takes nothing is waited for no longer.
    """

    unsent_bytes: int = 1 << 20
    stall_seconds: float = 10.0

    @property
    def unsent_bytes_at_most(self) -> int:
        """Behind by more than this it is dropped, even if it reads."""
        return 4 * self.unsent_bytes

    def seconds_for(self, size_bytes: int) -> float:
        """How long a consumer that was given so much may take for it; a low limit on memory is no reason for longer."""
        return self.stall_seconds * size_bytes / max(self.unsent_bytes, 1 << 20)


class Paced(Protocol):
    """Whoever may have to be waited for."""

    def full_until(self) -> float:
        """Until when it is to be waited for before it is asked again, on the reactor's clock; 0 for no longer."""


class Pace:
    """Waits for those who are full."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._awaited: dict[Paced, defer.Deferred[None]] = {}

    async def let_read(self, consumers: Sequence[Paced]) -> None:
        """Returns when each of them has room, has gone from the list, or has had its time."""
        for consumer in list(consumers):
            while (seconds := consumer.full_until() - self._reactor.seconds()) > 0 and consumer in consumers:
                relieved = self._awaited[consumer] = defer.Deferred()
                with contextlib.suppress(defer.TimeoutError):
                    await relieved.addTimeout(seconds, self._reactor)
                self._awaited.pop(consumer, None)

    def relieve(self, consumer: Paced) -> None:
        """It has room again, or has gone."""
        relieved = self._awaited.pop(consumer, None)
        if relieved is not None:
            relieved.callback(None)
