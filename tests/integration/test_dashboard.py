"""The dashboard's data: events, peeks, consumers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from restmq.core import RedisOperations
from restmq.monitoring.dashboard_feed import COLUMNS
from tests.integration.conftest import Run
from tests.servers import Comet, Daemon, Redis, stopping, wait_until

AS_JSON = {"Accept": "application/json"}


class Watcher:
    """Reads the events, and keeps the latest row of each queue."""

    def __init__(self, daemon: Daemon, headers: str = "") -> None:
        self.stream = Comet(daemon, "/dashboard/events", headers)
        self.rows: dict[str, dict[str, Any]] = {}
        self.may: dict[str, bool] = {}
        self.reachable = True

    def next(self) -> str:
        (block,) = self.stream.lines(1, b"\n\n")
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        if "event" not in fields:
            return ""
        said = json.loads(fields["data"])
        self.may = said.get("may", self.may)
        self.reachable = said.get("reachable", True)
        for name in said.get("gone", []):
            del self.rows[name]
        self.rows |= {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in said.get("queues", [])}
        return fields["event"]

    def until(self, row: str, **wanted: Any) -> dict[str, Any]:
        """Reads events until the queue's row has these values."""
        while not (self.rows.get(row, {}).items() >= wanted.items()):
            self.next()
        return self.rows[row]


def test_a_row_has_the_counts_of_messages_consumers_and_waiters(daemon: Daemon, http: httpx.Client, queue: str) -> None:
    watcher = Watcher(daemon)
    http.post("/p/" + queue, data={"policy": "roundrobin", "max_deliveries": "1"})
    for value in "abcde":
        http.post("/q/" + queue, data={"value": value})
    http.post("/q/" + queue, data={"value": "later", "delay": "1000"})
    leased = [http.get(f"/q/{queue}?lease=1000").json() for _ in range(2)]
    http.post("/m/" + leased[0]["key"], data={"receipt": leased[0]["receipt"], "lease": "0"})
    http.get("/q/" + queue)
    row = watcher.until(queue, ready=2, leased=1, delayed=1, dead=1)
    assert (row["in"], row["out"], row["started"], row["policy"]) == (6, 1, 1, "roundrobin")
    assert abs(row["oldest"] - watcher_time(watcher)) < 60_000
    http.post("/control/" + queue, data={"status": "stop"})
    listeners = [Comet(daemon, f"/c/{queue}"), Comet(daemon, f"/sse/{queue}"), Comet(daemon, f"/c/{queue}")]
    row = watcher.until(queue, comet=2, sse=1, websocket=0, started=0)
    assert row["waiters"] == 0
    shown = http.get("/dashboard/consumers/" + queue).json()
    assert (shown["total"], shown["waiters"]) == (3, 0)
    assert [(each["transport"], each["address"]) for each in shown["consumers"]] == [
        ("comet", "127.0.0.1"),
        ("sse", "127.0.0.1"),
        ("comet", "127.0.0.1"),
    ]
    assert all(0 <= each["age_seconds"] < 60 for each in shown["consumers"])
    for listener in [*listeners, watcher.stream]:
        listener.close()


def test_clients_in_a_long_poll_are_listed_with_their_address(private_folder: Path, redis: Redis, queue: str) -> None:
    proxied = Daemon(private_folder, "--trusted-proxies", "127.0.0.1", redis=redis)
    with stopping(proxied) as daemon, daemon.client() as http:

        def polls() -> list[dict[str, Any]]:
            shown = http.get(f"/dashboard/consumers/{queue}").json()
            assert shown["consumers"] == []
            return list(shown["polls"]) if shown["waiters"] == len(shown["polls"]) else []

        waiting = [daemon.get(f"/q/{queue}?wait=60", f"X-Forwarded-For: 192.0.2.{n}\r\n") for n in (1, 2)]
        wait_until(lambda: len(polls()) == 2)
        assert {each["address"] for each in polls()} == {"192.0.2.1", "192.0.2.2"}
        assert all(0 <= each["age_seconds"] < 60 for each in polls())
        assert {int(each["server"].rpartition(":")[2]) for each in polls()} == {daemon.process.pid}
        with connect(
            f"ws://127.0.0.1:{daemon.port}/ws/{queue}-other", additional_headers={"X-Forwarded-For": "192.0.2.3"}
        ) as socket:
            socket.send(json.dumps({"cmd": "take", "queue": queue, "wait": 60}))
            wait_until(lambda: [each["address"] for each in polls()][2:] == ["192.0.2.3"])
        for client in waiting:
            client.close()
        wait_until(lambda: http.get(f"/stats/{queue}").json()["waiters"] == 0)


def watcher_time(watcher: Watcher) -> int:
    (block,) = watcher.stream.lines(1, b"\n\n")
    return int(json.loads(block.decode().split("data: ")[1])["time"])


