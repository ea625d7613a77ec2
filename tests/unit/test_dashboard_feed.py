"""The events that watchers get, with a stub core and a manual clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import task

from restmq.auth.guard import Access, Credentials
from restmq.errors import NotAuthenticated, StoreUnavailable
from restmq.model import Policy
from restmq.monitoring.dashboard_feed import COLUMNS, INTERVAL_SECONDS, DashboardFeed
from restmq.queues.results import QueueOverview


class StubCore:
    """Queues by name, each with its number of ready messages."""

    def __init__(self) -> None:
        self.lengths: dict[str, int] = {}
        self.calls: list[int] = []
        self.fails = False
        self.store = SimpleNamespace(time_ms=lambda: 1000)

    def at_a_time(self, queues: int) -> int:
        return queues

    async def queue_names(self) -> tuple[list[str], int]:
        if self.fails:
            raise StoreUnavailable("away")
        return list(self.lengths), 0

    async def queue_overview(self, names: Iterable[str], counts: bool) -> list[QueueOverview]:
        assert counts
        asked = list(names)
        self.calls.append(len(asked))
        return [
            QueueOverview(name=name, length=self.lengths.get(name, 0), started=True, policy=Policy.BROADCAST)
            for name in asked
        ]


class StubGuard:
    """A token covers the queues that begin with it."""

    def __init__(self) -> None:
        self.refused: set[str | None] = set()
        self.may = {"publish": True}

    async def check(self, credentials: Credentials, _access: Access, _queue: str | None) -> None:
        if credentials.token in self.refused:
            raise NotAuthenticated("no longer")

    async def coverage(self, credentials: Credentials) -> Callable[[str], bool]:
        return lambda queue: queue.startswith(credentials.token or "")

    async def offers(self, _credentials: Credentials, _wanted: Any) -> dict[str, bool]:
        return self.may


class StubWatcher:
    def __init__(self, token: str | None = None) -> None:
        self.credentials = Credentials("192.0.2.1", token=token)
        self.paused = False
        self.closed = False
        self.written: list[bytes] = []

    def write(self, event: bytes) -> None:
        self.written.append(event)

    def close(self) -> None:
        self.closed = True

    def events(self) -> list[tuple[str, Any]]:
        """The events since the last call: kinds and contents."""
        blocks = b"".join(self.written).decode().split("\n\n")[:-1]
        self.written.clear()
        parted = [block.split("\n") for block in blocks]
        return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in parted]

    def lengths(self) -> list[tuple[str, dict[str, int]]]:
        """The same without ``offers``, as the queues' lengths."""
        at = COLUMNS.index("ready")
        return [(kind, {row[0]: row[at] for row in said["queues"]}) for kind, said in self.events() if "queues" in said]


class Scene:
    def __init__(self, **limits: int) -> None:
        self.clock = task.Clock()
        self.core = StubCore()
        self.guard = StubGuard()
        self.listeners: dict[str, tuple[int, ...]] = {}
        self.listening = SimpleNamespace(everywhere=self.everywhere)
        parts: Any = (self.core, self.listening, self.guard, self.clock)
        self.feed = DashboardFeed(*parts, **limits)
        self.feed.startService()

    async def everywhere(self) -> dict[str, tuple[int, ...]]:
        return self.listeners

    def watch(self, token: str | None = None) -> StubWatcher:
        watcher = StubWatcher(token)
        self.feed.add_watcher(watcher)
        return watcher

    def second(self) -> None:
        self.clock.advance(INTERVAL_SECONDS)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_watcher_gets_a_snapshot_and_then_only_what_changes(scene: Scene) -> None:
    scene.core.lengths = {"a": 1, "b": 2}
    watcher = scene.watch()
    assert watcher.lengths() == [("snapshot", {"a": 1, "b": 2})]
    scene.core.lengths["b"] = 3
    scene.second()
    assert watcher.lengths() == [("change", {"b": 3})]
    scene.second()
    assert watcher.lengths() == [("change", {})]
    del scene.core.lengths["a"]
    scene.second()
    assert [said["gone"] for _, said in watcher.events()] == [["a"]]


def test_redis_is_read_once_for_all_watchers_and_never_without_watchers(scene: Scene) -> None:
    scene.core.lengths = {"a": 1}
    watchers = [scene.watch() for _ in range(5)]
    assert [watcher.lengths() for watcher in watchers] == [[("snapshot", {"a": 1})]] * 5
    scene.second()
    assert scene.core.calls == [1, 1]
    for watcher in watchers:
        scene.feed.remove_watcher(watcher)
    assert scene.clock.getDelayedCalls() == []
    scene.second()
    assert scene.core.calls == [1, 1]


