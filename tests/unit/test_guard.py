"""Credentials, and the access check."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from restmq.auth.acl import Acl
from restmq.auth.guard import (
    CONSUME,
    FAILURES_ALLOWED,
    FAILURES_FORGOTTEN_SECONDS,
    Credentials,
    Guard,
    cookie_credentials,
)
from restmq.errors import RestMQError
from restmq.queues.tokens import Authorization


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
    """The standard library's unquoting is quadratic: 62 KB took it 15 s, so this 1 MB would outlast any test."""
    cookie_credentials('auth="' + piece * (1_000_000 // len(piece)) + '"')


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


class Door:
    """A guard without rules, and the outcomes of its checks."""

    def __init__(self, folder: Path) -> None:
        (folder / "acl.conf").write_text("")
        self.clock = Clock()
        self.core: Any = StubCore()
        self.guard = Guard(Acl(folder / "acl.conf"), self.core, self.clock.seconds)
        self.said: list[str] = []

    def show(self, token: str, address: str = "192.0.2.1") -> None:
        async def check() -> None:
            try:
                await self.guard.check(Credentials(address, token=token), CONSUME, "q")
            except RestMQError as refused:
                self.said.append(type(refused).__name__)
            else:
                self.said.append("come in")

        defer.ensureDeferred(check())


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def test_simultaneous_guesses_are_limited_too(door: Door) -> None:
    for number in range(300):
        door.show("right" if number == 200 else f"wrong {number}")
    door.core.answer()
    assert Counter(door.said) == {"WrongCredentials": FAILURES_ALLOWED, "TooManyFailures": 300 - FAILURES_ALLOWED}
    door.show("right", address="192.0.2.2")
    door.core.answer()
    assert door.said[-1] == "come in"
    door.clock.advance(FAILURES_FORGOTTEN_SECONDS)
    door.show("right")
    door.core.answer()
    assert door.said[-1] == "come in"


def test_simultaneous_requests_with_a_right_token_are_admitted(door: Door) -> None:
    for _ in range(300):
        door.show("right")
    door.core.answer()
    assert Counter(door.said) == {"come in": 300}
