"""One WebSocket without a network: how it is let in, and how far it lets its client run ahead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet import defer

from restmq.access import CONSUME, Access, Credentials
from restmq.handlers.websocket import WebSocketHandler


def test_the_cookie_is_read_once_however_many_commands_come() -> None:
    seen: list[Credentials] = []

    async def check(credentials: Credentials, _access: Access, _queue: str | None) -> None:
        seen.append(credentials)

    application: Any = SimpleNamespace(guard=SimpleNamespace(check=check), core=None, polls=None, queue_stats=None)
    request: Any = SimpleNamespace(headers={"cookie": "auth=alice:p%C3%BC"}, query="", remote_ip="192.0.2.1")
    handler = WebSocketHandler(application, request)
    handler.queue = "q"
    client = handler.client()
    defer.ensureDeferred(client.check(CONSUME, "q"))
    request.headers = {"cookie": "auth=another:one"}
    defer.ensureDeferred(client.check(CONSUME, "q"))
    assert seen == [Credentials("192.0.2.1", "alice", "pü")] * 2
