"""The headers that are kept with a message, and the checks on them.

A kept header comes back as a header of an HTTP response, so a producer must not be able to set others, such as
``Set-Cookie``. The same rules hold for headers of a request and for those in a JSON command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from restmq.errors import HeadersTooLarge, InvalidInput
from restmq.model import Metadata
from restmq.schema.encoding import GAP

#: CloudEvents (its HTTP binding, 3.1), W3C Trace Context and Baggage, and the user's own headers.
_KEPT_BY_DEFAULT = ("ce-*", "traceparent", "tracestate", "baggage", "x-message-*")
HEADERS_MAX = 32
HEADER_BYTES_MAX = 8192
#: Names the type of a message's Server-Sent Event.
EVENT_HEADER = "x-message-event"
#: Begins the name of the header that has an attribute of a message.
ATTRIBUTE_HEADER = "x-message-attribute-"
#: The content type of bytes of an unknown kind; it is not kept.
UNTYPED = "application/octet-stream"

#: A body of these types is not itself a message, but contains messages.
_PARSED = ("application/x-www-form-urlencoded", "multipart/form-data", "application/x-ndjson")

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_PATTERN = re.compile(r"[a-z0-9!#$%&'+.^_`|~-]+\*?", re.ASCII)
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
#: The fields of HTTP itself (RFC 9110 to 9112, Fetch, CSP), which a message must not set.
_NEVER_KEPT = re.compile(
    r"(access-control|content|proxy|sec)-.*|accept.*|authorization|cache-control|clear-site-data|connection|cookie.*|"
    r"date|host|keep-alive|location|refresh|server|set-cookie.*|strict-transport-security|te|trailer|"
    r"transfer-encoding|upgrade|vary|www-authenticate|x-accel-.*|x-content-type-options|x-frame-options|x-restmq-.*"
)


class KeptHeaders:
    """The headers that the server keeps with a message.

    Args:
        patterns: names in lower case; a pattern ``x-*`` stands for all names that begin with ``x-``.
    """

    def __init__(self, patterns: Iterable[str] = _KEPT_BY_DEFAULT) -> None:
        self._patterns = tuple(patterns)
        self._is_kept = re.compile("|".join(re.escape(name).replace(r"\*", ".*") for name in self._patterns)).fullmatch
        self._kept_among = lru_cache(maxsize=256)(self._find_kept)

    def __str__(self) -> str:
        return ",".join(self._patterns)

    @classmethod
    def parse(cls, text: str) -> KeptHeaders:
        """Parses names and patterns joined by commas; an empty text keeps no header. Raises ValueError."""
        patterns = [name.strip().lower() for name in text.split(",") if name.strip()]
        for pattern in patterns:
            if not _PATTERN.fullmatch(pattern) or _NEVER_KEPT.fullmatch(pattern.replace("*", "")):
                raise ValueError(f"{pattern!r} is no name of a header that can be kept; write names such as x-my-*.")
        return cls(patterns)

    def _find_kept(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if self._is_kept(name) and not _NEVER_KEPT.fullmatch(name))

    def of_request(self, headers: Mapping[str, str], content_type: str) -> Metadata | None:
        """The metadata kept of a request; None if there is none. Raises HeadersTooLarge, InvalidInput.

        Args:
            headers: header fields as Latin-1, by names in lower case.
            content_type: the content type of the message; empty if it has none.
        """
        names = self._kept_among(tuple(headers))
        if not names and content_type in ("", UNTYPED):
            return None
        return self._checked({name: as_utf8(headers[name]) for name in names}, content_type)

    def of_command(self, headers: Mapping[str, str], content_type: str) -> Metadata | None:
        """The metadata in a JSON command; None if there is none. Raises as ``of_request``."""
        given: dict[str, str] = {}
        for spelled, value in headers.items():
            name = spelled.lower()
            if not _NAME.fullmatch(name) or not self._find_kept((name,)):
                raise InvalidInput(f"the header {spelled!r} is not kept; use one of {', '.join(self._patterns)}.")
            given[name] = value.strip(" \t")
        return self._checked(given, content_type) if given or content_type not in ("", UNTYPED) else None

    def _checked(self, headers: dict[str, str], content_type: str) -> Metadata:
        for text in (*headers.values(), content_type):
            if _CONTROL.search(text):
                raise InvalidInput("a header of the message has a control character; remove it.")
        kind = content_type.partition(";")[0].strip().lower()
        if not content_type.isascii() or kind in _PARSED:
            raise InvalidInput("a message can't have this content type; use another one, such as image/png.")
        size = sum(len(name) + len(value.encode()) for name, value in headers.items()) + len(content_type.encode())
        if len(headers) > HEADERS_MAX or size > HEADER_BYTES_MAX:
            raise HeadersTooLarge(
                f"the message has too many headers; {HEADERS_MAX} headers and {HEADER_BYTES_MAX} bytes are allowed."
            )
        if headers.get(EVENT_HEADER) == GAP:
            raise InvalidInput(
                f"the header {EVENT_HEADER} can't be {GAP}, the server's own event; choose another name."
            )
        return Metadata("" if content_type == UNTYPED else content_type, headers)


def as_utf8(value: str) -> str:
    """A header's value, which was decoded as Latin-1, decoded as UTF-8 if it is valid UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def as_field(name: str, value: str) -> str:
    """A header field of a response: UTF-8 bytes, decoded as Latin-1, as ``http.response.head`` needs them."""
    return f"{name}: {value.encode().decode('latin-1')}\r\n"


def shown_headers(sent: Metadata) -> str:
    """The header fields of a raw message: its content type, its headers, and its attributes.

    Leaves out attributes whose values have control characters, and those beyond ``HEADER_BYTES_MAX``; a message's JSON
    has them all.
    """
    kept = {"Content-Type": sent.content_type or UNTYPED, **sent.headers}
    left_bytes = HEADER_BYTES_MAX
    for name, one in sent.attributes.items():
        left_bytes -= len(name) + len(one.value.encode())
        if left_bytes >= 0 and not _CONTROL.search(one.value):
            kept.setdefault(ATTRIBUTE_HEADER + name, one.value)
    return "".join(as_field(*header) for header in kept.items())


#: JSON Schema of the metadata in a message's JSON.
SCHEMA: dict[str, Any] = {
    "content_type": {"type": "string", "description": "The content type that it was sent with, if it had one."},
    "headers": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "The headers that it was sent with, if there were any.",
    },
    "attributes": {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": {"type": {"type": "string"}, "value": {"type": "string"}},
            "required": ["type", "value"],
        },
        "description": "The attributes that it was sent with over SQS, if there were any; Binary ones as base64.",
    },
    "sent": {"type": "integer", "description": "With content_type or headers: when it was added, ms since 1970."},
}
