"""Who gets a message. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def next_in_turn(consumers: Sequence[T], ready: Sequence[bool], cursor: int) -> tuple[int | None, int]:
    """Round robin: whose turn it is among those that are ready.

    Args:
        consumers: all consumers, in the order in which they came.
        ready: for each whether it can take a message now.
        cursor: the position after the one that was served last.

    Returns:
        The position of the consumer to serve, or None if none is ready, and the new cursor.
    """
    size = len(consumers)
    for step in range(size):
        position = (cursor + step) % size
        if ready[position]:
            return position, (position + 1) % size
    return None, cursor
