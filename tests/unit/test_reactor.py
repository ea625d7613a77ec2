"""The daemon's own way from the reactor to its ready connections."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from restmq.server.clock import serve_directly


class EPollReactor:
    """As Twisted's, with events that are ready."""

    def __init__(self, ready: list[tuple[int, int]]) -> None:
        self.asked: list[tuple[float, int]] = []
        self.called: list[tuple[str, int, int]] = []
        self._selectables = {1: "first", 2: "second", 3: "third"}
        self._poller = SimpleNamespace(poll=lambda *asked: self.asked.append(asked) or ready)

    def doIteration(self, seconds: float | None) -> None:
        raise AssertionError("Twisted's own loop was called")

    def _doReadOrWrite(self, connection: str, descriptor: int, event: int) -> None:
        self.called.append((connection, descriptor, event))
        self._selectables.pop(2, None)  # this connection's work closes another one


def test_ready_connections_are_called_in_order_and_closed_ones_are_not() -> None:
    reactor = EPollReactor([(1, 5), (2, 5), (3, 4), (9, 1)])
    serve_directly(reactor)
    reactor.doIteration(0.5)
    assert (reactor.asked, reactor.called) == ([(0.5, 3)], [("first", 1, 5), ("third", 3, 4)])


def test_without_a_timer_the_reactor_waits_for_ever() -> None:
    reactor = EPollReactor([])
    serve_directly(reactor)
    reactor.doIteration(None)
    assert reactor.asked == [(-1, 3)]


def test_other_reactors_stay_as_they_are() -> None:
    reactor: Any = SimpleNamespace(doIteration=len)
    serve_directly(reactor)
    assert reactor.doIteration is len
