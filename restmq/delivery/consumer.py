"""Live consumers of any transport: their interface to the fan-out."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Protocol

from restmq.auth.guard import Access, Credentials
from restmq.delivery.backpressure import BackpressureLimits, SharedBytes
from restmq.delivery.format import Format
from restmq.model import Message

#: Default maximum of messages that a round-robin consumer is given at a time, and of unacked messages if it leases.
PREFETCH = 64


class CloseReason(enum.Enum):
    """Why the server closes a consumer's connection."""

    QUEUE_DELETED = "the queue was deleted"
    TOO_SLOW = "the consumer reads too slowly"
    TRY_AGAIN = "the queue's history can't be read; try again"
    SHUTDOWN = "the server is stopping"
    NOT_ALLOWED = "listening here is no longer allowed"


class Consumer(Protocol):
    """One connected consumer, of any transport."""

    format: Format
    #: Length of its leases with round robin; 0 for no leases.
    lease_ms: int
    #: Key and receipt of its unacked messages, the oldest first.
    leases: dict[str, str]
    #: The credentials and the access that were checked when it connected. They are checked again later.
    credentials: Credentials
    access: Access
    #: When it connected, in reactor seconds.
    since_seconds: float

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for it."""

    def write(self, *pieces: bytes) -> None:
        """Sends what its format has rendered and wrapped. Other consumers may share the pieces."""

    def capacity(self) -> int:
        """Number of messages that it can take now with round robin. After a 0, it calls ``ready`` when it has some."""

    def wait_until(self, is_shared: bool = False) -> float:
        """As ``Waitable.wait_until``. If it becomes writable before, it calls ``ready``."""

    def close_if_vanished(self) -> None:
        """Closes the connection if the client's machine no longer answers."""

    def close(self, reason: CloseReason) -> None:
        """Closes the connection. The consumer has left the fan-out before this is called."""


def write_messages(consumers: Sequence[Consumer], messages: Sequence[Message]) -> None:
    """Writes messages to consumers, rendered once per format."""
    if not messages:
        return
    rendered: dict[Format, tuple[bytes, ...]] = {}
    for consumer in list(consumers):  # a write may drop a consumer
        pieces = rendered.get(consumer.format)
        if pieces is None:
            pieces = rendered[consumer.format] = consumer.format.render(messages)
        # The short way to the method: in each WebSocket, which has many attributes, Python would look for it first.
        type(consumer).write(consumer, *pieces)


def write_gap(consumers: Sequence[Consumer], last_key: str) -> None:
    """Tells consumers that messages after this key are lost to them."""
    for consumer in list(consumers):
        consumer.write(consumer.format.wrap(consumer.format.gap(last_key)))


class ConsumerOwner(Protocol):
    """The part of the fan-out that a consumer calls; ``Fanout`` describes the methods."""

    limits: BackpressureLimits
    seconds: Callable[[], float]
    shared_bytes: SharedBytes

    def connect(self, queue: str, consumer: Consumer, last_key: str | None) -> None: ...
    def leave(self, queue: str, consumer: Consumer) -> None: ...
    def drop(self, queue: str, consumer: Consumer) -> None: ...
    def ready(self, queue: str, consumer: Consumer) -> None: ...
