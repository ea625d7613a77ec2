"""The JSON commands: a table from a command's name to an operation.

A command is an object with ``cmd`` and its fields, e.g. ``{"cmd": "add", "queue": "jobs", "value": "dig"}``. Its answer
is an object too. ``COMMANDS`` lists all commands with their fields and the access that they require.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from restmq.auth.guard import CONFIGURE, CONSUME, PRODUCE, PURGE, Access
from restmq.core import RedisOperations
from restmq.delivery.lines import NOTHING_TAKEN, Taken, TakeRequest
from restmq.delivery.longpoll import LongPolls
from restmq.model import queue_of
from restmq.schema import fields as kinds
from restmq.schema.answers import (
    ANY_VALUE,
    BOOLEAN,
    KEY,
    MESSAGE,
    NOTES,
    NUMBER,
    QUEUE,
    STRING,
    WHOLE,
    ZERO_OR_ONE,
    any_of,
    array,
    obj,
    ref,
)
from restmq.schema.fields import Kind, Schema
from restmq.schema.json_input import message_of
from restmq.schema.metadata import KeptHeaders
from restmq.transport import Presence

#: The work on a longer command is done in several turns of the event loop.
LONG_BYTES = 65536
EMPTY_QUEUE = {"error": "empty queue"}

Fields = dict[str, Any]
_Operation = TypeVar("_Operation", bound=Callable[..., Awaitable[Fields]])


@dataclass(slots=True, kw_only=True)
class CommandContext:
    """The context of a client's commands: the services they use, and the checks for this client.

    Attributes:
        check: raises an error if the client does not have this access to this queue; None means no single queue.
        queues: the names of all queues that the client may see.
        stats: the answer of ``/stats/<queue>``.
        presence: whether the client is still connected.
        kept_headers: the headers that are kept with messages.
        default_queue: the queue of a command that names none.
        command_bytes_max: maximum size of a command.
        next_turn: waits until it is this command's turn to be worked on.
        taken: the messages that the last command has taken. A caller that renders the answer in several turns must ask
            ``LongPolls.unless_left`` about them.
    """

    core: RedisOperations
    polls: LongPolls
    check: Callable[[Access, str | None], Awaitable[None]]
    queues: Callable[[], Awaitable[list[str]]]
    stats: Callable[[str], Awaitable[Fields]]
    presence: Presence
    command_bytes_max: int
    next_turn: Callable[[], Awaitable[None]]
    kept_headers: KeptHeaders = field(default_factory=KeptHeaders)
    default_queue: str | None = None
    taken: Taken = NOTHING_TAKEN


@dataclass(slots=True, frozen=True, eq=False)
class Command:
    """A command of the protocol.

    Attributes:
        text: its description.
        answer: JSON Schema of its answer.
        names_queue: whether it acts on one queue, which its field ``queue`` or the keys of leased messages name.
        fields: its other fields, each with the kind that checks it.
        required: names of the fields that it must have.
        one_of: names of fields, of which it must have exactly one.
        needs: fields that need another field.
    """

    operation: Callable[[CommandContext, str, Fields], Awaitable[Fields]]
    access: Access
    text: str
    answer: Schema
    fields: dict[str, Kind]
    required: tuple[str, ...]
    one_of: tuple[str, ...] = ()
    needs: dict[str, str] = field(default_factory=dict)
    names_queue: bool = True


#: By name. ``command`` fills it.
COMMANDS: dict[str, Command] = {}


def command(
    access: Access,
    answer: Schema,
    fields: dict[str, Kind] | None = None,
    required: tuple[str, ...] = (),
    **rules: Any,
) -> Callable[[_Operation], _Operation]:
    """Makes a function the command of its name: ``_add`` runs ``add``. Its docstring is the command's description."""

    def add(operation: _Operation) -> _Operation:
        name, text = operation.__name__.removeprefix("_"), operation.__doc__ or ""
        COMMANDS[name] = Command(operation, access, text, answer, fields or {}, required, **rules)
        return operation

    return add


