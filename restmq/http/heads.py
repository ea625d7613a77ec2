"""Heads of requests that were parsed before.

Most clients send the same head again and again, and their whole request in one piece. Parsing a head costs a seventh of
a POST or GET: eight calls from llhttp, and an object for each field.

1. A head is remembered when a read between two requests held exactly one request, with nothing before or behind it, and
   the same fields came before. A client that sends new fields each time costs little: its heads are not remembered.
2. A head is not remembered if its body must be decoded, or if the connection changes after it (``_SPECIAL``). So the
   rest of the read is the body, byte for byte, and llhttp keeps no state for it.
3. If a read between two requests begins with a remembered head, and has as many more bytes as its Content-Length says,
   then it is the same request again, with another body. Any other read is parsed.
4. The same bytes are valid or not by the limits, so there is one memory for each set of limits.

A maintainer must keep: whatever llhttp or the parser decides by more than the head's bytes belongs into rule 2.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from restmq.http.limits import Limits
from restmq.http.request import Headers, Request

_HEADS_MAX = 1024
_HEAD_BYTES_MAX = 1024
_SPECIAL = frozenset(("transfer-encoding", "content-encoding", "expect", "upgrade"))
_HEAD_END = b"\r\n\r\n"


class SharedFields(dict[str, str]):
    """Header fields by lower-case name, shared by the requests that have them.

    Attributes:
        is_repeated: whether they came in the only request of a read before.
    """

    __slots__ = ("is_repeated",)
    is_repeated: bool


class KnownHead(NamedTuple):
    """What a head says."""

    method: str
    uri: str
    fields: Headers
    body_bytes: int


class KnownHeads:
    """Remembers heads. It forgets all when there are too many; then those in use come again."""

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}

    def find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """The head and the body of a read between two requests; None if it must be parsed."""
        begin = data.find(_HEAD_END) + len(_HEAD_END)
        known = self._heads.get(data[:begin])
        return (known, data[begin:]) if known is not None and len(data) == begin + known.body_bytes else None

    def remember(self, data: bytes, request: Request) -> None:
        """Remembers the head of the only request of a read between two requests."""
        fields = request.headers
        if not isinstance(fields, SharedFields):  # those of an absolute target are not shared
            return
        if not fields.is_repeated:
            fields.is_repeated = True
            return
        begin = data.find(_HEAD_END) + len(_HEAD_END)
        head, body = data[:begin], data[begin:]
        if (
            len(head) <= _HEAD_BYTES_MAX
            and request.body == body
            and len(body) == int(fields.get("content-length", 0))
            and request.keep_alive
            and request.version == "HTTP/1.1"
            and not _SPECIAL & fields.keys()
        ):
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            self._heads[head] = KnownHead(request.method, request.uri, fields, len(body))


@lru_cache(maxsize=16)
def known_heads(_limits: Limits) -> KnownHeads:
    """The memory for requests with these limits."""
    return KnownHeads()
