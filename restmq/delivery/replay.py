"""Marks by which who resumes knows what was published before and after its look at the history."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from twisted.internet import defer

from restmq.delivery.consumer import CloseReason, Consumer
from restmq.queues.results import Missed

if TYPE_CHECKING:
    from restmq.delivery.fanout import Fanout

Found = TypeVar("Found")


class ReplayBuffer:
    """Stands in for a consumer that resumes, until what it missed is known: keeps what is sent to it meanwhile."""

    def __init__(self, fanout: Fanout, queue: str, consumer: Consumer) -> None:
        self.consumer = consumer
        self.format = consumer.format
        self.lease_ms = consumer.lease_ms
        self.held = consumer.held
        self.credentials = consumer.credentials
        self.access = consumer.access
        self.since_seconds = consumer.since_seconds
        self._fanout = fanout
        self._queue = queue
        self._kept_bytes = 0
        self._before_mark: list[bytes] = []
        self._after_mark: list[bytes] = []
        self._kept = self._before_mark

    def write(self, frames: bytes) -> None:
        if self._kept_bytes > self._fanout.patience.unsent_bytes_at_most:
            self._fanout.drop(self._queue, self)
            return
        self._kept.append(frames)
        self._kept_bytes += len(frames)

    def reach_mark(self) -> None:
        self._kept = self._after_mark

    def room(self) -> int:
        return 0

    def full_until(self) -> float:
        patience = self._fanout.patience
        return self.since_seconds + patience.stall_seconds if self._kept_bytes > patience.unsent_bytes // 2 else 0.0

    def close(self, reason: CloseReason) -> None:
        self.consumer.close(reason)

    def release(self, missed: Missed, last_key: str) -> None:
        """Sends what was missed, then what was kept; a history has all that came before the mark."""
        if missed.gap:
            self.consumer.write(self.format.gap(last_key))
        history = [self.format.message(message) for message in missed.messages]
        frames = b"".join(history + ([] if missed.kept else self._before_mark) + self._after_mark)
        if frames:
            self.consumer.write(frames)


class Marks:
    """The marks that were published and have not been heard yet."""

    def __init__(self) -> None:
        self._awaited: dict[str, tuple[ReplayBuffer, defer.Deferred[None]]] = {}

    async def look(self, held: ReplayBuffer, look: Callable[[str], Awaitable[Found]]) -> Found:
        """What a look at the history finds that publishes a mark in the same instant, when that mark was heard.

        Raises CancelledError if it may have gone by unheard, and what the look raises.
        """
        mark = secrets.token_hex(8)
        heard: defer.Deferred[None] = defer.Deferred()
        self._awaited[mark] = held, heard
        try:
            found = await look(mark)
            await heard
        finally:
            self._awaited.pop(mark, None)
            heard.addErrback(lambda _: None)  # nobody waits for it where the look failed
        return found

    def knows(self, mark: str) -> bool:
        """Whether it is one of this daemon's."""
        return mark in self._awaited

    def hear(self, mark: str) -> None:
        """It was heard on the channel: what comes now was published after it."""
        held, heard = self._awaited[mark]
        held.reach_mark()
        heard.callback(None)

    def give_up(self) -> None:
        """They may have gone by while nobody listened: who resumes is to come again."""
        for _, heard in list(self._awaited.values()):
            if not heard.called:
                heard.cancel()
