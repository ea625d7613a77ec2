"""Where one syslog message ends and the next begins on a stream (RFC 6587, 3.4), told apart frame by frame.

Octet counting is ``LENGTH <…``, all else ends at a line feed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_COUNT = re.compile(rb"([1-9][0-9]{0,9}) <")
_MAYBE_COUNT = re.compile(rb"[1-9][0-9]{0,9} ?\Z")


class Frame(NamedTuple):
    """One message. ``truncated``: it was longer than allowed, or the stream ended in the midst of it."""

    content: bytes
    truncated: bool = False


def uncounted(datagram: bytes) -> bytes:
    """A datagram without its length before it, which ``logger --udp --octet-count`` writes there; no RFC knows it."""
    found = _COUNT.match(datagram)
    if found is None or int(found[1]) != len(datagram) - (found.end() - 1):
        return datagram
    return datagram[found.end() - 1 :]


class Frames:
    """Takes bytes as they come, and gives frames as they are asked for: what nobody asks for stays bytes.

    A frame that is too long is given cut, and the rest of it is passed over as it comes; so no more is kept than the
    longest frame and what was fed since the last call.
    """

    def __init__(self, frame_bytes_max: int) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._searched_bytes = 0  # at the buffer's beginning: no line feed is there
        self._skip_bytes = 0
        self._skip_line = False
        self._counting: bool | None = None  # how the last frame was framed; None before the first

    def feed(self, received: bytes) -> None:
        self._buffer += received

    @property
    def size_bytes(self) -> int:
        """How much was fed and not yet given."""
        return len(self._buffer)

    def next(self) -> Frame | None:
        """The next frame that is here as a whole; empty lines are none. None: feed more."""
        while True:
            self._pass_over_rest()
            if not self._buffer or _MAYBE_COUNT.match(self._buffer):
                return None
            if counted := self._read_count():
                return self._take_counted(*counted)
            frame = self._take_line()
            if frame is None or frame.content:
                return frame

    def end(self) -> Frame | None:
        """What is left when the stream has ended and ``next`` has nothing more: a last line needs no line feed."""
        counted, content = self._read_count(), bytes(self._buffer)
        self._buffer.clear()
        if counted:
            return Frame(content[counted[0] :], truncated=True)
        return Frame(content) if content else None

    def _read_count(self) -> tuple[int, int] | None:
        """Where the message that comes next begins and how long it is, if its length stands before it.

        Amid lines a huge length is rather a part of somebody's text; it must not swallow the lines that follow.
        """
        found = _COUNT.match(self._buffer)
        if found is None:
            return None
        length = int(found[1])
        return (found.end() - 1, length) if length <= self._frame_bytes_max or self._counting is not False else None

    def _take_counted(self, start: int, length: int) -> Frame | None:
        end = start + min(length, self._frame_bytes_max)
        if len(self._buffer) < end:
            return None
        self._counting = True
        self._skip_bytes = start + length - end
        return Frame(self._take(end)[start:], truncated=self._skip_bytes > 0)

    def _take_line(self) -> Frame | None:
        end = self._buffer.find(b"\n", self._searched_bytes)
        if 0 <= end <= self._frame_bytes_max:
            line = self._take(end + 1)[:-1].removesuffix(b"\r")
            if line:
                self._counting = False
            return Frame(line)
        if len(self._buffer) <= self._frame_bytes_max:
            self._searched_bytes = len(self._buffer)
            return None
        self._counting = False
        self._skip_line = True
        return Frame(self._take(self._frame_bytes_max), truncated=True)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched_bytes = 0
        return taken

    def _pass_over_rest(self) -> None:
        """Of a frame that was too long."""
        if self._skip_bytes:
            passed = min(self._skip_bytes, len(self._buffer))
            del self._buffer[:passed]
            self._skip_bytes -= passed
        elif self._skip_line:
            end = self._buffer.find(b"\n")
            self._skip_line = end < 0
            del self._buffer[: end + 1 if end >= 0 else len(self._buffer)]
