"""Messages as WebSocket frames (RFC 6455, 5.2).

A message is framed once for all consumers. That works because server frames have no mask, and compressed frames do not
refer to earlier ones (``server_no_context_takeover``, RFC 7692, 7.1.1.1).
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache, partial

from restmq.delivery.format import LONG_VALUE_BYTES, Format
from restmq.model import Message
from restmq.schema.encoding import gap_notice, websocket_text

#: Frames of other sizes are not compressed: of shorter ones little is saved, and longer ones take too much time.
COMPRESSED_FROM_BYTES = 1024
COMPRESSED_UP_TO_BYTES = 256 * 1024

#: First bytes of frames: whole text and binary messages.
TEXT_FRAME = 0x81
BINARY_FRAME = 0x82
_COMPRESSED = 0x40


def frame(payload: bytes, first_byte: int = TEXT_FRAME, window_bits: int = 0) -> bytes:
    """An unmasked frame, compressed if its size suits that (RFC 7692, 7.2.1).

    Args:
        window_bits: the size of the window that was agreed with the client; 0 if it accepts no compressed frames.
    """
    if window_bits and COMPRESSED_FROM_BYTES <= len(payload) <= COMPRESSED_UP_TO_BYTES:
        deflate = zlib.compressobj(wbits=-window_bits)
        payload = (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        first_byte |= _COMPRESSED
    return frame_head(len(payload), first_byte) + payload


def frame_head(size_bytes: int, first_byte: int = TEXT_FRAME) -> bytes:
    """The bytes before the payload of a frame."""
    if size_bytes < 126:
        return bytes((first_byte, size_bytes))
    if size_bytes < 65536:
        return struct.pack("!BBH", first_byte, 126, size_bytes)
    return struct.pack("!BBQ", first_byte, 127, size_bytes)


@lru_cache(maxsize=4096)
def text_frames(window_bits: int = 0, queue: str = "") -> Format:
    """The format of messages as text frames; the same object for the same arguments.

    Args:
        queue: is named with each message, for a consumer of several queues.
    """

    def render(message: Message) -> bytes:
        return frame(websocket_text(message, queue), TEXT_FRAME, window_bits)

    return Format(
        render,
        lambda last_key: frame(gap_notice(last_key, queue)),
        transport="websocket",
        text=partial(websocket_text, queue=queue),
        head=frame_head,
        long_bytes=COMPRESSED_UP_TO_BYTES if window_bits else LONG_VALUE_BYTES,
    )
