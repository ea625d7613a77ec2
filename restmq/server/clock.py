"""The clock of a daemon's timers."""

from __future__ import annotations

import time
from typing import Any


def use_monotonic_clock(reactor: Any) -> None:
    """Makes the reactor's timers follow the monotonic clock. Must be called before a timer is set.

    By default they follow the wall clock: if that is set back by an hour, all timers are an hour late.
    """
    reactor.seconds = time.monotonic