def test_many_queues_are_read_in_bounded_calls_and_those_beyond_the_limit_are_counted() -> None:
    scene = Scene(queues_max=240)
    scene.core.lengths = {f"q{number:05}": 1 for number in range(300)}
    ((_, said),) = [event for event in scene.watch().events() if event[0] == "snapshot"]
    assert scene.core.calls == [100, 100, 40]
    assert (len(said["queues"]), said["left_out"]) == (240, 60)


def test_each_token_shows_its_own_queues_and_no_others(scene: Scene) -> None:
    scene.core.lengths = {"a1": 1, "b1": 1}
    everybody, a, b = scene.watch(), scene.watch("a"), scene.watch("b")
    scene.second()
    assert a.lengths() == [("snapshot", {"a1": 1})]
    assert b.lengths() == [("snapshot", {"b1": 1})]
    scene.core.lengths |= {"a1": 5, "a2": 0}
    everybody.events()
    scene.second()
    assert a.lengths() == [("change", {"a1": 5, "a2": 0})]
    assert b.lengths() == [("change", {})]
    assert everybody.lengths() == [("change", {"a1": 5, "a2": 0})]


def test_a_watcher_whose_rights_end_is_closed_and_gets_no_more_events(scene: Scene) -> None:
    scene.core.lengths = {"a1": 1}
    a, other = scene.watch("a"), scene.watch()
    scene.second()
    a.events(), other.events()
    scene.guard.refused.add("a")
    scene.second()
    assert a.closed
    assert a.events() == []
    assert other.lengths() == [("change", {})]


def test_a_watcher_is_told_its_permitted_actions_at_first_and_when_they_change(scene: Scene) -> None:
    watcher = scene.watch()
    assert watcher.events()[0] == ("offers", {"may": {"publish": True}})
    scene.second()
    assert [kind for kind, _ in watcher.events()] == ["change"]
    scene.guard.may = {"publish": False}
    scene.second()
    assert watcher.events()[0] == ("offers", {"may": {"publish": False}})


def test_a_slow_watcher_is_skipped_and_later_gets_a_snapshot(scene: Scene) -> None:
    scene.core.lengths = {"a": 1}
    watcher = scene.watch()
    watcher.events()
    watcher.paused = True
    scene.core.lengths = {"a": 2, "b": 1}
    scene.second()
    scene.second()
    assert watcher.written == []
    watcher.paused = False
    scene.second()
    assert watcher.lengths() == [("snapshot", {"a": 2, "b": 1})]


def test_watchers_are_told_that_the_store_is_away_and_get_changes_when_it_is_back(scene: Scene) -> None:
    scene.core.lengths = {"a": 1}
    watcher = scene.watch()
    watcher.events()
    scene.core.fails = True
    scene.second()
    assert watcher.events() == [("store", {"reachable": False})]
    scene.core.fails = False
    scene.core.lengths["a"] = 2
    scene.second()
    assert watcher.lengths() == [("change", {"a": 2})]


def test_a_queue_that_has_only_listeners_is_shown(scene: Scene) -> None:
    scene.listeners["heard"] = (1, 2, 3, 0)
    scene.listeners["awaited"] = (0, 0, 0, 4)
    ((_, snapshot),) = [event for event in scene.watch().events() if event[0] == "snapshot"]
    rows = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in snapshot["queues"]}
    counted = {name: [row[each] for each in ("comet", "sse", "websocket", "waiters")] for name, row in rows.items()}
    assert counted == {"heard": [1, 2, 3, 0], "awaited": [0, 0, 0, 4]}


def test_the_number_of_watchers_is_limited() -> None:
    scene = Scene(watchers_max=2)
    for _ in range(2):
        scene.feed.check_capacity()
        scene.watch()
    with pytest.raises(StoreUnavailable):
        scene.feed.check_capacity()


def test_when_the_service_stops_watchers_are_closed(scene: Scene) -> None:
    watcher = scene.watch()
    scene.feed.stopService()
    assert watcher.closed
    assert scene.clock.getDelayedCalls() == []
    with pytest.raises(StoreUnavailable):
        scene.feed.check_capacity()
