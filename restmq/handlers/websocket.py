"""``/ws/<queue>``: a queue's messages over WebSocket (RFC 6455), and JSON commands as text frames.

The handler checks access in plain HTTP, then hands the connection to autobahn, which does the handshake. A message is
framed once for all consumers. That works because server frames have no mask, and compressed frames do not refer to
earlier ones (``server_no_context_takeover``, RFC 7692, 7.1.1.1).
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from functools import cached_property, lru_cache, partial
from typing import Any

import orjson
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from msgspec import Raw
from twisted.internet import defer
from twisted.logger import Logger

from restmq import dispatch
from restmq.auth import guard
from restmq.auth.guard import Credentials, cookie_credentials
from restmq.delivery.consumer import CloseReason, Format
from restmq.delivery.transport_consumer import TransportConsumer
from restmq.dispatch import CommandContext
from restmq.errors import RestMQError
from restmq.handlers.declare import Answer, as_utf8, declare
from restmq.handlers.error_status import UpgradeRequired
from restmq.handlers.streams import LISTENING, ConsumerHandler
from restmq.http.connection import HTTPConnection
from restmq.model import Message
from restmq.schema.encoding import gap_notice, to_json, websocket_text
from restmq.transport import Presence, hung_up

log = Logger()

SUBPROTOCOL = "restmq"
COMPRESSED_FROM_BYTES = 1024
#: Above these limits, reading stops until some are answered. One message may always wait, whatever its size.
COMMANDS_WAITING_MAX = 32
WAITING_BYTES_MAX = 1 << 20
_PING_SECONDS = 30
_PONG_SECONDS = 30
_CLOSE_SECONDS = 2

#: RFC 6455, 7.4.1, and 1013 of the IANA registry.
CLOSE_CODES = {
    CloseReason.QUEUE_DELETED: 1000,
    CloseReason.SHUTDOWN: 1001,
    CloseReason.NOT_ALLOWED: 1008,
    CloseReason.TOO_SLOW: 1013,
    CloseReason.TRY_AGAIN: 1013,
}

_TEXT_FINAL = 0x81
_COMPRESSED = 0x40


def frame(payload: bytes, first_byte: int = _TEXT_FINAL) -> bytes:
    """An unmasked frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((first_byte, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", first_byte, 126, size) + payload
    return struct.pack("!BBQ", first_byte, 127, size) + payload


def plain_frame(message: Message) -> bytes:
    """A message as a text frame."""
    return frame(websocket_text(message))


def gap_frame(last_key: str) -> bytes:
    """A gap notice as a text frame."""
    return frame(gap_notice(last_key))


PLAIN = Format(plain_frame, gap_frame, transport="websocket")


@lru_cache(maxsize=8)
def deflating(window_bits: int) -> Format:
    """Text frames, compressed where they are large (RFC 7692, 7.2.1); the same format for the same window."""

    def render(message: Message) -> bytes:
        payload = websocket_text(message)
        if len(payload) < COMPRESSED_FROM_BYTES:
            return frame(payload)
        deflate = zlib.compressobj(wbits=-window_bits)
        compressed = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
        return frame(compressed[:-4], _TEXT_FINAL | _COMPRESSED)

    return Format(render, gap_frame, transport="websocket")


class WebSocketHandler(ConsumerHandler):
    """``/ws/<queue>``: the handshake."""

    requires = {"GET": guard.LISTEN_WEBSOCKET}

    @declare(
        query=LISTENING,
        answers={101: Answer("WebSocket from now on.")},
        errors=(409, 426),
        streams=True,
    )
    async def get(self) -> None:
        """Sends messages as text frames (RFC 6455). Runs JSON commands in text frames; echoes other frames."""
        queue = self.queue_name
        if not self.request.upgrade:
            raise UpgradeRequired("this path speaks WebSocket; use /c/<queue> or /sse/<queue> for plain HTTP.")
        lease_ms, prefetch = await self.leasing(queue)
        if self.gone:
            return
        self._finished = True
        self.services.traffic.answered(self.request, 101)
        socket = self.services.websockets.buildProtocol(None)
        last_key = self.parameters["last_event_id"]
        socket.prepare(self.command_context(), last_key, self.request.connection)
        socket.attach(
            fanout=self.services.fanout,
            queue=queue,
            wire_format=PLAIN,
            credentials=self.credentials,
            lease_ms=lease_ms,
            prefetch=prefetch,
        )
        self.request.connection.hand_over(self.request, socket)

    @cached_property
    def credentials(self) -> Credentials:
        """As for other requests, or from the cookie ``auth=user:password``: browsers can't set headers on a WebSocket.

        They are read once per connection, because each command is checked by them.
        """
        shown = super().credentials
        if shown.username is not None or shown.token is not None:
            return shown
        by_cookie = cookie_credentials(as_utf8(self.request.headers.get("cookie", "")))
        return Credentials(shown.address, *by_cookie) if by_cookie else shown


class Socket(WebSocketServerProtocol, TransportConsumer):  # type: ignore[misc]  # untyped
    """An open WebSocket: a consumer of its queue, and a client that sends JSON commands."""

    access = guard.LISTEN_WEBSOCKET

    def prepare(self, context: CommandContext, last_key: str | None, connection: HTTPConnection) -> None:
        self._context = context
        context.presence = Presence(self._disconnected_while_paused)
        self._connection = connection
        self._last_key = last_key
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._waiting_bytes = 0
        self._running = False
        self._reading_paused = False

    # autobahn calls these

    def onConnect(self, request: Any) -> str | None:
        return SUBPROTOCOL if SUBPROTOCOL in request.protocols else None

    def onOpen(self) -> None:
        deflate = self.websocket_extensions_in_use
        if deflate:
            self.format = deflating(deflate[0].server_max_window_bits)
        self.transport.registerProducer(self, True)
        self._fanout.connect(self._queue, self, self._last_key)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.state != self.STATE_OPEN:  # it is closing: a command could not be answered any more, so it is not run
            return
        self._waiting.append((payload, isBinary))
        self._waiting_bytes += len(payload)
        self._pace_reading()
        if not self._running:
            self._running = True
            defer.ensureDeferred(self._answer_all()).addErrback(self._failed)

    def processData(self) -> bool:
        """Whether to parse the received data. Without this, autobahn would continue while reading is paused."""
        return not self._reading_paused and bool(super().processData())

    def onAutoPingTimeout(self) -> None:
        """Closes the connection. But if a pong may lie unread behind commands, the client gets the same time again."""
        if self._reading_paused and not self.paused:
            self.autoPingTimeoutCall = self.factory.reactor.callLater(_PONG_SECONDS, self.onAutoPingTimeout)
        else:
            super().onAutoPingTimeout()

    def sendCloseFrame(self, *args: Any, **kwargs: Any) -> None:
        """Every close calls this. No answer is sent after it, so no message may be taken for the client any more."""
        super().sendCloseFrame(*args, **kwargs)
        self._leave()

    def connectionLost(self, reason: Any) -> None:
        self.detach()
        self._leave()
        self._connection.factory.forget(self._connection)
        super().connectionLost(reason)

    def _leave(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0
        self._context.presence.leave()

    def _disconnected_while_paused(self) -> bool:
        return self.state != self.STATE_OPEN or (self._reading_paused and hung_up(self.transport))

    # Commands and echoes

    async def _answer_all(self) -> None:
        """Answers the frames in their order, one at a time."""
        try:
            while self._waiting:
                payload, is_binary = self._waiting[0]
                is_command = not is_binary and dispatch.is_command(payload)
                answer = to_json(await self._run(payload)) if is_command else payload
                if self.state != self.STATE_OPEN:
                    return
                self.sendMessage(answer, is_binary, doNotCompress=len(answer) < COMPRESSED_FROM_BYTES)
                self._waiting.popleft()
                self._waiting_bytes -= len(payload)
                self._pace_reading()
        finally:
            self._running = False

    async def _run(self, text: bytes) -> dispatch.Fields:
        fields: dict[str, Raw] = {}
        try:
            fields = dispatch.parse(text)
            answer = await dispatch.run(self._context, fields)
        except RestMQError as error:
            answer = {"error": str(error)}
        return {**answer, "id": orjson.Fragment(bytes(fields["id"]))} if "id" in fields else answer

    def _failed(self, failure: Any) -> None:
        log.failure("a command over WebSocket failed", failure=failure)
        self._close(1011, "the server failed")

    # Back-pressure in both directions

    def _pace_reading(self) -> None:
        """Stops reading while many commands wait or the client does not read its answers: both would fill the memory.

        A connection that is closing is read, for the client's close frame.
        """
        many = len(self._waiting) > COMMANDS_WAITING_MAX or self._waiting_bytes > WAITING_BYTES_MAX
        paused = (self.paused or many) and self.state == self.STATE_OPEN
        if paused != self._reading_paused and self.transport is not None:
            self._reading_paused = paused
            if paused:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()
                self.factory.reactor.callLater(0, self.consumeData)  # not at once: this may run inside consumeData

    def pauseProducing(self) -> None:
        TransportConsumer.pauseProducing(self)
        self._pace_reading()

    def resumeProducing(self) -> None:
        TransportConsumer.resumeProducing(self)
        self._pace_reading()

    # TransportConsumer

    @property
    def outlet(self) -> Any:
        return self.transport

    def transmit(self, frames: bytes) -> None:
        if self.state == self.STATE_OPEN:
            self.send(frames)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """autobahn sends answers, pings and its close frame: behind the messages that are being sent."""
        if not self.send_behind(data):
            super().sendData(data, sync, chopsize)

    def dropConnection(self, abort: bool = False) -> None:
        """Closes the connection; unless it is aborted, the client has a moment to read the rest."""
        close = partial(super().dropConnection, abort)
        if abort:
            close()
        elif not self.finish(close):
            self.factory.reactor.callLater(_CLOSE_SECONDS, self.transport.abortConnection)

    def close(self, reason: CloseReason) -> None:
        self._close(CLOSE_CODES[reason], reason.value)

    def _close(self, code: int, why: str) -> None:
        # autobahn's sendClose accepts only 1000 and 3000 to 4999. closeHandshakeTimeout ends a missing reply.
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(code, why.encode(), isReply=False)
            self._pace_reading()


def _accept_deflate(offers: list[Any], message_bytes_max: int) -> PerMessageDeflateOfferAccept | None:
    """Accepts the first offer that zlib supports: it has no windows of 8 bits (RFC 7692, 7.1.2.1)."""
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer) and offer.request_max_window_bits != 8:
            return PerMessageDeflateOfferAccept(offer, no_context_takeover=True, max_message_size=message_bytes_max)
    return None


def make_factory(reactor: Any, message_bytes_max: int) -> WebSocketServerFactory:
    """autobahn's factory with limits; by default it has none."""
    factory = WebSocketServerFactory(reactor=reactor)
    factory.protocol = Socket
    # It logs each mistake of a client, up to the level "error". Faults of the server reach Twisted's own log.
    Socket.log.set_log_level("critical")
    factory.setProtocolOptions(
        webStatus=False,
        maxFramePayloadSize=message_bytes_max,
        maxMessagePayloadSize=message_bytes_max,
        openHandshakeTimeout=5,
        closeHandshakeTimeout=_CLOSE_SECONDS,
        autoPingInterval=_PING_SECONDS,
        autoPingTimeout=_PONG_SECONDS,
        failByDrop=False,
        echoCloseCodeReason=True,
        perMessageCompressionAccept=lambda offers: _accept_deflate(offers, message_bytes_max),
        allowedOrigins=["*"],  # Admission has checked it
    )
    return factory