_RECEIVING: dict[str, Kind] = {
    "count": kinds.BATCH_SIZE,
    "queues": kinds.QUEUE_NAMES,
    "wait": kinds.WAIT_SECONDS,
}
_LEASED: dict[str, Kind] = {"key": kinds.MESSAGE_KEY, "receipt": kinds.RECEIPT_TEXT}
_EMPTY = ref("Empty")
_RECEIVED = any_of(
    obj(
        {"encoding": STRING, "receipt": STRING, "count": WHOLE, **NOTES},
        queue=QUEUE,
        key=KEY,
        value=STRING,
    ),
    obj(queue=QUEUE, messages=array(MESSAGE)),
    _EMPTY,
)


@command(
    PRODUCE,
    any_of(obj(queue=QUEUE, key=KEY, value=ANY_VALUE), obj(queue=QUEUE, keys=array(KEY))),
    {
        "value": kinds.ANY_JSON,
        "values": kinds.VALUES,
        "ttl": kinds.TTL_SECONDS,
        "delay": kinds.DELAY_SECONDS,
        "idempotency_key": kinds.IDEMPOTENCY_KEY,
        "headers": kinds.HEADERS,
        "content_type": kinds.CONTENT_TYPE,
    },
    one_of=("value", "values"),
)
async def _add(context: CommandContext, queue: str, fields: Fields) -> Fields:
    """Adds a message, or many in one atomic step. A value that is not a string is stored as its JSON text."""
    values = [message_of(raw, "the value") for raw in fields.get("values", [fields.get("value")])]
    is_long = sum(map(len, values)) > LONG_BYTES
    if is_long:
        await context.next_turn()
    options: tuple[Any, ...] = (fields.get("ttl", 0), fields.get("delay", 0), fields.get("idempotency_key", b""))
    if "headers" in fields or "content_type" in fields:
        options += (context.kept_headers.of_command(fields.get("headers", {}), fields.get("content_type", "")),)
    if "values" not in fields and not any(options):
        keys = [await context.core.queue_add(queue, values[0])]
    else:
        keys = await context.core.queue_add_many(queue, values, *options)
    if is_long:  # Redis may answer many at once, and the value is in the answer
        await context.next_turn()
    if "values" in fields:
        return {"queue": queue, "keys": keys}
    return {"queue": queue, "value": orjson.Fragment(bytes(fields["value"])), "key": keys[0]}


@command(CONSUME, any_of(obj({"encoding": STRING, **NOTES}, queue=QUEUE, key=KEY, value=STRING, count=WHOLE), _EMPTY))
async def _get(context: CommandContext, queue: str, _fields: Fields) -> Fields:
    """Peeks at the next message and leaves it there. Its count is the number of peeks."""
    message = await context.core.queue_get(queue, softget=True)
    return {"queue": queue, **message.fields(with_count=True)} if message else EMPTY_QUEUE


@command(CONSUME, _RECEIVED, _RECEIVING)
async def _take(context: CommandContext, queue: str, fields: Fields) -> Fields:
    """Takes the next message, or several (at-most-once)."""
    return await _receive(context, queue, fields, None)


@command(CONSUME, obj(queue=QUEUE, key=STRING, deleted=BOOLEAN), {"key": kinds.ANY_TEXT}, ("key",))
async def _del(context: CommandContext, queue: str, fields: Fields) -> Fields:
    """Deletes a message, wherever it is in the queue."""
    return {"queue": queue, "key": fields["key"], "deleted": await context.core.queue_del(queue, fields["key"])}


@command(CONSUME, _RECEIVED, {**_RECEIVING, "lease": kinds.LEASE_LENGTH})
async def _lease(context: CommandContext, queue: str, fields: Fields) -> Fields:
    """Leases the next message, or several (at-least-once)."""
    return await _receive(context, queue, fields, round(fields.get("lease", 0) * 1000))


async def _receive(context: CommandContext, queue: str, fields: Fields, lease_ms: int | None) -> Fields:
    wanted = TakeRequest(fields.get("count", 1), lease_ms)
    queues = tuple(dict.fromkeys((queue, *fields.get("queues", ()))))
    for other in queues[1:]:
        await context.check(CONSUME, other)
    context.taken = await context.polls.take_first(queues, wanted, context.presence, fields.get("wait", 0))
    queue, messages = context.taken
    if not messages:
        return EMPTY_QUEUE
    if "count" in fields:
        return {"queue": queue, "messages": [message.fields() for message in messages]}
    return {"queue": queue, **messages[0].fields()}


