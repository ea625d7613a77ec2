"""Daemons that ask each other, with a stub of Redis' channels and a manual clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from twisted.internet import defer, task

from restmq.auth.guard import Credentials
from restmq.errors import StoreUnavailable
from restmq.monitoring.listeners import ListenerStatistics
from restmq.monitoring.peers import Peers
from restmq.store import keys

ANSWER_SECONDS = 2.0


class Hub:
    """Publishes at once, to all subscribers of that moment."""

    def __init__(self) -> None:
        self.clock = task.Clock()
        self.heard_by: dict[bytes, list[Callable[[bytes, bytes], None]]] = {}
        self.published: list[tuple[bytes, Any]] = []
        self.away = False
        self.first_connected: defer.Deferred[None] = defer.succeed(None)

    def core(self) -> Any:
        store = SimpleNamespace(publish=self.publish, first_connected=self.first_connected)
        return SimpleNamespace(store=store, layout=keys.one_redis(), pubsub=self.pubsub)

    def pubsub(self, on_message: Any, **callbacks: Any) -> Any:
        def subscribe(channel: bytes) -> defer.Deferred[None]:
            self.heard_by.setdefault(channel, []).append(on_message)
            return defer.succeed(None)

        def unsubscribe(channel: bytes) -> None:
            self.heard_by[channel].remove(on_message)

        return SimpleNamespace(subscribe=subscribe, unsubscribe=unsubscribe, stop=lambda: None, **callbacks)

    def publish(self, channel: bytes, payload: bytes) -> defer.Deferred[int]:
        if self.away:
            return defer.fail(StoreUnavailable("away"))
        self.published.append((channel, json.loads(payload)))
        listeners = list(self.heard_by.get(channel, []))
        for listener in listeners:
            listener(channel, payload)
        return defer.succeed(len(listeners))

    def peer(self, group: str = "") -> Peers:
        peers = Peers(self.core(), self.clock, ANSWER_SECONDS, group)
        peers.answer("name", str, lambda about: f"{about}!")
        return peers

    def started(self, *peers: Peers) -> None:
        for each in peers:
            each.startService()


@pytest.fixture
def hub() -> Hub:
    return Hub()


def result_of(coroutine: Any) -> list[Any]:
    """The Deferred's result, if it has one."""
    results: list[Any] = []
    defer.ensureDeferred(coroutine).addCallback(results.append)
    return results


def test_all_other_daemons_are_asked_and_the_wait_ends_with_the_last_answer(hub: Hub) -> None:
    one, two, three = (hub.peer() for _ in range(3))
    hub.started(one, two, three)
    assert result_of(one.ask("name", "x", one.everybody, str)) == [["x!", "x!"]]
    assert hub.clock.getDelayedCalls() == []


def test_a_daemon_that_has_stopped_is_not_waited_for(hub: Hub) -> None:
    one, two = hub.peer(), hub.peer()
    hub.started(one, two)
    two.stopService()
    assert result_of(one.ask("name", "x", one.everybody, str)) == [[]]
    assert hub.clock.getDelayedCalls() == []


def test_a_single_daemon_does_not_wait(hub: Hub) -> None:
    one = hub.peer()
    hub.started(one)
    assert result_of(one.ask("name", "x", one.everybody, str)) == [[]]


def test_a_daemon_that_hangs_is_left_out_after_the_timeout(hub: Hub) -> None:
    one, two, hung = (hub.peer() for _ in range(3))
    hung.answer("name", str, lambda _: defer.Deferred())
    hub.started(one, two, hung)
    answered = result_of(one.ask("name", "x", one.everybody, str))
    hub.clock.advance(ANSWER_SECONDS * 0.9)
    assert answered == []
    hub.clock.advance(ANSWER_SECONDS * 0.2)
    assert answered == [["x!"]]
    patient = result_of(one.ask("name", "x", one.everybody, str, least_seconds=3 * ANSWER_SECONDS))
    hub.clock.advance(ANSWER_SECONDS * 2.9)
    assert patient == []
    hub.clock.advance(ANSWER_SECONDS * 0.2)
    assert patient == [["x!"]]


