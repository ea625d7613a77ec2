"""``/q/<queue>`` and its older form ``/``: add, take, lease and purge messages; ``/q/``: the list of queues."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

from restmq.auth import guard
from restmq.auth.guard import Access
from restmq.commands import EMPTY_QUEUE
from restmq.delivery.lines import TakeRequest
from restmq.errors import InvalidInput, WireError
from restmq.handlers import parameters
from restmq.handlers.base import Handler
from restmq.handlers.declare import Answer, Body, answers_json, declare
from restmq.http.response import HTML, JSON, TEXT
from restmq.model import BATCH_MAX, Message, Metadata, read_record
from restmq.schema import metadata
from restmq.schema.answers import EXPIRES, KEY, NOTES, QUEUE, STRING, WHOLE, ZERO_OR_ONE, any_of, array, obj, ref
from restmq.schema.encoding import to_json
from restmq.schema.json_input import message_in, texts_on_lines

OCTETS = metadata.UNTYPED
NDJSON = "application/x-ndjson"

#: Bytes of lines that are read in one turn; a longer line is read at once.
_PIECE_BYTES = 1 << 20
_NO_OPTIONS = (0.0, 0.0, b"")
_ONE_FOR_GOOD = TakeRequest()
#: The characters that RFC 3986 (3.3) allows in a path: a key in a header is encoded as in /m/<key>.
_PATH_SAFE = "/:@!$&'()*+,;=-._~"
#: Begins a line of JSON. Blank lines, which may be millions, are skipped.
_NOT_BLANK = re.compile(rb"[^ \t\r\n]")

_BINARY = {"type": "string", "format": "binary", "minLength": 1}
LEASED_HEADERS = {
    "X-RestMQ-Key": "With a raw value: the message's key, percent-encoded.",
    "X-RestMQ-Receipt": "With a raw value and a lease: the receipt.",
    "X-RestMQ-Count": "With a raw value and a lease: the number of deliveries.",
}
#: A message that is taken: its count is the number of peeks, or of deliveries if it is leased.
TAKEN_FIELDS = {"count": WHOLE, "key": KEY, "value": STRING}
TAKEN_NOTES = {"encoding": STRING, "receipt": STRING, "expires": EXPIRES, **NOTES}
#: A browser that shows a raw value must not run scripts in it, whatever its content type.
_INERT = "Content-Security-Policy: sandbox; default-src 'none'\r\n"

TAKEN = {
    200: Answer(
        "The message; with count an array of messages. With raw=1 or Accept: application/octet-stream the value "
        "itself, with the content type and the headers that it was sent with.",
        {
            JSON: any_of(obj(TAKEN_NOTES, **TAKEN_FIELDS), array(obj(TAKEN_NOTES, **TAKEN_FIELDS))),
            "*/*": {"type": "string", "format": "binary"},
        },
        LEASED_HEADERS,
    )
}
ADDED = {
    200: Answer(
        "The message's key in a line; for NDJSON the keys, in order.",
        {TEXT: STRING, JSON: obj(queue=QUEUE, keys=array(KEY))},
    )
}
BODIES = (
    Body("*/*", _BINARY, "Any other type: the body is the message, byte for byte."),
    Body(
        NDJSON, {"type": "string"}, f"Up to {BATCH_MAX} lines, each a JSON value and a message: all are added, or none."
    ),
)


class QueueHandler(Handler):
    """One queue."""

    requires = {"GET": guard.CONSUME, "POST": guard.PRODUCE, "DELETE": guard.PURGE}

    @declare(
        query=parameters.TAKING,
        answers=TAKEN | {204: Answer("The queue is empty, also after wait. JSONP answers 200 and calls back.")},
    )
    async def get(self) -> None:
        """Takes the next message (at-most-once), or leases it with ``lease`` (at-least-once)."""
        await self.take(self.queue_name, status_if_empty=204)

    async def take(self, queue: str, status_if_empty: int) -> None:
        self.refuse_accidents()
        raw = self.wants_raw
        count, wait_seconds = self.parameters["count"], self.parameters["wait"] or 0
        many = count is not None
        if many and raw:
            raise InvalidInput("a raw value is one message; omit 'count'.")
        lease_ms = self.lease_ms
        wanted = TakeRequest(count or 1, lease_ms) if many or lease_ms is not None else _ONE_FOR_GOOD
        messages = await self.services.polls.take(queue, wanted, self.request.connection.presence, wait_seconds)
        if not messages:
            self.answer_empty(status_if_empty, [] if many else EMPTY_QUEUE)
        elif many:
            shown = [message.fields(with_count=True) for message in messages]
            await self.answer_long_json(shown, b"\r\n", (queue, messages))
        elif raw:
            self.answer_raw(messages[0])
        else:
            await self.answer_long_json(messages[0].fields(with_count=True), b"\r\n", (queue, messages))

    @property
    def wants_raw(self) -> bool:
        """Whether the client wants the value itself."""
        accepts = "accept" in self.request.headers and self.request.prefers(OCTETS, JSON)
        return self.parameters["raw"] == "1" or accepts

    def answer_empty(self, status: int, as_json: object) -> None:
        """An empty queue is not an error at /q/, so JSONP must call back; with 204, a script element runs nothing."""
        if status != 204:
            self.answer(to_json(EMPTY_QUEUE), JSON, status=status)
        elif self.callback is not None:
            self.answer_json(as_json)
        else:
            self.answer(b"", None, status=204)

    def answer_raw(self, message: Message) -> None:
        # The content type is sent exactly as it came.
        self._extra_headers += _INERT + metadata.shown_headers(Metadata.parse(read_record(message.record)))
        self._add_header("X-RestMQ-Key", quote(message.key, safe=_PATH_SAFE))
        if message.receipt:
            self._add_header("X-RestMQ-Receipt", message.receipt)
            self._add_header("X-RestMQ-Count", str(message.count))
        self.answer(message.value, None)

    @declare(
        query=(parameters.TTL, parameters.DELAY, parameters.DEAD, parameters.JSONP_CALLBACK),
        form=parameters.ADDING,
        any_of=("value", "msg"),
        headers=(parameters.IDEMPOTENCY,),
        bodies=BODIES,
        answers=ADDED,
        errors=(409, 413, 431),
    )
    async def post(self) -> None:
        """Adds a message, or many in one step. The answer comes when they are in Redis or handed to consumers."""
        await self.add(self.queue_name)

    async def add(self, queue: str) -> None:
        core = self.services.core
        many = self.request.media_type == NDJSON
        values = await self._lines() if many else [self._value()]
        options, sent = self._options(), None if many else self._metadata()
        dead = self.parameters.get("dead") == "true"
        if many or dead or options != _NO_OPTIONS or sent is not None:
            keys = await core.queue_add_many(queue, values, *options, metadata=sent, dead=dead)
        else:
            keys = [await core.queue_add(queue, values[0])]
        if many:
            self.answer_json({"queue": queue, "keys": keys}, b"\r\n")
        else:
            self.answer_text(keys[0])

    async def _lines(self) -> list[bytes]:
        """The messages of an NDJSON body; a long body is read in several turns."""
        messages: list[bytes] = []
        is_long = len(self.request.body) > _PIECE_BYTES
        if is_long:
            await self.services.turns.next()
        await self.services.turns.run(_read_lines(self.request.body, messages))
        if is_long:  # making the command for Redis is work for a turn of its own
            await self.services.turns.next()
        return messages

    def _value(self) -> bytes:
        """The form's field, or the whole body if it is not a form."""
        if self._is_whole_body:
            return self.request.body
        value: bytes | None = self.parameters["msg"] if self.parameters["value"] is None else self.parameters["value"]
        return value or b""

    @property
    def _is_whole_body(self) -> bool:
        return bool(self.request.body) and self.operations["POST"].takes_body(self.request)

    def _metadata(self) -> Metadata | None:
        """What is kept with the message; None if there is nothing."""
        headers = self.request.headers
        content_type = headers.get("content-type", "") if self._is_whole_body else ""
        return self.services.kept_headers.of_request(headers, content_type)

    def _options(self) -> tuple[float, float, bytes]:
        """Time to live, delay (both in seconds, 0 for none) and idempotency key (empty for none)."""
        given = self.parameters
        return given["ttl"] or 0.0, given["delay"] or 0.0, given["Idempotency-Key"] or b""

    @declare(
        query=(parameters.REMOVE, parameters.JSONP_CALLBACK),
        strict=True,
        answers={200: answers_json("1 if there was anything to delete.", obj(queue=QUEUE, status=ZERO_OR_ONE))},
    )
    async def delete(self) -> None:
        """Purges the queue and closes its connected consumers, on every daemon."""
        core = self.services.core
        if self.parameters["remove"]:
            deleted = await core.queue_remove(self.queue_name)
        else:
            deleted = await core.queue_purge(self.queue_name, close_consumers=True) > 0
        self.answer_json({"queue": self.queue_name, "status": int(deleted)}, b"\r\n")


