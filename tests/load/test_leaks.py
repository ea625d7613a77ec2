"""A short run of clients that disconnect early; ``python -m tests.load.leaks --rounds 20000`` is the long run."""

from __future__ import annotations

import random

from tests.load.leaks import KINDS, growth, run
from tests.load.measuring import MIB, target, tracebacks


def test_the_memory_stays_the_same_however_many_clients_leave_early() -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    with target() as server:
        for name, memory in run(server, KINDS, 300, random.Random(seed)):
            assert growth(memory) < 16 * MIB, (name, memory)
        assert not tracebacks(server)
