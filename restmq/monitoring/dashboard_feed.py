"""What is going on, for people who watch: all queues in numbers, once a second, and then only what changed.

Redis and the other daemons are asked once for all who watch on this one, and not at all while nobody does. What those
see who show the same token, or none, is rendered once for all of them. Nothing is kept for a watcher that reads too
slowly: it is passed over, and begins with a new snapshot when it can read again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from twisted.application import service
from twisted.internet import defer
from twisted.logger import Logger

from restmq import __version__
from restmq.auth import guard
from restmq.auth.guard import Credentials, Guard
from restmq.core import RedisOperations
from restmq.errors import NotAllowed, NotAuthenticated, RestMQError, StoreUnavailable, TooManyFailures
from restmq.monitoring.listeners import NOBODY, TRANSPORTS, ListenerStatistics
from restmq.queues.results import QueueOverview

log = Logger()

INTERVAL_SECONDS = 1.0
#: Few, so that neither Redis nor this process keeps others waiting.
QUEUES_A_CALL = 100
#: What a row of an event holds, in order. ``in`` and ``out`` are totals, ``oldest`` is a time in ms since 1970 or null.
COLUMNS = (
    *("name", "ready", "leased", "delayed", "dead", "started", "policy", "in", "out", "oldest"),
    *TRANSPORTS,
    "waiters",
)
#: What a watcher may be offered.
OFFERS = {
    "publish": guard.PRODUCE,
    "configure": guard.CONFIGURE,
    "purge": guard.PURGE,
    "inspect": guard.INSPECT,
    "comet": guard.LISTEN_COMET,
    "websocket": guard.LISTEN_WEBSOCKET,
}


class Watcher(Protocol):
    """One who watches, whatever the transport."""

    credentials: Credentials
    #: Whether it can't take anything now.
    paused: bool

    def write(self, event: bytes) -> None:
        """Sends rendered events."""

    def close(self) -> None:
        """Ends the connection; the watcher has left when this is called."""


@dataclass(slots=True, eq=False)
class _Place:
    """A watcher's place.

    Attributes:
        offered: what it was last told that it may do, as rendered; empty before.
        current: whether it has all that was sent so far, so that a change will do.
    """

    offered: bytes = b""
    current: bool = False


@dataclass(slots=True)
class _View:
    """What those see who show the same token, or none.

    Attributes:
        names: the queues that they have been told of.
        left_out: how many more there are.
    """

    names: set[str] = field(default_factory=set)
    left_out: int = 0


class DashboardFeed(service.Service):  # type: ignore[misc]  # untyped
    """Tells all watchers of this daemon what is going on.

    Args:
        watchers_max: how many there may be.
        queues_max: how many queues are shown, the first ones by name; the rest is counted.
    """

    def __init__(
        self,
        core: RedisOperations,
        listening: ListenerStatistics,
        guard: Guard,
        reactor: Any,
        watchers_max: int = 100,
        queues_max: int = 20_000,
    ) -> None:
        self._core = core
        self._listening = listening
        self._guard = guard
        self._reactor = reactor
        self._watchers_max = watchers_max
        self._queues_max = queues_max
        self._places: dict[Watcher, _Place] = {}
        self._views: dict[str | None, _View] = {}
        self._rows: dict[str, bytes] = {}
        self._looking = False
        self._timer: Any = None

    def stopService(self) -> None:
        super().stopService()
        for watcher in list(self._places):
            self.leave(watcher)
            watcher.close()

    # Who watches

    def check_room(self) -> None:
        """Raises StoreUnavailable if as many watch as may, or the server is going away."""
        if not self.running:
            raise StoreUnavailable("the server is starting or going away; try again in a moment.")
        if len(self._places) >= self._watchers_max:
            raise StoreUnavailable(f"{self._watchers_max} watch here already; try again later.")

    def come(self, watcher: Watcher) -> None:
        """A watcher is told all that is known at once, or with the next look."""
        self._places[watcher] = _Place()
        if not self._looking and self._timer is None:
            self._look()
        elif self._rows and (view := self._views.get(watcher.credentials.token)):
            self._tell_all(watcher, self._snapshot(view))

    def leave(self, watcher: Watcher) -> None:
        """A watcher has gone. It may have left already."""
        self._places.pop(watcher, None)
        if not self._places:
            self._rows, self._views = {}, {}
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    # Looking

    def _look(self) -> None:
        self._timer = None
        self._looking = True
        began = self._reactor.seconds()
        looked = defer.ensureDeferred(self._look_and_tell())
        looked.addErrback(self._failed)
        looked.addCallback(lambda _: self._look_again(self._reactor.seconds() - began))

    def _look_again(self, took_seconds: float) -> None:
        """Once a second; where there is so much that it takes long, half of the time at most."""
        self._looking = False
        if self._places:
            self._timer = self._reactor.callLater(max(INTERVAL_SECONDS - took_seconds, took_seconds), self._look)

    def _failed(self, failure: Any) -> None:
        if not failure.check(RestMQError):
            log.failure("looking at the queues for the dashboard failed", failure=failure)
        for watcher in list(self._places):
            if not watcher.paused:
                watcher.write(_event("store", b'{"reachable":false}'))

    async def _look_and_tell(self) -> None:
        rows, left_out = await self._look_at_queues()
        covered: dict[str | None, Callable[[str], bool]] = {}
        for watcher, place in list(self._places.items()):
            if await self._may_watch(watcher, place):
                token = watcher.credentials.token
                if token not in covered:
                    covered[token] = await self._guard.coverage(watcher.credentials)
        if not self._places:
            return
        for watcher, place in self._places.items():
            if watcher.credentials.token not in covered:  # it came meanwhile, and is told all the next time
                place.current = False
        changed = [name for name, row in rows.items() if self._rows.get(name) != row]
        self._rows = rows
        self._views = {token: view for token, view in self._views.items() if token in covered}
        for token, covers in covered.items():
            self._tell(token, covers, changed, left_out)

    async def _look_at_queues(self) -> tuple[dict[str, bytes], int]:
        """The rendered row of each queue, and how many more queues there are."""
        asked = defer.ensureDeferred(self._listening.everywhere())
        queues = await self._core.queue_all()
        listeners = await asked
        names = sorted({*queues, *listeners})
        shown = names[: self._queues_max]
        rows: dict[str, bytes] = {}
        for start in range(0, len(shown), QUEUES_A_CALL):
            for line in await self._core.queue_overview(shown[start : start + QUEUES_A_CALL]):
                rows[line.name] = self._row(line, listeners.get(line.name, NOBODY))
        return rows, len(names) - len(shown)

    def _row(self, line: QueueOverview, listeners: tuple[int, ...]) -> bytes:
        return orjson.dumps(
            (
                *(line.name, line.length, line.leased, line.delayed, line.dead, int(line.started), line.policy.label),
                *(line.number, line.out, line.oldest_ms),
                *listeners,
            )
        )

    async def _may_watch(self, watcher: Watcher, place: _Place) -> bool:
        """Rules and tokens change while somebody watches: who may no longer is closed, and told why when it asks."""
        try:
            await self._guard.check(watcher.credentials, guard.CONSUME, None)
        except (NotAllowed, NotAuthenticated, TooManyFailures):
            self.leave(watcher)
            watcher.close()
            return False
        offered = orjson.dumps({"may": await self._guard.offers(watcher.credentials, OFFERS)})
        if offered != place.offered and not watcher.paused and watcher in self._places:
            place.offered = offered
            watcher.write(_event("offers", offered))
        return True

    # Telling

    def _tell(self, token: str | None, covers: Callable[[str], bool], changed: list[str], left_out: int) -> None:
        view = self._views.setdefault(token, _View())
        names = {name for name in self._rows if covers(name)}
        gone, come = view.names - names, names - view.names
        news = [name for name in changed if name in names or name in come]
        view.names, view.left_out = names, left_out if token is None else 0
        come.difference_update(news)
        change = snapshot = b""
        for watcher, place in list(self._places.items()):
            if watcher.credentials.token != token:
                continue
            if watcher.paused:
                place.current = False
            elif place.current:
                change = change or self._change([*news, *come], gone)
                watcher.write(change)
            else:
                snapshot = snapshot or self._snapshot(view)
                self._tell_all(watcher, snapshot)

    def _tell_all(self, watcher: Watcher, snapshot: bytes) -> None:
        self._places[watcher].current = True
        watcher.write(snapshot)

    def _snapshot(self, view: _View) -> bytes:
        fields = {
            "time": self._core.store.time_ms(),
            "version": __version__,
            "columns": COLUMNS,
            "left_out": view.left_out,
        }
        return _event("snapshot", _with_rows(fields, [self._rows[name] for name in view.names]))

    def _change(self, news: list[str], gone: set[str]) -> bytes:
        fields = {"time": self._core.store.time_ms(), "gone": list(gone)}
        return _event("change", _with_rows(fields, [self._rows[name] for name in news]))


def _with_rows(fields: dict[str, Any], rows: list[bytes]) -> bytes:
    """A JSON object with these fields, and the rendered rows as ``queues``."""
    return b'%b,"queues":[%b]}' % (orjson.dumps(fields)[:-1], b",".join(rows))


def _event(kind: str, document: bytes) -> bytes:
    """A Server-Sent Event (HTML standard, 9.2.5); JSON has no line ends."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), document)
