"""One word for one thing: a public name has one meaning in all of RestMQ."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "restmq"


def justified_names() -> set[str]:
    """The names that docs/architecture.md lists with a reason."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.partition("\n## Names with more than one definition\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def public_names(path: Path) -> Iterator[str]:
    """The classes, functions and constants that a module defines."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_a_public_name_that_is_defined_twice_has_its_reason_in_the_architecture_page() -> None:
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in public_names(path):
            if not name.startswith("_"):
                places[name].append(path.relative_to(PACKAGE).as_posix())
    repeated = {name: modules for name, modules in places.items() if len(modules) > 1}
    assert {name: modules for name, modules in repeated.items() if name not in justified_names()} == {}
    assert repeated.keys() >= justified_names()
