"""Kinds of input fields: each checks and describes a field of a form, a query, a header or a JSON command."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from restmq.errors import InvalidInput
from restmq.model import (
    BATCH_MAX,
    DELAY_SECONDS_MAX,
    IDEMPOTENCY_KEY_BYTES_MAX,
    LEASE_SECONDS_MAX,
    QUEUE_NAME_BYTES_MAX,
    QUEUES_A_REQUEST_MAX,
    REASON_BYTES_MAX,
    TTL_SECONDS_MAX,
    WAIT_SECONDS_MAX,
    check_queue_name,
    queue_of,
)
from restmq.schema.encoding import CALLBACK_MAX, CALLBACK_PATTERN, check_callback

Schema = dict[str, Any]

_NUMERIC = "0123456789.eE+-"


class Kind(ABC):
    """The base of all kinds of fields. Both methods raise InvalidInput, with the field's name, for an invalid value."""

    @property
    @abstractmethod
    def schema(self) -> Schema:
        """JSON Schema (2020-12), as in OpenAPI 3.1."""

    @abstractmethod
    def __call__(self, name: str, value: Any) -> Any:
        """Checks a JSON value and returns the value to use."""

    def read(self, name: str, raw: bytes) -> Any:
        """Checks a form field's bytes and returns the value to use; None if the field counts as missing."""
        return self(name, _decode(name, raw))


@dataclass(slots=True, frozen=True)
class Number(Kind):
    """A number within bounds. An empty form field counts as missing, unless ``empty`` gives its meaning."""

    least: float
    most: float
    whole: bool = False
    empty: float | None = None

    @property
    def schema(self) -> Schema:
        number = {"type": "integer" if self.whole else "number", "minimum": self.least, "maximum": self.most}
        return number if self.empty is None else {"anyOf": [number, {"type": "string", "const": ""}]}

    def __call__(self, name: str, value: Any) -> Any:
        right_type = isinstance(value, int | float) and not isinstance(value, bool)
        if not right_type or not self.least <= value <= self.most or (self.whole and value != int(value)):
            kind = "whole number" if self.whole else "number"
            raise InvalidInput(f"the field {name!r} must be a {kind} from {self.least:.15g} to {self.most:.15g}.")
        return int(value) if self.whole else value

    def read(self, name: str, raw: bytes) -> Any:
        text = _decode(name, raw)
        if not text:
            return self.empty
        try:
            number = float(text) if not text.strip(_NUMERIC) else None
        except ValueError:
            number = None
        return self(name, number)


def whole(least: int, most: int) -> Number:
    """A whole number within bounds."""
    return Number(least, most, whole=True)


