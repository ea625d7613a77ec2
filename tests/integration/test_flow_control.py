"""Broadcasts that were answered 200 reach every consumer that reads, whatever their size and number."""

from __future__ import annotations

import re
import selectors
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from restmq.core import RedisOperations
from restmq.queues.base import State
from restmq.store.keys import one_redis
from tests.integration.conftest import Clock, Run
from tests.servers import WEBSOCKET, Daemon, Redis, listeners, stopping, wait_until

KB, MIB = 1000, 1 << 20
KEY = re.compile(rb"\bload:(\d+)[\"\n]")
#: An unsolicited pong, which shows the server that the client is there, as a client's answer to a ping would.
PONG = b"\x8a\x80\0\0\0\0"
TRANSPORTS = [("/c/load", ""), ("/sse/load", ""), ("/ws/load", WEBSOCKET)]


class Listeners:
    """Consumers of all transports that read as fast as they can, in a thread, and note the numbers of the messages."""

    def __init__(self, daemon: Daemon, redis: Redis, daemons: int = 1) -> None:
        self.numbers: list[list[int]] = [[] for _ in TRANSPORTS]
        self.ended = False
        self._daemon = daemon
        self._tails = [b"" for _ in TRANSPORTS]
        self._selector = selectors.DefaultSelector()
        for number, (path, headers) in enumerate(TRANSPORTS):
            connection = daemon.get(path, headers)
            self._selector.register(connection, selectors.EVENT_READ, number)
        wait_until(lambda: listeners(redis, "load") == daemons, why="the daemon subscribes")
        wait_until(lambda: self._count(daemon) == daemons * len(TRANSPORTS), why="all consumers are connected")
        threading.Thread(target=self._read, daemon=True).start()

    @staticmethod
    def _count(daemon: Daemon) -> int:
        with daemon.client() as http:
            return len(http.get("/dashboard/consumers/load").json()["consumers"])

    def _read(self) -> None:
        while True:
            for key, _ in self._selector.select():
                connection, number = key.fileobj, key.data
                assert isinstance(connection, socket.socket)
                try:
                    received = connection.recv(MIB)
                except ConnectionResetError:
                    received = b""
                if not received:
                    self.ended = True
                    return
                if TRANSPORTS[number][1] is WEBSOCKET:
                    connection.sendall(PONG)
                text, end = self._tails[number] + received, 0
                if b"load:" in text:
                    for found in KEY.finditer(text):
                        self.numbers[number].append(int(found[1]))
                        end = found.end()
                self._tails[number] = text[end:][-64:]

    def wait_for(self, count: int) -> None:
        wait_until(lambda: self.ended or all(len(numbers) >= count for numbers in self.numbers), 120)
        assert not self.ended, f"a consumer was closed: {self._daemon.log}"
        assert [numbers for numbers in self.numbers if numbers != list(range(1, count + 1))] == []


