"""Replay: consumers get the messages that they missed, without a gap or a repeat.

Two kinds of consumers are replayed: a client that reconnects and names the last message that it saw, and all live
consumers of a queue after the daemon's subscription broke.

Theory of operation. A ``Replay`` has members: consumers that read the same part of a history. Its states:

    READING PAGES --- last page ---> AWAITING MARKER --- marker ---> the members are live
         ^                                 |
         '--- the subscription broke ------'

1.  The daemon subscribes to the queue's channel before the first page is read. Members are not live: messages that
    arrive on the channel do not go to them, but to their ``Replay``.
2.  Pages are read one after the other, at the pace of the members: the next one when they have taken the last one.
3.  The call that reads the last page publishes a marker on the queue's channel in the same atomic step. A message that
    arrives before the marker is in the pages; a message that arrives after the marker is not.
4.  So the members get the pages, then the messages that arrived after the marker. Page and marker come on two
    connections, in any order; the members become live when both are there.
5.  If the queue keeps no history, the members get all messages that arrived, before and after the marker. The marker
    carries the number of the queue's last message. After a broken subscription, if fewer messages arrived than numbers
    were given, messages may be lost, and the members get a gap notice at each gap in the numbers. They also get one if
    more bytes arrived than are kept.
6.  If the history no longer has the message to begin after, the members get a gap notice, and then the rest. If a
    failover undid that message, they had all before it, so they get the notice and only what follows.
7.  A round robin queue keeps its messages until they are delivered, so its members get no gap notice for numbers. The
    daemon may learn only here that the queue is round robin.
8.  If the subscription breaks, or the store does not answer, reading continues after the last page that was read.
9.  A member may leave at any time. When the last member has left, the replay ends after its call in progress.
10. Until its first page is there, a replay admits more consumers that begin after the same message. So consumers that
    reconnect together after a restart share the pages.

A maintainer must not publish the marker in a separate call (messages between the two calls would be lost or repeated),
and must not keep messages that arrive while pages are read: they are in the history, and could be any number.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from twisted.internet import defer, task

from restmq.delivery.consumer import Consumer, write_gap, write_messages
from restmq.delivery.format import prepare_all
from restmq.delivery.shared import Shared
from restmq.errors import StoreUnavailable
from restmq.model import Message, number_of

_RETRY_SECONDS = 0.5


class _Arrived:
    """Messages that arrived, up to a number of bytes; if there are more, all are forgotten."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.clear()

    def clear(self) -> None:
        self.messages: list[Message] = []
        self.overflowed = False
        self._bytes = 0

    def add(self, messages: Sequence[Message]) -> None:
        self._bytes += sum(len(message.value) for message in messages)
        self.overflowed = self._bytes > self._bytes_max
        if self.overflowed:
            self.messages.clear()
        else:
            self.messages += messages


def _marker_arrival() -> defer.Deferred[Any]:
    """Fires when the marker arrives, or when it is cancelled."""
    arrival: defer.Deferred[Any] = defer.Deferred()
    return arrival.addErrback(lambda failure: failure.trap(defer.CancelledError))


