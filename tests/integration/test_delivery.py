"""Long polls, leases, dead letters, delays and batches, as a client with nothing but HTTP sees them."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import select
import socket
import time
import xmlrpc.client
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.servers import Comet, Daemon, Redis, stopping, wait_until

BINARY = bytes(range(256)) * 3
PNG = b"\x89PNG\r\n\x1a\n\x00\xff"


def add(http: httpx.Client, queue: str, *values: str, **form: object) -> list[str]:
    """Adds messages. Returns their keys."""
    keys = []
    for value in values:
        answer = http.post(f"/q/{queue}", data={"value": value, **{name: str(said) for name, said in form.items()}})
        assert answer.status_code == 200, answer.text
        keys.append(answer.text.strip())
    return keys


def lease(http: httpx.Client, queue: str, seconds: float = 60, **parameters: object) -> dict[str, str]:
    answer = http.get(f"/q/{queue}", params={"lease": seconds, **parameters})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def stats(http: httpx.Client, queue: str) -> dict[str, int]:
    return dict(http.get(f"/stats/{queue}").json())


def counts(http: httpx.Client, queue: str) -> tuple[int, ...]:
    """The numbers of ready, leased, delayed and dead messages."""
    found = stats(http, queue)
    return tuple(found[name] for name in ("ready", "leased", "delayed", "dead"))


class InBackground:
    """Simultaneous requests."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.pool = ThreadPoolExecutor(64)

    def get(self, path: str) -> Future[httpx.Response]:
        return self.pool.submit(lambda: httpx.get(self.daemon.url + path, timeout=70))


@pytest.fixture
def background(daemon: Daemon) -> InBackground:
    return InBackground(daemon)


def wait_for_waiters(http: httpx.Client, queue: str, count: int) -> None:
    wait_until(lambda: stats(http, queue)["waiters"] == count)


# Long poll


def test_a_waiting_get_is_answered_when_a_message_comes(
    http: httpx.Client, background: InBackground, queue: str
) -> None:
    waiting = background.get(f"/q/{queue}?wait=60")
    wait_for_waiters(http, queue, 1)
    (key,) = add(http, queue, "hello")
    assert waiting.result().json() == {"key": key, "value": "hello", "count": 0}
    assert counts(http, queue) == (0, 0, 0, 0)


def test_a_wait_ends_with_204_and_takes_nothing_afterwards(http: httpx.Client, queue: str) -> None:
    assert http.get(f"/q/{queue}?wait=0.05").status_code == 204
    add(http, queue, "late")
    assert http.get(f"/q/{queue}").json()["value"] == "late"


def test_waiters_are_served_in_the_order_in_which_they_came(
    http: httpx.Client, background: InBackground, queue: str
) -> None:
    waiting = []
    for number in range(6):
        waiting.append(background.get(f"/q/{queue}?wait=60"))
        wait_for_waiters(http, queue, number + 1)
    add(http, queue, *"abcdef")
    assert [answer.result().json()["value"] for answer in waiting] == list("abcdef")


def test_messages_that_come_together_reach_a_long_line_of_waiters(
    http: httpx.Client, background: InBackground, queue: str
) -> None:
    waiting = [background.get(f"/q/{queue}?wait=60") for _ in range(60)]
    wait_for_waiters(http, queue, 60)
    add(http, queue, *map(str, range(58)))
    wait_for_waiters(http, queue, 2)
    add(http, queue, "58", "59", "60")
    assert {int(answer.result().json()["value"]) for answer in waiting} == set(range(60))
    assert http.get(f"/q/{queue}").json()["value"] == "60"


