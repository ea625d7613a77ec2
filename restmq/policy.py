"""Who gets a message. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence


def next_in_turn(rooms: Sequence[int], cursor: int) -> tuple[int | None, int]:
    """Round robin: whose turn it is among those that have room.

    Args:
        rooms: for each consumer, in the order in which they came, how many messages it can take now.
        cursor: the position after the one that was served last.

    Returns:
        The position of the consumer to serve, or None if none has room, and the new cursor.
    """
    size = len(rooms)
    for step in range(size):
        position = (cursor + step) % size
        if rooms[position] > 0:
            return position, (position + 1) % size
    return None, cursor
