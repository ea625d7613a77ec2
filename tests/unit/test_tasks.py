"""Calls that run one at a time."""

from __future__ import annotations

from twisted.internet import defer
from twisted.python.failure import Failure

from restmq.store.batching import SingleFlight


def test_requests_during_a_run_cause_one_more_run_after_it() -> None:
    runs: list[defer.Deferred[None]] = []
    failures: list[Failure] = []

    async def call() -> None:
        runs.append(defer.Deferred())
        await runs[-1]

    flight = SingleFlight(call, failures.append)
    for _ in range(3):
        flight.request()
    assert len(runs) == 1
    runs[0].callback(None)
    assert len(runs) == 2
    runs[1].callback(None)
    assert not flight.running
    assert len(runs) == 2
    flight.request()
    runs[2].errback(ValueError("broken"))
    assert [failure.type for failure in failures] == [ValueError]
    flight.request()
    assert flight.running
    assert len(runs) == 4
