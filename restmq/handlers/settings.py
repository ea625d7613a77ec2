"""Policy, status and statistics of queues."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from restmq.auth import guard
from restmq.errors import Conflict
from restmq.handlers.base import Handler
from restmq.handlers.declare import Parameter, answers_json, answers_line, declare
from restmq.handlers.parameters import COUNTS, FIRST, JSONP_CALLBACK, QUEUES
from restmq.http.response import HTML
from restmq.model import DEAD_LETTER, SETTINGS, Policy
from restmq.monitoring.listeners import NOBODY
from restmq.queues.overview import OVERVIEW_QUEUES_A_CALL, PEEK_MAX, PLACES
from restmq.queues.results import QueueOverview
from restmq.schema.answers import POLICY, QUEUE, STRING, WHOLE, ZERO_OR_ONE, array, by_queue, described, obj, ref
from restmq.schema.encoding import to_json
from restmq.schema.fields import QUEUE_NAME_OR_NONE, OneOf, whole

JOBS_SHOWN = 10
_SHOWN_CHARACTERS = 1000
#: The times of a message that its facts show.
_TIMES = {
    "sent": "published",
    "first": "first delivery",
    "last": "last delivery",
    "failed": "failed",
    "due": "due",
    "died": "died",
}

_POLICY = Parameter(
    "policy", OneOf(tuple(policy.label for policy in Policy)), "each message goes to all consumers, or to one in turn."
)
_TEXTS = {
    "expires": "seconds after which the queue is removed if it has no messages and is not used; 0: --queue-expires.",
    "history": "number of broadcast messages kept for consumers that reconnect.",
    "history_bytes": "maximum bytes of these messages; 0: 64 MiB.",
    "lease": "seconds of a lease that is requested without a number.",
    "max_deliveries": "failed deliveries after which a message is a dead letter.",
    "max_length": "maximum number of ready, leased and delayed messages.",
    "retry_delay": "seconds until a message whose delivery failed comes back; doubles with each delivery.",
    "retry_delay_max": "maximum of these seconds; 0: an hour.",
}
_SETTINGS = (
    *(Parameter(name, whole(0, most), _TEXTS[name]) for name, most in SETTINGS.items()),
    Parameter(DEAD_LETTER, QUEUE_NAME_OR_NONE, "queue that dead letters go to; empty: they stay at /d/Q."),
)
_ANY_SETTING = ("policy", *SETTINGS, DEAD_LETTER)
_STATUS_WANTED = Parameter("status", OneOf(("start", "stop")), "start or stop.", required=True)
_STATUS = obj(queue=QUEUE, status=ZERO_OR_ONE)
_PLACE = Parameter("list", OneOf(PLACES), "state of the messages to peek at, or next or newest (default).")
_SHOWN = Parameter("count", whole(1, PEEK_MAX), "maximum number of messages (default 10).")
_PEEK = obj(queue=QUEUE, list=_PLACE.kind.schema, total=WHOLE, messages=array(ref("Peeked")))
_IN_ALL = described(WHOLE, "The number of all queues, shown or not.")
_MISSING = {
    "missing": described(WHOLE, "The number of nodes of a Redis Cluster that did not answer; their queues are missing.")
}
#: What counts=true adds.
_COUNTS = {
    **dict.fromkeys(("ready", "leased", "delayed", "dead", "consumers", "waiters"), WHOLE),
    "oldest_age_seconds": {"type": ["number", "null"]},
    "totals": obj(**{"in": WHOLE, "out": WHOLE}),
}
_OVERVIEW = obj(_COUNTS, name=QUEUE, len=WHOLE, status=ZERO_OR_ONE, policy=POLICY)


class PolicyHandler(Handler):
    """``/p/<queue>``: the queue's policy and settings."""

    requires = {"GET": guard.CONSUME, "POST": guard.CONFIGURE}

    @declare(query=(JSONP_CALLBACK,), answers={200: answers_json("Policy and settings.", ref("Settings"))})
    async def get(self) -> None:
        """Shows the queue's policy and the settings that were made."""
        policy = await self.services.core.queue_policy_get(self.queue_name)
        settings = await self.services.core.queue_settings_get(self.queue_name)
        self.answer_json({"queue": self.queue_name, "value": policy.label, **settings}, b"\r\n")

    @declare(
        form=(_POLICY, *_SETTINGS, JSONP_CALLBACK),
        any_of=_ANY_SETTING,
        strict=True,
        answers={200: answers_line("OK")},
        errors=(409,),
    )
    async def post(self) -> None:
        """Sets the policy and settings. Those that are not named stay; 0 or an empty ``dead_letter`` removes one.

        ``dead_letter`` needs the right to publish to the other queue.
        """
        given = {setting.name: self.parameters[setting.name] for setting in _SETTINGS}
        settings: dict[str, int | str] = {name: value for name, value in given.items() if value is not None}
        label = self.parameters["policy"]
        policy = Policy.parse(label) if label is not None else None
        if policy is Policy.BROADCAST and await self.services.core.queue_is_fifo(self.queue_name):
            raise Conflict("a FIFO queue delivers each message once, in order; its policy stays roundrobin.")
        if self.parameters[DEAD_LETTER]:
            await self.services.guard.check(self.credentials, guard.PRODUCE, self.parameters[DEAD_LETTER])
        if settings:
            await self.services.core.queue_settings_set(self.queue_name, settings)
        if policy is not None:
            await self.services.core.queue_policy_set(self.queue_name, policy)
        self.answer_text("OK")


