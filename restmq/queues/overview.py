"""Operations that show queues, their numbers, and the beginnings of their messages."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from restmq.model import Policy, deliveries_of, is_queue_name, text_or_base64
from restmq.queues.base import Operations, rows
from restmq.queues.results import TOTALS, QueueOverview, QueueStats
from restmq.store import keys
from restmq.store.partitions import gather

#: The places of a queue that can be peeked at, and the maximum number of messages and of bytes of each.
PLACES = ("next", "newest", "leased", "delayed", "dead")
PEEK_MAX = 100
PEEK_BYTES_MAX = 16_384

#: The field that holds ``at_ms`` of a message in each place.
_WHEN = {"leased": "due", "delayed": "due", "dead": "died"}
OVERVIEW_QUEUES_A_CALL = 500
_NAMES_A_CALL = 2000
_WATCHED_A_CALL = 500


@dataclass(slots=True, frozen=True, kw_only=True)
class Peeked:
    """A message as a peek shows it.

    Attributes:
        beginning: the first ``PEEK_BYTES_MAX`` bytes of its value.
        size_bytes: the size of its whole value.
        at_ms: end of the delay or lease, or time of death, in ms since 1970; 0 for a ready message.
        looks: number of peeks (soft gets) at the message.
    """

    key: str
    beginning: bytes
    size_bytes: int
    at_ms: int
    looks: int
    record: bytes

    def fields(self, place: str) -> dict[str, Any]:
        """The members of a JSON answer; ``cut`` says that the value is longer."""
        cut = self.size_bytes > len(self.beginning)
        shown = {"key": self.key, **_beginning(self.beginning, cut), "size": self.size_bytes, "looks": self.looks}
        if cut:
            shown["cut"] = True
        if place in _WHEN:
            shown[_WHEN[place]] = self.at_ms
        return {**shown, **deliveries_of(self.record)}


def _beginning(value: bytes, cut: bool) -> dict[str, Any]:
    """As text_or_base64, but text stays text if the cut splits its last character."""
    if cut:
        try:
            return {"value": codecs.utf_8_decode(value, "strict", False)[0]}
        except UnicodeDecodeError:
            pass
    return dict(text_or_base64(value))


@dataclass(slots=True, frozen=True)
class Peek:
    """Some messages of one place of a queue, and the number of all."""

    count: int
    messages: list[Peeked]


class OverviewOperations(Operations):
    """The operations behind the lists of queues and messages, the statistics and the metrics."""

    def at_a_time(self, queues: int) -> int:
        """The number of queues to ask for at a time, for this number of queues per call to one Redis.

        A cluster gets a call for each partition, so more queues make fewer calls.
        """
        return queues * 50 if self.layout.is_partitioned else queues

    def describe(self, queue: str) -> str:
        """The store's server that has this queue, as the first RestMQ described it."""
        partition = self.layout.partition_of(self.layout.tag(queue))
        server = self.store.node_of(partition) or self.store
        return str(server.describe())

    async def queue_all(self) -> list[str]:
        """The names of all queues, sorted."""
        return (await self.queue_names())[0]

    async def queue_names(self) -> tuple[list[str], int]:
        """The names of all queues, sorted, and the number of nodes of a cluster whose queues are missing.

        May lack those made meanwhile. Skips old names that are no longer valid. Reads a part of them at a time, because
        the event loop serves others in between.
        """
        found = await gather(self.store, range(len(self.layout.tags)), self._names_in)
        return sorted(chain.from_iterable(found.results.values())), found.missing

    async def _names_in(self, partition: int) -> list[str]:
        """The names in a partition. Each part is sorted when it comes, so that little is left to sort at the end."""
        names: list[str] = []
        known: set[str] = set()
        cursor, queue_set = b"0", self.layout.tags[partition] + keys.QUEUE_SET
        while True:
            cursor, part = await self.store.command("SSCAN", queue_set, cursor, "COUNT", _NAMES_A_CALL)
            shown = map(self.layout.shown, part)
            new = {name for name in shown if "\ufffd" not in name and is_queue_name(name)} - known
            known |= new
            names += sorted(new)
            if cursor == b"0":
                return names

    async def queue_overview(self, queues: Sequence[str], counts: bool = False) -> list[QueueOverview]:
        """Rows of the list of queues; one call to Redis per 500. Leaves out queues of nodes that are missing.

        Args:
            queues: valid names.
            counts: fill all columns of the rows, for which Redis needs four times as long.
        """
        by_partition = self.by_partition(queues)

        async def ask(partition: int) -> list[QueueOverview]:
            return await self._rows_of(by_partition[partition], counts)

        found = (await gather(self.store, by_partition, ask, may_miss_all=True)).results
        if len(by_partition) == 1:
            return next(iter(found.values()), [])
        rows_by_name = {row.name: row for rows in found.values() for row in rows}
        return [rows_by_name[name] for name in queues if name in rows_by_name]

    async def _rows_of(self, names: list[str], counts: bool) -> list[QueueOverview]:
        found: list[QueueOverview] = []
        for start in range(0, len(names), OVERVIEW_QUEUES_A_CALL):
            part = names[start : start + OVERVIEW_QUEUES_A_CALL]
            flat = await self.run_on_queues("queue_rows", part, int(counts))
            found += [
                QueueOverview(name, length, bool(started), Policy(policy), *numbers)
                for name, (length, started, policy, *numbers) in zip(part, rows(flat, 9 if counts else 3), strict=True)
            ]
        return found

    async def queue_stats(self, queue: str) -> QueueStats:
        """One queue in numbers."""
        found = await self._run_promoted("stats", queue)
        ready, leased, delayed, dead, started, policy, age_ms, number, *flat = found
        totals = {"in": number} | dict.fromkeys(TOTALS, 0)
        totals |= {name.decode(): int(total) for name, total in rows(flat, 2)}
        totals["in"] -= totals.pop("before", 0)
        oldest_age_ms = age_ms if age_ms >= 0 else None
        return QueueStats(queue, ready, leased, delayed, dead, bool(started), Policy(policy), oldest_age_ms, totals)

    async def queue_peek(self, queue: str, place: str, first: int = 0, count: int = 10) -> Peek:
        """Peeks at up to ``count`` (1 to 100) messages of one place after the ``first`` ones; skips expired ones.

        Args:
            place: one of ``PLACES``: messages to be delivered next, newest, leased, delayed or dead ones.
        """
        total, *flat = await self._run("peek", queue, place, first, min(count, PEEK_MAX), PEEK_BYTES_MAX)
        found = [
            Peeked(
                key=self.layout.shown(key),
                beginning=beginning,
                size_bytes=size_bytes,
                at_ms=int(at_ms),
                looks=int(looks),
                record=record,
            )
            for key, beginning, size_bytes, at_ms, looks, record in rows(flat, 6)
        ]
        return Peek(total, found)

    async def queue_watch_all(self) -> None:
        """Begins to watch all queues that are to end and are not watched yet (``lua/_idle.lua``)."""
        by_partition = self.by_partition(await self.queue_all())
        await gather(self.store, by_partition, lambda partition: self._watch(by_partition[partition]))

    async def _watch(self, names: list[str]) -> None:
        for start in range(0, len(names), _WATCHED_A_CALL):
            part = names[start : start + _WATCHED_A_CALL]
            await self.run_on_queues("watch", part, self._clock(), self.expires_seconds)
