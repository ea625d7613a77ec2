"""Where the primary is, by its Sentinels.

1. Before each connection, all Sentinels are asked at once. The answer with the highest configuration epoch counts, as
   soon as most of them have answered, or all that can. An epoch that is lower than one seen before is stale: that
   Sentinel was away during the last failover.
2. All Sentinels are listened to. One that announces a new primary is asked at once, and its answer counts although the
   others do not know yet: its epoch is higher.
3. All are asked again when a connection to one of them comes up, because an announcement may have been missed, and
   every ten seconds.
4. When the primary moves, every connection to another server is closed. A new connection asks the server for its role
   (``handshake``), so a primary that does not know yet that it was replaced is never connected to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet import defer, error, task
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.errors import StoreRefused
from restmq.store.asking import ask_once, authenticate, why_no_answer
from restmq.store.base import ChannelEvents
from restmq.store.batching import SharedCall
from restmq.store.connection import Connection, ErrorReply, SubscriberConnection
from restmq.store.connection_pool import ConnectionPool
from restmq.store.handshake import RedisServer, Unusable
from restmq.store.settings import Address, SentinelSettings, StoreSettings, endpoint_to, show_address
from restmq.store.subscriber import Subscriber

log = Logger()

_ASK_SECONDS = 1.0
_ASK_EVERY_SECONDS = 10.0
#: What a Sentinel announces when it has promoted a replica, and when it has told all about it, a second or so later.
_CHANNELS = (b"+failover-state-reconf-slaves", b"+switch-master")


@dataclass(slots=True, frozen=True)
class _Primary:
    """A Sentinel's answer. A failover raises the epoch."""

    epoch: int
    address: Address


class Sentinels:
    """An endpoint that leads to the primary.

    Args:
        settings: for connections to the primary.
        moved: called with the new address when the primary has moved.
    """

    def __init__(
        self, settings: StoreSettings, sentinel: SentinelSettings, moved: Callable[[Address], None], reactor: Any
    ) -> None:
        self.settings = settings
        self.sentinel = sentinel
        self._moved = moved
        self.reactor = reactor
        self._watches: dict[Address, _Watch] = {}
        self._primary: _Primary | None = None
        #: Returns where the primary is.
        self.find = SharedCall(self._ask_all)
        self._connecting: dict[defer.Deferred[Any], Address] = {}
        self._ask_again = task.LoopingCall(self.look)
        self._ask_again.clock = reactor

    @property
    def primary_address(self) -> Address | None:
        """Where the primary is, by the last answer that counted."""
        return None if self._primary is None else self._primary.address

    def start(self) -> None:
        for address in self.sentinel.addresses:
            self._add(address)
        self._ask_again.start(_ASK_EVERY_SECONDS, now=False)

    def stop(self) -> defer.Deferred[Any]:
        if self._ask_again.running:
            self._ask_again.stop()
        return defer.gatherResults([watch.stop() for watch in self._watches.values()])

    def _add(self, address: Address, is_named: bool = True) -> None:
        if address not in self._watches:
            self._watches[address] = _Watch(self, address, is_named)

    # The endpoint

    def connect(self, factory: Any) -> defer.Deferred[Any]:
        """Asks for the primary and connects to it."""
        return defer.ensureDeferred(self._connect(factory))

    async def _connect(self, factory: Any) -> Any:
        address = await self.find()
        timeout = self.settings.call_timeout_seconds
        connecting = endpoint_to(address, self.settings, self.reactor, timeout).connect(factory)
        self._connecting[connecting] = address
        try:
            connection = await connecting
        except error.ConnectionRefusedError as problem:
            raise error.ConnectError(string=f"{show_address(address)}: {problem}") from None
        finally:
            del self._connecting[connecting]
        connection.address = address
        if self._primary is None or self._primary.address != address:
            connection.transport.abortConnection()
        return connection

    def look(self) -> None:
        """Asks again; nobody waits for the answer."""
        self.find().addErrback(lambda _: None)

    # Asking

    async def _ask_all(self) -> Address:
        """Asks all Sentinels, and takes note of what they say. Raises ConnectError if none knows the primary."""
        answers: list[_Primary] = []
        problems: list[str] = []
        decided: defer.Deferred[None] = defer.Deferred()
        watches = list(self._watches.values())
        voters = sum(watch.is_voter for watch in watches)

        def answered(result: Any, watch: _Watch) -> None:
            if isinstance(result, Failure):
                problems.append(f"{show_address(watch.address)}: {why_no_answer(result)}")
            elif self._primary is not None and result.epoch < self._primary.epoch:
                problems.append(f"{show_address(watch.address)}: it has missed the last failover")
            else:
                watch.is_voter = True
                answers.append(result)
                if decided.called and self._primary is not None and result.epoch > self._primary.epoch:
                    self._decide(result)  # the others, who answered first, have missed a failover
            if not decided.called and (2 * len(answers) > voters or len(answers) + len(problems) == len(watches)):
                decided.callback(None)

        for watch in watches:
            self._ask_one(watch).addBoth(answered, watch)
        await decided
        if not answers:
            raise error.ConnectError(string=f"no Sentinel says where it is ({'; '.join(sorted(problems))})")
        votes = Counter(answers)
        self._decide(max(votes, key=lambda primary: (primary.epoch, votes[primary])))
        assert self._primary is not None
        return self._primary.address

    def _ask_one(self, watch: _Watch) -> defer.Deferred[_Primary]:
        asked = defer.ensureDeferred(self._question(watch))
        return asked.addTimeout(_ASK_SECONDS, self.reactor)

    async def _question(self, watch: _Watch) -> _Primary:
        name, sentinel = self.sentinel.primary, self.sentinel
        questions = [(b"SENTINEL", *words, name) for words in _QUESTIONS]
        address, primary, others = await ask_once(
            watch.endpoint, self.reactor, self.settings, sentinel.username, sentinel.password, questions
        )
        if address is None:
            raise Unusable(f"it knows no primary {name!r} (--redis-master)")
        for answer in (address, primary):
            if isinstance(answer, ErrorReply):
                raise Unusable(str(answer))
        if isinstance(others, list):
            for other in map(_fields, others):
                self._add((other["ip"], int(other["port"])), is_named=False)
        host, port = address
        return _Primary(int(_fields(primary)["config-epoch"]), (host.decode(), int(port)))

    def announced(self, watch: _Watch, payload: bytes) -> None:
        if self.sentinel.primary.encode() in payload.split(b" "):
            self._ask_one(watch).addCallbacks(self._decide, lambda _: self.look())

    def _decide(self, primary: _Primary) -> None:
        known = self._primary
        if known is not None and primary.epoch < known.epoch:
            return
        self._primary = primary
        if known is None or known.address == primary.address:
            return
        log.info("Sentinel says that Redis is at {where} now.", where=show_address(primary.address))
        for connecting, address in list(self._connecting.items()):
            if address != primary.address:
                connecting.cancel()
        self._moved(primary.address)


