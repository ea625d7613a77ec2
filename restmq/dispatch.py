"""The JSON protocol: an explicit table from a command's name to an operation.

A command is an object with ``cmd`` and its fields, e.g. ``{"cmd": "add", "queue": "jobs", "value": "dig"}``. Its
answer is an object too. Which names there are, which fields they have and what access they ask for stands in
``COMMANDS``; nothing that a client sends is ever looked up as an attribute.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from restmq.access import CONSUME, PRODUCE, Access
from restmq.core import RedisOperations
from restmq.errors import InvalidInput
from restmq.longpoll import LongPolls, Presence, Wish
from restmq.model import (
    BATCH_MAX,
    DELAY_SECONDS_MAX,
    IDEMPOTENCY_KEY_BYTES_MAX,
    LEASE_SECONDS_MAX,
    TTL_SECONDS_MAX,
    WAIT_SECONDS_MAX,
    Message,
    check_queue_name,
    queue_of,
)

EMPTY_QUEUE = {"error": "empty queue"}

Fields = dict[str, Any]
Check = Callable[[str, Any], Any]


@dataclass(slots=True)
class Client:
    """Who gives a command, and what it is run on.

    Attributes:
        check: raises if the client may not have this access to this queue; None for no single queue.
        queues: the names of all queues that the client may know of.
        stats: a queue in numbers, as a JSON answer.
        presence: whether it is still there.
        default_queue: the queue of a command that names none.
    """

    core: RedisOperations
    polls: LongPolls
    check: Callable[[Access, str | None], Awaitable[None]]
    queues: Callable[[], Awaitable[list[str]]]
    stats: Callable[[str], Awaitable[Fields]]
    presence: Presence
    default_queue: str | None = None


@dataclass(slots=True, frozen=True)
class Command:
    """A command of the protocol.

    Attributes:
        names_queue: whether it is about one queue, which its field ``queue`` or its ``key`` names.
        fields: what else it may have, each with a check that returns the value to use or raises InvalidInput.
        required: which of these it must have.
    """

    operation: Callable[[Client, str, Fields], Awaitable[Fields]]
    access: Access
    fields: dict[str, Check] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    names_queue: bool = True


# Checks of fields


def _any(_name: str, value: Any) -> Any:
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"the field {name!r} must be a string.")
    return value


def _idempotency_key(name: str, value: Any) -> bytes:
    encoded = _text(name, value).encode()
    if not 0 < len(encoded) <= IDEMPOTENCY_KEY_BYTES_MAX:
        raise InvalidInput(f"the field {name!r} must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes.")
    return encoded


def _values(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not 0 < len(value) <= BATCH_MAX:
        raise InvalidInput(f"the field {name!r} must be an array of 1 to {BATCH_MAX} values.")
    return value


def _number(least: float, most: float) -> Check:
    def check(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise InvalidInput(f"the field {name!r} must be a number from {least:g} to {most:g}.")
        return value

    return check


def _whole(least: int, most: int) -> Check:
    def check(name: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InvalidInput(f"the field {name!r} must be a whole number from {least} to {most}.")
        return value

    return check


# Operations


async def _add(client: Client, queue: str, fields: Fields) -> Fields:
    if ("value" in fields) == ("values" in fields):
        raise InvalidInput("the command 'add' needs the field 'value', or 'values' for many messages, and not both.")
    values = [value_bytes(value) for value in fields.get("values", [fields.get("value")])]
    options = (fields.get("ttl", 0), fields.get("delay", 0), fields.get("idempotency_key", b""))
    if "values" not in fields and not any(options):
        keys = [await client.core.queue_add(queue, values[0])]
    else:
        keys = await client.core.queue_add_many(queue, values, *options)
    if "values" in fields:
        return {"queue": queue, "keys": keys}
    return {"queue": queue, "value": fields["value"], "key": keys[0]}


async def _get(client: Client, queue: str, _fields: Fields) -> Fields:
    message = await client.core.queue_get(queue, softget=True)
    return {"queue": queue, **message.fields(), "count": message.count} if message else EMPTY_QUEUE


async def _take(client: Client, queue: str, fields: Fields) -> Fields:
    return await _receive(client, queue, fields, None)


async def _lease(client: Client, queue: str, fields: Fields) -> Fields:
    return await _receive(client, queue, fields, round(fields.get("lease", 0) * 1000))


async def _receive(client: Client, queue: str, fields: Fields, lease_ms: int | None) -> Fields:
    wish = Wish(fields.get("count", 1), lease_ms)
    messages = await client.polls.take(queue, wish, fields.get("wait", 0), client.presence)
    if client.presence.left and messages:
        await client.core.queue_return(queue, messages)
        return EMPTY_QUEUE
    return _received(queue, messages, "count" in fields)


def _received(queue: str, messages: list[Message], many: bool) -> Fields:
    if not messages:
        return EMPTY_QUEUE
    if many:
        return {"queue": queue, "messages": [message.fields() for message in messages]}
    return {"queue": queue, **messages[0].fields()}


async def _delete(client: Client, queue: str, fields: Fields) -> Fields:
    return {"queue": queue, "key": fields["key"], "deleted": await client.core.queue_del(queue, fields["key"])}


async def _ack(client: Client, queue: str, fields: Fields) -> Fields:
    await client.core.queue_ack(fields["key"], fields["receipt"])
    return {"queue": queue, "key": fields["key"], "acked": True}


async def _extend(client: Client, queue: str, fields: Fields) -> Fields:
    await client.core.queue_extend(fields["key"], fields["receipt"], round(fields["lease"] * 1000))
    return {"queue": queue, "key": fields["key"], "lease": fields["lease"]}


async def _nack(client: Client, queue: str, fields: Fields) -> Fields:
    await client.core.queue_nack(fields["key"], fields["receipt"])
    return {"queue": queue, "key": fields["key"], "nacked": True}


async def _stats(client: Client, queue: str, _fields: Fields) -> Fields:
    return await client.stats(queue)


async def _list(client: Client, _queue: str, _fields: Fields) -> Fields:
    return {"queues": await client.queues()}


_LEASE_SECONDS = _number(1, LEASE_SECONDS_MAX)
_RECEIVING: dict[str, Check] = {"count": _whole(1, BATCH_MAX), "wait": _number(0, WAIT_SECONDS_MAX)}
_LEASED: dict[str, Check] = {"key": _text, "receipt": _text}

COMMANDS: dict[str, Command] = {
    "add": Command(
        _add,
        PRODUCE,
        {
            "value": _any,
            "values": _values,
            "ttl": _number(0, TTL_SECONDS_MAX),
            "delay": _number(0, DELAY_SECONDS_MAX),
            "idempotency_key": _idempotency_key,
        },
    ),
    "get": Command(_get, CONSUME),
    "take": Command(_take, CONSUME, _RECEIVING),
    "del": Command(_delete, CONSUME, {"key": _text}, ("key",)),
    "lease": Command(_lease, CONSUME, {**_RECEIVING, "lease": _LEASE_SECONDS}),
    "ack": Command(_ack, CONSUME, _LEASED, ("key", "receipt")),
    "extend": Command(_extend, CONSUME, {**_LEASED, "lease": _LEASE_SECONDS}, ("key", "receipt", "lease")),
    "nack": Command(_nack, CONSUME, _LEASED, ("key", "receipt")),
    "stats": Command(_stats, CONSUME),
    "list": Command(_list, CONSUME, names_queue=False),
}


def parse(text: bytes) -> Fields:
    """The command that the text holds. Raises InvalidInput if it is no JSON object, or not in UTF-8."""
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the command is not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise InvalidInput('a command is a JSON object such as {"cmd": "get", "queue": "test"}.')
    exact = [name for name in ("value", "values") if not isinstance(fields.get(name, ""), str)]
    if exact:
        # orjson makes floats of integers beyond 64 bits; a value comes back as it went in.
        try:
            as_sent = json.loads(text)
        except RecursionError:
            raise InvalidInput("the value is nested too deeply.") from None
        fields |= {name: as_sent[name] for name in exact}
    return fields


async def run(client: Client, fields: Fields) -> Fields:
    """Runs one command and returns its answer.

    Raises:
        InvalidInput: no ``cmd``, an unknown one, a field missing or of the wrong kind; and what the operation raises.
    """
    name = fields.get("cmd")
    if name is None:
        raise InvalidInput("the command has no 'cmd'; name one of " + ", ".join(COMMANDS) + ".")
    command = COMMANDS.get(name) if isinstance(name, str) else None
    if command is None:
        raise InvalidInput("unknown 'cmd'; there are " + ", ".join(COMMANDS) + ".")
    queue = _queue(client, command, fields) if command.names_queue else None
    for needed in command.required:
        if needed not in fields:
            raise InvalidInput(f"the command {name!r} needs the field {needed!r}.")
    checked = {known: check(known, fields[known]) for known, check in command.fields.items() if known in fields}
    if "receipt" in checked and queue_of(checked["key"]) != queue:
        raise InvalidInput("the field 'key' names a message of another queue than 'queue' does.")
    await client.check(command.access, queue)
    return await command.operation(client, queue or "", checked)


def _queue(client: Client, command: Command, fields: Fields) -> str:
    """The queue that is meant: the one named, or that of the receipt's key, or the one where the client is."""
    queue = fields.get("queue")
    if queue is None and "receipt" in command.fields and isinstance(fields.get("key"), str):
        return queue_of(fields["key"])
    if queue is None:
        queue = client.default_queue
    if queue is None:
        raise InvalidInput("the command has no 'queue'.")
    return check_queue_name(queue)


def value_bytes(value: Any) -> bytes:
    """A string's own bytes; any other JSON value as compact JSON text."""
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
