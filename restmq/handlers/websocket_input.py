"""The limits of a WebSocket's input: the bytes that are parsed at a time, inflated, and kept.

Rules:

1. Input is parsed in pieces, for about a millisecond per turn of the event loop (``http.turns``). While more is left,
   or while the subclass is busy (``is_blocked``), the connection is not read.
2. A compressed message may inflate to 1 MiB and 100 times its compressed size, and to no more than the maximum size of
   a message. A piece of it inflates to at most 256 KiB.
3. The frames of a message are joined as they come: a frame of one byte takes one byte.
4. All bytes that are held count as received bytes of the client's address (``http.quota``): those that are not parsed,
   those of an incomplete message, and those of messages that are not answered yet. Each connection has some bytes free
   of charge.
5. The connection is cut if a message arrives more slowly than the body of a request may, or if nothing of it arrives
   for ``request_seconds``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol

from restmq.http.connection import HTTPConnection

#: Size of a piece: of small frames or compressed data, and within a long frame.
_PIECE_BYTES = 256
_LONG_PIECE_BYTES = 65536
_TURN_SECONDS = 0.001
_INFLATED_FREE_BYTES = 1 << 20
_INFLATION_MAX = 100
_TRY_AGAIN = 1013


class BoundedInput(WebSocketServerProtocol):  # type: ignore[misc]  # untyped
    """A server's side of a WebSocket whose input is bounded.

    Attributes:
        reading_paused: whether the connection is not read now.
    """

    data: bytes
    _isMessageCompressed = False  # autobahn sets it with the first message only

    def follow(self, connection: HTTPConnection) -> None:
        """Takes over from an HTTP connection, whose limits on bytes and time go on."""
        self._connection = connection
        self._turns = connection.factory.turns
        self._received = bytearray()
        self._message: bytes | bytearray = b""
        self._compressed_bytes = 0
        self._due_seconds = 0.0
        self._waits_for_turn = self._stopped = False
        self.reading_paused = False

    @abstractmethod
    def is_blocked(self) -> bool:
        """Whether no input may be parsed now."""

    @property
    @abstractmethod
    def unanswered_bytes(self) -> int:
        """Number of bytes in messages that are not answered yet."""

    @abstractmethod
    def fail(self, code: int, reason: str) -> Any:
        """Closes the connection with a close code and a reason."""

    # Pieces and turns

    def _dataReceived(self, data: bytes) -> None:
        if self.state in (self.STATE_OPEN, self.STATE_CLOSING):
            self._received += data
            self._parse_or_wait()
        else:
            super()._dataReceived(data)  # the handshake

    def consumeData(self) -> None:
        if self.state in (self.STATE_OPEN, self.STATE_CLOSING):  # some data came with the handshake
            self._received[:0], self.data = self.data, b""
            self._parse_or_wait()
        else:
            super().consumeData()

    def _parse_or_wait(self) -> None:
        if self.is_blocked():
            self._stopped = True
        elif self._turns.is_full():
            self._wait_for_turn()
        elif not self._waits_for_turn:
            self._turns.process(self._parse, b"")
        self.account()
        self.pace()

    def _wait_for_turn(self) -> None:
        if not self._waits_for_turn:
            self._waits_for_turn = True
            self._turns.wait(self._have_turn)

    def _have_turn(self) -> None:
        self._parse()
        self.account()
        self.pace()

    def _parse(self, _: bytes = b"") -> None:
        self._stopped = False
        end = self._turns.clock() + _TURN_SECONDS
        is_more = self._parse_piece()
        while is_more and self._turns.clock() < end:
            is_more = self._parse_piece()
        self._waits_for_turn = is_more
        if is_more:
            self._turns.wait(self._have_turn)

    def _parse_piece(self) -> bool:
        """Returns whether there is another piece that may be parsed."""
        size = _PIECE_BYTES
        if self.current_frame is not None and not self._isMessageCompressed:
            left = self.current_frame.length - self.current_frame_masker.pointer()
            size = min(max(left, _PIECE_BYTES), _LONG_PIECE_BYTES)
        self.data += bytes(self._received[:size])
        del self._received[:size]
        while self.state != self.STATE_CLOSED and not self.is_blocked() and self.processData():
            pass
        if self.state == self.STATE_CLOSED:
            self.release()
        elif self.is_blocked():
            self._stopped = True
        else:
            return bool(self._received)
        return False

    def pace(self) -> None:
        """Stops or resumes reading, and parsing of input that is left. Call it when ``is_blocked`` may have changed."""
        if self.transport is None:
            return
        blocked = self.is_blocked()
        if self._stopped and not blocked:
            self._wait_for_turn()
        paused = self._waits_for_turn or blocked
        if paused != self.reading_paused:
            self.reading_paused = paused
            if paused:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()
            self._time_message()

    # Messages

    def onMessageBegin(self, isBinary: bool) -> None:
        super().onMessageBegin(isBinary)
        self._message = b""
        self._compressed_bytes = 0
        self._time_message()

    def onFrameData(self, payload: bytes) -> bool | None:
        if self.current_frame.opcode > 7 or not self._isMessageCompressed:
            return super().onFrameData(payload)  # type: ignore[no-any-return]
        self._compressed_bytes += len(payload)
        if super().onFrameData(payload) is False:
            return False
        if len(self._message) > _INFLATED_FREE_BYTES + _INFLATION_MAX * self._compressed_bytes:
            self._max_message_size_exceeded(0, 0, f"a message may inflate to {_INFLATION_MAX} times its size only")
            return False
        return None

    def onMessageFrameData(self, payload: bytes) -> None:
        if self.failedByMe or self.state != self.STATE_OPEN:
            return
        if not self._message:
            self._message = payload
        else:
            if isinstance(self._message, bytes):
                self._message = bytearray(self._message)
            self._message += payload
        self._extend_deadline(len(payload))

    def onMessageFrameEnd(self) -> None:
        self.frame_data = None

    def onMessageEnd(self) -> None:
        payload, self._message = bytes(self._message), b""
        self.inside_message = False
        self._connection.deadline = None
        if not self.failedByMe and self.state == self.STATE_OPEN:
            self.onMessage(payload, self.message_is_binary)

    # Limits of memory and time

    def account(self) -> None:
        """Charges the bytes that are held. Closes the connection if they are too many."""
        held = len(self._received) + len(self.data or b"") + len(self._message) + self.unanswered_bytes
        problem = self._connection.charge(held)
        if problem:
            self.fail(_TRY_AGAIN, problem)

    def release(self) -> None:
        """Forgets the message in progress; once the connection is closed, all input."""
        self._message = b""
        if self.state == self.STATE_CLOSED or self.transport is None:
            self._received.clear()
            self.data = b""
        self._connection.deadline = None
        self.account()

    def _time_message(self) -> None:
        """Sets the deadline of an incomplete message; there is none while the server does not read."""
        if self.inside_message and not self.reading_paused:
            factory = self._connection.factory
            self._connection.deadline = self._due_seconds = factory.seconds() + factory.limits.request_seconds
        else:
            self._connection.deadline = None

    def _extend_deadline(self, arrived_bytes: int) -> None:
        if self._connection.deadline is not None:
            factory = self._connection.factory
            self._due_seconds += arrived_bytes / factory.limits.bytes_per_second
            self._connection.deadline = min(self._due_seconds, factory.seconds() + factory.limits.request_seconds)
