"""``/q/<queue>`` and its old form ``/``: put a message in, take one out, purge; and the list of queues."""

from __future__ import annotations

from restmq import access
from restmq.errors import InvalidInput
from restmq.handlers.base import JSON, Handler
from restmq.model import check_queue_name

TTL_SECONDS_MAX = 10 * 365 * 86400


class QueueHandler(Handler):
    """One queue."""

    access = {"GET": access.CONSUME, "POST": access.PRODUCE, "DELETE": access.PURGE}

    async def get(self) -> None:
        """Takes the next message for good: at-most-once."""
        await self.take(self.queue_name, status_if_empty=204)

    async def take(self, queue: str, status_if_empty: int) -> None:
        self.callback()  # a bad name must not cost a message
        message = await self.application.core.queue_getdel(queue)
        if message is None:
            if status_if_empty == 204:
                self.answer(b"", None, status=204)
            else:
                self.answer(b'{"error":"empty queue"}', JSON, status=status_if_empty)
        else:
            self.answer_json({**message.fields(), "count": message.count}, b"\r\n")

    async def post(self) -> None:
        """Adds a message; answered when it is safe."""
        await self.add(self.queue_name)

    async def add(self, queue: str) -> None:
        value = self.argument("value", "msg")
        if value is None:
            raise InvalidInput("the form has neither 'value' nor 'msg'; send one, as in curl -d value=hello.")
        self.callback()
        ttl_seconds = self.number_argument("ttl", 0, TTL_SECONDS_MAX) or 0
        self.answer_text(await self.application.core.queue_add(queue, value, ttl_seconds))

    async def delete(self) -> None:
        """Purges the queue and closes its connected consumers, on every daemon."""
        purged = await self.application.core.queue_purge(self.queue_name, close_consumers=True)
        self.answer_json({"queue": self.queue_name, "status": int(purged > 0)}, b"\r\n")


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
