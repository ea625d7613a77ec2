"""Short crash tests; ``tests/crash/crash.py`` says how to run long ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.crash.crash import crash
from tests.crash.stores import Failovers, Nodes, OneRedis

PLANS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "one Redis": (OneRedis, ["Redis", "daemon", "produce", "work", "Redis", "serve", "daemon", "work"]),
    "failovers by Sentinels": (Failovers, ["daemon", "primary", "work", "failover"]),
    "nodes of a cluster": (lambda folder: Nodes(folder, lag_seconds=0.3), ["move", "primary", "daemon", "move"]),
}


@pytest.mark.parametrize("name", PLANS)
def test_nothing_is_lost_when_everything_is_killed_at_random_moments(private_folder: Path, name: str) -> None:
    make_store, plan = PLANS[name]
    seed = random.randrange(10**6)
    found = crash(private_folder, make_store(private_folder), plan, random.Random(seed))
    print(f"seed {seed}: {found}")
    assert not found.wrong
    assert all(found.answered.values())
    assert found.acked
    assert found.taken
    assert all(found.heard.values())
