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
        self.waiting: list[defer.Deferred[list[Message]]] = []

    def pubsub(self, *_: Any, **_callbacks: Any) -> Any:
        return SimpleNamespace(subscribe=lambda _: defer.succeed(None))

    async def queue_tail(self, _queue: str, _count: int, _waiter: bytes) -> list[Message]:
        if self.is_away:
            raise StoreUnavailable("away")
        if not self.is_slow:
            return []
        self.waiting.append(answer := defer.Deferred())
        return await answer

    async def queue_unregister_waiter(self, _queue: str, _waiter: bytes) -> None: ...


class Scene:
    def __init__(self) -> None:
        self.core: Any = StubCore()
        self.clock = Clock()
        self.polls = LongPolls(self.core, self.clock)
        self.polls.startService()
        self.errors: list[str] = []
        self.answered: list[str] = []

    def wait(self, name: str, queues: Sequence[str]) -> None:
        """A client waits for these queues."""
        waiting = defer.ensureDeferred(self.polls.take_first(queues, TakeRequest(), Presence(lambda: False), 60))
        waiting.addCallback(lambda _: self.answered.append(name))
        waiting.addErrback(lambda failure: failure.trap(StoreUnavailable) and self.errors.append(name))


def test_each_client_is_told_once_that_redis_is_away_whatever_other_queues_it_waits_for() -> None:
    for seed in range(300):
        random, scene = Random(seed), Scene()
        names = [str(number) for number in range(12)]
        for name in names:
            scene.core.is_slow = int(name) >= 6
            scene.wait(name, random.sample("abcd", random.randint(1, 4)))
        scene.core.is_away = True
        with capturedLogs() as logged:
            for answer in scene.core.waiting:
                answer.errback(StoreUnavailable("away"))
            scene.clock.advance(60)
        assert not [event for event in logged if "log_failure" in event]
        assert sorted(scene.errors, key=int) == [name for name in names if name not in scene.answered]
        assert not scene.polls._lines
