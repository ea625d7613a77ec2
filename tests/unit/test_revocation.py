"""Consumers are closed when they are no longer admitted, with stubs and a manual clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from restmq.auth import passwords
from restmq.auth.acl import Acl
from restmq.auth.failures import Failures
from restmq.auth.guard import LISTEN_COMET, LISTEN_WEBSOCKET, Access, Credentials, Guard
from restmq.auth.passwords import PasswordCheck, hash_password
from restmq.delivery.consumer import CloseReason
from restmq.delivery.revocation import CHECK_SECONDS, Revocation
from restmq.errors import StoreUnavailable
from restmq.queues.tokens import Authorization

READ = Authorization(("jobs",), frozenset({"read"}))


class StubCore:
    def __init__(self) -> None:
        self.records: dict[str, Authorization] = {}
        self.asked: list[set[str]] = []
        self.fails = False

    async def authorizations_of(self, tokens: Iterable[str]) -> dict[str, Authorization | None]:
        wanted = list(tokens)
        assert len(wanted) == len(set(wanted))
        self.asked.append(set(wanted))
        if self.fails:
            raise StoreUnavailable("away")
        return {token: self.records.get(token) for token in wanted}


class StubConsumer:
    def __init__(self, credentials: Credentials, access: Access) -> None:
        self.credentials, self.access = credentials, access
        self.closed: CloseReason | None = None

    def close(self, reason: CloseReason) -> None:
        self.closed = reason


class StubFanout:
    def __init__(self) -> None:
        self.connected: dict[str, list[StubConsumer]] = {}

    @property
    def queues(self) -> list[str]:
        return list(self.connected)

    def consumers(self, queue: str) -> list[StubConsumer]:
        return self.connected.get(queue, [])

    def leave(self, queue: str, consumer: StubConsumer) -> None:
        self.connected[queue].remove(consumer)


def in_thread(function: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
    return defer.succeed(function(*arguments))


class Scene:
    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.core = StubCore()
        self.fanout = StubFanout()
        self.rules = folder / "acl.conf"
        self.rules.write_text("")
        self.acl = Acl(self.rules)
        core: Any = self.core
        fanout: Any = self.fanout
        self.revocation = Revocation(
            [fanout],
            Guard(self.acl, core, Failures(self.clock.seconds, 1000, 10), PasswordCheck(in_thread)),
            core,
            self.clock,
        )
        self.revocation.startService()

    def listen(self, *, queue: str = "jobs", access: Access = LISTEN_COMET, **shown: str) -> StubConsumer:
        consumer = StubConsumer(Credentials("192.0.2.1", **shown), access)
        self.fanout.connected.setdefault(queue, []).append(consumer)
        return consumer

    def rule(self, text: str) -> None:
        self.rules.write_text(text)
        self.acl.reload()

    def check(self) -> None:
        self.clock.advance(CHECK_SECONDS)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_consumer_with_a_revoked_token_is_closed_and_the_others_stay(scene: Scene) -> None:
    scene.core.records = {"mine": READ, "yours": READ}
    mine, yours, nobodys = scene.listen(token="mine"), scene.listen(token="yours"), scene.listen()
    scene.check()
    assert [each.closed for each in (mine, yours, nobodys)] == [None] * 3
    del scene.core.records["mine"]
    scene.check()
    assert [each.closed for each in (mine, yours, nobodys)] == [CloseReason.NOT_ALLOWED, None, None]
    assert scene.fanout.consumers("jobs") == [yours, nobodys]


@pytest.mark.parametrize(
    "record", [Authorization(("mail",), frozenset({"read"})), Authorization(("jobs",), frozenset({"write"}))]
)
def test_a_token_that_allows_less_than_before_closes_its_consumer(scene: Scene, record: Authorization) -> None:
    scene.core.records = {"t": READ}
    listener = scene.listen(token="t")
    scene.core.records = {"t": record}
    scene.check()
    assert listener.closed is CloseReason.NOT_ALLOWED


def test_changed_rules_apply_to_connected_consumers(scene: Scene) -> None:
    comet, websocket = scene.listen(), scene.listen(access=LISTEN_WEBSOCKET)
    scene.rule("[comet:consumer]\nhosts_deny = 192.0.2.1\n")
    scene.check()
    assert (comet.closed, websocket.closed) == (CloseReason.NOT_ALLOWED, None)
    scene.rule("[websocket:consumer]\nusername = u\npassword = p\n")
    scene.check()
    assert websocket.closed is CloseReason.NOT_ALLOWED


def test_an_old_password_is_hashed_once_for_all_consumers_that_use_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (scene.listen(username="u", password=password) for password in ("old", "new"))
    many = [scene.listen(username="u", password="old") for _ in range(100)]
    scene.rule(f"[comet:consumer]\nusername = u\npassword = {hash_password('new')}\n")
    hashed: list[bytes] = []
    monkeypatch.setattr(passwords, "matches", lambda _, given: hashed.append(given) or given == b"new")
    scene.check()
    assert new.closed is None
    assert {each.closed for each in (old, *many)} == {CloseReason.NOT_ALLOWED}
    assert sorted(hashed) == [b"new", b"old"]


def test_tokens_are_read_once_for_all_and_nobody_is_closed_while_redis_is_away(scene: Scene) -> None:
    scene.core.records = {"a": READ, "b": READ}
    listeners = [scene.listen(token=token) for token in "abab"]
    scene.check()
    assert scene.core.asked == [set(), {"a", "b"}]  # the first one at the start, without consumers
    scene.core.records, scene.core.fails = {}, True
    scene.check()
    assert {each.closed for each in listeners} == {None}
    scene.core.fails = False
    scene.check()
    assert {each.closed for each in listeners} == {CloseReason.NOT_ALLOWED}


def test_a_consumer_that_has_left_meanwhile_is_not_closed(scene: Scene) -> None:
    first, second = scene.listen(token="t"), scene.listen(token="t")
    first.close = lambda _: scene.fanout.leave("jobs", second)  # type: ignore[method-assign]
    scene.check()
    assert scene.fanout.consumers("jobs") == []
    assert second.closed is None


def test_checking_many_consumers_lets_other_work_run_in_between(scene: Scene) -> None:
    for _ in range(1100):
        scene.listen(token="t")
    left: list[int] = []
    call_later = scene.clock.callLater
    scene.clock.callLater = lambda *call: left.append(len(scene.fanout.consumers("jobs"))) or call_later(*call)
    scene.check()
    assert [count for count in left if count] == [600, 100]
    assert scene.fanout.consumers("jobs") == []
