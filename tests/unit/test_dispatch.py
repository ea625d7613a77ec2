"""JSON commands: values keep their text, fields are checked, and large or deep commands cost little."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from collections.abc import Coroutine
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from restmq.auth.guard import OF_COMMANDS, Access
from restmq.commands import COMMANDS, CommandContext
from restmq.dispatch import read, read_if_command, run
from restmq.errors import InvalidInput, NotAllowed, TooLong
from restmq.schema.encoding import to_json
from restmq.transport import Presence


class Core:
    """Keeps what is added."""

    def __init__(self) -> None:
        self.added: list[bytes] = []
        self.turns = 0

    async def queue_add(self, queue: str, value: bytes) -> str:
        self.added.append(value)
        return f"{queue}:{len(self.added)}"

    async def queue_add_many(self, queue: str, values: list[bytes], *_options: Any) -> list[str]:
        return [await self.queue_add(queue, value) for value in values]


def client(core: Core, *, may: bool = True, command_bytes_max: int = 1 << 24) -> CommandContext:
    async def check(_access: Access, _queue: str | None) -> None:
        if not may:
            raise NotAllowed("not you.")

    async def next_turn() -> None:
        core.turns += 1

    unused: Any = None
    stub: Any = core
    return CommandContext(
        core=stub,
        polls=unused,
        check=check,
        queues=unused,
        stats=unused,
        presence=Presence(lambda: False),
        command_bytes_max=command_bytes_max,
        next_turn=next_turn,
    )


def answer(to: CommandContext, text: bytes) -> Any:
    """The command's answer, which must be there at once; or the error."""
    result = result_of(_run(to, text))
    return result.value if isinstance(result, Failure) else result


async def _run(to: CommandContext, text: bytes) -> Any:
    return await run(to, await read(to, text))


def read_now(text: bytes, bytes_max: int = 1 << 24) -> Any:
    """The fields of a text if it is a command, which must be there at once; raises the error."""
    result = result_of(read_if_command(client(Core(), command_bytes_max=bytes_max), text))
    if isinstance(result, Failure):
        result.raiseException()
    return result


def result_of(coroutine: Coroutine[Any, Any, Any]) -> Any:
    done: Deferred[Any] = ensureDeferred(coroutine)
    results: list[Any] = []
    done.addBoth(results.append)
    (result,) = results
    return result


@pytest.mark.parametrize(
    "value",
    [
        b"3.14159265358979323846",
        b"1.10",
        b"1e2",
        b"-0",
        b"1e400",
        b"18446744073709551617",
        b"-" + b"9" * 5000,
        b'{"a": 1, "a": 2}',
        b"[ 1,\t2 ]",
        b"true",
        b"null",
        '["ü"]'.encode(),
    ],
)
def test_a_value_that_is_no_string_keeps_its_json_text_exactly(value: bytes) -> None:
    core = Core()
    answered = answer(client(core), b'{"cmd": "add", "queue": "q", "value": %b }' % value)
    assert core.added == [value]
    assert to_json(answered) == b'{"queue":"q","value":%b,"key":"q:1"}' % value
    many = answer(client(core), b'{"cmd": "add", "queue": "q", "values": [1, %b]}' % value)
    assert core.added[1:] == [b"1", value]
    assert many == {"queue": "q", "keys": ["q:2", "q:3"]}


@pytest.mark.parametrize(("text", "value"), [(b'"1.10"', "1.10"), (b'"\\u00fc\\n"', "ü\n"), (b'""', "")])
def test_a_string_is_stored_as_its_text(text: bytes, value: str) -> None:
    core = Core()
    answered = answer(client(core), b'{"cmd": "add", "queue": "q", "value": %b}' % text)
    assert core.added == [value.encode()]
    assert json.loads(to_json(answered))["value"] == value


def test_what_commands_ask_for_is_what_large_ones_are_let_in_for() -> None:
    assert {command.access for command in COMMANDS.values()} == set(OF_COMMANDS)


