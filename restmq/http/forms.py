"""Urlencoded and multipart forms, parsed byte for byte, with limits."""

from __future__ import annotations

import re
from binascii import a2b_qp

from restmq.errors import WireError

ARGUMENTS_MAX = 1000
PART_HEADER_BYTES_MAX = 8192

_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SWAPPED = bytes.maketrans(b"%=", b"=%")
_PARAMETER = re.compile(r";\s*([^\s=;]+)=(?:(\"(?:[^\"\\]|\\.)*\")|([^;\s\"]*))")


def _unquote(encoded: bytes) -> bytes:
    """Percent-decodes as WHATWG's URL standard does: an invalid escape stays as it is.

    All steps run in C, because one value may be as long as the body.
    """
    encoded = encoded.replace(b"+", b" ")
    if b"%" not in encoded:
        return encoded
    if _NO_ESCAPE.search(encoded):
        return _unquote_with_strays(encoded)
    return a2b_qp(encoded.replace(b"=", b"=3D").replace(b"%", b"="))


def _unquote_with_strays(encoded: bytes) -> bytes:
    """The same if some ``%`` begin no escape: swap % and =, decode as quoted-printable, swap back.

    Quoted-printable keeps an invalid escape as it is, too, but its escapes begin with ``=``. No object is made for each
    ``%``, because there may be millions.
    """
    quoted = encoded.replace(b"%3D", b"=").replace(b"%3d", b"=").replace(b"%25", b"%3D").translate(_SWAPPED)
    # Quoted-printable gives "=" a meaning before a line end, and a2b_qp gives "==" one: escape these. Runs of "=" need
    # two passes, because the matches of one pass do not overlap.
    for special in (b"=\r", b"=\n", b"==", b"=="):
        quoted = quoted.replace(special, b"=3D" + special[1:])
    if quoted.endswith(b"="):
        quoted += b"3D"
    return a2b_qp(quoted).translate(_SWAPPED)


def add_pairs(arguments: dict[str, list[bytes]], encoded: bytes) -> None:
    """Parses ``a=b&c=d`` as WHATWG's URL standard does, but keeps the exact bytes of values."""
    if not encoded:
        return
    pairs = encoded.split(b"&", ARGUMENTS_MAX)
    if len(pairs) > ARGUMENTS_MAX:
        raise WireError(400, f"more than the maximum of {ARGUMENTS_MAX} form fields.")
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        if name or value:
            arguments.setdefault(_unquote(name).decode(errors="replace"), []).append(_unquote(value))


def add_parts(arguments: dict[str, list[bytes]], content_type: str, body: bytes) -> None:
    """Parses a multipart form (RFC 7578; RFC 2046, 5.1.1). A file is a field whose value is the file's content."""
    boundary = _parameter(content_type, "boundary")
    if not boundary:
        raise WireError(400, "multipart/form-data needs a boundary parameter in Content-Type.")
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"), ARGUMENTS_MAX + 2)
    for part in parts[1 : ARGUMENTS_MAX + 2]:
        if part.startswith(b"--"):
            return
        padding, _, part = part.partition(b"\r\n")
        head, blank_line, value = part.partition(b"\r\n\r\n")
        if len(head) > PART_HEADER_BYTES_MAX:
            raise WireError(400, f"a part's header is longer than the maximum of {PART_HEADER_BYTES_MAX} bytes.")
        name = None
        for field in head.decode(errors="replace").split("\r\n"):
            key, _, disposition = field.partition(":")
            if key.lower() == "content-disposition":
                name = _parameter(disposition, "name")
        if padding.strip(b" \t") or not blank_line or name is None:
            raise WireError(400, "malformed multipart/form-data: a part has no name, or its header has no end.")
        arguments.setdefault(name, []).append(value)
    if len(parts) > ARGUMENTS_MAX + 1:
        raise WireError(400, f"more than the maximum of {ARGUMENTS_MAX} form fields.")
    raise WireError(400, "malformed multipart/form-data: the closing boundary is missing.")


def _parameter(header: str, name: str) -> str | None:
    """A parameter of a header field such as ``form-data; name="a;b"`` (RFC 9110, 5.6.6)."""
    for found in _PARAMETER.finditer(header):
        key, quoted, token = found.groups("")
        if key.lower() == name:
            return re.sub(r"\\(.)", r"\1", quoted[1:-1]) if quoted else token
    return None
