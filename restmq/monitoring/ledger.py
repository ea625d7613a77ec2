"""Counters that several workers count together, and that never go back: a grow-only counter (G-Counter), pure.

Each worker counts for itself and tells the others; of each, also of those that have ended, the greatest that was ever
heard counts. So it does no harm if something is heard twice, late, or in another order.
"""

from __future__ import annotations

import math
import re
from itertools import zip_longest
from typing import Any

#: By name: numbers that only ever grow, each name with always as many.
Counts = dict[str, list[float]]

_NAMES_MAX = 10_000
_NUMBERS_MAX = 64
_NAME = re.compile(r"[!-~ ]{1,200}")


class Ledger:
    """What is known of each worker's counts.

    Args:
        kept_max: of how many workers one by one; of the oldest beyond, only the sum is kept. More than there can be
            alive.
    """

    def __init__(self, kept_max: int = 160) -> None:
        self._kept_max = kept_max
        self._counts: dict[int, Counts] = {}
        self._ended: Counts = {}
        self._ended_until = 0

    def note(self, serial: int, counts: Counts) -> None:
        """A worker has counted so far, at least."""
        if serial <= self._ended_until:
            return
        known = self._counts.get(serial)
        self._counts[serial] = counts if known is None else _join(known, counts, max)
        while len(self._counts) > self._kept_max:
            self._ended_until = min(self._counts)
            self._ended = _join(self._ended, self._counts.pop(self._ended_until), _sum)

    def total(self) -> Counts:
        """The sum over all workers that there ever were."""
        total = self._ended
        for counts in self._counts.values():
            total = _join(total, counts, _sum)
        return total

    def pack(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {"until": self._ended_until, "ended": self._ended, "counts": list(self._counts.items())}

    def merge(self, packed: Any) -> None:
        """Takes in what another worker knows. ValueError if it is nothing that ``pack`` makes."""
        if not isinstance(packed, dict) or not isinstance(packed.get("counts"), list):
            raise ValueError("a ledger is an object with counts")
        until, ended = _serial(packed.get("until")), check_counts(packed.get("ended"))
        if until == self._ended_until:
            self._ended = _join(self._ended, ended, max)
        elif until > self._ended_until:
            self._ended_until, self._ended = until, ended
            self._counts = {serial: counts for serial, counts in self._counts.items() if serial > until}
        for entry in packed["counts"]:
            if not isinstance(entry, list) or len(entry) != 2:
                raise ValueError("each worker has a serial and counts")
            self.note(_serial(entry[0]), check_counts(entry[1]))


def check_counts(counts: Any) -> Counts:
    """What another worker says that it has counted. ValueError if these are no counts."""
    if not isinstance(counts, dict) or len(counts) > _NAMES_MAX:
        raise ValueError("counts are an object")
    for name, numbers in counts.items():
        if not _NAME.fullmatch(name) or not isinstance(numbers, list) or len(numbers) > _NUMBERS_MAX:
            raise ValueError("counts are lists of numbers by name")
        if not all(type(number) in (int, float) and 0 <= number < math.inf for number in numbers):
            raise ValueError("counts are numbers from 0 on")
    return counts


def _serial(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ValueError("a serial is a whole number")
    return value


def _sum(one: float, other: float) -> float:
    return one + other


def _join(some: Counts, others: Counts, how: Any) -> Counts:
    joined = dict(some)
    for name, numbers in others.items():
        mine = joined.get(name)
        joined[name] = numbers if mine is None else [how(*pair) for pair in zip_longest(mine, numbers, fillvalue=0)]
    return joined
