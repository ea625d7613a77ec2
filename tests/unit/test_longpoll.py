"""Clients that wait, with a stub core that answers when the test says so."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

from twisted.internet import defer
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from restmq.delivery.lines import TakeRequest
from restmq.delivery.longpoll import LongPolls
from restmq.errors import StoreUnavailable
from restmq.model import Message
from restmq.store.keys import one_redis
from restmq.transport import Presence


class StubCore:
    """Empty queues. Calls wait while Redis is slow; once it is away, each one fails at once."""

    layout = one_redis(0)
    store = SimpleNamespace(settings=SimpleNamespace(call_timeout_seconds=5.0), connected=False)

    def __init__(self) -> None:
        self.is_slow = self.is_away = False
        self.waiting: dict[str, defer.Deferred[list[Message]]] = {}

    def pubsub(self, *_: Any, **_callbacks: Any) -> Any:
        return SimpleNamespace(subscribe=lambda _: defer.succeed(None))

    async def queue_tail(self, queue: str, _count: int, _waiter: bytes) -> list[Message]:
        if self.is_away:
            raise StoreUnavailable("away")
        if not self.is_slow:
            return []
        self.waiting[queue] = defer.Deferred()
        return await self.waiting[queue]

    async def queue_unregister_waiter(self, _queue: str, _waiter: bytes) -> None: ...


class Scene:
    def __init__(self) -> None:
        self.core: Any = StubCore()
        self.polls = LongPolls(self.core, Clock())
        self.polls.startService()
        self.errors: list[int] = []

    def wait(self, client: int, queues: Sequence[str]) -> None:
        """A client waits for these queues."""
        waiting = defer.ensureDeferred(self.polls.take_first(queues, TakeRequest(), Presence(lambda: False), 60))
        waiting.addErrback(lambda failure: failure.trap(StoreUnavailable) and self.errors.append(client))


def test_each_client_is_told_once_that_redis_is_away_whatever_other_queues_it_waits_for() -> None:
    for seed in range(300):
        random, scene = Random(seed), Scene()
        wanted = [random.sample("abcd", random.randint(1, 4)) for _ in range(12)]
        for number, queues in enumerate(wanted):
            scene.core.is_slow = number >= 6
            scene.wait(number, queues)
        scene.core.is_away = True
        with capturedLogs() as logged:
            for answer in scene.core.waiting.values():
                answer.errback(StoreUnavailable("away"))
        assert not [event for event in logged if "log_failure" in event]
        concerned = {number for number, queues in enumerate(wanted) if scene.core.waiting.keys() & set(queues)}
        assert concerned <= set(scene.errors)
        assert len(scene.errors) == len(set(scene.errors))
