"""What the dashboard reads: the stream of events that feeds it, and who listens to a queue."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from restmq import access
from restmq.access import Credentials
from restmq.consumer import Consumer
from restmq.describe import Answer, answers_json, declare
from restmq.handlers.base import EVENT_STREAM, Handler, chunk
from restmq.http import HTTPConnection
from restmq.observe import TRANSPORTS, Observatory
from restmq.shapes import NUMBER, QUEUE, STRING, WHOLE, many, thing

CONSUMERS_SHOWN = 500
_RETRY_MS = 2000
_CONSUMER = thing(
    transport={"type": "string", "enum": list(TRANSPORTS)},
    address=STRING,
    age_seconds=WHOLE,
    lease_seconds=NUMBER,
    held=WHOLE,
)


class EventsHandler(Handler):
    """All queues that the client may know of: a snapshot, then what changes; Server-Sent Events."""

    access = {"GET": access.CONSUME}

    @declare(answers={200: Answer("Events without end.", {"text/event-stream": {"type": "string"}})}, streams=True)
    async def get(self) -> None:
        """What the dashboard shows: all queues in numbers, then each second what has changed."""
        observatory = self.application.observatory
        observatory.check_room()
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
        self, observatory: Observatory, connection: HTTPConnection, chunked: bool, credentials: Credentials
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
    """``/dashboard/consumers/<queue>``: the queue's consumers on this daemon, with their addresses."""

    access = {"GET": access.INSPECT}

    @declare(
        answers={
            200: answers_json(
                "Consumers and waiters.", thing(queue=QUEUE, total=WHOLE, waiters=WHOLE, consumers=many(_CONSUMER))
            )
        }
    )
    async def get(self) -> None:
        """Who listens to the queue on this server; at most 500 are shown."""
        fanout, polls = self.application.fanout, self.application.polls
        consumers = fanout.consumers(self.queue_name)
        now = fanout.seconds()
        self.answer_json(
            {
                "queue": self.queue_name,
                "total": len(consumers),
                "waiters": polls.count(self.queue_name),
                "consumers": [_shown(consumer, now) for consumer in consumers[:CONSUMERS_SHOWN]],
            },
            b"\r\n",
        )


def _shown(consumer: Consumer, now_seconds: float) -> dict[str, object]:
    return {
        "transport": consumer.format.transport,
        "address": consumer.address,
        "age_seconds": round(now_seconds - consumer.since_seconds),
        "lease_seconds": consumer.lease_ms / 1000,
        "held": len(consumer.held),
    }
