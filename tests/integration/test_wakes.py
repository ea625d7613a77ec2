"""A daemon whose clients wait for a queue is notified of each message, whatever brings it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from restmq.core import RedisOperations
from restmq.model import Message, Policy
from tests.integration.conftest import Clock, Run
from tests.servers import wait_until

LEASE_MS = 60_000


class Scene:
    """A queue, and the operations on it."""

    def __init__(self, run: Run, core: RedisOperations, clock: Clock, queue: str) -> None:
        self.core, self.clock, self.queue = core, clock, queue
        self.run = run

    def lease(self, queue: str = "") -> Message:
        queue = queue or self.queue
        self.run(self.core.queue_add_many, queue, [b"x"])
        (message,) = self.run(self.core.queue_lease, queue, 1, LEASE_MS)
        return message

    def kill(self, queue: str = "") -> str:
        """Makes a dead letter; returns its key."""
        queue = queue or self.queue
        self.run(self.core.queue_settings_set, queue, {"max_deliveries": 1})
        message = self.lease(queue)
        self.run(self.core.queue_nack, message.key, message.receipt)
        return message.key

    def go_on(self, seconds: float) -> None:
        self.clock.go_on(seconds)
        self.run(self.core.queue_promote, self.queue)


#: What happens before the daemon waits; returns what then brings a message.
Way = Callable[[Scene], Callable[[], Any]]


def an_added_message(scene: Scene) -> Callable[[], Any]:
    return lambda: scene.run(scene.core.queue_add_many, scene.queue, [b"x"])


def the_end_of_a_delay(scene: Scene) -> Callable[[], Any]:
    scene.run(scene.core.queue_add_many, scene.queue, [b"x"], delay_seconds=60)
    return lambda: scene.go_on(61)


def the_end_of_a_lease(scene: Scene) -> Callable[[], Any]:
    scene.lease()
    return lambda: scene.go_on(LEASE_MS / 1000 + 1)


def a_nack(scene: Scene) -> Callable[[], Any]:
    message = scene.lease()
    return lambda: scene.run(scene.core.queue_nack, message.key, message.receipt)


def a_message_that_is_put_back(scene: Scene) -> Callable[[], Any]:
    scene.run(scene.core.queue_add_many, scene.queue, [b"x"])
    taken = scene.run(scene.core.queue_tail, scene.queue, 1)
    return lambda: scene.run(scene.core.queue_put_back, scene.queue, taken)


def a_redriven_dead_letter(scene: Scene) -> Callable[[], Any]:
    scene.kill()
    return lambda: scene.run(scene.core.queue_redrive, scene.queue)


def a_dead_letter_of_another_queue(scene: Scene) -> Callable[[], Any]:
    suffix = ".fifo" if scene.queue.endswith(".fifo") else ""
    other = f"{scene.queue.removesuffix('.fifo')}-other{suffix}"
    scene.kill(other)
    return lambda: scene.run(scene.core.queue_redrive, other, "", scene.queue)


WAYS: list[Way] = [
    an_added_message,
    the_end_of_a_delay,
    the_end_of_a_lease,
    a_nack,
    a_message_that_is_put_back,
    a_redriven_dead_letter,
    a_dead_letter_of_another_queue,
]


class Daemons:
    """Daemons' channels for a queue, and the notices on them."""

    def __init__(self, run: Run, core: RedisOperations, queue: str) -> None:
        self.notices: list[bytes] = []
        self.channels = [core.layout.daemon_channel(name, queue) for name in ("one", "two")]
        self._run, self._core = run, core
        self._subscriber = core.pubsub(lambda channel, _: self.notices.append(channel))
        run(self._subscribe)

    async def _subscribe(self) -> None:
        for channel in self.channels:
            await self._subscriber.subscribe(channel)

    def stop(self) -> None:
        async def drop() -> None:
            await self._core.store.drop(self._subscriber)

        self._run(drop)


@pytest.fixture
def daemons(run: Run, timed: RedisOperations, queue: str) -> Iterator[Daemons]:
    found = Daemons(run, timed, queue)
    yield found
    found.stop()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("suffix", ["", ".fifo"])
def test_a_daemon_that_waits_is_notified_of(
    run: Run, timed: RedisOperations, clock: Clock, queue: str, suffix: str, way: Way
) -> None:
    name = queue + suffix
    if suffix:
        for each in (name, f"{queue}-other{suffix}"):
            run(timed.sqs_create, each, {"FifoQueue": "true"}, {}, {})
    brings = way(Scene(run, timed, clock, name))
    daemons = Daemons(run, timed, name)
    assert run(timed.queue_tail, name, 1, daemons.channels[0]) == []
    brings()
    wait_until(lambda: daemons.channels[0] in daemons.notices)
    assert run(timed.queue_len, name) == 1
    daemons.stop()


def test_a_daemon_that_waits_no_longer_hands_the_notice_on(
    run: Run, timed: RedisOperations, queue: str, daemons: Daemons
) -> None:
    for channel in daemons.channels:
        assert run(timed.queue_tail, queue, 1, channel) == []
    run(timed.queue_add, queue, b"x")
    wait_until(lambda: daemons.notices == daemons.channels[:1])
    run(timed.queue_unregister_waiter, queue, daemons.channels[0])
    wait_until(lambda: daemons.notices == daemons.channels)


def test_a_daemon_with_consumers_is_notified_when_a_stopped_queue_is_started(
    run: Run, timed: RedisOperations, queue: str, daemons: Daemons
) -> None:
    run(timed.queue_policy_set, queue, Policy.ROUNDROBIN)
    run(timed.queue_attend, queue, daemons.channels[0], weight=1, capacity=1)
    run(timed.queue_changestatus, queue, False)
    run(timed.queue_add, queue, b"x")
    assert daemons.notices == []
    run(timed.queue_changestatus, queue, True)
    wait_until(lambda: daemons.notices == daemons.channels[:1])


def test_a_daemon_whose_last_consumer_has_left_hands_its_turn_on(
    run: Run, timed: RedisOperations, queue: str, daemons: Daemons
) -> None:
    run(timed.queue_policy_set, queue, Policy.ROUNDROBIN)
    for channel in daemons.channels:
        run(timed.queue_attend, queue, channel, weight=1, capacity=1)
    run(timed.queue_add, queue, b"x")
    wait_until(lambda: daemons.notices == daemons.channels[:1])
    run(timed.queue_attend, queue, daemons.channels[0], weight=0)
    wait_until(lambda: daemons.notices == daemons.channels)
