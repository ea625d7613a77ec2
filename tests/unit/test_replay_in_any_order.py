"""Consumers that come, resume and leave while the subscription breaks, with answers and messages in any order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet import defer
from twisted.logger import capturedLogs

from restmq.delivery.backpressure import BackpressureLimits
from restmq.delivery.fanout import Fanout
from restmq.errors import StoreUnavailable
from restmq.http.turns import Turns
from restmq.model import Message
from restmq.queues.results import Attendance, ReplayPage
from tests.unit.fanout_scene import Scene, StubConsumer, StubCore


class SlowCore(StubCore):
    """A core whose calls Redis runs later, in order. Their answers and what is published arrive later still."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self.page_messages = random.choice([1, 2, 5, 1000])
        self.calls: deque[tuple[Callable[[], Any], defer.Deferred[Any]]] = deque()
        self.answers: list[tuple[defer.Deferred[Any], Any]] = []
        self.channel: deque[bytes] = deque()

    def _call(self, run: Callable[[], Any]) -> defer.Deferred[Any]:
        answer: defer.Deferred[Any] = defer.Deferred()
        self.calls.append((run, answer))
        return answer

    def mark(self, marker: str) -> None:
        last_key = self.history[-1].key if self.history else ""
        self.say(f"mark {marker} {self.last_number} {last_key}")

    def say(self, notice: str) -> None:
        if self.is_subscribed:
            self.channel.append(notice.encode())

    def publish(self) -> None:
        self.last_number += 1
        assert self.history is not None
        self.history.append(Message(f"q:{self.last_number}", b"v"))
        self.say(f"message q:{self.last_number}\nv")

    async def queue_attend(self, *_: Any, is_first: bool = False, **_options: Any) -> Attendance:
        def attend() -> Attendance:
            if is_first:
                self.mark("-")
            return Attendance(self.policy, False, [])

        answer: Attendance = await self._call(attend)
        return answer

    async def queue_replay(self, queue: str, after: str, marker: str, **options: Any) -> ReplayPage:
        whole = super().queue_replay
        answer: ReplayPage = await self._call(lambda: whole(queue, after, marker, **options).send(None))
        return answer

    def step(self) -> None:
        """Redis runs a call, which may fail, or an answer or a message arrives."""
        kind = self._random.randrange(3)
        if kind == 0 and self.calls:
            run, answer = self.calls.popleft()
            fails = self._random.random() < 0.05
            self.answers.append((answer, StoreUnavailable("away") if fails else result_of(run)))
        elif kind == 1 and self.answers:
            answer, value = self.answers.pop(self._random.randrange(len(self.answers)))
            answer.errback(value) if isinstance(value, Exception) else answer.callback(value)
        elif kind == 2 and self.channel:
            self.subscriber.say(b"q:PUBSUB", self.channel.popleft())


def result_of(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except StopIteration as done:  # a coroutine that needs not wait
        return done.value


class Crowd:
    """Consumers, each with the number of the message after which it resumed; None if it is new."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.core: Any = SlowCore(self.random)
        self.scene = Scene()
        self.clock = self.scene.clock
        turns = Turns(self.clock.callLater, self.clock.seconds)
        self.fanout = Fanout(self.core, self.clock, BackpressureLimits(), turns)
        self.consumers: dict[StubConsumer, int | None] = {}

    def join(self) -> None:
        consumer, last = StubConsumer(self.scene.format), self.core.last_number
        after = self.random.randint(max(1, last - 3), last) if last and self.random.random() < 0.7 else None
        self.consumers[consumer] = after
        self.fanout.connect("q", consumer, None if after is None else f"q:{after}")

    def leave(self) -> None:
        if self.consumers:
            consumer = self.random.choice([*self.consumers])
            del self.consumers[consumer]
            self.fanout.leave("q", consumer)

    def lose_subscription(self) -> None:
        if self.core.is_subscribed:
            self.core.is_subscribed = False
            self.core.channel.clear()
            self.clock.advance(0)
            self.core.subscriber.lose()

    def renew_subscription(self) -> None:
        if not self.core.is_subscribed:
            self.core.is_subscribed = True
            self.core.subscriber.renew()

    def settle(self) -> None:
        for _ in range(1500):
            self.core.step()
            if self.random.random() < 0.1:
                self.clock.advance(self.random.choice([0, 0.5]))


def test_consumers_get_each_message_of_the_history_once_and_in_order_whatever_comes_first() -> None:
    for seed in range(150):
        crowd = Crowd(seed)
        events = [crowd.core.publish] * 4 + [crowd.join] * 4 + [crowd.leave] * 2
        events += [crowd.lose_subscription] * 3 + [crowd.renew_subscription] * 4
        with capturedLogs() as logged:
            for _ in range(crowd.random.randrange(50, 400)):
                if crowd.random.random() < 0.25 and (crowd.core.is_subscribed or crowd.random.random() < 0.5):
                    crowd.random.choice(events)()
                else:
                    crowd.core.step()
                    crowd.clock.advance(crowd.random.choice([0, 0, 0.01]))
            crowd.renew_subscription()
            crowd.settle()
            crowd.core.publish()
            crowd.settle()
        assert not [event for event in logged if "log_failure" in event]
        last = crowd.core.last_number
        for consumer, after in crowd.consumers.items():
            got = b"".join(consumer.writes).decode().split("|")[:-1]
            first = last - len(got) + 1 if after is None else after + 1
            assert got == [f"q:{number}" for number in range(first, last + 1)], f"seed {seed}"
            assert got
