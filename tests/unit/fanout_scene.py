"""A fan-out with a stub core and a manual clock, shared by the tests of delivery."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.internet import defer, task

from restmq.auth.guard import LISTEN_COMET, Credentials
from restmq.delivery.backpressure import BackpressureLimits
from restmq.delivery.consumer import PREFETCH, CloseReason
from restmq.delivery.fanout import Fanout
from restmq.delivery.format import Format
from restmq.errors import StoreUnavailable
from restmq.http.turns import Turns
from restmq.model import Message, Policy
from restmq.queues.base import State
from restmq.queues.results import Attendance, QueueOverview, ReplayPage
from restmq.store import keys
from restmq.store.settings import StoreSettings


class StubSubscriber:
    """Confirms at once. A test publishes on its channels."""

    def __init__(self, on_message: Callable[[bytes, bytes], None], on_lost: Any, on_renewed: Any) -> None:
        self.say, self._on_lost, self._on_renewed = on_message, on_lost, on_renewed
        self.channels: list[bytes] = []

    def lose(self) -> None:
        self._on_lost(list(self.channels))

    def renew(self) -> None:
        self._on_renewed(list(self.channels))

    def subscribe(self, channel: bytes) -> defer.Deferred[None]:
        self.channels.append(channel)
        return defer.succeed(None)

    def unsubscribe(self, channel: bytes) -> None:
        self.channels.remove(channel)

    def stop(self) -> None:
        self.channels.clear()


class StubCore:
    """The core's part in fan-out: a policy, and messages for the daemon that attends."""

    def __init__(self) -> None:
        self.policy = Policy.BROADCAST
        self.waiting: list[Message] = []
        self.attended: list[tuple[int, int]] = []
        self.granted_bytes: list[int] = []
        self.returned: list[Message] = []
        #: None if the queue keeps no history.
        self.history: list[Message] | None = []
        self.last_number = 0
        self.page_messages = 1000
        self.pages_read = 0
        #: Holds back the answers of queue_replay, but not its markers.
        self.replies: defer.Deferred[None] | None = None
        self.is_subscribed = True
        self.stored: dict[str, bytes] = {}
        self.reads: dict[str, defer.Deferred[None]] = {}
        self.confirmed: list[tuple[int, int]] = []
        self.confirm_state = State.DONE
        self.held = 0
        self.released: list[tuple[str, str]] = []
        self.left_seconds: dict[str, float] = {}
        self.asked_leases: list[list[tuple[str, str]]] = []
        self.fails = False
        self.layout = keys.one_redis()
        self.store = SimpleNamespace(connected=True, settings=StoreSettings())

    def pubsub(self, on_message: Any, on_lost: Any, on_renewed: Any, before_renewal: Any) -> StubSubscriber:
        self.subscriber = StubSubscriber(on_message, on_lost, on_renewed)
        return self.subscriber

    async def queue_attend(
        self,
        _queue: str,
        _daemon: bytes,
        *,
        weight: int = 0,
        capacity: int = 0,
        lease_ms: int = 0,
        window_bytes: int = 0,
        is_first: bool = False,
    ) -> Attendance:
        if self.fails:
            raise StoreUnavailable("away")
        if is_first:
            self.mark("-")
        self.attended.append((weight, capacity))
        self.granted_bytes.append(window_bytes)
        taken, self.waiting = self.waiting[:capacity], self.waiting[capacity:]
        return Attendance(self.policy, False, taken if self.policy is Policy.ROUNDROBIN else [])

    async def queue_put_back(self, _queue: str, messages: list[Message]) -> None:
        self.returned += messages

    async def queue_release(self, _queue: str, leases: list[tuple[str, str]]) -> int:
        self.released += leases
        return len(leases)

    async def queue_lease_remaining(self, _queue: str, leases: list[tuple[str, str]]) -> list[float | None]:
        self.asked_leases.append(leases)
        return [self.left_seconds.get(receipt) for _, receipt in leases]

    async def queue_overview(self, _queues: list[str]) -> list[QueueOverview]:
        return []

    def mark(self, marker: str) -> None:
        """Publishes a marker, if the daemon is subscribed."""
        if self.is_subscribed:
            last_key = self.history[-1].key if self.history else ""
            self.subscriber.say(b"q:PUBSUB", f"mark {marker} {self.last_number} {last_key}".encode())

    async def queue_replay(
        self, _queue: str, after: str, marker: str, *, page_bytes: int, continues: bool
    ) -> ReplayPage:
        if self.fails:
            raise StoreUnavailable("away")
        self.pages_read += 1
        found = [message.key for message in self.history or []]
        first = found.index(after) + 1 if after in found else 0
        messages = (self.history or [])[first : first + self.page_messages]
        more = first + len(messages) < len(found)
        if not more:
            self.mark(marker)
        page = ReplayPage(
            is_broadcast=self.policy is Policy.BROADCAST,
            kept=self.history is not None,
            gap=self.history is not None and after not in found,
            more=more,
            last_key=messages[-1].key if messages else after,
            messages=messages,
        )
        if self.replies is not None:
            await self.replies
        return page

    async def queue_stored_value(self, key: str) -> bytes | None:
        await self.reads.setdefault(key, defer.Deferred())
        return self.stored.get(key)

    async def queue_confirm(self, _queue: str, round_number: int, window_bytes: int, _daemon: bytes) -> State:
        self.confirmed.append((round_number, window_bytes))
        return self.confirm_state

    async def queue_hold(self, _queue: str, _hold_ms: int) -> None:
        self.held += 1


