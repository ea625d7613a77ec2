"""Bounds the memory of responses that clients do not read.

A connection is recorded here while its transport is full, i.e. until the transport is empty or the connection closes.

1. All unread bytes are counted, in total and per address. If an address has too many, its new requests are rejected
   before they run; if the total is too large, all new requests are. So no message is taken for them.
2. Responses that are already on their way can still exceed the limits. Then one connection is cut: the one whose client
   has taken no byte for the longest time.
3. A client that takes no byte for ``stall_seconds`` is cut. The kernel's buffer counts as not taken.
"""

from __future__ import annotations

from typing import Any, Protocol

from restmq.http.quota import ClientQuota
from restmq.transport import kernel_unsent_bytes


class UnreadConnection(Protocol):
    """A connection that can be unread."""

    remote_ip: str
    transport: Any

    @property
    def unsent_bytes(self) -> int:
        """Bytes of responses that the system has not taken yet."""

    def cut(self) -> None:
        """Closes at once."""


class _Backlog:
    """The unsent bytes of a connection.

    Attributes:
        charged_bytes: number of these bytes that the quota counts.
        left_bytes: their number, with the kernel's buffer, at the last measurement.
        moved_seconds: when the client last took bytes.
    """

    __slots__ = ("charged_bytes", "left_bytes", "moved_seconds")

    def __init__(self, now: float) -> None:
        self.charged_bytes = self.left_bytes = 0
        self.moved_seconds = now


class UnreadResponses:
    """The connections with unread responses.

    Attributes:
        backlogs: the connections.
        cut_number: number of connections that were cut.
    """

    def __init__(self, quota: ClientQuota, stall_seconds: float) -> None:
        self._quota = quota
        self._stall_seconds = stall_seconds
        self.cut_number = 0
        self.backlogs: dict[UnreadConnection, _Backlog] = {}

    def refuses(self, address: str) -> bool:
        """Whether an address may send no request now. It may, if there are no backlogs."""
        return self._quota.exceeded_in_total() or self._quota.exceeded_by(address)

    def add(self, connection: UnreadConnection, now: float) -> None:
        """The connection's transport is full."""
        backlog = self.backlogs.setdefault(connection, _Backlog(now))
        self._measure(connection, backlog, now)
        self._shed(connection.remote_ip)

    def discard(self, connection: UnreadConnection) -> None:
        """All is sent, or the connection is closed, or a stream has taken over its transport."""
        backlog = self.backlogs.pop(connection, None)
        if backlog is not None:
            self._quota.change(connection.remote_ip, -backlog.charged_bytes)

    def cut_stalled(self, now: float) -> None:
        """Call it about once a second."""
        for connection, backlog in list(self.backlogs.items()):
            self._measure(connection, backlog, now)
            if now - backlog.moved_seconds >= self._stall_seconds:
                self._cut(connection)

    def _measure(self, connection: UnreadConnection, backlog: _Backlog, now: float) -> None:
        ours = connection.unsent_bytes
        self._quota.change(connection.remote_ip, ours - backlog.charged_bytes)
        backlog.charged_bytes = ours
        left = ours + kernel_unsent_bytes(connection.transport)
        if left != backlog.left_bytes:
            backlog.left_bytes, backlog.moved_seconds = left, now

    def _shed(self, address: str) -> None:
        while self._quota.exceeded_by(address) and self._cut_slowest(
            [c for c in self.backlogs if c.remote_ip == address]
        ):
            pass
        while self._quota.exceeded_in_total() and self._cut_slowest(list(self.backlogs)):
            pass

    def _cut_slowest(self, connections: list[UnreadConnection]) -> bool:
        """Cuts one of several connections. A single one may have a response that is larger than the limit."""
        if len(connections) > 1:
            self._cut(min(connections, key=lambda connection: self.backlogs[connection].moved_seconds))
        return len(connections) > 1

    def _cut(self, connection: UnreadConnection) -> None:
        self.discard(connection)
        connection.cut()
        self.cut_number += 1
