"""``/q/<queue>`` and its old form ``/``: put messages in, take or lease them, purge; and the list of queues."""

from __future__ import annotations

from urllib.parse import quote

import orjson

from restmq import access
from restmq.dispatch import value_bytes
from restmq.errors import InvalidInput
from restmq.handlers.base import JSON, Handler
from restmq.longpoll import Wish
from restmq.model import (
    BATCH_MAX,
    DELAY_SECONDS_MAX,
    IDEMPOTENCY_KEY_BYTES_MAX,
    TTL_SECONDS_MAX,
    WAIT_SECONDS_MAX,
    Message,
    check_queue_name,
)
from restmq.request import WireError

OCTETS = "application/octet-stream"
NDJSON = "application/x-ndjson"

_ONE_FOR_GOOD = Wish()
_NO_PARAMETERS = (0.0, 0.0, b"")
#: What RFC 3986 (3.3) lets stand in a path; a key in a header is written as it would be in /m/<key>.
_PATH_SAFE = "/:@!$&'()*+,;=-._~"


class QueueHandler(Handler):
    """One queue."""

    access = {"GET": access.CONSUME, "POST": access.PRODUCE, "DELETE": access.PURGE}

    async def get(self) -> None:
        """Takes what comes next for good (at-most-once), or with ``lease`` under a lease (at-least-once)."""
        await self.take(self.queue_name, status_if_empty=204)

    async def take(self, queue: str, status_if_empty: int) -> None:
        octets = "accept" in self.request.headers and self.request.accepts(OCTETS)
        wish, many, wait_seconds = _ONE_FOR_GOOD, False, 0.0
        if self.request.query or self.request.body:
            self.callback()  # a bad name must not cost a message
            count = self.whole_argument("count", 1, BATCH_MAX)
            many = count is not None
            wish = Wish(count or 1, self.lease_argument())
            wait_seconds = self.number_argument("wait", 0, WAIT_SECONDS_MAX) or 0
            if many and octets:
                raise InvalidInput("a message's own bytes come one message at a time; leave 'count' out.")
        messages = await self.application.polls.take(queue, wish, wait_seconds, self.presence if wait_seconds else None)
        if self.gone and messages:
            await self.application.core.queue_return(queue, messages)
        elif not messages:
            self._answer_empty(status_if_empty)
        elif many:
            self.answer_json([{"count": message.count, **message.fields()} for message in messages], b"\r\n")
        elif octets:
            self._answer_octets(messages[0])
        else:
            self.answer_json({**messages[0].fields(), "count": messages[0].count}, b"\r\n")

    def _answer_empty(self, status: int) -> None:
        if status == 204:
            self.answer(b"", None, status=204)
        else:
            self.answer(b'{"error":"empty queue"}', JSON, status=status)

    def _answer_octets(self, message: Message) -> None:
        self._add_header("X-RestMQ-Key", quote(message.key, safe=_PATH_SAFE))
        if message.receipt:
            self._add_header("X-RestMQ-Receipt", message.receipt)
            self._add_header("X-RestMQ-Count", str(message.count))
        self.answer(message.value, OCTETS)

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
        self.callback()
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
        value = self.argument("value", "msg")
        if value is None:
            raise InvalidInput(
                "the form has neither 'value' nor 'msg'; send one, as in curl -d value=hello, or another type of body."
            )
        return value

    def _parameters(self) -> tuple[float, float, bytes]:
        """Time to live, delay (both in seconds, 0 for none) and idempotency key (empty for none)."""
        idempotency_key = self.request.headers.get("idempotency-key", "").encode("latin-1")
        if len(idempotency_key) > IDEMPOTENCY_KEY_BYTES_MAX:
            raise InvalidInput(f"the Idempotency-Key is longer than {IDEMPOTENCY_KEY_BYTES_MAX} bytes.")
        ttl_seconds = self.number_argument("ttl", 0, TTL_SECONDS_MAX) or 0.0
        return ttl_seconds, self.number_argument("delay", 0, DELAY_SECONDS_MAX) or 0.0, idempotency_key

    async def delete(self) -> None:
        """Purges the queue and closes its connected consumers, on every daemon."""
        purged = await self.application.core.queue_purge(self.queue_name, close_consumers=True)
        self.answer_json({"queue": self.queue_name, "status": int(purged > 0)}, b"\r\n")


def _lines(body: bytes) -> list[bytes]:
    """The messages of a body of JSON lines: of a string its own text, of any other value the line's bytes."""
    values: list[bytes] = []
    for number, line in enumerate(body.split(b"\n"), 1):
        line = line.strip(b" \t\r")
        if not line:
            continue
        if len(values) == BATCH_MAX:
            raise WireError(413, f"more than {BATCH_MAX} lines; send them in several requests.")
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"line {number} is not valid JSON: {error}. Nothing was added.") from None
        values.append(value_bytes(value) if isinstance(value, str) else line)
    if not values:
        raise InvalidInput("the body has no lines; send a JSON value a line.")
    return values


class RootHandler(QueueHandler):
    """``/``: the dashboard, or the oldest form of ``/q/<queue>`` with the queue as a field."""

    access = {"GET": access.CONSUME, "POST": access.PRODUCE}

    async def get(self) -> None:
        queue = self.text_argument("queue")
        if queue is None:
            self.redirect_to("/dashboard")
        else:
            await self.take(check_queue_name(queue), status_if_empty=404)

    async def post(self) -> None:
        await self.add(check_queue_name(self.text_argument("queue") or ""))


class QueueListHandler(Handler):
    """``/q/``: all queues."""

    access = {"GET": access.CONSUME}

    async def get(self) -> None:
        core = self.application.core
        lines = await core.queue_overview(await self.application.visible_queues(self))
        if self.request.accepts("application/json") or self.callback() is not None:
            self.answer_json({"queues": [line.name for line in lines]}, b"\r\n")
        else:
            self.answer_page("queues.html", queues=lines)
