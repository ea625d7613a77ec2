"""Round robin: the order of turns."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from restmq.delivery.subscription import next_in_turn


@given(st.lists(st.booleans(), max_size=20), st.integers(0, 30))
def test_a_ready_consumer_is_served_if_there_is_one(ready: list[bool], cursor: int) -> None:
    position, after = next_in_turn(ready, cursor)
    if any(ready):
        assert position is not None
        assert ready[position]
        assert after == (position + 1) % len(ready)
    else:
        assert (position, after) == (None, cursor)


@given(st.lists(st.booleans(), min_size=1, max_size=12).filter(any), st.integers(0, 11), st.integers(1, 60))
def test_all_ready_consumers_are_served_once_before_one_is_served_twice(
    ready: list[bool], cursor: int, rounds: int
) -> None:
    served: list[int] = []
    for _ in range(rounds):
        position, cursor = next_in_turn(ready, cursor)
        assert position is not None
        served.append(position)
    counts = Counter(served)
    shares = [counts[i] for i, is_ready in enumerate(ready) if is_ready]
    assert max(shares) - min(shares) <= 1


@given(st.integers(1, 12), st.integers(0, 11))
def test_ready_consumers_are_served_in_the_order_of_their_arrival(size: int, cursor: int) -> None:
    ready = [True] * size
    served = []
    for _ in range(2 * size):
        position, cursor = next_in_turn(ready, cursor)
        served.append(position)
    assert all((here + 1) % size == there for here, there in itertools.pairwise(served))  # type: ignore[operator]
