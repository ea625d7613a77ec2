"""Bounds the work of one reactor turn, and shares it fairly between connections.

Theory of operation:

1. All work on clients' input is charged to the turn, in seconds. A connection charges ``SMALL_SECONDS`` itself for
   input of up to ``SMALL_BYTES``, so that the usual request needs no reading of the clock.
2. From ``QUIET_SECONDS`` on, connections ask before they process input, and a call is scheduled for the next turn,
   which sets the charge to zero. An idle server thus schedules one call for about a hundred requests.
3. At ``_TURN_SECONDS`` the turn is full: no more input is processed. Connections wait in two queues: one for short
   inputs, which are quick work, and one for all else.
4. The next turn serves the queues first, until it is full itself: all short inputs, then the others in order. At least
   one of the others is served. A connection with more to do goes to the end of its queue.
5. So no turn takes longer than ``_TURN_SECONDS`` and two pieces of work. An ordinary request waits for short inputs
   only, however many clients send long ones.

A maintainer must keep pieces of work small (a few ms), and must not process input outside of a turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from twisted.internet.defer import Deferred

SMALL_BYTES = 2048
SMALL_SECONDS = 0.0001
QUIET_SECONDS = 0.01
_TURN_SECONDS = 0.02


class Turns:
    """The work of reactor turns.

    Args:
        call_later: the reactor's.
        clock: monotonic seconds.

    Attributes:
        spent: seconds charged to this turn.
        clock: as given.
    """

    def __init__(self, call_later: Callable[..., object], clock: Callable[[], float]) -> None:
        self._call_later = call_later
        self.clock = clock
        self.spent = 0.0
        self._scheduled = False
        self._short: deque[Callable[[], None]] = deque()
        self._queue: deque[Callable[[], None]] = deque()

    def is_full(self) -> bool:
        """Whether input must wait for the next turn."""
        if self.spent >= QUIET_SECONDS and not self._scheduled:
            self._schedule()
        return self.spent >= _TURN_SECONDS

    def process(self, work: Callable[[bytes], None], data: bytes) -> None:
        """Processes input and charges the time that it takes."""
        began = self.clock()
        work(data)
        self.spent += self.clock() - began

    def wait(self, work: Callable[[], None], is_short: bool = False) -> None:
        """Does a piece of work in one of the next turns."""
        (self._short if is_short else self._queue).append(work)
        if not self._scheduled:
            self._schedule()

    def next(self) -> Deferred[None]:
        """Fires in one of the next turns. The work of its callbacks counts there."""
        begun: Deferred[None] = Deferred()
        self.wait(lambda: begun.callback(None))
        return begun

    async def run(self, steps: Iterator[None]) -> None:
        """Runs an iterator to its end, the first step now and each further one in a turn of its own."""
        for _ in steps:
            await self.next()

    def _schedule(self) -> None:
        self._scheduled = True
        self._call_later(0, self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        self.spent = 0.0
        began = self.clock()
        for queue in (self._short, self._queue):
            for _ in range(len(queue)):
                queue.popleft()()
                self.spent = self.clock() - began
                if self.spent >= _TURN_SECONDS:
                    break
        if (self._short or self._queue) and not self._scheduled:
            self._schedule()
