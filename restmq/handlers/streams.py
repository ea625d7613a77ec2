"""Endless answers with a queue's messages: comet at ``/c/<queue>``, events at ``/sse/<queue>``, ``/tap/<queue>``."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from restmq.auth import guard
from restmq.delivery.consumer import PREFETCH, CloseReason, ConsumerOwner
from restmq.delivery.format import Format
from restmq.delivery.several import SeveralQueues
from restmq.delivery.transport_consumer import TransportConsumer
from restmq.errors import Conflict, StoreUnavailable
from restmq.handlers import parameters
from restmq.handlers.base import Handler
from restmq.handlers.declare import answers_stream, declare
from restmq.http.request import ClientConnection
from restmq.http.response import EVENT_STREAM, JAVASCRIPT, TEXT, around_chunk
from restmq.model import LEASE_SECONDS_DEFAULT, Policy
from restmq.schema.encoding import (
    RETRY,
    comet_gap,
    comet_line,
    event,
    event_gap,
    event_text,
    gap_notice,
    jsonp,
    script_text,
    websocket_text,
)

STREAM = answers_stream("Endless messages.", TEXT, JAVASCRIPT, EVENT_STREAM)

#: Without an empty line: at one, some clients yield an event although none has arrived.
EVENTS = Format(event, event_gap, keepalive=b":\n", transport="sse", body=event_text)


@lru_cache(maxsize=4096)
def lines(callback: str | None, queue: str = "") -> Format:
    """The format of comet lines, or of JSONP calls; the same object for the same arguments.

    Args:
        queue: is named with each message, for a consumer of several queues.
    """
    if callback is None:
        return Format(partial(comet_line, queue=queue), partial(comet_gap, queue=queue))
    return Format(
        lambda message: jsonp(callback, websocket_text(message, queue)),
        lambda last_key: jsonp(callback, gap_notice(last_key, queue)),
        body=script_text,
    )


@lru_cache(maxsize=1024)
def chunked(plain: Format) -> Format:
    """A format in chunks of HTTP/1.1; the same one for the same format."""
    return replace(plain, envelope=around_chunk)


class Stream(TransportConsumer):
    """A consumer on an endless HTTP response. The request's other objects are released.

    A stream that is cut lacks the last chunk, so it never looks complete.
    """

    __slots__ = ("_connection",)

    access = guard.LISTEN_COMET

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @property
    def outlet(self) -> Any:
        return self._connection.transport

    def close(self, reason: CloseReason) -> None:
        if reason is CloseReason.TOO_SLOW:
            self._connection.abort()
        else:
            self._connection.expect_end()
            self.finish(
                partial(self._connection.end_stream, b"0\r\n\r\n" if self.format.envelope is around_chunk else b"")
            )

    def on_connection_close(self) -> None:
        self.detach()


class ConsumerHandler(Handler):
    """The base of all routes for live consumers."""

    async def leasing(self, *queues: str) -> tuple[int, int]:
        """The requested lease in ms (0 for none), and the maximum number of unacked messages of each queue.

        Raises:
            Conflict: a lease was requested on a broadcast queue, or a queue is a FIFO queue.
            StoreUnavailable: the server is stopping.
        """
        lease_ms, prefetch = self.lease_ms, self.parameters["prefetch"] or PREFETCH
        core = self.services.core
        for queue in queues:
            if await core.queue_is_fifo(queue):
                raise Conflict("a FIFO queue has no live consumers; lease its messages with GET /q/QUEUE?lease=30.")
        if lease_ms is None:
            lease_ms, prefetch = 0, PREFETCH
        else:
            for queue in queues:
                if await core.queue_policy_get(queue) is not Policy.ROUNDROBIN:
                    raise Conflict("broadcast messages can't be leased; set the queue's policy to roundrobin first.")
        if lease_ms == 0 and self.lease_ms is not None:
            settings = [(await core.queue_settings_get(queue)).get("lease") for queue in queues]
            lease_ms = min(int(seconds or LEASE_SECONDS_DEFAULT) for seconds in settings) * 1000
        self.refuse_when_stopping()
        return lease_ms, prefetch

    def refuse_when_stopping(self) -> None:
        """Raises StoreUnavailable if the server is stopping: a client that reconnects must reach another one."""
        if self.services.draining:
            raise StoreUnavailable("the server is stopping; try again in a moment.")


class StreamHandler(ConsumerHandler):
    """The base of comet and SSE: the head at once, then the queue's messages until the client disconnects."""

    requires = {"GET": guard.LISTEN_COMET}

    async def begin(
        self, content_type: str, wire_format: Format, first: bytes = b"", several: SeveralQueues | None = None
    ) -> None:
        self.refuse_accidents()
        queues = several.queues if several else (self.queue_name,)
        lease_ms, prefetch = await self.leasing(*queues)
        if not self.gone:
            owner = several or self.services.fanout
            self._connect(owner, queues[0], content_type, wire_format, first, lease_ms=lease_ms, prefetch=prefetch)

    def _connect(
        self,
        owner: ConsumerOwner,
        queue: str,
        content_type: str,
        wire_format: Format,
        first: bytes,
        **leasing: int,
    ) -> None:
        """Begins the response, and connects a consumer that writes to it."""
        if self.begin_stream(content_type):
            wire_format = chunked(wire_format)
        stream = Stream(self.request.connection)
        stream.attach(fanout=owner, queue=queue, wire_format=wire_format, credentials=self.credentials, **leasing)
        self.request.connection.stream(stream)
        if first:
            stream.write(wire_format.wrap(first))
        owner.connect(queue, stream, self.parameters["Last-Event-ID"] or self.parameters["last_event_id"])

    async def begin_events(self) -> None:
        await self.begin(EVENT_STREAM, EVENTS, first=RETRY)

    @property
    def wanted_type(self) -> str:
        """JavaScript for JSONP; events if the client accepts them; otherwise lines of text."""
        if self.callback is not None:
            return JAVASCRIPT
        return EVENT_STREAM if self.request.prefers(EVENT_STREAM, TEXT) else TEXT


