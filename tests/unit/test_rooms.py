"""The order of the rooms: each may import only from those above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

ROOMS = [
    "__init__",
    "errors",
    "transport",
    "model",
    "store.keys",
    "delivery.tasks",
    "store.scripts",
    "store.settings",
    "store.connection",
    "store.replication",
    "store.subscriber",
    "store.pool",
    "store.batching",
    "server.child",
    "server.embedded_redis",
    "queues.base",
    "queues.results",
    "queues.leases",
    "queues.peek",
    "queues.tokens",
    "core",
    "monitoring.peers",
    "delivery.timers",
    "delivery.longpoll",
    "auth.acl",
    "auth.guard",
    "schema.encoding",
    "schema.fields",
    "schema.answers",
    "dispatch",
    "delivery.backpressure",
    "delivery.consumer",
    "delivery.replay",
    "delivery.subscription",
    "delivery.fanout",
    "delivery.revocation",
    "monitoring.listeners",
    "monitoring.queue_counters",
    "monitoring.dashboard_feed",
    "http.response",
    "http.forms",
    "http.request",
    "http.parser",
    "http.connection",
    "http.server",
    "auth.origins",
    "monitoring.access_log",
    "monitoring.request_counters",
    "monitoring.ledger",
    "monitoring.worker_counters",
    "monitoring.metrics",
    "handlers.declare",
    "handlers.error_status",
    "handlers.base",
    "handlers.parameters",
    "handlers.queues",
    "handlers.messages",
    "handlers.settings",
    "handlers.commands",
    "handlers.streams",
    "handlers.websocket",
    "handlers.health",
    "handlers.pages",
    "handlers.dashboard",
    "handlers.openapi",
    "web",
    "server.options",
    "server.daemon",
    "server.workers",
    "server.service",
    "frontends.collectd",
    "frontends.syslog.message",
    "frontends.syslog.framing",
    "frontends.syslog.spool",
    "frontends.syslog.receiver",
    "frontends.syslog.daemon",
    "server.tap",
    # The client, and the command line on it: on any machine, with nothing of the server but its words.
    "client.errors",
    "client.server",
    "client.exchange",
    "client.calls",
    "client.stream",
    "client.connections",
    "client.blocking",
    "client",
    "client.agent",
    "client.deferred",
    "cli.arguments",
    "cli.output",
    "cli.messages",
    "cli.jobs",
    "cli.work",
    "cli.queues",
    "cli.watch",
    "cli.bench",
    "cli.completion",
    "cli",
    "__main__",
]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "restmq").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "restmq").with_suffix("").parts).removesuffix(".__init__")
        if path.name != "__init__.py" or name in ("__init__", "client", "cli"):  # others hold a docstring alone
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


def test_the_client_needs_nothing_of_the_server_but_its_words() -> None:
    shared = {"__init__", "errors", "model"}
    clients = {room for room in ROOMS if room.split(".")[0] in ("client", "cli", "__main__")}
    for room in clients:
        assert imports(modules()[room]) <= clients | shared, room
    for room in set(ROOMS) - clients:
        assert not imports(modules()[room]) & clients, room


def test_the_command_line_starts_without_twisted() -> None:
    code = "import sys, restmq.cli; print([name for name in sys.modules if name.startswith(('twisted', 'zope'))])"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown == "[]\n"


def test_only_one_room_knows_the_redis_client() -> None:
    users = {name for name, path in modules().items() if "import txredisapi" in path.read_text()}
    assert users == {"store.connection"}