def test_a_disconnected_waiter_takes_nothing(
    http: httpx.Client, daemon: Daemon, background: InBackground, queue: str
) -> None:
    with daemon.get(f"/q/{queue}?wait=60"):
        wait_for_waiters(http, queue, 1)
        second = background.get(f"/q/{queue}?wait=60")
        wait_for_waiters(http, queue, 2)
    wait_for_waiters(http, queue, 1)
    add(http, queue, "mine")
    assert second.result().json()["value"] == "mine"


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def _post(path: str, content_type: str, body: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def _command(queue: str, **fields: object) -> bytes:
    return _post("/queue", "application/json", json.dumps({"queue": queue, **fields}))


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux reports a disconnect behind unread data")
@pytest.mark.parametrize("way", ["take", "lease", "command"])
def test_a_disconnected_waiter_with_pipelined_requests_takes_nothing(
    http: httpx.Client, daemon: Daemon, queue: str, way: str
) -> None:
    waits = {
        "take": _get(f"/q/{queue}?wait=60"),
        "lease": _get(f"/q/{queue}?wait=60&lease=600"),
        "command": _command(queue, cmd="take", wait=60),
    }
    with daemon.connect() as gone:
        gone.sendall(2 * waits[way] + 100 * _get(f"/q/{queue}"))
        wait_for_waiters(http, queue, 1)
    add(http, queue, "mine")
    wait_for_waiters(http, queue, 0)
    assert http.get(f"/q/{queue}?wait=60").json()["value"] == "mine"


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux reports a disconnect behind unread data")
def test_a_disconnected_waiter_is_not_counted_even_if_no_message_comes(
    http: httpx.Client, daemon: Daemon, queue: str
) -> None:
    with daemon.connect() as gone:
        gone.sendall(2 * _get(f"/q/{queue}?wait=60"))
        wait_for_waiters(http, queue, 1)
    wait_for_waiters(http, queue, 0)


def test_a_client_that_pipelines_behind_its_wait_gets_all_answers(
    http: httpx.Client, daemon: Daemon, queue: str
) -> None:
    with daemon.connect() as client:
        client.sendall(2 * _get(f"/q/{queue}?wait=60"))
        wait_for_waiters(http, queue, 1)
        add(http, queue, "first", "second")
        got = b""
        while got.count(b'"value"') < 2:
            got += client.recv(65536)
    assert got.index(b'"first"') < got.index(b'"second"')


def _monitor(redis: Redis) -> socket.socket:
    """A connection that gets all commands that Redis runs from now on (MONITOR)."""
    told = socket.socket(socket.AF_UNIX)
    told.settimeout(20)
    told.connect(redis.socket_path)
    told.sendall(b"MONITOR\r\n")
    assert told.recv(5) == b"+OK\r\n"
    return told


def _takes(queue: str) -> list[bytes]:
    """Each way to take a message over plain HTTP."""
    return [
        *(_get(path) for path in (f"/q/{queue}", f"/?queue={queue}", f"/q/{queue}?count=1", f"/q/{queue}?lease=60")),
        _command(queue, cmd="take"),
        _command(queue, cmd="lease"),
        _post("/xmlrpc", "text/xml", xmlrpc.client.dumps((queue,), "get")),
    ]


def test_clients_that_disconnect_while_redis_hangs_take_nothing_and_the_order_stays(
    private_folder: Path, private_redis: Redis
) -> None:
    log_path = private_folder / "access.log"
    options = ("--access-log", "json", "--access-log-file", str(log_path))
    daemon = Daemon(private_folder / "daemon", *options, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        values = [str(number) for number in range(20)]
        add(http, "q", *values)
        takes = 2 * _takes("q")
        told = _monitor(private_redis)
        private_redis.pause()
        clients = [daemon.connect() for _ in takes]
        for client, request in zip(clients, takes, strict=True):
            client.sendall(request)
            client.close()
        wait_until(lambda: log_path.read_text().count('"status":499') == len(takes))
        private_redis.go_on()
        seen = b""
        while sum(map(int, re.findall(rb'"(?:out" "-|redelivered" ")(\d+)"', seen))) < len(takes):
            seen += told.recv(65536)
        assert [message["value"] for message in http.get("/q/q?count=20").json()] == values


def test_a_waiter_on_another_daemon_gets_a_message(
    private_folder: Path, redis: Redis, http: httpx.Client, daemon: Daemon, queue: str
) -> None:
    other = Daemon(private_folder, redis=redis)
    with stopping(other), other.client() as there:
        background = InBackground(other)
        waiting = [background.get(f"/q/{queue}?wait=60") for _ in range(3)]
        wait_for_waiters(there, queue, 3)
        here = InBackground(daemon).get(f"/q/{queue}?wait=60")
        wait_for_waiters(http, queue, 4)
        keys = add(http, queue, "a", "b")
        keys += http.post(f"/q/{queue}", content='"c"\n"d"', headers={"Content-Type": "application/x-ndjson"}).json()[
            "keys"
        ]
        assert {answer.result().json()["key"] for answer in [*waiting, here]} == set(keys)


def test_gets_with_count_or_lease_wait_too(http: httpx.Client, background: InBackground, queue: str) -> None:
    many = background.get(f"/q/{queue}?wait=60&count=10")
    wait_for_waiters(http, queue, 1)
    leased = background.get(f"/q/{queue}?wait=60&lease=60")
    wait_for_waiters(http, queue, 2)
    add(http, queue, "a")
    assert [message["value"] for message in many.result().json()] == ["a"]
    add(http, queue, "b")
    found = leased.result().json()
    assert (found["value"], found["count"]) == ("b", 1)
    assert http.delete(f"/m/{found['key']}", params={"receipt": found["receipt"]}).status_code == 204


@pytest.mark.parametrize(
    "parameter",
    [
        "wait=61",
        "wait=-1",
        "wait=x",
        "lease=0",
        "lease=43201",
        "lease=x",
        "count=0",
        "count=1001",
        "count=1.5",
        "count=x",
    ],
)
def test_an_invalid_parameter_is_rejected_and_loses_no_message(http: httpx.Client, queue: str, parameter: str) -> None:
    add(http, queue, "still here")
    answer = http.get(f"/q/{queue}?{parameter}")
    assert answer.status_code == 400
    assert parameter.split("=")[0] in answer.json()["error"]
    assert http.get(f"/q/{queue}").json()["value"] == "still here"


def test_the_json_commands_wait_too(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        command = {"cmd": "take", "queue": queue, "wait": 60}
        taken = pool.submit(httpx.post, daemon.url + "/queue", json=command, timeout=70)
        wait_for_waiters(http, queue, 1)
        leased = pool.submit(httpx.post, daemon.url + "/queue", json=command | {"cmd": "lease", "count": 5}, timeout=70)
        wait_for_waiters(http, queue, 2)
        keys = add(http, queue, "a", "b")
        assert taken.result().json() == {"queue": queue, "key": keys[0], "value": "a"}
        (found,) = leased.result().json()["messages"]
        assert (found["key"], found["count"]) == (keys[1], 1)


# Lease, ack, extend, nack


def test_a_leased_message_is_hidden_and_gone_when_acked(http: httpx.Client, queue: str) -> None:
    (key,) = add(http, queue, "work")
    found = lease(http, queue)
    assert found == {"key": key, "value": "work", "count": 1, "receipt": found["receipt"]}
    assert http.get(f"/q/{queue}").status_code == 204
    assert counts(http, queue) == (0, 1, 0, 0)
    shown = http.get(f"/m/{key}").json()
    assert (shown["state"], shown["count"], shown["value"]) == ("leased", 1, "work")
    assert http.delete(f"/m/{key}?receipt={found['receipt']}").status_code == 204
    assert counts(http, queue) == (0, 0, 0, 0)
    assert http.get(f"/m/{key}").status_code == 404
    assert stats(http, queue)["totals"] == {
        "in": 1, "out": 1, "leased": 1, "acked": 1, "redelivered": 0, "expired": 0, "dead": 0,
    }  # fmt: skip


def test_acking_twice_or_with_a_wrong_receipt_is_410(http: httpx.Client, queue: str) -> None:
    add(http, queue, "work")
    found = lease(http, queue)
    for wrong in ("x", found["receipt"] + "x", found["receipt"][:-1]):
        assert http.delete(f"/m/{found['key']}", params={"receipt": wrong}).status_code == 410
    path = f"/m/{found['key']}?receipt={found['receipt']}"
    assert http.delete(path).status_code == 204
    again = http.delete(path)
    assert (again.status_code, "lease" in again.json()["error"]) == (410, True)
    assert http.delete(f"/m/{queue}:999?receipt=x").status_code == 410
    assert http.delete(f"/m/{found['key']}").status_code == 400
    assert http.delete("/m/nonsense?receipt=x").status_code == 400


def test_a_message_whose_lease_expires_returns_to_the_front_and_wakes_a_waiter(
    http: httpx.Client, background: InBackground, queue: str
) -> None:
    add(http, queue, "first")
    held = lease(http, queue, 1)
    waiting = background.get(f"/q/{queue}?wait=60&lease=60")
    wait_for_waiters(http, queue, 1)
    found = waiting.result().json()
    assert (found["key"], found["count"]) == (held["key"], 2)
    assert found["receipt"] != held["receipt"]
    assert http.delete(f"/m/{held['key']}?receipt={held['receipt']}").status_code == 410
    assert http.delete(f"/m/{held['key']}?receipt={found['receipt']}").status_code == 204


def test_a_lease_is_extended_or_nacked(http: httpx.Client, queue: str) -> None:
    (key,) = add(http, queue, "work")
    held = lease(http, queue, 1)
    form = {"receipt": held["receipt"], "lease": "60"}
    assert http.post(f"/m/{key}", data=form).json() == {"queue": queue, "key": key, "lease": 60}
    due = http.get(f"/m/{key}").json()["due"] / 1000
    assert due > time.time() + 30
    assert http.post(f"/m/{key}", data=form | {"lease": "0"}).status_code == 200
    assert counts(http, queue) == (1, 0, 0, 0)
    assert http.post(f"/m/{key}", data=form).status_code == 410
    assert lease(http, queue)["count"] == 2
    assert http.post(f"/m/{key}", data={"receipt": "x"}).status_code == 400


def test_a_lease_without_a_duration_has_that_of_the_queue(http: httpx.Client, queue: str) -> None:
    (key, _) = add(http, queue, "a", "b")
    http.get(f"/q/{queue}?lease=")
    assert 0 < http.get(f"/m/{key}").json()["due"] / 1000 - time.time() <= 30
    assert http.post(f"/p/{queue}", data={"lease": "3000"}).status_code == 200
    key = http.post("/queue", json={"cmd": "lease", "queue": queue}).json()["key"]
    assert 2000 < http.get(f"/m/{key}").json()["due"] / 1000 - time.time() <= 3000


@pytest.mark.parametrize("kill", [False, True])
def test_a_lease_outlives_the_daemon_that_granted_it(
    private_folder: Path, redis: Redis, http: httpx.Client, queue: str, kill: bool
) -> None:
    other = Daemon(private_folder, redis=redis)
    with other.client() as there:
        add(there, queue, "work")
        held = lease(there, queue, 60)
        short = lease(there, queue, 1) if add(there, queue, "short") else {}
        other.kill() if kill else other.stop()
    assert http.delete(f"/m/{held['key']}?receipt={held['receipt']}").status_code == 204
    wait_until(lambda: counts(http, queue) == (1, 0, 0, 0))
    assert http.get(f"/q/{queue}").json()["key"] == short["key"]


def test_json_commands_lease_extend_nack_and_ack(http: httpx.Client, queue: str) -> None:
    def command(**fields: object) -> httpx.Response:
        return http.post("/queue", json=fields)

    keys = command(cmd="add", queue=queue, values=["a", {"b": 1}, 12345678901234567890123]).json()["keys"]
    assert keys == [f"{queue}:{number}" for number in (1, 2, 3)]
    held = command(cmd="lease", queue=queue, lease=60).json()
    assert held.items() >= {"queue": queue, "key": keys[0], "value": "a", "count": 1}.items()
    proof = {"key": held["key"], "receipt": held["receipt"]}
    assert command(cmd="extend", **proof, lease=90).json() == {"queue": queue, "key": keys[0], "lease": 90}
    assert command(cmd="nack", **proof).json() == {"queue": queue, "key": keys[0], "nacked": True}
    assert command(cmd="nack", **proof).status_code == 410
    taken = command(cmd="take", queue=queue, count=10).json()["messages"]
    assert [message["value"] for message in taken] == ["a", '{"b":1}', "12345678901234567890123"]
    assert command(cmd="lease", queue=queue, count=3).json() == {"error": "empty queue"}
    assert command(cmd="stats", queue=queue).json()["totals"]["in"] == 3
    assert queue in command(cmd="list").json()["queues"]
    add(http, queue, "x")
    held = command(cmd="lease", queue=queue).json()
    proof = {"key": held["key"], "receipt": held["receipt"]}
    assert command(cmd="ack", queue="other", **proof).status_code == 400
    assert command(cmd="ack", **proof).json() == {"queue": queue, "key": held["key"], "acked": True}
    assert command(cmd="ack", **proof).status_code == 410


@pytest.mark.parametrize(
    "fields",
    [
        {"cmd": "add"},
        {"cmd": "add", "value": "a", "values": ["b"]},
        {"cmd": "add", "values": []},
        {"cmd": "add", "values": "abc"},
        {"cmd": "add", "values": ["a"] * 1001},
        {"cmd": "add", "value": "a", "ttl": "5"},
        {"cmd": "add", "value": "a", "delay": -1},
        {"cmd": "add", "value": "a", "idempotency_key": ""},
        {"cmd": "take", "count": True},
        {"cmd": "take", "count": 1.5},
        {"cmd": "take", "wait": 61},
        {"cmd": "lease", "lease": 0},
        {"cmd": "ack"},
        {"cmd": "ack", "key": 1, "receipt": "x"},
        {"cmd": "ack", "key": "Q:1"},
        {"cmd": "extend", "key": "Q:1", "receipt": "x"},
        {"cmd": "nack", "key": "Q:1", "receipt": 5},
    ],
)
def test_json_commands_check_their_fields(http: httpx.Client, queue: str, fields: dict[str, object]) -> None:
    fields = {"queue": queue, **fields}
    if "key" in fields and fields["key"] == "Q:1":
        fields["key"] = f"{queue}:1"
    answer = http.post("/queue", json=fields)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert counts(http, queue) == (0, 0, 0, 0)


# Dead letters


def kill_message(http: httpx.Client, queue: str, times: int) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(times):
        found = lease(http, queue)
        http.post(f"/m/{found['key']}", data={"receipt": found["receipt"], "lease": "0"})
    return found


def test_a_message_whose_deliveries_all_fail_becomes_a_dead_letter(http: httpx.Client, queue: str) -> None:
    assert http.post(f"/p/{queue}", data={"max_deliveries": "3"}).status_code == 200
    began = time.time() * 1000
    (key,) = add(http, queue, "poison")
    assert kill_message(http, queue, 3)["count"] == 3
    assert counts(http, queue) == (0, 0, 0, 1)
    shown = http.get(f"/d/{queue}").json()
    assert (shown["queue"], shown["dead"]) == (queue, 1)
    (letter,) = shown["messages"]
    assert (letter["key"], letter["value"], letter["count"], letter["state"]) == (key, "poison", 3, "dead")
    assert began - 1000 <= letter["first"] <= letter["last"] <= letter["died"]
    assert http.post(f"/d/{queue}").json() == {"queue": queue, "redriven": 1}
    assert counts(http, queue) == (1, 0, 0, 0)
    assert lease(http, queue)["count"] == 1


def test_dead_letters_are_redriven_or_dropped_one_by_one_or_all(http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"max_deliveries": "1"})
    keys = add(http, queue, *"abcd")
    for _ in keys:
        kill_message(http, queue, 1)
    assert [letter["key"] for letter in http.get(f"/d/{queue}").json()["messages"]] == keys
    assert [letter["key"] for letter in http.get(f"/d/{queue}?first=1&count=2").json()["messages"]] == keys[1:3]
    assert http.post(f"/d/{queue}", data={"key": keys[2]}).json()["redriven"] == 1
    assert http.get(f"/q/{queue}").json()["key"] == keys[2]
    assert http.post(f"/d/{queue}", data={"key": keys[2]}).status_code == 404
    assert http.delete(f"/d/{queue}?key={keys[0]}").json() == {"queue": queue, "dropped": 1}
    assert http.post(f"/d/{queue}", data={"key": "other:1"}).status_code == 400
    assert http.delete(f"/d/{queue}").json()["dropped"] == 2
    assert counts(http, queue) == (0, 0, 0, 0)


def test_dead_letters_go_to_the_named_queue(http: httpx.Client, background: InBackground, queue: str) -> None:
    grave = f"{queue}/ü grave"
    settings = {"max_deliveries": "2", "dead_letter": grave}
    assert http.post(f"/p/{queue}", data=settings).status_code == 200
    assert http.get(f"/p/{queue}").json().items() >= {"max_deliveries": 2, "dead_letter": grave}.items()
    waiting = background.get(f"/q/{quote(grave, safe='')}?wait=60")
    wait_until(lambda: stats(http, quote(grave, safe=""))["waiters"] == 1)
    (key,) = add(http, queue, "poison")
    kill_message(http, queue, 2)
    found = waiting.result().json()
    assert (found["key"], found["value"]) == (f"{grave}:1", "poison")
    assert found["dead_letter"].items() >= {"key": key, "count": 2}.items()
    assert counts(http, queue) == (0, 0, 0, 0)
    assert http.post(f"/p/{queue}", data={"dead_letter": queue}).status_code == 400


def test_a_forwarded_dead_letter_keeps_its_origin(http: httpx.Client, queue: str) -> None:
    grave = f"{queue}-grave"
    http.post(f"/p/{queue}", data={"max_deliveries": "1", "dead_letter": grave})
    http.post(f"/p/{grave}", data={"max_deliveries": "1"})
    (key,) = add(http, queue, "poison")
    kill_message(http, queue, 1)
    assert kill_message(http, grave, 1)["dead_letter"]["key"] == key
    (letter,) = http.get(f"/d/{grave}").json()["messages"]
    assert letter["dead_letter"]["key"] == key
    assert http.post(f"/d/{grave}").json()["redriven"] == 1
    shown = http.get(f"/m/{letter['key']}").json()
    assert (shown["count"], shown["dead_letter"]["key"]) == (0, key)
    assert http.get(f"/q/{grave}").json()["dead_letter"]["key"] == key


def test_a_dead_letter_that_is_forwarded_in_a_circle_stops(
    http: httpx.Client, daemon: Daemon, redis: Redis, queue: str
) -> None:
    circle = [f"{queue}-{letter}" for letter in "abc"]
    for name, other in zip(circle, [*circle[1:], circle[0]], strict=True):
        http.post(f"/p/{name}", data={"max_deliveries": "1", "dead_letter": other})
    add(http, circle[0], "poison")
    hops = [kill_message(http, circle[hop % 3], 1).get("dead_letter", {}).get("hops") for hop in range(6)]
    assert hops == [None, 1, 2, 3, 4, 5]
    last = circle[5 % 3]
    (letter,) = http.get(f"/d/{last}").json()["messages"]
    assert (letter["value"], letter["state"], letter["dead_letter"]["hops"]) == ("poison", "dead", 5)
    assert abs(letter["died"] / 1000 - time.time()) < 60
    assert (
        http.get(f"/j/{last}?list=dead", headers={"Accept": "application/json"}).json()["messages"][0]["died"]
        == (letter["died"])
    )
    assert http.get(f"/m/{letter['key']}").json()["died"] == letter["died"]
    assert f"1 dead letters of {last} stay there: they were forwarded too often" in daemon.log
    assert redis.command("ZSCORE", "QUEUEDUE", last) is None  # there are no further attempts
    add(http, last, "another")
    kill_message(http, last, 1)
    assert http.get(f"/q/{circle[0]}").json()["value"] == "another"
    assert http.post(f"/d/{last}").json()["redriven"] == 1
    kill_message(http, last, 1)
    assert http.get(f"/q/{circle[0]}").json()["dead_letter"]["hops"] == 1


def test_a_queue_that_accepts_no_dead_letters_delays_no_other_queue(
    http: httpx.Client, background: InBackground, redis: Redis, queue: str
) -> None:
    grave, other = f"{queue}-grave", f"{queue}-other"
    http.post(f"/p/{queue}", data={"max_deliveries": "1", "dead_letter": grave})
    redis.command("SET", f"{grave}:UUID", "no number")
    add(http, queue, "left to its lease")
    lease(http, queue, 1)
    wait_until(lambda: counts(http, queue) == (0, 0, 0, 1))
    add(http, queue, "given back", "waits")
    held = lease(http, queue)
    given_back = http.post(f"/m/{held['key']}", data={"receipt": held["receipt"], "lease": "0"})
    assert (given_back.status_code, counts(http, queue)) == (200, (1, 0, 0, 2))
    waiting = background.get(f"/q/{other}?wait=60")
    add(http, other, "comes up", delay=1)
    assert waiting.result().json()["value"] == "comes up"
    assert http.get(f"/q/{queue}").json()["value"] == "waits"
    redis.command("DEL", f"{grave}:UUID")
    redis.make_due(queue)
    found = [background.get(f"/q/{grave}?wait=60").result().json()["value"] for _ in range(2)]
    assert found == ["left to its lease", "given back"]


def test_dead_letters_that_cannot_be_forwarded_are_kept_and_forwarded_later(
    http: httpx.Client, redis: Redis, queue: str
) -> None:
    broken = {f"{queue}-{part}": f"{queue}-{part}-grave:{part}" for part in ("queue", "deliveries", "expiring")}
    for name, key in broken.items():
        http.post(f"/p/{name}", data={"max_deliveries": "1", "dead_letter": f"{name}-grave"})
        redis.command("SET", key, "not RestMQ's")
        add(http, name, "poison", ttl=1000)
        kill_message(http, name, 1)
        assert [letter["value"] for letter in http.get(f"/d/{name}").json()["messages"]] == ["poison"]
    redis.command("DEL", *broken.values())
    redis.make_due(*broken)
    for name in broken:
        assert http.get(f"/q/{name}-grave?wait=30").status_code == 200


def test_queues_that_redis_refuses_do_not_delay_the_others(private_folder: Path, private_redis: Redis) -> None:
    """There are more such queues than one call reads."""
    broken = [f"broken-{number}" for number in range(150)]
    private_redis.commands([("SET", f"{queue}:leased", "not leases") for queue in broken])
    private_redis.commands([("ZADD", "QUEUEDUE", "1", queue) for queue in broken])
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        add(http, "fine", "comes up", delay=1)
        assert http.get("/q/fine?wait=60").json()["value"] == "comes up"
        assert all(f"due messages of {queue} can't be promoted" in daemon.log for queue in broken)
        private_redis.commands([("DEL", f"{queue}:leased") for queue in broken])
        add(http, broken[0], "comes up", delay=1)
        assert http.get(f"/q/{broken[0]}?wait=60").json()["value"] == "comes up"


def test_an_expired_lease_counts_as_a_failed_delivery(http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"max_deliveries": "1"})
    add(http, queue, "poison")
    lease(http, queue, 1)
    wait_until(lambda: counts(http, queue) == (0, 0, 0, 1))


# Delay, time to live, idempotency, bounds


def test_a_delayed_message_becomes_ready_when_its_delay_ends(
    http: httpx.Client, background: InBackground, queue: str
) -> None:
    waiting = background.get(f"/q/{queue}?wait=60")
    wait_for_waiters(http, queue, 1)
    (later,) = add(http, queue, "later", delay=1)
    assert counts(http, queue) == (0, 0, 1, 0)
    assert http.get(f"/m/{later}").json()["state"] == "delayed"
    (never,) = add(http, queue, "much later", delay=3600)
    assert waiting.result().json()["value"] == "later"
    assert http.post("/queue", json={"cmd": "del", "queue": queue, "key": never}).json()["deleted"] is True


def test_a_delayed_message_reaches_live_consumers(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    with httpx.stream("GET", f"{daemon.url}/c/{queue}", timeout=70) as comet:
        wait_until(lambda: stats(http, queue)["consumers"] == 1)
        add(http, queue, "later", delay=0.5)
        assert json.loads(next(comet.iter_lines()))["value"] == "later"


def test_a_message_expires_after_its_time_to_live_even_if_delayed_or_leased(http: httpx.Client, queue: str) -> None:
    add(http, queue, "leased", ttl=2)
    held = lease(http, queue, 60)
    add(http, queue, "waits", ttl=1)
    add(http, queue, "delayed", ttl=1, delay=1.2)
    wait_until(lambda: http.get(f"/m/{held['key']}").status_code == 404)
    wait_until(lambda: counts(http, queue)[:3:2] == (0, 0))
    assert http.get(f"/q/{queue}").status_code == 204


def test_a_message_sent_twice_with_one_idempotency_key_is_queued_once(http: httpx.Client, queue: str) -> None:
    def send(key: str, value: str) -> httpx.Response:
        return http.post(f"/q/{queue}", data={"value": value}, headers={"Idempotency-Key": key})

    first = send("a", "pay")
    assert first.status_code == 200
    assert send("a", "pay").text == first.text
    assert send("b", "pay").text != first.text
    other = send("a", "pay twice")
    assert (other.status_code, "Idempotency-Key" in other.json()["error"]) == (409, True)
    assert send("x" * 256, "pay").status_code == 400
    batch = {"cmd": "add", "queue": queue, "values": ["1", "2"], "idempotency_key": "batch"}
    keys = http.post("/queue", json=batch).json()["keys"]
    assert http.post("/queue", json=batch).json()["keys"] == keys
    assert counts(http, queue)[0] == 4


def test_a_full_queue_rejects_messages_and_loses_none(http: httpx.Client, queue: str) -> None:
    assert http.post(f"/p/{queue}", data={"max_length": "3"}).status_code == 200
    add(http, queue, "a", "b")
    lease(http, queue)
    add(http, queue, "c", delay=60)
    refused = http.post(f"/q/{queue}", data={"value": "d"})
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    http.get(f"/q/{queue}")
    batch = http.post(f"/q/{queue}", content=b"1\n2\n", headers={"Content-Type": "application/x-ndjson"})
    assert batch.status_code == 429
    assert counts(http, queue) == (0, 1, 1, 0)
    add(http, queue, "e")


def test_simultaneous_posts_never_exceed_the_maximum_length(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    http.post(f"/p/{queue}", data={"max_length": "10"})
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: httpx.post(f"{daemon.url}/q/{queue}", data={"value": str(n)}), range(40)))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 30
    assert len(http.get(f"/q/{queue}?count=100").json()) == 10


# Batches and bytes


def test_a_batch_is_added_as_a_whole_and_keeps_its_order(http: httpx.Client, queue: str) -> None:
    lines = b'"one"\n{"two": 2}\r\n\n  3\n"four\\nlines"'
    answer = http.post(f"/q/{queue}", content=lines, headers={"Content-Type": "application/x-ndjson; charset=utf-8"})
    assert answer.json() == {"queue": queue, "keys": [f"{queue}:{number}" for number in range(1, 5)]}
    found = http.get(f"/q/{queue}?count=1000").json()
    assert [message["value"] for message in found] == ["one", '{"two": 2}', "3", "four\nlines"]
    assert [message["count"] for message in found] == [0] * 4
    assert http.get(f"/q/{queue}?count=5").status_code == 204


@pytest.mark.parametrize(
    ("lines", "status"), [(b'"one"\n{two\n', 400), (b"", 400), (b"\n\n", 400), (b"1\n" * 1001, 413), (b'"\xff"', 400)]
)
def test_an_invalid_batch_adds_nothing(http: httpx.Client, queue: str, lines: bytes, status: int) -> None:
    answer = http.post(f"/q/{queue}", content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == status, answer.text
    assert counts(http, queue) == (0, 0, 0, 0)


def test_the_error_for_an_invalid_line_names_its_place(http: httpx.Client, queue: str) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    answer = http.post(f"/q/{queue}", content=b'"one"\n  {"two" 2}\n', headers=headers)
    assert answer.json()["error"].startswith("nothing was added. Correct line 2 of the body: ")
    assert "line 1" not in answer.text


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-ndjson", None])
def test_an_empty_body_is_reported(http: httpx.Client, queue: str, content_type: str | None) -> None:
    answer = http.post(f"/q/{queue}", headers={"Content-Type": content_type} if content_type else {})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("the body is empty; ")


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "text/plain; charset=utf-8", None])
@pytest.mark.parametrize("value", [BINARY, PNG, b"value=x&y", "ü😀".encode(), b"007"])
def test_any_other_body_is_the_message_byte_for_byte(
    http: httpx.Client, queue: str, content_type: str | None, value: bytes
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    key = http.post(f"/q/{queue}?ttl=60", content=value, headers=headers).text.strip()
    answer = http.get(f"/q/{queue}", headers={"Accept": "application/octet-stream"})
    assert answer.content == value
    assert answer.headers["content-type"] == (content_type or "application/octet-stream")
    assert answer.headers["x-restmq-key"] == key


def test_bytes_that_are_not_utf_8_are_shown_as_base64(http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}", content=BINARY, headers={"Content-Type": "image/jpeg"})
    shown = http.post("/queue", json={"cmd": "get", "queue": queue}).json()
    assert (shown["encoding"], base64.b64decode(shown["value"])) == ("base64", BINARY)
    held = http.get(f"/q/{queue}?lease=60", headers={"Accept": "application/octet-stream"})
    assert held.content == BINARY
    assert held.headers["x-restmq-count"] == "1"
    acked = http.delete(f"/m/{held.headers['x-restmq-key']}?receipt={held.headers['x-restmq-receipt']}")
    assert acked.status_code == 204
    assert http.get(f"/q/{queue}?count=2", headers={"Accept": "application/octet-stream"}).status_code == 400


def test_the_key_of_a_queue_with_any_name_fits_into_a_header_and_a_path(http: httpx.Client, queue: str) -> None:
    name = f"{queue} ü/😀?%"
    path = quote(name, safe="")
    http.post(f"/q/{path}", content=b"x", headers={"Content-Type": "a/b"})
    held = http.get(f"/q/{path}?lease=60", headers={"Accept": "application/octet-stream"})
    key = held.headers["x-restmq-key"]
    assert http.get(f"/m/{key}").json()["key"] == f"{name}:1"
    assert http.delete(f"/m/{key}?receipt={held.headers['x-restmq-receipt']}").status_code == 204


def test_purge_clears_leased_delayed_and_dead_messages_too(
    http: httpx.Client, daemon: Daemon, redis: Redis, queue: str
) -> None:
    http.post(f"/p/{queue}", data={"max_deliveries": "1"})
    add(http, queue, "dead")
    kill_message(http, queue, 1)
    add(http, queue, "leased")
    held = lease(http, queue)
    add(http, queue, "delayed", delay=60)
    add(http, queue, "ready", ttl=60)
    assert counts(http, queue) == (1, 1, 1, 1)
    assert http.delete(f"/q/{queue}").json() == {"queue": queue, "status": 1}
    assert counts(http, queue) == (0, 0, 0, 0)
    assert http.delete(f"/m/{held['key']}?receipt={held['receipt']}").status_code == 410
    left = {key.removeprefix(queue) for key in redis.command("KEYS", f"{queue}:*")}
    assert left == {":UUID", ":settings", ":totals"}


def test_delete_finds_a_message_in_any_state(http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"max_deliveries": "1"})
    (dead,) = add(http, queue, "dead")
    kill_message(http, queue, 1)
    (leased,) = add(http, queue, "leased")
    lease(http, queue)
    (delayed,) = add(http, queue, "delayed", delay=60)
    (ready,) = add(http, queue, "ready")
    for key in (dead, leased, delayed, ready):
        assert http.post("/queue", json={"cmd": "del", "queue": queue, "key": key}).json()["deleted"] is True
    assert counts(http, queue) == (0, 0, 0, 0)


