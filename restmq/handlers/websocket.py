"""``/ws/<queue>``: a queue's messages over WebSocket (RFC 6455), and JSON commands as text frames.

The handler checks access in plain HTTP, then hands the connection to autobahn, which does the handshake.
"""

from __future__ import annotations

from functools import cached_property

from restmq.auth import guard
from restmq.auth.guard import Credentials, cookie_credentials
from restmq.delivery.consumer import PREFETCH, ConsumerOwner
from restmq.errors import InvalidInput
from restmq.handlers import parameters
from restmq.handlers.commands import command_context
from restmq.handlers.declare import answers_stream, declare
from restmq.handlers.error_status import UpgradeRequired
from restmq.handlers.streams import ConsumerHandler
from restmq.handlers.websocket_frames import text_frames
from restmq.schema.metadata import as_utf8

SOCKET = answers_stream("WebSocket from now on.")


class WebSocketHandler(ConsumerHandler):
    """``/ws/<queue>``: the handshake."""

    requires = {"GET": guard.LISTEN_WEBSOCKET}

    @declare(query=(*parameters.LISTENING, parameters.TAP), answers={101: SOCKET}, errors=(409, 426))
    async def get(self) -> None:
        """Sends messages as text frames (RFC 6455). Runs JSON commands in text frames; echoes other frames."""
        if self.parameters["tap"] != "1":
            await self.listen(self.services.fanout, self.queue_name)
            return
        self.refuse_plain_http()
        if self.lease_ms is not None:
            raise InvalidInput("a tap takes no messages, so it can't lease them; leave out tap or lease.")
        async with self.services.taps.opened(self.queue_name):
            self.refuse_when_stopping()
            self.shake_hands(self.services.taps, self.queue_name)

    def refuse_plain_http(self) -> None:
        if not self.request.upgrade:
            raise UpgradeRequired("this path speaks WebSocket; use /c/<queue> or /sse/<queue> for plain HTTP.")

    async def listen(self, owner: ConsumerOwner, *queues: str) -> None:
        self.refuse_plain_http()
        lease_ms, prefetch = await self.leasing(*queues)
        self.shake_hands(owner, queues[0], lease_ms, prefetch)

    def shake_hands(self, owner: ConsumerOwner, queue: str, lease_ms: int = 0, prefetch: int = PREFETCH) -> None:
        if self.gone:
            return
        self._finished = True
        self.services.traffic.answered(self.request, 101)
        socket = self.services.websockets.buildProtocol(None)
        last_key = self.parameters["last_event_id"]
        socket.prepare(command_context(self), last_key, self.request.connection)
        socket.attach(
            fanout=owner,
            queue=queue,
            wire_format=text_frames(),
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
