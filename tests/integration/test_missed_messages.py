"""Messages that consumers missed: they get them from the history, or are told of a gap."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.servers import Comet, Daemon, Redis, listeners, stopping, wait_until

MIB = 1 << 20


@pytest.fixture
def daemon(private_folder: Path, private_redis: Redis) -> Iterator[Daemon]:
    with stopping(Daemon(private_folder, redis=private_redis)) as server:
        yield server


def post(http: httpx.Client, value: str) -> str:
    return http.post("/q/q", data={"value": value}).raise_for_status().text.strip()


def break_subscription(redis: Redis) -> None:
    redis.command("CLIENT", "KILL", "TYPE", "pubsub")


def metric(http: httpx.Client, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_with_a_history_broken_subscriptions_cost_no_message_and_repeat_none(
    daemon: Daemon, private_redis: Redis, http: httpx.Client
) -> None:
    http.post("/p/q", data={"history": "10000"})
    comet, events = Comet(daemon, "/c/q"), Comet(daemon, "/sse/q")
    with connect(f"ws://127.0.0.1:{daemon.port}/ws/q") as websocket:
        wait_until(lambda: listeners(private_redis, "q"))
        done = threading.Event()
        posted: list[str] = []

        def produce() -> None:
            with daemon.client() as client:
                while not done.is_set():
                    posted.append(post(client, "x"))

        producer = threading.Thread(target=produce)
        producer.start()
        for breaks in range(1, 6):
            wait_until(lambda count=20 * breaks: len(posted) > count)
            break_subscription(private_redis)
            wait_until(lambda count=breaks: daemon.log.count("the subscription to Redis broke") == count)
            wait_until(lambda: listeners(private_redis, "q"))
        done.set()
        producer.join()
        assert posted == [f"q:{number}" for number in range(1, len(posted) + 1)]
        assert [json.loads(line)["key"] for line in comet.lines(len(posted))] == posted
        text = b"\n".join(events.lines(len(posted), b"\n\n")).decode()
        assert re.findall(r"^id: (.*)$", text, re.MULTILINE) == posted
        assert [json.loads(websocket.recv(20))["key"] for _ in posted] == posted
    assert metric(http, "restmq_subscriptions_lost_total") == 5
    assert metric(http, "restmq_consumers_told_of_gaps_total") == 0


def test_without_a_history_each_consumer_is_told_of_the_gap(
    daemon: Daemon, private_redis: Redis, http: httpx.Client
) -> None:
    comet, events = Comet(daemon, "/c/q"), Comet(daemon, "/sse/q")
    jsonp = Comet(daemon, "/c/q?callback=f")
    with connect(f"ws://127.0.0.1:{daemon.port}/ws/q") as websocket:
        wait_until(lambda: listeners(private_redis, "q"))
        first = post(http, "first")
        for line in (comet.lines(1)[0], websocket.recv(20)):
            assert json.loads(line)["key"] == first
        # This takes a number, as a message would that another server's consumers got meanwhile.
        private_redis.commands([("CLIENT", "KILL", "TYPE", "pubsub"), ("INCR", "q:UUID")])
        gap = {"event": "gap", "last_event_id": first}
        assert json.loads(comet.lines(1)[0]) == gap
        assert json.loads(websocket.recv(20)) == gap
        assert json.loads(jsonp.lines(2)[1].removeprefix(b"f(").removesuffix(b");")) == gap
        assert b"event: gap" in events.lines(2, b"\n\n")[1]
        last = post(http, "last")
        assert json.loads(comet.lines(1)[0])["key"] == last
    assert metric(http, "restmq_consumers_told_of_gaps_total") == 4


def test_consumers_that_missed_nothing_are_told_nothing(
    daemon: Daemon, private_redis: Redis, http: httpx.Client
) -> None:
    comet = Comet(daemon, "/c/q")
    wait_until(lambda: listeners(private_redis, "q"))
    first = post(http, "first")
    break_subscription(private_redis)
    wait_until(lambda: "the subscription to Redis broke" in daemon.log)
    wait_until(lambda: listeners(private_redis, "q"))
    last = post(http, "last")
    assert [json.loads(line).get("key") for line in comet.lines(2)] == [first, last]


class Reader:
    """A consumer that reads all that comes, up to a message with a value."""

    def __init__(self, transport: str, daemon: Daemon, stack: contextlib.ExitStack) -> None:
        url = f"ws://127.0.0.1:{daemon.port}/ws/q"
        self._websocket = stack.enter_context(connect(url)) if transport == "ws" else None
        self._stream = None if self._websocket else Comet(daemon, f"/{transport}/q")
        self._is_sse = transport == "sse"

    def _next(self) -> dict[str, str]:
        if self._websocket is not None:
            return dict(json.loads(self._websocket.recv(20)))
        assert self._stream is not None
        while True:
            text = self._stream.lines(1, b"\n\n" if self._is_sse else b"\r\n")[0].decode()
            if not self._is_sse:
                return dict(json.loads(text))
            fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
            if "data" in fields:
                return (
                    json.loads(fields["data"]) if "event" in fields else {"key": fields["id"], "value": fields["data"]}
                )

    def read_up_to(self, value: str) -> list[dict[str, str]]:
        found = [self._next()]
        while found[-1].get("value") != value:
            found.append(self._next())
        return found


@pytest.mark.parametrize("history", [0, 10_000])
def test_consumers_of_a_server_that_was_away_get_what_they_missed_or_are_told(
    daemon: Daemon, private_folder: Path, private_redis: Redis, http: httpx.Client, history: int
) -> None:
    http.post("/p/q", data={"history": history})
    away = Daemon(private_folder, redis=private_redis)
    with stopping(away), contextlib.ExitStack() as stack:
        readers = [[Reader(transport, server, stack) for transport in ("c", "sse", "ws")] for server in (daemon, away)]
        wait_until(lambda: listeners(private_redis, "q") == 2)
        done = threading.Event()
        posted: list[str] = []

        def produce() -> None:
            with daemon.client() as client:
                while not done.is_set():
                    posted.append(post(client, "x"))

        producer = threading.Thread(target=produce)
        producer.start()
        for _ in range(3):
            away.process.send_signal(signal.SIGSTOP)
            break_subscription(private_redis)
            wait_until(lambda: listeners(private_redis, "q") == 1)
            before = len(posted)
            wait_until(lambda before=before: len(posted) > before + 20)
            away.process.send_signal(signal.SIGCONT)
            wait_until(lambda: listeners(private_redis, "q") == 2)
        done.set()
        producer.join()
        posted.append(post(http, "last"))
        for reader in readers[0] + readers[1]:
            told = reader.read_up_to("last")
            assert_nothing_is_missed_in_silence([each.get("key") for each in told], posted)
            if history:
                assert [each["key"] for each in told] == posted
        if not history:
            with away.client() as client:
                assert metric(client, "restmq_consumers_told_of_gaps_total") >= 3
        away.assert_no_tracebacks()


def assert_nothing_is_missed_in_silence(keys: list[str | None], posted: list[str]) -> None:
    """Each message has the one posted before it before it, or a gap notice (None)."""
    assert keys[0] in (posted[0], None)
    previous: str | None = None
    for key in keys:
        if key is not None and previous is not None:
            assert posted.index(key) == posted.index(previous) + 1
        previous = key


# Redis restarts


def restart(redis: Redis) -> None:
    redis.kill()
    redis.start()


def test_what_is_added_while_servers_reconnect_reaches_the_consumers_of_all(
    daemon: Daemon, private_folder: Path, private_redis: Redis, http: httpx.Client
) -> None:
    late = Daemon(private_folder, redis=private_redis)
    with stopping(late):
        consumers = [Comet(daemon, "/c/q"), Comet(late, "/c/q")]
        wait_until(lambda: listeners(private_redis, "q") == 2)
        first = post(http, "before")
        for consumer in consumers:
            assert json.loads(consumer.lines(1)[0])["key"] == first
        late.process.send_signal(signal.SIGSTOP)
        restart(private_redis)
        wait_until(lambda: listeners(private_redis, "q") == 1)
        keys = [post(http, "meanwhile") for _ in range(3)]
        late.process.send_signal(signal.SIGCONT)
        wait_until(lambda: listeners(private_redis, "q") == 2)
        keys.append(post(http, "after"))
        for consumer in consumers:
            assert [json.loads(line).get("key") for line in consumer.lines(4)] == keys
        late.assert_no_tracebacks()


def test_if_redis_is_full_consumers_are_served_again_all_the_same(
    daemon: Daemon, private_redis: Redis, http: httpx.Client
) -> None:
    comet = Comet(daemon, "/c/q")
    wait_until(lambda: listeners(private_redis, "q"))
    first = post(http, "before")
    assert json.loads(comet.lines(1)[0])["key"] == first
    private_redis.options = ("--maxmemory", "1mb")
    restart(private_redis)
    wait_until(lambda: listeners(private_redis, "q"))
    private_redis.command("CONFIG", "SET", "maxmemory", "0")
    last = post(http, "after")
    assert json.loads(comet.lines(1)[0]).get("key") == last


# Histories that are larger than the memory they may take


@pytest.fixture
def long_history(private_redis: Redis) -> list[str]:
    """The keys of a history of 100 messages of 1 MiB."""
    private_redis.command("SADD", "QUEUESET", "q")
    private_redis.command("HSET", "q:settings", "history", "1000", "history_bytes", str(200 * MIB))
    private_redis.command("SET", "q:UUID", "100")
    keys = [f"q:{number}" for number in range(1, 101)]
    for key in keys:
        private_redis.command("RPUSH", "q:history", key)
        private_redis.command("HSET", "q:historyvalues", key, b"0 " + b"x" * MIB)
    private_redis.command("HSET", "q:historyvalues", "bytes", str(100 * MIB))
    return keys


def test_a_history_is_streamed_at_the_pace_of_the_client(
    daemon: Daemon, http: httpx.Client, long_history: list[str]
) -> None:
    before = daemon.resident_bytes
    resuming = Comet(daemon, "/c/q?last_event_id=q:1")
    numbers = (json.loads(resuming.lines(1)[0])["key"] for _ in range(99))
    assert next(numbers) == "q:2"
    assert http.get("/healthz").status_code == 200
    assert list(numbers) == long_history[2:]
    assert daemon.resident_bytes - before < 40 * MIB
    live = post(http, "live")
    assert json.loads(resuming.lines(1)[0])["key"] == live


def test_clients_that_leave_before_their_history_is_read_leave_nothing(
    daemon: Daemon, private_redis: Redis, long_history: list[str]
) -> None:
    def resume_and_leave(times: int) -> None:
        for _ in range(times):
            Comet(daemon, "/c/q?last_event_id=q:1").close()
        wait_until(lambda: not listeners(private_redis, "q"))

    resume_and_leave(10)
    before = daemon.resident_bytes
    resume_and_leave(60)
    assert daemon.resident_bytes - before < 40 * MIB
