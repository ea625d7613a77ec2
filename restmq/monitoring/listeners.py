"""Statistics of listeners on all daemons: live consumers by transport, and waiters (clients in a long poll)."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any, TypeVar

from twisted.internet import task

from restmq.delivery.consumer import Consumer
from restmq.delivery.fanout import Fanout
from restmq.delivery.longpoll import LongPolls
from restmq.model import is_queue_name
from restmq.monitoring.peers import Peers

TRANSPORTS = ("comet", "sse", "websocket")
CONSUMERS_SHOWN = 500
#: Maximum number of queues in an answer to another daemon.
QUEUES_PER_ANSWER = 20_000
_PER_TURN = 1000
_ADDRESS_MAX = 255
_Item = TypeVar("_Item")

#: By queue: the number of consumers of each of TRANSPORTS, then the number of waiters.
Listeners = dict[str, tuple[int, ...]]
_PLACES = {transport: place for place, transport in enumerate(TRANSPORTS)}
NOBODY = (0,) * (len(TRANSPORTS) + 1)


class ListenerStatistics:
    """Counts and lists consumers and waiters. Counts are sums over the daemons that answer in time."""

    def __init__(self, fanout: Fanout, polls: LongPolls, peers: Peers, reactor: Any) -> None:
        self._fanout = fanout
        self._polls = polls
        self._peers = peers
        self._reactor = reactor
        self._server = f"{socket.gethostname()[:_ADDRESS_MAX]}:{os.getpid()}"
        peers.answer("listeners", self._answer_listeners)
        peers.answer("consumers", self._answer_consumers)

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
        answers = await self._peers.ask("listeners", queues, channel)
        total = await self.here(queues)
        for answer in answers.values():
            async for row in self._in_turns(answer if isinstance(answer, list) else []):
                if _is_row(row):
                    comet, sse, websocket, waiters = total.get(row[0], NOBODY)
                    total[row[0]] = (comet + row[1], sse + row[2], websocket + row[3], waiters + row[4])
        return total

    async def _answer_listeners(self, queues: Any) -> list[Any]:
        wanted = [queue for queue in queues if isinstance(queue, str)] if isinstance(queues, list) else None
        rows = list((await self.here(wanted)).items())
        return [(queue, *counts) for queue, counts in rows[:QUEUES_PER_ANSWER]]

    async def consumers(self, queue: str) -> dict[str, Any]:
        """Returns the number of the queue's consumers and waiters on all daemons, and up to 500 consumers in detail."""
        answers = await self._peers.ask("consumers", queue, self._peers.everybody)
        found = self._answer_consumers(queue)
        for answer in answers.values():
            if _is_consumers(answer):
                found["total"] += answer["total"]
                found["waiters"] += answer["waiters"]
                shown = [each for each in answer["consumers"][:CONSUMERS_SHOWN] if _is_consumer(each)]
                found["consumers"] = [*found["consumers"], *shown][:CONSUMERS_SHOWN]
        return found

    def _answer_consumers(self, queue: Any) -> dict[str, Any]:
        consumers = self._fanout.consumers(queue) if isinstance(queue, str) else ()
        return {
            "total": len(consumers),
            "waiters": self._polls.count(queue) if isinstance(queue, str) else 0,
            "consumers": [self._shown(consumer) for consumer in consumers[:CONSUMERS_SHOWN]],
        }

    def _shown(self, consumer: Consumer) -> dict[str, object]:
        return {
            "transport": consumer.format.transport,
            "address": consumer.credentials.address,
            "age_seconds": round(self._fanout.seconds() - consumer.since_seconds),
            "lease_seconds": consumer.lease_ms / 1000,
            "held": len(consumer.leases),
            "server": self._server,
        }


# Answers of other daemons are checked before they are used.


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_row(row: Any) -> bool:
    if type(row) is not list or len(row) != 1 + len(NOBODY) or [*map(type, row)] != _ROW:
        return False
    return min(row[1:]) >= 0 and is_queue_name(row[0])


def _is_consumers(answer: Any) -> bool:
    if not isinstance(answer, dict) or not isinstance(answer.get("consumers"), list):
        return False
    return _is_count(answer.get("total")) and _is_count(answer.get("waiters"))


def _is_consumer(each: Any) -> bool:
    if not isinstance(each, dict) or set(each) != {*_TEXTS, *_COUNTS, "lease_seconds"}:
        return False
    if type(each["lease_seconds"]) not in (int, float) or each["transport"] not in TRANSPORTS:
        return False
    texts = all(isinstance(each[name], str) and len(each[name]) <= 2 * _ADDRESS_MAX for name in _TEXTS)
    return texts and all(_is_count(each[name]) for name in _COUNTS)


_ROW = [str, *(int for _ in NOBODY)]
_TEXTS = ("transport", "address", "server")
_COUNTS = ("age_seconds", "held")
