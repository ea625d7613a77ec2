"""Handles messages and notices from a channel of a queue, in the order in which Redis published them."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger

from restmq.delivery.format import Formatted, prepare
from restmq.delivery.shared import Shared
from restmq.errors import RestMQError
from restmq.model import Message

log = Logger()

#: Bounds of the time between two flushes. A shorter one would bring no more messages.
_REST_SECONDS_MIN, _REST_SECONDS_MAX = 0.0002, 0.005


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


class EndOfTurn:
    """Flushes the inboxes in which something arrived, once per reactor turn: each consumer then gets one write.

    After a flush the next one waits for as long as that took, 5 ms at most. So consumers that keep the daemon busy take
    at most half of its time. Meanwhile it accepts more messages, and each consumer gets several in one write.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._unflushed: list[Inbox] = []
        self._next_seconds = 0.0

    def flush(self, inbox: Inbox) -> None:
        """Flushes the inbox at the end of this turn, or a little later. Must be called before an entry is added."""
        if not inbox:
            self._unflushed.append(inbox)
            if len(self._unflushed) == 1:
                rest = self._next_seconds - self._reactor.seconds()
                self._reactor.callLater(rest if rest > _REST_SECONDS_MIN else 0, self._flush_all)

    def _flush_all(self) -> None:
        unflushed, self._unflushed = self._unflushed, []
        began = self._reactor.seconds()
        for inbox in unflushed:
            inbox.flush()
        ended = self._reactor.seconds()
        self._next_seconds = ended + min(ended - began, _REST_SECONDS_MAX)


def _nothing(_entry: Any) -> Any:
    """Takes the place of the three functions of a closed inbox."""
    return defer.succeed(None)


class Inbox:
    """Delivers messages and handles notices in order. While a stored value is read, later entries wait.

    Args:
        read: reads the value of a stored message, by its key; returns None if it is lost.
        consumers: the live list of the consumers that a stored message is rendered for.
        deliver: delivers messages. If it fails, it has told the consumers of a gap, or does so before the next ones.
        lose: called with the key of a message that is lost.
        handle: handles a notice.
    """

    def __init__(
        self,
        queue: str,
        shared: Shared,
        *,
        read: Callable[[str], Awaitable[bytes | None]],
        consumers: Sequence[Formatted],
        deliver: Callable[[list[Message]], None],
        lose: Callable[[str], None],
        handle: Callable[[Notice], None],
    ) -> None:
        self._tag_bytes = len(shared.core.layout.tag(queue))
        self._shared = shared
        self._read = read
        self._consumers = consumers
        self._deliver = deliver
        self._lose = lose
        self._handle = handle
        self._entries: deque[Message | StoredMessage | Notice] = deque()
        self._is_reading = False
        #: The key and the record of the next message, if it has one (``queues/lua/_announce.lua``).
        self._record = (b"", b"")

    def __len__(self) -> int:
        return len(self._entries)

    def receive(self, kind: bytes, content: bytes) -> None:
        """A message, its record or a notice arrived. A message waits until the inbox is flushed."""
        if kind == b"message":
            key, _, value = content.partition(b"\n")
            self._entries.append(Message(key[self._tag_bytes :].decode(), value, record=self._record_of(key)))
        elif kind == b"record":
            key, _, record = content.partition(b"\n")
            self._record = (key, record)
        else:
            if kind == b"stored":
                size, _, key = content.partition(b" ")
                stored = StoredMessage(key[self._tag_bytes :].decode(), int(size), self._record_of(key))
                self._entries.append(stored)
            else:
                self._entries.append(Notice(kind, content.decode()))
            self.flush()

    def _record_of(self, key: bytes) -> bytes:
        return self._record[1] if self._record[0] == key else b""

    def close(self) -> None:
        """Forgets all entries, and its owner: there are no consumers any more."""
        self._entries.clear()
        self._read = self._deliver = self._lose = self._handle = _nothing

    def flush(self) -> None:
        """Handles all entries, or those before a value that must be read first; then ``_deliver_stored`` continues."""
        batch: list[Message] = []
        while self._entries and not self._is_reading:
            entry = self._entries.popleft()
            if type(entry) is Message:
                batch.append(entry)
                continue
            if batch:
                self._do(self._deliver, batch)
                batch = []
            if isinstance(entry, StoredMessage):
                self._is_reading = True
                self._shared.calls.run(self._deliver_stored(entry)).addErrback(
                    lambda failure: log.failure("delivering a stored message failed", failure=failure)
                )
            elif isinstance(entry, Notice):
                self._do(self._handle, entry)
        if batch:
            self._do(self._deliver, batch)

    def _do(self, action: Callable[[Any], None], entry: Any) -> None:
        """What another program wrote, e.g. a broken record, must not hold up the entries behind it."""
        try:
            action(entry)
        except Exception:  # whatever the reader of a broken record raises
            log.failure("delivering messages failed")

    async def _deliver_stored(self, stored: StoredMessage) -> None:
        await self._shared.read_budget.acquire(stored.size_bytes)
        try:
            value = await self._value_of(stored)
            if value is None:
                self._lose(stored.key)
            else:
                message = Message(stored.key, value, record=stored.record)
                self._do(self._deliver, [await prepare(message, self._consumers, self._shared.turns)])
        finally:
            self._shared.read_budget.release(stored.size_bytes)
            self._is_reading = False
        self.flush()

    async def _value_of(self, stored: StoredMessage) -> bytes | None:
        try:
            return await self._read(stored.key)
        except RestMQError:
            return None
