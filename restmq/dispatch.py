"""Reads and runs JSON commands. Nothing that a client sends is ever looked up as an attribute."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from typing import TypeVar

from msgspec import Raw

from restmq.commands import COMMANDS, LONG_BYTES, Command, CommandContext, Fields
from restmq.delivery.lines import NOTHING_TAKEN
from restmq.errors import InvalidInput, TooLong
from restmq.model import check_queue_name, queue_of
from restmq.schema.json_input import ObjectReader, command_field, plain
from restmq.schema.names import check_names

_OBJECT = re.compile(rb"[ \t\r\n]*\{")

_Parsed = TypeVar("_Parsed")


@cache
def _known_fields(command: Command) -> frozenset[str]:
    return frozenset(("cmd", "id", "queue", *command.fields))


@cache
def _reader() -> ObjectReader:
    """The reader of all commands. It is made when the first command comes, so more commands can be added before."""
    return ObjectReader(sorted(frozenset[str]().union(*map(_known_fields, COMMANDS.values()))))


async def read(context: CommandContext, text: bytes) -> dict[str, Raw]:
    """The fields of a command, still as JSON text.

    Raises:
        TooLong: it is longer than its maximum.
        InvalidInput: it is not a JSON object in UTF-8.
    """
    return await _parse(context, text, _reader().read)


async def read_if_command(context: CommandContext, text: bytes) -> dict[str, Raw] | None:
    """The same for a text that may be something else: None if it is not a JSON object with ``cmd``."""
    if _OBJECT.match(text) is None:
        return None
    return await _parse(context, text, partial(_reader().read_if_has, "cmd"))


async def _parse(context: CommandContext, text: bytes, parse: Callable[[bytes, str], _Parsed]) -> _Parsed:
    check_size(text, context.command_bytes_max)
    if len(text) <= LONG_BYTES:
        return parse(text, "the command")
    await context.next_turn()
    fields = parse(text, "the command")
    await context.next_turn()
    return fields


def check_size(text: bytes, bytes_max: int) -> None:
    """Raises TooLong for a command above the limit."""
    if len(text) > bytes_max:
        raise TooLong(f"a command may have {bytes_max} bytes; send a long message to /q/<queue> instead.")


async def run(context: CommandContext, fields: dict[str, Raw]) -> Fields:
    """Runs one command and returns its answer.

    Args:
        fields: as ``read`` returns them.

    Raises:
        InvalidInput: ``cmd`` is missing or unknown, or a field is missing or invalid; also the operation's errors.
    """
    if "cmd" not in fields:
        raise InvalidInput("the command has no 'cmd'; use one of " + ", ".join(COMMANDS) + ".")
    name = plain("cmd", fields["cmd"])
    command = COMMANDS.get(name) if isinstance(name, str) else None
    if command is None:
        raise InvalidInput("unknown 'cmd'; use one of " + ", ".join(COMMANDS) + ".")
    if command.one_of and sum(one in fields for one in command.one_of) != 1:
        raise InvalidInput(
            f"the command {name!r} needs exactly one of the fields {', '.join(map(repr, command.one_of))}."
        )
    for needed in command.required:
        if needed not in fields:
            raise InvalidInput(f"the command {name!r} needs the field {needed!r}.")
    for known, needed in command.needs.items():
        if known in fields and needed not in fields:
            raise InvalidInput(f"with the field {known!r} the command {name!r} needs the field {needed!r}.")
    check_names(fields.keys() - _known_fields(command), _known_fields(command))
    checked = {
        known: command_field(kind, known, fields[known]) for known, kind in command.fields.items() if known in fields
    }
    queue = _queue(context, fields, checked) if command.names_queue else None
    context.taken = NOTHING_TAKEN
    await context.check(command.access, queue)
    return await command.operation(context, queue or "", checked)


def _queue(context: CommandContext, fields: dict[str, Raw], checked: Fields) -> str:
    """The command's queue: from ``queue``, from the keys of leased messages, or the context's default."""
    keys = [checked["key"]] if "receipt" in checked else [key for key, _ in checked.get("messages", ())]
    named = {queue_of(key) for key in keys}
    if "queue" in fields:
        named.add(check_queue_name(plain("queue", fields["queue"])))
    if len(named) > 1:
        raise InvalidInput("the command names messages of several queues; send a command for each queue.")
    if named:
        return named.pop()
    if context.default_queue is None:
        raise InvalidInput("the command has no 'queue'; name one.")
    return context.default_queue
