"""An open WebSocket: a consumer of its queue, and a client that sends JSON commands."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

import orjson
from autobahn.twisted.websocket import WebSocketServerFactory
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from msgspec import Raw
from twisted.internet import defer
from twisted.logger import Logger

from restmq import dispatch
from restmq.auth import guard
from restmq.commands import EMPTY_QUEUE, CommandContext
from restmq.delivery.consumer import CloseReason
from restmq.delivery.transport_consumer import TransportConsumer
from restmq.errors import RestMQError
from restmq.handlers.websocket_frames import BINARY_FRAME, TEXT_FRAME, frame, frame_head, text_frames
from restmq.handlers.websocket_input import BoundedInput
from restmq.http.connection import HTTPConnection
from restmq.schema.encoding import has_long_values, json_in_pieces, to_json
from restmq.transport import Presence, hung_up

log = Logger()

SUBPROTOCOL = "restmq"
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


class Socket(BoundedInput, TransportConsumer):
    """An open WebSocket: a consumer of its queue, and a client that sends JSON commands."""

    access = guard.LISTEN_WEBSOCKET

    def prepare(self, context: CommandContext, last_key: str | None, connection: HTTPConnection) -> None:
        self.follow(connection)
        self._context = context
        context.presence = Presence(self._disconnected_while_paused, context.presence.address)
        self._last_key = last_key
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._waiting_bytes = 0
        self._running = False
        self.window_bits = 0

    # autobahn calls these

    def onConnect(self, request: Any) -> str | None:
        return SUBPROTOCOL if SUBPROTOCOL in request.protocols else None

    def onOpen(self) -> None:
        deflate = self.websocket_extensions_in_use
        if deflate:
            self.window_bits = deflate[0].server_max_window_bits
            self.format = text_frames(self.window_bits)
        self.transport.registerProducer(self, True)
        self._fanout.connect(self._queue, self, self._last_key)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._waiting.append((payload, isBinary))
        self._waiting_bytes += len(payload)
        self._answer_waiting()

    def onAutoPingTimeout(self) -> None:
        """Closes the connection. But if a pong may be unread behind commands, the client gets the same time again."""
        if self.reading_paused and not self.paused:
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
        self.is_closed = defer.Deferred()  # autobahn's has this object as its result: a reference cycle
        self.release()

    def _leave(self) -> None:
        self._direct = None
        self._waiting.clear()
        self._waiting_bytes = 0
        self.release()
        self._context.presence.leave()

    def _disconnected_while_paused(self) -> bool:
        return self.state != self.STATE_OPEN or (self.reading_paused and hung_up(self.transport))

    # Commands and echoes

    def _answer_waiting(self) -> None:
        if not self._running and self._waiting and not self.paused:
            self._running = True
            defer.ensureDeferred(self._answer_all()).addErrback(self._failed)

    async def _answer_all(self) -> None:
        """Answers the messages in their order, one at a time, while the client reads the answers."""
        try:
            while self._waiting and not self.paused:
                payload, is_binary = self._waiting[0]
                answer = [payload] if is_binary else await self._answer(payload)
                if self.state != self.STATE_OPEN or not self._waiting:  # the client left meanwhile
                    return
                # Not with autobahn's method, which rejects an answer longer than the limit for messages from clients.
                if len(answer) == 1:
                    self.send(frame(answer[0], BINARY_FRAME if is_binary else TEXT_FRAME, self.window_bits))
                else:
                    self.send(frame_head(sum(map(len, answer))), *answer)
                self._waiting.popleft()
                self._waiting_bytes -= len(payload)
                self.account()
                self.pace()
        finally:
            self._running = False

    async def _answer(self, text: bytes) -> list[bytes]:
        """The answer to a command, in pieces; any other text itself."""
        fields: dict[str, Raw] | None = None
        try:
            fields = await dispatch.read_if_command(self._context, text)
            if fields is None:
                return [text]
            answer = await dispatch.run(self._context, fields)
        except RestMQError as error:
            answer = {"error": str(error)}
        if fields and "id" in fields:
            answer = {**answer, "id": orjson.Fragment(bytes(fields["id"]))}
        if not has_long_values(answer):
            return [to_json(answer)]
        pieces: list[bytes] = []
        await self._turns.run(json_in_pieces(answer, pieces))
        context = self._context
        if context.taken[1] and not context.polls.unless_left(*context.taken, context.presence):
            return [to_json(EMPTY_QUEUE)]
        return pieces

    def _failed(self, failure: Any) -> None:
        log.failure("a command over WebSocket failed", failure=failure)
        self.fail(1011, "the server failed")

    # Back-pressure in both directions

    @property
    def unanswered_bytes(self) -> int:
        return self._waiting_bytes

    def is_blocked(self) -> bool:
        """Whether many commands wait or the client does not read its answers: both would fill the memory.

        A connection that is closing is read, for the client's close frame.
        """
        many = len(self._waiting) > COMMANDS_WAITING_MAX or self._waiting_bytes > WAITING_BYTES_MAX
        return (self.paused or many) and self.state == self.STATE_OPEN

    def pauseProducing(self) -> None:
        TransportConsumer.pauseProducing(self)
        self.pace()

    def resumeProducing(self) -> None:
        TransportConsumer.resumeProducing(self)
        self._answer_waiting()
        self.pace()

    # TransportConsumer

    @property
    def outlet(self) -> Any:
        return self.transport

    def send(self, *pieces: bytes) -> None:
        if self.state == self.STATE_OPEN:
            super().send(*pieces)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Sends autobahn's answers, pings and close frame behind the messages that are being sent."""
        if not self.send_behind(data):
            self._direct = None
            super().sendData(data, sync, chopsize)

    def dropConnection(self, abort: bool = False) -> None:
        """Closes the connection; unless it is aborted, the client has a moment to read the rest."""
        close = partial(super().dropConnection, abort)
        if abort:
            close()
        elif not self.finish(close):
            self.factory.reactor.callLater(_CLOSE_SECONDS, self.transport.abortConnection)

    def close(self, reason: CloseReason) -> None:
        self.fail(CLOSE_CODES[reason], reason.value)

    def fail(self, code: int, reason: str) -> None:
        # autobahn's sendClose accepts only 1000 and 3000 to 4999. closeHandshakeTimeout ends a missing reply.
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(code, reason.encode(), isReply=False)
            self.pace()


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
