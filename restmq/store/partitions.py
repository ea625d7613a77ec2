"""Asks many partitions at once, and leaves out those whose node does not answer.

A node of a cluster may be away or hang. Then lists, statistics and metrics show what the other nodes have, within a
bounded time, and say how many nodes are missing. One Redis is one partition, and either answers or raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from twisted.internet import defer

from restmq.errors import StoreUnavailable
from restmq.store.base import BaseStore

#: Maximum number of calls under way to one node.
_CALLS_A_NODE = 32

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
            self.problem = StoreUnavailable("a node of the message store (Redis) does not answer.")
        self._store = store
        self._partitions = partitions
        self._ask = ask

    async def run(self) -> None:
        remaining = iter(self._partitions)
        asking = [self._ask_some(remaining) for _ in range(min(_CALLS_A_NODE, len(self._partitions)))]
        await defer.gatherResults([defer.ensureDeferred(asks) for asks in asking])

    async def _ask_some(self, remaining: Iterator[int]) -> None:
        for partition in remaining:
            if self.problem is not None:
                return
            try:
                self.results[partition] = await self._in_time(partition)
            except Exception as problem:
                self.problem = problem

    def _in_time(self, partition: int) -> defer.Deferred[Found]:
        """The answer, if it comes in time. A call that was sent is not cancelled."""
        answer: defer.Deferred[Found] = defer.Deferred()
        asked = defer.ensureDeferred(self._ask(partition))
        asked.addCallbacks(lambda result: answer.called or answer.callback(result),
                           lambda failure: None if answer.called else answer.errback(failure))  # fmt: skip
        return answer.addTimeout(self._store.part_seconds, self._store.clock, _too_late)


def _too_late(_failure: Any, seconds: float) -> None:
    raise StoreUnavailable(f"a node of the message store (Redis) does not answer within {seconds} s.")