def test_the_age_of_the_oldest_message_is_reported(http: httpx.Client, queue: str) -> None:
    assert stats(http, queue)["oldest_age_seconds"] is None
    add(http, queue, "a")
    wait_until(lambda: stats(http, queue)["oldest_age_seconds"] > 0.2)
    add(http, queue, "b")
    assert stats(http, queue)["oldest_age_seconds"] > 0.2
    http.get(f"/q/{queue}?count=2")
    assert stats(http, queue)["oldest_age_seconds"] is None
    add(http, queue, "c")
    assert stats(http, queue)["oldest_age_seconds"] < 0.2 + 1


# Connected consumers with leases


def round_robin(http: httpx.Client, queue: str) -> None:
    assert http.post(f"/p/{queue}", data={"policy": "roundrobin"}).status_code == 200


@pytest.mark.parametrize("path", ["c", "sse"])
def test_unacked_messages_of_a_closed_stream_return_to_the_queue(
    http: httpx.Client, daemon: Daemon, queue: str, path: str
) -> None:
    round_robin(http, queue)
    add(http, queue, *"abc")
    prefix = "data: " if path == "sse" else ""
    with httpx.stream("GET", f"{daemon.url}/{path}/{queue}?lease=600", timeout=70) as stream:
        lines = (line.removeprefix(prefix) for line in stream.iter_lines() if line.startswith(prefix + "{"))
        found = [json.loads(next(lines)) for _ in "abc"]
        assert [(message["value"], message["count"]) for message in found] == [("a", 1), ("b", 1), ("c", 1)]
        assert http.delete(f"/m/{found[1]['key']}?receipt={found[1]['receipt']}").status_code == 204
        assert counts(http, queue) == (0, 2, 0, 0)
    wait_until(lambda: counts(http, queue) == (2, 0, 0, 0))
    again = http.get(f"/q/{queue}?lease=60&count=5").json()
    assert [(message["value"], message["count"]) for message in again] == [("a", 2), ("c", 2)]