def test_the_processes_that_do_not_answer_are_counted(hub: Hub) -> None:
    one, two, hung = (hub.peer() for _ in range(3))
    hung.answer("name", str, lambda _: defer.Deferred())
    hub.started(one, two, hung)
    answered = result_of(one.ask_and_count("name", "x", one.everybody, str))
    hub.clock.advance(ANSWER_SECONDS)
    assert answered == [(["x!"], 1)]
    hub.away = True
    assert result_of(one.ask_and_count("name", "x", one.everybody, str)) == [([], None)]
    assert result_of(hub.peer().ask_and_count("name", "x", one.everybody, str)) == [([], None)]


def test_a_late_answer_is_not_taken_for_the_answer_to_another_question(hub: Hub) -> None:
    one, two = hub.peer(), hub.peer()
    late: defer.Deferred[str] = defer.Deferred()
    two.answer("name", str, lambda about: late if about == "first" else "second!")
    hub.started(one, two)
    first = result_of(one.ask("name", "first", one.everybody, str))
    hub.clock.advance(ANSWER_SECONDS)
    late.callback("first!")
    assert first == [[]]
    assert result_of(one.ask("name", "second", one.everybody, str)) == [["second!"]]


def test_without_redis_there_are_no_answers_and_no_wait(hub: Hub) -> None:
    one, two = hub.peer(), hub.peer()
    hub.started(one, two)
    hub.away = True
    assert result_of(one.ask("name", "x", one.everybody, str)) == [[]]
    assert result_of(hub.peer().ask("name", "x", one.everybody, str)) == [[]], "it does not listen yet"


def test_waits_end_when_the_service_stops(hub: Hub) -> None:
    one, two = hub.peer(), hub.peer()
    two.answer("name", str, lambda _: defer.Deferred())
    hub.started(one, two)
    answered = result_of(one.ask("name", "x", one.everybody, str))
    one.stopService()
    assert answered == [[]]
    assert hub.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\xff", b"null", b"[]", b"{}", b'{"by": 1}', b'{"by": "x", "kind": "name", "ask": true}',
        b'{"by": "0123456789abcdef"}', b'{"by": "0123456789abcdef", "kind": [], "ask": true}',
        b'{"by": "0123456789abcdef", "kind": "none", "ask": true}',
        b'{"by": "0123456789abcdef", "kind": "name", "number": [], "to": "x"}',
        b'{"by": "0123456789abcdef", "kind": "name", "number": 1, "to": {}}',
        b'{"by": "0123456789abcdef", "kind": "counts", "answer": {"worker": 1}}',
        b"[" * 100_000, b'"' + b"x" * (9 << 20) + b'"',
    ],
    ids=lambda payload: payload[:60].decode(errors="replace"),
)  # fmt: skip
def test_an_invalid_message_is_skipped(hub: Hub, payload: bytes) -> None:
    one, two = hub.peer("g"), hub.peer("g")
    hub.started(one, two)
    answered = result_of(one.ask("name", "x", one.everybody, str))
    assert answered == [["x!"]]
    for channel in (one.everybody, one.group, keys.one_redis().peer_channel(one.id)):
        for listener in hub.heard_by[channel or b""]:
            listener(channel or b"", payload)
    assert result_of(one.ask("name", "y", one.everybody, str)) == [["y!"]]


# Who listens


