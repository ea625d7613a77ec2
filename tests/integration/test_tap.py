"""Taps: a client sees a copy of each message that is put into a queue, and nobody else notices."""

from __future__ import annotations

import base64
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.integration.test_events import events
from tests.servers import Comet, Daemon, Redis, listeners, stopping, wait_until
from tests.ways import WAYS_IN_FOR_BYTES, WAYS_IN_FOR_TEXT, In, message_in, path

MIB = 1 << 20


@pytest.fixture(scope="module")
def second(module_folder: Path, redis: Redis) -> Iterator[Daemon]:
    daemon = Daemon(module_folder / "second-for-taps", redis=redis)
    with stopping(daemon):
        yield daemon


def post(http: httpx.Client, queue: str, value: str, **options: Any) -> str:
    return http.post(f"/q/{queue}", data={"value": value, **options}).raise_for_status().text.strip()


def seen(tap: Comet, count: int) -> list[dict[str, Any]]:
    """The next lines of a tap."""
    return [json.loads(line) for line in tap.lines(count)]


def nothing_more(tap: Comet, http: httpx.Client, queue: str) -> None:
    """The next message that the tap sees is one that is put in now."""
    key = post(http, queue, "the next one")
    assert seen(tap, 1) == [{"key": key, "value": "the next one"}]


@pytest.mark.parametrize("put", [*WAYS_IN_FOR_TEXT, *WAYS_IN_FOR_BYTES])
def test_a_tap_sees_each_message_once_however_it_is_put_in(daemon: Daemon, queue: str, put: In) -> None:
    values = [b"short", "ä <&>\n".encode(), b"long " * 20_000]
    if put in WAYS_IN_FOR_BYTES:
        values.append(b"\xff\x00")
    name = f"{queue}/ü x"
    with closing(Comet(daemon, path("tap", name))) as tap:
        for value in values:
            put(daemon, name, value)
        assert [message_in(message) for message in seen(tap, len(values))] == [
            (f"{name}:{number}", value) for number, value in enumerate(values, 1)
        ]


