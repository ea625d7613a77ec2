"""Whether the other side has hung up on a connection that nobody reads: what it sent before stands before its end."""

from __future__ import annotations

import select
from typing import Any

#: poll(2): the other side has closed, or shut down its writing half. Linux has it, for TCP and Unix sockets.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)


def hung_up(transport: Any) -> bool:
    """Asks the kernel; where it can't tell, the answer is no.

    It knows of an end that has arrived: not of one behind more than the socket's buffer holds.
    """
    if not _HUNG_UP:
        return False
    asked = select.poll()
    asked.register(transport.fileno(), _HUNG_UP)
    return bool(asked.poll(0))
