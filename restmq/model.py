"""Plain data: messages, policies, the names and settings of queues."""

from __future__ import annotations

import base64
import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from restmq.errors import InvalidInput

QUEUE_NAME_BYTES_MAX = 255
_queue_name_bytes_max = QUEUE_NAME_BYTES_MAX

LEASE_SECONDS_MAX = 43_200
LEASE_SECONDS_DEFAULT = 30
DELAY_SECONDS_MAX = 30 * 86_400
TTL_SECONDS_MAX = 10 * 365 * 86_400
WAIT_SECONDS_MAX = 60
#: Maximum number of messages that one call adds or takes.
BATCH_MAX = 1000
#: Maximum number of queues that one request waits for, or listens to.
QUEUES_A_REQUEST_MAX = 32
IDEMPOTENCY_KEY_BYTES_MAX = 255
REASON_BYTES_MAX = 1024
#: Longer values take more than a few milliseconds to render.
RENDERED_AT_ONCE_MAX = 1 << 18

#: The numeric settings of a queue, each with its maximum; 0 stands for the default.
SETTINGS = {
    "expires": TTL_SECONDS_MAX,  # seconds after which an unused queue is removed (default --queue-expires)
    "history": 10_000,  # number of broadcast messages kept for consumers that reconnect (default none)
    "history_bytes": 1 << 30,  # maximum bytes of these messages (default 64 MiB)
    "lease": LEASE_SECONDS_MAX,  # length in seconds of a lease that names none (default 30)
    "max_deliveries": 1000,  # number of failed deliveries that makes a message a dead letter (default never)
    "max_length": 1_000_000_000,  # maximum number of messages; more are refused (default no limit)
    "retry_delay": DELAY_SECONDS_MAX,  # seconds until a message whose first delivery failed comes back (default 0)
    "retry_delay_max": DELAY_SECONDS_MAX,  # maximum of this time, which doubles with each delivery (default an hour)
}
#: The setting that names another queue for the dead letters.
DEAD_LETTER = "dead_letter"

#: The end of the names of queues that may be FIFO queues.
_FIFO_SUFFIX = ".fifo"

# The server's own keys begin with these prefixes; a queue with such a name could read or overwrite those keys.
_RESERVED_PREFIXES = ("AUTHKEY:", "queuestat:")
_RESERVED_NAMES = ("AUTHKEY",)


class Policy(enum.IntEnum):
    """Whether a message goes to all consumers or to one in turn. Redis stores these numbers."""

    BROADCAST = 1
    ROUNDROBIN = 2

    @property
    def label(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, label: str) -> Policy:
        """The policy of this name. Raises InvalidInput if there is none."""
        for policy in cls:
            if policy.label == label:
                return policy
        raise InvalidInput(f"policy must be 'broadcast' or 'roundrobin', not {label!r}.")


@dataclass(slots=True, frozen=True)
class Attribute:
    """A typed attribute of a message, as SQS has them.

    Attributes:
        data_type: ``String``, ``Number`` or ``Binary``, perhaps with a period and the user's own name behind it.
        value: its text; base64 of ``Binary``.
    """

    data_type: str
    value: str

    @property
    def is_binary(self) -> bool:
        return self.data_type.startswith("Binary")

    @property
    def content(self) -> bytes:
        """The bytes of its value."""
        return base64.b64decode(self.value) if self.is_binary else self.value.encode()


@dataclass(slots=True, frozen=True)
class Metadata:
    """What a producer sends with a message beside its value.

    Attributes:
        content_type: the value's media type; empty for none.
        headers: by name, in lower case.
        attributes: by name.
    """

    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Metadata:
        """Reads the members of a record."""
        attributes = fields.get("attributes")
        return cls(
            fields.get("content_type", ""),
            fields.get("headers", {}),
            {name: Attribute(one["type"], one["value"]) for name, one in attributes.items()} if attributes else {},
        )

    def fields(self) -> dict[str, Any]:
        """The members of a JSON answer: those that there are."""
        shown: dict[str, Any] = {"content_type": self.content_type} if self.content_type else {}
        if self.headers:
            shown["headers"] = dict(self.headers)
        if self.attributes:
            shown["attributes"] = {
                name: {"type": one.data_type, "value": one.value} for name, one in self.attributes.items()
            }
        return shown

    def record(self, sent_ms: int) -> bytes:
        """The record of a new message (``queues/lua/_record.lua``)."""
        return json.dumps({"count": 0, "sent": sent_ms, **self.fields()}, separators=(",", ":")).encode()


