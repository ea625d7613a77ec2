"""How messages look on the wire of a transport. A message is rendered once per format, not once per consumer.

A long message is rendered in steps, so that others have their turns meanwhile (``prepare``). Only its value is long:
formats share the rendered value, and each format adds what comes before and after it.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from restmq.http.turns import Turns
from restmq.model import Message
from restmq.schema.encoding import base64_text, json_text

#: Longer values are rendered in steps.
LONG_VALUE_BYTES = 65536

#: Renders the value of a message, given as text, in pieces.
ValueRenderer = Callable[[Message, str], Iterator[bytes]]

#: Stand for a long value, UTF-8 or not, while the rest of the message is rendered. Clients can't know them.
_TEXT = secrets.token_hex(16).encode()
_BINARY = b"\xff" + secrets.token_bytes(17)


@dataclass(slots=True)
class LongMessage(Message):
    """A message whose value is rendered already.

    Attributes:
        is_text: whether its value is UTF-8.
        bodies: the pieces of the value that each function rendered.
    """

    is_text: bool = True
    bodies: dict[ValueRenderer, list[bytes]] = field(default_factory=dict)


def _no_envelope(_size_bytes: int) -> tuple[bytes, bytes]:
    return b"", b""


def _no_head(_size_bytes: int) -> bytes:
    return b""


@dataclass(slots=True, frozen=True, eq=False)
class Format:
    """The rendering of messages for a transport. Consumers with the same format share the rendered bytes.

    Attributes:
        message: renders a message.
        gap: renders the notice that messages after this key are lost to the consumer.
        keepalive: sent at intervals on an idle connection; empty for none.
        transport: name of the transport, for people.
        envelope: returns what goes before and after a write of this number of bytes.
        body: renders the value of a long message.
        text: renders a long message without its head; None if messages have no heads.
        head: returns what goes before a long message of this number of bytes.
        long_bytes: a value is long above this size.
    """

    message: Callable[[Message], bytes]
    gap: Callable[[str], bytes]
    keepalive: bytes = b""
    transport: str = "comet"
    envelope: Callable[[int], tuple[bytes, bytes]] = _no_envelope
    body: ValueRenderer = json_text
    text: Callable[[Message], bytes] | None = None
    head: Callable[[int], bytes] = _no_head
    long_bytes: int = LONG_VALUE_BYTES

    def render(self, messages: Sequence[Message]) -> tuple[bytes, ...]:
        """Messages that are sent in one write, in pieces."""
        if LongMessage not in map(type, messages):
            return (self.wrap(b"".join(map(self.message, messages))),)
        pieces: list[bytes] = []
        for message in messages:
            if type(message) is LongMessage and self.body in message.bodies:
                pieces += self._render_long(message, message.bodies[self.body])
            else:
                pieces.append(self.message(message))
        before, after = self.envelope(sum(map(len, pieces)))
        return before, *pieces, after

    def wrap(self, data: bytes) -> bytes:
        """What is sent for the bytes of one write."""
        before, after = self.envelope(len(data))
        return before + data + after

    def _render_long(self, message: LongMessage, body: list[bytes]) -> list[bytes]:
        value = _TEXT if message.is_text else _BINARY
        rendered = (self.text or self.message)(replace(message, value=value))
        start, _, end = rendered.partition(value if message.is_text else b64encode(value))
        return [self.head(len(start) + sum(map(len, body)) + len(end)), start, *body, end]


class Formatted(Protocol):
    """A consumer, as far as it matters here."""

    @property
    def format(self) -> Format: ...


async def prepare(message: Message, consumers: Sequence[Formatted], turns: Turns) -> Message:
    """Renders a long value for the formats of consumers, also of those that join the list meanwhile."""
    size_bytes = len(message.value)
    if size_bytes <= LONG_VALUE_BYTES:
        return message
    await turns.next()
    try:
        text = message.value.decode()
    except UnicodeDecodeError:
        text = ""
    long = LongMessage(
        message.key, message.value, message.count, message.expires_ms, message.receipt, message.record, bool(text)
    )

    def missing() -> ValueRenderer | None:
        bodies = (c.format.body for c in consumers if size_bytes > c.format.long_bytes)
        return next((body for body in bodies if body not in long.bodies), None)

    while (body := missing()) is not None:
        pieces: list[bytes] = []
        await turns.run(map(pieces.append, body(message, text) if text else base64_text(message.value)))
        long.bodies[body] = pieces
    return long


async def prepare_all(messages: list[Message], consumers: Sequence[Formatted], turns: Turns) -> list[Message]:
    """The same for several messages; if they are long together, rendering them is work for a turn of its own."""
    if sum(len(message.value) for message in messages) <= LONG_VALUE_BYTES:
        return messages
    await turns.next()
    return [await prepare(message, consumers, turns) for message in messages]
