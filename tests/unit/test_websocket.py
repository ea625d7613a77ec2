"""One WebSocket without a network: its credentials, and back-pressure on its client."""

from __future__ import annotations

import re
import struct
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from restmq.auth.guard import CONSUME, Access, Credentials
from restmq.delivery.consumer import CloseReason
from restmq.dispatch import CommandContext
from restmq.errors import NotAllowed
from restmq.handlers.websocket import (
    COMMANDS_WAITING_MAX,
    PLAIN,
    WAITING_BYTES_MAX,
    Socket,
    WebSocketHandler,
    frame,
    make_factory,
)
from restmq.transport import Presence

MIB = 1 << 20
MESSAGE_BYTES_MAX = 16 * MIB
MASK = bytes(4)
TEXT, BINARY, COMPRESSED, CLOSE = 0x81, 0x82, 0x40, 0x88
TAKE = b'{"cmd":"take","queue":"other"}'


def test_the_cookie_is_read_once_however_many_commands_come() -> None:
    seen: list[Credentials] = []

    async def check(credentials: Credentials, _access: Access, _queue: str | None) -> None:
        seen.append(credentials)

    services: Any = SimpleNamespace(guard=SimpleNamespace(check=check), core=None, polls=None, queue_stats=None)
    request: Any = SimpleNamespace(
        headers={"cookie": "auth=alice:p%C3%BC"},
        query="",
        remote_ip="192.0.2.1",
        connection=SimpleNamespace(presence=Presence(lambda: False)),
    )
    handler = WebSocketHandler(services, request)
    handler.queue = "q"
    client = handler.command_context()
    defer.ensureDeferred(client.check(CONSUME, "q"))
    request.headers = {"cookie": "auth=another:one"}
    defer.ensureDeferred(client.check(CONSUME, "q"))
    assert seen == [Credentials("192.0.2.1", "alice", "pü")] * 2


# How far a client may run ahead


def sent(payload: bytes, first_byte: int = TEXT) -> bytes:
    """A client's frame: masked, with zeros (RFC 6455, 5.3)."""
    plain = frame(payload, first_byte)
    head = plain[: len(plain) - len(payload)]
    return head[:1] + bytes((head[1] | 0x80,)) + head[2:] + MASK + payload


def deflated(payload: bytes) -> bytes:
    deflate = zlib.compressobj(9, wbits=-15)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Conversation:
    """An open WebSocket. Its commands are answered when the test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.commands: list[defer.Deferred[None]] = []
        fanout: Any = SimpleNamespace(
            seconds=self.clock.seconds, connect=self._nothing, ready=self._nothing, leave=self._nothing
        )
        nobody: Any = None
        client = CommandContext(
            core=nobody,
            polls=nobody,
            check=self._check,
            queues=nobody,
            stats=nobody,
            presence=Presence(lambda: False),
            default_queue="q",
        )
        self.socket: Socket = make_factory(self.clock, MESSAGE_BYTES_MAX).buildProtocol(None)
        wire: Any = SimpleNamespace(factory=SimpleNamespace(forget=self._nothing))
        self.socket.prepare(client, None, wire)
        self.presence = client.presence
        self.socket.attach(fanout=fanout, queue="q", wire_format=PLAIN, credentials=Credentials("192.0.2.1"))
        self.transport = Transport()
        self.socket.makeConnection(self.transport)
        self.socket.dataReceived(
            b"GET /ws/q HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        )
        assert self.transport.value().startswith(b"HTTP/1.1 101 ")
        self.transport.clear()

    @staticmethod
    def _nothing(*_: Any) -> None:
        return None

    async def _check(self, _access: Access, _queue: str | None) -> None:
        waits: defer.Deferred[None] = defer.Deferred()
        self.commands.append(waits)
        await waits
        raise NotAllowed("so it is answered")

    def say(self, *frames: bytes) -> None:
        """Sends all bytes in one segment."""
        self.socket.dataReceived(b"".join(frames))

    def answer(self) -> None:
        """Answers the command in progress."""
        self.commands[-1].callback(None)
        self.clock.advance(0)

    @property
    def reads(self) -> bool:
        return bool(self.transport.producerState == "producing")

    @property
    def held_bytes(self) -> int:
        """Number of bytes of the client's messages in memory."""
        return sum(len(payload) for payload, _ in self.socket._waiting)


class Transport(StringTransport):  # type: ignore[misc]  # untyped
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


@pytest.fixture
def conversation() -> Conversation:
    return Conversation()


def test_compressed_frames_do_not_take_memory_beyond_the_limit_when_they_are_inflated(
    conversation: Conversation,
) -> None:
    bomb = sent(deflated(bytes(MIB)), BINARY | COMPRESSED)
    assert 20 * len(bomb) < 64 * 1024  # they come in one segment
    conversation.say(sent(TAKE), *[bomb] * 20)
    assert not conversation.reads
    assert WAITING_BYTES_MAX < conversation.held_bytes <= WAITING_BYTES_MAX + MIB


def test_waiting_commands_are_answered_in_order_and_then_more_are_read(conversation: Conversation) -> None:
    large = sent(deflated(bytes(MIB)), BINARY | COMPRESSED)
    commands = [sent(b'{"cmd":"take","queue":"other","id":%d}' % number) for number in range(10)]
    conversation.say(*(command + large for command in commands))
    for number in range(10):
        assert len(conversation.commands) == number + 1
        conversation.answer()
    assert conversation.reads
    assert re.findall(rb'"id":(\d)', conversation.transport.value()) == [b"%d" % number for number in range(10)]


def test_one_message_of_any_size_may_wait_behind_a_command(conversation: Conversation) -> None:
    conversation.say(sent(bytes(MESSAGE_BYTES_MAX), BINARY))
    assert conversation.reads
    assert len(conversation.transport.value()) > MESSAGE_BYTES_MAX // 2000
    conversation.say(sent(TAKE), sent(bytes(MESSAGE_BYTES_MAX), BINARY))
    assert not conversation.reads
    assert conversation.held_bytes == len(TAKE) + MESSAGE_BYTES_MAX


def test_reading_stops_at_the_maximum_number_of_waiting_commands(conversation: Conversation) -> None:
    conversation.say(*[sent(TAKE)] * 100)
    assert len(conversation.socket._waiting) == COMMANDS_WAITING_MAX + 1
    for number in range(100):
        assert len(conversation.commands) == number + 1
        conversation.answer()
    assert conversation.reads


def test_a_client_whose_pong_lies_unread_is_not_disconnected(conversation: Conversation) -> None:
    conversation.say(sent(TAKE), sent(bytes(2 * MIB), BINARY))
    conversation.socket.onAutoPingTimeout()
    conversation.clock.advance(1000)
    assert not conversation.transport.aborted
    conversation.answer()
    conversation.clock.advance(1000)
    assert conversation.transport.aborted


def test_after_the_servers_close_frame_no_command_runs_and_the_clients_close_frame_is_read(
    conversation: Conversation,
) -> None:
    conversation.say(sent(TAKE), sent(bytes(2 * MIB), BINARY))
    conversation.say(sent(TAKE), sent(struct.pack("!H", 1000), CLOSE))
    assert not conversation.reads
    conversation.socket.close(CloseReason.QUEUE_DELETED)
    assert conversation.presence.left
    assert conversation.reads
    conversation.answer()
    assert len(conversation.commands) == 1
    assert conversation.transport.aborted  # at once, as the handshake is complete
