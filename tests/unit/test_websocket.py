"""One WebSocket without a network: its credentials, back-pressure on its client, and bounds of its input."""

from __future__ import annotations

import re
import socket as socketlib
import struct
import tracemalloc
import zlib
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer, tcp
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from restmq.auth.guard import CONSUME, Access, Credentials
from restmq.commands import CommandContext
from restmq.delivery.backpressure import BackpressureLimits, SharedBytes
from restmq.delivery.consumer import CloseReason
from restmq.errors import NotAllowed
from restmq.handlers.commands import command_context
from restmq.handlers.websocket import WebSocketHandler
from restmq.handlers.websocket_connection import COMMANDS_WAITING_MAX, WAITING_BYTES_MAX, Socket, make_factory
from restmq.handlers.websocket_frames import COMPRESSED_UP_TO_BYTES, frame, text_frames
from restmq.http.client_transport import ClientTransport
from restmq.http.turns import Turns
from restmq.model import Message
from restmq.transport import Presence
from tests.in_memory import App

MIB = 1 << 20
MESSAGE_BYTES_MAX = 16 * MIB
MASK = bytes(4)
TEXT, BINARY, COMPRESSED, CLOSE = 0x81, 0x82, 0x40, 0x88
TAKE = b'{"cmd":"take","queue":"other"}'


def test_the_cookie_is_read_once_however_many_commands_come() -> None:
    seen: list[Credentials] = []

    async def check(credentials: Credentials, _access: Access, _queue: str | None) -> None:
        seen.append(credentials)

    services: Any = SimpleNamespace(
        guard=SimpleNamespace(check=check, is_open=lambda *_: False),
        core=None,
        polls=None,
        queue_stats=None,
        command_bytes_max=1,
        turns=Turns(Clock().callLater, Clock().seconds),
        kept_headers=None,
    )
    request: Any = SimpleNamespace(
        headers={"cookie": "auth=alice:p%C3%BC"},
        query="",
        remote_ip="192.0.2.1",
        connection=SimpleNamespace(presence=Presence(lambda: False)),
    )
    handler = WebSocketHandler(services, request)
    handler.queue = "q"
    client = command_context(handler)
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


class Wire(ClientTransport):
    """The HTTP connection that became a WebSocket."""

    remote_ip = "192.0.2.1"

    def __init__(self, factory: App) -> None:
        self.factory = factory


class Conversation:
    """An open WebSocket. Its commands are answered when the test says so."""

    def __init__(self, app: App | None = None, **limits: Any) -> None:
        self.app = app or App(Clock(), **limits)
        self.clock = self.app.clock
        self.commands: list[defer.Deferred[None]] = []
        fanout: Any = SimpleNamespace(
            seconds=self.clock.seconds,
            connect=self._nothing,
            ready=self._nothing,
            leave=self._nothing,
            limits=BackpressureLimits(),
            shared_bytes=SharedBytes(256 * MIB, self._nothing),
        )
        nobody: Any = None
        client = CommandContext(
            core=nobody,
            polls=nobody,
            check=self._check,
            queues=nobody,
            stats=nobody,
            presence=Presence(lambda: False),
            command_bytes_max=MESSAGE_BYTES_MAX,
            next_turn=self.app.turns.next,
            default_queue="q",
        )
        self.socket: Socket = make_factory(self.clock, MESSAGE_BYTES_MAX).buildProtocol(None)
        self.wire: Any = Wire(self.app)
        self.socket.prepare(client, None, self.wire)
        self.presence = client.presence
        self.socket.attach(fanout=fanout, queue="q", wire_format=text_frames(), credentials=Credentials("192.0.2.1"))
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
        """Sends all bytes in one segment, and lets the server work on them."""
        self.send(*frames)
        self.settle()

    def send(self, *frames: bytes) -> None:
        """Sends all bytes in one segment."""
        self.socket.dataReceived(b"".join(frames))

    def settle(self) -> None:
        """Runs the reactor's turns until nothing is left to do now."""
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def answer(self) -> None:
        """Answers the command in progress."""
        self.commands[-1].callback(None)
        self.settle()

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
    large = sent(deflated(bytes(MIB)), BINARY | COMPRESSED)
    assert 20 * len(large) < 64 * 1024  # they come in one segment
    conversation.say(sent(TAKE), *[large] * 20)
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
    conversation.settle()
    assert conversation.presence.left
    assert conversation.reads
    conversation.answer()
    assert len(conversation.commands) == 1
    assert conversation.transport.aborted  # at once, as the handshake is complete


def test_a_command_that_ends_because_its_client_leaves_is_not_answered(conversation: Conversation) -> None:
    failures: list[Any] = []
    conversation.socket._failed = failures.append  # type: ignore[method-assign]
    conversation.say(sent(TAKE))
    conversation.presence.watch(lambda: conversation.commands[0].callback(None))  # as a command with "wait" does
    conversation.socket.connectionLost(Failure(ConnectionDone()))
    assert failures == []
    assert conversation.transport.value() == b""


def test_a_client_that_does_not_read_its_answers_has_no_more_commands_run(conversation: Conversation) -> None:
    conversation.say(sent(TAKE) * 3)
    conversation.socket.pauseProducing()
    conversation.answer()
    assert len(conversation.commands) == 1
    conversation.socket.resumeProducing()
    assert len(conversation.commands) == 2


# Bounds of input


def close_code(conversation: Conversation) -> int:
    """The code of the close frame at the end of what the server has sent."""
    sent_by_server = conversation.transport.value()
    start = sent_by_server.rindex(bytes((CLOSE,)))
    return int(struct.unpack_from("!H", sent_by_server, start + 2)[0])


