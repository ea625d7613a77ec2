"""Streams that stay open: comet at ``/c/<queue>``, Server-Sent Events at ``/sse/<queue>``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from restmq.auth import guard
from restmq.delivery.consumer import PREFETCH, CloseReason, Format, TransportConsumer
from restmq.errors import Conflict, StoreUnavailable
from restmq.handlers.base import Handler
from restmq.handlers.declare import Answer, declare
from restmq.handlers.parameters import CALLBACK, LAST_EVENT_ID, LAST_EVENT_ID_HEADER, LEASE, PREFETCHED
from restmq.http.request import ClientConnection
from restmq.http.response import EVENT_STREAM, JAVASCRIPT, TEXT, chunk
from restmq.model import LEASE_SECONDS_DEFAULT, Policy
from restmq.schema.encoding import comet_gap, comet_line, event, event_gap, gap_notice, jsonp, websocket_text
from restmq.transport import send_at_once

RETRY_MS = 2000
LISTENING = (LEASE, PREFETCHED, LAST_EVENT_ID)

_ENDLESS = {"type": "string"}
STREAM = Answer(
    "Messages without end.",
    {"text/plain": _ENDLESS, "application/javascript": _ENDLESS, "text/event-stream": _ENDLESS},
)
EVENT_ANSWER = Answer("Messages without end.", {"text/event-stream": _ENDLESS})

COMET = Format(comet_line, comet_gap)
EVENTS = Format(event, event_gap, keepalive=b":\n\n", transport="sse")


@lru_cache(maxsize=1024)
def jsonp_lines(callback: str) -> Format:
    """A comet stream of calls; the same format for the same callback."""
    return Format(
        lambda message: jsonp(callback, websocket_text(message)),
        lambda last_key: jsonp(callback, gap_notice(last_key)),
    )


class Stream(TransportConsumer):
    """A consumer on an HTTP response without end; all that stays in memory of its request.

    A stream that is cut lacks the end of its chunked body, so it never looks complete.
    """

    __slots__ = ("_chunked", "_connection")

    access = guard.LISTEN_COMET

    def __init__(self, connection: ClientConnection, chunked: bool) -> None:
        self._connection = connection
        self._chunked = chunked

    @property
    def outlet(self) -> Any:
        return self._connection.transport

    def transmit(self, frames: bytes) -> None:
        send_at_once(self._connection.transport, chunk(frames) if self._chunked else frames)

    def close(self, reason: CloseReason) -> None:
        if reason is CloseReason.TOO_SLOW:
            self._connection.abort()
        else:
            self._connection.end_stream(b"0\r\n\r\n" if self._chunked else b"")

    def on_connection_close(self) -> None:
        self.detach()


class ConsumerHandler(Handler):
    """What all ways to listen share."""

    async def leasing(self, queue: str) -> tuple[int, int]:
        """The lease in ms that the client asks for, 0 for none, and how many messages it may hold unacked.

        Raises:
            Conflict: a lease is asked for on a queue that broadcasts.
            StoreUnavailable: the server is going away.
        """
        lease_ms, prefetch = self.lease_ms, self.given["prefetch"] or PREFETCH
        core = self.application.core
        if lease_ms is None:
            lease_ms, prefetch = 0, PREFETCH
        elif await core.queue_policy_get(queue) is not Policy.ROUNDROBIN:
            raise Conflict("a broadcast can't be leased; set the queue's policy to roundrobin first.")
        elif not lease_ms:
            lease_ms = int((await core.queue_settings_get(queue)).get("lease", LEASE_SECONDS_DEFAULT)) * 1000
        if self.application.draining:
            raise StoreUnavailable("the server is going away; try again in a moment.")
        return lease_ms, prefetch


class StreamHandler(ConsumerHandler):
    """What comet and SSE share: headers at once, then the queue's messages for as long as the client stays."""

    requires = {"GET": guard.LISTEN_COMET}

    async def begin(self, content_type: str, wire_format: Format, first: bytes = b"") -> None:
        queue = self.queue_name
        lease_ms, prefetch = await self.leasing(queue)
        if self.gone:
            return
        last_key = self.given["Last-Event-ID"] or self.given["last_event_id"]
        stream = Stream(self.request.connection, self.begin_stream(content_type))
        stream.attach(
            fanout=self.application.fanout,
            queue=queue,
            wire_format=wire_format,
            credentials=self.credentials,
            lease_ms=lease_ms,
            prefetch=prefetch,
        )
        self.request.connection.stream(stream)
        if first:
            stream.write(first)
        self.application.fanout.connect(queue, stream, last_key)

    async def begin_events(self) -> None:
        await self.begin(EVENT_STREAM, EVENTS, first=b"retry: %d\n\n" % RETRY_MS)


class CometHandler(StreamHandler):
    """A line of JSON a message; as events if the client accepts them."""

    @declare(
        query=(*LISTENING, CALLBACK),
        headers=(LAST_EVENT_ID_HEADER,),
        answers={200: STREAM},
        errors=(409,),
        streams=True,
    )
    async def get(self) -> None:
        """The queue's messages as they come (comet): each a line of JSON, a call, or an event if one accepts it."""
        callback = self.callback
        if callback is not None:
            await self.begin(JAVASCRIPT, jsonp_lines(callback))
        elif self.request.accepts("text/event-stream"):
            await self.begin_events()
        else:
            await self.begin(TEXT, COMET)


class EventHandler(StreamHandler):
    """Server-Sent Events, as the HTML standard has them (9.2)."""

    @declare(query=LISTENING, headers=(LAST_EVENT_ID_HEADER,), answers={200: EVENT_ANSWER}, errors=(409,), streams=True)
    async def get(self) -> None:
        """The queue's messages as they come, as Server-Sent Events."""
        await self.begin_events()
