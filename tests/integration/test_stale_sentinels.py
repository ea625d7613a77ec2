"""Sentinels that disagree, because some of them have missed a failover. They are simulated, as real ones agree soon."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import hiredis
import pytest
from twisted.internet import reactor

from restmq.store.sentinel import Sentinels
from restmq.store.settings import SentinelSettings, StoreSettings
from tests.servers import wait_until

Run = Callable[..., Any]

OLD, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class FakeSentinel:
    """Answers as a Sentinel that knows this primary, from this epoch on.

    Attributes:
        may_answer: while it is not set, questions wait.
    """

    def __init__(self, primary: tuple[str, int], epoch: int) -> None:
        self.primary = primary
        self.epoch = epoch
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = 0
        self._listeners: list[Any] = []
        sentinel = self

        class Conversation(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                reader = hiredis.Reader(encoding="utf-8")
                with contextlib.suppress(OSError):
                    while received := self.request.recv(65536):
                        reader.feed(received)
                        while (words := reader.gets()) is not False:
                            sentinel.may_answer.wait(20)
                            self.request.sendall(sentinel._answer(words, self.request))

        self._server = _Server(("127.0.0.1", 0), Conversation)
        self.address = ("127.0.0.1", self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, words: list[str], connection: Any) -> bytes:
        host, port = self.primary[0], str(self.primary[1])
        match words:
            case ["SUBSCRIBE", *channels]:
                self._listeners.append(connection)
                return b"".join(hiredis.pack_command(("subscribe", channel, "1")) for channel in channels)
            case ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", _]:
                self.asked += 1
                return hiredis.pack_command((host, port))
            case ["SENTINEL", "MASTER", _]:
                return hiredis.pack_command(("ip", host, "port", port, "config-epoch", str(self.epoch)))
            case ["SENTINEL", "SENTINELS", _]:
                return b"*0\r\n"
        return b"+PONG\r\n"

    def announce(self) -> None:
        event = f"mymaster {OLD[0]} {OLD[1]} {NEW[0]} {NEW[1]}"
        wait_until(lambda: self._listeners)
        for connection in self._listeners:
            connection.sendall(hiredis.pack_command(("message", "+switch-master", event)))

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def fakes() -> Iterator[list[FakeSentinel]]:
    found = [FakeSentinel(OLD, 1) for _ in range(3)]
    yield found
    for fake in found:
        fake.stop()


@pytest.fixture
def moves() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def sentinels(run: Run, fakes: list[FakeSentinel], moves: list[tuple[str, int]]) -> Iterator[Sentinels]:
    told = SentinelSettings(addresses=tuple(fake.address for fake in fakes))
    asking = Sentinels(StoreSettings(sentinel=told), told, moves.append, reactor)

    async def start() -> None:
        asking.start()

    run(start)
    yield asking
    run(stopping(asking))


def stopping(asking: Sentinels) -> Callable[[], Awaitable[None]]:
    async def stop() -> None:
        await asking.stop()

    return stop


def find(run: Run, asking: Sentinels) -> tuple[str, int]:
    async def ask() -> tuple[str, int]:
        return await asking.find()

    found: tuple[str, int] = run(ask)
    return found


def test_an_announcement_of_one_sentinel_counts_against_those_that_do_not_know_yet(
    run: Run, sentinels: Sentinels, fakes: list[FakeSentinel], moves: list[tuple[str, int]]
) -> None:
    assert find(run, sentinels) == OLD
    fakes[2].primary, fakes[2].epoch = NEW, 2
    fakes[2].announce()
    wait_until(lambda: moves == [NEW])
    fakes[2].may_answer.clear()  # the others are the majority now, and wrong
    asked = fakes[0].asked
    with pytest.raises(Exception, match="it has missed the last failover"):
        find(run, sentinels)
    assert fakes[0].asked > asked
    assert moves == [NEW]
    fakes[2].may_answer.set()
    wait_until(lambda: fakes[2].primary == find_or_none(run, sentinels))


def find_or_none(run: Run, asking: Sentinels) -> tuple[str, int] | None:
    try:
        return find(run, asking)
    except Exception:
        return None


def test_a_late_answer_with_a_newer_primary_counts(
    run: Run, sentinels: Sentinels, fakes: list[FakeSentinel], moves: list[tuple[str, int]]
) -> None:
    fakes[2].primary, fakes[2].epoch = NEW, 2
    fakes[2].may_answer.clear()
    assert find(run, sentinels) == OLD
    fakes[2].may_answer.set()
    wait_until(lambda: moves == [NEW])
    assert find(run, sentinels) == NEW
