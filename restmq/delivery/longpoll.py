"""Long polls: clients that wait for a message.

Theory of operation.

1.  Each queue has a line of waiting clients, in the order of their requests. The daemon asks Redis for all of them in
    one call; at most one call per line is in progress (``SingleFlight``).
2.  A line goes through these states:

        UNREGISTERED --- asks, too few messages ---> REGISTERED --- notice of a message ---> asks again
             ^                                           |
             '------ enough messages, or line empty -----'

    REGISTERED: Redis has the daemon's channel among the waiters of the queue, and tells it when a message comes. Redis
    rotates the waiters and forgets a registration after a while (``REGISTER_AGAIN_SECONDS``).
3.  The daemon subscribes to its channel before it asks the first time. Otherwise a notice could come before it listens.
4.  A client that joins a REGISTERED line asks nothing: the queue is known to be empty.
5.  One call requests the messages of the first clients with the same kind of delivery: of ``ASKED_FOR_MIN``, and of
    twice as many as before while there are enough messages. So one message costs the same in a long line as in a short.
    The messages go to these clients in the order of the line.
6.  A client that has disconnected gets nothing. Messages that were taken for it return to the front of the queue. To
    find such clients even while their connection is not being read, the daemon checks ``Presence.left`` before it asks.
7.  A line without clients unregisters, also if it was notified although it had no client any more. Redis then notifies
    the next waiter, so no message stays unannounced.
8.  If a call fails, all clients of the line get the error. They may ask again.
9.  Notices can be lost. So the daemon asks again after each reconnect, and checks every ``HEARTBEAT_SECONDS`` for
    queues where messages wait.

``delivery/lines.py`` has the rules for clients that wait for several queues.

A maintainer must not await between taking messages for a client and sending them, unless ``unless_left`` is asked
after that: the client may leave in between.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

from twisted.application import internet
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.core import RedisOperations, not_reachable
from restmq.delivery.lines import ASKED_FOR_MIN, NOTHING_TAKEN, Line, Taken, TakeRequest, Waiter, ask_next
from restmq.delivery.shared import PendingCalls
from restmq.errors import RestMQError, StoreUnavailable
from restmq.model import BATCH_MAX, Message
from restmq.queues.results import QueueOverview
from restmq.store.base import Channels
from restmq.transport import Presence

log = Logger()

#: Maximum delay of messages whose notice was lost.
HEARTBEAT_SECONDS = 5.0
#: Redis forgets the waiters of a queue after ten minutes without a new one (lua/_waiter.lua); a wait takes one at most.
REGISTER_AGAIN_SECONDS = 120.0
WAITERS_MAX = 10_000


class LongPolls(internet.TimerService):  # type: ignore[misc]  # untyped
    """Takes and leases messages, at once or when they come."""

    def __init__(self, core: RedisOperations, reactor: Any) -> None:
        super().__init__(HEARTBEAT_SECONDS, self._beat)
        self.clock = reactor
        self._core = core
        self._reactor = reactor
        self._lines: dict[str, Line] = {}
        self._waiting = 0
        self._notices_missed: set[bytes] = set()
        self._calls = PendingCalls()
        self._daemon = secrets.token_hex(8)
        self._subscriber = core.pubsub(
            lambda _, stored: self._serve(core.layout.shown(stored)), on_renewed=self._serve_all
        )
        self._subscribed: dict[bytes, defer.Deferred[None]] = {}

    def stopService(self) -> defer.Deferred[None]:
        """Answers all waiting clients as after a timeout. Fires when messages taken for them are back in Redis."""
        super().stopService()
        for line in list(self._lines.values()):
            for waiter in list(line.waiters):
                self._leave(waiter)
        self._subscriber.stop()
        return defer.ensureDeferred(self._calls.finish())

    def count(self, queue: str) -> int:
        """Number of clients of this daemon that wait for the queue."""
        line = self._lines.get(queue)
        return len(line.waiters) if line else 0

    def waiters(self, queue: str, count: int) -> list[Waiter]:
        """The first of these clients, the one that waits for the longest time first."""
        line = self._lines.get(queue)
        return list(islice(line.waiters, count)) if line else []

    @property
    def queues(self) -> list[str]:
        """The queues that clients of this daemon wait for."""
        return [queue for queue, line in self._lines.items() if line.waiters]

    async def take(
        self, queue: str, request: TakeRequest, presence: Presence, wait_seconds: float = 0
    ) -> list[Message]:
        """Takes messages from the front as soon as there are any; returns none after a timeout or a disconnect.

        Guarantee: as queue_tail (at-most-once), or with a lease as queue_lease (at-least-once). Messages for a client
        that has disconnected return to the front. A caller that awaits anything before it sends the messages, e.g.
        because rendering them takes several turns, must then ask ``unless_left`` again.

        Raises:
            StoreUnavailable: Redis failed, or too many clients wait already.
        """
        if wait_seconds and self.running:
            _, messages = await self._wait((queue,), request, presence, wait_seconds)
        else:
            messages = await self._ask(queue, request)
        return self.unless_left(queue, messages, presence)

    async def take_first(
        self, queues: Sequence[str], request: TakeRequest, presence: Presence, wait_seconds: float = 0
    ) -> Taken:
        """As ``take``, from the first of these different queues that has a message; never from two of them."""
        queue, messages = NOTHING_TAKEN
        if wait_seconds and self.running:
            queue, messages = await self._wait(queues, request, presence, wait_seconds)
        else:
            for queue in queues:
                messages = await self._ask(queue, request)
                if messages or presence.left:
                    break
        return queue, self.unless_left(queue, messages, presence)

    def unless_left(self, queue: str, messages: list[Message], presence: Presence) -> list[Message]:
        """The messages; none if the client has disconnected, because then they return to the front."""
        if messages and presence.left:
            self._put_back(queue, messages)
            return []
        return messages

    async def _wait(
        self, queues: Sequence[str], request: TakeRequest, presence: Presence, wait_seconds: float
    ) -> Taken:
        if self._waiting >= WAITERS_MAX:
            raise StoreUnavailable(f"{WAITERS_MAX} clients wait here already; try again in a moment.")
        self._waiting += 1
        try:
            return await self._wait_in_lines(queues, Waiter(request, presence, self._reactor.seconds()), wait_seconds)
        finally:
            self._waiting -= 1

    async def _wait_in_lines(self, queues: Sequence[str], waiter: Waiter, wait_seconds: float) -> Taken:
        waiter.join([self._lines.get(queue) or self._new_line(queue) for queue in queues])
        first = waiter.lines[0]
        leave = partial(self._leave, waiter)
        timeout = self._reactor.callLater(wait_seconds, leave)
        waiter.presence.watch(leave)
        is_old = self._reactor.seconds() - first.registered_at > REGISTER_AGAIN_SECONDS
        if waiter.due or len(first.waiters) == 1 or is_old:
            first.serving.request()
        try:
            taken: Taken = await waiter.answer
            return taken
        finally:
            waiter.presence.unwatch(leave)
            if timeout.active():
                timeout.cancel()

    def _leave(self, waiter: Waiter) -> None:
        if not waiter.answer.called:
            waiter.leave()
            waiter.answer.callback(NOTHING_TAKEN)

    def _remove_disconnected(self, line: Line) -> None:
        """Removes clients at the front that disconnected while their connection was not being read."""
        while line.waiters and line.waiters[0].presence.left:
            self._leave(line.waiters[0])

    async def _ask(self, queue: str, request: TakeRequest, waiter: bytes = b"") -> list[Message]:
        if request.count == 1 and not waiter:
            if request.lease_ms is None:
                message = await self._core.queue_getdel(queue)
            else:
                message = await self._core.queue_lease_one(queue, request.lease_ms)
            return [message] if message else []
        if request.lease_ms is None:
            return await self._core.queue_tail(queue, request.count, waiter)
        return await self._core.queue_lease(queue, request.count, request.lease_ms, waiter)

    # Serving a line

    def _new_line(self, queue: str, registered: bool = False) -> Line:
        channel = self._core.layout.daemon_channel(self._daemon, queue)
        line = self._lines[queue] = Line(queue, channel, self, self._calls, registered)
        return line

    def _serve(self, queue: str) -> None:
        line = self._lines.get(queue) or self._new_line(queue, registered=True)  # rule 7
        line.is_notified = True
        if line.several:
            line.make_due()
            self._reactor.callLater(0, line.serving.request)  # rule 3 of lines.py
        else:
            line.serving.request()

    async def serve_once(self, line: Line) -> None:
        """See ``LineServer``."""
        await self._subscribe(line.channel)
        self._remove_disconnected(line)
        if not line.waiters:
            await self._end(line)
            return
        asking = line.first_alike()
        if not asking:  # other lines ask for its clients; then it is this line's turn, if there may be messages
            if not line.registered:
                line.make_due()
            return
        request = TakeRequest(min(sum(each.request.count for each in asking), BATCH_MAX), asking[0].request.lease_ms)
        for waiter in asking:
            waiter.is_asked_for = True
        line.is_notified = False
        messages = await self._ask(line.queue, request, line.channel)
        line.registered = len(messages) < request.count
        line.registered_at = self._reactor.seconds()
        line.asked_for_max = ASKED_FOR_MIN if line.registered else 2 * len(asking)
        self._hand_out(line, asking, messages)
        for waiter in asking:
            waiter.is_asked_for = False
        if line.registered and not line.is_notified:
            line.pass_on()
        ask_next(asking)
        if messages or not line.waiters:
            line.serving.request()

    async def _end(self, line: Line) -> None:
        """Unregisters a line without clients, and removes it unless a client comes meanwhile."""
        if line.registered:
            line.registered = False
            await self._core.queue_unregister_waiter(line.queue, line.channel)
        if line.waiters:
            line.serving.request()
        elif self._lines.get(line.queue) is line:
            del self._lines[line.queue]

    async def _subscribe(self, channel: bytes) -> None:
        """Returns when this channel of the daemon is subscribed. Raises StoreUnavailable if that takes too long."""
        confirmed: defer.Deferred[None] = defer.Deferred()
        if channel not in self._subscribed:
            self._subscribed[channel] = self._subscriber.subscribe(channel)
        self._subscribed[channel].addCallback(lambda _: None if confirmed.called else confirmed.callback(None))
        await confirmed.addTimeout(self._core.store.settings.call_timeout_seconds, self._reactor, not_reachable)

    def _hand_out(self, line: Line, asking: list[Waiter], messages: list[Message]) -> None:
        at = 0
        for waiter in asking:
            if at == len(messages):
                return
            if not waiter.answer.called:
                share = messages[at : at + waiter.request.count]
                at += len(share)
                waiter.leave(served=line)
                waiter.answer.callback((line.queue, share))
        if at < len(messages):
            self._put_back(line.queue, messages[at:])

    def _put_back(self, queue: str, messages: list[Message]) -> None:
        self._calls.put_back(queue, len(messages), self._core.queue_put_back(queue, messages))

    def serving_failed(self, line: Line, failure: Failure) -> None:
        """Tells the clients of a line; see ``LineServer``."""
        if not failure.check(RestMQError):
            log.failure("serving the clients that wait for {queue} failed", failure=failure, queue=line.queue)
            failure = Failure(StoreUnavailable("the wait failed; try again in a moment."))
        if self._lines.get(line.queue) is line:
            del self._lines[line.queue]
        while line.waiters:  # another line of a client may fail when it leaves, and has then told others
            waiter = line.waiters[0]
            waiter.leave(served=line)
            waiter.answer.errback(failure)

    def _serve_all(self, channels: Channels) -> None:
        """Asks again for the lines of these channels, or at the next heartbeat, if Redis cannot be asked yet."""
        self._notices_missed.update(channels)
        self._serve_missed()

    def _serve_missed(self) -> None:
        reached = {channel for channel in self._notices_missed if self._core.store.reaches(channel)}
        self._notices_missed -= reached
        for line in list(self._lines.values()):
            if line.channel in reached:
                self._serve(line.queue)

    def _beat(self) -> None:
        for line in list(self._lines.values()):
            self._remove_disconnected(line)
        if self._notices_missed:
            self._serve_missed()
        elif self._lines and self._core.store.connected:
            asked = defer.ensureDeferred(self._core.queue_overview(list(self._lines)))
            asked.addCallbacks(self._serve_waiting, lambda failure: failure.trap(RestMQError))

    def _serve_waiting(self, rows: list[QueueOverview]) -> None:
        for row in rows:
            if row.length:
                self._serve(row.name)
