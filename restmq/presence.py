"""Whether a client is still there: also while nobody reads its connection, where what it sent stands before its end."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

#: poll(2): the other side has closed, or shut down its writing half. Linux has it, for TCP and Unix sockets.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)


def hung_up(transport: Any) -> bool:
    """Asks the kernel; where it can't tell, the answer is no.

    It knows of an end that has arrived: not of one behind more than the socket's buffer holds.
    """
    if not _HUNG_UP:
        return False
    asked = select.poll()
    asked.register(transport.fileno(), _HUNG_UP)
    return bool(asked.poll(0))


class Presence:
    """A client that is there or has left, and who wants to know when it leaves.

    Args:
        left_unseen: asks whether it has left without our having seen it, as its connection is not being read.
    """

    __slots__ = ("_gone", "_left_unseen", "_tell")

    def __init__(self, left_unseen: Callable[[], bool]) -> None:
        self._gone = False
        self._left_unseen = left_unseen
        self._tell: list[Callable[[], None]] = []

    @property
    def left(self) -> bool:
        self._gone = self._gone or self._left_unseen()
        return self._gone

    def leave(self) -> None:
        self._gone = True
        tell, self._tell = self._tell, []
        for call in tell:
            call()

    def watch(self, call: Callable[[], None]) -> None:
        """Calls when the client leaves, at once if it has."""
        if self.left:
            call()
        else:
            self._tell.append(call)

    def unwatch(self, call: Callable[[], None]) -> None:
        if call in self._tell:
            self._tell.remove(call)
