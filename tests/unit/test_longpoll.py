"""Clients that wait for queues, with a stub of Redis whose calls, answers and notices come in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


class StubRedis:
    """Queues and the daemon that is registered for each. Once it is away, each call fails at once.

    Attributes:
        calls: those that wait, each with the queue, the function that Redis is to run, and the answer.
        answers: those on their way, each with its value.
        notices: those on their way.
        asked: number of takes.
    """

    layout = one_redis(0)
    store = SimpleNamespace(settings=SimpleNamespace(call_timeout_seconds=5.0), connected=False)

    def __init__(self) -> None:
        self.is_away = False
        self.asked = self.added = 0
        self.queues: dict[str, list[Message]] = {name: [] for name in "abcd"}
        self.registered: dict[str, bytes] = {}
        self.calls: list[tuple[str, Callable[[], Any], defer.Deferred[Any]]] = []
        self.answers: list[tuple[defer.Deferred[Any], Any]] = []
        self.notices: list[tuple[bytes, bytes]] = []

    def pubsub(self, on_message: Callable[[bytes, bytes], None], **_: Any) -> Any:
        self.say = on_message
        return SimpleNamespace(subscribe=lambda _: defer.succeed(None))

    async def _call(self, queue: str, run: Callable[[], Any]) -> Any:
        if self.is_away:
            raise StoreUnavailable("away")
        answer: defer.Deferred[Any] = defer.Deferred()
        self.calls.append((queue, run, answer))
        return await answer

    async def queue_tail(self, queue: str, count: int, waiter: bytes) -> list[Message]:
        return list(await self._call(queue, lambda: self._take(queue, count, waiter)))

    async def queue_lease(self, queue: str, count: int, _lease_ms: int, waiter: bytes) -> list[Message]:
        return await self.queue_tail(queue, count, waiter)

    async def queue_unregister_waiter(self, queue: str, _waiter: bytes) -> None:
        await self._call(queue, lambda: self._satisfy(queue))

    async def queue_put_back(self, queue: str, messages: list[Message]) -> None:
        await self._call(queue, lambda: self._put(queue, messages + self.queues[queue]))

    def _take(self, queue: str, count: int, waiter: bytes) -> list[Message]:
        self.asked += 1
        taken, self.queues[queue] = self.queues[queue][:count], self.queues[queue][count:]
        if len(taken) == count:
            self._satisfy(queue)
        else:
            self.registered[queue] = waiter
        return taken

    def _satisfy(self, queue: str) -> None:
        self.registered.pop(queue, None)

    def _put(self, queue: str, messages: list[Message]) -> None:
        self.queues[queue] = messages
        if queue in self.registered:
            self.notices.append((self.registered[queue], queue.encode()))

    def add(self, queue: str) -> None:
        self.added += 1
        self._put(queue, [*self.queues[queue], Message(f"{queue}:{self.added}", b"v")])

    @property
    def is_idle(self) -> bool:
        return not (self.calls or self.answers or self.notices)

    def step(self, random: Random) -> None:
        """Runs a call, or an answer or a notice arrives."""
        kind = random.randrange(3)
        if kind == 0 and self.calls:
            _, run, answer = self.calls.pop(0)
            self.answers.append((answer, run()))
        elif kind == 1 and self.answers:
            answer, value = self.answers.pop(random.randrange(len(self.answers)))
            answer.callback(value)
        elif kind == 2 and self.notices:
            self.say(*self.notices.pop(0))


class Scene:
    """Clients of a daemon.

    Attributes:
        waiting: the queues of each client that waits, and its presence.
        got: the messages that clients got.
        errors: the clients that were told of an error.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.redis: Any = StubRedis()
        self.polls = LongPolls(self.redis, self.clock)
        self.polls.startService()
        self.waiting: dict[int, tuple[Sequence[str], Presence]] = {}
        self.got: list[str] = []
        self.errors: list[int] = []

    def wait(self, client: int, queues: Sequence[str], count: int = 1, lease_ms: int | None = None) -> None:
        """A client waits for these queues."""
        presence = Presence(lambda: False)
        self.waiting[client] = queues, presence
        waiting = defer.ensureDeferred(self.polls.take_first(queues, TakeRequest(count, lease_ms), presence, 60))
        waiting.addCallbacks(self._answered, self._failed, callbackArgs=(client,), errbackArgs=(client,))

    def _answered(self, taken: tuple[str, list[Message]], client: int) -> None:
        queues, _ = self.waiting.pop(client)
        assert not taken[1] or taken[0] in queues
        self.got += [message.key for message in taken[1]]

    def _failed(self, failure: Any, client: int) -> None:
        failure.trap(StoreUnavailable)
        self.errors.append(client)

    def settle(self, random: Random) -> None:
        """Lets everything happen that is under way."""
        for _ in range(2000):
            self.redis.step(random)
            if self.redis.is_idle:
                self.clock.advance(0)
                if self.redis.is_idle:
                    return
        raise AssertionError("it asks Redis again and again")


@contextmanager
def no_fault() -> Iterator[None]:
    with capturedLogs() as logged:
        yield
    assert not [event for event in logged if "log_failure" in event]


def some_queues(random: Random) -> list[str]:
    return random.sample("abcd", random.randint(1, 4))


def test_each_message_reaches_one_client_that_waits_for_its_queue_whatever_comes_first() -> None:
    for seed in range(400):
        random, scene = Random(seed), Scene()
        with no_fault():
            for event in range(random.randrange(60, 300)):
                chance = random.random()
                if chance < 0.08:
                    scene.wait(event, some_queues(random), random.choice([1, 1, 3]), random.choice([None, 1000]))
                elif chance < 0.14:
                    scene.redis.add(random.choice("abcd"))
                elif chance < 0.17 and scene.waiting:
                    _, presence = random.choice([*scene.waiting.values()])
                    presence.leave()
                elif chance < 0.2:
                    scene.clock.advance(0)
                else:
                    scene.redis.step(random)
            scene.settle(random)
            left = {queue for queue, messages in scene.redis.queues.items() if messages}
            assert not [queues for queues, _ in scene.waiting.values() if left & set(queues)]
            assert len(set(scene.got)) == len(scene.got)
            assert len(scene.got) + sum(map(len, scene.redis.queues.values())) == scene.redis.added
            for _, presence in [*scene.waiting.values()]:
                presence.leave()
            scene.settle(random)
            assert not scene.redis.registered


def test_each_client_is_told_once_that_redis_is_away_whatever_other_queues_it_waits_for() -> None:
    for seed in range(300):
        random, scene = Random(seed), Scene()
        for client in range(12):
            scene.wait(client, some_queues(random))
            if client < 6:
                scene.settle(random)
        scene.redis.is_away = True
        concerned = {queue for queue, _, _ in scene.redis.calls}
        with no_fault():
            for _, _, answer in scene.redis.calls:
                answer.errback(StoreUnavailable("away"))
        told = {client for client, (queues, _) in scene.waiting.items() if concerned & set(queues)}
        assert told <= set(scene.errors)
        assert len(set(scene.errors)) == len(scene.errors)
