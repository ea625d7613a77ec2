"""The live data of the dashboard: the counters of all queues, then once a second those that changed.

While a daemon has watchers, it asks Redis and the other daemons once a second, for all of its watchers together. The
samples of ``monitoring/samples.py`` use the same readings. Without watchers, only the samples are read.
Watchers with the same token, or with none, share one view, which is rendered once. Nothing is buffered for a watcher
that reads too slowly: it is skipped, and gets a new snapshot when it can read again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

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
#: Few, so that neither Redis nor this process blocks for long.
QUEUES_PER_CALL = 100
#: The columns of a row. ``in`` and ``out`` are totals, ``oldest`` is a time in ms since 1970 or null.
COLUMNS = (
    *("name", "ready", "leased", "delayed", "dead", "started", "policy", "in", "out", "oldest"),
    *TRANSPORTS,
    "waiters",
)
#: Actions that the page offers, with the access that each requires.
OFFERS = {
    "publish": guard.PRODUCE,
    "configure": guard.CONFIGURE,
    "purge": guard.PURGE,
    "inspect": guard.INSPECT,
    "comet": guard.LISTEN_COMET,
    "websocket": guard.LISTEN_WEBSOCKET,
}


class Reading(NamedTuple):
    """The counters of all queues at one time.

    Attributes:
        time_ms: the time, in ms since 1970.
        is_whole: whether all nodes of a cluster answered.
    """

    time_ms: int
    queues: list[QueueOverview]
    is_whole: bool


class Watcher(Protocol):
    """A connected dashboard page."""

    credentials: Credentials
    #: Whether its transport is full.
    paused: bool

    def write(self, event: bytes) -> None:
        """Sends rendered events."""

    def close(self) -> None:
        """Ends the connection; the watcher was removed before."""


@dataclass(slots=True, eq=False)
class _WatcherState:
    """What a watcher was sent so far.

    Attributes:
        offered: the last rendered ``offers`` event; empty before the first.
        current: whether the watcher got the snapshot and all later changes, so that it needs only the next change.
    """

    offered: bytes = b""
    current: bool = False


@dataclass(slots=True)
class _View:
    """The queues that all watchers with the same token, or all watchers without a token, see.

    Attributes:
        names: the queues that were sent.
        left_out: number of queues beyond the maximum.
    """

    names: set[str] = field(default_factory=set)
    left_out: int = 0


class DashboardFeed(service.Service):  # type: ignore[misc]  # untyped
    """Sends events to all watchers of this daemon.

    Args:
        watchers_max: maximum number of watchers.
        queues_max: maximum number of queues shown, the first ones by name; the rest is counted.
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
        self._states: dict[Watcher, _WatcherState] = {}
        self._views: dict[str | None, _View] = {}
        self._rows: dict[str, bytes] = {}
        self._missing = 0
        self._last: Reading | None = None
        self._reading = False
        self._timer: Any = None

    def stopService(self) -> None:
        super().stopService()
        for watcher in list(self._states):
            self.remove_watcher(watcher)
            watcher.close()

    # Watchers

    def check_capacity(self) -> None:
        """Raises StoreUnavailable if there are as many watchers as allowed, or the server is shutting down."""
        if not self.running:
            raise StoreUnavailable("the server is starting or shutting down; try again in a moment.")
        if len(self._states) >= self._watchers_max:
            raise StoreUnavailable(f"{self._watchers_max} browsers watch this server already; try again later.")

    def add_watcher(self, watcher: Watcher) -> None:
        """Adds a watcher. It gets a snapshot at once if there is one, otherwise with the next reading."""
        self._states[watcher] = _WatcherState()
        if not self._reading and self._timer is None:
            self._read()
        elif self._rows and (view := self._views.get(watcher.credentials.token)):
            self._send_snapshot(watcher, self._snapshot(view))

    def remove_watcher(self, watcher: Watcher) -> None:
        """Removes a watcher, if it is still there."""
        self._states.pop(watcher, None)
        if not self._states:
            self._rows, self._views, self._last = {}, {}, None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    # Reading

    def _read(self) -> None:
        self._timer = None
        self._reading = True
        began = self._reactor.seconds()
        done = defer.ensureDeferred(self._read_and_send())
        done.addErrback(self._failed)
        done.addCallback(lambda _: self._schedule(self._reactor.seconds() - began))

    def _schedule(self, took_seconds: float) -> None:
        """Schedules the next reading: once a second, or after a pause as long as the last reading if it was slow."""
        self._reading = False
        if self._states:
            self._timer = self._reactor.callLater(max(INTERVAL_SECONDS - took_seconds, took_seconds), self._read)

    def _failed(self, failure: Any) -> None:
        self._last = None
        if not failure.check(RestMQError):
            log.failure("reading the queues for the dashboard failed", failure=failure)
        for watcher in list(self._states):
            if not watcher.paused:
                watcher.write(_STORE_IS_AWAY)

    async def _read_and_send(self) -> None:
        rows, left_out = await self._read_queues()
        covered: dict[str | None, Callable[[str], bool]] = {}
        for watcher, state in list(self._states.items()):
            try:
                if await self._may_watch(watcher, state):
                    token = watcher.credentials.token
                    if token not in covered:
                        covered[token] = await self._guard.coverage(watcher.credentials)
            except StoreUnavailable:  # of a cluster, the node that has the watcher's token
                if not watcher.paused:
                    watcher.write(_STORE_IS_AWAY)
        if not self._states:
            return
        for watcher, state in self._states.items():
            if watcher.credentials.token not in covered:  # it came meanwhile, and gets a snapshot the next time
                state.current = False
        changed = [name for name, row in rows.items() if self._rows.get(name) != row]
        self._rows = rows
        self._views = {token: view for token, view in self._views.items() if token in covered}
        for token, covers in covered.items():
            self._send(token, covers, changed, left_out)

    async def _read_queues(self) -> tuple[dict[str, bytes], int]:
        """Returns the rendered row of each queue, and the number of queues beyond the maximum."""
        asked = defer.ensureDeferred(self._listening.everywhere())
        queues, self._missing = await self._core.queue_names()
        listeners = await asked
        names = sorted({*queues, *listeners})
        rows: dict[str, bytes] = {}
        lines: list[QueueOverview] = []
        async for part in self._parts(names):
            lines += part
            rows |= {line.name: self._row(line, listeners.get(line.name, NOBODY)) for line in part}
        left_out = max(0, len(names) - self._queues_max)
        is_whole = not self._missing and len(lines) + left_out == len(names)
        self._last = Reading(self._core.store.time_ms(), lines, is_whole) if self._states else None
        return rows, left_out

    async def read(self) -> Reading:
        """The queues as they are now; while anybody watches, as the watchers saw them last, which costs nothing.

        Raises StoreUnavailable and StoreRefused.
        """
        if self._last is not None:
            return self._last
        names, missing = await self._core.queue_names()
        lines = [line async for part in self._parts(names) for line in part]
        is_whole = not missing and len(lines) == min(len(names), self._queues_max)
        return Reading(self._core.store.time_ms(), lines, is_whole)

    async def _parts(self, names: list[str]) -> AsyncIterator[list[QueueOverview]]:
        """Reads the first queues, up to the maximum, in bounded calls."""
        at_a_time = self._core.at_a_time(QUEUES_PER_CALL)
        for start in range(0, min(len(names), self._queues_max), at_a_time):
            part = names[start : min(start + at_a_time, self._queues_max)]
            yield await self._core.queue_overview(part, counts=True)

    def _row(self, line: QueueOverview, listeners: tuple[int, ...]) -> bytes:
        return orjson.dumps(
            (
                *(line.name, line.length, line.leased, line.delayed, line.dead, int(line.started), line.policy.label),
                *(line.number, line.out, line.oldest_ms),
                *listeners,
            )
        )

    async def _may_watch(self, watcher: Watcher, state: _WatcherState) -> bool:
        """Closes a watcher that the rules or its token no longer admit. It gets the reason when it connects again."""
        try:
            await self._guard.check(watcher.credentials, guard.CONSUME, None)
        except (NotAllowed, NotAuthenticated, TooManyFailures):
            self.remove_watcher(watcher)
            watcher.close()
            return False
        offered = orjson.dumps({"may": await self._guard.offers(watcher.credentials, OFFERS)})
        if offered != state.offered and not watcher.paused and watcher in self._states:
            state.offered = offered
            watcher.write(_event("offers", offered))
        return True

    # Sending

    def _send(self, token: str | None, covers: Callable[[str], bool], changed: list[str], left_out: int) -> None:
        view = self._views.setdefault(token, _View())
        names = {name for name in self._rows if covers(name)}
        removed, added = view.names - names, names - view.names
        updated = [name for name in changed if name in names or name in added]
        view.names, view.left_out = names, left_out if token is None else 0
        added.difference_update(updated)
        change = snapshot = b""
        for watcher, state in list(self._states.items()):
            if watcher.credentials.token != token:
                continue
            if watcher.paused:
                state.current = False
            elif state.current:
                change = change or self._change([*updated, *added], removed)
                watcher.write(change)
            else:
                snapshot = snapshot or self._snapshot(view)
                self._send_snapshot(watcher, snapshot)

    def _send_snapshot(self, watcher: Watcher, snapshot: bytes) -> None:
        self._states[watcher].current = True
        watcher.write(snapshot)

    def _what_is_missing(self) -> dict[str, int]:
        """The number of nodes of a cluster that do not answer, if there are any."""
        return {"missing": self._missing} if self._missing else {}

    def _snapshot(self, view: _View) -> bytes:
        fields = {
            "time": self._core.store.time_ms(),
            "version": __version__,
            "columns": COLUMNS,
            "left_out": view.left_out,
            **self._what_is_missing(),
        }
        return _event("snapshot", _with_rows(fields, [self._rows[name] for name in view.names]))

    def _change(self, names: list[str], removed: set[str]) -> bytes:
        fields = {"time": self._core.store.time_ms(), "gone": list(removed), **self._what_is_missing()}
        return _event("change", _with_rows(fields, [self._rows[name] for name in names]))


def _with_rows(fields: dict[str, Any], rows: list[bytes]) -> bytes:
    """A JSON object with these fields, and the rendered rows as ``queues``."""
    return b'%b,"queues":[%b]}' % (orjson.dumps(fields)[:-1], b",".join(rows))


def _event(kind: str, document: bytes) -> bytes:
    """A Server-Sent Event (HTML standard, 9.2.5); JSON has no line ends."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), document)


_STORE_IS_AWAY = _event("store", b'{"reachable":false}')
