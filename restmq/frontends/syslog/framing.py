"""Splits a byte stream into syslog frames (RFC 6587, 3.4). The framing may change from frame to frame.

A frame that begins with ``LENGTH <`` is octet-counted. Every other frame ends at a line feed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_COUNT = re.compile(rb"([1-9][0-9]{0,9}) <")
_INCOMPLETE_COUNT = re.compile(rb"[1-9][0-9]{0,9} ?\Z")


class Frame(NamedTuple):
    """One message. ``truncated``: it was longer than the limit, or the stream ended inside it."""

    content: bytes
    truncated: bool = False


def strip_count(datagram: bytes) -> bytes:
    """Removes a correct length prefix, which no RFC has but ``logger --udp --octet-count`` sends."""
    found = _COUNT.match(datagram)
    if found is None or int(found[1]) != len(datagram) - (found.end() - 1):
        return datagram
    return datagram[found.end() - 1 :]


class Frames:
    """Takes bytes as they arrive, and returns frames on request. Until then the bytes stay in the buffer.

    A frame that is too long is returned truncated, and its rest is skipped. So the buffer never holds more than one
    maximal frame and the bytes fed since the last request.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._searched_bytes = 0  # the buffer's first bytes, known to hold no line feed
        self._skip_bytes = 0
        self._skip_line = False
        self._within_lines = False  # the last frame ended at a line feed
        self._ended = False

    def feed(self, received: bytes) -> None:
        self._buffer += received

    def end(self) -> None:
        """The stream has ended, so the last line needs no line feed."""
        self._ended = True

    @property
    def size_bytes(self) -> int:
        """Number of bytes that were fed and not yet returned."""
        return len(self._buffer)

    def next(self) -> Frame | None:
        """The next frame that is not empty; None if more bytes are needed."""
        while True:
            self._skip_rest()
            if not self._buffer or (not self._ended and _INCOMPLETE_COUNT.match(self._buffer)):
                return None
            count = _COUNT.match(self._buffer)
            # A huge length between lines is rather text, and must not swallow the lines that follow.
            if count and (int(count[1]) <= self._frame_bytes_max or not self._within_lines):
                return self._take_counted(count.end() - 1, int(count[1]))
            frame = self._take_line()
            if frame is None or frame.content:
                return frame

    def _take_counted(self, start: int, length: int) -> Frame | None:
        end = start + min(length, self._frame_bytes_max)
        complete = len(self._buffer) >= end
        if not complete and not self._ended:
            return None
        self._within_lines = False
        self._skip_bytes = start + length - end
        return Frame(self._take(end)[start:], truncated=not complete or self._skip_bytes > 0)

    def _take_line(self) -> Frame | None:
        end = self._buffer.find(b"\n", self._searched_bytes)
        if end < 0 and self._ended:
            end = len(self._buffer)
        if end < 0 and len(self._buffer) <= self._frame_bytes_max:
            self._searched_bytes = len(self._buffer)
            return None
        if 0 <= end <= self._frame_bytes_max:
            line = self._take(end + 1).removesuffix(b"\n").removesuffix(b"\r")
            self._within_lines |= bool(line)
            return Frame(line)
        self._within_lines = self._skip_line = True
        return Frame(self._take(self._frame_bytes_max), truncated=True)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched_bytes = 0
        return taken

    def _skip_rest(self) -> None:
        """Skips the rest of a frame that was too long."""
        if self._skip_bytes:
            self._skip_bytes -= len(self._take(self._skip_bytes))
        elif self._skip_line:
            end = self._buffer.find(b"\n")
            self._skip_line = end < 0
            self._take(len(self._buffer) if self._skip_line else end + 1)
