"""Messages as JSON, JSONP, comet lines and Server-Sent Events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import orjson

from restmq.errors import InvalidInput
from restmq.model import Message

_NAME = "[A-Za-z_$][A-Za-z0-9_$]*"
CALLBACK_PATTERN = rf"^{_NAME}(?:\.{_NAME})*$"
CALLBACK_MAX = 128
#: Begins a stream of Server-Sent Events: clients reconnect after this time (ms). No empty line, as it is no event.
RETRY = b"retry: 2000\n"

_PIECE_CHARACTERS = 1 << 18
_value_of = itemgetter("value")
_CALLBACK = re.compile(CALLBACK_PATTERN)


def to_json(value: Any) -> bytes:
    """Compact JSON in UTF-8. Integers of any size stay exact."""
    try:
        return orjson.dumps(value)
    except TypeError:  # orjson has no integers beyond 64 bits
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def has_long_values(answer: dict[str, Any] | list[dict[str, Any]]) -> bool:
    """Whether an answer with a message or messages takes more than a few milliseconds to render."""
    if isinstance(answer, dict) and "messages" not in answer:
        value = answer.get("value")
        return type(value) is str and len(value) > _PIECE_CHARACTERS
    messages = answer["messages"] if isinstance(answer, dict) else answer
    if not messages or "value" not in messages[0]:  # such as the acked messages of a command
        return False
    return sum(map(len, map(_value_of, messages))) > _PIECE_CHARACTERS


def json_in_pieces(value: Any, pieces: list[bytes]) -> Iterator[None]:
    """Renders JSON as ``to_json`` does, and yields after about each 256 KiB.

    Args:
        pieces: what is rendered is appended here.
    """
    since = 0
    for piece in _pieces(value):
        pieces.append(piece)
        since += len(piece)
        if since > _PIECE_CHARACTERS:
            since = 0
            yield


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
        for start in range(0, len(value), _PIECE_CHARACTERS):
            yield orjson.dumps(value[start : start + _PIECE_CHARACTERS])[1:-1]
        yield b'"'
    else:
        yield to_json(value)


def check_callback(name: str) -> str:
    """Checks the name of a JSONP callback: JavaScript identifiers joined by dots. Raises InvalidInput."""
    if len(name) > CALLBACK_MAX or not _CALLBACK.fullmatch(name):
        raise InvalidInput("'callback' must be the name of a JavaScript function, such as app.show.")
    return name


def jsonp(callback: str, document: bytes) -> bytes:
    """``callback(document);``. Escapes U+2028 and U+2029, which are line ends in older JavaScript."""
    safe = document.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return b"%b(%b);\r\n" % (callback.encode(), safe)


def gap_notice(last_key: str, queue: str = "") -> bytes:
    """JSON that tells a consumer that it missed messages after this one; a consumer of several queues, of which."""
    return orjson.dumps({"event": "gap", "last_event_id": last_key, **({"queue": queue} if queue else {})})


def comet_gap(last_key: str, queue: str = "") -> bytes:
    """A gap notice as a comet line."""
    return gap_notice(last_key, queue) + b"\r\n"


def event_gap(last_key: str, queue: str = "") -> bytes:
    """A gap notice as a Server-Sent Event of the type ``gap``."""
    return b"event: gap\ndata: %b\n\n" % gap_notice(last_key, queue)


def comet_line(message: Message, queue: str = "") -> bytes:
    """A comet line: the message as JSON, and CRLF."""
    return websocket_text(message, queue) + b"\r\n"


def websocket_text(message: Message, queue: str = "") -> bytes:
    """The payload of a text frame: the message as JSON; with its queue for a consumer of several."""
    fields = message.fields()
    return orjson.dumps({"queue": queue, **fields} if queue else fields)


def event(message: Message, queue: str = "", event_id: str = "") -> bytes:
    """A Server-Sent Event (HTML standard, 9.2.5): the key is its id, each line of the value a ``data`` line.

    A value that is not UTF-8 is sent as base64, with a field ``encoding`` that EventSource ignores. A leased message
    is sent as JSON, because its consumer needs the receipt. The header ``x-message-event`` names the event's type.

    Args:
        queue: the event's type if the message names none, for a consumer of several queues.
        event_id: the id instead of the key.
    """
    fields = message.fields()
    kind = fields.get("headers", {}).get("x-message-event", queue)
    event_id = event_id or message.key
    start = f"event: {kind}\nid: {event_id}\n" if kind else f"id: {event_id}\n"
    if message.receipt:
        return b"%bdata: %b\n\n" % (start.encode(), orjson.dumps(fields))
    lines = fields["value"].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    encoding = "encoding: base64\n" if "encoding" in fields else ""
    data = "".join(f"data: {line}\n" for line in lines)
    return f"{start}{encoding}{data}\n".encode()
