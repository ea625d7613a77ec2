"""What the operator is told of Redis, and the list of its commands that RestMQ uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from restmq.store import rights
from restmq.store.connection import ErrorReply
from restmq.store.reports import Outage, Refusals

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def lines() -> Iterator[list[str]]:
    told: list[str] = []

    def observe(event: dict[str, object]) -> None:
        told.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield told
    globalLogPublisher.removeObserver(observe)


def test_refusals_are_logged_at_once_and_then_counted_each_minute(lines: list[str]) -> None:
    clock = Clock()
    refusals = Refusals(clock)
    assert refusals.note(ErrorReply("OOM full"))
    assert not any(refusals.note(ErrorReply("OOM full")) for _ in range(7))
    refusals.note(ErrorReply("NOPERM no"))
    assert lines == ["Redis refused an operation: OOM full", "Redis refused an operation: NOPERM no"]
    clock.advance(60)
    assert lines[2:] == ["Redis refused 7 more operations in the last 60 s: OOM"]
    clock.advance(60)
    assert len(lines) == 3
    assert refusals.note(ErrorReply("OOM full"))
    assert len(lines) == 4
    refusals.stop()
    assert not clock.getDelayedCalls()


def test_a_server_that_is_being_started_is_not_reported_at_once(lines: list[str]) -> None:
    clock = Clock()
    outage = Outage("there", clock, 5)
    outage.problem("no such file", "", is_down=True)
    assert (lines, outage.reason) == ([], "no such file")
    clock.advance(5)
    outage.problem("no such file", "", is_down=True)
    assert lines == ["Redis at there cannot be used: no such file."]


def test_a_reason_is_logged_once_and_again_when_it_changes(lines: list[str]) -> None:
    clock = Clock()
    outage = Outage("there", clock)
    for reason in ("refused", "refused", "no password", "refused"):
        outage.problem(reason, "", is_down=True)
        clock.advance(2)
    assert lines == ["Redis at there cannot be used: refused.", "Redis at there cannot be used: no password."]
    assert outage.reason == "refused"
    outage.usable()
    outage.end()
    assert len(lines) == 2  # what was never there does not come back
    assert not outage.reason


def test_a_loss_and_its_end_are_logged_once(lines: list[str]) -> None:
    outage = Outage("there", Clock())
    outage.usable()
    for _ in range(3):  # a proxy without a Redis accepts and closes
        outage.begin("closed")
        outage.usable()
    outage.end()
    outage.end()
    assert lines == ["the connection to Redis at there is lost: closed", "Redis at there answers again."]


def test_the_end_of_an_outage_is_logged_after_the_reasons_why_redis_could_not_be_used(lines: list[str]) -> None:
    outage = Outage("there", Clock())
    outage.usable()
    outage.end()
    for _ in range(2):
        lines.clear()
        outage.begin("closed")
        outage.problem("refused", "", is_down=True)
        outage.usable()
        outage.end()
        assert lines == [
            "the connection to Redis at there is lost: closed",
            "Redis at there cannot be used: refused.",
            "Redis at there answers again.",
        ]


def test_trouble_of_one_connection_is_logged_but_is_no_reason_while_others_work(lines: list[str]) -> None:
    outage = Outage("there", Clock())
    outage.usable()
    outage.problem("no place", "", is_down=False)
    assert lines == ["Redis at there cannot be used: no place."]
    assert not outage.reason


def test_the_check_of_rights_covers_all_commands() -> None:
    known = {command[0] for command in (*rights.REDIS_COMMANDS, *rights.CHANNEL_COMMANDS)}
    lua = "\n".join(path.read_text() for path in (ROOT / "restmq/queues/lua").rglob("*.lua"))
    in_scripts = set(re.findall(r"\bp?call\('?([A-Z]+)\b", lua))
    python = "\n".join(path.read_text() for path in (ROOT / "restmq").rglob("*.py"))
    in_python = set(re.findall(r"\bcommand\(\s*\"([A-Z]+)\"", python))
    assert len(in_scripts) > 40
    assert "SCAN" in in_python
    assert known == in_scripts | in_python | {"WAIT", "SUBSCRIBE", "UNSUBSCRIBE", "PING"}