def test_a_consumer_has_at_most_its_prefetch_of_unacked_messages(
    private_folder: Path, http: httpx.Client, daemon: Daemon, redis: Redis, queue: str
) -> None:
    round_robin(http, queue)
    keys = add(http, queue, *"abcde")
    other = Daemon(private_folder, redis=redis)
    with stopping(other), httpx.stream("GET", f"{daemon.url}/c/{queue}?lease=600&prefetch=2", timeout=70) as stream:
        lines = stream.iter_lines()
        found = [json.loads(next(lines)) for _ in range(2)]
        assert counts(http, queue) == (3, 2, 0, 0)
        for number in range(2, 5):
            done = found.pop(0)
            # The ack goes to another daemon than the consumer's.
            assert httpx.delete(f"{other.url}/m/{done['key']}?receipt={done['receipt']}").status_code == 204
            found.append(json.loads(next(lines)))
            assert found[-1]["key"] == keys[number]
        for done in found:
            http.delete(f"/m/{done['key']}?receipt={done['receipt']}")
        assert counts(http, queue) == (0, 0, 0, 0)


def test_a_consumer_gets_a_message_again_when_its_lease_expires(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    round_robin(http, queue)
    add(http, queue, "a")
    with httpx.stream("GET", f"{daemon.url}/c/{queue}?lease=1&prefetch=1", timeout=70) as stream:
        lines = stream.iter_lines()
        first, second = json.loads(next(lines)), json.loads(next(lines))
    assert first["key"] == second["key"]
    assert (first["count"], second["count"]) == (1, 2)


def test_consumers_with_and_without_leases_share_a_queue(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    round_robin(http, queue)
    with (
        contextlib.closing(Comet(daemon, f"/c/{queue}?lease=600")) as leasing,
        contextlib.closing(Comet(daemon, f"/c/{queue}")) as plain,
    ):
        wait_until(lambda: stats(http, queue)["consumers"] == 2)
        keys = add(http, queue, *"abcdefgh")
        leased, taken = leasing.lines(4), plain.lines(4)
        assert all(b"receipt" in line for line in leased)
        assert not any(b"receipt" in line for line in taken)
        assert sorted(json.loads(line)["key"] for line in [*leased, *taken]) == keys


def test_a_live_consumer_cannot_lease_a_broadcast(http: httpx.Client, queue: str) -> None:
    for path in ("c", "sse"):
        answer = http.get(f"/{path}/{queue}?lease=5")
        assert (answer.status_code, "roundrobin" in answer.json()["error"]) == (409, True)


# Old data and plain Redis


def test_messages_added_with_redis_cli_in_the_old_layout_are_delivered_leased_and_acked(
    http: httpx.Client, redis: Redis, queue: str
) -> None:
    for number in (1, 2):
        redis.command("SADD", "QUEUESET", queue)
        redis.command("SET", f"{queue}:{number}", f"old {number}")
        redis.command("LPUSH", f"{queue}:queue", f"{queue}:{number}")
    assert stats(http, queue)["oldest_age_seconds"] is None
    held = lease(http, queue)
    assert (held["value"], held["count"]) == ("old 1", 1)
    assert http.delete(f"/m/{held['key']}?receipt={held['receipt']}").status_code == 204
    assert http.get(f"/q/{queue}").json()["value"] == "old 2"
    assert redis.command("KEYS", f"{queue}:[0-9]*") == []


@pytest.mark.parametrize("parameter", ["", "&lease=60"])
def test_an_entry_without_a_value_loses_no_message_and_its_key_stays(
    http: httpx.Client, redis: Redis, queue: str, parameter: str
) -> None:
    redis.command("RPUSH", f"{queue}-list", "somebody else's")
    add(http, queue, "a", "b")
    redis.command("LPUSH", f"{queue}:queue", f"{queue}-list")
    add(http, queue, "c", "d")
    peeked = http.get(f"/j/{queue}?list=next", headers={"Accept": "application/json"}).json()["messages"]
    assert [message["value"] for message in peeked] == [*"abcd"]
    assert http.get(f"/j/{queue}", headers={"Accept": "text/html"}).status_code == 200
    assert [message["value"] for message in http.get(f"/q/{queue}?count=2{parameter}").json()] == ["a", "b"]
    assert http.post("/queue", json={"cmd": "get", "queue": queue}).json()["value"] == "c"
    redis.command("RPUSH", f"{queue}:queue", f"{queue}-list")
    assert [message["value"] for message in http.get(f"/q/{queue}?count=5{parameter}").json()] == ["c", "d"]
    assert http.get(f"/q/{queue}").status_code == 204
    assert redis.command("LRANGE", f"{queue}-list", "0", "-1") == ["somebody else's"]


def test_a_plain_post_and_get_leave_the_keys_of_the_old_layout_only(
    http: httpx.Client, redis: Redis, queue: str
) -> None:
    add(http, queue, "plain")
    there = {key.removeprefix(queue) for key in redis.command("KEYS", f"{queue}:*")}
    assert there == {":UUID", ":queue", ":1", ":times"}
    http.get(f"/q/{queue}")
    there = {key.removeprefix(queue) for key in redis.command("KEYS", f"{queue}:*")}
    assert there == {":UUID", ":totals", ":times"}


def test_a_value_in_no_queue_is_not_a_message(http: httpx.Client, redis: Redis, queue: str) -> None:
    waiting = add(http, queue, *"abcde")
    redis.command("SET", f"{queue}:77", "left behind")
    redis.command("LREM", f"{queue}:queue", "1", waiting[3])
    assert [http.get(f"/m/{key}").status_code for key in waiting] == [200, 200, 200, 404, 200]
    assert http.get(f"/m/{queue}:77").status_code == 404
    assert redis.command("GET", f"{queue}:77") == "left behind"


def test_a_message_deep_in_a_long_queue_is_found(http: httpx.Client, redis: Redis, queue: str) -> None:
    many = 250_000
    add(http, queue, "first")
    numbers = [*range(2, 100_000), 777_777, *range(100_000, many)]  # one of them out of order
    keys = [f"{queue}:{number}" for number in numbers]
    redis.commands([("LPUSH", f"{queue}:queue", *keys[start : start + 1000]) for start in range(0, len(keys), 1000)])
    deep = many // 2 + 10_000
    for number in (5, deep, many - 5, 777_777, 888_888):
        redis.command("SET", f"{queue}:{number}", "here")
    states = {number: http.get(f"/m/{queue}:{number}").json()["state"] for number in (5, deep, many - 5)}
    assert states == {5: "ready", deep: "ready", many - 5: "ready"}
    # It is neither at the place of its number nor near an end, so the server cannot say whether it is ready.
    assert http.get(f"/m/{queue}:777777").json()["state"] == "unknown"
    assert http.get(f"/m/{queue}:888888").json()["state"] == "unknown"
