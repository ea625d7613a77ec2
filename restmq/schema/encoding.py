"""Messages as JSON, JSONP, comet lines and Server-Sent Events."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import orjson

from restmq.errors import InvalidInput
from restmq.model import RENDERED_AT_ONCE_MAX, Message

_NAME = "[A-Za-z_$][A-Za-z0-9_$]*"
CALLBACK_PATTERN = rf"^{_NAME}(?:\.{_NAME})*$"
CALLBACK_MAX = 128
#: Begins a stream of Server-Sent Events: clients reconnect after this time (ms). No empty line, as it is no event.
RETRY = b"retry: 2000\n"

#: The type of notices of gaps. No message has it.
GAP = "gap"

_PIECE_CHARACTERS = RENDERED_AT_ONCE_MAX
#: Bytes that are rendered at a time as base64: a multiple of three.
_BASE64_PIECE_BYTES = 3 << 16
_value_of = itemgetter("value")
_CALLBACK = re.compile(CALLBACK_PATTERN)


def to_json(value: Any) -> bytes:
    """Compact JSON in UTF-8. Integers of any size stay exact."""
    try:
        return orjson.dumps(value, _as_base64)
    except TypeError:  # orjson has no integers beyond 64 bits
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_as_base64).encode()


def _as_base64(value: Any) -> str:
    """A long value that is not UTF-8, as ``Message.fields`` shows it."""
    if type(value) is not memoryview:
        raise TypeError
    return b64encode(value).decode("ascii")


def has_long_values(answer: dict[str, Any] | list[dict[str, Any]]) -> bool:
    """Whether an answer with a message or messages takes more than a few milliseconds to render."""
    if isinstance(answer, dict) and "messages" not in answer:
        value = answer.get("value")
        return isinstance(value, (str, memoryview)) and len(value) > _PIECE_CHARACTERS
    messages = answer["messages"] if isinstance(answer, dict) else answer
    if not messages or "value" not in messages[0]:  # such as the acked messages of a command
        return False
    return sum(map(len, map(_value_of, messages))) > _PIECE_CHARACTERS


def json_in_pieces(value: Any, pieces: list[bytes], escape: Callable[[bytes], bytes] = bytes) -> Iterator[None]:
    """Renders JSON as ``to_json`` does, and yields after about each 256 KiB.

    Args:
        pieces: what is rendered is appended here.
        escape: changes each piece.
    """
    group: list[bytes] = []
    size = 0
    for piece in _pieces(value):
        group.append(piece)
        size += len(piece)
        if size > _PIECE_CHARACTERS:
            pieces.append(escape(b"".join(group)))
            group.clear()
            size = 0
            yield
    pieces.append(escape(b"".join(group)))


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict) and value:
        opening = b"{"
        for name, member in value.items():
            yield opening + orjson.dumps(name) + b":"
            yield from _pieces(member)
            opening = b","
        yield b"}"
    elif isinstance(value, list) and value:
        opening = b"["
        for item in value:
            yield opening
            yield from _pieces(item)
            opening = b","
        yield b"]"
    elif isinstance(value, str) and len(value) > _PIECE_CHARACTERS:
        yield b'"'
        yield from map(_inner_json, _parts(value))
        yield b'"'
    elif type(value) is memoryview:
        yield b'"'
        yield from base64_text(value)
        yield b'"'
    else:
        yield to_json(value)


def _parts(text: str) -> Iterator[str]:
    return (text[start : start + _PIECE_CHARACTERS] for start in range(0, len(text), _PIECE_CHARACTERS))


def _inner_json(text: str) -> bytes:
    """The inside of a JSON string."""
    return orjson.dumps(text)[1:-1]


def json_text(_message: Message, text: str) -> Iterator[bytes]:
    """The value of a message inside a JSON string, in pieces."""
    return map(_inner_json, _parts(text))


def script_text(_message: Message, text: str) -> Iterator[bytes]:
    """The same for JSONP."""
    return (escape_for_script(_inner_json(part)) for part in _parts(text))


def base64_text(value: bytes | memoryview) -> Iterator[bytes]:
    """A value as base64, in pieces."""
    starts = range(0, len(value), _BASE64_PIECE_BYTES)
    return (b64encode(value[start : start + _BASE64_PIECE_BYTES]) for start in starts)


def event_text(message: Message, text: str) -> Iterator[bytes]:
    """The value of a message as ``event`` renders it, in pieces."""
    return json_text(message, text) if message.receipt else _data_lines(text)


def _data_lines(text: str) -> Iterator[bytes]:
    after_return = False
    for part in _parts(text):
        rest = part[1:] if after_return and part.startswith("\n") else part
        after_return = part.endswith("\r")
        yield _with_data_fields(rest).encode()


def _with_data_fields(text: str) -> str:
    """Begins a ``data`` field after each line end, whichever it is."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\ndata: ")


