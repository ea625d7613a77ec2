"""The command promote, which ends the delay of a message."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from restmq.core import RedisOperations
from tests.integration.conftest import Run
from tests.servers import Daemon, Redis, stopping, wait_until


def add_delayed(http: httpx.Client, queue: str, value: str, group: str = "g") -> str:
    headers = {"Content-Type": "text/plain", "X-Message-Group": group}
    answer = http.post(f"/q/{queue}?delay=1000", content=value, headers=headers)
    assert answer.status_code == 200
    return answer.text.strip()


def promote(http: httpx.Client, key: str, queue: str = "") -> bool:
    queue = queue or key.rpartition(":")[0]
    answer = http.post("/queue", json={"cmd": "promote", "queue": queue, "key": key})
    assert (answer.status_code, answer.json()) == (200, {"queue": queue, "key": key} | answer.json())
    promoted: bool = answer.json()["promoted"]
    return promoted


def test_a_delayed_message_is_promoted_at_once(http: httpx.Client, queue: str) -> None:
    key, other = add_delayed(http, queue, "x"), add_delayed(http, queue + "-2", "x")
    assert promote(http, key)
    assert http.get(f"/q/{queue}").json()["key"] == key
    assert not promote(http, key)
    assert not promote(http, other, queue), "a key of another queue"
    assert http.get(f"/m/{other}").json()["state"] == "delayed"


def test_a_client_that_waits_gets_a_promoted_message(daemon: Daemon, http: httpx.Client, queue: str) -> None:
    key = add_delayed(http, queue, "x")
    with daemon.get(f"/q/{queue}?wait=60") as waiting:
        wait_until(lambda: http.get(f"/stats/{queue}").json()["waiters"] == 1)
        assert promote(http, key)
        assert key.encode() in waiting.recv(4096)


def test_a_message_that_waits_for_its_next_delivery_takes_its_old_place(http: httpx.Client, queue: str) -> None:
    keys = [http.post(f"/q/{queue}", data={"value": value}).text.strip() for value in ("first", "second")]
    failed = http.get(f"/q/{queue}?lease=60").json()
    http.post(f"/m/{keys[0]}", data={"receipt": failed["receipt"], "lease": "0", "delay": "1000"})
    assert promote(http, keys[0])
    assert http.get(f"/q/{queue}").json()["value"] == "first"


def test_a_message_that_is_not_delayed_stays_as_it_is(http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"max_deliveries": "1"})
    dead, leased, ready = (http.post(f"/q/{queue}", data={"value": value}).text.strip() for value in "abc")
    failed = http.get(f"/q/{queue}?lease=60").json()
    http.post(f"/m/{dead}", data={"receipt": failed["receipt"], "lease": "0"})
    http.get(f"/q/{queue}?lease=60")
    for key, state in ((dead, "dead"), (leased, "leased"), (ready, "ready")):
        assert not promote(http, key)
        assert http.get(f"/m/{key}").json()["state"] == state


@pytest.fixture
def fifo(run: Run, core: RedisOperations, queue: str) -> str:
    run(core.sqs_create, queue + ".fifo", {"FifoQueue": "true"}, {}, {})
    return queue + ".fifo"


def test_a_promoted_message_of_a_fifo_queue_frees_its_group_and_no_other(http: httpx.Client, fifo: str) -> None:
    first, other = add_delayed(http, fifo, "a1", "a"), add_delayed(http, fifo, "b1", "b")
    http.post(f"/q/{fifo}", content="a2", headers={"Content-Type": "text/plain", "X-Message-Group": "a"})
    assert http.get(f"/q/{fifo}").status_code == 204, "a2 waits behind a1"
    assert promote(http, first)
    assert [http.get(f"/q/{fifo}").json()["value"] for _ in range(2)] == ["a1", "a2"]
    assert http.get(f"/q/{fifo}").status_code == 204
    assert http.get(f"/m/{other}").json()["state"] == "delayed"


def test_without_redis_promote_is_refused_and_works_when_it_is_back(private_folder: Path) -> None:
    redis = Redis(private_folder / "redis")
    daemon = Daemon(private_folder / "daemon", redis=redis)
    with stopping(daemon, redis), daemon.client() as http:
        key = add_delayed(http, "jobs", "x")
        redis.kill()
        wait_until(lambda: http.get("/readyz").status_code == 503)
        refused = http.post("/queue", json={"cmd": "promote", "queue": "jobs", "key": key})
        assert (refused.status_code, list(refused.json())) == (503, ["error"])
        redis.start()
        wait_until(lambda: http.get("/readyz").status_code == 200)
        assert http.get(f"/m/{key}").json()["state"] == "delayed"
        assert promote(http, key)
        assert http.get("/q/jobs").json()["key"] == key