@dataclass(slots=True, frozen=True)
class Text(Kind):
    """Text. ``check`` may reject it or convert it."""

    schema: Schema
    check: Callable[[str], Any] = str

    def __call__(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            raise InvalidInput(f"the field {name!r} must be a string.")
        return self.check(value)


@dataclass(slots=True, frozen=True)
class OneOf(Kind):
    """One of several words."""

    words: tuple[str, ...]

    @property
    def schema(self) -> Schema:
        return {"type": "string", "enum": list(self.words)}

    def __call__(self, name: str, value: Any) -> Any:
        if value not in self.words:
            raise InvalidInput(f"the field {name!r} must be one of {', '.join(self.words)}.")
        return value


class Flag(Kind):
    """true or false."""

    schema: Schema = {"type": "boolean"}

    def __call__(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InvalidInput(f"the field {name!r} must be true or false.")
        return value

    def read(self, name: str, raw: bytes) -> bool:
        return self(name, {b"true": True, b"false": False}.get(raw))


@dataclass(slots=True, frozen=True)
class Exact(Kind):
    """Unchanged bytes; in JSON any value."""

    schema: Schema

    def __call__(self, name: str, value: Any) -> Any:
        return value

    def read(self, name: str, raw: bytes) -> bytes:
        return raw


class NotInForms(Kind):
    """The base of kinds that only a JSON command can have."""

    def read(self, name: str, raw: bytes) -> Any:
        raise InvalidInput(f"the field {name!r} is not allowed in a form; send a JSON command.")


@dataclass(slots=True, frozen=True)
class Texts(NotInForms):
    """An object of names and texts."""

    schema: Schema

    def __call__(self, name: str, value: Any) -> Any:
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise InvalidInput(f"the field {name!r} must be an object of names and texts.")
        return value


class QueueNames(Kind):
    """Names of queues, in order: a parameter that may be repeated, or an array. Each counts once."""

    @property
    def schema(self) -> Schema:
        return {"type": "array", "items": QUEUE_NAME.schema, "minItems": 1, "maxItems": QUEUES_A_REQUEST_MAX}

    def __call__(self, name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not 0 < len(value) <= QUEUES_A_REQUEST_MAX:
            raise InvalidInput(f"the field {name!r} must name 1 to {QUEUES_A_REQUEST_MAX} queues.")
        return tuple(dict.fromkeys(map(check_queue_name, value)))

    def read_all(self, name: str, values: list[bytes]) -> tuple[str, ...]:
        """Reads all values of a repeated parameter."""
        return self(name, [_decode(name, raw) for raw in values])


class Values(NotInForms):
    """An array of values: one to the maximum of a batch."""

    schema: Schema = {"type": "array", "items": {}, "minItems": 1, "maxItems": BATCH_MAX}

    def __call__(self, name: str, value: Any) -> list[Any]:
        if not isinstance(value, list) or not 0 < len(value) <= BATCH_MAX:
            raise InvalidInput(f"the field {name!r} must be an array of 1 to {BATCH_MAX} values.")
        return value


class Leases(NotInForms):
    """An array of leases, each an object of a message's key and its receipt: one to the maximum of a batch."""

    @property
    def schema(self) -> Schema:
        lease = {
            "type": "object",
            "properties": {"key": MESSAGE_KEY.schema, "receipt": RECEIPT_TEXT.schema},
            "required": ["key", "receipt"],
            "additionalProperties": False,
        }
        return {"type": "array", "items": lease, "minItems": 1, "maxItems": BATCH_MAX}

    def __call__(self, name: str, value: Any) -> list[tuple[str, str]]:
        if not isinstance(value, list) or not 0 < len(value) <= BATCH_MAX:
            raise InvalidInput(f"the field {name!r} must be an array of 1 to {BATCH_MAX} messages.")
        for lease in value:
            if not isinstance(lease, dict) or lease.keys() != {"key", "receipt"}:
                raise InvalidInput(f"each of {name!r} must be an object of 'key' and 'receipt', and nothing else.")
        return [(MESSAGE_KEY("key", lease["key"]), RECEIPT_TEXT("receipt", lease["receipt"])) for lease in value]


def _decode(name: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"the field {name!r} is not valid UTF-8.") from None


def _idempotency_key(text: str) -> bytes:
    encoded = text.encode()
    if not 0 < len(encoded) <= IDEMPOTENCY_KEY_BYTES_MAX:
        raise InvalidInput(f"an idempotency key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes.")
    return encoded


def _message_key(text: str) -> str:
    queue_of(text)
    return text


def _not_empty(text: str) -> str:
    if not text:
        raise InvalidInput("the receipt is empty; send the one that came with the message.")
    return text


def _reason(text: str) -> str:
    if len(text.encode()) > REASON_BYTES_MAX:
        raise InvalidInput(f"the reason is too long; the maximum is {REASON_BYTES_MAX} bytes.")
    return text


_QUEUE_CHARACTER = "[^\\u0000-\\u001f\\u007f-\\u009f]"
_NOT_RESERVED = "(?!AUTHKEY$|AUTHKEY:|queuestat:)"


def string(**more: Any) -> Schema:
    """The schema of a string."""
    return {"type": "string", **more}


QUEUE_NAME = Text(
    string(
        minLength=1,
        maxLength=QUEUE_NAME_BYTES_MAX,
        pattern=f"^{_NOT_RESERVED}{_QUEUE_CHARACTER}+$",
        description=f"1 to {QUEUE_NAME_BYTES_MAX} bytes of UTF-8 without control characters.",
    ),
    check_queue_name,
)
MESSAGE_KEY = Text(
    string(
        maxLength=QUEUE_NAME_BYTES_MAX + 20,
        pattern=f"^{_NOT_RESERVED}{_QUEUE_CHARACTER}+:[0-9]+$",
        description="The queue's name, a colon, and the message's number.",
    ),
    _message_key,
)
QUEUE_NAME_OR_NONE = Text(
    string(anyOf=[QUEUE_NAME.schema, {"const": ""}]), lambda text: check_queue_name(text) if text else text
)
RECEIPT_TEXT = Text(string(minLength=1), _not_empty)
CALLBACK_NAME = Text(string(maxLength=CALLBACK_MAX, pattern=CALLBACK_PATTERN), check_callback)
IDEMPOTENCY_KEY = Text(string(minLength=1, maxLength=IDEMPOTENCY_KEY_BYTES_MAX), _idempotency_key)
REASON = Text(string(maxLength=REASON_BYTES_MAX, description=f"Up to {REASON_BYTES_MAX} bytes of UTF-8."), _reason)
CONTENT_TYPE = Text(
    string(
        pattern="^(?!application/(x-www-form-urlencoded|x-ndjson)|multipart/form-data)[\\t -~]*$",
        description="The message's own content type, in ASCII.",
    )
)
TTL_SECONDS = Number(0, TTL_SECONDS_MAX)
DELAY_SECONDS = Number(0, DELAY_SECONDS_MAX)
WAIT_SECONDS = Number(0, WAIT_SECONDS_MAX)
LEASE_LENGTH = Number(1, LEASE_SECONDS_MAX)
BATCH_SIZE = whole(1, BATCH_MAX)
ANY_TEXT = Text(string())
ANY_JSON = Exact({})
BYTES = Exact({"type": "string"})
JSON_TEXT = Exact({"type": "string", "contentMediaType": "application/json"})
QUEUE_NAMES = QueueNames()
VALUES = Values()
HEADERS = Texts(
    {
        "type": "object",
        "maxProperties": 32,
        "propertyNames": {"pattern": "^(ce-|x-message-)[a-z0-9]+$|^(traceparent|tracestate|baggage)$"},
        "additionalProperties": {"type": "string", "pattern": "^[^\\u0000-\\u0008\\u000a-\\u001f\\u007f-\\u009f]*$"},
        "description": "Headers to keep with the message. The server's --keep-headers may allow other names.",
    }
)
LEASES = Leases()