#: What each Sentinel is asked. The first knows of a failover before the second, which has the epoch.
_QUESTIONS = ((b"GET-MASTER-ADDR-BY-NAME",), (b"MASTER",), (b"SENTINELS",))


def _fields(flat: list[bytes]) -> dict[str, str]:
    words = [word.decode("utf-8", "replace") for word in flat]
    return dict(zip(words[::2], words[1::2], strict=False))


class _Watch:
    """Listens to one Sentinel, for as long as the store runs.

    Attributes:
        is_voter: whether it counts when most of the Sentinels must have answered. One that was only named by others,
            and has never answered, may not be reachable from here.
    """

    def __init__(self, owner: Sentinels, address: Address, is_voter: bool) -> None:
        settings, reactor = owner.settings, owner.reactor
        self.address = address
        self.is_voter = is_voter
        self.endpoint = endpoint_to(address, settings, reactor, _ASK_SECONDS)
        self._owner = owner
        self._pool = ConnectionPool(
            settings=replace(settings, sentinel=None),
            size=1,
            owner=self,
            reactor=reactor,
            kind=SubscriberConnection,
            examine=self._greet,
        )
        events = ChannelEvents(lambda _channel, payload: owner.announced(self, payload))
        self._subscriber = Subscriber(self._pool, events, reactor)
        for channel in _CHANNELS:
            self._subscriber.subscribe(channel)
        self._subscriber.start(self.endpoint)

    async def _greet(self, connection: Connection, _settings: StoreSettings) -> RedisServer:
        greeted = await authenticate(connection, self._owner.sentinel.username, self._owner.sentinel.password)
        if isinstance(greeted, ErrorReply):
            raise Unusable(str(greeted))
        return RedisServer(b"", {})

    def stop(self) -> defer.Deferred[None]:
        self._subscriber.stop()
        return self._pool.stop()

    # What the pool tells. What is wrong with a Sentinel is told when it is asked.

    def joined(self, pool: Any, connection: Any, server: RedisServer) -> None:
        self._subscriber.connection_ready(connection)
        self._owner.look()

    def lost(self, pool: Any, connection: Any, why: str) -> None:
        self._subscriber.connection_lost()

    def problem(self, pool: Any, reason: str, complaint: str, answered: bool) -> None:
        """See above."""

    def stable(self, pool: Any) -> None:
        """See above."""

    def may_grow(self, pool: Any) -> bool:
        return True

    def refused(self, pool: Any, connection: Any, problem: ErrorReply) -> Exception:
        return StoreRefused(str(problem))
