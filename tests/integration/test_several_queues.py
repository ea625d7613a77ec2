"""One request for several queues: ``/take`` by priority, ``/listen`` and ``/ws/`` with the messages of all."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.sync.client import connect

from tests.integration.test_events import events, post
from tests.servers import Comet, Daemon, Redis, listeners, stopping, wait_until


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as pool:
        yield pool


@pytest.fixture(scope="module")
def second(module_folder: Path, redis: Redis) -> Iterator[Daemon]:
    daemon = Daemon(module_folder / "second", redis=redis)
    with stopping(daemon):
        yield daemon


def path_of(queues: list[str], route: str = "/take", **more: Any) -> str:
    query = [f"queue={quote(queue, safe='')}" for queue in queues] + [f"{name}={value}" for name, value in more.items()]
    return f"{route}?{'&'.join(query)}"


def waiting(pool: ThreadPoolExecutor, daemon: Daemon, path: str) -> Future[httpx.Response]:
    return pool.submit(httpx.get, daemon.url + path, timeout=70)


def wait_for_waiters(redis: Redis, *queues: str) -> None:
    wait_until(lambda: all(redis.command("EXISTS", f"{queue}:waiters") for queue in queues))


def test_a_message_comes_from_the_first_queue_that_has_one(http: httpx.Client, queue: str) -> None:
    high, low = f"{queue}/hi gh", f"{queue}-low"
    for name in (low, high, low, high):
        post(http, quote(name, safe=""), name)
    found = [http.get(path_of([high, low])).json() for _ in range(4)]
    assert [message["queue"] for message in found] == [high, high, low, low]
    assert found[0] == {"queue": high, "key": f"{high}:1", "value": high, "count": 0}
    empty = http.get(path_of([high, low]))
    assert (empty.status_code, empty.content) == (204, b"")


def test_a_raw_value_a_lease_and_jsonp_are_as_for_one_queue(http: httpx.Client, queue: str) -> None:
    queues = [f"{queue}-a", f"{queue}-b"]
    http.post(f"/q/{queues[1]}", content=b"\xff\x00", headers={"Content-Type": "image/png"})
    raw = http.get(path_of(queues, raw=1, lease=30))
    assert (raw.content, raw.headers["Content-Type"]) == (b"\xff\x00", "image/png")
    key, receipt = raw.headers["X-RestMQ-Key"], raw.headers["X-RestMQ-Receipt"]
    assert http.get(path_of(queues, lease=30)).status_code == 204
    assert http.delete(f"/m/{key}", params={"receipt": receipt}).status_code == 204
    post(http, queues[0], "x")
    assert http.get(path_of(queues, callback="f")).text.startswith(f'f({{"queue":"{queues[0]}"')
    assert http.get(path_of(queues, callback="f")).text == 'f({"error":"empty queue"});\r\n'


@pytest.mark.parametrize(
    "query", ["", "queue=", "queue=a&queue=%ff", "queue=a&count=2", "&".join(["queue=a"] * 33), "queue=AUTHKEY:x"]
)
@pytest.mark.parametrize("route", ["/take", "/listen"])
def test_wrong_queues_are_rejected(http: httpx.Client, route: str, query: str) -> None:
    assert http.get(f"{route}?{query}").status_code == 400


def test_a_client_waits_for_thirty_two_queues_with_one_registration_each(
    daemon: Daemon, redis: Redis, http: httpx.Client, pool: ThreadPoolExecutor, queue: str
) -> None:
    queues = [f"{queue}-{number}" for number in range(32)]
    answer = waiting(pool, daemon, path_of(queues, wait=60))
    wait_for_waiters(redis, *queues)
    assert {redis.command("LLEN", f"{each}:waiters") for each in queues} == {1}
    assert http.get(f"/stats/{queues[31]}").json()["waiters"] == 1
    key = post(http, queues[31], "the last")
    assert answer.result().json() == {"queue": queues[31], "key": key, "value": "the last", "count": 0}
    wait_until(lambda: not any(redis.command("EXISTS", f"{each}:waiters") for each in queues))


def test_of_messages_that_come_to_several_queues_at_once_the_first_is_taken(
    daemon: Daemon, redis: Redis, http: httpx.Client, pool: ThreadPoolExecutor, queue: str
) -> None:
    """A transaction wakes the lower queue first, and both in one instant."""
    high, low = f"{queue}-high", f"{queue}-low"
    for round_number in range(1, 20):
        answer = waiting(pool, daemon, path_of([high, low], wait=60))
        wait_for_waiters(redis, high, low)
        notices = []
        for name in (low, high):
            key = f"{name}:{round_number}"
            channel = redis.command("LINDEX", f"{name}:waiters", "0")
            notices += [("SET", key, "x"), ("LPUSH", f"{name}:queue", key), ("PUBLISH", channel, name)]
        assert redis.commands([("MULTI",), *notices, ("EXEC",)])[-1][-1] == 1
        assert answer.result().json()["queue"] == high
        wait_until(lambda: not redis.command("EXISTS", f"{low}:waiters"))
        assert redis.command("LLEN", f"{low}:queue") == 1
        assert http.get(f"/q/{low}").status_code == 200


def test_nothing_is_taken_twice_or_lost_by_many_clients_of_many_queues(
    daemon: Daemon, second: Daemon, http: httpx.Client, pool: ThreadPoolExecutor, queue: str
) -> None:
    queues = [f"{queue}-{number}" for number in range(5)]
    total = 300

    def take_all(number: int) -> list[str]:
        taken = []
        order = queues[number % 5 :] + queues[: number % 5] if number % 3 else [queues[number % 5]]
        with (daemon, second)[number % 2].client() as client:
            while (answer := client.get(path_of(order, wait=2))).status_code == 200:
                taken.append(answer.json()["key"])
        return taken

    takers = [pool.submit(take_all, number) for number in range(12)]
    keys = []
    with second.client() as other:
        for number in range(total):
            keys.append(post((http, other)[number % 2], queues[number * 7 % 5], str(number)))
    taken = Counter(key for taker in takers for key in taker.result())
    assert taken == Counter(keys)
    assert [http.get(f"/stats/{each}").json()["totals"]["out"] for each in queues] == [total // 5] * 5


def test_a_client_that_leaves_takes_nothing_and_its_message_stays_first(
    daemon: Daemon, redis: Redis, http: httpx.Client, queue: str
) -> None:
    high, low = f"{queue}-high", f"{queue}-low"
    for _ in range(5):
        stream = daemon.connect()
        stream.sendall(f"GET {path_of([high, low], wait=60)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        wait_for_waiters(redis, high, low)
        stream.close()
        keys = [post(http, name, "x") for name in (low, high)]
        wait_until(lambda: not redis.command("EXISTS", f"{low}:waiters", f"{high}:waiters"))
        assert [http.get(path_of([name, high], wait=5)).json()["key"] for name in (low, high)] == keys


def test_waiting_for_several_queues_goes_on_after_redis_was_killed(
    private_folder: Path, private_redis: Redis, pool: ThreadPoolExecutor
) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        answer = waiting(pool, daemon, path_of(["a", "b"], wait=60))
        wait_for_waiters(private_redis, "a", "b")
        private_redis.kill()
        private_redis.start()
        wait_until(lambda: http.post("/q/b", data={"value": "x"}).status_code == 200)
        assert answer.result().json()["key"] == "b:1"
        private_redis.kill()
        assert http.get(path_of(["a", "b"])).status_code == 503
        private_redis.start()


def test_commands_take_and_lease_name_more_queues(daemon: Daemon, http: httpx.Client, queue: str) -> None:
    a, b = f"{queue}-a", f"{queue}-b"
    key = post(http, b, "x")
    command = {"cmd": "lease", "queue": a, "queues": [b], "lease": 30, "wait": 1}
    leased = http.post("/queue", json=command).json()
    assert (leased["queue"], leased["key"]) == (b, key)
    assert http.post("/queue", json={**command, "wait": 0}).json() == {"error": "empty queue"}
    with connect(f"ws://127.0.0.1:{daemon.port}/ws/{a}") as socket:
        socket.send(json.dumps({"cmd": "take", "queues": [b], "wait": 10}))
        key = post(http, b, "y")
        assert json.loads(socket.recv(10))["key"] == key


@pytest.fixture
def two(http: httpx.Client, queue: str) -> list[str]:
    """Two queues that keep a history."""
    queues = [f"{queue}-a", f"{queue}-b"]
    for each in queues:
        http.post(f"/p/{each}", data={"history": "100"})
    return queues


def follow(daemon: Daemon, redis: Redis, queues: list[str], headers: str = "") -> Comet:
    stream = Comet(daemon, path_of(queues, "/listen"), headers)
    wait_until(lambda: all(listeners(redis, queue) for queue in queues))
    return stream


def test_each_line_and_frame_names_its_queue(daemon: Daemon, redis: Redis, http: httpx.Client, two: list[str]) -> None:
    stream = follow(daemon, redis, two)
    with connect(f"ws://127.0.0.1:{daemon.port}{path_of(two, '/ws/')}") as socket:
        socket.send("hello")
        assert socket.recv(10) == "hello"
        keys = [post(http, two[number % 2], str(number)) for number in range(4)]
        expected = [{"queue": two[n % 2], "key": key, "value": str(n)} for n, key in enumerate(keys)]
        assert [json.loads(line) for line in stream.lines(4)] == expected
        assert [json.loads(socket.recv(10)) for _ in keys] == expected
        assert http.get(f"/stats/{two[0]}").json()["consumers"] == 2
    stream.close()
    wait_until(lambda: not any(listeners(redis, queue) for queue in two))


def test_events_have_their_queue_as_type_unless_the_message_has_one(
    daemon: Daemon, redis: Redis, http: httpx.Client, two: list[str]
) -> None:
    stream = follow(daemon, redis, two, "Accept: text/event-stream\r\n")
    assert b"text/event-stream" in stream.head
    post(http, two[1], "plain")
    http.post(f"/q/{two[1]}", content=b"typed", headers={"X-Message-Event": "order", "Content-Type": "text/plain"})
    found = events(stream, 2)
    assert [(event["event"], event["data"]) for event in found] == [(two[1], "plain"), ("order", "typed")]
    stream.close()


def test_events_of_a_queue_named_gap_do_not_look_like_notices(
    daemon: Daemon, redis: Redis, http: httpx.Client, queue: str
) -> None:
    stream = follow(daemon, redis, ["gap", queue], "Accept: text/event-stream\r\n")
    post(http, "gap", "plain")
    http.post("/q/gap", content=b"typed", headers={"X-Message-Event": "order", "Content-Type": "text/plain"})
    found = events(stream, 2)
    assert [(event.get("event"), event["data"]) for event in found] == [(None, "plain"), ("order", "typed")]
    stream.close()


def test_all_queues_are_resumed_without_a_gap_or_a_repeat(
    daemon: Daemon, second: Daemon, redis: Redis, http: httpx.Client, two: list[str]
) -> None:
    witness = follow(second, redis, two)  # without a consumer, messages would wait instead of going to the history
    a, b = two
    post(http, a, "before")
    witness.lines(1)
    stream = follow(daemon, redis, two, "Accept: text/event-stream\r\n")
    wait_until(lambda: listeners(redis, a) == 2 and listeners(redis, b) == 2)
    post(http, a, "0")
    last_id = events(stream, 1)[0]["id"]
    assert last_id == "2,~0"
    for round_number in range(3):
        stream.close()
        wait_until(lambda: listeners(redis, b) == 1)
        names = [b, a, b] if round_number % 2 else [a, b, b]
        missed = [(name, post(http, name, f"{round_number}-{n}")) for n, name in enumerate(names)]
        stream = Comet(daemon, path_of(two, "/listen"), f"Accept: text/event-stream\r\nLast-Event-ID: {last_id}\r\n")
        found = events(stream, 3)
        for name in two:
            values = [event["data"] for event in found if event["event"] == name]
            assert values == [f"{round_number}-{n}" for n, each in enumerate(names) if each == name]
        last_id = found[-1]["id"]
        newest = dict(missed)  # the last of each queue
        assert last_id == ",".join(newest[name].rpartition(":")[2] for name in two)
    stream.close()
    witness.close()


def test_the_first_event_names_the_position_in_each_queue(
    daemon: Daemon, second: Daemon, redis: Redis, http: httpx.Client, two: list[str], pool: ThreadPoolExecutor
) -> None:
    """It may come before the daemon has attended to the other queue."""
    witness = follow(second, redis, two)
    ended = threading.Event()

    def produce() -> None:
        while not ended.is_set():
            post(http, two[0], "x")

    producing = pool.submit(produce)
    try:
        post(http, two[1], "x")
        for _ in range(20):
            stream = Comet(daemon, path_of(two, "/listen"), "Accept: text/event-stream\r\n")
            assert re.fullmatch("[0-9]+,1", events(stream, 1)[0]["id"])
            stream.close()
    finally:
        ended.set()
        producing.result()
    witness.close()


def test_events_begin_while_redis_is_away_and_come_when_it_is_back(
    private_folder: Path, private_redis: Redis, two: list[str]
) -> None:
    """An EventSource never comes back after another status than 200."""
    with stopping(Daemon(private_folder / "daemon", redis=private_redis)) as daemon, daemon.client() as http:
        wait_until(lambda: http.get("/readyz").status_code == 200)
        private_redis.stop()
        wait_until(lambda: http.get("/readyz").status_code == 503)
        accepted = "Accept: text/event-stream\r\n"
        streams = [Comet(daemon, path_of(two, "/listen"), accepted + more) for more in ("", "Last-Event-ID: 5,\r\n")]
        assert [stream.head.split(b" ")[1] for stream in streams] == [b"200", b"200"]
        private_redis.start()
        wait_until(lambda: http.get("/readyz").status_code == 200)
        wait_until(lambda: listeners(private_redis, two[1]) == 1)
        post(http, two[1], "x")
        for stream in streams:
            while events(stream, 1)[0]["event"] != two[1]:  # the other queue may have a gap
                pass
            stream.close()


def test_events_begin_at_once_while_redis_hangs_and_their_ids_name_all_queues(
    private_folder: Path, private_redis: Redis, two: list[str]
) -> None:
    hung = Daemon(private_folder / "daemon", "--redis-timeout", "600", redis=private_redis)
    with stopping(hung) as daemon, daemon.client() as http:
        for queue in two:
            post(http, queue, "x")
            http.get(f"/q/{queue}")
        private_redis.pause()
        try:
            stream = Comet(daemon, path_of(two, "/listen"), "Accept: text/event-stream\r\n")
            assert stream.head.startswith(b"HTTP/1.1 200 ")
            assert stream.lines(1, end=b"\n") == [b"retry: 2000"]
        finally:
            private_redis.go_on()
        wait_until(lambda: listeners(private_redis, two[1]) == 1)
        post(http, two[1], "y")
        assert events(stream, 1)[0]["id"] in ("~0,2", "~1,2")
        stream.close()


@pytest.mark.parametrize("history", ["0", "100"])
def test_a_round_robin_queue_has_no_gap(
    daemon: Daemon, redis: Redis, http: httpx.Client, two: list[str], history: str
) -> None:
    """Others took its messages; none was lost."""
    for name in two:
        http.post(f"/p/{name}", data={"policy": "roundrobin", "history": history})
        for number in range(3):
            post(http, name, str(number))
            http.get(f"/q/{name}").raise_for_status()
    stream = Comet(daemon, path_of(two, "/listen", last_event_id="~1,~0"))
    wait_until(lambda: all(listeners(redis, queue) for queue in two))
    keys = [post(http, name, "x") for name in two]
    assert sorted(json.loads(line).get("key", line) for line in stream.lines(2)) == keys
    stream.close()


def test_a_client_of_quiet_queues_resumes_without_a_gap(
    daemon: Daemon, second: Daemon, redis: Redis, http: httpx.Client, two: list[str]
) -> None:
    witness = follow(second, redis, two)
    stream = Comet(daemon, path_of(two, "/listen", last_event_id="~0,~0"))
    wait_until(lambda: all(listeners(redis, queue) == 2 for queue in two))
    keys = [post(http, name, "x") for name in two]
    assert sorted(json.loads(line)["key"] for line in stream.lines(2)) == keys
    stream.close()
    witness.close()


def test_a_position_older_than_the_history_is_a_gap_of_its_queue(
    daemon: Daemon, redis: Redis, http: httpx.Client, two: list[str]
) -> None:
    http.post(f"/p/{two[1]}", data={"history": "1"})
    witness = follow(daemon, redis, two)
    for number in range(4):
        post(http, two[0], str(number))
        post(http, two[1], str(number))
    witness.lines(8)
    stream = Comet(daemon, path_of(two, "/listen", last_event_id="4,1"))
    gap, message = (json.loads(line) for line in stream.lines(2))
    assert gap == {"event": "gap", "last_event_id": f"{two[1]}:1", "queue": two[1]}
    assert message["key"] == f"{two[1]}:4"
    stream.close()
    witness.close()


@pytest.mark.parametrize("last_id", ["1", "1,2,3", "x,y", "1,", "a:1,b:2", f"1,{'9' * 30}"])
def test_an_id_of_other_queues_is_rejected(http: httpx.Client, queue: str, last_id: str) -> None:
    path = path_of([f"{queue}-a", f"{queue}-b"], "/listen", last_event_id=last_id)
    if last_id == "1,":
        with http.stream("GET", path) as answer:
            assert answer.status_code == 200
    else:
        assert http.get(path).status_code == 400


def test_leases_on_several_queues_are_held_per_queue_and_come_back_at_the_end(
    daemon: Daemon, redis: Redis, http: httpx.Client, queue: str
) -> None:
    queues = [f"{queue}-a", f"{queue}-b"]
    assert http.get(path_of(queues, "/listen", lease=30)).status_code == 409
    for each in queues:
        http.post(f"/p/{each}", data={"policy": "roundrobin"})
        for number in range(3):
            post(http, each, str(number))
    stream = Comet(daemon, path_of(queues, "/listen", lease=30, prefetch=1))
    first = {message["queue"]: message for message in map(json.loads, stream.lines(2))}
    assert sorted(first) == queues
    leased = first[queues[0]]
    assert http.delete(f"/m/{leased['key']}", params={"receipt": leased["receipt"]}).status_code == 204
    assert json.loads(stream.lines(1)[0])["key"] == f"{queues[0]}:2"
    stream.close()
    wait_until(lambda: [http.get(f"/stats/{each}").json()["ready"] for each in queues] == [2, 3])


def test_the_connection_ends_when_one_of_its_queues_is_deleted(
    daemon: Daemon, redis: Redis, http: httpx.Client, two: list[str]
) -> None:
    stream = follow(daemon, redis, two)
    http.delete(f"/q/{two[1]}")
    assert stream.wait_for_end() == b""
    assert stream.ended
    wait_until(lambda: not any(listeners(redis, queue) for queue in two))


def test_a_token_must_be_for_all_of_the_queues_and_its_end_ends_the_stream(
    daemon: Daemon, redis: Redis, http: httpx.Client, two: list[str]
) -> None:
    for token, names in (("both", two), ("one", two[:1])):
        redis.command("SET", f"AUTHKEY:{token}-{two[0]}", json.dumps({"queues": names, "privs": ["read"]}))
    for route in ("/take", "/listen", "/ws/"):
        assert http.get(path_of(two, route, authkey=f"one-{two[0]}")).status_code == 403
        assert http.head(path_of(two, route, authkey=f"one-{two[0]}")).status_code == 403
    assert http.get(path_of(two, authkey=f"both-{two[0]}")).status_code == 204
    stream = Comet(daemon, path_of(two, "/listen", authkey=f"both-{two[0]}"))
    redis.command("SET", f"AUTHKEY:both-{two[0]}", json.dumps({"queues": two[:1], "privs": ["read"]}))
    stream.wait_for_end()
    assert stream.ended


def test_a_client_of_several_queues_that_does_not_read_is_dropped_once(private_folder: Path, redis: Redis) -> None:
    queues = [f"slow-{time.monotonic_ns()}-{number}" for number in range(2)]
    daemon = Daemon(private_folder, "--max-unsent", "1", "--stall-timeout", "1", redis=redis)
    with stopping(daemon), daemon.client() as http:
        stream = follow(daemon, redis, queues)

        def is_dropped() -> bool:
            for queue in queues:
                http.post(f"/q/{queue}", content=b"x" * (1 << 20), headers={"Content-Type": "text/plain"})
            return not any(listeners(redis, queue) for queue in queues)

        wait_until(is_dropped)
        dropped = [line for line in http.get("/metrics").text.splitlines() if "dropped" in line and line[0] != "#"]
        assert [float(line.split()[-1]) for line in dropped] == [1.0]
        stream.close()
