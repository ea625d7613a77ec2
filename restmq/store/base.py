"""What all stores have in common, whether there is one Redis or a cluster of them."""

from __future__ import annotations

import abc
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from twisted.application import service
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from restmq.store.batching import TurnEnd
from restmq.store.connection import Encoded
from restmq.store.keys import Layout
from restmq.store.scripts import Script
from restmq.store.settings import StoreSettings

Channels = Collection[bytes]
RedisCommand = tuple[bytes | int, ...]


@dataclass(slots=True, frozen=True)
class ChannelEvents:
    """The functions that a subscriber calls.

    Attributes:
        on_message: called with channel and payload of each message, in the order in which Redis sent them.
        on_lost: called with channels whose messages are missed from now on.
        on_renewed: called with such channels when they are subscribed again.
        before_renewal: called with such channels; returns commands to run before they are subscribed again, if another
            Redis process answers than before (after a restart or a failover).
    """

    on_message: Callable[[bytes, bytes], None]
    on_lost: Callable[[Channels], None] = lambda _: None
    on_renewed: Callable[[Channels], None] = lambda _: None
    before_renewal: Callable[[Channels], list[RedisCommand]] = lambda _: []


class Subscription(abc.ABC):
    """Channels that are subscribed as long as the store runs, whatever connection they need."""

    @abc.abstractmethod
    def subscribe(self, channel: bytes) -> defer.Deferred[None]:
        """Fires when Redis has confirmed the subscription, perhaps after a reconnect. No later message is missed."""

    @abc.abstractmethod
    def unsubscribe(self, channel: bytes) -> None: ...

    @abc.abstractmethod
    def stop(self) -> None: ...


@dataclass(slots=True)
class StoreCounters:
    """Numbers that only grow.

    Attributes:
        redis_refusals: operations that Redis answered with an error.
        failovers: times that another server became the primary; of a cluster, servers that became primaries.
    """

    redis_refusals: int = 0
    failovers: int = 0


class BaseStore(service.Service, abc.ABC):  # type: ignore[misc]  # untyped
    """Makes all calls to Redis.

    A call either answers, or raises StoreUnavailable within the time limit, or raises StoreRefused. After
    StoreUnavailable it is unknown whether Redis ran it, unless the error says that nothing was done.

    Attributes:
        layout: the names of keys and channels.
        turn_end: sends all batches, in order.
        first_connected: fires when Redis can be used for the first time.
        facts: the fields of ``INFO`` of the server that was connected to last; empty if it is not permitted.
        time_ms: the wall clock, in ms since 1970, for times that are stored or shown.
        counters: what happened so far.
        part_seconds: maximum time to wait for a node of a cluster, where others have answers too.
    """

    def __init__(self, settings: StoreSettings, layout: Layout, reactor: Any) -> None:
        self.settings = settings
        self.layout = layout
        self._reactor = reactor
        self.turn_end = TurnEnd(reactor.callLater)
        self.first_connected: defer.Deferred[None] = defer.Deferred()
        self.facts: Mapping[str, str] = MappingProxyType({})
        self.time_ms: Callable[[], int] = lambda: int(time.time() * 1000)
        self.counters = StoreCounters()
        self.part_seconds = 0.5

    @property
    def clock(self) -> IReactorTime:
        return self._reactor

    @property
    @abc.abstractmethod
    def connected(self) -> bool:
        """Whether there is a connection to any server."""

    @property
    @abc.abstractmethod
    def reason(self) -> str:
        """Why Redis cannot be used, for operators; empty if it can, or if that is not known."""

    @abc.abstractmethod
    def reaches(self, stored: bytes) -> bool:
        """Whether there is a connection to the server that has this key or channel."""

    @abc.abstractmethod
    def describe(self) -> str:
        """The store's address and the state of its connections, for people. A path on this machine is not shown."""

    @abc.abstractmethod
    def node_of(self, partition: int) -> Any:
        """Identifies the server that has this partition; None if there is none."""

    @property
    @abc.abstractmethod
    def servers(self) -> list[Any]:
        """A store for each server of a cluster; for one Redis, this store."""

    @abc.abstractmethod
    def command(self, *args: Any) -> defer.Deferred[Any]:
        """Makes one command; answers bytes, int, list or None. Its key, if it has one, is the second argument."""

    @abc.abstractmethod
    def publish(self, channel: bytes, payload: bytes) -> defer.Deferred[int]:
        """Publishes a message; answers the number of subscribers that receive it."""

    @abc.abstractmethod
    def run(self, script: Script, first_args: Encoded, *args: Any) -> defer.Deferred[Any]:
        """Runs one script, atomically. ``first_args`` has the number of keys, the keys, and the first arguments."""

    @abc.abstractmethod
    async def check_ready(self, may_explain: Callable[[], Awaitable[bool]]) -> str | None:
        """Raises StoreUnavailable if Redis would refuse a write now; of a cluster, if all nodes would.

        Args:
            may_explain: whether the error may tell the reason.

        Returns:
            Of a cluster, how many of its parts take writes, e.g. ``2 of 3``.
        """

    @abc.abstractmethod
    def subscriber(self, events: ChannelEvents) -> Subscription:
        """Subscribes to channels, on connections of its own."""

    @abc.abstractmethod
    def drop(self, subscriber: Any) -> defer.Deferred[Any]:
        """Closes a subscriber's connections."""
