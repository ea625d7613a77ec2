"""The samples of the dashboard's charts, with a stub core and a manual clock."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer

from restmq.errors import StoreUnavailable
from restmq.model import Policy
from restmq.monitoring.samples import SAMPLE_SECONDS, SAMPLES_MAX, SERIES_MAX, ChartSample, LastHour, Numbers, Samples
from restmq.queues.results import QueueOverview
from tests.unit.test_dashboard_feed import Scene, StubCore

BEGAN_MS = 1_700_000_000_000


class CountedCore(StubCore):
    """Queues by name, each with its numbers: waiting messages, total in, total out."""

    def __init__(self, clock: Any) -> None:
        super().__init__()
        self.queues: dict[str, Numbers] = {}
        self.missing = self.commands = 0
        self.lacks: set[str] = set()
        self.set_back_ms = 0
        self.store: Any = SimpleNamespace(
            clock=clock,
            first_connected=defer.Deferred(),
            time_ms=lambda: BEGAN_MS + round(clock.seconds() * 1000) - self.set_back_ms,
            layout=SimpleNamespace(samples="samples"),
            command=self._get,
        )
        self.written: dict[str, bytes] = {}

    def _get(self, name: str, key: str) -> defer.Deferred[Any]:
        assert name == "GET"
        self.commands += 1
        return defer.fail(StoreUnavailable("away")) if self.fails else defer.succeed(self.written.get(key))

    async def run_on(self, script: str, keys: list[str], value: bytes, expiry: int) -> None:
        assert (script, expiry) == ("samples", 3600)
        self.commands += 1
        if self.fails:
            raise StoreUnavailable("away")
        self.written[keys[0]] = value

    async def queue_names(self) -> tuple[list[str], int]:
        await super().queue_names()
        return sorted(self.queues), self.missing

    async def queue_overview(self, names: Iterable[str], counts: bool) -> list[QueueOverview]:
        assert counts
        asked = [name for name in names if name not in self.lacks]
        self.calls.append(len(asked))
        numbers = {name: self.queues.get(name, (0, 0, 0)) for name in asked}
        return [
            QueueOverview(name=name, length=ready, started=True, policy=Policy.BROADCAST, number=put, out=out)
            for name, (ready, put, out) in numbers.items()
        ]


class StubPeers:
    """A worker among others: whom it asks, and what they answer."""

    id = "me"

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answers: LastHour | None = None

    def answer(self, _kind: str, _about: Any, responder: Any) -> None:
        self.respond = responder

    async def ask_one(self, peer: str, *question: Any) -> LastHour | None:
        if peer == self.id:
            own: LastHour = await self.respond(question[1])
            return own
        self.asked.append((peer, *question))
        return self.answers


class SampledScene(Scene):
    """A server whose samples begin with the first tick."""

    def __init__(self, **limits: int) -> None:
        super().__init__(**limits)
        self.core: Any = CountedCore(self.clock)
        self.feed._core = self.core
        self.peers = StubPeers()
        self.leader = "me"
        self.samples = Samples(self.core, self.feed, self.peers, self.leading_worker)  # type: ignore[arg-type]

    async def leading_worker(self) -> str:
        return self.leader

    def restarted(self, seconds: float = 0) -> SampledScene:
        """Another server on the same Redis, after this time. It does not take samples yet."""
        after = SampledScene()
        after.clock.advance(self.clock.seconds() + seconds)
        after.core.written, after.core.queues = self.core.written, dict(self.core.queues)
        return after

    def stop(self) -> None:
        stopped: list[None] = []
        defer.ensureDeferred(self.samples.stopService()).addCallback(stopped.append)
        for _ in range(100):
            self.clock.advance(0)
        assert stopped

    def start(self, **queues: Numbers) -> SampledScene:
        self.core.queues |= queues
        self.samples.startService()
        self.go_on(0)
        return self

    def later(self, **queues: Numbers) -> None:
        """Ten seconds later some queues have other numbers."""
        self.core.queues |= queues
        self.go_on(SAMPLE_SECONDS)

    def go_on(self, seconds: float) -> None:
        """A sample of many queues takes several turns, more of them on a busy machine."""
        self.clock.advance(seconds)
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def read(self, *queues: str) -> list[Numbers]:
        return [(each.ready, each.put, each.out) for each in self.points(*queues)]

    def points(self, *queues: str) -> list[ChartSample]:
        return self.last_hour(*queues).samples

    def last_hour(self, *queues: str) -> LastHour:
        found: list[LastHour] = []
        defer.ensureDeferred(self.samples.read(queues or None)).addCallback(found.append)
        while not found:
            self.clock.advance(0)
        return found[0]

    def seconds(self, *queues: str) -> list[float]:
        return [(each.time - BEGAN_MS) / 1000 for each in self.points(*queues)]


@pytest.fixture
def scene() -> SampledScene:
    return SampledScene()


def test_queues_are_sampled_every_ten_seconds_although_nobody_watches(scene: SampledScene) -> None:
    scene.start(a=(3, 10, 7), b=(1, 1, 0))
    scene.later(a=(5, 15, 10))
    scene.later()
    assert scene.seconds() == [0, 10, 20]
    assert scene.read() == [(4, 11, 7), (6, 16, 10), (6, 16, 10)]
    assert scene.read("a") == [(3, 10, 7), (5, 15, 10), (5, 15, 10)]
    assert scene.read("a", "b") == scene.read()


def test_while_somebody_watches_redis_is_not_read_for_the_samples(scene: SampledScene) -> None:
    scene.start(a=(1, 1, 0))
    watcher = scene.watch()
    for _ in range(20):
        scene.core.queues["a"] = (scene.core.queues["a"][0] + 1, 50, 1)
        scene.second()
    assert len(scene.core.calls) == 1 + 21, "one for the first sample, one a second for the watcher"
    assert scene.read("a") == [(1, 1, 0), (10, 50, 1), (20, 50, 1)]
    scene.feed.remove_watcher(watcher)
    scene.later()
    assert scene.read("a")[-1] == (21, 50, 1)


def test_a_series_has_the_last_hour(scene: SampledScene) -> None:
    scene.start(busy=(0, 0, 0), idle=(7, 7, 0))
    for number in range(1, SAMPLES_MAX + 50):
        scene.later(busy=(number, number, 0))
    assert scene.read("busy") == [(number, number, 0) for number in range(50, SAMPLES_MAX + 50)]
    assert scene.read("idle") == [(7, 7, 0)] * SAMPLES_MAX
    assert scene.seconds("idle") == [number * SAMPLE_SECONDS for number in range(50, SAMPLES_MAX + 50)]
    assert [len(scene.samples._series[name]) for name in ("busy", "idle")] == [SAMPLES_MAX, 1]


def test_each_queue_has_its_last_two_minutes_beside_the_sum(scene: SampledScene) -> None:
    scene.start(a=(0, 0, 0), b=(7, 7, 0))
    for number in range(1, 20):
        scene.later(a=(number, number, 0))
    scene.later(new=(4, 4, 0))
    scene.later()
    assert scene.last_hour().waiting == {"a": [*range(9, 20), 19, 19], "b": [7] * 13, "new": [0] * 11 + [4, 4]}
    assert scene.last_hour("b").waiting == {"b": [7] * 13}


def test_it_is_known_when_messages_of_a_queue_were_last_taken(scene: SampledScene) -> None:
    scene.start(busy=(5, 9, 4), idle=(7, 9, 2), left=(2, 2, 0))
    scene.later(left=(1, 2, 1))
    for _ in range(11):
        scene.later()
    scene.later(busy=(5, 11, 6))
    scene.later(busy=(6, 12, 6))
    assert [sample.time for sample in scene.last_hour().samples][-2] == scene.last_hour().taken["busy"]
    assert scene.last_hour().taken.keys() == {"busy"}, "nobody took idle's, and left's were taken too long ago"


def test_a_queue_that_is_new_had_no_messages_before(scene: SampledScene) -> None:
    scene.start(old=(2, 2, 0))
    scene.later()
    scene.later(new=(1, 4, 3))
    assert scene.read("new") == [(0, 0, 0), (0, 0, 0), (1, 4, 3)]
    assert scene.read("old", "new") == [(2, 2, 0), (2, 2, 0), (3, 6, 3)]


def test_a_removed_queue_is_in_no_later_sample(scene: SampledScene) -> None:
    scene.start(a=(2, 2, 0), b=(1, 1, 0))
    del scene.core.queues["b"]
    scene.later()
    assert scene.read() == [(3, 3, 0), (2, 2, 0)]
    assert scene.read("b") == []
    scene.later(b=(5, 5, 0))
    assert scene.read("b") == [(0, 0, 0), (0, 0, 0), (5, 5, 0)]


def test_samples_are_missing_while_redis_is_away(scene: SampledScene) -> None:
    scene.start(a=(1, 1, 0))
    scene.core.fails = True
    scene.later()
    scene.later()
    scene.core.fails = False
    scene.later(a=(2, 2, 0))
    assert (scene.seconds("a"), scene.read("a")) == ([0, 30], [(1, 1, 0), (2, 2, 0)])


def test_samples_are_missing_while_a_node_of_a_cluster_is_away(scene: SampledScene) -> None:
    scene.start(a=(1, 1, 0), b=(1, 1, 0))
    scene.core.missing = 1
    del scene.core.queues["b"]
    scene.later()
    scene.core.missing = 0
    scene.core.lacks = {"b"}  # it goes away between two calls
    scene.later(b=(1, 1, 0))
    watcher = scene.watch()
    scene.later()
    scene.feed.remove_watcher(watcher)
    scene.core.lacks = set()
    scene.later()
    assert (scene.seconds(), scene.read()) == ([0, 40], [(2, 2, 0), (2, 2, 0)])


def test_watchers_that_see_redis_go_away_leave_no_old_sample(scene: SampledScene) -> None:
    scene.start(a=(1, 1, 0))
    scene.watch()
    scene.second()
    scene.core.fails = True
    for _ in range(15):
        scene.second()
    assert scene.seconds() == [0]


@pytest.mark.parametrize("queues_per_turn", [300, 5000])
def test_the_busiest_queues_have_a_series_each_and_all_are_in_the_sum(
    scene: SampledScene, queues_per_turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restmq.monitoring.samples._QUEUES_PER_TURN", queues_per_turn)
    idle = {f"idle{number}": (0, 1, 1) for number in range(SERIES_MAX)}
    scene.start(**idle, waiting=(9, 9, 0), quiet=(0, 0, 0))
    assert len(scene.samples._series) == SERIES_MAX
    assert scene.read("waiting") == [(9, 9, 0)]
    assert scene.read("quiet") == []
    scene.later(quiet=(0, 100, 100))
    scene.later(quiet=(0, 200, 200))
    assert scene.read("quiet") == [(0, 100, 100), (0, 200, 200)]
    assert scene.read() == [(9, 1009, 1000), (9, 1109, 1100), (9, 1209, 1200)]
    assert len(scene.samples._series) == SERIES_MAX
    assert scene.read(*idle) == [], "one of them has no series"


def test_a_queue_keeps_its_series_until_another_one_is_twice_as_busy(scene: SampledScene) -> None:
    scene.start(**{f"busy{number}": (10, 10, 0) for number in range(SERIES_MAX)}, other=(0, 0, 0))
    scene.later(other=(9, 9, 0))
    assert scene.read("other") == []
    scene.later(other=(11, 11, 0))
    assert scene.read("other") == [(11, 11, 0)]
    assert sum(not scene.read(f"busy{number}") for number in range(SERIES_MAX)) == 1


def test_a_sum_of_many_queues_is_right_although_a_sample_is_taken_meanwhile(scene: SampledScene) -> None:
    queues = [f"q{number}" for number in range(SERIES_MAX)]
    scene.start(**dict.fromkeys(queues, (1, 1, 0)))
    scene.later(**dict.fromkeys(queues, (1, 2, 1)))
    found: list[LastHour] = []
    defer.ensureDeferred(scene.samples.read(queues)).addCallback(found.append)
    assert not found, "others get their turns"
    scene.later(**dict.fromkeys(queues, (3, 4, 1)))
    while not found:
        scene.clock.advance(0)
    assert [(each.ready, each.put, each.out) for each in found[0].samples] == [
        (1000, 1000, 0),
        (1000, 2000, 1000),
        (3000, 4000, 1000),
    ]


def test_a_worker_asks_the_leader_for_its_samples(scene: SampledScene) -> None:
    scene.leader = "other"
    scene.start(a=(1, 1, 0))
    scene.later()
    assert scene.core.calls == [], "it takes none itself"
    told = LastHour([ChartSample(BEGAN_MS, 1, 1, 0)], {"a": [1]})
    scene.peers.answers = told
    assert scene.last_hour("a") == told
    assert scene.peers.asked == [("other", "samples", ["a"], LastHour)]
    scene.peers.answers = None
    assert scene.last_hour() == LastHour()


def test_a_worker_that_becomes_the_leader_samples_from_then_on(scene: SampledScene) -> None:
    scene.leader = "other"
    scene.start(a=(1, 1, 0))
    scene.leader = "me"
    scene.later()
    answered: list[LastHour] = []
    defer.ensureDeferred(scene.peers.respond(["a"])).addCallback(answered.append)
    assert answered == [scene.last_hour("a")] == [LastHour([ChartSample(BEGAN_MS + 10_000, 1, 1, 0)], {"a": [1]})]


def test_a_server_without_queues_has_samples_too(scene: SampledScene) -> None:
    scene.start()
    scene.later(a=(1, 1, 0))
    assert scene.read() == scene.read("a") == [(0, 0, 0), (1, 1, 0)]


def test_samples_begin_anew_when_the_clock_was_set_back(scene: SampledScene) -> None:
    scene.start(a=(1, 1, 0))
    scene.later(b=(1, 1, 0))
    scene.core.set_back_ms = 3_600_000
    scene.later(a=(2, 2, 0), c=(5, 5, 0))
    scene.later()
    assert scene.seconds() == scene.seconds("a") == [20 - 3600, 30 - 3600]
    assert (scene.read("a"), scene.read("b")) == ([(2, 2, 0)] * 2, [(1, 1, 0)] * 2)
    assert scene.read() == [(8, 8, 0)] * 2


def test_the_first_sample_comes_as_soon_as_redis_can_be_used(scene: SampledScene) -> None:
    scene.core.fails = True
    scene.start(a=(1, 1, 0))
    scene.core.fails = False
    scene.clock.advance(0.1)
    scene.core.store.first_connected.callback(None)
    assert scene.seconds() == [0.1]


def test_clients_need_not_wait_for_the_first_sample() -> None:
    scene = SampledScene()
    scene.samples._leader = defer.Deferred  # Redis has not answered yet
    scene.start()
    first_connected, served = scene.core.store.first_connected, []
    first_connected.addCallback(served.append)
    first_connected.callback(None)
    assert served


def test_samples_go_on_after_a_restart_with_a_gap(scene: SampledScene) -> None:
    scene.start(a=(3, 3, 0), b=(0, 7, 7))
    scene.later(a=(5, 5, 0))
    scene.stop()
    after = scene.restarted(100).start(a=(4, 5, 1), c=(1, 1, 0))
    after.later(c=(2, 2, 0))
    assert after.seconds() == [0, 10, 110, 120]
    assert after.read("a") == [(3, 3, 0), (5, 5, 0), (4, 5, 1), (4, 5, 1)]
    assert after.read("b") == [(0, 7, 7)] * 4
    assert after.read("c") == [(1, 1, 0), (2, 2, 0)], "nothing is known of it before"
    assert after.read() == [(3, 10, 7), (5, 12, 7), (5, 13, 8), (6, 14, 8)]
    after.stop()
    assert after.restarted(10).start().seconds() == [0, 10, 110, 120, 130]


def test_a_server_that_is_killed_loses_the_samples_of_a_minute_at_most(scene: SampledScene) -> None:
    scene.start(a=(1, 1, 0))
    for number in range(1, 15):
        scene.later(a=(number, number, 0))
    scene.clock.advance(0)
    after = scene.restarted(10).start()
    assert after.seconds() == [*(10.0 * number for number in range(12)), 150]


def test_samples_of_more_than_an_hour_ago_are_forgotten_also_after_a_restart(scene: SampledScene) -> None:
    scene.start(a=(1, 1, 0))
    for _ in range(100):
        scene.later()
    scene.stop()
    after = scene.restarted(3000).start()
    assert after.seconds() == [*(10.0 * number for number in range(40, 101)), 4000]
    assert len(after.read("a")) == 62


@pytest.mark.parametrize("written", [b"", b"nonsense", b"\x83\xa6number\x01"])
def test_samples_that_are_not_understood_are_ignored(scene: SampledScene, written: bytes) -> None:
    scene.core.written["samples"] = written
    scene.start(a=(1, 1, 0))
    assert (scene.seconds(), scene.read("a")) == ([0], [(1, 1, 0)])


def test_a_worker_that_does_not_lead_writes_nothing(scene: SampledScene) -> None:
    scene.leader = "other"
    scene.start(a=(1, 1, 0))
    for _ in range(7):
        scene.later()
    scene.stop()
    assert (scene.core.written, scene.core.commands) == ({}, 0)


def test_a_server_stops_also_while_redis_is_away(scene: SampledScene) -> None:
    scene.start(a=(1, 1, 0))
    scene.core.fails = True
    scene.stop()
    assert scene.core.written == {}