@pytest.mark.parametrize("fragments", [1, 2, 50])
def test_a_message_that_inflates_too_much_is_rejected_before_it_is_inflated(
    conversation: Conversation, fragments: int
) -> None:
    bomb = deflated(b'{"cmd":"add","queue":"q","value":[' + b"[]," * 5_000_000 + b"1]}")
    assert len(bomb) < 16 * 1024
    size = -(-len(bomb) // fragments)
    pieces = [bomb[start : start + size] for start in range(0, len(bomb), size)]
    frames = [sent(piece, TEXT | COMPRESSED if number == 0 else 0) for number, piece in enumerate(pieces)]
    frames[:-1] = [bytes((each[0] & 0x7F,)) + each[1:] for each in frames[:-1]]
    tracemalloc.start()
    try:
        conversation.say(*frames)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    assert close_code(conversation) == 1009
    assert conversation.commands == []


def test_a_message_that_inflates_a_hundredfold_is_accepted(conversation: Conversation) -> None:
    conversation.say(sent(deflated(bytes(MIB)), BINARY | COMPRESSED))
    random = Random(1).randbytes(40_000)
    conversation.say(sent(deflated(random + bytes(4 * MIB)), BINARY | COMPRESSED))
    assert conversation.transport.value().startswith(frame(bytes(MIB), BINARY) + frame(random, BINARY)[:1])
    assert conversation.reads


def test_a_message_in_fragments_of_one_byte_takes_one_byte_each(conversation: Conversation) -> None:
    count = 8000
    first, middle, last = sent(b"x", 0x02), sent(b"x", 0x00), sent(b"x", 0x80)
    tracemalloc.start()
    try:
        conversation.say(first)
        for _ in range(count // 1000):
            conversation.say(middle * 1000)
        held_bytes = tracemalloc.get_traced_memory()[0]
        assert held_bytes < 4 * count
    finally:
        tracemalloc.stop()
    conversation.say(last)
    echo = conversation.transport.value()
    assert echo[:2] == bytes((BINARY | COMPRESSED, len(echo) - 2))
    assert zlib.decompressobj(-15).decompress(echo[2:]) == b"x" * (count + 2)


def test_a_client_with_many_frames_waits_while_another_is_answered() -> None:
    one = Conversation()
    another = Conversation(one.app)
    ping, echo = sent(b"x", BINARY), frame(b"x", BINARY)
    one.send(ping * 3000)
    another.send(ping)
    while another.transport.value() != echo:
        one.app.turn()
    assert 0 < len(one.transport.value()) < len(echo * 3000)
    assert not one.reads
    one.settle()
    assert one.transport.value() == echo * 3000
    assert one.reads


def test_pings_in_pieces_are_answered_before_any_message_comes(conversation: Conversation) -> None:
    ping = sent(b"alive?", 0x89)
    conversation.say(ping[:7])
    conversation.say(ping[7:] + ping * 100)
    assert conversation.transport.value() == frame(b"alive?", 0x8A) * 101


def test_incomplete_messages_have_a_maximum_for_an_address_and_in_total() -> None:
    for limit in ("received_bytes_per_address", "received_bytes"):
        conversation = Conversation(**{limit: 100_000})
        half = sent(bytes(1_000_000), BINARY)
        conversation.say(half[:90_000])
        assert conversation.transport.value() == b""
        conversation.say(half[90_000:200_000])
        assert close_code(conversation) == 1013
        assert conversation.app.received.used == 0


def test_what_was_answered_does_not_count_as_received_any_more(conversation: Conversation) -> None:
    conversation.say(sent(TAKE), sent(bytes(MIB), BINARY))
    assert conversation.app.received.used > MIB - 20_000
    conversation.answer()
    assert conversation.app.received.used == 0


def test_a_message_must_arrive_as_fast_as_a_request() -> None:
    conversation = Conversation(request_seconds=30, bytes_per_second=1000)
    half = sent(bytes(1_000_000), BINARY)
    conversation.say(half[:20])
    assert conversation.wire.deadline == pytest.approx(30, abs=1)
    conversation.clock.advance(20)
    conversation.say(half[20:20_020])
    assert conversation.wire.deadline == pytest.approx(50, abs=1)
    conversation.say(half[20_020:])
    assert conversation.wire.deadline is None


def test_a_message_of_which_nothing_arrives_has_a_short_deadline_however_much_arrived_before() -> None:
    conversation = Conversation(request_seconds=30, bytes_per_second=1000)
    conversation.say(sent(bytes(1_000_000), BINARY)[:-1])
    assert conversation.wire.deadline == pytest.approx(30, abs=1)


def test_long_messages_are_not_compressed() -> None:
    render = text_frames(15).message
    small = render(Message("q:1", b"x" * 2000))
    large = render(Message("q:1", b"x" * COMPRESSED_UP_TO_BYTES))
    assert small[0] & COMPRESSED
    assert not large[0] & COMPRESSED


def test_a_message_does_not_overtake_a_pong_that_waits(conversation: Conversation) -> None:
    client, ours = socketlib.socketpair()
    ours.setblocking(False)
    reactor: Any = SimpleNamespace(**dict.fromkeys(("addReader", "removeReader", "addWriter", "removeWriter"), id))
    protocol: Any = SimpleNamespace(connectionLost=None)
    socket = conversation.socket
    socket.transport = tcp.Server(ours, protocol, ("", 0), None, 1, reactor)
    socket.transport.registerProducer(socket, True)
    socket.write(b"first")
    socket.write(b"second")
    assert client.recv(100) == b"firstsecond"  # nothing waits in the transport
    conversation.say(sent(b"alive?", 0x89))
    socket.write(b"third")
    socket.transport.doWrite()
    socket.transport.doWrite()
    with client, ours:
        assert client.recv(100) == frame(b"alive?", 0x8A) + b"third"
