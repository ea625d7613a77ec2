"""``/q/<queue>`` and its old form ``/``: put messages in, take or lease them, purge; and the list of queues."""

from __future__ import annotations

import re
from itertools import islice
from urllib.parse import quote

import orjson

from restmq.auth import guard
from restmq.auth.guard import Access
from restmq.delivery.longpoll import TakeRequest
from restmq.dispatch import EMPTY_QUEUE
from restmq.errors import InvalidInput, WireError
from restmq.handlers.base import Handler
from restmq.handlers.declare import Answer, Body, answers_json, declare
from restmq.handlers.parameters import (
    CALLBACK,
    COUNT,
    DELAY,
    FIRST,
    IDEMPOTENCY,
    LEASE,
    MSG,
    QUEUE,
    QUEUE_NEEDED,
    QUEUES,
    TTL,
    VALUE,
    WAIT,
)
from restmq.http.response import JSON
from restmq.model import BATCH_MAX, Message
from restmq.schema.answers import KEY, STRING, WHOLE, ZERO_OR_ONE, any_of, array, obj, ref
from restmq.schema.answers import QUEUE as QUEUE_SHAPE
from restmq.schema.encoding import to_json

OCTETS = "application/octet-stream"
NDJSON = "application/x-ndjson"

_NO_PARAMETERS = (0.0, 0.0, b"")
_ONE_FOR_GOOD = TakeRequest()
#: What RFC 3986 (3.3) lets stand in a path; a key in a header is written as it would be in /m/<key>.
_PATH_SAFE = "/:@!$&'()*+,;=-._~"
#: A line of JSON from its first character on; lines of blanks, of which there may be millions, are passed over in C.
_LINE = re.compile(rb"[^ \t\r\n][^\n]*")

_BINARY = {"type": "string", "format": "binary", "minLength": 1}
_PAGE = {"text/html": {"type": "string"}}
_LEASED_HEADERS = {
    "X-RestMQ-Key": "Of bytes: the message's key, percent-encoded.",
    "X-RestMQ-Receipt": "Of leased bytes: the receipt.",
    "X-RestMQ-Count": "Of leased bytes: how often the message was delivered.",
}
#: A message that is shown as taken; its count is of looks, or of deliveries if it is leased.
_TAKEN = {"count": WHOLE, "key": KEY, "value": STRING}
_TAKEN_MORE = {"encoding": STRING, "receipt": STRING, "dead_letter": ref("Origin")}

TAKING = (COUNT, LEASE, WAIT, CALLBACK)
TAKEN = {
    200: Answer(
        "The message; an array of messages where a count was given; its own bytes where they are accepted.",
        {
            JSON: any_of(obj(_TAKEN_MORE, **_TAKEN), array(obj(_TAKEN_MORE, **_TAKEN))),
            OCTETS: {"type": "string", "format": "binary"},
        },
        _LEASED_HEADERS,
    )
}
ADDING = (VALUE, MSG, TTL, DELAY, CALLBACK)
ADDED = {
    200: Answer(
        "The message's key in a line; the keys of many, in order.",
        {"text/plain": STRING, JSON: obj(queue=QUEUE_SHAPE, keys=array(KEY))},
    )
}
BODIES = (
    Body("*/*", _BINARY, "Any other type: the body itself is the message, byte for byte."),
    Body(
        NDJSON, {"type": "string"}, f"A message a line, each a JSON value, up to {BATCH_MAX}: all are added, or none."
    ),
)


class QueueHandler(Handler):
    """One queue."""

    requires = {"GET": guard.CONSUME, "POST": guard.PRODUCE, "DELETE": guard.PURGE}

    @declare(
        query=TAKING,
        answers=TAKEN | {204: Answer("The queue is empty, and was while it was waited; JSONP calls back.")},
    )
    async def get(self) -> None:
        """Takes what comes next for good (at-most-once), or with ``lease`` under a lease (at-least-once)."""
        await self.take(self.queue_name, status_if_empty=204)

    async def take(self, queue: str, status_if_empty: int) -> None:
        octets = "accept" in self.request.headers and self.request.accepts(OCTETS)
        count, wait_seconds = self.given["count"], self.given["wait"] or 0
        many = count is not None
        if many and octets:
            raise InvalidInput("a message's own bytes come one message at a time; leave 'count' out.")
        lease_ms = self.lease_ms
        wish = TakeRequest(count or 1, lease_ms) if many or lease_ms is not None else _ONE_FOR_GOOD
        messages = await self.application.polls.take(queue, wish, self.request.connection.presence, wait_seconds)
        if not messages:
            self._answer_empty(status_if_empty, [] if many else EMPTY_QUEUE)
        elif many:
            self.answer_json([{"count": message.count, **message.fields()} for message in messages], b"\r\n")
        elif octets:
            self._answer_octets(messages[0])
        else:
            self.answer_json({**messages[0].fields(), "count": messages[0].count}, b"\r\n")

    def _answer_empty(self, status: int, as_json: object) -> None:
        """That a queue is empty is no error at /q/, so it must call back; a script element calls nothing with a 204."""
        if status != 204:
            self.answer(to_json(EMPTY_QUEUE), JSON, status=status)
        elif self.callback is not None:
            self.answer_json(as_json)
        else:
            self.answer(b"", None, status=204)

    def _answer_octets(self, message: Message) -> None:
        self._add_header("X-RestMQ-Key", quote(message.key, safe=_PATH_SAFE))
        if message.receipt:
            self._add_header("X-RestMQ-Receipt", message.receipt)
            self._add_header("X-RestMQ-Count", str(message.count))
        self.answer(message.value, OCTETS)

    @declare(
        query=(TTL, DELAY, CALLBACK),
        form=ADDING,
        any_of=("value", "msg"),
        headers=(IDEMPOTENCY,),
        bodies=BODIES,
        answers=ADDED,
        errors=(409, 413),
    )
    async def post(self) -> None:
        """Adds a message, or many in one step; answered when they are safe."""
        await self.add(self.queue_name)

    async def add(self, queue: str) -> None:
        core = self.application.core
        if self.request.media_type == NDJSON:
            keys = await core.queue_add_many(queue, _lines(self.request.body), *self._parameters())
            self.answer_json({"queue": queue, "keys": keys}, b"\r\n")
            return
        value = self._value()
        parameters = self._parameters()
        if parameters == _NO_PARAMETERS:
            self.answer_text(await core.queue_add(queue, value))
        else:
            self.answer_text((await core.queue_add_many(queue, [value], *parameters))[0])

    def _value(self) -> bytes:
        """The form's field, or the body itself if it is no form."""
        is_form = self.request.is_form or self.request.media_type == "multipart/form-data"
        if self.request.body and not is_form:
            return self.request.body
        value: bytes | None = self.given["msg"] if self.given["value"] is None else self.given["value"]
        return value or b""

    def _parameters(self) -> tuple[float, float, bytes]:
        """Time to live, delay (both in seconds, 0 for none) and idempotency key (empty for none)."""
        given = self.given
        return given["ttl"] or 0.0, given["delay"] or 0.0, given["Idempotency-Key"] or b""

    @declare(
        query=(CALLBACK,),
        answers={200: answers_json("1 if there was anything to purge.", obj(queue=QUEUE_SHAPE, status=ZERO_OR_ONE))},
    )
    async def delete(self) -> None:
        """Purges the queue and closes its connected consumers, on every daemon."""
        purged = await self.application.core.queue_purge(self.queue_name, close_consumers=True)
        self.answer_json({"queue": self.queue_name, "status": int(purged > 0)}, b"\r\n")


