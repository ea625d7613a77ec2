"""What the dashboard reads: the stream of events that feeds it, and who listens to a queue."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from restmq.auth import guard
from restmq.auth.guard import Credentials
from restmq.handlers.base import Handler
from restmq.handlers.declare import Answer, answers_json, declare
from restmq.http.request import ClientConnection
from restmq.http.response import EVENT_STREAM, chunk
from restmq.monitoring.dashboard_feed import DashboardFeed
from restmq.monitoring.listeners import TRANSPORTS
from restmq.schema.answers import NUMBER, QUEUE, STRING, WHOLE, array, described, obj

_RETRY_MS = 2000
_CONSUMER = obj(
    transport={"type": "string", "enum": list(TRANSPORTS)},
    address=STRING,
    age_seconds=WHOLE,
    lease_seconds=NUMBER,
    held=WHOLE,
    server=described(STRING, "The host and process that it is connected to."),
)


class EventsHandler(Handler):
    """All queues that the client may know of: a snapshot, then what changes; Server-Sent Events."""

    requires = {"GET": guard.CONSUME}

    @declare(answers={200: Answer("Events without end.", {"text/event-stream": {"type": "string"}})}, streams=True)
    async def get(self) -> None:
        """What the dashboard shows: all queues in numbers, then each second what has changed."""
        observatory = self.application.observatory
        observatory.check_capacity()
        if self.gone:
            return
        chunked = self.begin_stream(EVENT_STREAM)
        stream = WatcherStream(observatory, self.request.connection, chunked, self.credentials)
        self.request.connection.stream(stream)
        stream.write(b"retry: %d\n\n" % _RETRY_MS)
        observatory.come(stream)


@implementer(IPushProducer)
class WatcherStream:
    """A watcher on an HTTP response without end."""

    def __init__(
        self, observatory: DashboardFeed, connection: ClientConnection, chunked: bool, credentials: Credentials
    ) -> None:
        self.credentials = credentials
        self.paused = False
        self._observatory = observatory
        self._connection = connection
        self._chunked = chunked

    def write(self, event: bytes) -> None:
        self._connection.write(chunk(event) if self._chunked else event)

    def close(self) -> None:
        self._connection.end_stream(b"0\r\n\r\n" if self._chunked else b"")

    def on_connection_close(self) -> None:
        self._observatory.leave(self)

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        """The transport is gone; the connection's own end says so too."""


class ConsumersHandler(Handler):
    """``/dashboard/consumers/<queue>``: the queue's consumers on all daemons, with their addresses."""

    requires = {"GET": guard.INSPECT}

    @declare(
        answers={
            200: answers_json(
                "Consumers and waiters.", obj(queue=QUEUE, total=WHOLE, waiters=WHOLE, consumers=array(_CONSUMER))
            )
        }
    )
    async def get(self) -> None:
        """Who listens to the queue on all servers; at most 500 are shown."""
        found = await self.application.listening.consumers(self.queue_name)
        self.answer_json({"queue": self.queue_name, **found}, b"\r\n")
