"""The order of the packages, and that imports form no circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

#: Packages and top-level modules; those of one line do not import each other.
ORDER = [
    {"errors", "transport", "__init__"},
    {"model"},
    {"store"},
    {"queues"},
    {"core"},
    {"http", "schema"},
    {"auth"},
    {"delivery"},
    {"commands", "monitoring"},
    {"dispatch"},
    {"handlers"},
    {"web"},
    {"server"},
    {"frontends"},
]
#: The client side needs nothing of the server but its errors and names.
CLIENT_SIDE = {"client": {"__init__", "errors", "model"}, "cli": {"__init__", "errors", "model", "client"}}


def modules() -> dict[str, Path]:
    """All modules by their dotted name without ``restmq``; a package's ``__init__`` has the package's name."""
    found = {}
    for path in sorted((ROOT / "restmq").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "restmq").with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


@cache
def imports(path: Path) -> set[str]:
    """The modules of RestMQ that a file imports, also those that only type checkers import."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "restmq":
            inner = node.module.removeprefix("restmq").removeprefix(".")
            for alias in node.names:
                full = f"{inner}.{alias.name}".strip(".")
                names.add(full if full in MODULES else inner or "__init__")
    return names


def package_of(module: str) -> str:
    return module.split(".")[0]


def test_every_package_has_its_place() -> None:
    known = set().union(*ORDER) | set(CLIENT_SIDE) | {"__main__"}
    assert {package_of(module) for module in MODULES} == known


@pytest.mark.parametrize("level", range(len(ORDER)))
def test_a_package_imports_only_from_packages_before_it(level: int) -> None:
    before = set().union(*ORDER[:level])
    for module, path in MODULES.items():
        package = package_of(module)
        if package in ORDER[level]:
            assert {package_of(name) for name in imports(path)} <= before | {package}, module


@pytest.mark.parametrize("package", sorted(CLIENT_SIDE))
def test_the_client_side_imports_nothing_of_the_server(package: str) -> None:
    for module, path in MODULES.items():
        if package_of(module) == package:
            assert {package_of(name) for name in imports(path)} <= CLIENT_SIDE[package] | {package}, module


def test_no_imports_form_a_circle() -> None:
    imported = {module: {name for name in imports(path) if name != module} for module, path in MODULES.items()}
    while free := [module for module, names in imported.items() if not names & imported.keys()]:
        for module in free:
            del imported[module]
    assert not imported


def test_the_command_line_starts_without_twisted() -> None:
    code = "import sys, restmq.cli; print([name for name in sys.modules if name.startswith(('twisted', 'zope'))])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown == "[]\n"


def test_only_one_module_knows_the_redis_client() -> None:
    users = {name for name, path in MODULES.items() if "import txredisapi" in path.read_text()}
    assert users == {"store.connection"}
