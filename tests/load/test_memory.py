"""Clients that make the server use much memory; ``python -m tests.load.memory`` prints the figures."""

from __future__ import annotations

import pytest

from tests.load.measuring import MIB
from tests.load.memory import ROWS, measure


@pytest.mark.parametrize(
    ("row", "most_while_there", "most_after"),
    [
        ("leaving resumers", 100, 100),
        ("12 unread answers", 800, 150),
        ("waiting bodies", 100, 100),
        ("unfinished bodies", 400, 100),
        ("unfinished frames", 400, 100),
        ("1-byte fragments", 12, 12),
    ],
)
def test_what_clients_make_the_server_hold_has_a_bound_and_is_freed(
    row: str, most_while_there: int, most_after: int
) -> None:
    found = measure(ROWS[row])
    print(found)
    assert found.server_peak < most_while_there * MIB
    assert found.server_after < most_after * MIB
