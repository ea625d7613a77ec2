"""Bodies that are forms: urlencoded and multipart, read exactly, with limits."""

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
    """Percent-decodes as WHATWG's URL standard does; what is no escape stays. In C: a value may be the whole body."""
    encoded = encoded.replace(b"+", b" ")
    if b"%" not in encoded:
        return encoded
    if _NO_ESCAPE.search(encoded):
        return _unquote_with_strays(encoded)
    return a2b_qp(encoded.replace(b"=", b"=3D").replace(b"%", b"="))


def _unquote_with_strays(encoded: bytes) -> bytes:
    """The same where some signs begin no escape. It makes nothing for each of them, as there may be millions.

    Quoted-printable keeps such a sign too, but it is "=" there. So "%" and "=" change places before decoding, bare and
    escaped ones, and change back after it.
    """
    quoted = encoded.replace(b"%3D", b"=").replace(b"%3d", b"=").replace(b"%25", b"%3D").translate(_SWAPPED)
    # What a bare "=" would do before these (RFC 2045, 6.7, and a2b_qp's own reading of "==") is not meant. A run of "="
    # needs two turns, as the pairs that one finds do not overlap.
    for special in (b"=\r", b"=\n", b"==", b"=="):
        quoted = quoted.replace(special, b"=3D" + special[1:])
    if quoted.endswith(b"="):
        quoted += b"3D"
    return a2b_qp(quoted).translate(_SWAPPED)


def add_pairs(arguments: dict[str, list[bytes]], encoded: bytes) -> None:
    """Reads ``a=b&c=d`` as WHATWG's URL standard does, but keeps the bytes of the values as they are."""
    if not encoded:
        return
    pairs = encoded.split(b"&", ARGUMENTS_MAX)
    if len(pairs) > ARGUMENTS_MAX:
        raise WireError(400, f"more than {ARGUMENTS_MAX} form fields.")
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        if name or value:
            arguments.setdefault(_unquote(name).decode(errors="replace"), []).append(_unquote(value))


def add_parts(arguments: dict[str, list[bytes]], content_type: str, body: bytes) -> None:
    """The fields of a multipart form (RFC 7578; RFC 2046, 5.1.1); a file is a field whose value is its content."""
    boundary = _parameter(content_type, "boundary")
    if not boundary:
        raise WireError(400, "multipart/form-data without a boundary.")
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"), ARGUMENTS_MAX + 2)
    for part in parts[1 : ARGUMENTS_MAX + 2]:
        if part.startswith(b"--"):
            return
        padding, _, part = part.partition(b"\r\n")
        head, blank_line, value = part.partition(b"\r\n\r\n")
        if len(head) > PART_HEADER_BYTES_MAX:
            raise WireError(400, f"a part of the form has a header of more than {PART_HEADER_BYTES_MAX} bytes.")
        name = None
        for field in head.decode(errors="replace").split("\r\n"):
            key, _, disposition = field.partition(":")
            if key.lower() == "content-disposition":
                name = _parameter(disposition, "name")
        if padding.strip(b" \t") or not blank_line or name is None:
            raise WireError(400, "malformed multipart/form-data: a part without a name, or with no end to its header.")
        arguments.setdefault(name, []).append(value)
    if len(parts) > ARGUMENTS_MAX + 1:
        raise WireError(400, f"more than {ARGUMENTS_MAX} form fields.")
    raise WireError(400, "malformed multipart/form-data: the closing boundary is missing.")


def _parameter(header: str, name: str) -> str | None:
    """A parameter of a header field such as ``form-data; name="a;b"`` (RFC 9110, 5.6.6)."""
    for found in _PARAMETER.finditer(header):
        key, quoted, token = found.groups("")
        if key.lower() == name:
            return re.sub(r"\\(.)", r"\1", quoted[1:-1]) if quoted else token
    return None
