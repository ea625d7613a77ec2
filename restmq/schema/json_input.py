"""Reads JSON from clients without building Python objects: a value keeps its exact text.

Rules:

1. A document is checked as a whole, but its parts stay ``Raw``, i.e. the bytes that were sent. ``3.10``, ``1e400``,
   ``-0``, and an object with a repeated name do not change.
2. The names of an object's members are known beforehand. Unknown names are accepted only in a document with up to
   10,000 colons, so that a large document can't become millions of Python objects; in a larger one they are rejected.
3. An array is read up to a maximum number of items, and no further.

At least 500 levels of nesting are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NoReturn

import msgspec
from msgspec import UNSET, Raw, UnsetType

from restmq.errors import InvalidInput
from restmq.model import BATCH_MAX
from restmq.schema.fields import Exact, Kind, Leases, Texts, Values

_COLONS_MAX = 10_000
#: Maximum size of a field that is not a message: numbers, names, keys and receipts are shorter.
_FIELD_BYTES_MAX = 4096
#: The same of an object of texts, such as headers.
_TEXTS_BYTES_MAX = 65536
#: A part of msgspec's message for a member that the strict decoder does not know.
_UNKNOWN = "unknown field"

_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")

_any_object = msgspec.json.Decoder(dict[str, Raw])
_any_value = msgspec.json.Decoder(Raw)
_string = msgspec.json.Decoder(str)
#: As many items as a call takes. A longer array is rejected at the first item too many.
_array = msgspec.json.Decoder(
    msgspec.defstruct(
        "Items",
        [(f"item{number}", Raw | UnsetType, UNSET) for number in range(BATCH_MAX)],
        array_like=True,
        forbid_unknown_fields=True,
    )
)


class ObjectReader:
    """Reads JSON objects.

    Args:
        names: names of the members that are read from an object of any size.
    """

    def __init__(self, names: Iterable[str]) -> None:
        members = [(name, Raw | UnsetType, UNSET) for name in names]
        self._lenient = msgspec.json.Decoder(msgspec.defstruct("Members", members))
        self._strict = msgspec.json.Decoder(msgspec.defstruct("Members", members, forbid_unknown_fields=True))

    def read(self, text: bytes, noun: str) -> dict[str, Raw]:
        """The members of a JSON object. Raises InvalidInput; its text names the document by ``noun``."""
        try:
            return self._decode(text)
        except msgspec.ValidationError as problem:
            if _UNKNOWN in str(problem):
                refuse_unknown(noun)
            raise InvalidInput(f"{noun} must be a JSON object.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            refuse(noun, problem)

    def read_if_has(self, name: str, text: bytes, noun: str) -> dict[str, Raw] | None:
        """The same, but None for any text that is not an object with this member."""
        try:
            members = self._decode(text)
            return members if name in members else None
        except RecursionError as problem:
            if f'"{name}"'.encode() in text:
                refuse(noun, problem)
        except msgspec.ValidationError as problem:
            if _UNKNOWN in str(problem) and getattr(self._lenient.decode(text), name) is not UNSET:
                refuse_unknown(noun)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        return None

    def _decode(self, text: bytes) -> dict[str, Raw]:
        return _any_object.decode(text) if text.count(b":") <= _COLONS_MAX else _members(self._strict.decode(text))


def _members(found: Any) -> dict[str, Raw]:
    return {name: raw for name in found.__struct_fields__ if (raw := getattr(found, name)) is not UNSET}


def refuse_unknown(noun: str) -> NoReturn:
    raise InvalidInput(f"{noun} is large; omit its unknown members.") from None


def refuse(noun: str, problem: Exception) -> NoReturn:
    """Turns msgspec's error into InvalidInput."""
    if isinstance(problem, RecursionError):
        raise InvalidInput(f"{noun} is nested too deeply; send deep data as a string.") from None
    if isinstance(problem, UnicodeDecodeError):
        raise InvalidInput(f"{noun} is not valid UTF-8.") from None
    where = str(problem).removeprefix("JSON is malformed: ").replace("(byte", "at byte").rstrip(")")
    raise InvalidInput(f"{noun} is not valid JSON: {where}.") from None


def message_of(raw: Raw, noun: str) -> bytes:
    """The message for a JSON value: a string's own text, or the JSON text of any other value. Raises InvalidInput."""
    text = bytes(raw)
    try:
        if text.startswith(b'"'):
            return _string.decode(text).encode()
        if not text.isascii():
            text.decode()
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        refuse(noun, problem)
    return text


def message_in(text: bytes, noun: str) -> bytes:
    """The message for a JSON text that is not checked yet. Raises InvalidInput."""
    try:
        if text.startswith(b'"'):
            return _string.decode(text).encode()
        return message_of(_any_value.decode(text), noun)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        refuse(noun, problem)


def texts_on_lines(text: bytes) -> list[bytes]:
    """The messages of up to 1000 lines that are all strings, one on each; empty if there is anything else."""
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    if lines > BATCH_MAX or not text.startswith(b'"') or _BLANK_LINE.search(text):
        return []
    try:
        texts = _string.decode_lines(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []
    return [one.encode() for one in texts] if len(texts) == lines else []


def command_field(kind: Kind, name: str, raw: Raw) -> Any:
    """Checks a command's field and returns the value to use; ``Raw`` for any JSON. Raises InvalidInput."""
    return raw if isinstance(kind, Exact) else field_value(kind, name, raw)


def field_value(kind: Kind, name: str, raw: Raw) -> Any:
    """Checks a member of an object by its kind and returns the value to use. Raises InvalidInput."""
    if isinstance(kind, Exact):
        return message_of(raw, f"the field {name!r}")
    if isinstance(kind, Values):
        return kind(name, _items(raw))
    if isinstance(kind, Leases):
        items = _items(raw)
        return kind(name, items and [plain(name, item) for item in items])
    return kind(name, plain(name, raw, _TEXTS_BYTES_MAX if isinstance(kind, Texts) else _FIELD_BYTES_MAX))


def plain(name: str, raw: Raw, bytes_max: int = _FIELD_BYTES_MAX) -> Any:
    """The Python value of a short member. Raises InvalidInput."""
    if len(memoryview(raw)) > bytes_max:
        raise InvalidInput(f"the field {name!r} is too long.")
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        refuse(f"the field {name!r}", problem)


def _items(raw: Raw) -> list[Raw] | None:
    """The items of an array; None for any other value, or for too many items."""
    try:
        return list(_members(_array.decode(raw)).values())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
