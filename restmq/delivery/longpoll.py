"""Clients that wait for a message: long polls.

They stand in line for each queue, in the order in which they came. The daemon asks Redis on behalf of all of a line in
one call; where there was too little it is told, on a channel of its own, when something comes. A client that has left
eats nothing: what was taken for it goes back to the front.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any

from twisted.application import service
from twisted.internet import defer, task
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.core import RedisOperations, not_reachable
from restmq.delivery.tasks import PendingCalls
from restmq.errors import RestMQError, StoreUnavailable
from restmq.model import BATCH_MAX, Message, check_queue_name
from restmq.queues.results import QueueOverview
from restmq.store import keys
from restmq.transport import Presence

log = Logger()

#: A wake-up that died with the daemon it was sent to is made good after this time at the latest.
HEARTBEAT_SECONDS = 5.0
#: Redis forgets who waits after ten minutes in which nobody came (lua/_waiter.lua); a wait takes one at most.
REGISTER_AGAIN_SECONDS = 120.0
WAITERS_MAX = 10_000


@dataclass(slots=True, frozen=True)
class TakeRequest:
    """What a client asks for: up to ``count`` messages, taken for good, or leased.

    Attributes:
        lease_ms: None for no lease, 0 for the queue's setting.
    """

    count: int = 1
    lease_ms: int | None = None


@dataclass(slots=True, eq=False)
class _Waiter:
    wish: TakeRequest
    presence: Presence
    answer: defer.Deferred[list[Message]] = field(default_factory=defer.Deferred)


@dataclass(slots=True, eq=False)
class _Line:
    """Those who wait for a queue. At most one call to Redis is under way for them.

    Attributes:
        registered: whether Redis may have our channel among those to be told.
        registered_at: when that was last said, in the reactor's seconds.
    """

    queue: str
    registered: bool = False
    registered_at: float = 0.0
    waiters: deque[_Waiter] = field(default_factory=deque)
    serving: bool = False
    serve_again: bool = False


class LongPolls(service.Service):  # type: ignore[misc]  # untyped
    """Takes and leases messages, now or when they come."""

    def __init__(self, core: RedisOperations, reactor: Any) -> None:
        self._core = core
        self._reactor = reactor
        self._lines: dict[str, _Line] = {}
        self._waiting = 0
        self._missed_some = False
        self._under_way = PendingCalls()
        self._channel = keys.daemon_channel(secrets.token_hex(8))
        self._subscriber = core.pubsub(lambda _, told: self._serve(told.decode()), on_renewed=self._serve_all)
        self._listening: defer.Deferred[None] | None = None
        self._heartbeat = task.LoopingCall(self._beat)
        self._heartbeat.clock = reactor

    def startService(self) -> None:
        super().startService()
        self._heartbeat.start(HEARTBEAT_SECONDS, now=False)

    def stopService(self) -> defer.Deferred[None]:
        """All who wait are answered as if their time were over, and what was taken for them is put back."""
        super().stopService()
        if self._heartbeat.running:
            self._heartbeat.stop()
        for line in list(self._lines.values()):
            for waiter in list(line.waiters):
                self._leave(line, waiter)
        self._subscriber.stop()
        return defer.ensureDeferred(self._under_way.settle())

    def count(self, queue: str) -> int:
        """How many clients of this daemon wait for the queue."""
        line = self._lines.get(queue)
        return len(line.waiters) if line else 0

    @property
    def queues(self) -> list[str]:
        """The queues that clients of this daemon wait for."""
        return [queue for queue, line in self._lines.items() if line.waiters]

    async def take(self, queue: str, wish: TakeRequest, presence: Presence, wait_seconds: float = 0) -> list[Message]:
        """Messages off the front, as soon as there are any; none when the time is over or the client has left.

        Guarantee: as queue_tail (at-most-once), or with a lease as queue_lease (at-least-once); what came for a client
        that has left goes back to the front. So send what is returned before anything else can happen. Raises
        StoreUnavailable if Redis fails meanwhile, or too many wait already.
        """
        check_queue_name(queue)
        if wait_seconds and self.running:
            messages = await self._wait(queue, wish, presence, wait_seconds)
        else:
            messages = await self._ask(queue, wish)
        if messages and presence.left:
            self._put_back(queue, messages)
            return []
        return messages

    async def _wait(self, queue: str, wish: TakeRequest, presence: Presence, wait_seconds: float) -> list[Message]:
        if self._waiting >= WAITERS_MAX:
            raise StoreUnavailable(f"{WAITERS_MAX} clients wait here already; try again in a moment.")
        self._waiting += 1
        try:
            return await self._stand_in_line(queue, _Waiter(wish, presence), wait_seconds)
        finally:
            self._waiting -= 1

    async def _stand_in_line(self, queue: str, waiter: _Waiter, wait_seconds: float) -> list[Message]:
        line = self._lines.setdefault(queue, _Line(queue))
        presence = waiter.presence
        line.waiters.append(waiter)
        leave = partial(self._leave, line, waiter)
        over = self._reactor.callLater(wait_seconds, leave)
        presence.watch(leave)
        # Who comes to a line that knows its queue to be empty has nothing to ask: the line will be told.
        if len(line.waiters) == 1 or self._reactor.seconds() - line.registered_at > REGISTER_AGAIN_SECONDS:
            self._serve(queue)
        try:
            messages: list[Message] = await waiter.answer
            return messages
        finally:
            presence.unwatch(leave)
            if over.active():
                over.cancel()

    def _leave(self, line: _Line, waiter: _Waiter) -> None:
        if waiter in line.waiters:
            line.waiters.remove(waiter)
            waiter.answer.callback([])
            if not line.waiters:
                self._serve(line.queue)

    def _dismiss_gone(self, line: _Line) -> None:
        """Those in front who left unseen hold nobody up."""
        while line.waiters and line.waiters[0].presence.left:
            self._leave(line, line.waiters[0])

    async def _ask(self, queue: str, wish: TakeRequest, waiter: bytes = b"") -> list[Message]:
        if wish.count == 1 and not waiter:
            if wish.lease_ms is None:
                message = await self._core.queue_getdel(queue)
            else:
                message = await self._core.queue_lease_one(queue, wish.lease_ms)
            return [message] if message else []
        if wish.lease_ms is None:
            return await self._core.queue_tail(queue, wish.count, waiter)
        return await self._core.queue_lease(queue, wish.count, wish.lease_ms, waiter)

    # Serving a line

    def _serve(self, queue: str) -> None:
        line = self._lines.get(queue)
        if line is None:
            # Told of a queue that nobody waits for any more: whoever else does must hear of it.
            line = self._lines[queue] = _Line(queue, registered=True)
        if line.serving:
            line.serve_again = True
            return
        line.serving = True
        self._under_way.run(self._serve_until_empty(line)).addErrback(self._failed, line)

    async def _serve_until_empty(self, line: _Line) -> None:
        try:
            await self._listens()
            while True:
                line.serve_again = False
                self._dismiss_gone(line)
                if not line.waiters:
                    if line.registered:
                        line.registered = False
                        await self._core.queue_leave(line.queue, self._channel)
                    if not line.waiters:
                        del self._lines[line.queue]
                        return
                wish = _common_wish(line.waiters)
                messages = await self._ask(line.queue, wish, self._channel)
                line.registered = len(messages) < wish.count
                line.registered_at = self._reactor.seconds()
                self._hand_out(line, wish, messages)
                if not messages and line.waiters and not line.serve_again:
                    return
        finally:
            line.serving = False

    async def _listens(self) -> None:
        """From now on nothing that is said on our channel is missed. StoreUnavailable if Redis does not confirm it."""
        confirmed: defer.Deferred[None] = defer.Deferred()
        if self._listening is None:
            self._listening = self._subscriber.subscribe(self._channel)
        self._listening.addCallback(lambda _: None if confirmed.called else confirmed.callback(None))
        await confirmed.addTimeout(self._core.store.settings.call_timeout_seconds, self._reactor, not_reachable)

    def _hand_out(self, line: _Line, wish: TakeRequest, messages: list[Message]) -> None:
        """In the order in which they came; those who left meanwhile are no longer in the line."""
        at = 0
        while at < len(messages) and line.waiters and line.waiters[0].wish.lease_ms == wish.lease_ms:
            waiter = line.waiters.popleft()
            share = messages[at : at + waiter.wish.count]
            at += len(share)
            waiter.answer.callback(share)
        if at < len(messages):
            self._put_back(line.queue, messages[at:])

    def _put_back(self, queue: str, messages: list[Message]) -> None:
        back = self._under_way.run(self._core.queue_return(queue, messages))
        back.addErrback(
            lambda failure: log.error(
                "{count} messages of {queue} could not be put back: {why}",
                count=len(messages),
                queue=queue,
                why=failure.getErrorMessage(),
            )
        )

    def _failed(self, failure: Failure, line: _Line) -> None:
        """Redis does not answer: all of the line are told so, and may come again."""
        if not failure.check(RestMQError):
            log.failure("serving those who wait for {queue} failed", failure=failure, queue=line.queue)
            failure = Failure(StoreUnavailable("the wait failed; try again in a moment."))
        self._lines.pop(line.queue, None)
        waiters, line.waiters = line.waiters, deque()
        for waiter in waiters:
            waiter.answer.errback(failure)

    def _serve_all(self) -> None:
        """We may have missed something. If only this connection is back yet, the next beat asks: nobody need fail."""
        self._missed_some = not self._core.store.connected
        if not self._missed_some:
            for queue in list(self._lines):
                self._serve(queue)

    def _beat(self) -> None:
        for line in list(self._lines.values()):
            self._dismiss_gone(line)
        if self._missed_some:
            self._serve_all()
        elif self._lines and self._core.store.connected:
            asked = defer.ensureDeferred(self._core.queue_overview(list(self._lines)))
            asked.addCallbacks(self._serve_waiting, lambda failure: failure.trap(RestMQError))

    def _serve_waiting(self, lines: list[QueueOverview]) -> None:
        for line in lines:
            if line.length:
                self._serve(line.name)


def _common_wish(waiters: deque[_Waiter]) -> TakeRequest:
    """What those in front who ask for the same kind of delivery want together, up to 1000 messages."""
    lease_ms = waiters[0].wish.lease_ms
    alike = takewhile(lambda waiter: waiter.wish.lease_ms == lease_ms, waiters)
    return TakeRequest(min(sum(waiter.wish.count for waiter in alike), BATCH_MAX), lease_ms)
