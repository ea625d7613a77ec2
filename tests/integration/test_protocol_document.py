"""docs/protocol.md contains everything that the API's description contains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from restmq.commands import COMMANDS
from restmq.handlers.openapi import describe
from restmq.handlers.websocket_connection import CLOSE_CODES
from restmq.model import DEAD_LETTER, SETTINGS
from restmq.schema.answers import SHAPES
from restmq.web import ROUTES
from tests.servers import ROOT

PAGE = (ROOT / "docs" / "protocol.md").read_text()
DESCRIPTION = describe(ROUTES)
PATHS: dict[str, Any] = DESCRIPTION["paths"]


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for template, path in PATHS.items():
        for method, operation in path.items():
            if method in ("get", "post", "delete"):
                yield method.upper(), template, operation


def members(schema: Any) -> set[str]:
    """The names of all members that a schema's objects may have, without names of queues."""
    if isinstance(schema, list):
        return set().union(*map(members, schema))
    if not isinstance(schema, dict):
        return set()
    inner = set().union(*(members(part) for name, part in schema.items() if name != "properties"))
    properties = schema.get("properties", {})
    return inner | set(properties) | set().union(*map(members, properties.values()))


def words(text: str) -> set[str]:
    """All words in the code spans of a text."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return set(re.findall(r"[\w-]+", " ".join(re.findall(r"`[^`]+`", text))))


CODE = words(PAGE)


@pytest.mark.parametrize(
    ("method", "template"), [(method, template) for method, template, _ in operations()], ids=lambda word: word
)
def test_every_route_is_documented(method: str, template: str) -> None:
    shown = template.replace("{queue}", "Q").replace("{key}", "K").replace("{file}", "…")
    assert re.search(rf"`{method} {re.escape(shown)}[`?,]", PAGE) or (
        template == "/queue/{queue}" and "`/queue/Q`" in PAGE
    )


def test_every_parameter_and_field_is_documented() -> None:
    for method, template, operation in operations():
        named = {parameter["name"] for parameter in operation.get("parameters", [])}
        for body in operation.get("requestBody", {}).get("content", {}).values():
            named |= members(body["schema"])
        assert named - CODE == set(), (method, template)


def test_every_status_is_documented() -> None:
    answered = {status for _, _, operation in operations() for status in operation["responses"]}
    assert {status for status in answered if not re.search(rf"\b{status}\b", PAGE)} == set()


def test_every_member_of_an_answer_is_documented() -> None:
    found = members(list(SHAPES.values()))
    for _, _, operation in operations():
        found |= members(operation["responses"])
    assert found - CODE == set()


def test_every_command_is_documented_with_its_fields() -> None:
    table = PAGE.partition("\n## Commands\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", table, re.MULTILINE))
    assert set(COMMANDS) == set(rows)
    for name, command in COMMANDS.items():
        assert words(rows[name]) == set(command.fields), name


def test_every_setting_is_documented_with_its_maximum() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.partition("\n| setting |")[2], re.MULTILINE))
    assert set(rows) == {*SETTINGS, DEAD_LETTER}
    for name, most in SETTINGS.items():
        assert rows[name].endswith(f"up to {most:,}"), name


def test_every_close_code_is_documented() -> None:
    told = set(re.findall(r"^\| (1\d{3}) \|", PAGE, re.MULTILINE))
    assert told == {"1009", "1011"} | {str(code) for code in CLOSE_CODES.values()}