class Replay:
    """Reads a queue's history for its members.

    Args:
        members: the consumers; one that leaves is removed from this list.
        last_key: key of the last message that the members got; empty if they got none.
        last_number: the highest message number that was given before; None if the members are not told
            of messages that no history has.
    """

    def __init__(
        self, queue: str, shared: Shared, members: list[Consumer], last_key: str, last_number: int | None
    ) -> None:
        self.members = members
        self.marker = ""
        self._queue = queue
        self._shared = shared
        self._last_key = last_key
        self._last_number = last_number
        #: Whether the queue keeps a history; None until the first page is there.
        self._kept: bool | None = None
        self._has_begun = False
        self._before_marker = _Arrived(shared.limits.unsent_bytes_max)
        self._after_marker = _Arrived(shared.limits.unsent_bytes_max)
        self._marked = _marker_arrival()
        self._number_at_marker = 0
        self._interrupted = False
        self._is_gap_unclear = False

    # Called by the fan-out

    def admits(self) -> bool:
        """Whether consumers that begin after the same message can become members (rule 10)."""
        return bool(self.members) and not self._has_begun

    def arrive(self, messages: Sequence[Message]) -> None:
        """Messages arrived on the queue's channel."""
        if self._marked.called:
            self._after_marker.add(messages)
        elif not self._kept:
            self._before_marker.add(messages)

    def reach_marker(self, last_number: int) -> None:
        """The marker arrived on the queue's channel."""
        if not self._marked.called:
            self._number_at_marker = last_number
            self._marked.callback(None)

    def interrupt(self) -> None:
        """The subscription broke, or is there again: the marker may be lost, and messages behind it."""
        self._interrupted = True
        self._cancel()

    def leave(self, consumer: Consumer) -> None:
        """A member has disconnected."""
        self.members.remove(consumer)
        if not self.members:
            self._before_marker.clear()
            self._after_marker.clear()
            self._cancel()

    def _cancel(self) -> None:
        if not self._marked.called:
            self._marked.cancel()

    # Reading

    async def run(self) -> None:
        """Returns when the members have all messages, or have left."""
        while self.members and not await self._read_all():
            await task.deferLater(self._shared.reactor, _RETRY_SECONDS)

    async def _read_all(self) -> bool:
        """Returns whether the members have all messages; if not, it must be called again (rule 8)."""
        if not self._kept:
            self._before_marker.add(self._after_marker.messages)
        self._after_marker.clear()
        self._interrupted = self._is_gap_unclear = False
        self.marker, self._marked = secrets.token_hex(8), _marker_arrival()
        try:
            await self._read_pages()
        except StoreUnavailable:
            return False
        await self._marked
        if self._interrupted or (self._kept and self._after_marker.overflowed):
            return False
        self._write_arrived()
        return True

    async def _read_pages(self) -> None:
        is_first, more = True, True
        while more and self.members:
            page = await self._shared.core.queue_replay(
                self._queue,
                self._last_key,
                self.marker,
                page_bytes=max(1, self._shared.limits.unsent_bytes),
                continues=not is_first,
            )
            self._kept, self._has_begun = page.kept, True
            if not page.is_broadcast:
                self._last_number = None
            if page.kept:
                self._before_marker.clear()
            if page.gap and (page.is_broadcast or self._last_key):
                self._meet_gap(page.messages)
            write_messages(self.members, await prepare_all(page.messages, self.members, self._shared.turns))
            self._last_key, is_first, more = page.last_key, False, page.more
            if more:
                await self._shared.slow_consumers.wait(self.members)

    def _meet_gap(self, messages: list[Message]) -> None:
        """The history does not have the message to begin after. If there is no such message, that alone is no gap."""
        if self._last_key or self._last_number is None:
            self._tell_gap()
        elif not messages:
            self._is_gap_unclear = True
        elif number_of(messages[0].key) != self._last_number + 1:
            self._tell_gap()

    def _may_have_missed(self) -> bool:
        """Rule 5."""
        if self._last_number is None or (self._kept and not self._is_gap_unclear):
            return False
        arrived = {number_of(message.key) for message in self._before_marker.messages}
        given = self._number_at_marker - self._last_number
        return sum(number > self._last_number for number in arrived) != given

    def _write_arrived(self) -> None:
        """Writes the messages that arrived. If any were missed, a gap notice is sent at each gap in the numbers."""
        run, number = self._before_marker.messages, self._last_number
        if number is not None and self._may_have_missed():
            arrived, run = run, []
            for message in arrived:
                if number_of(message.key) != number + 1:
                    write_messages(self.members, run)
                    run.clear()
                    self._tell_gap()
                run.append(message)
                self._last_key, number = message.key, number_of(message.key)
            if number != self._number_at_marker:
                write_messages(self.members, run)
                run = []
                self._tell_gap()
        elif self._before_marker.overflowed:
            self._tell_gap()
        if self._after_marker.overflowed:  # there is no history to read again
            write_messages(self.members, run)
            self._last_key, run = run[-1].key if run else self._last_key, []
            self._tell_gap()
        write_messages(self.members, run + self._after_marker.messages)

    def _tell_gap(self) -> None:
        write_gap(self.members, self._last_key)
        self._shared.counters.gaps += len(self.members)
