"""The order of the rooms: each may import only from those above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

ROOMS = [
    "__init__",
    "errors",
    "model",
    "keys",
    "policy",
    "scripts",
    "connection",
    "store",
    "launch",
    "embedded",
    "operations",
    "leasing",
    "peeking",
    "tokens",
    "core",
    "deadlines",
    "longpoll",
    "acl",
    "access",
    "dispatch",
    "render",
    "consumer",
    "fanout",
    "observe",
    "request",
    "http",
    "wire",
    "handlers.base",
    "handlers.queues",
    "handlers.messages",
    "handlers.settings",
    "handlers.commands",
    "handlers.live",
    "handlers.websocket",
    "handlers.pages",
    "handlers.dashboard",
    "web",
    "options",
    "service",
    "tap",
]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "restmq").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "restmq").with_suffix("").parts)
        if name != "handlers.__init__":
            found[name] = path
    return found


def imports(path: Path) -> set[str]:
    """The modules of RestMQ that a file imports, but for those that only type checkers see."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "restmq":
            inner = node.module.removeprefix("restmq").removeprefix(".")
            for alias in node.names:
                full = f"{inner}.{alias.name}".strip(".")
                names.add(full if full in ROOMS else inner or "__init__")
    return names


def test_every_module_has_its_place() -> None:
    assert set(modules()) == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_above(room: str) -> None:
    above = set(ROOMS[: ROOMS.index(room)])
    assert imports(modules()[room]) <= above


def test_only_one_room_knows_the_redis_client() -> None:
    users = {name for name, path in modules().items() if "import txredisapi" in path.read_text()}
    assert users == {"connection"}
