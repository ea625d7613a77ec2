"""Counts wrong passwords and tokens, to limit guessing and to remember who was right before.

1. Failures count per address; of IPv6 per /64, because one client has all addresses of such a network. The limit of an
   address holds for everybody at that address.
2. Failures of all addresses together count too. Beyond that limit only those are checked who were right before from the
   same address: so an attack from many addresses neither finds a password nor locks out users.
3. Both counts begin anew after ``FORGOTTEN_SECONDS``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

from restmq.auth.acl import parse_address
from restmq.auth.passwords import KeyedHash
from restmq.errors import TooManyFailures

FORGOTTEN_SECONDS = 60.0
_REMEMBERED_MAX = 10_000


class _Count:
    """Failures of one address, or of all."""

    __slots__ = ("number", "since_seconds")

    def __init__(self, now: float) -> None:
        self.number, self.since_seconds = 0, now

    def at(self, now: float) -> int:
        """The number of failures that are not forgotten."""
        if now - self.since_seconds >= FORGOTTEN_SECONDS:
            self.number, self.since_seconds = 0, now
        return self.number


class Failures:
    """Wrong passwords and tokens.

    Args:
        seconds: the monotonic clock.
        maximum: maximum number of failures per minute, of all addresses.
        maximum_per_address: the same of one address.
    """

    def __init__(self, seconds: Callable[[], float], maximum: int, maximum_per_address: int) -> None:
        self._seconds = seconds
        self._maximum = maximum
        self._maximum_per_address = maximum_per_address
        self._total = _Count(seconds())
        self._by_client: OrderedDict[str, _Count] = OrderedDict()
        self._right_before: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._hash = KeyedHash()

    def check(self, address: str, secret: bytes) -> None:
        """Raises TooManyFailures if these credentials must not be checked now."""
        if not self._total.number:
            return
        now, client = self._seconds(), _client_of(address)
        count = self._by_client.get(client)
        if count is not None and count.at(now) >= self._maximum_per_address:
            raise TooManyFailures("your address sent too many wrong passwords or tokens; wait a minute.")
        if self._total.at(now) >= self._maximum and (client, self._hash(secret)) not in self._right_before:
            raise TooManyFailures("too many wrong passwords or tokens come from many addresses; wait a minute.")

    def note_failure(self, address: str) -> None:
        """The credentials were wrong."""
        now, client = self._seconds(), _client_of(address)
        self._total.at(now)
        self._total.number += 1
        count = self._by_client.setdefault(client, _Count(now))
        count.at(now)
        count.number += 1
        self._by_client.move_to_end(client)
        if len(self._by_client) > _REMEMBERED_MAX:
            self._by_client.popitem(last=False)

    def note_success(self, address: str, secret: bytes) -> None:
        """The credentials were right."""
        key = (_client_of(address), self._hash(secret))
        self._right_before[key] = None
        self._right_before.move_to_end(key)
        if len(self._right_before) > _REMEMBERED_MAX:
            self._right_before.popitem(last=False)


@lru_cache(maxsize=1024)
def _client_of(address: str) -> str:
    """The address, or its /64 if it is IPv6."""
    parsed = parse_address(address)
    if parsed is None or parsed.version == 4:
        return str(parsed or address)
    return parsed.exploded[:19]
