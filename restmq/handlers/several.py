"""Several queues at once: ``/take`` takes from the first that has a message, ``/listen`` streams messages of all."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import cast

from restmq.auth import guard
from restmq.auth.guard import Access
from restmq.commands import EMPTY_QUEUE
from restmq.delivery.format import Format
from restmq.delivery.lines import TakeRequest
from restmq.delivery.several import SeveralQueues, Share
from restmq.handlers import parameters
from restmq.handlers.base import Handler
from restmq.handlers.declare import Answer, declare
from restmq.handlers.queues import LEASED_HEADERS, TAKEN_FIELDS, TAKEN_NOTES, QueueHandler
from restmq.handlers.streams import EVENTS, STREAM, StreamHandler, chunked, lines
from restmq.handlers.websocket import SOCKET, WebSocketHandler
from restmq.handlers.websocket_connection import Socket
from restmq.handlers.websocket_frames import text_frames
from restmq.http.response import EVENT_STREAM, JSON, around_chunk
from restmq.model import Message
from restmq.schema.answers import QUEUE, obj
from restmq.schema.encoding import RETRY, event, event_gap

_LISTENING = (parameters.SEVERAL_QUEUES, parameters.LEASE, parameters.PREFETCHED, parameters.LAST_ID_OF_SEVERAL)


class SeveralQueuesHandler(Handler):
    """A request that names its queues in the query."""

    requires = {"GET": guard.BY_FIELD}
    reads: Access = guard.CONSUME

    async def allowed_queues(self) -> tuple[str, ...]:
        """The queues that the request names, each once. Raises an error if the client lacks access to any of them."""
        queues: tuple[str, ...] = self.parameters["queue"]
        if not self.is_open(self.reads):
            await self.services.guard.check_each(self.credentials, self.reads, queues)
        return queues

    async def head(self) -> None:
        """Checks the same access if queues are named, but takes nothing."""
        if self.request.query_text("queue") is not None:
            self.parameters = self.operations["GET"].read(self.request)
            await self.allowed_queues()
        await super().head()


class TakeHandler(SeveralQueuesHandler, QueueHandler):
    """``/take``: the next message of the first queue that has one."""

    @declare(
        query=(parameters.SEVERAL_QUEUES, parameters.LEASE, parameters.WAIT, parameters.RAW, parameters.JSONP_CALLBACK),
        answers={
            200: Answer(
                "The message and its queue. With raw=1 or Accept: application/octet-stream the value itself, as at "
                "/q/{queue}.",
                {
                    JSON: obj(TAKEN_NOTES, queue=QUEUE, **TAKEN_FIELDS),
                    "*/*": {"type": "string", "format": "binary"},
                },
                LEASED_HEADERS,
            ),
            204: Answer("All of the queues are empty, also after wait. JSONP answers 200 and calls back."),
        },
    )
    async def get(self) -> None:
        """Takes or leases the next message of the first of these queues that has one, in their order."""
        self.refuse_accidents()
        raw, request, presence = self.wants_raw, TakeRequest(1, self.lease_ms), self.request.connection.presence
        queues, wait_seconds = await self.allowed_queues(), self.parameters["wait"] or 0
        queue, messages = await self.services.polls.take_first(queues, request, presence, wait_seconds)
        if not messages:
            self.answer_empty(204, EMPTY_QUEUE)
        elif raw:
            self.answer_raw(messages[0])
        else:
            shown = {"queue": queue, **messages[0].fields(with_count=True)}
            await self.answer_long_json(shown, b"\r\n", (queue, messages))


def _lines(callback: str | None, share: Share, _is_first: bool) -> Format:
    plain = lines(callback, share.queue)
    return chunked(plain) if share.connected.format.envelope is around_chunk else plain


def _events(share: Share, is_first: bool) -> Format:
    """The format of events. Their ids depend on all queues of a connection, so each connection has its own formats."""

    def render(message: Message) -> bytes:
        return event(message, share.queue, share.event_id(message))

    return replace(
        share.connected.format,
        message=render,
        gap=partial(event_gap, queue=share.queue),
        keepalive=EVENTS.keepalive if is_first else b"",
    )


class ListenHandler(SeveralQueuesHandler, StreamHandler):
    """``/listen``: the messages of several queues on one connection."""

    reads = guard.LISTEN_COMET

    @declare(
        query=(*_LISTENING, parameters.JSONP_CALLBACK),
        headers=(parameters.LAST_EVENT_ID_HEADER,),
        answers={200: STREAM},
        errors=(409,),
    )
    async def get(self) -> None:
        """Streams the messages of several queues, each with its queue; as events with ``Accept: text/event-stream``."""
        are_events = self.wanted_type == EVENT_STREAM
        format_of = _events if are_events else partial(_lines, self.callback)
        queues = await self.allowed_queues()
        last_id = self.parameters["Last-Event-ID"] or self.parameters["last_event_id"]
        core = self.services.core if are_events else None
        several = SeveralQueues(self.services.fanout, queues, last_id, format_of, core=core)
        await self.begin(self.wanted_type, EVENTS, RETRY if are_events else b"", several)


class ListenWebSocketHandler(SeveralQueuesHandler, WebSocketHandler):
    """``/ws/``: the handshake."""

    reads = guard.LISTEN_WEBSOCKET

    @declare(query=_LISTENING, answers={101: SOCKET}, errors=(409, 426))
    async def get(self) -> None:
        """Sends the messages of several queues as text frames, each with its queue. Runs JSON commands."""
        queues = await self.allowed_queues()
        several = SeveralQueues(
            self.services.fanout,
            queues,
            self.parameters["last_event_id"],
            lambda share, _: text_frames(cast(Socket, share.connected).window_bits, share.queue),
        )
        await self.listen(several, *queues)
