"""Plain data: a message, a policy, a queue's name."""

from __future__ import annotations

import base64
import enum
import json
from dataclasses import dataclass
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
#: Messages in one call, put in or taken out.
BATCH_MAX = 1000
IDEMPOTENCY_KEY_BYTES_MAX = 255

#: The settings of a queue that are numbers, each with its largest value; 0 is each one's default.
SETTINGS = {
    "history": 10_000,  # how many broadcast messages are kept for consumers that come back
    "lease": LEASE_SECONDS_MAX,  # seconds, where a client asks for a lease and does not say how long
    "max_deliveries": 1000,  # after so many failed deliveries a message goes to the dead letters
    "max_length": 1_000_000_000,  # how many messages it takes before it refuses more
}
#: The setting that is a name: the queue for dead letters, instead of a place beside the queue.
DEAD_LETTER = "dead_letter"

# Prefixes under which the server keeps keys of its own: a queue of such a name could read or overwrite them.
_RESERVED_PREFIXES = ("AUTHKEY:", "queuestat:")
_RESERVED_NAMES = ("AUTHKEY",)


class Policy(enum.IntEnum):
    """Who gets a message of a queue. The numbers are what Redis holds."""

    BROADCAST = 1
    ROUNDROBIN = 2

    @property
    def label(self) -> str:
        return self.name.lower()

    @classmethod
    def parse(cls, label: str) -> Policy:
        """The policy of this name. Raises InvalidInput for any other word."""
        for policy in cls:
            if policy.label == label:
                return policy
        raise InvalidInput(f"policy must be 'broadcast' or 'roundrobin', not {label!r}.")


@dataclass(slots=True)
class Message:
    """One message as the store holds it.

    Attributes:
        key: ``<queue>:<number>``; the number is never given twice.
        value: the bytes as they came in.
        count: how often it was looked at without being taken; of a leased one, how often it was delivered.
        expires_ms: when it vanishes, in ms since 1970; 0 for never.
        receipt: of a leased one, what its consumer proves with that it holds it; new at each delivery.
        record: of its deliveries under leases, as JSON; empty if there were none.
    """

    key: str
    value: bytes
    count: int = 0
    expires_ms: int = 0
    receipt: str = ""
    record: bytes = b""

    def fields(self) -> dict[str, Any]:
        """The members of a JSON answer that say what the message is; a value that is no UTF-8 goes as base64.

        A leased one has its receipt and delivery count too; one that was a dead letter elsewhere, where it comes from.
        """
        fields: dict[str, Any] = {"key": self.key, **text_or_base64(self.value)}
        if self.receipt:
            fields |= {"receipt": self.receipt, "count": self.count}
        if self.record and (origin := Deliveries.parse(self.record).origin):
            fields["dead_letter"] = origin
        return fields


@dataclass(slots=True, frozen=True)
class Deliveries:
    """A message's deliveries under leases.

    Attributes:
        count: how many there were.
        first_ms, last_ms: when, in ms since 1970; 0 for never.
        origin: if it was a dead letter of another queue: its ``key``, ``count``, ``first`` and ``last`` there.
    """

    count: int = 0
    first_ms: int = 0
    last_ms: int = 0
    origin: dict[str, Any] | None = None

    @classmethod
    def parse(cls, record: bytes) -> Deliveries:
        """From what ``queues/lua/_lease.lua`` writes."""
        if not record:
            return cls()
        said = json.loads(record, parse_float=lambda number: int(float(number)))
        origin = said.get("origin")
        return cls(said["count"], said.get("first", 0), said.get("last", 0), origin)

    def fields(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"count": self.count, "first": self.first_ms, "last": self.last_ms}
        return {**shown, "dead_letter": self.origin} if self.origin else shown


def text_or_base64(value: bytes) -> dict[str, str]:
    """``{"value": text}``, or ``{"value": base64, "encoding": "base64"}`` for bytes that are no UTF-8."""
    try:
        return {"value": value.decode()}
    except UnicodeDecodeError:
        return {"value": base64.b64encode(value).decode("ascii"), "encoding": "base64"}


def check_queue_name(name: object) -> str:
    """The name itself if a queue may have it; raises InvalidInput that says why not."""
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


def limit_queue_names(bytes_max: int) -> None:
    """Has this process refuse longer names than these, from now on; for the service's start."""
    global _queue_name_bytes_max
    _queue_name_bytes_max = bytes_max
    _checked.cache_clear()


def queue_of(key: str) -> str:
    """The queue of a message's key, ``<queue>:<number>``. Raises InvalidInput if it is none."""
    queue, colon, number = key.rpartition(":")
    if not colon or not number.isascii() or not number.isdigit():
        raise InvalidInput("a message's key looks like myqueue:17.")
    return check_queue_name(queue)


def number_of(key: str) -> int:
    """The number in a message's key, or 0; in one queue the older message has the lower one."""
    number = key.rpartition(":")[2]
    return int(number) if number.isascii() and number.isdigit() else 0


def is_queue_name(name: str) -> bool:
    """Whether a queue may have this name."""
    try:
        check_queue_name(name)
    except InvalidInput:
        return False
    return True
