"""Peeks: messages of one place of a queue and the beginnings of their values; nothing is changed."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Any

from restmq.model import deliveries_of, text_or_base64
from restmq.queues.base import Operations, rows

#: The places of a queue that can be peeked at, and the maximum number of messages and of bytes of each.
PLACES = ("next", "newest", "leased", "delayed", "dead")
PEEK_MAX = 100
PEEK_BYTES_MAX = 16_384

#: The field that holds ``at_ms`` of a message in each place.
_WHEN = {"leased": "due", "delayed": "due", "dead": "died"}


@dataclass(slots=True, frozen=True, kw_only=True)
class Peeked:
    """A message as a peek shows it.

    Attributes:
        beginning: the first ``PEEK_BYTES_MAX`` bytes of its value.
        size_bytes: the size of its whole value.
        at_ms: end of the delay or lease, or time of death, in ms since 1970; 0 for a ready message.
        looks: number of peeks (soft gets) at the message.
    """

    key: str
    beginning: bytes
    size_bytes: int
    at_ms: int
    looks: int
    record: bytes

    def fields(self, place: str) -> dict[str, Any]:
        """The members of a JSON answer; ``cut`` says that the value is longer."""
        cut = self.size_bytes > len(self.beginning)
        shown = {"key": self.key, **_beginning(self.beginning, cut), "size": self.size_bytes, "looks": self.looks}
        if cut:
            shown["cut"] = True
        if place in _WHEN:
            shown[_WHEN[place]] = self.at_ms
        return {**shown, **deliveries_of(self.record)}


def _beginning(value: bytes, cut: bool) -> dict[str, Any]:
    """As text_or_base64, but text stays text if the cut splits its last character."""
    if cut:
        try:
            return {"value": codecs.utf_8_decode(value, "strict", False)[0]}
        except UnicodeDecodeError:
            pass
    return dict(text_or_base64(value))


@dataclass(slots=True, frozen=True)
class Peek:
    """Some messages of one place of a queue, and the number of all."""

    count: int
    messages: list[Peeked]


class PeekOperations(Operations):
    """The operation behind ``/j/<queue>`` and the dashboard's lists."""

    async def queue_peek(self, queue: str, place: str, first: int = 0, count: int = 10) -> Peek:
        """Peeks at up to ``count`` (1 to 100) messages of one place after the ``first`` ones; skips expired ones.

        Args:
            place: one of ``PLACES``: messages to be delivered next, newest, leased, delayed or dead ones.
        """
        total, *flat = await self._run("peek", queue, place, first, min(count, PEEK_MAX), PEEK_BYTES_MAX)
        found = [
            Peeked(
                key=self.layout.shown(key),
                beginning=beginning,
                size_bytes=size_bytes,
                at_ms=int(at_ms),
                looks=int(looks),
                record=record,
            )
            for key, beginning, size_bytes, at_ms, looks, record in rows(flat, 6)
        ]
        return Peek(total, found)