class CometHandler(StreamHandler):
    """``/c/<queue>``: each message is a line of JSON, or an event if the client accepts events."""

    @declare(
        query=(*parameters.LISTENING, parameters.JSONP_CALLBACK),
        headers=(parameters.LAST_EVENT_ID_HEADER,),
        answers={200: STREAM},
        errors=(409,),
    )
    async def get(self) -> None:
        """Streams messages (comet), each a line of JSON or a JSONP call; events with ``Accept: text/event-stream``."""
        if self.wanted_type == EVENT_STREAM:
            await self.begin_events()
        else:
            await self.begin(self.wanted_type, lines(self.callback))


class EventHandler(StreamHandler):
    """``/sse/<queue>``: Server-Sent Events (HTML standard, 9.2)."""

    @declare(
        query=parameters.LISTENING,
        headers=(parameters.LAST_EVENT_ID_HEADER,),
        answers={200: answers_stream("Endless messages.", EVENT_STREAM)},
        errors=(409,),
    )
    async def get(self) -> None:
        """Streams messages as Server-Sent Events."""
        await self.begin_events()


class TapHandler(StreamHandler):
    """``/tap/<queue>``: copies of messages; see ``delivery/taps.py``."""

    @declare(
        query=(parameters.LAST_ID_OF_TAP,),
        headers=(parameters.LAST_EVENT_ID_HEADER,),
        answers={200: answers_stream("Endless messages.", TEXT, EVENT_STREAM)},
    )
    async def get(self) -> None:
        """Streams a copy of each message that is put into the queue from now on, and takes none; lines or events."""
        async with self.services.taps.opened(self.queue_name):
            self.refuse_when_stopping()
            if self.gone:
                return
            if self.request.prefers(EVENT_STREAM, TEXT):
                self._connect(self.services.taps, self.queue_name, EVENT_STREAM, EVENTS, RETRY)
            else:
                self._connect(self.services.taps, self.queue_name, TEXT, lines(None), b"")
