"""A FIFO queue as curl, browsers and several daemons see it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from restmq.core import RedisOperations
from tests.integration.conftest import Run
from tests.servers import Comet, Daemon, wait_until


@pytest.fixture
def fifo(run: Run, core: RedisOperations, queue: str) -> str:
    run(core.sqs_create, queue + ".fifo", {"FifoQueue": "true"}, {}, {})
    return queue + ".fifo"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as pool:
        yield pool


def send(http: httpx.Client, queue: str, *texts: str) -> None:
    """Sends texts such as a1 and b1, each to the group that its letter names."""
    for text in texts:
        headers = {"Content-Type": "text/plain", "X-Message-Group": text[0]}
        assert http.post(f"/q/{queue}", content=text, headers=headers).status_code == 200


def lease(http: httpx.Client, queue: str, **more: Any) -> dict[str, Any]:
    answer = http.get(f"/q/{queue}", params={"lease": 30, **more})
    return answer.json() if answer.status_code == 200 else {}


def ack(http: httpx.Client, message: dict[str, Any]) -> None:
    answer = http.delete(f"/m/{message['key']}", params={"receipt": message["receipt"]})
    assert answer.status_code == 204


def test_curl_sends_to_groups_and_leases_them_in_order(http: httpx.Client, fifo: str) -> None:
    send(http, fifo, "a1", "a2", "b1")
    first, other = lease(http, fifo), lease(http, fifo)
    assert (first["value"], other["value"]) == ("a1", "b1")
    assert first["headers"] == {"x-message-group": "a"}
    assert lease(http, fifo) == {}
    ack(http, first)
    assert lease(http, fifo)["value"] == "a2"
    assert http.get(f"/q/{fifo}").status_code == 204


def test_a_nacked_message_comes_before_the_rest_of_its_group(http: httpx.Client, fifo: str) -> None:
    send(http, fifo, "a1", "a2")
    message = lease(http, fifo)
    answer = http.post(f"/m/{message['key']}", data={"receipt": message["receipt"], "lease": "0"})
    assert answer.status_code == 200
    again = lease(http, fifo)
    assert (again["value"], again["count"]) == ("a1", 2)


@pytest.mark.parametrize("path", ["/c/{}", "/sse/{}", "/c/{}?lease=30", "/listen?queue=other&queue={}"])
def test_a_live_consumer_is_refused(http: httpx.Client, fifo: str, path: str) -> None:
    answer = http.get(path.format(fifo))
    assert answer.status_code == 409
    assert "FIFO" in answer.json()["error"]


def test_a_fifo_queue_cannot_broadcast_but_has_all_settings(http: httpx.Client, fifo: str) -> None:
    refused = http.post(f"/p/{fifo}", data={"policy": "broadcast", "lease": "7"})
    assert refused.status_code == 409
    assert http.get(f"/p/{fifo}").json() == {"queue": fifo, "value": "roundrobin"}
    assert http.post(f"/p/{fifo}", data={"policy": "roundrobin", "lease": "9"}).status_code == 200
    assert http.get(f"/p/{fifo}").json() == {"queue": fifo, "value": "roundrobin", "lease": 9}


def test_a_websocket_consumer_is_refused_and_commands_work(daemon: Daemon, http: httpx.Client, fifo: str) -> None:
    address = daemon.url.replace("http", "ws")
    with pytest.raises(InvalidStatus) as refused, connect(f"{address}/ws/{fifo}"):
        pass
    assert refused.value.response.status_code == 409
    send(http, fifo, "a1")
    answer = http.post("/queue", data={"body": f'{{"cmd": "take", "queue": "{fifo}"}}'}).json()
    assert answer["value"] == "a1"


def test_live_consumers_of_a_queue_that_becomes_a_fifo_queue_are_closed(
    run: Run, core: RedisOperations, daemon: Daemon, queue: str
) -> None:
    stream = Comet(daemon, f"/c/{queue}.fifo")
    wait_until(lambda: run(core.store.command, "PUBSUB", "NUMSUB", f"{queue}.fifo:PUBSUB")[1])
    run(core.sqs_create, queue + ".fifo", {"FifoQueue": "true"}, {}, {})
    assert stream.wait_for_end() == b""


def test_clients_that_wait_get_different_groups(
    daemon: Daemon, http: httpx.Client, fifo: str, pool: ThreadPoolExecutor
) -> None:
    waiting = [pool.submit(lambda: lease(daemon.client(), fifo, wait=20)) for _ in range(4)]
    wait_until(lambda: http.get(f"/stats/{fifo}").json()["waiters"] == 4)
    send(http, fifo, *(f"{letter}{number}" for number in (1, 2) for letter in "abcd"))
    assert sorted(done.result()["value"] for done in waiting) == ["a1", "b1", "c1", "d1"]
    assert lease(http, fifo) == {}


def test_an_ack_wakes_the_client_that_waits_for_the_group(
    daemon: Daemon, http: httpx.Client, fifo: str, pool: ThreadPoolExecutor
) -> None:
    send(http, fifo, "a1", "a2")
    first = lease(http, fifo)
    waiting = pool.submit(lambda: lease(daemon.client(), fifo, wait=20))
    wait_until(lambda: http.get(f"/stats/{fifo}").json()["waiters"] == 1)
    ack(http, first)
    assert waiting.result()["value"] == "a2"


def test_the_dashboard_is_told_attributes_tags_and_locked_groups(
    run: Run, core: RedisOperations, http: httpx.Client, fifo: str
) -> None:
    run(core.sqs_set, fifo, {"DelaySeconds": "0"}, {})
    run(core.sqs_tag, fifo, {"team": "a b"})
    send(http, fifo, "a1", "a2", "b1", "c1")
    lease(http, fifo, count=2)
    shown = http.get(f"/dashboard/sqs/{fifo}").json()
    assert shown == {
        "queue": fifo,
        "attributes": {"FifoQueue": "true", "DelaySeconds": "0"},
        "tags": {"team": "a b"},
        "groups": {"free": 2, "locked": 1, "shown": [{"group": "a", "leased": 2}]},
    }
    assert http.get("/dashboard/sqs/other").json() == {"queue": "other", "attributes": {}, "tags": {}}
