"""How answers look on the wire: content types, heads, chunks."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from http.client import responses

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
JAVASCRIPT = "application/javascript; charset=utf-8"
HTML = "text/html; charset=utf-8"
EVENT_STREAM = "text/event-stream; charset=utf-8"


class _Date:
    """The Date header's value, rendered once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = b""

    def __call__(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True).encode("ascii")
        return self._text


_date = _Date()


def head(status: int, version: str, fields: str) -> bytes:
    """The status line and the header fields, each of which ends in CRLF."""
    return b"%b %d %b\r\nDate: %b\r\nServer: RestMQ\r\n%b\r\n" % (
        version.encode("ascii"),
        status,
        responses[status].encode("ascii"),
        _date(),
        fields.encode("latin-1"),
    )


def whole_head(
    status: int, version: str, content_type: str | None, length_bytes: int | None, keep_alive: bool, fields: str
) -> bytes:
    """The head of an answer whose body comes with it.

    Args:
        length_bytes: the body's; None for an answer that can have none.
        fields: further ones, each of which ends in CRLF.
    """
    return b"%b%bDate: %b\r\n%b\r\n" % (
        _same_fields(status, version, content_type, keep_alive),
        b"" if length_bytes is None else b"Content-Length: %d\r\n" % length_bytes,
        _date(),
        fields.encode("latin-1"),
    )


@lru_cache(maxsize=256)
def _same_fields(status: int, version: str, content_type: str | None, keep_alive: bool) -> bytes:
    """The status line and the fields that are the same in all answers that have these in common."""
    lines = [f"{version} {status} {responses[status]}", "Server: RestMQ"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    lines += ["Cache-Control: no-store", "X-Content-Type-Options: nosniff"]
    if not keep_alive:
        lines.append("Connection: close")
    elif version == "HTTP/1.0":
        lines.append("Connection: keep-alive")
    return "\r\n".join([*lines, ""]).encode("ascii")


def chunk(data: bytes) -> bytes:
    """A chunk of a body that goes in chunks."""
    return b"%x\r\n%b\r\n" % (len(data), data)