def test_a_tap_takes_nothing_and_counts_as_no_consumer(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    waiting = post(http, queue, "before")
    with closing(Comet(daemon, f"/tap/{queue}")) as tap:
        assert b"Content-Type: text/plain" in tap.head
        new = post(http, queue, "after")
        assert seen(tap, 1) == [{"key": new, "value": "after"}]
        stats = http.get(f"/stats/{queue}").json()
        assert (stats["ready"], stats["consumers"], stats["waiters"]) == (2, 0, 0)
        assert stats["totals"]["out"] == 0
        assert [http.get(f"/q/{queue}").json()["key"] for _ in range(2)] == [waiting, new]


def test_a_tap_shows_headers_as_other_answers_do(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    headers = {"Content-Type": "image/png", "x-message-event": "order", "traceparent": "00-1-2-03"}
    with closing(Comet(daemon, f"/tap/{queue}")) as lines, closing(Comet(daemon, f"/tap/{queue}", EVENTS)) as stream:
        key = http.post(f"/q/{queue}", content=b"\xff", headers=headers).text.strip()
        (message,) = seen(lines, 1)
        assert message == {name: value for name, value in http.get(f"/q/{queue}").json().items() if name != "count"}
        assert (message["content_type"], message["headers"]["traceparent"]) == ("image/png", "00-1-2-03")
        assert events(stream, 1) == [{"event": "order", "id": key, "data": base64.b64encode(b"\xff").decode()}]


EVENTS = "Accept: text/event-stream\r\n"


def test_a_tap_can_be_a_websocket_which_still_runs_commands(daemon: Daemon, queue: str) -> None:
    with connect(f"ws://127.0.0.1:{daemon.port}/ws/{queue}?tap=1") as socket:
        socket.send(json.dumps({"cmd": "add", "queue": queue, "value": "x", "id": 1}))
        answers = [json.loads(socket.recv(20)) for _ in range(2)]
        assert sorted(answers, key=len) == [
            {"key": f"{queue}:1", "value": "x"},
            {"queue": queue, "value": "x", "key": f"{queue}:1", "id": 1},
        ]
        socket.send(json.dumps({"cmd": "take", "queue": queue}))
        assert json.loads(socket.recv(20))["key"] == f"{queue}:1"


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("policy", ["broadcast", "roundrobin"])
@pytest.mark.parametrize("has_consumer", [False, True])
def test_a_tap_sees_all_whatever_becomes_of_the_messages(
    http: httpx.Client, daemon: Daemon, redis: Redis, queue: str, policy: str, stopped: bool, has_consumer: bool
) -> None:
    http.post(f"/p/{queue}", data={"policy": policy})
    if stopped:
        http.post(f"/control/{queue}", data={"status": "stop"})
    consumer = Comet(daemon, f"/c/{queue}") if has_consumer else None
    if consumer:
        wait_until(lambda: listeners(redis, queue))
    with closing(Comet(daemon, f"/tap/{queue}")) as tap:
        keys = [post(http, queue, str(number)) for number in range(20)]
        batch = json.dumps({"cmd": "add", "queue": queue, "values": [str(number) for number in range(20, 40)]})
        keys += http.post("/queue", content=batch, headers={"Content-Type": "application/json"}).json()["keys"]
        assert seen(tap, 40) == [{"key": key, "value": str(number)} for number, key in enumerate(keys)]
        nothing_more(tap, http, queue)
    if consumer and not stopped:
        assert [json.loads(line)["key"] for line in consumer.lines(40)] == keys
        consumer.close()
    else:
        assert [http.get(f"/q/{queue}").json()["key"] for _ in range(40)] == keys


def test_a_delayed_message_is_seen_when_it_is_put_in_and_not_again(
    http: httpx.Client, daemon: Daemon, queue: str
) -> None:
    with closing(Comet(daemon, f"/tap/{queue}")) as tap:
        key = post(http, queue, "later", delay="0.1")
        assert seen(tap, 1) == [{"key": key, "value": "later"}]
        assert http.get(f"/q/{queue}", params={"wait": 20}).json()["key"] == key
        nothing_more(tap, http, queue)


def test_a_message_that_is_repeated_or_comes_back_is_not_seen_again(
    http: httpx.Client, daemon: Daemon, queue: str
) -> None:
    http.post(f"/p/{queue}", data={"max_deliveries": "2"})
    with closing(Comet(daemon, f"/tap/{queue}")) as tap:
        for _ in range(2):
            once = {"content": "x", "headers": {"Idempotency-Key": "one", "Content-Type": "text/plain"}}
            assert http.post(f"/q/{queue}", **once).text.strip() == f"{queue}:1"  # type: ignore[arg-type]
        for _ in range(2):
            leased = http.get(f"/q/{queue}", params={"lease": 30}).json()
            http.post(f"/m/{leased['key']}", data={"receipt": leased["receipt"], "lease": "0"}).raise_for_status()
        assert http.post(f"/d/{queue}").json()["redriven"] == 1
        assert seen(tap, 1)[0]["key"] == f"{queue}:1"
        nothing_more(tap, http, queue)


def test_a_dead_letter_is_seen_in_the_queue_that_it_is_put_into(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    other = f"{queue}-other"
    with closing(Comet(daemon, f"/tap/{queue}")) as tap, closing(Comet(daemon, f"/tap/{other}")) as other_tap:
        for value in ("small", "large " * 20_000):
            post(http, queue, value, dead="true")
            assert seen(tap, 1)[0]["value"] == value
        assert http.post(f"/d/{queue}", data={"to": other}).json()["redriven"] == 2
        small, large = seen(other_tap, 2)
        assert (small["key"], small["value"], large["value"]) == (f"{other}:1", "small", "large " * 20_000)
        assert small["dead_letter"]["key"] == f"{queue}:1"
        nothing_more(tap, http, queue)
        nothing_more(other_tap, http, other)


def test_a_tap_sees_what_is_put_into_a_fifo_queue(http: httpx.Client, daemon: Daemon, redis: Redis, queue: str) -> None:
    name = f"{queue}.fifo"
    redis.command("HSET", f"{name}:sqs", "a:FifoQueue", "true")
    with closing(Comet(daemon, f"/tap/{name}")) as tap:
        key = post(http, name, "one")
        assert seen(tap, 1)[0]["key"] == key
        assert http.get(f"/q/{name}").json()["key"] == key


def test_a_message_that_a_full_queue_refuses_is_not_seen(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    http.post(f"/p/{queue}", data={"max_length": "1"})
    with closing(Comet(daemon, f"/tap/{queue}")) as tap:
        key = post(http, queue, "in")
        assert http.post(f"/q/{queue}", data={"value": "out"}).status_code == 429
        assert http.get(f"/q/{queue}").json()["key"] == key
        assert seen(tap, 1)[0]["key"] == key
        nothing_more(tap, http, queue)


def test_taps_on_all_daemons_see_all_messages_in_order(
    http: httpx.Client, daemon: Daemon, second: Daemon, queue: str
) -> None:
    taps = [Comet(server, f"/tap/{queue}") for server in (daemon, second, daemon)]

    def produce(server: Daemon) -> None:
        with server.client() as client:
            for number in range(150):
                post(client, queue, f"{server.port} {number}")

    producers = [threading.Thread(target=produce, args=[server]) for server in (daemon, second)]
    for producer in producers:
        producer.start()
    found = [seen(tap, 300) for tap in taps]
    for producer in producers:
        producer.join()
    assert [message["key"] for message in found[0]] == [f"{queue}:{number}" for number in range(1, 301)]
    assert found[0] == found[1] == found[2]
    for tap in taps:
        tap.close()


def test_much_more_than_the_window_passes_without_a_gap(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    """Large values come beside the channel; each confirmation frees the window.

    The tap reads each batch before the next one: a tap with more than 4 MiB unsent would fall behind.
    """
    with closing(Comet(daemon, f"/tap/{queue}")) as tap:
        for number in range(6):
            value = f"{number} " * (4 * MIB) if number % 2 else f"{number} " * 30_000
            http.post(f"/q/{queue}", content=value, headers={"Content-Type": "text/plain"}).raise_for_status()
            (message,) = seen(tap, 1)
            assert (message.get("event"), message.get("value") == value) == (None, True)
        lines = "\n".join(json.dumps("x" * 10_000) for _ in range(50))
        for first in range(7, 1007, 50):
            http.post(f"/q/{queue}", content=lines, headers={"Content-Type": "application/x-ndjson"}).raise_for_status()
            keys = [f"{queue}:{number}" for number in range(first, first + 50)]
            assert [message.get("key") for message in seen(tap, 50)] == keys


def test_a_tap_outlives_the_end_of_its_queue(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    with closing(Comet(daemon, f"/tap/{queue}")) as tap:
        post(http, queue, "one")
        http.delete(f"/q/{queue}")
        post(http, queue, "two")
        http.delete(f"/q/{queue}", params={"remove": "true"}).raise_for_status()
        post(http, queue, "three")
        assert [message.get("value") for message in seen(tap, 3)] == ["one", "two", "three"]


def test_who_reconnects_is_told_of_a_gap_if_messages_came_meanwhile(
    http: httpx.Client, daemon: Daemon, queue: str
) -> None:
    with closing(Comet(daemon, f"/tap/{queue}", EVENTS)) as tap:
        key = post(http, queue, "one")
        assert events(tap, 1)[0]["id"] == key
    with closing(Comet(daemon, f"/tap/{queue}", f"{EVENTS}Last-Event-ID: {key}\r\n")) as tap:
        new = post(http, queue, "two")
        assert events(tap, 1) == [{"id": new, "data": "two"}]
    for last in (key, "nonsense", "9" * 5000):
        with closing(Comet(daemon, f"/tap/{queue}?last_event_id={last}")) as tap:
            assert seen(tap, 1) == [{"event": "gap", "last_event_id": last}]
            nothing_more(tap, http, queue)


@pytest.mark.parametrize("route", ["/tap/AUTHKEY:x", "/tap/%ff", "/tap/" + "n" * 256, "/tap/%00", "/tap/x?lease=3"])
def test_a_tap_with_a_wrong_name_or_parameter_is_rejected(http: httpx.Client, route: str) -> None:
    assert http.get(route).status_code == 400


@pytest.mark.parametrize("query", ["tap=2", "tap=", "tap=1&lease=3", "tap=1&lease="])
def test_a_websocket_with_a_wrong_tap_is_rejected(daemon: Daemon, queue: str, query: str) -> None:
    with pytest.raises(InvalidStatus, match="400"), connect(f"ws://127.0.0.1:{daemon.port}/ws/{queue}?{query}"):
        pass


def test_a_tap_needs_the_right_to_read(http: httpx.Client, daemon: Daemon, redis: Redis, queue: str) -> None:
    def token(name: str, queues: list[str], *rights: str) -> str:
        redis.command("SET", f"AUTHKEY:{queue}{name}", json.dumps({"queues": queues, "privs": rights}))
        return f"{queue}{name}"

    for refused in (token("w", [queue], "write", "admin"), token("o", ["other"], "read")):
        assert http.get(f"/tap/{queue}", params={"authkey": refused}).status_code == 403
    assert http.get(f"/tap/{queue}", params={"authkey": "unknown"}).status_code == 401
    reader = token("r", [queue], "read")
    tap = Comet(daemon, f"/tap/{queue}?authkey={reader}")
    key = post(http, queue, "x")
    assert seen(tap, 1)[0]["key"] == key
    redis.command("DEL", f"AUTHKEY:{reader}")
    assert tap.wait_for_end() == b""


# Faults


@pytest.fixture
def own(private_folder: Path, private_redis: Redis) -> Iterator[Daemon]:
    with stopping(Daemon(private_folder, "--redis-timeout", "5", redis=private_redis)) as server:
        yield server


def break_subscriptions(redis: Redis) -> None:
    for server in getattr(redis, "nodes", [redis]):
        server.command("CLIENT", "KILL", "TYPE", "pubsub")


def test_a_queue_has_keys_for_taps_only_while_it_is_tapped(own: Daemon, private_redis: Redis) -> None:
    def of_taps() -> set[str]:
        return {key for key in private_redis.command("KEYS", "*") if ":tap" in key}

    with own.client() as http:
        post(http, "q", "x")
        assert of_taps() == set()
        with closing(Comet(own, "/tap/q")) as tap:
            post(http, "q", "y" * 100_000)
            assert {"q:tapped", "q:tapflow"} <= of_taps()
            assert all(private_redis.command("PTTL", key) != -1 for key in of_taps())
            assert seen(tap, 1)[0]["key"] == "q:2"
        wait_until(lambda: private_redis.command("PUBSUB", "NUMSUB", "q:PUBSUB:TAP") == ["q:PUBSUB:TAP", 0])


def test_a_tap_that_reads_nothing_is_told_of_a_gap_and_goes_on(own: Daemon) -> None:
    """Others are not held up, and the server keeps no more than about --max-unsent for it."""
    with own.client() as http, closing(Comet(own, "/tap/q")) as slow, closing(Comet(own, "/tap/q")) as quick:
        before, count = own.resident_bytes, 100
        for number in range(count):
            value = f"{number} ".ljust(MIB, "x")
            http.post("/q/q", content=value, headers={"Content-Type": "text/plain"}).raise_for_status()
            (message,) = seen(quick, 1)
            assert message["key"] == f"q:{number + 1}"
        assert own.resident_bytes - before < 60 * MIB
        found = []
        while not found or "event" not in found[-1]:
            found += seen(slow, 1)
        got = [message["key"] for message in found[:-1]]
        assert got == [f"q:{number}" for number in range(1, len(got) + 1)]
        assert len(got) < 40
        assert found[-1] == {"event": "gap", "last_event_id": got[-1]}
        nothing_more(slow, http, "q")
        assert "restmq_consumers_told_of_gaps_total 1.0" in http.get("/metrics").text


def test_a_tap_never_holds_up_a_consumer_or_a_producer(own: Daemon, private_redis: Redis) -> None:
    with own.client() as http:
        idle = [own.connect() for _ in range(20)]
        for connection in idle:
            connection.sendall(b"GET /tap/q HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert connection.recv(1000)
        with closing(Comet(own, "/c/q")) as consumer:
            wait_until(lambda: listeners(private_redis, "q"))
            keys = []
            for number in range(40):
                value = f"{number} ".ljust(MIB, "x")
                keys.append(http.post("/q/q", content=value, headers={"Content-Type": "text/plain"}).text.strip())
                assert json.loads(consumer.lines(1)[0])["key"] == keys[-1]
        for connection in idle:
            connection.close()


def test_a_broken_subscription_is_told_as_a_gap_if_messages_were_missed(
    own: Daemon, private_folder: Path, private_redis: Redis
) -> None:
    other = Daemon(private_folder / "other", redis=private_redis)
    with stopping(other), other.client() as http, closing(Comet(own, "/tap/q")) as tap:
        key = post(http, "q", "one")
        assert seen(tap, 1)[0]["key"] == key
        for _ in range(3):  # nothing is missed, so nothing is told
            break_subscriptions(private_redis)
            wait_until(lambda: private_redis.command("PUBSUB", "NUMSUB", "q:PUBSUB:TAP")[1] == 1)
        nothing_more(tap, http, "q")
        own.process.send_signal(signal.SIGSTOP)
        break_subscriptions(private_redis)
        missed = post(http, "q", "missed")
        own.process.send_signal(signal.SIGCONT)
        assert seen(tap, 1) == [{"event": "gap", "last_event_id": "q:2"}]
        assert missed == "q:3"
        nothing_more(tap, http, "q")


def test_a_tap_goes_on_after_a_restart_of_redis(own: Daemon, private_redis: Redis) -> None:
    with own.client() as http, closing(Comet(own, "/tap/q")) as tap:
        post(http, "q", "one")
        assert seen(tap, 1)[0]["value"] == "one"
        private_redis.kill()
        private_redis.start()
        wait_until(lambda: http.get("/readyz").status_code == 200)
        post(http, "q", "two")
        found = seen(tap, 1)
        if "event" in found[0]:  # it came before the daemon had subscribed again
            assert found == [{"event": "gap", "last_event_id": "q:1"}]
        else:
            assert found[0]["value"] == "two"
        wait_until(lambda: private_redis.command("PUBSUB", "NUMSUB", "q:PUBSUB:TAP")[1] == 1)
        wait_until(lambda: private_redis.command("EXISTS", "q:tapped") == 1)
        nothing_more(tap, http, "q")


def test_copies_that_were_not_made_are_told_as_a_gap(own: Daemon, private_redis: Redis) -> None:
    """Also if no message follows, because the daemons look regularly."""
    with own.client() as http, closing(Comet(own, "/tap/q")) as tap:
        private_redis.command("DEL", "q:tapped")
        post(http, "q", "unseen")
        assert seen(tap, 1) == [{"event": "gap", "last_event_id": "q:0"}]
        nothing_more(tap, http, "q")


def test_a_daemon_that_hangs_makes_redis_keep_no_more_than_a_window_per_second(
    own: Daemon, private_folder: Path, private_redis: Redis
) -> None:
    """A round ends without the daemon after a second, and Redis keeps its values for ten more."""

    def used_bytes() -> int:
        (line,) = [line for line in private_redis.command("INFO", "memory").splitlines() if "used_memory:" in line]
        return int(line.partition(":")[2])

    other = Daemon(private_folder / "other", redis=private_redis)
    with stopping(other), other.client() as http, closing(Comet(own, "/tap/q")) as tap:
        post(http, "q", "one")
        assert seen(tap, 1)[0]["key"] == "q:1"
        own.process.send_signal(signal.SIGSTOP)
        before, since = used_bytes(), time.monotonic()
        for _ in range(200):
            http.post("/q/q", content=b"x" * MIB, headers={"Content-Type": "text/plain"}).raise_for_status()
            http.get("/q/q").raise_for_status()
        assert used_bytes() - before < 20 * MIB * (2 + min(10, time.monotonic() - since))
        own.process.send_signal(signal.SIGCONT)
        found = []
        while not found or "event" not in found[-1]:
            found += seen(tap, 1)
        assert [message["key"] for message in found[:-1]] == [f"q:{number}" for number in range(2, len(found) + 1)]
        wait_until(lambda: private_redis.command("EXISTS", "q:tapheld") == 0)


def test_without_redis_a_tap_is_refused_and_with_the_server_it_ends(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder, "--redis-timeout", "1", redis=private_redis)
    address = f"ws://127.0.0.1:{daemon.port}/ws/q?tap=1"
    with stopping(daemon), daemon.client() as http, closing(Comet(daemon, "/tap/q")) as tap, connect(address) as socket:
        private_redis.pause()
        try:
            refused = http.get("/tap/other")
        finally:
            private_redis.go_on()
        assert refused.status_code == 503
        assert "Retry-After" in refused.headers
        daemon.process.terminate()
        assert tap.wait_for_end() == b""
        assert tap.ended
        with pytest.raises(ConnectionClosed, match="1001"):
            socket.recv(20)


def is_open(daemon: Daemon) -> bool:
    try:
        daemon.connect().close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_tap_that_would_begin_while_the_server_stops_is_sent_to_another_server(
    private_redis: Redis, private_folder: Path
) -> None:
    daemon = Daemon(private_folder / "stops", redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        wait_until(lambda: http.get("/readyz").status_code == 200)
        private_redis.pause()
        with closing(daemon.get("/tap/q")) as tap:
            assert http.get("/healthz").status_code == 200  # so the request for the tap has been read too
            daemon.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not is_open(daemon))
            private_redis.go_on()
            assert tap.recv(100).startswith(b"HTTP/1.1 503 ")