def _read_lines(body: bytes, messages: list[bytes]) -> Iterator[None]:
    """Reads the messages of an NDJSON body: a string's own text, or the line itself for any other value.

    It yields between pieces of work. Raises InvalidInput or WireError, with nothing done.
    """
    position = yielded = 0
    if len(body) <= _PIECE_BYTES:
        messages += texts_on_lines(body)
        position = len(body) if messages else 0
    while position < len(body):
        begin = _NOT_BLANK.search(body, position, position + _PIECE_BYTES)
        if begin is None:
            position = min(position + _PIECE_BYTES, len(body))
        else:
            start = begin.start()
            end = body.find(b"\n", start)
            position = end if end >= 0 else len(body)
            try:
                messages.append(message_in(body[start:position], "the line"))
            except InvalidInput as problem:
                number = body.count(b"\n", 0, start) + 1
                raise InvalidInput(f"nothing was added. Correct line {number} of the body: {problem}") from None
            if len(messages) > BATCH_MAX:
                raise WireError(413, f"the body has more than {BATCH_MAX} lines; send several requests.")
        if position - yielded >= _PIECE_BYTES:
            yielded = position
            yield
    if not messages:
        raise InvalidInput("the body has no lines; send one JSON value per line.")


class RootHandler(QueueHandler):
    """``/``: the dashboard, or the oldest form of ``/q/<queue>`` with the queue as a field."""

    # A form is read only if the client may add to some queue. Its token's queues are checked after that.
    requires = {"GET": guard.BY_FIELD, "POST": guard.PRODUCE}

    @declare(
        query=(parameters.QUEUE_FIELD, *parameters.TAKING),
        answers=TAKEN
        | {
            302: Answer("Without queue: redirects to the dashboard.", {TEXT: STRING}, {"Location": "The dashboard."}),
            404: answers_json("The queue is empty, also after wait.", ref("Empty")),
        },
    )
    async def get(self) -> None:
        """Takes a message as ``/q/{queue}`` does."""
        if await self._names_queue():
            await self.take(self.parameters["queue"], status_if_empty=404)

    async def head(self) -> None:
        """Checks the same access, but takes nothing."""
        self.parameters = self.operations["GET"].read(self.request)
        if await self._names_queue():
            await super().head()

    async def _names_queue(self) -> bool:
        """Whether the request names a queue, which the client may consume; without one, it is redirected."""
        if self.parameters["queue"] is None:
            self.redirect_to("dashboard")  # relative: see Handler.root
            return False
        await self._check(guard.CONSUME)
        return True

    async def _check(self, access: Access) -> None:
        await self.services.guard.check(self.credentials, access, self.parameters["queue"])

    @declare(
        query=(parameters.TTL, parameters.DELAY, parameters.JSONP_CALLBACK),
        form=(parameters.REQUIRED_QUEUE, *parameters.ADDING),
        any_of=("value", "msg"),
        headers=(parameters.IDEMPOTENCY,),
        answers=ADDED,
        errors=(409, 413),
    )
    async def post(self) -> None:
        """Adds a message as ``/q/{queue}`` does."""
        await self._check(guard.PRODUCE)
        await self.add(self.parameters["queue"])


QUEUES_ON_A_PAGE = 1000


class QueueListHandler(Handler):
    """``/q/``: all queues."""

    requires = {"GET": guard.CONSUME}

    @declare(
        query=(parameters.FIRST, parameters.QUEUES, parameters.JSONP_CALLBACK),
        answers={200: answers_json("Their names; a page for browsers.", obj(queues=array(QUEUE)), **{HTML: STRING})},
    )
    async def get(self) -> None:
        """Lists all queues that the client may see."""
        first, count = self.parameters["first"] or 0, self.parameters["count"]
        names, in_all, _ = await self.services.page_of_queues(self.credentials, first, count)
        if self.request.prefers("application/json", "text/html") or self.callback is not None:
            self.answer_json({"queues": names}, b"\r\n")
            return
        shown = names[:QUEUES_ON_A_PAGE]
        self.answer_page(
            "queues.html",
            queues=await self.services.core.queue_overview(shown),
            first=first,
            following=first + len(shown) if first + len(shown) < in_all else None,
            in_all=in_all,
        )
