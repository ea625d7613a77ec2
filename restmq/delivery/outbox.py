"""The bytes that live consumers have not been sent yet. Consumers share them: a message is in memory once per format.

A Twisted transport copies all bytes that it is given; a large message would be copied for each slow consumer. So a
consumer gives its transport only the bytes that the system takes at once, and keeps references to the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


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
    """What one consumer is to be sent."""

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
        """The next bytes, not more than these, and only of one piece."""
        return memoryview(self._pieces[0])[self._offset : self._offset + size_bytes]

    def consume(self, size_bytes: int) -> None:
        """Some of the bytes that ``peek`` returned are sent."""
        self.unsent_bytes -= size_bytes
        self._offset += size_bytes
        if self._offset == len(self._pieces[0]):
            self._shared.release(self._pieces.popleft())
            self._offset = 0

    def clear(self) -> None:
        """The connection has ended."""
        while self._pieces:
            self._shared.release(self._pieces.popleft())
        self.unsent_bytes = self._offset = 0
