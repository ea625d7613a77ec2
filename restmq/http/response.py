"""Response heads, media types and chunks."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from http.client import responses

TEXT = "text/plain"
JSON = "application/json"
JAVASCRIPT = "application/javascript"
HTML = "text/html"
EVENT_STREAM = "text/event-stream"


def head(
    status: int, version: str, content_type: str | None, length_bytes: int | None, keep_alive: bool, fields: str = ""
) -> bytes:
    """Renders a response's status line and header fields.

    Args:
        content_type: media type; text types without parameters get ``charset=utf-8``. None without a body.
        length_bytes: the body's length; None if there is no body (204), or if it is a stream.
        keep_alive: whether another response may follow on the connection.
        fields: more header fields, each ending in CRLF.
    """
    common = _common_fields(status, version, content_type, keep_alive, int(time.time()))
    if length_bytes is None:
        return b"%b%b\r\n" % (common, fields.encode("latin-1"))
    return b"%bContent-Length: %d\r\n%b\r\n" % (common, length_bytes, fields.encode("latin-1"))


@lru_cache(maxsize=256)
def _common_fields(status: int, version: str, content_type: str | None, keep_alive: bool, seconds: int) -> bytes:
    """The status line and the fields that depend on nothing else: rendered once a second."""
    date = formatdate(seconds, usegmt=True)
    lines = [f"{version} {status} {responses[status]}", "Server: RestMQ", f"Date: {date}"]
    if content_type is not None:
        is_text = content_type.startswith("text/") or content_type == JAVASCRIPT
        lines.append(f"Content-Type: {content_type}{'; charset=utf-8' if is_text and ';' not in content_type else ''}")
    lines += ["Cache-Control: no-store", "X-Content-Type-Options: nosniff"]
    if not keep_alive:
        lines.append("Connection: close")
    elif version == "HTTP/1.0":
        lines.append("Connection: keep-alive")
    return "\r\n".join([*lines, ""]).encode("ascii")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def around_chunk(size_bytes: int) -> tuple[bytes, bytes]:
    """The bytes before and after the data of a chunk."""
    return b"%x\r\n" % size_bytes, b"\r\n"