def test_a_deep_command_is_run_and_a_deeper_one_is_rejected() -> None:
    core = Core()
    for deep, is_added in ((500, True), (2000, False), (1_000_000, False)):
        value = b"[" * deep + b"]" * deep
        text = b'{"cmd": "add", "queue": "q", "value": %b}' % value
        if is_added:
            assert answer(client(core), text)["key"] == "q:1"
            assert core.added == [value]
        else:
            with pytest.raises(InvalidInput, match="nested too deeply"):
                raise answer(client(core), text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"cmd": "add", "queue": "q", "value": "\xff"}',
        b'{"cmd": "add", "queue": "q", "value": ["\xff"]}',
        b'{"cmd": "add", "queue": "q", "values": ["\xff"]}',
        b'{"cmd": "add", "queue": "\xff", "value": 1}',
        b'{"cmd": "add", "queue": "q", "value": 1, "\xff": 2}',
    ],
)
def test_a_command_that_is_not_utf_8_is_rejected(text: bytes) -> None:
    core = Core()
    with pytest.raises(InvalidInput, match="UTF-8"):
        raise answer(client(core), text)
    assert core.added == []


def test_large_arrays_and_objects_become_no_python_objects() -> None:
    lists, members = b"[],", b'"":1,'
    texts = [
        b'{"cmd": "add", "queue": "q", "value": [%b1]}' % (lists * 1_000_000),
        b'{"cmd": "add", "queue": "q", "values": [%b1]}' % (lists * 1_000_000),
        b'{"cmd": "take", "count": [%b1]}' % (lists * 1_000_000),
        b'{"cmd": "take", %b"id": [%b1]}' % (members * 1_000_000, lists * 1_000_000),
    ]
    tracemalloc.start()
    try:
        for text in texts:
            with contextlib.suppress(InvalidInput):
                assert read_now(text) is not None
            with contextlib.suppress(InvalidInput):
                answer(client(Core()), text)
            assert tracemalloc.get_traced_memory()[1] < 4 * len(text)
            tracemalloc.clear_traces()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"cmd": "lease", "leese": 5}, "did you mean 'lease'"),
        ({"cmd": "add", "value": "v", "dealy": 5}, "did you mean 'delay'"),
        ({"cmd": "take", "lease": 30}, "unknown parameter 'lease'"),
        ({"cmd": "get", "key": "q:1"}, "unknown parameter 'key'"),
        ({"cmd": "take", **{f"x{number}": 1 for number in range(21)}}, "more than 20 unknown"),
    ],
)
def test_a_field_that_the_command_does_not_have_is_rejected_if_it_may_be_meant(
    fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidInput, match=problem):
        raise answer(client(Core()), json.dumps({"queue": "q", **fields}).encode())


def test_other_unknown_fields_are_ignored_as_they_always_were() -> None:
    core = Core()
    text = b'{"cmd": "add", "queue": "q", "value": "v", "comment": "old", "softget": 1, "": 2}'
    assert answer(client(core), text)["key"] == "q:1"


def test_a_long_command_is_parsed_read_run_and_answered_in_turns_of_their_own() -> None:
    for size, turns in ((100, 0), (100_000, 4)):
        for member in (b'"value": "%b"', b'"values": ["%b"]'):
            core = Core()
            answer(client(core), b'{"cmd": "add", "queue": "q", %b}' % (member % (b"x" * size)))
            assert (len(core.added), core.turns) == (1, turns)


def test_a_text_is_a_command_if_it_is_an_object_with_cmd() -> None:
    for text in (b"hello", b'"cmd"', b'["cmd"]', b'{"command": 1}', b'{"cmd": ', b"{", b"", b'{"a": {"cmd": "get"}}'):
        assert read_now(text, 100) is None
    assert read_now(b' \r\n\t{"cmd": "get"}', 100) is not None


def test_a_command_has_a_maximum_length_and_other_texts_have_none() -> None:
    assert read_now(b"[" * 1000, 100) is None
    with pytest.raises(TooLong, match="100 bytes"):
        read_now(b'{"cmd": "add", "value": "%b"}' % (b"x" * 100), 100)


def test_a_large_command_has_no_unknown_fields() -> None:
    many = b",".join(b'"k%d": 1' % number for number in range(11_000))
    with pytest.raises(InvalidInput, match="omit its unknown members"):
        raise answer(client(Core()), b'{"cmd": "take", %b}' % many)
    with pytest.raises(InvalidInput, match="omit its unknown members"):
        read_now(b'{"cmd": "take", %b}' % many)
    assert read_now(b"{%b}" % many) is None
