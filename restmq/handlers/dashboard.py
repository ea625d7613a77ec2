"""The dashboard's data: its stream of events, and the list of a queue's consumers."""

from __future__ import annotations

import msgspec
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from restmq.auth import guard
from restmq.auth.guard import Credentials
from restmq.handlers.base import Handler
from restmq.handlers.declare import answers_json, answers_stream, declare
from restmq.http.request import ClientConnection
from restmq.http.response import EVENT_STREAM, chunk
from restmq.monitoring.dashboard_feed import DashboardFeed
from restmq.monitoring.listeners import TRANSPORTS
from restmq.monitoring.samples import LastHour
from restmq.schema.answers import NUMBER, QUEUE, STRING, WHOLE, array, by_queue, described, obj
from restmq.schema.encoding import RETRY

_CONSUMER = obj(
    transport={"type": "string", "enum": list(TRANSPORTS)},
    address=STRING,
    age_seconds=WHOLE,
    lease_seconds=NUMBER,
    held=WHOLE,
    server=described(STRING, "Host and process that the consumer is connected to."),
)
_POLL = obj(
    address=STRING,
    age_seconds=WHOLE,
    server=described(STRING, "Host and process that the client is connected to."),
)
_SAMPLES = obj(
    samples=array(
        obj(
            time=described(WHOLE, "Milliseconds since 1970."),
            ready=described(WHOLE, "Number of waiting messages."),
            **{"in": described(WHOLE, "Messages added so far."), "out": described(WHOLE, "Messages gone so far.")},
        )
    ),
    waiting=described(
        by_queue(array(WHOLE)), "Waiting messages of each queue in the last samples, up to the last one."
    ),
    taken=described(by_queue(WHOLE), "Time of the last of these samples before which clients took messages."),
)
_TEXTS = {"type": "object", "additionalProperties": STRING}
_GROUPS = obj(
    free=described(WHOLE, "Number of groups that can be served."),
    locked=described(WHOLE, "Number of groups with leased messages."),
    shown=described(array(obj(group=STRING, leased=WHOLE)), "Some of the locked groups."),
)


class EventsHandler(Handler):
    """``/dashboard/events``: a snapshot of all queues that the client may see, then the changes."""

    requires = {"GET": guard.CONSUME}

    @declare(answers={200: answers_stream("Endless events.", EVENT_STREAM)})
    async def get(self) -> None:
        """Streams the counters of all queues, then each second those that have changed."""
        feed = self.services.dashboard_feed
        feed.check_capacity()
        if self.gone:
            return
        chunked = self.begin_stream(EVENT_STREAM)
        stream = WatcherStream(feed, self.request.connection, chunked, self.credentials)
        self.request.connection.stream(stream)
        stream.write(RETRY)
        feed.add_watcher(stream)


@implementer(IPushProducer)
class WatcherStream:
    """A watcher of the dashboard, on an endless HTTP response."""

    def __init__(
        self, feed: DashboardFeed, connection: ClientConnection, chunked: bool, credentials: Credentials
    ) -> None:
        self.credentials = credentials
        self.paused = False
        self._feed = feed
        self._connection = connection
        self._chunked = chunked

    def write(self, event: bytes) -> None:
        self._connection.write(chunk(event) if self._chunked else event)

    def close(self) -> None:
        self._connection.end_stream(b"0\r\n\r\n" if self._chunked else b"")

    def on_connection_close(self) -> None:
        self._feed.remove_watcher(self)

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        """Does nothing: the end of the connection is reported to ``on_connection_close``."""


class _SamplesHandler(Handler):
    """Samples of the last hour."""

    requires = {"GET": guard.CONSUME}

    def answer_last_hour(self, found: LastHour) -> None:
        self.answer_json(msgspec.to_builtins(found), b"\r\n")


class SamplesHandler(_SamplesHandler):
    """``/dashboard/samples``: the sum of all queues that the client may see."""

    @declare(answers={200: answers_json("The samples, the oldest first.", _SAMPLES)})
    async def get(self) -> None:
        """Shows the last hour of all queues together, every ten seconds. There may be gaps.

        A token for some of the queues gets their sum. If one of these is not among the 1,000 busiest, it gets nothing.
        """
        queues = None if self.credentials.token is None else await self.services.visible_queues(self.credentials)
        self.answer_last_hour(await self.services.samples.read(queues))


class QueueSamplesHandler(_SamplesHandler):
    """``/dashboard/samples/<queue>``: one queue."""

    @declare(answers={200: answers_json("The samples, the oldest first.", _SAMPLES)})
    async def get(self) -> None:
        """Shows the last hour of one of the 1,000 busiest queues, every ten seconds. There may be gaps."""
        self.answer_last_hour(await self.services.samples.read([self.queue_name]))


class ConsumersHandler(Handler):
    """``/dashboard/consumers/<queue>``: the queue's consumers on all daemons."""

    requires = {"GET": guard.INSPECT}

    @declare(
        answers={
            200: answers_json(
                "Consumers, and clients in a long poll, with the number of each (total, waiters).",
                obj(queue=QUEUE, total=WHOLE, waiters=WHOLE, consumers=array(_CONSUMER), polls=array(_POLL)),
            )
        }
    )
    async def get(self) -> None:
        """Lists the queue's consumers and long polls on all servers, up to 500 of each, with their addresses."""
        found = await self.services.listeners.consumers(self.queue_name)
        self.answer_json({"queue": self.queue_name, **msgspec.to_builtins(found)}, b"\r\n")


class SqsQueueHandler(Handler):
    """``/dashboard/sqs/<queue>``: what SQS clients have set, and the groups of a FIFO queue."""

    requires = {"GET": guard.CONSUME}

    @declare(
        answers={
            200: answers_json(
                "Attributes and tags; groups, if it is a FIFO queue.",
                obj({"groups": _GROUPS}, queue=QUEUE, attributes=_TEXTS, tags=_TEXTS),
            )
        }
    )
    async def get(self) -> None:
        """Shows a queue's attributes and tags of SQS, and the groups of a FIFO queue."""
        core = self.services.core
        found, groups = await core.sqs_get(self.queue_name), await core.queue_groups(self.queue_name)
        answer = {
            "queue": self.queue_name,
            "attributes": found.attributes if found else {},
            "tags": found.tags if found else {},
        }
        if groups:
            shown = [{"group": group, "leased": leased} for group, leased in groups.shown]
            answer["groups"] = {"free": groups.free, "locked": groups.locked, "shown": shown}
        self.answer_json(answer, b"\r\n")
