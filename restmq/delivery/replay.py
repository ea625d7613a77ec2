"""Replay: a consumer that reconnects gets the messages that it missed, without a gap or a repeat.

Theory of operation. A resuming consumer goes through these states:

    WAITING FOR SUBSCRIPTION --> READING HISTORY --> LIVE
                 |                      |
                 '---- marker lost -----'--> closed with TRY_AGAIN

1.  The daemon subscribes to the queue's channel before it reads the history. A ``ReplayBuffer`` stands in for the
    consumer and keeps the messages that arrive meanwhile.
2.  Reading the history publishes a marker on the queue's channel in the same atomic step. A message that arrives before
    the marker is in the history; a message that arrives after the marker is not.
3.  So the consumer gets the history, then the messages that arrived after the marker. If the queue keeps no history,
    the consumer also gets the messages that arrived before the marker.
4.  The answer and the marker come on two connections, in any order. The consumer becomes LIVE when both are there.
5.  If the subscription breaks, a marker may be lost. Then all waits for markers fail, and the clients reconnect.
6.  If the history no longer holds the last message that the consumer saw, the consumer is told of the gap first.

A maintainer must not publish the marker in a separate call: messages between the two calls would be lost or repeated.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet import defer

from restmq.delivery.consumer import CloseReason, Consumer, ConsumerOwner
from restmq.queues.results import ReplayPage

Found = TypeVar("Found")


class ReplayBuffer:
    """Stands in for a resuming consumer until its history is read, and keeps the messages that arrive meanwhile."""

    def __init__(self, fanout: ConsumerOwner, queue: str, consumer: Consumer) -> None:
        self.consumer = consumer
        self.format = consumer.format
        self.lease_ms = consumer.lease_ms
        self.leases = consumer.leases
        self.credentials = consumer.credentials
        self.access = consumer.access
        self.since_seconds = consumer.since_seconds
        self._fanout = fanout
        self._queue = queue
        self._kept_bytes = 0
        self._before_marker: list[bytes] = []
        self._after_marker: list[bytes] = []
        self._kept = self._before_marker

    def write(self, frames: bytes) -> None:
        if self._kept_bytes > self._fanout.limits.unsent_bytes_max:
            self._fanout.drop(self._queue, self)
            return
        self._kept.append(frames)
        self._kept_bytes += len(frames)

    def reach_marker(self) -> None:
        self._kept = self._after_marker

    def capacity(self) -> int:
        return 0

    def wait_until(self, is_shared: bool = False) -> float:
        limits = self._fanout.limits
        return self.since_seconds + limits.stall_seconds if self._kept_bytes > limits.unsent_bytes // 2 else 0.0

    def close(self, reason: CloseReason) -> None:
        self.consumer.close(reason)

    def release(self, missed: ReplayPage, last_key: str) -> None:
        """Sends the missed messages, then the kept ones (rule 3)."""
        if missed.gap:
            self.consumer.write(self.format.gap(last_key))
        history = [self.format.message(message) for message in missed.messages]
        frames = b"".join(history + ([] if missed.kept else self._before_marker) + self._after_marker)
        if frames:
            self.consumer.write(frames)


class Markers:
    """The markers that have not arrived yet."""

    def __init__(self) -> None:
        self._awaited: dict[str, tuple[ReplayBuffer, defer.Deferred[None]]] = {}

    async def read(self, buffer: ReplayBuffer, read: Callable[[str], Awaitable[Found]]) -> Found:
        """Reads the history with a new marker; returns the history when that marker has arrived.

        Args:
            read: reads the history and publishes the marker in one step.

        Raises:
            CancelledError: the marker may be lost.
        """
        marker = secrets.token_hex(8)
        arrived: defer.Deferred[None] = defer.Deferred()
        self._awaited[marker] = buffer, arrived
        try:
            found = await read(marker)
            await arrived
        finally:
            self._awaited.pop(marker, None)
            arrived.addErrback(lambda _: None)  # nobody awaits it if reading failed
        return found

    def is_awaited(self, marker: str) -> bool:
        """Whether this daemon published the marker."""
        return marker in self._awaited

    def arrive(self, marker: str) -> None:
        """The marker arrived on the channel."""
        buffer, arrived = self._awaited[marker]
        buffer.reach_marker()
        arrived.callback(None)

    def cancel_all(self) -> None:
        """The subscription broke: markers may be lost (rule 5)."""
        for _, arrived in list(self._awaited.values()):
            if not arrived.called:
                arrived.cancel()
