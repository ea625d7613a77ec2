"""A client that leaves while its messages are rendered, which takes several turns: they return to their queue."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from restmq.delivery.longpoll import LongPolls
from restmq.handlers.commands import CommandHandler
from restmq.handlers.queues import QueueHandler
from restmq.handlers.several import TakeHandler
from restmq.handlers.xmlrpc import XmlRpcHandler
from restmq.http.turns import Turns
from restmq.model import Message
from restmq.schema.metadata import KeptHeaders
from restmq.store.keys import one_redis
from restmq.transport import Presence
from tests.unit.test_websocket import TAKE, Conversation, sent

LONG = b"x" * (1 << 20)


class Queues:
    """The operations on a queue with one long message, which is taken once.

    Attributes:
        put_back: the values that returned.
    """

    layout = one_redis(0)

    def __init__(self) -> None:
        self.messages = [Message("q:1", LONG)]
        self.put_back: list[bytes] = []

    def pubsub(self, *_: Any, **_callbacks: Any) -> Any:
        return None

    async def queue_getdel(self, _queue: str) -> Message | None:
        return self.messages.pop() if self.messages else None

    async def queue_tail(self, _queue: str, count: int, _waiter: bytes) -> list[Message]:
        return [self.messages.pop() for _ in self.messages[:count]]

    async def queue_put_back(self, _queue: str, messages: list[Message]) -> None:
        self.put_back += [message.value for message in messages]


class Scene:
    """A client whose requests run until its answers need another turn."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.queues: Any = Queues()
        self.presence = Presence(lambda: False)
        self.answers: list[bytes] = []
        self.turns = Turns(self.clock.callLater, self.clock.seconds)

    def run(self, handler: Any, body: bytes = b"", **parameters: Any) -> None:
        """Runs a request to its first wait."""
        connection = SimpleNamespace(presence=self.presence, finished=self._finished, abort=lambda: None)
        services: Any = SimpleNamespace(
            core=self.queues,
            polls=LongPolls(self.queues, self.clock),
            turns=self.turns,
            guard=SimpleNamespace(check=self._check, is_open=lambda *_: True, check_each=self._check),
            traffic=SimpleNamespace(answered=lambda *_: None),
            draining=False,
            command_bytes_max=1 << 20,
            kept_headers=KeptHeaders(),
            queue_stats=None,
        )
        request: Any = SimpleNamespace(
            headers={},
            query="",
            remote_ip="192.0.2.1",
            upgrade=False,
            method="GET",
            version="HTTP/1.1",
            id="",
            body=body,
            media_type="application/json",
            keep_alive=True,
            connection=connection,
        )
        handler = handler(services, request)
        handler.queue = "q"
        names = ("count", "wait", "lease", "raw", "callback", "body", "msg")
        handler.parameters = dict.fromkeys(names) | {"queue": ("q",)} | parameters
        defer.ensureDeferred(handler.post() if body else handler.get())

    async def _check(self, *_: Any) -> None:
        """Everything is allowed."""

    def _finished(self, data: bytes, _keep_alive: bool, rest: Any = ()) -> None:
        self.answers.append(b"".join((data, *rest)))

    def settle(self) -> None:
        while self.clock.getDelayedCalls():
            self.clock.advance(0)


XML = b"<methodCall><methodName>get</methodName><params><param><value>q</value></param></params></methodCall>"
REQUESTS: dict[str, Callable[[Scene], None]] = {
    "/q": lambda scene: scene.run(QueueHandler),
    "/q with count": lambda scene: scene.run(QueueHandler, count=2),
    "/take": lambda scene: scene.run(TakeHandler),
    "command": lambda scene: scene.run(CommandHandler, TAKE),
    "XML-RPC": lambda scene: scene.run(XmlRpcHandler, XML),
}


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_long_message_returns_if_its_client_leaves_while_it_is_rendered(request_of: Callable[[Scene], None]) -> None:
    scene = Scene()
    request_of(scene)
    assert not scene.queues.messages
    assert not scene.answers
    scene.presence.leave()
    scene.settle()
    assert scene.queues.put_back == [LONG]
    assert not any(LONG in answer for answer in scene.answers)


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_long_message_is_sent_to_a_client_that_stays(request_of: Callable[[Scene], None]) -> None:
    scene = Scene()
    request_of(scene)
    scene.settle()
    (answer,) = scene.answers
    assert LONG in answer
    assert not scene.queues.put_back


@pytest.mark.parametrize("stays", [True, False])
def test_a_long_message_returns_if_a_websocket_closes_while_it_is_rendered(
    monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    conversation, queues = Conversation(), Queues()
    core: Any = queues
    conversation.socket._context.polls = LongPolls(core, conversation.clock)
    monkeypatch.setattr(conversation.socket._context, "check", Scene()._check)
    conversation.send(sent(TAKE))
    assert not queues.messages
    if not stays:
        conversation.socket.fail(1000, "bye")
    conversation.settle()
    assert (LONG in conversation.transport.value()) == stays
    assert queues.put_back == ([] if stays else [LONG])
