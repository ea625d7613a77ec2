"""Queues that are removed, by a request or after a time without use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from restmq.core import RedisOperations
from restmq.model import Policy
from tests.integration.conftest import Run
from tests.integration.test_delivery import InBackground, add, counts, lease, wait_for_waiters
from tests.servers import Comet, Daemon, Redis, stopping, wait_until


def keys_of(redis: Redis, queue: str) -> set[str]:
    """The keys of a queue in Redis, without those that are kept for a day."""
    found = {key for key in sorted(redis.keys()) if key.startswith((f"{queue}:", f"queuestat::{queue}"))}
    return {key for key in found if redis.command("PTTL", key) < 0}


def queues(http: httpx.Client) -> list[str]:
    return list(http.get("/q/", headers={"Accept": "application/json"}).json()["queues"])


def remove(http: httpx.Client, queue: str) -> dict[str, Any]:
    answer = http.delete(f"/q/{queue}", params={"remove": "true"})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


# Removing by request


def test_a_removed_queue_leaves_nothing_behind(http: httpx.Client, redis: Redis, queue: str) -> None:
    http.post(f"/p/{queue}", data={"policy": "roundrobin", "max_deliveries": 1, "history": 5, "expires": 1000})
    http.post(f"/control/{queue}", data={"status": "stop"})
    add(http, queue, *"abcd")
    add(http, queue, "later", delay=1000)
    add(http, queue, "brief", ttl=1000)
    held = lease(http, queue)
    http.post(f"/m/{held['key']}", data={"receipt": held["receipt"], "lease": 0})
    lease(http, queue)
    http.post("/queue", json={"cmd": "get", "queue": queue})
    assert counts(http, queue) == (3, 1, 1, 1)
    assert queue in queues(http)
    assert remove(http, queue) == {"queue": queue, "status": 1}
    assert keys_of(redis, queue) == set()
    assert redis.command("ZSCORE", "QUEUEDUE", queue) is None
    assert queue not in queues(http)
    assert queue not in http.get("/stats/").json()["queues"]
    assert queue not in http.get("/control/").json()["queues"]
    assert http.get(f"/p/{queue}").json() == {"queue": queue, "value": "broadcast"}
    assert http.get(f"/stats/{queue}").json()["totals"] == dict.fromkeys(
        ("in", "out", "leased", "acked", "redelivered", "expired", "dead"), 0
    )
    assert http.get(f"/stats/{queue}").json()["status"] == 1
    assert remove(http, queue) == {"queue": queue, "status": 0}


def test_a_message_that_comes_back_after_the_removal_is_in_a_queue_that_exists(
    run: Run, core: RedisOperations, http: httpx.Client, queue: str
) -> None:
    run(core.queue_add_many, queue, [b"first", b"second"])
    taken = run(core.queue_tail, queue, 1)
    run(core.queue_remove, queue)
    run(core.queue_put_back, queue, taken)
    assert queue in queues(http)
    totals = http.get(f"/stats/{queue}").json()["totals"]
    assert (totals["in"], totals["out"]) == (0, 0)
    assert add(http, queue, "third") == [f"{queue}:3"]
    assert [message.value for message in run(core.queue_tail, queue)] == [b"first", b"third"]


def test_message_numbers_go_on_for_a_day(http: httpx.Client, redis: Redis, queue: str) -> None:
    assert add(http, queue, *"abc")[-1] == f"{queue}:3"
    remove(http, queue)
    (memory,) = [key for key in sorted(redis.keys()) if key.startswith(f"{queue}:")]
    assert 86_390 < redis.command("TTL", memory) <= 86_400
    assert add(http, queue, "d") == [f"{queue}:4"]
    totals = http.get(f"/stats/{queue}").json()["totals"]
    assert (totals["in"], totals["out"]) == (1, 0)
    remove(http, queue)
    remove(http, queue)
    assert add(http, queue, "e", delay=1000) == [f"{queue}:5"]
    remove(http, queue)
    redis.command("DEL", memory)
    assert add(http, queue, "f") == [f"{queue}:1"]


def test_numbers_go_on_also_for_dead_letters_from_another_queue(http: httpx.Client, queue: str) -> None:
    other = f"{queue}-2"
    add(http, other, *"ab")
    remove(http, other)
    http.post(f"/p/{queue}", data={"max_deliveries": 1, "dead_letter": other})
    add(http, queue, "x")
    held = lease(http, queue)
    http.post(f"/m/{held['key']}", data={"receipt": held["receipt"], "lease": 0})
    assert http.get(f"/q/{other}?wait=20").json()["key"] == f"{other}:3"


def test_a_queue_of_settings_only_is_removed_too(http: httpx.Client, redis: Redis, queue: str) -> None:
    http.post(f"/p/{queue}", data={"lease": 5})
    assert remove(http, queue) == {"queue": queue, "status": 1}
    assert not [key for key in sorted(redis.keys()) if key.startswith(f"{queue}:")]


def test_removing_disconnects_consumers_and_keeps_clients_that_wait(
    http: httpx.Client, daemon: Daemon, queue: str
) -> None:
    stream = Comet(daemon, f"/c/{queue}")
    waiting = InBackground(daemon).get(f"/q/{queue}-2?wait=60")
    wait_for_waiters(http, f"{queue}-2", 1)
    remove(http, queue)
    remove(http, f"{queue}-2")
    stream.wait_for_end()
    add(http, f"{queue}-2", "came")
    assert waiting.result().json()["value"] == "came"


def test_a_purge_keeps_the_queue(http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"lease": 5})
    add(http, queue, "a")
    for fields in ({}, {"remove": "false"}):
        assert http.delete(f"/q/{queue}", params=fields).status_code == 200
        assert queue in queues(http)
        assert http.get(f"/p/{queue}").json()["lease"] == 5
    assert http.request("DELETE", f"/q/{queue}", json={"remove": False}).json() == {"queue": queue, "status": 0}
    assert http.request("DELETE", f"/q/{queue}", json={"remove": True}).json() == {"queue": queue, "status": 1}


@pytest.mark.parametrize("fields", [{"remove": "yes"}, {"remove": ""}, {"remov": "true"}])
def test_an_invalid_removal_deletes_nothing(http: httpx.Client, queue: str, fields: dict[str, str]) -> None:
    add(http, queue, "a")
    assert http.delete(f"/q/{queue}", params=fields).status_code == 400
    assert counts(http, queue) == (1, 0, 0, 0)


def test_a_command_purges_or_removes_a_queue(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    add(http, queue, "a")
    assert http.post("/queue", json={"cmd": "purge", "queue": queue}).json() == {"queue": queue, "status": 1}
    assert queue in queues(http)
    with connect(daemon.url.replace("http", "ws") + f"/ws/{queue}-other") as socket:
        socket.send(json.dumps({"cmd": "purge", "queue": queue, "remove": True}))
        assert json.loads(socket.recv()) == {"queue": queue, "status": 1}
    assert queue not in queues(http)
    for invalid in (1, "true", None):
        assert http.post("/queue", json={"cmd": "purge", "queue": queue, "remove": invalid}).status_code == 400


# Ending after a time without use


class TimedQueue:
    """A queue on a clock that the test sets, with the setting ``expires`` of 10 s unless the server has a default."""

    def __init__(self, run: Run, core: RedisOperations, name: str, expires_seconds: int = 0) -> None:
        self.now_ms = [4_000_000_000_000]
        self.core = RedisOperations(core.store, lambda: self.now_ms[0], expires_seconds)
        self.name = name
        self._run = run
        if not expires_seconds:
            self.run("queue_settings_set", {"expires": 10})

    def run(self, operation: str, *args: Any, **options: Any) -> Any:
        return self._run(getattr(self.core, operation), self.name, *args, **options)

    def pass_seconds(self, seconds: float) -> None:
        """Lets time pass, and does what a daemon does when a queue is due."""
        end_ms = self.now_ms[0] + round(seconds * 1000)
        while self.now_ms[0] < end_ms:
            self.now_ms[0] = min(end_ms, self.now_ms[0] + 500)
            due_ms = self._run(self.core.store.command, "ZSCORE", "QUEUEDUE", self.name)
            if due_ms is not None and float(due_ms) <= self.now_ms[0]:
                self.run("queue_promote")

    @property
    def exists(self) -> bool:
        settings = self.run("queue_settings_get")
        return bool(settings) or self.name in self._run(self.core.queue_all)


@pytest.fixture
def timed(run: Run, core: RedisOperations, queue: str) -> TimedQueue:
    return TimedQueue(run, core, queue)


def test_an_unused_queue_is_removed_between_one_and_two_times_its_setting(timed: TimedQueue, redis: Redis) -> None:
    timed.run("queue_add", b"x")
    assert timed.run("queue_getdel").value == b"x"
    timed.pass_seconds(9.5)
    assert timed.exists
    timed.pass_seconds(11)
    assert not timed.exists
    assert keys_of(redis, timed.name) == set()
    assert redis.command("ZSCORE", "QUEUEDUE", timed.name) is None


def test_a_queue_without_a_first_message_is_removed_too(timed: TimedQueue, redis: Redis) -> None:
    timed.pass_seconds(20.5)
    assert not timed.exists
    assert not [key for key in sorted(redis.keys()) if key.startswith(f"{timed.name}:")]


@pytest.mark.parametrize(
    "use",
    [
        lambda timed: (timed.run("queue_add", b"x"), timed.run("queue_getdel")),
        lambda timed: timed.run("queue_getdel"),
        lambda timed: timed.run("queue_lease", 1, 1000),
        lambda timed: timed.run("queue_get", True),
        lambda timed: timed.run("queue_settings_set", {"lease": 9}),
        lambda timed: timed.run("queue_policy_set", Policy.ROUNDROBIN),
        lambda timed: timed.run("queue_changestatus", True),
        lambda timed: timed.run("queue_attend", b"daemon", is_first=True),
    ],
    ids=["message", "empty take", "empty lease", "empty peek", "settings", "policy", "start", "new consumer"],
)
def test_whatever_is_asked_of_a_queue_keeps_it(timed: TimedQueue, use: Callable[[TimedQueue], object]) -> None:
    for _ in range(6):
        timed.pass_seconds(9)
        use(timed)
        timed.pass_seconds(0.5)
        assert timed.exists
    timed.pass_seconds(20.5)
    assert not timed.exists


def test_a_queue_with_messages_in_any_state_stays(timed: TimedQueue, run: Run) -> None:
    run(timed.core.queue_add_many, timed.name, [b"x"], 0, 55)
    timed.pass_seconds(50)
    assert timed.exists
    timed.pass_seconds(50)
    timed.run("queue_lease", 1, 45_000)
    timed.pass_seconds(40)
    assert timed.exists
    timed.run("queue_settings_set", {"max_deliveries": 1})
    timed.pass_seconds(50)
    assert run(timed.core.queue_list_dead, timed.name)[0] == 1
    assert timed.exists
    timed.run("queue_purge")
    timed.pass_seconds(20.5)
    assert not timed.exists


def test_a_queue_of_expired_messages_is_removed(timed: TimedQueue, run: Run, redis: Redis) -> None:
    run(timed.core.queue_add_many, timed.name, [b"x"], 15)
    timed.pass_seconds(14)
    assert timed.exists
    timed.pass_seconds(40)
    assert not timed.exists
    assert keys_of(redis, timed.name) == set()


def test_without_the_setting_a_queue_stays(timed: TimedQueue, redis: Redis) -> None:
    timed.run("queue_add", b"x")
    timed.run("queue_getdel")
    timed.run("queue_settings_set", {"expires": 0})
    timed.pass_seconds(100)
    assert timed.exists
    assert redis.command("EXISTS", f"{timed.name}:idle") == 0
    assert redis.command("ZSCORE", "QUEUEDUE", timed.name) is None


def test_the_setting_of_a_queue_overrides_the_servers_default(run: Run, core: RedisOperations, queue: str) -> None:
    timed = TimedQueue(run, core, queue, expires_seconds=10)
    timed.run("queue_settings_set", {"expires": 1000})
    timed.pass_seconds(500)
    assert timed.exists
    timed.run("queue_settings_set", {"expires": 0})
    timed.pass_seconds(20.5)
    assert not timed.exists


def test_the_servers_default_holds_for_new_and_for_old_queues(
    run: Run, private_core: RedisOperations, queue: str
) -> None:
    core = private_core
    old = TimedQueue(run, core, f"{queue}-old", expires_seconds=10)
    run(core.queue_add, old.name, b"x")
    run(core.queue_getdel, old.name)
    old.pass_seconds(50)
    assert old.exists
    run(old.core.queue_watch_all)
    new = TimedQueue(run, core, queue, expires_seconds=10)
    new.run("queue_add", b"x")
    new.run("queue_getdel")
    for timed in (old, new):
        timed.pass_seconds(20.5)
        assert not timed.exists


def test_a_queue_that_another_version_took_off_the_schedule_is_watched_again(
    run: Run, private_core: RedisOperations, private_redis: Redis, queue: str
) -> None:
    timed = TimedQueue(run, private_core, queue)
    timed.run("queue_add", b"x")
    timed.run("queue_getdel")
    private_redis.command("ZREM", "QUEUEDUE", timed.name)
    timed.pass_seconds(100)
    assert timed.exists
    run(timed.core.queue_watch_all)
    timed.pass_seconds(20.5)
    assert not timed.exists


def test_connected_consumers_and_waiting_clients_keep_a_queue(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder / "daemon", "--queue-expires", "1", redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        http.post("/p/listened", data={"lease": 5})
        http.post("/p/waited", data={"lease": 5})
        http.post("/p/unused", data={"lease": 5})
        stream = Comet(daemon, "/c/listened")
        waiting = InBackground(daemon).get("/q/waited?wait=60")
        wait_until(lambda: private_redis.command("EXISTS", "unused:settings") == 0)
        wait_until(lambda: private_redis.command("GET", "listened:idle").endswith("in use"))
        add(http, "other", "x")
        http.get("/q/other")
        wait_until(lambda: "other" not in queues(http))
        assert http.get("/p/listened").json()["lease"] == 5
        assert http.get("/p/waited").json()["lease"] == 5
        add(http, "waited", "x")
        assert waiting.result().status_code == 200
        stream.close()
        wait_until(lambda: not private_redis.command("EXISTS", "listened:settings", "waited:settings"))
        assert queues(http) == []


def test_a_queue_that_no_server_watches_yet_ends_soon_after_the_start(
    private_folder: Path, private_redis: Redis
) -> None:
    private_redis.command("SADD", "QUEUESET", "old")
    private_redis.command("SET", "old:UUID", "1")
    private_redis.command("HSET", "old:settings", "expires", "1")
    daemon = Daemon(private_folder / "daemon", redis=private_redis)
    with stopping(daemon):
        wait_until(lambda: private_redis.keys() == {"old:lastnumber"})


def test_a_thousand_reply_queues_come_and_go(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder / "daemon", "--queue-expires", "1", redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        add(http, "steady", "x")
        before = len(private_redis.keys())
        for number in range(1000):
            http.post(f"/q/reply-{number}", data={"value": "x"})
            http.get(f"/q/reply-{number}")
        wait_until(lambda: queues(http) == ["steady"])
        counters = [key for key in sorted(private_redis.keys()) if private_redis.command("TTL", key) > 80_000]
        assert len(counters) == 1000
        assert len(private_redis.keys()) - len(counters) <= before + 1
