"""Policy, status and statistics of queues."""

from __future__ import annotations

from restmq.auth import guard
from restmq.handlers.base import Handler
from restmq.handlers.declare import Parameter, answers_json, answers_line, declare
from restmq.handlers.parameters import CALLBACK, FIRST, QUEUES
from restmq.http.response import HTML
from restmq.model import DEAD_LETTER, SETTINGS, Policy, text_or_base64
from restmq.queues.peek import PEEK_MAX, PLACES
from restmq.schema.answers import POLICY, QUEUE, STRING, WHOLE, ZERO_OR_ONE, array, by_queue, described, obj, ref
from restmq.schema.fields import QUEUE_NAME_OR_NONE, OneOf, whole

JOBS_SHOWN = 10
_SHOWN_CHARACTERS = 1000

_POLICY = Parameter("policy", OneOf(tuple(policy.label for policy in Policy)), "who gets the queue's messages.")
_SETTINGS = (
    *(Parameter(name, whole(0, most), "see Settings.") for name, most in SETTINGS.items()),
    Parameter(DEAD_LETTER, QUEUE_NAME_OR_NONE, "the queue for dead letters, instead of a place beside the queue."),
)
_ANY_SETTING = ("policy", *SETTINGS, DEAD_LETTER)
_WANTED = Parameter("status", OneOf(("start", "stop")), "start or stop.", required=True)
_STATUS = obj(queue=QUEUE, status=ZERO_OR_ONE)
_PLACE = Parameter("list", OneOf(PLACES), "where to look, for JSON; next are those that come next.")
_SHOWN = Parameter("count", whole(1, PEEK_MAX), "look at so many.")
_GLIMPSE = obj(queue=QUEUE, list=_PLACE.kind.schema, total=WHOLE, messages=array(ref("Peeked")))
_IN_ALL = described(WHOLE, "How many there are, shown or not.")
_LINE = obj(name=QUEUE, len=WHOLE, status=ZERO_OR_ONE, policy=POLICY)


class PolicyHandler(Handler):
    """``/p/<queue>``: who gets the queue's messages."""

    requires = {"GET": guard.CONSUME, "POST": guard.CONFIGURE}

    @declare(query=(CALLBACK,), answers={200: answers_json("Policy and settings.", ref("Settings"))})
    async def get(self) -> None:
        """The queue's policy, and those of its settings that were set."""
        policy = await self.application.core.queue_policy_get(self.queue_name)
        settings = await self.application.core.queue_settings_get(self.queue_name)
        self.answer_json({"queue": self.queue_name, "value": policy.label, **settings}, b"\r\n")

    @declare(form=(_POLICY, *_SETTINGS, CALLBACK), any_of=_ANY_SETTING, answers={200: answers_line("OK")})
    async def post(self) -> None:
        """Sets the policy, settings, or both; what is not named stays; 0, or an empty ``dead_letter``, takes one away.

        Whoever sends dead letters to another queue must be allowed to put messages there.
        """
        given = {setting.name: self.given[setting.name] for setting in _SETTINGS}
        settings: dict[str, int | str] = {name: value for name, value in given.items() if value is not None}
        label = self.given["policy"]
        policy = Policy.parse(label) if label is not None else None
        if self.given[DEAD_LETTER]:
            await self.application.guard.check(self.credentials, guard.PRODUCE, self.given[DEAD_LETTER])
        if settings:
            await self.application.core.queue_settings_set(self.queue_name, settings)
        if policy is not None:
            await self.application.core.queue_policy_set(self.queue_name, policy)
        self.answer_text("OK")


