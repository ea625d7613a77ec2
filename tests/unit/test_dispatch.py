"""Parsing of commands: large integers only after the access check, and the maximum depth."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from twisted.internet.defer import Deferred, ensureDeferred

from restmq import dispatch
from restmq.auth.guard import OF_COMMANDS, Access
from restmq.dispatch import COMMANDS, DEPTH_MAX, CommandContext, parse, run, value_bytes
from restmq.errors import InvalidInput, NotAllowed
from restmq.transport import Presence


class Core:
    """Keeps what is added."""

    def __init__(self) -> None:
        self.added: list[bytes] = []

    async def queue_add(self, queue: str, value: bytes) -> str:
        self.added.append(value)
        return f"{queue}:{len(self.added)}"


def client(core: Core, *, may: bool = True) -> CommandContext:
    async def check(_access: Access, _queue: str | None) -> None:
        if not may:
            raise NotAllowed("not you.")

    unused: Any = None
    stub: Any = core
    return CommandContext(
        core=stub, polls=unused, check=check, queues=unused, stats=unused, presence=Presence(lambda: False)
    )


def answer(to: CommandContext, text: bytes) -> Any:
    """The command's answer, which must be there at once."""
    done: Deferred[Any] = ensureDeferred(run(to, parse(text), text))
    results: list[Any] = []
    done.addBoth(results.append)
    (result,) = results
    return result if isinstance(result, dict) else result.value


LARGE = 2**64 + 1


@pytest.mark.parametrize(
    "value", [LARGE, -(2**63) - 1, 10**300, [LARGE, {"a": -LARGE}], 2**64 - 1, -(2**63), 1.5, True]
)
def test_a_value_is_returned_unchanged(value: Any) -> None:
    core = Core()
    text = json.dumps({"cmd": "add", "queue": "q", "value": value}).encode()
    assert answer(client(core), text)["value"] == value
    assert [json.loads(added) for added in core.added] == [value]


def test_a_large_integer_is_read_exactly_only_after_the_access_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_text: bytes) -> Any:
        raise AssertionError("the whole command was parsed in the slow way")

    monkeypatch.setattr(dispatch.json, "loads", slow)
    core = Core()
    text = b'{"cmd": "add", "queue": "q", "value": [%d]}' % LARGE
    assert isinstance(answer(client(core, may=False), text), NotAllowed)
    assert isinstance(answer(client(core), text), AssertionError)
    # Nor for values that need it not.
    assert answer(client(core), text.replace(b"%d" % LARGE, b"1, 2.5"))["key"] == "q:1"


def test_large_commands_need_one_of_the_accesses_that_commands_require() -> None:
    assert {command.access for command in COMMANDS.values()} == set(OF_COMMANDS)


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    """A command of this number of levels."""
    return f'{{"cmd": "add", "queue": "q", "value": {opening * (levels - 1)}1{closing * (levels - 1)}}}'.encode()


@pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")])
def test_a_command_of_the_maximum_depth_is_run_and_answered(brackets: tuple[str, str]) -> None:
    core = Core()
    text = nested(DEPTH_MAX, *brackets)
    assert orjson.dumps(answer(client(core), text)["value"]) == core.added[0]
    assert text.endswith(core.added[0] + b"}")
    assert answer(client(core), text.replace(b"1", b"%d" % LARGE))["value"] == json.loads(core.added[1])


@pytest.mark.parametrize("levels", [DEPTH_MAX + 1, 960, 1023, 1024, 1025, 1_000_000])
@pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")])
def test_a_deeper_command_is_rejected_before_anything_is_done(levels: int, brackets: tuple[str, str]) -> None:
    with pytest.raises(InvalidInput):
        parse(nested(levels, *brackets))


def test_brackets_in_a_string_do_not_count_as_levels() -> None:
    value = "[" * 10_000
    assert parse(json.dumps({"cmd": "add", "value": value}).encode())["value"] == value


def test_a_value_is_kept_as_compact_json() -> None:
    assert value_bytes({"a": ["ü", None, LARGE]}) == '{"a":["ü",null,18446744073709551617]}'.encode()
    assert value_bytes({"a": ["ü", None]}) == '{"a":["ü",null]}'.encode()