def check_callback(name: str) -> str:
    """Checks the name of a JSONP callback: JavaScript identifiers joined by dots. Raises InvalidInput."""
    if len(name) > CALLBACK_MAX or not _CALLBACK.fullmatch(name):
        raise InvalidInput("'callback' must be the name of a JavaScript function, such as app.show.")
    return name


def jsonp(callback: str, document: bytes) -> bytes:
    """``callback(document);``."""
    return b"%b(%b);\r\n" % (callback.encode(), escape_for_script(document))


def escape_for_script(document: bytes) -> bytes:
    """Escapes U+2028 and U+2029, which are line ends in older JavaScript."""
    return document.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")


def gap_notice(last_key: str, queue: str) -> bytes:
    """JSON that tells a consumer that it missed messages after this one; a consumer of several queues, of which."""
    return orjson.dumps({"event": GAP, "last_event_id": last_key, **({"queue": queue} if queue else {})})


def comet_gap(last_key: str, queue: str = "") -> bytes:
    """A gap notice as a comet line."""
    return gap_notice(last_key, queue) + b"\r\n"


def event_gap(last_key: str, queue: str = "") -> bytes:
    """A gap notice as a Server-Sent Event of the type ``gap``."""
    return b"event: gap\ndata: %b\n\n" % gap_notice(last_key, queue)


def comet_line(message: Message, queue: str = "") -> bytes:
    """A comet line: the message as JSON, and CRLF."""
    return websocket_text(message, queue) + b"\r\n"


def websocket_text(message: Message, queue: str) -> bytes:
    """The payload of a text frame: the message as JSON; with its queue for a consumer of several."""
    fields = message.fields()
    return to_json({"queue": queue, **fields} if queue else fields)


def event(message: Message, queue: str = "", event_id: str = "") -> bytes:
    """A Server-Sent Event (HTML standard, 9.2.5): the key is its id, each line of the value a ``data`` line.

    A value that is not UTF-8 is sent as base64, with a field ``encoding`` that EventSource ignores. A leased message
    is sent as JSON, because its consumer needs the receipt. The header ``x-message-event`` names the event's type.

    Args:
        queue: the event's type if the message names none, for a consumer of several queues. Events of the queue ``gap``
            have no type, as they would look like notices.
        event_id: the id instead of the key.
    """
    fields = message.fields()
    kind = fields.get("headers", {}).get("x-message-event", queue if queue != GAP else "")
    event_id = event_id or message.key
    start = f"event: {kind}\nid: {event_id}\n" if kind else f"id: {event_id}\n"
    if message.receipt:
        return b"%bdata: %b\n\n" % (start.encode(), to_json(fields))
    if "encoding" in fields:
        return b"%bencoding: base64\ndata: %b\n\n" % (start.encode(), b64encode(message.value))
    return f"{start}data: {_with_data_fields(fields['value'])}\n\n".encode()
