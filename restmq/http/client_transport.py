"""The transport of a client connection: what it can do without knowing requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import protocol

from restmq.errors import WireError
from restmq.http.limits import Limits
from restmq.http.quota import ClientQuota
from restmq.http.turns import Turns
from restmq.http.unread import UnreadResponses
from restmq.transport import hung_up, unsent_bytes

_LINGER_SECONDS = 2.0
#: Bytes that each client may make the server hold without being charged.
_FREE_BYTES = 16 * 1024
#: The rest of a response that has none.
NOTHING: deque[bytes] = deque(maxlen=0)


class HTTPFactory(Protocol):
    """The interface of a connection's factory; ``http.server`` implements it."""

    limits: Limits
    draining: bool
    seconds: Callable[[], float]
    turns: Turns
    received: ClientQuota
    unread: UnreadResponses

    def admit(self, connection: Any) -> WireError | None: ...
    def forget(self, connection: Any) -> None: ...
    def __call__(self, request: Any) -> Any: ...
    def refused(self, address: str, refusal: WireError) -> None: ...
    def render_refusal(self, refusal: WireError) -> bytes: ...


class ClientTransport(protocol.Protocol):  # type: ignore[misc]  # untyped
    """Pauses reading, writes responses, and closes.

    Attributes:
        deadline: the time (reactor seconds) of ``deadline_passed``; None for no deadline.
    """

    factory: HTTPFactory
    remote_ip = ""
    secure = False
    admitted = False
    deadline: float | None = None
    _reading_paused = False
    _streaming: Any = None
    _client_reads = True
    _rest = NOTHING
    _keeps_alive = True
    _charged_bytes = 0

    def charge(self, held_bytes: int) -> str:
        """Charges the client for the bytes that the server holds. Returns what is wrong if they are too many."""
        charged_bytes = max(0, held_bytes - _FREE_BYTES)
        more_bytes, self._charged_bytes = charged_bytes - self._charged_bytes, charged_bytes
        received = self.factory.received
        if more_bytes:
            received.change(self.remote_ip, more_bytes)
        if more_bytes > 0 and received.exceeded_in_total():
            return "the server holds too many bytes of requests; try again later."
        if more_bytes > 0 and received.exceeded_by(self.remote_ip):
            return "the server holds too many bytes of requests from your address; send fewer at a time."
        return ""

    def _pause_reading(self, paused: bool) -> None:
        if paused != self._reading_paused:
            self._reading_paused = paused
            if paused:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _disconnected_while_paused(self) -> bool:
        """Whether the client has disconnected while reading is paused, so that ``connectionLost`` comes only later."""
        return self._reading_paused and hung_up(self.transport)

    def write(self, data: bytes) -> None:
        """Sends a part of a response that continues."""
        self.transport.write(data)

    def _write_rest(self) -> None:
        """Writes the rest of a long response, as far as the client reads it."""
        while self._rest and self._client_reads:
            self.transport.write(self._rest.popleft())

    @property
    def unsent_bytes(self) -> int:
        """Bytes of responses that the system has not taken yet."""
        return unsent_bytes(self.transport) + sum(map(len, self._rest))

    def abort(self) -> None:
        """Cuts a response that cannot be completed, so that it does not look complete."""
        self.transport.abortConnection()

    def cut(self) -> None:
        """Closes at once, because the client does not read its response."""
        self.factory.refused(self.remote_ip, WireError(408, "the client does not read its response."))
        self.transport.abortConnection()

    def expect_end(self) -> None:
        """The connection ends when the rest is sent, which may not take long."""
        self.deadline = self.factory.seconds() + _LINGER_SECONDS

    def end_stream(self, last: bytes) -> None:
        """Sends a stream's last bytes and closes."""
        self._streaming = None
        self.transport.unregisterProducer()
        self.transport.write(last)
        self.expect_end()
        self.transport.loseConnection()

    def _close(self, linger: bool) -> None:
        """Closes when all is sent.

        Args:
            linger: keep reading and ignoring input until the client closes or the deadline passes. Closing with unread
                input would send a reset, which can destroy the last response on its way (RFC 9112, 9.6).
        """
        self.transport.unregisterProducer()
        if linger and not self.secure and hasattr(self.transport, "loseWriteConnection"):
            self._pause_reading(False)
            self.transport.loseWriteConnection()
        else:  # TLS has its own close, which waits for the client's
            self.transport.loseConnection()