class ControlHandler(Handler):
    """``/control/<queue>``: start and stop."""

    requires = {"GET": guard.CONSUME, "POST": guard.CONFIGURE}

    @declare(
        query=(JSONP_CALLBACK,),
        answers={200: answers_json("The status.", obj(redis=STRING, queue=QUEUE, status=_STATUS))},
    )
    async def get(self) -> None:
        """Shows whether the queue is started."""
        started = await self.services.core.queue_status(self.queue_name)
        self.answer_json(
            {
                "redis": self.services.core.describe(self.queue_name),
                "queue": self.queue_name,
                "status": {"queue": self.queue_name, "status": int(started)},
            },
            b"\r\n",
        )

    @declare(form=(_STATUS_WANTED, JSONP_CALLBACK), answers={200: answers_json("The new status.", obj(stat=_STATUS))})
    async def post(self) -> None:
        """Starts or stops the delivery to connected consumers. ``GET /q/{queue}`` still takes messages."""
        wanted = self.parameters["status"]
        started = await self.services.core.queue_changestatus(self.queue_name, wanted == "start")
        self.answer_json({"stat": {"queue": self.queue_name, "status": int(started)}}, b"\r\n")


class _QueuesHandler(Handler):
    """Answers with a row of each queue that the client may see."""

    requires = {"GET": guard.CONSUME}

    async def answer_rows(
        self, fields: Callable[[QueueOverview], object], end: bytes = b"", counts: bool = False
    ) -> None:
        """Answers with the rows' fields by name. Renders a part of them at a time, between calls to Redis."""
        core = self.services.core
        first, count = self.parameters["first"] or 0, self.parameters["count"]
        names, in_all, missing = await self.services.page_of_queues(self.credentials, first, count)
        pieces = [b'{"queues":{']
        at_a_time = core.at_a_time(OVERVIEW_QUEUES_A_CALL)
        for start in range(0, len(names), at_a_time):
            rows = await core.queue_overview(names[start : start + at_a_time], counts)
            part = to_json({row.name: fields(row) for row in rows})[1:-1]
            if part:  # a node of a cluster may be missing
                pieces.append(self.escape(b"," + part if len(pieces) > 1 else part))
        rest = {"redis": core.store.describe(), "count": in_all} | ({"missing": missing} if missing else {})
        pieces.append(b"}," + to_json(rest)[1:])
        self.answer_pieces(pieces if len(names) > at_a_time else [b"".join(pieces)], end)


class ControlListHandler(_QueuesHandler):
    """``/control/``: the status of all queues."""

    @declare(
        query=(FIRST, QUEUES, JSONP_CALLBACK),
        answers={200: answers_json("By name.", obj(_MISSING, redis=STRING, count=_IN_ALL, queues=by_queue(_STATUS)))},
    )
    async def get(self) -> None:
        """Shows which of the queues that the client may see are started."""
        await self.answer_rows(lambda row: {"queue": row.name, "status": int(row.started)}, b"\r\n")


