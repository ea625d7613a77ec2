"""Statistics of listeners on all daemons: live consumers by transport, and waiters (clients in a long poll)."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

import msgspec
from twisted.internet import task

from restmq.delivery.consumer import Consumer
from restmq.delivery.fanout import Fanout
from restmq.delivery.longpoll import LongPolls
from restmq.model import is_queue_name
from restmq.monitoring.peers import Peers

Transport = Literal["comet", "sse", "websocket"]
TRANSPORTS: tuple[str, ...] = get_args(Transport)
LISTENERS_SHOWN = 500
#: Maximum number of queues in an answer to another daemon.
QUEUES_PER_ANSWER = 20_000
_PER_TURN = 1000
_ADDRESS_MAX = 255
_Item = TypeVar("_Item")

#: By queue: the number of consumers of each of TRANSPORTS, then the number of waiters.
Listeners = dict[str, tuple[int, ...]]
_PLACES = {transport: place for place, transport in enumerate(TRANSPORTS)}
NOBODY = (0,) * (len(TRANSPORTS) + 1)

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Text = Annotated[str, msgspec.Meta(max_length=2 * _ADDRESS_MAX)]
#: A queue, and the counts of its listeners as in Listeners.
_Row = tuple[str, _Count, _Count, _Count, _Count]


class ConsumerDetails(msgspec.Struct):
    """One connected consumer, as other daemons and the dashboard see it."""

    transport: Transport
    address: _Text
    age_seconds: _Count
    lease_seconds: float
    held: _Count
    server: _Text


class WaiterDetails(msgspec.Struct):
    """One client in a long poll."""

    address: _Text
    age_seconds: _Count
    server: _Text


class ConsumerList(msgspec.Struct):
    """A queue's number of consumers and waiters, and up to 500 of each."""

    total: _Count
    waiters: _Count
    consumers: list[ConsumerDetails]
    polls: list[WaiterDetails] = []


class ListenerStatistics:
    """Counts and lists consumers and waiters. Counts are sums over the daemons that answer in time."""

    def __init__(self, fanout: Fanout, polls: LongPolls, peers: Peers, reactor: Any) -> None:
        self._fanout = fanout
        self._polls = polls
        self._peers = peers
        self._reactor = reactor
        self._server = f"{socket.gethostname()[:_ADDRESS_MAX]}:{os.getpid()}"
        peers.answer("listeners", list[str] | None, self._answer_listeners)
        peers.answer("consumers", str, self._consumers_here)

    async def here(self, queues: Collection[str] | None = None) -> Listeners:
        """Counts this daemon's listeners, for these queues or for all. Queues without listeners are left out."""
        if queues is None:
            queues = {*self._fanout.queues, *self._polls.queues}
        counted = {queue: self._count(queue) async for queue in self._in_turns(queues)}
        return {queue: counts for queue, counts in counted.items() if any(counts)}

    async def _in_turns(self, items: Iterable[_Item]) -> AsyncIterator[_Item]:
        """Yields the items; after each thousand, other work of the reactor gets its turn."""
        for place, item in enumerate(items, 1):
            yield item
            if place % _PER_TURN == 0:
                await task.deferLater(self._reactor, 0)

    def _count(self, queue: str) -> tuple[int, ...]:
        counts = [0, 0, 0, self._polls.count(queue)]  # collections.Counter takes several times as long
        for consumer in self._fanout.consumers(queue):
            counts[_PLACES[consumer.format.transport]] += 1
        return tuple(counts)

    async def everywhere(self) -> Listeners:
        """Counts the listeners of all daemons, for all queues that have any."""
        return await self._sum_with_peers(None, self._peers.everybody)

    async def in_group(self) -> Listeners:
        """Counts the listeners of all workers of this server."""
        return await (self.here() if self._peers.group is None else self._sum_with_peers(None, self._peers.group))

    async def count(self, queue: str) -> tuple[int, int]:
        """Returns the number of consumers and of waiters that the queue has on all daemons."""
        *consumers, waiters = (await self._sum_with_peers([queue], self._peers.everybody)).get(queue, NOBODY)
        return sum(consumers), waiters

    async def _sum_with_peers(self, queues: list[str] | None, channel: bytes) -> Listeners:
        answers = await self._peers.ask("listeners", queues, channel, list[_Row])
        total = await self.here(queues)
        for rows in answers:
            async for queue, *counts in self._in_turns(rows):
                if is_queue_name(queue):
                    total[queue] = tuple(map(sum, zip(total.get(queue, NOBODY), counts, strict=True)))
        return total

    async def _answer_listeners(self, queues: list[str] | None) -> list[tuple[Any, ...]]:
        rows = list((await self.here(queues)).items())
        return [(queue, *counts) for queue, counts in rows[:QUEUES_PER_ANSWER]]

    async def consumers(self, queue: str) -> ConsumerList:
        """Returns the queue's consumers and waiters on all daemons."""
        answers = await self._peers.ask("consumers", queue, self._peers.everybody, ConsumerList)
        found = self._consumers_here(queue)
        for answer in answers:
            found.total += answer.total
            found.waiters += answer.waiters
            found.consumers = [*found.consumers, *answer.consumers][:LISTENERS_SHOWN]
            found.polls = [*found.polls, *answer.polls][:LISTENERS_SHOWN]
        return found

    def _consumers_here(self, queue: str) -> ConsumerList:
        consumers = self._fanout.consumers(queue)
        details = [self._details(consumer) for consumer in consumers[:LISTENERS_SHOWN]]
        polls = [
            WaiterDetails(waiter.presence.address, self._age(waiter.since_seconds), self._server)
            for waiter in self._polls.waiters(queue, LISTENERS_SHOWN)
        ]
        return ConsumerList(len(consumers), self._polls.count(queue), details, polls)

    def _age(self, since_seconds: float) -> int:
        return round(self._fanout.seconds() - since_seconds)

    def _details(self, consumer: Consumer) -> ConsumerDetails:
        return ConsumerDetails(
            transport=cast(Transport, consumer.format.transport),
            address=consumer.credentials.address,
            age_seconds=self._age(consumer.since_seconds),
            lease_seconds=consumer.lease_ms / 1000,
            held=len(consumer.leases),
            server=self._server,
        )