def listening(hub: Hub, peers: Peers, **consumers: list[str]) -> ListenerStatistics:
    def of(queue: str) -> list[Any]:
        return [
            SimpleNamespace(
                format=SimpleNamespace(transport=transport),
                credentials=Credentials("192.0.2.1"),
                since_seconds=0,
                lease_ms=0,
                leases={},
            )
            for transport in consumers.get(queue, [])
        ]

    fanout: Any = SimpleNamespace(queues=list(consumers), consumers=of, seconds=lambda: 7.2)

    def waiters(queue: str, _count: int) -> list[SimpleNamespace]:
        presence = SimpleNamespace(address="192.0.2.7")
        return [SimpleNamespace(presence=presence, since_seconds=3)] * (2 if queue == "awaited" else 0)

    polls: Any = SimpleNamespace(queues=["awaited"], count=lambda queue: len(waiters(queue, 500)), waiters=waiters)
    return ListenerStatistics(fanout, polls, peers, hub.clock)


def test_listeners_of_all_daemons_are_added_up_and_only_of_queues_that_have_any(hub: Hub) -> None:
    one, two = hub.peer(), hub.peer()
    here = listening(hub, one, a=["comet", "sse"], b=["websocket"])
    listening(hub, two, a=["sse"], c=["comet"], d=[])
    hub.started(one, two)
    assert result_of(here.everywhere()) == [
        {"a": (1, 2, 0, 0), "b": (0, 0, 1, 0), "c": (1, 0, 0, 0), "awaited": (0, 0, 0, 4)}
    ]
    assert result_of(here.count("a")) == [(3, 0)]
    assert result_of(here.count("awaited")) == [(0, 4)]
    assert result_of(here.count("none")) == [(0, 0)]
    (found,) = result_of(here.consumers("a"))
    assert (found.total, found.waiters, len(found.consumers)) == (3, 0, 3)
    assert found.consumers[2] == msgspec.structs.replace(found.consumers[0], transport="sse")
    (found,) = result_of(here.consumers("awaited"))
    assert (found.total, found.waiters, len(found.polls)) == (0, 4, 4)
    assert {(poll.address, poll.age_seconds) for poll in found.polls} == {("192.0.2.7", 4)}


NONSENSE: list[Any] = [
    None, 1, "x", [], {}, [[]], [["a"]], [["a", 1, 1, 1, -1]], [["a", 1, 1, 1, "1"]], [[1, 1, 1, 1, 1]],
    [["", 1, 1, 1, 1]], [["a", True, 1, 1, 1]], [["a", 1, 1, 1, 1, 1]], {"total": 1},
    {"total": 1, "waiters": 1, "consumers": {}}, {"total": -1, "waiters": 1, "consumers": []},
    {"total": 0, "waiters": 0, "consumers": [None, {}, {"transport": "x"}]},
    {"total": 0, "waiters": 0, "consumers": [{"transport": "x", "address": "", "age_seconds": 1, "lease_seconds": 1,
                                             "held": 1, "server": ""}]},
    {"total": 0, "waiters": 1, "consumers": [], "polls": [{"address": "x"}]},
]  # fmt: skip


def test_counting_very_many_queues_lets_other_work_run_in_between(hub: Hub) -> None:
    one, two = hub.peer(), hub.peer()
    here = listening(hub, one)
    listening(hub, two, **{f"q{number}": ["comet"] for number in range(2500)})
    hub.started(one, two)
    turns: list[float] = []
    call_later = hub.clock.callLater

    def counting(delay: float, *call: Any) -> Any:
        turns.extend([delay] if delay == 0 else [])
        return call_later(delay, *call)

    hub.clock.callLater = counting
    counted = result_of(here.everywhere())
    hub.clock.advance(0)
    assert len(counted[0]) == 2501
    assert len(turns) == 4, "twice where they are counted, twice where they are added up"


@pytest.mark.parametrize("answer", NONSENSE, ids=str)
def test_invalid_statistics_of_another_daemon_are_ignored(hub: Hub, answer: Any) -> None:
    one, two = hub.peer(), hub.peer()
    here = listening(hub, one, a=["comet"])
    for kind in ("listeners", "consumers"):
        two.answer(kind, list[str] | str | None, lambda _: answer)
    hub.started(one, two)
    assert result_of(here.count("a")) == [(1, 0)]
    (found,) = result_of(here.consumers("a"))
    assert (found.total, len(found.consumers)) == (1, 1)
