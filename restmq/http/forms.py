"""Urlencoded and multipart forms, parsed byte for byte, with limits."""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Iterator

from restmq.errors import WireError

Arguments = dict[str, list[bytes]]

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
ARGUMENTS_MAX = 1000
STRUCTURE_BYTES_MAX = 1 << 20
PART_HEADER_BYTES_MAX = 8192

#: A longer form is parsed in steps. Decoding a piece of this length takes about 2 ms at worst.
FORM_PIECE_BYTES = 65536

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


def add_pairs(arguments: Arguments, encoded: bytes) -> None:
    """Parses ``a=b&c=d`` as WHATWG's URL standard does, but keeps the exact bytes of values."""
    for pair in _pairs(encoded):
        name, _, value = pair.partition(b"=")
        if b"%" in pair or b"+" in pair:
            name, value = _unquote(name), _unquote(value)
        if name or value:
            _add(arguments, name, value)


def add_form(
    arguments: Arguments, content_type: str, body: bytes, structure_bytes_max: int = STRUCTURE_BYTES_MAX
) -> Iterator[None]:
    """Parses an urlencoded or multipart form in short steps; yields after each.

    Args:
        structure_bytes_max: maximum length of the form without its longest field.
    """
    if content_type.partition(";")[0].strip().lower() == URLENCODED:
        pairs = _pairs(body)
        _check_structure(len(body), pairs, structure_bytes_max)
        for pair in pairs:
            name, _, value = pair.partition(b"=")
            pieces: list[bytes] = []
            for piece in _pieces(value):
                pieces.append(_unquote(piece))
                yield
            if name or value:
                _add(arguments, _unquote(name), b"".join(pieces))
    else:
        parts = _parts(content_type, body)
        _check_structure(len(body), parts, structure_bytes_max)
        for part in parts:
            _add(arguments, *_read_part(part))
            yield


def _pairs(encoded: bytes) -> list[bytes]:
    pairs = encoded.split(b"&", ARGUMENTS_MAX)
    if len(pairs) > ARGUMENTS_MAX:
        raise WireError(400, f"more than the maximum of {ARGUMENTS_MAX} form fields.")
    return pairs


def _add(arguments: Arguments, name: bytes, value: bytes) -> None:
    arguments.setdefault(name.decode(errors="replace"), []).append(value)


def _check_structure(form_bytes: int, fields: list[bytes], structure_bytes_max: int) -> None:
    if form_bytes - max(map(len, fields), default=0) > structure_bytes_max:
        raise WireError(413, f"the form without its longest field is longer than {structure_bytes_max} bytes.")


def _pieces(encoded: bytes) -> Iterator[bytes]:
    """Cuts a value so that no escape is cut. A value without escapes stays whole."""
    if b"%" not in encoded and b"+" not in encoded:
        yield encoded
        return
    start = 0
    while start < len(encoded):
        end = start + FORM_PIECE_BYTES
        escape = encoded.find(b"%", end - 2, end)
        if escape >= 0 and end < len(encoded):
            end = escape
        yield encoded[start:end]
        start = end


def _parts(content_type: str, body: bytes) -> list[bytes]:
    """The parts of a multipart form (RFC 7578; RFC 2046, 5.1.1), each from the end of its boundary on."""
    boundary = _parameter(content_type, "boundary")
    if not boundary:
        raise WireError(400, "multipart/form-data needs a boundary parameter in Content-Type.")
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"), ARGUMENTS_MAX + 2)[1:]
    for count, part in enumerate(parts):
        if part.startswith(b"--"):
            return parts[:count]
        if count == ARGUMENTS_MAX:
            raise WireError(400, f"more than the maximum of {ARGUMENTS_MAX} form fields.")
    raise WireError(400, "malformed multipart/form-data: the closing boundary is missing.")


def _read_part(part: bytes) -> tuple[bytes, bytes]:
    """A part's name and its content. A file is a field whose value is the file's content."""
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
    return name.encode(errors="replace"), value


def _parameter(header: str, name: str) -> str | None:
    """A parameter of a header field such as ``form-data; name="a;b"`` (RFC 9110, 5.6.6)."""
    for found in _PARAMETER.finditer(header):
        key, quoted, token = found.groups("")
        if key.lower() == name:
            return re.sub(r"\\(.)", r"\1", quoted[1:-1]) if quoted else token
    return None