class StatsHandler(Handler):
    """``/stats/<queue>``: a queue's counters."""

    requires = {"GET": guard.CONSUME}

    @declare(query=(JSONP_CALLBACK,), answers={200: answers_json("The counters.", ref("QueueStats"))})
    async def get(self) -> None:
        """Shows a queue's counters."""
        self.answer_json(await self.services.queue_stats(self.queue_name))


class StatsListHandler(_QueuesHandler):
    """``/stats/``: the length, status and policy of all queues."""

    @declare(
        query=(COUNTS, FIRST, QUEUES, JSONP_CALLBACK),
        answers={200: answers_json("By name.", obj(_MISSING, redis=STRING, count=_IN_ALL, queues=by_queue(_OVERVIEW)))},
    )
    async def get(self) -> None:
        """Shows the length, status and policy of all queues that the client may see; with ``counts``, all counters."""
        listeners = await self.services.listeners.everywhere() if self.parameters["counts"] else None
        now_ms = self.services.core.store.time_ms()

        def fields(row: QueueOverview) -> dict[str, Any]:
            found = {"name": row.name, "len": row.length, "status": int(row.started), "policy": row.policy.label}
            if listeners is None:
                return found
            *consumers, waiters = listeners.get(row.name, NOBODY)
            return found | row.counts(now_ms) | {"consumers": sum(consumers), "waiters": waiters}

        await self.answer_rows(fields, counts=listeners is not None)


class JobsHandler(Handler):
    """``/j/<queue>``: a page with the queue's counters and its newest messages; as JSON, messages in one state."""

    requires = {"GET": guard.CONSUME}

    @declare(
        query=(_PLACE, FIRST, _SHOWN, JSONP_CALLBACK),
        answers={200: answers_json("The messages.", _PEEK, **{HTML: {"type": "string"}})},
    )
    async def get(self) -> None:
        """A page with the queue's newest messages, or ten in one state; with ``Accept: application/json``, as JSON."""
        core = self.services.core
        if self.request.prefers("application/json", "text/html") or self.callback is not None:
            await self._peek()
            return
        place = self.parameters["list"] or "newest"
        found = await core.queue_peek(self.queue_name, place, self.parameters["first"] or 0, JOBS_SHOWN)
        jobs = [(*_beginning(fields), _facts(fields)) for fields in (each.fields(place) for each in found.messages)]
        self.answer_page("jobs.html", stats=await core.queue_stats(self.queue_name), place=place, jobs=jobs)

    async def _peek(self) -> None:
        """Answers up to ``count`` messages of ``list`` after the ``first`` ones, and takes nothing."""
        place, first = self.parameters["list"] or "newest", self.parameters["first"] or 0
        count = self.parameters["count"] or JOBS_SHOWN
        seen = await self.services.core.queue_peek(self.queue_name, place, first, count)
        shown = [message.fields(place) for message in seen.messages]
        self.answer_json({"queue": self.queue, "list": place, "total": seen.count, "messages": shown}, b"\r\n")


def _beginning(fields: dict[str, Any]) -> tuple[str, str]:
    """A message's key and the beginning of its value, for people."""
    text = f"{fields['encoding']}: {fields['value']}" if "encoding" in fields else fields["value"]
    shown = text if "cut" not in fields and len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return fields["key"], shown


def _facts(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known of a message beside its value, for people: name and text."""
    times = {text: _utc(fields[name]) for name, text in _TIMES.items() if fields.get(name)}
    if times.get("first delivery") == times.get("last delivery"):
        times.pop("last delivery", None)
    others = {
        "reason": fields.get("reason"),
        "was the dead letter": fields.get("dead_letter", {}).get("key"),
        "deliveries": fields.get("count"),
        "content-type": fields.get("content_type"),
        **fields.get("headers", {}),
    }
    return [(name, str(value)) for name, value in (times | others).items() if value]


def _utc(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