@command(
    CONSUME,
    any_of(
        obj(queue=QUEUE, key=KEY, acked=BOOLEAN),
        obj(queue=QUEUE, messages=array(obj(key=KEY, acked=BOOLEAN))),
    ),
    {**_LEASED, "messages": kinds.LEASES},
    one_of=("key", "messages"),
    needs={"key": "receipt", "receipt": "key"},
)
async def _ack(context: CommandContext, queue: str, fields: Fields) -> Fields:
    """Acks a leased message, which deletes it; or several of one queue, and answers for each."""
    if leases := fields.get("messages"):
        acked = await context.core.queue_ack_many(queue, leases)
        answers = [{"key": key, "acked": done} for (key, _), done in zip(leases, acked, strict=True)]
        return {"queue": queue, "messages": answers}
    await context.core.queue_ack(fields["key"], fields["receipt"])
    return {"queue": queue, "key": fields["key"], "acked": True}


@command(
    CONSUME,
    obj(queue=QUEUE, key=KEY, lease=NUMBER),
    {**_LEASED, "lease": kinds.LEASE_LENGTH},
    ("key", "receipt", "lease"),
)
async def _extend(context: CommandContext, queue: str, fields: Fields) -> Fields:
    """Extends a lease to this many seconds from now."""
    await context.core.queue_extend(fields["key"], fields["receipt"], round(fields["lease"] * 1000))
    return {"queue": queue, "key": fields["key"], "lease": fields["lease"]}


@command(
    CONSUME,
    obj(queue=QUEUE, key=KEY, nacked=BOOLEAN),
    {**_LEASED, "delay": kinds.DELAY_SECONDS, "reason": kinds.REASON},
    ("key", "receipt"),
)
async def _nack(context: CommandContext, queue: str, fields: Fields) -> Fields:
    """Nacks a leased message: it returns to its place in the queue, at once or after a delay."""
    delay_ms = round(fields["delay"] * 1000) if "delay" in fields else None
    await context.core.queue_nack(fields["key"], fields["receipt"], delay_ms, fields.get("reason", ""))
    return {"queue": queue, "key": fields["key"], "nacked": True}


@command(CONFIGURE, obj(queue=QUEUE, redriven=WHOLE), {"key": kinds.MESSAGE_KEY, "to": kinds.QUEUE_NAME})
async def _redrive(context: CommandContext, queue: str, fields: Fields) -> Fields:
    """Moves dead letters back to the end of the queue, or to another queue."""
    to = fields.get("to", "")
    if to:
        await context.check(PRODUCE, to)
    return {"queue": queue, "redriven": await context.core.queue_redrive(queue, fields.get("key", ""), to)}


@command(CONFIGURE, obj(queue=QUEUE, key=KEY, promoted=BOOLEAN), {"key": kinds.MESSAGE_KEY}, ("key",))
async def _promote(context: CommandContext, queue: str, fields: Fields) -> Fields:
    """Ends the delay of a message, which becomes ready at once."""
    key = fields["key"]
    promoted = queue_of(key) == queue and await context.core.queue_end_delay(key)
    return {"queue": queue, "key": key, "promoted": promoted}


@command(PURGE, obj(queue=QUEUE, status=ZERO_OR_ONE), {"remove": kinds.Flag()})
async def _purge(context: CommandContext, queue: str, fields: Fields) -> Fields:
    """Deletes the queue's messages in every state and disconnects its consumers; may also remove the queue itself."""
    if fields.get("remove"):
        deleted = await context.core.queue_remove(queue)
    else:
        deleted = await context.core.queue_purge(queue, close_consumers=True) > 0
    return {"queue": queue, "status": int(deleted)}


@command(CONSUME, ref("QueueStats"))
async def _stats(context: CommandContext, queue: str, _fields: Fields) -> Fields:
    """Shows the queue's counters."""
    return await context.stats(queue)


@command(CONSUME, obj(queues=array(QUEUE)), names_queue=False)
async def _list(context: CommandContext, _queue: str, _fields: Fields) -> Fields:
    """Lists the names of all queues."""
    return {"queues": await context.queues()}
