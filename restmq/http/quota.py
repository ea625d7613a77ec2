"""A shared maximum: in total, and for each client address."""

from __future__ import annotations


class ClientQuota:
    """Counts the clients' use of a resource, such as connections or bytes, in total and per address."""

    def __init__(self, maximum: int, maximum_per_address: int) -> None:
        self._maximum = maximum
        self._maximum_per_address = maximum_per_address
        self.used = 0
        self._used_by: dict[str, int] = {}

    def change(self, address: str, amount: int) -> None:
        """Adds an amount to the use of an address; a negative amount reduces the use."""
        self.used += amount
        used = self._used_by.get(address, 0) + amount
        if used:
            self._used_by[address] = used
        else:
            self._used_by.pop(address, None)

    def exceeded_in_total(self, more: int = 0) -> bool:
        """Whether the total plus ``more`` is above the maximum."""
        return self.used + more > self._maximum

    def exceeded_by(self, address: str, more: int = 0) -> bool:
        """Whether the use of one address plus ``more`` is above the maximum."""
        return self._used_by.get(address, 0) + more > self._maximum_per_address
