"""The JSON protocol: an explicit table from a command's name to an operation.

A command is an object with ``cmd`` and its fields, e.g. ``{"cmd": "add", "queue": "jobs", "value": "dig"}``. Its
answer is an object too. Which names there are, which fields they need and what access they ask for stands in
``COMMANDS``; nothing that a client sends is ever looked up as an attribute.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from restmq.access import CONSUME, PRODUCE, Access
from restmq.core import RedisOperations
from restmq.errors import InvalidInput
from restmq.model import check_queue_name

EMPTY_QUEUE = {"error": "empty queue"}

Fields = dict[str, Any]
Check = Callable[[Access, str], Awaitable[None]]
Operation = Callable[[RedisOperations, str, Fields], Awaitable[Fields]]


@dataclass(slots=True, frozen=True)
class Command:
    """A command of the protocol."""

    operation: Operation
    access: Access
    required: tuple[str, ...] = ()


async def _add(core: RedisOperations, queue: str, fields: Fields) -> Fields:
    key = await core.queue_add(queue, _value_bytes(fields["value"]))
    return {"queue": queue, "value": fields["value"], "key": key}


async def _get(core: RedisOperations, queue: str, _fields: Fields) -> Fields:
    message = await core.queue_get(queue, softget=True)
    return {"queue": queue, **message.fields(), "count": message.count} if message else EMPTY_QUEUE


async def _take(core: RedisOperations, queue: str, _fields: Fields) -> Fields:
    message = await core.queue_getdel(queue)
    return {"queue": queue, **message.fields()} if message else EMPTY_QUEUE


async def _delete(core: RedisOperations, queue: str, fields: Fields) -> Fields:
    key = _string(fields, "key")
    return {"queue": queue, "key": key, "deleted": await core.queue_del(queue, key)}


COMMANDS: dict[str, Command] = {
    "add": Command(_add, PRODUCE, ("value",)),
    "get": Command(_get, CONSUME),
    "take": Command(_take, CONSUME),
    "del": Command(_delete, CONSUME, ("key",)),
}


def parse(text: bytes) -> Fields:
    """The command that the text holds. Raises InvalidInput if it is no JSON object, or not in UTF-8."""
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the command is not valid JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise InvalidInput('a command is a JSON object such as {"cmd": "get", "queue": "test"}.')
    if not isinstance(fields.get("value", ""), str):
        # orjson makes floats of integers beyond 64 bits; a value comes back as it went in.
        try:
            fields["value"] = json.loads(text)["value"]
        except RecursionError:
            raise InvalidInput("the value is nested too deeply.") from None
    return fields


async def run(core: RedisOperations, fields: Fields, check: Check, default_queue: str | None = None) -> Fields:
    """Runs one command and returns its answer.

    Args:
        check: raises if the client may not have this access to this queue.
        default_queue: the queue if the command names none.

    Raises:
        InvalidInput: no ``cmd``, an unknown one, a field missing or of the wrong kind; and what the operation raises.
    """
    name = fields.get("cmd")
    if name is None:
        raise InvalidInput("the command has no 'cmd'; name one of " + ", ".join(COMMANDS) + ".")
    command = COMMANDS.get(name) if isinstance(name, str) else None
    if command is None:
        raise InvalidInput("unknown 'cmd'; there are " + ", ".join(COMMANDS) + ".")
    if fields.get("queue", default_queue) is None:
        raise InvalidInput("the command has no 'queue'.")
    queue = check_queue_name(fields.get("queue", default_queue))
    for field in command.required:
        if field not in fields:
            raise InvalidInput(f"the command {name!r} needs the field {field!r}.")
    await check(command.access, queue)
    return await command.operation(core, queue, fields)


def _value_bytes(value: Any) -> bytes:
    """A string's own bytes; any other JSON value as compact JSON text."""
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _string(fields: Fields, name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise InvalidInput(f"the field {name!r} must be a string.")
    return value
