"""Policy, status and statistics of queues."""

from __future__ import annotations

from restmq import access
from restmq.errors import InvalidInput
from restmq.handlers.base import TEXT, Handler
from restmq.model import DEAD_LETTER, SETTINGS, Policy
from restmq.peeking import PEEK_MAX, PLACES

JOBS_SHOWN = 10


class PolicyHandler(Handler):
    """``/p/<queue>``: who gets the queue's messages."""

    access = {"GET": access.CONSUME, "POST": access.CONFIGURE}

    async def get(self) -> None:
        policy = await self.application.core.queue_policy_get(self.queue_name)
        settings = await self.application.core.queue_settings_get(self.queue_name)
        self.answer_json({"queue": self.queue_name, "value": policy.label, **settings}, b"\r\n")

    async def post(self) -> None:
        given = {name: self.whole_argument(name, 0, most) for name, most in SETTINGS.items()}
        settings: dict[str, int | str] = {name: number for name, number in given.items() if number is not None}
        dead_letter = self.text_argument(DEAD_LETTER)
        if dead_letter is not None:
            settings[DEAD_LETTER] = dead_letter
        label = self.text_argument("policy")
        if label is None and not settings:
            raise InvalidInput("send 'policy', or one of the settings " + ", ".join((*SETTINGS, DEAD_LETTER)) + ".")
        policy = Policy.parse(label) if label is not None else None
        self.callback()
        if settings:
            await self.application.core.queue_settings_set(self.queue_name, settings)
        if policy is not None:
            await self.application.core.queue_policy_set(self.queue_name, policy)
        if self.callback() is None:
            self.answer(b"OK\r\n", TEXT)
        else:
            self.answer_text("OK")


class ControlHandler(Handler):
    """``/control/<queue>``: start and stop."""

    access = {"GET": access.CONSUME, "POST": access.CONFIGURE}

    async def get(self) -> None:
        started = await self.application.core.queue_status(self.queue_name)
        self.answer_json(
            {
                "redis": self.application.core.store.describe(),
                "queue": self.queue_name,
                "status": {"queue": self.queue_name, "status": int(started)},
            },
            b"\r\n",
        )

    async def post(self) -> None:
        wanted = self.text_argument("status")
        if wanted not in ("start", "stop"):
            raise InvalidInput("'status' must be 'start' or 'stop'.")
        self.callback()
        started = await self.application.core.queue_changestatus(self.queue_name, wanted == "start")
        self.answer_json({"stat": {"queue": self.queue_name, "status": int(started)}}, b"\r\n")


class ControlListHandler(Handler):
    """``/control/``: the status of all queues."""

    access = {"GET": access.CONSUME}

    async def get(self) -> None:
        core = self.application.core
        lines = await core.queue_overview(await self.application.visible_queues(self))
        self.answer_json(
            {
                "redis": core.store.describe(),
                "count": len(lines),
                "queues": {line.name: {"queue": line.name, "status": int(line.started)} for line in lines},
            },
            b"\r\n",
        )


class StatsHandler(Handler):
    """``/stats/<queue>``: one queue in numbers."""

    access = {"GET": access.CONSUME}

    async def get(self) -> None:
        self.answer_json(await self.application.queue_stats(self.queue_name))


class StatsListHandler(Handler):
    """``/stats/``: all queues in numbers."""

    access = {"GET": access.CONSUME}

    async def get(self) -> None:
        core = self.application.core
        lines = await core.queue_overview(await self.application.visible_queues(self))
        queues = {
            line.name: {
                "name": line.name,
                "len": line.length,
                "status": int(line.started),
                "policy": line.policy.label,
            }
            for line in lines
        }
        self.answer_json({"queues": queues, "redis": core.store.describe(), "count": len(queues)})


class JobsHandler(Handler):
    """``/j/<queue>``: a page with the queue's counts and its newest messages; as JSON, what stands in a place of it."""

    access = {"GET": access.CONSUME}

    async def get(self) -> None:
        core = self.application.core
        if self.request.accepts("application/json") or self.callback() is not None:
            await self._peek()
            return
        (line,) = await core.queue_overview([self.queue_name])
        jobs = await core.queue_last_items(self.queue_name, JOBS_SHOWN)
        self.answer_page("jobs.html", line=line, jobs=[job.fields() for job in jobs])

    async def _peek(self) -> None:
        """Looks at messages of the place ``list`` after the ``first`` ones, ``count`` at most; takes nothing."""
        place = self.text_argument("list") or "newest"
        if place not in PLACES:
            raise InvalidInput("'list' must be one of " + ", ".join(PLACES) + ".")
        first = self.whole_argument("first", 0, 10**12) or 0
        count = self.whole_argument("count", 1, PEEK_MAX) or JOBS_SHOWN
        seen = await self.application.core.queue_peek(self.queue_name, place, first, count)
        shown = [message.fields(place) for message in seen.messages]
        self.answer_json({"queue": self.queue, "list": place, "total": seen.count, "messages": shown}, b"\r\n")