def test_a_token_shows_and_offers_what_it_allows(
    daemon: Daemon, http: httpx.Client, run: Run, core: RedisOperations, queue: str
) -> None:
    run(core.authorization_create, f"t-{queue}", [f"{queue}*"], ["read"])
    for name in (queue, f"{queue}-2", f"not-{queue}"):
        http.post("/q/" + name, data={"value": "x"})
    watcher = Watcher(daemon, f"Authorization: Bearer t-{queue}\r\n")
    while watcher.next() != "snapshot":
        pass
    assert set(watcher.rows) == {queue, f"{queue}-2"}
    assert watcher.may == {
        **dict.fromkeys(("publish", "configure", "purge", "inspect"), False),
        **dict.fromkeys(("comet", "websocket"), True),
    }
    token = {"Authorization": f"Bearer t-{queue}"}
    assert http.get("/dashboard/consumers/" + queue, headers=token).status_code == 403
    run(core.authorization_create, f"t-{queue}", [f"{queue}-2"], ["read", "write", "admin"])
    while set(watcher.rows) != {f"{queue}-2"}:
        watcher.next()
    assert all(watcher.may.values())
    run(core.authorization_revoke, f"t-{queue}")
    watcher.stream.wait_for_end()
    assert watcher.stream.ended, "it ends as an answer does"
    assert http.get("/dashboard/events", headers=token).status_code == 401


def test_an_action_that_the_address_may_not_use_is_not_offered(private_folder: Path, redis: Redis) -> None:
    rules = private_folder / "acl.conf"
    rules.write_text("[rest:producer]\nhosts_deny = 127.0.0.\n[websocket:consumer]\nusername = a\npassword = b\n")
    with stopping(Daemon(private_folder, redis=redis)) as daemon:
        watcher = Watcher(daemon)
        while not watcher.may:
            watcher.next()
        offered = {name for name, may in watcher.may.items() if may}
        assert offered == {"purge", "inspect", "comet", "websocket"}  # a password may be given yet
        rules.write_text("[rest:consumer]\nhosts_deny = 127.0.0.\n")
        watcher.stream.wait_for_end()
        assert daemon.client().get("/dashboard/events").status_code == 403


