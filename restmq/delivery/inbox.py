"""Handles messages and notices from a queue's channel, in the order in which Redis published them."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger

from restmq.model import Message

log = Logger()


@dataclass(slots=True, frozen=True)
class Notice:
    """A notice between messages, such as ``mark <marker>``."""

    kind: bytes
    text: str


@dataclass(slots=True, frozen=True)
class StoredMessage:
    """A message whose value is not on the channel, but stored in Redis (``lua/_flow.lua``, rule 6)."""

    key: str
    size_bytes: int
    record: bytes


class ByteBudget:
    """Limits the bytes of all reads in progress. A read larger than the limit has to be the only one."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._waiting: deque[tuple[int, defer.Deferred[None]]] = deque()

    async def acquire(self, size_bytes: int) -> None:
        """Returns when the bytes are available, in the order of the requests."""
        turn: defer.Deferred[None] = defer.Deferred()
        self._waiting.append((size_bytes, turn))
        self._admit()
        await turn

    def release(self, size_bytes: int) -> None:
        self._used_bytes -= size_bytes
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            size_bytes, turn = self._waiting[0]
            if self._used_bytes and self._used_bytes + size_bytes > self._limit_bytes:
                return
            self._waiting.popleft()
            self._used_bytes += size_bytes
            turn.callback(None)


class Inbox:
    """Delivers messages and handles notices in order. While a stored value is read, later entries wait.

    Args:
        budget: shared by all inboxes of the daemon.
        read: returns a stored message with its value; None if it is lost.
        deliver: delivers messages.
        lose: called with the key of a message that is lost.
        handle: handles a notice.
        run: starts a coroutine.
    """

    __slots__ = ("_budget", "_deliver", "_entries", "_handle", "_is_reading", "_lose", "_read", "_run")

    def __init__(
        self,
        *,
        budget: ByteBudget,
        read: Callable[[StoredMessage], Awaitable[Message | None]],
        deliver: Callable[[list[Message]], None],
        lose: Callable[[str], None],
        handle: Callable[[Notice], None],
        run: Callable[[Coroutine[Any, Any, None]], defer.Deferred[None]],
    ) -> None:
        self._budget = budget
        self._read = read
        self._deliver = deliver
        self._lose = lose
        self._handle = handle
        self._run = run
        self._entries: deque[Message | StoredMessage | Notice] = deque()
        self._is_reading = False

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entry: Message | StoredMessage | Notice) -> None:
        self._entries.append(entry)

    def clear(self) -> None:
        """Forgets all entries: there are no consumers any more."""
        self._entries.clear()

    def flush(self) -> None:
        """Handles all entries, or those before a value that must be read first; then ``_deliver_stored`` continues."""
        batch: list[Message] = []
        while self._entries and not self._is_reading:
            entry = self._entries.popleft()
            if type(entry) is Message:
                batch.append(entry)
                continue
            if batch:
                self._deliver(batch)
                batch = []
            if isinstance(entry, StoredMessage):
                self._is_reading = True
                self._run(self._deliver_stored(entry)).addErrback(
                    lambda failure: log.failure("delivering a stored message failed", failure=failure)
                )
            elif isinstance(entry, Notice):
                self._handle(entry)
        if batch:
            self._deliver(batch)

    async def _deliver_stored(self, stored: StoredMessage) -> None:
        await self._budget.acquire(stored.size_bytes)
        try:
            message = await self._read(stored)
            if message is None:
                self._lose(stored.key)
            else:
                self._deliver([message])
        finally:
            self._budget.release(stored.size_bytes)
            self._is_reading = False
        self.flush()
