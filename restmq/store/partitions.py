"""Asks many partitions at once, and leaves out those whose node does not answer.

A node of a cluster may be away or hang. Then lists, statistics and metrics show what the other nodes have, within a
bounded time, and say how many nodes are missing. One Redis is one partition, and either answers or raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from twisted.internet import defer
from twisted.python.failure import Failure

from restmq.errors import StoreUnavailable
from restmq.store.base import BaseStore
from restmq.store.connection import Connection

#: Number of calls that a node gets at once. Redis serves no other client meanwhile.
_CALLS_TOGETHER = 16
_SILENT = "a node of the message store (Redis) does not answer in time."

Found = TypeVar("Found")


@dataclass(slots=True, frozen=True)
class Gathered(Generic[Found]):
    """The results by partition, and the number of nodes that did not answer."""

    results: dict[int, Found]
    missing: int = 0


async def gather(
    store: BaseStore,
    partitions: Iterable[int],
    ask: Callable[[int], Awaitable[Found]],
    may_miss_all: bool = False,
) -> Gathered[Found]:
    """Asks these partitions. Raises StoreUnavailable only if no node answers, and StoreRefused if any node refuses.

    Args:
        may_miss_all: return no results if no node of a cluster answers.
    """
    if not store.layout.is_partitioned:
        return Gathered({partition: await ask(partition) for partition in partitions})
    by_node: dict[Any, list[int]] = {}
    for partition in partitions:
        by_node.setdefault(store.node_of(partition), []).append(partition)
    lots = [_Lot(store, node, wanted, ask) for node, wanted in by_node.items()]
    await defer.gatherResults([defer.ensureDeferred(lot.run()) for lot in lots])
    problems = [lot.problem for lot in lots if lot.problem is not None]
    for problem in problems:
        if not isinstance(problem, StoreUnavailable) or (len(problems) == len(lots) and not may_miss_all):
            raise problem
    results = {partition: result for lot in lots for partition, result in lot.results.items()}
    return Gathered(results, len(problems))


class _Lot(Generic[Found]):
    """The partitions of one node, or those that no node has. A node that is known to hang is not waited for again."""

    def __init__(
        self, store: BaseStore, node: Any, partitions: list[int], ask: Callable[[int], Awaitable[Found]]
    ) -> None:
        self.results: dict[int, Found] = {}
        self.problem: Exception | None = None
        if node is not None and node.is_slow(store.part_seconds):
            self.problem = StoreUnavailable(_SILENT)
        self._store = store
        self._partitions = partitions
        self._ask = ask

    async def run(self) -> None:
        for start in range(0, len(self._partitions), _CALLS_TOGETHER):
            if self.problem is not None:
                return
            await self._ask_together(self._partitions[start : start + _CALLS_TOGETHER])

    def _ask_together(self, partitions: list[int]) -> defer.Deferred[None]:
        """Asks these partitions; fires when all have answered, or when the node is silent for too long.

        A call that was sent is not cancelled.
        """
        store = self._store
        done: defer.Deferred[None] = defer.Deferred()
        silence = store.clock.callLater(store.part_seconds, lambda: end(StoreUnavailable(_SILENT)))
        waiting = len(partitions)

        def end(problem: Exception | None) -> None:
            self.problem = self.problem or problem
            if silence.active():
                silence.cancel()
            done.callback(None)

        def answered(result: Any, partition: int) -> None:
            nonlocal waiting
            waiting -= 1
            if done.called:
                return
            if isinstance(result, Failure):
                self.problem = self.problem or result.value
            else:
                self.results[partition] = result
            if waiting:
                silence.reset(store.part_seconds)
            else:
                end(None)

        def ask(partition: int) -> None:
            defer.ensureDeferred(self._ask(partition)).addBoth(answered, partition)

        Connection.send_together([partial(ask, partition) for partition in partitions])
        return done