class ControlHandler(Handler):
    """``/control/<queue>``: start and stop."""

    requires = {"GET": guard.CONSUME, "POST": guard.CONFIGURE}

    @declare(
        query=(CALLBACK,), answers={200: answers_json("The status.", obj(redis=STRING, queue=QUEUE, status=_STATUS))}
    )
    async def get(self) -> None:
        """Whether the queue is started."""
        started = await self.application.core.queue_status(self.queue_name)
        self.answer_json(
            {
                "redis": self.application.core.store.describe(),
                "queue": self.queue_name,
                "status": {"queue": self.queue_name, "status": int(started)},
            },
            b"\r\n",
        )

    @declare(form=(_WANTED, CALLBACK), answers={200: answers_json("The status from now on.", obj(stat=_STATUS))})
    async def post(self) -> None:
        """Starts or stops the delivery to connected consumers; ``GET /q/{queue}`` goes on in any case."""
        wanted = self.given["status"]
        started = await self.application.core.queue_changestatus(self.queue_name, wanted == "start")
        self.answer_json({"stat": {"queue": self.queue_name, "status": int(started)}}, b"\r\n")


class ControlListHandler(Handler):
    """``/control/``: the status of all queues."""

    requires = {"GET": guard.CONSUME}

    @declare(
        query=(FIRST, QUEUES, CALLBACK),
        answers={200: answers_json("By name.", obj(redis=STRING, count=_IN_ALL, queues=by_queue(_STATUS)))},
    )
    async def get(self) -> None:
        """Which of the queues that the client may know of are started."""
        core = self.application.core
        names, in_all = await self.application.page_of_queues(self)
        lines = await core.queue_overview(names)
        self.answer_json(
            {
                "redis": core.store.describe(),
                "count": in_all,
                "queues": {line.name: {"queue": line.name, "status": int(line.started)} for line in lines},
            },
            b"\r\n",
        )


class StatsHandler(Handler):
    """``/stats/<queue>``: one queue in numbers."""

    requires = {"GET": guard.CONSUME}

    @declare(query=(CALLBACK,), answers={200: answers_json("The numbers.", ref("QueueStats"))})
    async def get(self) -> None:
        """One queue in numbers."""
        self.answer_json(await self.application.queue_stats(self.queue_name))


class StatsListHandler(Handler):
    """``/stats/``: all queues in numbers."""

    requires = {"GET": guard.CONSUME}

    @declare(
        query=(FIRST, QUEUES, CALLBACK),
        answers={200: answers_json("By name.", obj(redis=STRING, count=_IN_ALL, queues=by_queue(_LINE)))},
    )
    async def get(self) -> None:
        """All queues that the client may know of, in numbers."""
        core = self.application.core
        names, in_all = await self.application.page_of_queues(self)
        lines = await core.queue_overview(names)
        queues = {
            line.name: {
                "name": line.name,
                "len": line.length,
                "status": int(line.started),
                "policy": line.policy.label,
            }
            for line in lines
        }
        self.answer_json({"queues": queues, "redis": core.store.describe(), "count": in_all})


class JobsHandler(Handler):
    """``/j/<queue>``: a page with the queue's counts and its newest messages; as JSON, what stands in a place of it."""

    requires = {"GET": guard.CONSUME}

    @declare(
        query=(_PLACE, FIRST, _SHOWN, CALLBACK),
        answers={200: answers_json("What stands there.", _GLIMPSE, **{HTML: {"type": "string"}})},
    )
    async def get(self) -> None:
        """A page with the queue's newest messages; for who accepts JSON, what stands in one place of the queue."""
        core = self.application.core
        if self.request.accepts("application/json") or self.callback is not None:
            await self._peek()
            return
        stats = await core.queue_stats(self.queue_name)
        jobs = await core.queue_last_items(self.queue_name, JOBS_SHOWN)
        self.answer_page("jobs.html", stats=stats, jobs=[(job.key, _beginning(job.value)) for job in jobs])

    async def _peek(self) -> None:
        """Looks at messages of the place ``list`` after the ``first`` ones, ``count`` at most; takes nothing."""
        place, first = self.given["list"] or "newest", self.given["first"] or 0
        count = self.given["count"] or JOBS_SHOWN
        seen = await self.application.core.queue_peek(self.queue_name, place, first, count)
        shown = [message.fields(place) for message in seen.messages]
        self.answer_json({"queue": self.queue, "list": place, "total": seen.count, "messages": shown}, b"\r\n")


def _beginning(value: bytes) -> str:
    """How a value begins, for people."""
    fields = text_or_base64(value)
    text = f"{fields['encoding']}: {fields['value']}" if "encoding" in fields else fields["value"]
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