def test_watchers_are_told_that_the_store_is_away_and_stay_connected(
    private_folder: Path, private_redis: Redis
) -> None:
    daemon = Daemon(private_folder, "--redis-timeout", "0.5", redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        http.post("/q/kept", data={"value": "x"})
        watcher = Watcher(daemon)
        watcher.until("kept", ready=1)
        private_redis.pause()
        while watcher.reachable:
            watcher.next()
        private_redis.go_on()
        while not watcher.reachable:
            watcher.next()
        wait_until(lambda: http.post("/q/kept", data={"value": "y"}).status_code == 200)
        watcher.until("kept", ready=2)
        watcher.stream.close()


def test_a_watcher_that_reads_nothing_does_not_hold_up_another_one(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder, "--max-watchers", "2", redis=private_redis)
    names = [f"{number:04}" + "x" * 200 for number in range(3000)]
    private_redis.commands([("SADD", "QUEUESET", *names)])
    with stopping(daemon), daemon.client() as http:
        deaf = daemon.get("/dashboard/events")
        watcher = Watcher(daemon)
        assert http.get("/dashboard/events").status_code == 503  # two watch
        for number in range(3):
            private_redis.commands([("LPUSH", f"{name}:queue", "x:1") for name in names])
            watcher.until(names[-1], ready=number + 1)
        deaf.close()
        watcher.stream.close()


def test_a_server_has_samples_before_anybody_watches_and_a_token_shows_its_own(
    private_folder: Path, private_redis: Redis, private_core: RedisOperations, run: Run
) -> None:
    for queue, count in {"a1": 3, "a2": 2, "b": 7}.items():
        run(private_core.queue_add_many, queue, [b"x"] * count)
    run(private_core.queue_get, "a1")
    run(private_core.authorization_create, "t", ["a*"], ["read"])
    token = {"Authorization": "Bearer t"}

    def last(path: str, **headers: str) -> list[int]:
        samples = http.get(path, headers=headers).raise_for_status().json()["samples"]
        assert [each["time"] for each in samples] == sorted({each["time"] for each in samples})
        return [samples[-1][name] for name in ("ready", "in", "out")] if samples else []

    with stopping(Daemon(private_folder, redis=private_redis)) as daemon, daemon.client() as http:
        wait_until(lambda: last("/dashboard/samples") == [11, 12, 1])
        assert last("/dashboard/samples", **token) == [4, 5, 1]
        assert last("/dashboard/samples/a1") == last("/dashboard/samples/a1", **token) == [2, 3, 1]
        assert last("/dashboard/samples/b") == [7, 7, 0]
        waiting = http.get("/dashboard/samples", headers=token).json()["waiting"]
        assert {name: numbers[-1] for name, numbers in waiting.items()} == {"a1": 2, "a2": 2}
        assert last("/dashboard/samples/none") == []
        assert http.get("/dashboard/samples/b", headers=token).status_code == 403
        assert http.get("/dashboard/samples", headers={"Authorization": "Bearer u"}).status_code == 401


def test_samples_go_on_when_the_server_is_started_again_although_redis_was_full(
    private_folder: Path, private_redis: Redis, private_core: RedisOperations, run: Run
) -> None:
    run(private_core.queue_add, "mail", b"x")

    def samples(path: str = "") -> list[dict[str, int]]:
        return list(http.get(f"/dashboard/samples{path}").json()["samples"])

    with stopping(Daemon(private_folder, redis=private_redis)) as daemon, daemon.client() as http:
        wait_until(samples)
        (first,) = samples()[:1]
        private_redis.command("CONFIG", "SET", "maxmemory", "1")
        daemon.stop()
        private_redis.command("CONFIG", "SET", "maxmemory", "0")
        run(private_core.queue_add, "mail", b"y")
        daemon.start()
        wait_until(lambda: len(samples()) > 1)
        assert samples()[0] == samples("/mail")[0] == first
        assert [each["ready"] for each in (samples("/mail")[0], samples("/mail")[-1])] == [1, 2]


@pytest.mark.parametrize(
    ("place", "keys"),
    [("next", [1, 2]), ("newest", [8, 7]), ("leased", [5, 6]), ("delayed", [4, 3]), ("dead", [])],
)
def test_messages_of_each_state_can_be_peeked_at(http: httpx.Client, queue: str, place: str, keys: list[int]) -> None:
    for _ in range(2):
        http.post("/q/" + queue, data={"value": "x"})
    for delay in ("2000", "1000"):
        http.post("/q/" + queue, data={"value": "x", "delay": delay})
    first = http.get(f"/q/{queue}?count=2").json()
    for _ in range(2):
        http.post("/q/" + queue, data={"value": "x"})
    for seconds in (1000, 2000):
        assert http.get(f"/q/{queue}?lease={seconds}").status_code == 200
    for _ in range(2):
        http.post("/q/" + queue, data={"value": "x"})
    assert [message["key"] for message in first] == [f"{queue}:1", f"{queue}:2"]
    if place == "next":
        keys = [7, 8]
    answer = http.get(f"/j/{queue}?list={place}", headers=AS_JSON).json()
    assert [message["key"] for message in answer["messages"]] == [f"{queue}:{number}" for number in keys]
    assert answer["total"] == len(keys)
    assert all(("due" in message) == (place in ("leased", "delayed")) for message in answer["messages"])
    later = http.get(f"/j/{queue}?list={place}&first=1&count=1", headers=AS_JSON).json()
    assert later["messages"] == answer["messages"][1:2]
    again = http.get(f"/j/{queue}?list={place}", headers=AS_JSON).json()
    assert again == answer, "looking changes nothing"


def test_a_peek_shows_the_beginning_of_a_large_message_in_whole_characters(http: httpx.Client, queue: str) -> None:
    http.post("/q/" + queue, data={"value": "a" + "é" * 20_000})
    http.post("/q/" + queue, content=b"\xff" * 20_000, headers={"Content-Type": "image/jpeg"})
    text, binary = http.get(f"/j/{queue}?list=next", headers=AS_JSON).json()["messages"]
    assert text["value"] == "a" + "é" * 8191
    assert (text["size"], text["cut"]) == (40_001, True)
    assert base64.b64decode(binary["value"]) == b"\xff" * 16_384
    assert binary["encoding"] == "base64"


def test_a_peek_skips_expired_messages(http: httpx.Client, redis: Redis, queue: str) -> None:
    http.post("/q/" + queue, data={"value": "gone", "ttl": "0.001"})
    http.post("/q/" + queue, data={"value": "there"})
    wait_until(lambda: redis.command("EXISTS", f"{queue}:1") == 0)
    answer = http.get(f"/j/{queue}?list=next", headers=AS_JSON).json()
    assert (answer["total"], [message["value"] for message in answer["messages"]]) == (1, ["there"])


def test_dead_letters_have_their_deliveries_and_time_of_death(http: httpx.Client, queue: str) -> None:
    http.post("/p/" + queue, data={"max_deliveries": "1"})
    http.post("/q/" + queue, data={"value": "x"})
    leased = http.get(f"/q/{queue}?lease=1000").json()
    http.post("/m/" + leased["key"], data={"receipt": leased["receipt"], "lease": "0"})
    (dead,) = http.get(f"/j/{queue}?list=dead", headers=AS_JSON).json()["messages"]
    assert (dead["count"], dead["size"]) == (1, 1)
    assert dead["died"] >= dead["last"] >= dead["first"] > 0


def test_an_unknown_list_is_rejected(http: httpx.Client, queue: str) -> None:
    for query in ("list=elsewhere", "count=0", "count=101", "first=x"):
        assert http.get(f"/j/{queue}?{query}", headers=AS_JSON).status_code == 400
