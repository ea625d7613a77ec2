"""The counters of a server with several workers, kept in Redis so that any worker can show their sum.

1. Each worker has one record in a Redis hash of its server: everything that the worker has counted since its start. It
   writes the record once a second, at a scrape and at its end. A record replaces the one before it, so a write whose
   answer was lost does no harm.
2. The script that writes a record returns all records if asked. A scrape writes its own first, so the sum has
   everything that this worker counted, and what the others counted up to a second ago. The other writes ask for
   nothing: if each worker read all records every second, the cost would grow with the square of their number.
3. Records stay when their workers end, so no sum ever decreases. If there are more than ``RECORDS_MAX`` records, the
   script merges the oldest into one. If a worker is killed, its counts since its last write are lost.
4. A worker is live while its record is younger than ``LIVE_SECONDS`` and does not say that it ended. Only live workers
   count for gauges and process metrics.
5. While Redis does not answer, the sum is unknown. If workers showed the sums that they read last, a scrape of another
   worker could show a lower sum than the scrape before.

A daemon without workers does not write its counters to Redis.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest

import msgspec
from twisted.application import internet
from twisted.internet import defer

from restmq.core import RedisOperations
from restmq.errors import RestMQError

WRITE_SECONDS = 1.0
LIVE_SECONDS = 5.0
#: More than can be alive: 64 workers, each beside the one that replaces it.
RECORDS_MAX = 160
_HASH_EXPIRES_SECONDS = 86_400

#: By name: numbers that only ever grow.
Counts = dict[str, list[float]]
#: A sample of a metric: its name, its labels, its value.
Sample = tuple[str, dict[str, str], float]


@dataclass(slots=True, frozen=True)
class Membership:
    """The place of this process among a server's workers. A daemon without workers is its own only worker.

    Attributes:
        group: the server's own name among those on one Redis; empty if it has no workers.
        worker: the worker's number, from 1 on; a worker that replaces another one has the same.
        serial: unique in its group; later workers have a greater one.
    """

    group: str = ""
    worker: int = 1
    serial: int = 1


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The data that a worker writes about itself.

    Attributes:
        peer: the identity under which ``peers`` can ask it.
        counts: its counters.
        gauges: its numbers of what is there now, such as client connections, by name.
        samples: the metrics of its process.
        at_seconds: when it wrote this, on the machine's monotonic clock, which all workers share.
        ended: whether the worker has ended, so that this is its last record.
    """

    counts: Counts
    peer: str = ""
    worker: int = 0
    serial: int = 0
    gauges: dict[str, int] = {}
    samples: list[Sample] = []
    at_seconds: float = 0.0
    ended: bool = False


class WorkerCounters(internet.TimerService):  # type: ignore[misc]  # untyped
    """Writes this worker's record, and reads those of all workers of the server.

    Args:
        peer: this process' identity among all daemons.
        counts, gauges, samples: return the values for this worker's record.
    """

    def __init__(
        self,
        *,
        core: RedisOperations,
        membership: Membership,
        peer: str,
        counts: Callable[[], Counts],
        gauges: Callable[[], dict[str, int]],
        samples: Callable[[], list[Sample]],
    ) -> None:
        super().__init__(WRITE_SECONDS, self._write_quietly)
        self.clock = core.store.clock
        self._core = core
        self._store = core.store
        self._membership = membership
        self._peer = peer
        self._counts = counts
        self._gauges = gauges
        self._samples = samples

    def startService(self) -> None:
        if self._membership.group:
            super().startService()
            # Before this worker takes a client, the others know that it is there.
            self._store.first_connected.addCallback(lambda _: defer.ensureDeferred(self._write_quietly()))

    async def stopService(self) -> None:
        if self._membership.group and self.running:
            await defer.maybeDeferred(super().stopService)
            await self._write_quietly(ended=True)

    async def read(self) -> tuple[Counts | None, list[WorkerRecord]]:
        """Returns the sum of all workers' counters (None if unknown), and the live workers, the oldest first."""
        own = self._own_record()
        if not self._membership.group:
            return own.counts, [own]
        try:
            records = await self._write(own, reads=True)
        except RestMQError:
            return None, [own]
        since = own.at_seconds - LIVE_SECONDS
        live = [record for record in records if record.worker and not record.ended and record.at_seconds > since]
        return _sum(records), sorted(live, key=lambda record: record.serial)

    async def leader(self) -> str:
        """The identity of the server's oldest live worker."""
        return (await self.read())[1][0].peer

    def _own_record(self, ended: bool = False) -> WorkerRecord:
        return WorkerRecord(
            counts=self._counts(),
            peer=self._peer,
            worker=self._membership.worker,
            serial=self._membership.serial,
            gauges=self._gauges(),
            samples=self._samples(),
            at_seconds=self._store.clock.seconds(),
            ended=ended,
        )

    async def _write(self, own: WorkerRecord, *, reads: bool) -> list[WorkerRecord]:
        key = self._core.layout.worker_counters(self._membership.group)
        args = (own.serial, msgspec.json.encode(own), RECORDS_MAX, _HASH_EXPIRES_SECONDS, int(reads))
        flat = await self._core.run_on("worker_counters", [key], *args)
        return [msgspec.json.decode(record, type=WorkerRecord) for record in flat[1::2]]

    async def _write_quietly(self, ended: bool = False) -> None:
        with suppress(RestMQError):  # the next record has all counts
            await self._write(self._own_record(ended), reads=False)


def _sum(records: list[WorkerRecord]) -> Counts:
    total: Counts = {}
    for record in records:
        for name, numbers in record.counts.items():
            known = total.get(name)
            total[name] = (
                numbers if known is None else [one + other for one, other in zip_longest(known, numbers, fillvalue=0)]
            )
    return total