def produce(daemon: Daemon, producers: int, count: int, body: bytes, content_type: str = "text/plain") -> None:
    """Posts bodies from several threads; each must be answered 200."""
    statuses: list[int] = []

    def post() -> None:
        with daemon.client(headers={"Content-Type": content_type}) as http:
            for _ in range(count):
                statuses.append(http.post("/q/load", content=body, timeout=60).status_code)

    threads = [threading.Thread(target=post) for _ in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * (producers * count)


@pytest.fixture
def daemon(private_folder: Path, private_redis: Redis) -> Iterator[Daemon]:
    # On a busy machine Redis may need longer than the usual time limit for 16 MiB.
    with stopping(Daemon(private_folder / "one", "--redis-timeout", "60", redis=private_redis)) as server:
        yield server


@pytest.mark.parametrize(
    ("producers", "count", "size_bytes"),
    [(20, 25, 100 * KB), (20, 40, 60 * KB), (6, 8, MIB), (4, 1, 16 * MIB)],
    ids=["100 KB", "60 KB", "1 MiB", "16 MiB"],
)
def test_all_messages_arrive_in_order(
    daemon: Daemon, private_redis: Redis, producers: int, count: int, size_bytes: int
) -> None:
    consumers = Listeners(daemon, private_redis)
    produce(daemon, producers, count, b"x" * size_bytes)
    consumers.wait_for(producers * count)
    assert "dropped" not in daemon.log


def test_all_messages_of_large_batches_arrive_in_order(daemon: Daemon, private_redis: Redis) -> None:
    consumers = Listeners(daemon, private_redis)
    produce(daemon, 1, 3, b'"%b"\n' % (b"x" * 16 * KB) * 1000, "application/x-ndjson")
    consumers.wait_for(3000)


def test_nothing_stays_in_redis_of_what_was_delivered(daemon: Daemon, private_redis: Redis) -> None:
    consumers = Listeners(daemon, private_redis)
    produce(daemon, 2, 10, b"x" * 300 * KB)
    consumers.wait_for(20)
    leftovers = re.compile(r"load:(\d+|queue|held|beside)$")
    wait_until(lambda: not any(map(leftovers.match, private_redis.keys())))
    assert 0 < private_redis.command("PTTL", "load:flow") <= 60_000


def test_a_daemon_that_hangs_does_not_hold_up_the_others(
    private_folder: Path, private_redis: Redis, daemon: Daemon
) -> None:
    with stopping(Daemon(private_folder / "two", redis=private_redis)) as hanging:
        theirs, ours = Listeners(hanging, private_redis), Listeners(daemon, private_redis, daemons=2)
        hanging.process.send_signal(signal.SIGSTOP)
        produce(daemon, 4, 100, b"x" * 50 * KB)
        ours.wait_for(400)
        hanging.process.send_signal(signal.SIGCONT)
        wait_until(lambda: theirs.ended or all(len(numbers) == 400 for numbers in theirs.numbers))


def test_a_daemon_that_has_not_confirmed_is_waited_for_once_until_it_confirms_again(
    run: Run, timed: RedisOperations, clock: Clock, redis: Redis, queue: str
) -> None:
    async def subscribe() -> None:
        for subscriber in subscribers:
            await subscriber.subscribe(one_redis().for_queue(queue).channel)

    async def unsubscribe() -> None:
        for subscriber in subscribers:
            await timed.store.drop(subscriber)

    def attend() -> None:
        run(timed.queue_attend, queue, b"RESTMQ-DAEMON:test", weight=1, capacity=1, window_bytes=65536)

    def confirm(round_number: int) -> State:
        return State(run(timed.queue_confirm, queue, round_number, 65536, b"RESTMQ-DAEMON:test"))

    def confirm_open_round() -> State:
        return confirm(int(redis.command("HGET", f"{queue}:flow", "round")))

    def publish_more_than_the_window() -> int:
        """Returns the number of messages that are held back."""
        run(timed.queue_add_many, queue, [b"x" * 60_000] * 3)
        return int(run(timed.queue_len, queue))

    subscribers = [timed.pubsub(lambda _channel, _payload: None) for _ in range(2)]
    run(subscribe)
    assert publish_more_than_the_window() > 0
    assert confirm_open_round() is State.HELD_BACK
    clock.go_on(1.1)
    redis.command("DEL", f"{queue}:held")  # Redis' own clock did not go on
    attend()
    assert run(timed.queue_len, queue) == 0, "a second later the others go on"
    assert publish_more_than_the_window() > 0
    for _ in range(3):
        if confirm_open_round() is State.MORE:
            attend()
    assert run(timed.queue_len, queue) == 0, "and they do not wait again"
    assert confirm(1) is State.DONE, "the late confirmation"
    held_back = publish_more_than_the_window()
    assert (confirm_open_round(), run(timed.queue_len, queue)) == (State.HELD_BACK, held_back)
    confirm_open_round()
    assert run(timed.queue_len, queue) < held_back, "now both are waited for"
    run(unsubscribe)


def test_a_subscriber_that_is_no_daemon_holds_nobody_up(daemon: Daemon, private_redis: Redis) -> None:
    consumers = Listeners(daemon, private_redis)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(private_redis.socket_path)
        stranger.sendall(b"SUBSCRIBE load:PUBSUB\r\n")
        stranger.recv(1024)
        draining = threading.Thread(target=lambda: [None for _ in iter(lambda: stranger.recv(MIB), b"")], daemon=True)
        draining.start()
        produce(daemon, 2, 50, b"x" * 60 * KB)
        consumers.wait_for(100)
        stranger.shutdown(socket.SHUT_RDWR)
        draining.join()