@dataclass(slots=True)
class Message:
    """One message as the store holds it.

    Attributes:
        key: ``<queue>:<number>``; a number is never used twice.
        value: the bytes as the producer sent them.
        count: number of peeks (soft gets); for a leased message, the number of its deliveries.
        expires_ms: time of expiry, in ms since 1970; 0 for never.
        receipt: for a leased message, proves that a consumer holds it; new at each delivery.
        record: its deliveries under leases and its metadata, as JSON; empty if it has neither.
    """

    key: str
    value: bytes
    count: int = 0
    expires_ms: int = 0
    receipt: str = ""
    record: bytes = b""

    def fields(self, with_count: bool = False) -> dict[str, Any]:
        """The message in a JSON answer: key and value; if leased, receipt, count and expiry; notes, if any.

        A long value that is not UTF-8 is a ``memoryview``; ``schema/encoding.py`` renders it as base64.

        Args:
            with_count: whether to show the count of a message that is not leased, too.
        """
        try:
            fields: dict[str, Any] = {"key": self.key, "value": self.value.decode()}
        except UnicodeDecodeError:
            is_long = len(self.value) > RENDERED_AT_ONCE_MAX
            value = memoryview(self.value) if is_long else base64.b64encode(self.value).decode("ascii")
            fields = {"key": self.key, "value": value, "encoding": "base64"}
        if self.receipt:
            fields |= {"receipt": self.receipt, "count": self.count}
            if self.expires_ms:
                fields["expires"] = self.expires_ms
        elif with_count:
            fields["count"] = self.count
        if self.record and _NOTED.search(self.record):
            fields |= _notes(read_record(self.record))
        return fields


#: A record with members that every JSON answer shows, and those that it shows by their name.
_NOTED = re.compile(rb'"(?:origin|reason|sent)":')
_NOTES = ("content_type", "headers", "attributes", "sent", "reason", "failed")


def read_record(record: bytes) -> dict[str, Any]:
    """The members of a message's record (``queues/lua/_record.lua``): its deliveries under leases, and its metadata."""
    return json.loads(record, parse_float=lambda number: int(float(number))) if record else {"count": 0}


def deliveries_of(record: bytes) -> dict[str, Any]:
    """A message's deliveries under leases and its notes, as JSON answers show them."""
    fields = read_record(record)
    return {"count": fields["count"], "first": fields.get("first", 0), "last": fields.get("last", 0), **_notes(fields)}


def _notes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a record that every JSON answer shows, if there are any."""
    notes = {name: fields[name] for name in _NOTES if fields.get(name)}
    return {**notes, "dead_letter": fields["origin"]} if "origin" in fields else notes


def text_or_base64(value: bytes) -> dict[str, str]:
    """``{"value": text}``, or ``{"value": base64, "encoding": "base64"}`` for bytes that are not valid UTF-8."""
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"value": base64.b64encode(value).decode("ascii"), "encoding": "base64"}


def check_queue_name(name: object) -> str:
    """Returns a valid name; raises InvalidInput, with the reason, for any other object."""
    if not isinstance(name, str):
        raise InvalidInput("the queue's name must be a string.")
    return _checked(name)


@lru_cache(maxsize=4096)
def _checked(name: str) -> str:
    if not name:
        raise InvalidInput("the queue's name is empty; name one, as in /q/myqueue.")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidInput("the queue's name is not valid UTF-8.") from None
    if size > _queue_name_bytes_max:
        raise InvalidInput(f"the queue's name has {size} bytes; {_queue_name_bytes_max} are allowed.")
    if not name.isprintable() and any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name):
        raise InvalidInput("the queue's name holds a control character.")
    if name in _RESERVED_NAMES or name.startswith(_RESERVED_PREFIXES):
        raise InvalidInput("that queue name is reserved for the server's own keys; choose another.")
    return name


def may_be_fifo(queue: str) -> bool:
    """Whether a queue of this name can be a FIFO queue (``queues/lua/fifo/_groups.lua``)."""
    return queue.endswith(_FIFO_SUFFIX)


def limit_queue_names(bytes_max: int) -> None:
    """Sets the maximum length of names for this process; called when the service starts."""
    global _queue_name_bytes_max
    _queue_name_bytes_max = bytes_max
    _checked.cache_clear()


def queue_of(key: str) -> str:
    """The queue of a message's key, ``<queue>:<number>``. Raises InvalidInput if the key is invalid."""
    queue, colon, number = key.rpartition(":")
    if not colon or not number.isascii() or not number.isdigit():
        raise InvalidInput("a message's key looks like myqueue:17.")
    return check_queue_name(queue)


def number_of(key: str) -> int:
    """The number in a message's key, or 0. Within a queue, older messages have lower numbers."""
    number = key.rpartition(":")[2]
    return int(number) if number.isascii() and number.isdigit() else 0


def position_of(last_key: str, last_number: int) -> str:
    """The position of a consumer in a broadcast queue, as in the ids of events (``delivery/several.py``).

    Args:
        last_key: key of the last message that it got, or else of the newest message in the history; empty if the
            history has no message.
        last_number: number of the queue's last message. It counts only if ``last_key`` is empty.
    """
    return str(number_of(last_key)) if last_key else f"~{last_number}"


def is_queue_name(name: str) -> bool:
    """Whether the name is valid."""
    try:
        check_queue_name(name)
    except InvalidInput:
        return False
    return True
