"""Which daemon looks for messages whose lease or delay has ended, and when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from restmq.delivery.timers import Deadlines
from restmq.store import keys


class Core:
    """One worker's way to Redis, where one message is due at the third second, until a worker promotes it."""

    layout = keys.one_redis()

    def __init__(self, clock: Clock, promoted_at: list[float]) -> None:
        self._clock = clock
        self._promoted_at = promoted_at
        self.looked_at: list[float] = []

    def pubsub(self, announced: Any, on_renewed: Any) -> Any:
        return SimpleNamespace(subscribe=lambda _: defer.succeed(None), stop=lambda: None)

    async def due_queues(self, _partition: int) -> tuple[float | None, list[str]]:
        self.looked_at.append(self._clock.seconds())
        if self._promoted_at:
            return None, []
        until_seconds = 3 - self._clock.seconds()
        return (until_seconds, []) if until_seconds > 0 else (None, ["q"])

    async def queue_on_due(self, _queue: str) -> None:
        self._promoted_at.append(self._clock.seconds())


@pytest.mark.parametrize("workers", [(1, 2), (2, 1), (2, 3)])
def test_a_delay_ends_on_time_and_once_whatever_workers_there_are(workers: tuple[int, ...]) -> None:
    clock = Clock()
    promoted_at: list[float] = []
    cores = {worker: Core(clock, promoted_at) for worker in workers}
    deadlines = [Deadlines(core, clock, worker) for worker, core in cores.items()]  # type: ignore[arg-type]
    for each in deadlines:
        each.startService()
    clock.pump([0.01] * 400)
    for each in deadlines:
        each.stopService()
    assert promoted_at == [pytest.approx(3 if 1 in workers else 3.05, abs=0.02)]
    if 1 in workers:
        assert cores[2].looked_at == pytest.approx([0.01, 3.05], abs=0.02)