class StubConsumer:
    def __init__(self, wire_format: Format) -> None:
        self.format = wire_format
        self.writes: list[bytes] = []
        self.ready = True
        self.lease_ms = 0
        self.credentials, self.access = Credentials("192.0.2.1"), LISTEN_COMET
        self.since_seconds = 0.0
        self.leases: dict[str, str] = {}
        self.closed: CloseReason | None = None
        self.waits_until = 0.0
        self.unsent_bytes = 0

    def write(self, *pieces: bytes) -> None:
        self.writes.append(b"".join(pieces))

    def capacity(self) -> int:
        return PREFETCH - len(self.leases) if self.ready else 0

    def wait_until(self, is_shared: bool = False) -> float:
        return self.waits_until

    def close_if_vanished(self) -> None:
        """Never."""

    def close(self, reason: CloseReason) -> None:
        self.closed = reason


class Scene:
    """An engine, its clock and its stubs."""

    def __init__(self) -> None:
        self.clock = task.Clock()
        self.core = StubCore()
        turns = Turns(self.clock.callLater, self.clock.seconds)
        self.fanout = Fanout(self.core, self.clock, BackpressureLimits(), turns)  # type: ignore[arg-type]
        self.rendered: list[str] = []
        self.format = Format(self.render, lambda key: f"gap {key}|".encode())

    def render(self, message: Message) -> bytes:
        self.rendered.append(message.key)
        return message.key.encode() + b"|"

    def consumers(self, count: int, queue: str = "q") -> list[StubConsumer]:
        made = [StubConsumer(self.format) for _ in range(count)]
        for consumer in made:
            self.fanout.join(queue, consumer)
        return made

    def lease(self, key: str, receipt: str) -> None:
        """Leases a message to this daemon for a second, as Redis does."""
        defer.ensureDeferred(self.fanout._live["q"]._deliver_in_turn([Message(key, b"v", receipt=receipt)], 1000))

    def end_lease(self, key: str, receipt: str) -> None:
        """Notifies the daemon that a lease has ended, as Redis does."""
        self.core.subscriber.say(self.core.subscriber.channels[0], f"q\n{key} {receipt}".encode())

    def publish(self, *numbers: int) -> None:
        """Broadcasts messages. The daemon hears them while it is subscribed."""
        for number in numbers:
            self.core.last_number = number
            if self.core.history is not None:
                self.core.history.append(Message(f"q:{number}", b"v"))
            if self.core.is_subscribed:
                self.notify(f"message q:{number}\nv")

    def notify(self, notice: str) -> None:
        """Publishes on the queue's channel."""
        self.core.subscriber.say(b"q:PUBSUB", notice.encode())

    def lose_subscription(self) -> None:
        self.core.is_subscribed = False
        self.core.subscriber.lose()

    def renew_subscription(self) -> None:
        self.core.is_subscribed = True
        self.core.subscriber.renew()
