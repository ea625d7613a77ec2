"""Credentials, and the access check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from restmq.auth import passwords
from restmq.auth.acl import Acl
from restmq.auth.failures import FORGOTTEN_SECONDS, Failures
from restmq.auth.guard import CONSUME, Credentials, Guard, cookie_credentials
from restmq.auth.passwords import WAITING_MAX, PasswordCheck, hash_password, matches
from restmq.errors import RestMQError, StoreUnavailable
from restmq.queues.tokens import Authorization

MAXIMUM, PER_ADDRESS = 50, 10


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("auth=alice:secret", ("alice", "secret")),
        ("theme=dark; auth=alice:se:cr=et; lang=en", ("alice", "se:cr=et")),
        ('theme="; auth=alice:secret', ("alice", "secret")),
        ('auth="alice:secret"', ("alice", "secret")),
        ('auth=alice:"', ("alice", '"')),
        ("auth=alice:p%25%3A%C3%BC%3B%22", ("alice", 'p%:ü;"')),
        ("auth=alice:a+b%zz", ("alice", "a+b%zz")),
        ("auth=old:one; auth=alice:secret", ("alice", "secret")),
        ("auth=:", ("", "")),
        ("auth=alice", None),
        ("auth", None),
        ("AUTH=alice:secret", None),
        ("xauth=alice:secret", None),
        ("", None),
    ],
)
def test_a_cookie_holds_a_username_and_a_password(header: str, shown: tuple[str, str] | None) -> None:
    assert cookie_credentials(header) == shown


@pytest.mark.parametrize("piece", ['\\"', "%", "%41", ";", "=", "auth=x;", '"'])
def test_a_long_cookie_is_read_in_linear_time(piece: str) -> None:
    """The standard library's unquoting is quadratic: 62 KB took it 15 s, so these 400 KB would take minutes."""
    cookie_credentials('auth="' + piece * (400_000 // len(piece)) + '"')


# Guesses


class StubCore:
    """Has one token, and answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[defer.Deferred[None], str]] = []

    async def authorization(self, token: str) -> Authorization | None:
        waits: defer.Deferred[None] = defer.Deferred()
        self.asked.append((waits, token))
        await waits
        return Authorization(("*",), frozenset({"read"})) if token == "right" else None

    def answer(self) -> None:
        """Answers all questions in order, as a pipelined Redis does."""
        asked, self.asked = self.asked, []
        for waits, _ in asked:
            waits.callback(None)


class Thread:
    """Runs one function at a time, when the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[defer.Deferred[Any], Callable[[], Any]]] = []
        self.done = 0

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        done: defer.Deferred[Any] = defer.Deferred()
        self.jobs.append((done, lambda: function(*arguments)))
        return done

    def run(self) -> None:
        while self.jobs:
            done, job = self.jobs.pop(0)
            self.done += 1
            done.callback(job())


class Door:
    """A guard, and the outcomes of its checks."""

    def __init__(self, folder: Path, rules: str = "") -> None:
        (folder / "acl.conf").write_text(rules)
        self.clock = Clock()
        self.core: Any = StubCore()
        self.thread = Thread()
        self.failures = Failures(self.clock.seconds, MAXIMUM, PER_ADDRESS)
        self.guard = Guard(Acl(folder / "acl.conf"), self.core, self.failures, PasswordCheck(self.thread))
        self.said: list[str] = []

    def show(self, token: str, address: str = "192.0.2.1") -> None:
        self.ask(Credentials(address, token=token))

    def say(self, password: str, address: str = "192.0.2.1", username: str = "alice") -> None:
        self.ask(Credentials(address, username, password))

    def ask(self, credentials: Credentials) -> None:
        async def check() -> None:
            try:
                await self.guard.check(credentials, CONSUME, "q")
            except RestMQError as refused:
                self.said.append(type(refused).__name__)
            else:
                self.said.append("come in")

        defer.ensureDeferred(check())

    def hears(self) -> str:
        """The outcome of the last check, once the thread and Redis have answered."""
        self.thread.run()
        self.core.answer()
        return self.said[-1]


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


@pytest.fixture
def slow_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Door:
    """A guard with a password that is hashed, here at little cost."""
    monkeypatch.setattr(passwords, "_COST", 2)
    return Door(tmp_path, f"[rest:consumer]\nusername = alice\npassword = {hash_password('right')}\n")


def test_simultaneous_guesses_are_limited_too(door: Door) -> None:
    for number in range(300):
        door.show("right" if number == 200 else f"wrong {number}")
    door.core.answer()
    assert Counter(door.said) == {"WrongCredentials": PER_ADDRESS, "TooManyFailures": 300 - PER_ADDRESS}
    door.show("right", address="192.0.2.2")
    assert door.hears() == "come in"
    door.clock.advance(FORGOTTEN_SECONDS)
    door.show("right")
    assert door.hears() == "come in"


def test_simultaneous_requests_with_a_right_token_are_admitted(door: Door) -> None:
    for _ in range(300):
        door.show("right")
    door.core.answer()
    assert Counter(door.said) == {"come in": 300}


def test_addresses_of_one_ipv6_network_count_as_one(door: Door) -> None:
    for number in range(PER_ADDRESS):
        door.show("wrong", address=f"2001:db8:1:2:{number}::{number}")
        assert door.hears() == "WrongCredentials"
    door.show("right", address="2001:db8:1:2::ffff")
    assert door.hears() == "TooManyFailures"
    door.show("right", address="2001:db8:1:3::ffff")
    assert door.hears() == "come in"
    door.show("right", address="::ffff:192.0.2.1")
    assert door.hears() == "come in"


def test_an_attack_from_many_addresses_locks_out_only_whom_nobody_knows(door: Door) -> None:
    door.show("right", address="192.0.2.7")
    assert door.hears() == "come in"
    for number in range(MAXIMUM):
        door.show("wrong", address=f"198.51.100.{number}")
        assert door.hears() == "WrongCredentials"
    for token, address in [("wrong", "203.0.113.1"), ("right", "203.0.113.1"), ("wrong", "192.0.2.7")]:
        door.show(token, address)
        assert door.hears() == "TooManyFailures", (token, address)
    door.show("right", address="192.0.2.7")
    assert door.hears() == "come in"
    door.clock.advance(FORGOTTEN_SECONDS)
    door.show("right", address="203.0.113.1")
    assert door.hears() == "come in"


# Passwords


@pytest.mark.parametrize("password", ["secret", "p%:ü", "\udcff"])
def test_a_password_is_compared_exactly(tmp_path: Path, password: str) -> None:
    door = Door(tmp_path)
    door.guard.acl.section("rest:consumer").username = "al:ice"
    door.guard.acl.section("rest:consumer").password = "p%:ü"
    for username in ("al:ice", "bob", ""):
        for given in (password, password + " ", ""):
            door.say(given, username=username)
            right = (username, given) == ("al:ice", "p%:ü")
            assert door.hears() == ("come in" if right else "WrongCredentials")


def test_a_hash_is_salted_and_accepts_its_password_only() -> None:
    first, second = hash_password("sécret"), hash_password("sécret")
    assert first != second and "sécret" not in first
    assert matches(first, "sécret".encode()) and matches(second, "sécret".encode())
    assert not matches(first, first.encode())
    assert not matches(first, b"secret")


def test_a_hashed_password_is_checked_in_a_thread_and_once(slow_door: Door) -> None:
    for _ in range(100):
        slow_door.say("right")
    assert slow_door.said == []
    slow_door.thread.run()
    assert (slow_door.said, slow_door.thread.done) == (["come in"] * 100, 1)
    slow_door.say("right")
    assert (slow_door.said[-1], slow_door.thread.done) == ("come in", 1)


def test_guesses_from_many_addresses_wait_in_a_bounded_queue_and_lock_out_no_user(slow_door: Door) -> None:
    slow_door.say("right")
    slow_door.thread.run()
    for number in range(200):
        slow_door.say(f"guess {number}", address=f"198.51.100.{number}")
    assert Counter(slow_door.said) == {"come in": 1, "Overloaded": 200 - WAITING_MAX}
    assert len(slow_door.thread.jobs) == 1, "a second thread would take the CPU from the event loop"
    slow_door.say("right", address="203.0.113.1")
    assert slow_door.said[-1] == "come in"
    slow_door.thread.run()
    assert Counter(slow_door.said) == {"come in": 2, "Overloaded": 200 - WAITING_MAX, "WrongCredentials": WAITING_MAX}


def test_a_thousand_guesses_do_not_push_out_a_right_password(slow_door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_door.say("right")
    slow_door.thread.run()
    monkeypatch.setattr(passwords, "matches", lambda *_: False)
    slow_door.failures = slow_door.guard._failures = Failures(slow_door.clock.seconds, 1 << 30, 1 << 30)
    for number in range(2000):
        slow_door.say(f"guess {number}")
        slow_door.thread.run()
    slow_door.say("right")
    assert slow_door.said[-1] == "come in"


def test_when_the_thread_fails_all_that_wait_get_the_error(slow_door: Door) -> None:
    for _ in range(3):
        slow_door.say("right")
    done, _ = slow_door.thread.jobs.pop()
    done.errback(StoreUnavailable("no thread"))
    assert slow_door.said == ["StoreUnavailable"] * 3
