"""A shared maximum: in total, and for each client address."""

from __future__ import annotations


class ClientQuota:
    """Counts what clients use of something, such as connections or bytes."""

    def __init__(self, maximum: int, maximum_per_address: int) -> None:
        self._maximum = maximum
        self._maximum_per_address = maximum_per_address
        self.used = 0
        self._used_by: dict[str, int] = {}

    def change(self, address: str, amount: int) -> None:
        """Adds what an address uses more, or subtracts what it uses less."""
        self.used += amount
        used = self._used_by.get(address, 0) + amount
        if used:
            self._used_by[address] = used
        else:
            self._used_by.pop(address, None)

    def exceeded_in_total(self, more: int = 0) -> bool:
        """Whether the total would be above the maximum if somebody used this much more."""
        return self.used + more > self._maximum

    def exceeded_by(self, address: str, more: int = 0) -> bool:
        """The same for one address."""
        return self._used_by.get(address, 0) + more > self._maximum_per_address
