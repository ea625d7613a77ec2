"""A short crash test. ``python -m tests.crash.crash --kills 50`` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

from tests.crash.crash import crash


def test_nothing_is_lost_when_everything_is_killed_at_random_moments(private_folder: Path) -> None:
    seed = random.randrange(10**6)
    found = crash(private_folder, 8, seed)
    print(f"seed {seed}: {found}")
    assert not found.wrong
    assert found.answered
    assert found.acked


def test_nothing_is_lost_by_failovers_while_everything_is_killed_at_random_moments(private_folder: Path) -> None:
    seed = random.randrange(10**6)
    found = crash(private_folder, 3, seed, failovers=3)
    print(f"seed {seed}: {found}")
    assert not found.wrong
    assert found.answered
    assert found.acked
