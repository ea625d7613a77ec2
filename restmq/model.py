"""Plain data: a message, a policy, a queue's name."""

from __future__ import annotations

import base64
import enum
import fnmatch
from dataclasses import dataclass
from typing import Any

from restmq.errors import InvalidInput

QUEUE_NAME_BYTES_MAX = 255
_queue_name_bytes_max = QUEUE_NAME_BYTES_MAX

#: The settings of a queue beside its policy, each with its largest value; 0 is each one's default.
SETTINGS = {
    "history": 10_000,  # how many broadcast messages are kept for consumers that come back
}

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


@dataclass(slots=True, frozen=True)
class Message:
    """One message as the store holds it.

    Attributes:
        key: ``<queue>:<number>``; the number is never given twice.
        value: the bytes as they came in.
        count: how often it was looked at without being taken.
        expires_ms: when it vanishes, in ms since 1970; 0 for never.
    """

    key: str
    value: bytes
    count: int = 0
    expires_ms: int = 0

    def fields(self) -> dict[str, Any]:
        """The ``key`` and ``value`` members of a JSON answer; a value that is no UTF-8 goes as base64."""
        return {"key": self.key, **text_or_base64(self.value)}


@dataclass(slots=True, frozen=True)
class QueueOverview:
    """A line of the list of queues."""

    name: str
    length: int
    started: bool
    policy: Policy


@dataclass(slots=True, frozen=True)
class Attendance:
    """What a daemon learns when it attends to its consumers of a queue."""

    policy: Policy
    call_again: bool
    messages: list[Message]


@dataclass(slots=True, frozen=True)
class Missed:
    """What a consumer missed that comes back.

    Attributes:
        kept: whether the queue keeps a history at all.
        gap: whether it does, but no longer reaches back to the message that the consumer saw last.
    """

    kept: bool
    gap: bool
    messages: list[Message]


@dataclass(slots=True, frozen=True)
class Authorization:
    """What the record of an access token allows."""

    queues: tuple[str, ...]
    privileges: frozenset[str]

    def covers(self, queue: str) -> bool:
        """Whether one of the record's names or globs (``*``, ``?``, ``[…]``) is the queue's."""
        return any(queue == name or fnmatch.fnmatchcase(queue, name) for name in self.queues)


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


def is_queue_name(name: str) -> bool:
    """Whether a queue may have this name."""
    try:
        check_queue_name(name)
    except InvalidInput:
        return False
    return True
