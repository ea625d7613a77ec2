"""What a daemon changes in Twisted's reactor: the clock of its timers, and its way to each ready connection."""

from __future__ import annotations

import time
from types import MethodType
from typing import Any


def use_monotonic_clock(reactor: Any) -> None:
    """Makes the reactor's timers follow the monotonic clock. Must be called before a timer is set.

    By default they follow the wall clock: if that is set back by an hour, all timers are an hour late.
    """
    reactor.seconds = time.monotonic


def serve_directly(reactor: Any) -> None:
    """Makes an epoll reactor call ready connections directly.

    By default it makes a logging context for each of them, a twentieth of the work for a short request. Only Twisted's
    older log functions show it.
    """
    if type(reactor).__name__ == "EPollReactor":
        reactor.doIteration = MethodType(_poll, reactor)


def _poll(reactor: Any, seconds: float | None) -> None:
    ready = reactor._poller.poll(-1 if seconds is None else seconds, len(reactor._selectables))
    for descriptor, event in ready:
        connection = reactor._selectables.get(descriptor)  # an earlier one may have closed it
        if connection is not None:
            reactor._doReadOrWrite(connection, descriptor, event)  # catches all errors
