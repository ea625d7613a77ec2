"""Looking at messages in passing: where they stand, how they begin, and nothing touched."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Any

from restmq.model import Deliveries, text_or_base64
from restmq.queues.base import Operations

#: Where messages of a queue can be looked at, how many at a time, and how much of each.
PLACES = ("next", "newest", "leased", "delayed", "dead")
PEEK_MAX = 100
PEEK_BYTES_MAX = 16_384

#: What the time of a message in this place is called.
_WHEN = {"leased": "due", "delayed": "due", "dead": "died"}


@dataclass(slots=True, frozen=True)
class Peeked:
    """A message that was looked at in passing.

    Attributes:
        beginning: of its value, at most ``PEEK_BYTES_MAX`` bytes.
        size_bytes: of its whole value.
        at_ms: when a delay or a lease ends, or a dead letter died, in ms since 1970; 0 for a ready one.
    """

    key: str
    beginning: bytes
    size_bytes: int
    at_ms: int
    looks: int
    deliveries: Deliveries

    def fields(self, place: str) -> dict[str, Any]:
        """As a JSON answer shows it, with ``cut`` where the value goes on."""
        cut = self.size_bytes > len(self.beginning)
        shown = {"key": self.key, **_beginning(self.beginning, cut), "size": self.size_bytes, "looks": self.looks}
        if cut:
            shown["cut"] = True
        if place in _WHEN:
            shown[_WHEN[place]] = self.at_ms
        return {**shown, **self.deliveries.fields()}


def _beginning(value: bytes, cut: bool) -> dict[str, Any]:
    """As text_or_base64; a last character that was cut in two does not make bytes of a text."""
    if cut:
        try:
            return {"value": codecs.utf_8_decode(value, "strict", False)[0]}
        except UnicodeDecodeError:
            pass
    return dict(text_or_base64(value))


@dataclass(slots=True, frozen=True)
class Peek:
    """Some messages of one place of a queue, and how many there are in all."""

    count: int
    messages: list[Peeked]


class Peeking(Operations):
    """The operation behind ``/j/<queue>``."""

    async def queue_peek(self, queue: str, place: str, first: int = 0, count: int = 10) -> Peek:
        """Looks at up to ``count`` (1 to 100) messages of one place after the ``first`` ones.

        Args:
            place: one of ``PLACES``: to be delivered next, newest, leased, delayed or dead ones.

        Returns:
            Of each message at most the first 16 KiB. Expired ones are passed over.
        """
        total, *flat = await self._run("peek", queue, place, first, min(count, PEEK_MAX), PEEK_BYTES_MAX)
        found = [
            Peeked(key.decode(), beginning, size_bytes, int(at_ms), int(looks), Deliveries.parse(record))
            for key, beginning, size_bytes, at_ms, looks, record in zip(*(flat[i::6] for i in range(6)), strict=True)
        ]
        return Peek(total, found)
