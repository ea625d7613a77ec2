"""Content codings of request bodies (RFC 9110, 8.4.1), decoded as the bytes arrive, with limits."""

from __future__ import annotations

import zlib

from restmq.errors import WireError

#: A body may expand this many times; the first MiB does not count.
EXPANSION_MAX = 100
_EXPANSION_FREE_BYTES = 1 << 20
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Decoder:
    """Decodes one body.

    Args:
        coding: the value of Content-Encoding: gzip or deflate. Raises WireError (415) for others.
        body_bytes_max: maximum length of the decoded body.
    """

    def __init__(self, coding: str, body_bytes_max: int) -> None:
        name = coding.strip().lower()
        if name not in ("gzip", "x-gzip", "deflate"):
            raise WireError(415, f"the content coding {coding[:40]!r} is not supported; use gzip or deflate, or none.")
        self._is_gzip = name != "deflate"
        self._stream = zlib.decompressobj(_GZIP) if self._is_gzip else None
        self._begin = b""
        self._body_bytes_max = body_bytes_max
        self._taken_bytes = self._given_bytes = 0

    def decode(self, data: bytes) -> bytes:
        """Decodes a piece. Raises WireError: 400 if it is malformed, 413 if the decoded body is too long."""
        self._taken_bytes += len(data)
        if self._stream is None:
            data = self._begin + data
            if len(data) < 2:
                self._begin = data
                return b""
            self._stream = zlib.decompressobj(_ZLIB if _is_zlib(data) else _RAW)
        decoded = self._inflate(data)
        self._given_bytes += len(decoded)
        if self._given_bytes > self._body_bytes_max:
            raise WireError(413, f"the decoded body is longer than the maximum of {self._body_bytes_max} bytes.")
        if self._given_bytes > _EXPANSION_FREE_BYTES + EXPANSION_MAX * self._taken_bytes:
            raise WireError(413, f"the body expands more than {EXPANSION_MAX}-fold; send it without Content-Encoding.")
        return decoded

    def _inflate(self, data: bytes) -> bytes:
        assert self._stream is not None
        most = self._body_bytes_max - self._given_bytes + 1
        pieces: list[bytes] = []
        try:
            while data and most > 0:
                if self._stream.eof:  # another member (RFC 1952, 2.2)
                    if not self._is_gzip:
                        raise WireError(400, "the body has bytes after the end of its deflate coding.")
                    self._stream = zlib.decompressobj(_GZIP)
                pieces.append(self._stream.decompress(data, most))
                most -= len(pieces[-1])
                data = self._stream.unused_data
        except zlib.error:
            raise WireError(400, "the body is not in the coding that Content-Encoding names.") from None
        return b"".join(pieces)

    def end(self) -> None:
        """The body is complete. Raises WireError if its coding is not."""
        if self._taken_bytes and (self._stream is None or not self._stream.eof):
            raise WireError(400, "the body ends before its content coding does.")


def _is_zlib(data: bytes) -> bool:
    """Whether the data begin with a zlib header (RFC 1950). Some clients send bare deflate data instead."""
    return data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
