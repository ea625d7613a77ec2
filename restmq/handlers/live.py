"""Streams that stay open: comet at ``/c/<queue>``, Server-Sent Events at ``/sse/<queue>``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from restmq import access
from restmq.fanout import CloseReason, Fanout, Render
from restmq.handlers.base import JAVASCRIPT, TEXT, Handler, head
from restmq.http import HTTPConnection
from restmq.model import Message
from restmq.render import comet_line, event, jsonp, websocket_text

log = Logger()

RETRY_MS = 2000
EVENT_STREAM = "text/event-stream; charset=utf-8"
KEEPALIVE = b":\n\n"


@lru_cache(maxsize=1024)
def jsonp_line(callback: str) -> Render:
    """Renders for a comet stream with this callback; the same function for the same callback, so work is shared."""
    return lambda message: jsonp(callback, websocket_text(message))


@implementer(IPushProducer)
class Stream:
    """A consumer on an HTTP response without end; all that stays in memory of its request.

    While the client reads too slowly the transport pauses us. What is written meanwhile is counted, and a consumer that
    is more than ``unsent_bytes_max`` behind is dropped. The cut is visible to it: the chunked body lacks its end.
    """

    __slots__ = ("_chunked", "_connection", "_fanout", "_paused", "_queue", "_unsent_bytes", "keepalive", "render")

    def __init__(self, fanout: Fanout, queue: str, render: Callable[[Message], bytes], keepalive: bytes = b"") -> None:
        self.render = render
        self.keepalive = keepalive
        self._fanout = fanout
        self._queue = queue
        self._paused = False
        self._unsent_bytes = 0

    def begin(self, connection: HTTPConnection, chunked: bool) -> None:
        self._connection = connection
        self._chunked = chunked
        connection.stream(self)

    def write(self, frames: bytes) -> None:
        if self._chunked:
            frames = b"%x\r\n%b\r\n" % (len(frames), frames)
        if self._paused:
            self._unsent_bytes += len(frames)
            if self._unsent_bytes > self._fanout.unsent_bytes_max:
                self._fanout.drop(self._queue, self)
                return
        self._connection.write(frames)

    def is_ready(self) -> bool:
        return not self._paused

    def close(self, reason: CloseReason) -> None:
        if reason is CloseReason.TOO_SLOW:
            self._connection.abort()
        else:
            self._connection.end_stream(b"0\r\n\r\n" if self._chunked else b"")

    def on_connection_close(self) -> None:
        self._fanout.leave(self._queue, self)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused, self._unsent_bytes = False, 0
        self._fanout.ready(self._queue)

    def stopProducing(self) -> None:
        """The transport is gone; on_connection_close says so too."""


class StreamHandler(Handler):
    """What comet and SSE share: headers at once, then the queue's messages for as long as the client stays."""

    access = {"GET": access.LISTEN_COMET}

    def begin(self, content_type: str, render: Callable[[Message], bytes], first: bytes = b"", **more: Any) -> None:
        chunked = self.request.version == "HTTP/1.1"
        fields = (
            self._extra_headers
            + (
                f"Content-Type: {content_type}\r\n"
                "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\n"
            )
            + ("Transfer-Encoding: chunked\r\n" if chunked else "Connection: close\r\n")
        )
        self._streaming = True
        self.request.connection.write(head(200, self.request.version, fields))
        stream = Stream(self.application.fanout, self.queue_name, render, **more)
        stream.begin(self.request.connection, chunked)
        if first:
            stream.write(first)
        self.application.fanout.join(self.queue_name, stream)

    def begin_events(self) -> None:
        self.begin(EVENT_STREAM, event, first=b"retry: %d\n\n" % RETRY_MS, keepalive=KEEPALIVE)


class CometHandler(StreamHandler):
    """A line of JSON a message; as events if the client accepts them."""

    async def get(self) -> None:
        self.queue_name  # noqa: B018  refused here, before the stream begins
        callback = self.callback()
        if callback is not None:
            self.begin(JAVASCRIPT, jsonp_line(callback))
        elif self.request.accepts("text/event-stream"):
            self.begin_events()
        else:
            self.begin(TEXT, comet_line)


class EventHandler(StreamHandler):
    """Server-Sent Events, as the HTML standard has them (9.2)."""

    async def get(self) -> None:
        self.queue_name  # noqa: B018
        self.begin_events()
