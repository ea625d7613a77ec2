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

LINGER_SECONDS = 2.0
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
        """A stream ends when its consumer has sent the rest, which may not take long."""
        self.deadline = self.factory.seconds() + LINGER_SECONDS

    def end_stream(self, last: bytes) -> None:
        """Sends a stream's last bytes and closes."""
        self._streaming = None
        self.transport.unregisterProducer()
        self.transport.write(last)
        self.deadline = self.factory.seconds() + LINGER_SECONDS
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