def _lines(body: bytes) -> list[bytes]:
    """The messages of a body of JSON lines: of a string its own text, of any other value the line's bytes."""
    lines = list(islice(_LINE.finditer(body), BATCH_MAX + 1))
    if len(lines) > BATCH_MAX:
        raise WireError(413, f"more than {BATCH_MAX} lines; send them in several requests.")
    values: list[bytes] = []
    for line in lines:
        text = line[0].rstrip(b" \t\r")
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            start = line.start()
            number, column = body.count(b"\n", 0, start) + 1, start - body.rfind(b"\n", 0, start) - 1 + error.colno
            where = f"line {number}, column {column}"
            raise InvalidInput(f"the body is not valid JSON at {where}: {error.msg}. Nothing was added.") from None
        values.append(value.encode() if isinstance(value, str) else text)
    if not values:
        raise InvalidInput("the body has no lines; send a JSON value a line.")
    return values


class RootHandler(QueueHandler):
    """``/``: the dashboard, or the oldest form of ``/q/<queue>`` with the queue as a field."""

    # A form is read only for those who may add to some queue; to which ones their token is for, is checked then.
    requires = {"GET": guard.BY_FIELD, "POST": guard.PRODUCE}

    @declare(
        query=(QUEUE, *TAKING),
        answers=TAKEN
        | {
            302: Answer(
                "No queue is named: to the dashboard.", {"text/plain": {"type": "string"}}, {"Location": "Where it is."}
            ),
            404: answers_json("The queue is empty, and was while it was waited.", ref("Empty")),
        },
    )
    async def get(self) -> None:
        """Takes a message as ``/q/{queue}`` does."""
        if await self._names_queue():
            await self.take(self.given["queue"], status_if_empty=404)

    async def head(self) -> None:
        """The same, but takes nothing."""
        self.given = self.operations["GET"].read(self.request)
        if await self._names_queue():
            await super().head()

    async def _names_queue(self) -> bool:
        """Whether there is a queue that the client may take from; without one it was sent to the open dashboard."""
        if self.given["queue"] is None:
            self.redirect_to("/dashboard")
            return False
        await self._check(guard.CONSUME)
        return True

    async def _check(self, wanted: Access) -> None:
        await self.application.guard.check(self.credentials, wanted, self.given["queue"])

    @declare(
        query=(TTL, DELAY, CALLBACK),
        form=(QUEUE_NEEDED, *ADDING),
        any_of=("value", "msg"),
        headers=(IDEMPOTENCY,),
        answers=ADDED,
        errors=(409, 413),
    )
    async def post(self) -> None:
        """Adds a message as ``/q/{queue}`` does."""
        await self._check(guard.PRODUCE)
        await self.add(self.given["queue"])


QUEUES_ON_A_PAGE = 1000


class QueueListHandler(Handler):
    """``/q/``: all queues."""

    requires = {"GET": guard.CONSUME}

    @declare(
        query=(FIRST, QUEUES, CALLBACK),
        answers={200: answers_json("Their names; a page for browsers.", obj(queues=array(QUEUE_SHAPE)), **_PAGE)},
    )
    async def get(self) -> None:
        """All queues that the client may know of."""
        names, in_all = await self.application.page_of_queues(self)
        if self.request.accepts("application/json") or self.callback is not None:
            self.answer_json({"queues": names}, b"\r\n")
            return
        first = self.given["first"] or 0
        shown = names if self.given["count"] else names[:QUEUES_ON_A_PAGE]
        self.answer_page(
            "queues.html",
            queues=await self.application.core.queue_overview(shown),
            first=first,
            following=first + len(shown) if first + len(shown) < in_all else None,
            in_all=in_all,
        )
