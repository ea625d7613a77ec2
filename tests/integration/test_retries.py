"""Deliveries that fail: messages come back later, with a reason, and dead letters go to other queues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.integration.test_delivery import add, counts, lease
from tests.servers import Comet, Daemon, Redis, wait_until


def nack(http: httpx.Client, message: dict[str, Any], **fields: object) -> httpx.Response:
    return http.post(f"/m/{message['key']}", data={"receipt": message["receipt"], "lease": 0, **fields})


def find(http: httpx.Client, key: str) -> dict[str, Any]:
    return dict(http.get(f"/m/{key}").json())


def is_within_jitter(waited_ms: float, seconds: float) -> bool:
    """Whether a time is as long as it should be, with up to a tenth added; the server rounds to milliseconds."""
    return seconds * 1000 <= waited_ms <= seconds * 1100 + 1


# Back-off


def test_a_message_comes_back_after_1_2_and_4_seconds_and_dies_with_its_last_reason(
    http: httpx.Client, queue: str
) -> None:
    http.post(f"/p/{queue}", data={"retry_delay": 1, "max_deliveries": 4})
    (key,) = add(http, queue, "poison")
    for seconds in (1, 2, 4):
        nack(http, lease(http, queue, wait=20), reason=f"no luck within {seconds} s")
        waiting = find(http, key)
        assert (waiting["state"], waiting["reason"]) == ("delayed", f"no luck within {seconds} s")
        assert is_within_jitter(waiting["due"] - waiting["failed"], seconds)
        assert counts(http, queue) == (0, 0, 1, 0)
        assert http.get(f"/q/{queue}").status_code == 204
    last = lease(http, queue, wait=20)
    assert (last["count"], last["reason"]) == (4, "no luck within 4 s")
    nack(http, last, reason="gave up")
    (letter,) = http.get(f"/d/{queue}").json()["messages"]
    assert (letter["key"], letter["count"], letter["reason"], letter["failed"]) == (key, 4, "gave up", letter["died"])
    (peeked,) = http.get(f"/j/{queue}?list=dead", headers={"Accept": "application/json"}).json()["messages"]
    assert (peeked["reason"], peeked["failed"]) == ("gave up", letter["died"])


def test_the_delay_doubles_up_to_its_maximum(http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"retry_delay": 100, "retry_delay_max": 250})
    assert http.get(f"/p/{queue}").json().items() >= {"retry_delay": 100, "retry_delay_max": 250}.items()
    for failures, seconds in enumerate((100, 200, 250, 250)):
        (key,) = add(http, queue, "x")
        for _ in range(failures):
            nack(http, lease(http, queue), delay=0)
        nack(http, lease(http, queue), reason="x")
        waiting = find(http, key)
        assert is_within_jitter(waiting["due"] - waiting["failed"], seconds)


def test_the_maximum_delay_is_an_hour_unless_it_is_set(http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"retry_delay": 3000})
    (key,) = add(http, queue, "x")
    nack(http, lease(http, queue), delay=0)
    nack(http, lease(http, queue), reason="x")
    waiting = find(http, key)
    assert is_within_jitter(waiting["due"] - waiting["failed"], 3600)


def test_messages_that_fail_together_do_not_come_back_together(http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"retry_delay": 1000})
    add(http, queue, *map(str, range(20)))
    for message in http.get(f"/q/{queue}?lease=60&count=20").json():
        nack(http, message)
    listed = http.get(f"/j/{queue}?list=delayed&count=20", headers={"Accept": "application/json"}).json()["messages"]
    times = [message["due"] for message in listed]
    assert len(times) == 20
    assert max(times) - min(times) > 20_000


@pytest.mark.parametrize("kill", [False, True])
def test_a_lease_that_runs_out_comes_back_later_also_without_the_daemon_that_gave_it(
    private_folder: Path, redis: Redis, http: httpx.Client, queue: str, kill: bool
) -> None:
    http.post(f"/p/{queue}", data={"retry_delay": 1})
    other = Daemon(private_folder, redis=redis)
    with other.client() as there:
        (key,) = add(there, queue, "work")
        held = lease(there, queue, 1)
        ends_ms = find(there, key)["due"]
        other.kill() if kill else other.stop()
    wait_until(lambda: find(http, key)["state"] == "delayed")
    assert is_within_jitter(find(http, key)["due"] - ends_ms, 1)
    again = lease(http, queue, wait=20)
    assert (again["key"], again["count"]) == (held["key"], 2)


def test_what_a_consumer_that_left_did_not_ack_comes_back_later(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    http.post(f"/p/{queue}", data={"policy": "roundrobin", "retry_delay": 1000})
    stream = Comet(daemon, f"/c/{queue}?lease=60")
    (key,) = add(http, queue, "work")
    stream.lines(1)
    stream.close()
    wait_until(lambda: find(http, key)["state"] == "delayed")
    assert counts(http, queue) == (0, 0, 1, 0)


# Nack with a delay and a reason


def test_a_nacked_message_waits_and_takes_its_old_place_again(http: httpx.Client, queue: str) -> None:
    keys = add(http, queue, *"abc")
    nack(http, lease(http, queue), delay=0.2, reason="the oven is cold")
    assert find(http, keys[0])["state"] == "delayed"
    wait_until(lambda: counts(http, queue) == (3, 0, 0, 0))
    found = http.get(f"/q/{queue}?count=3").json()
    assert [message["key"] for message in found] == keys
    assert [message.get("reason") for message in found] == ["the oven is cold", None, None]
    assert found[0]["failed"] > 0


def test_a_message_that_joined_late_takes_its_old_place_again(http: httpx.Client, queue: str) -> None:
    (late,) = add(http, queue, "late", delay=0.05)
    wait_until(lambda: counts(http, queue) == (1, 0, 0, 0))
    (after,) = add(http, queue, "after")
    nack(http, lease(http, queue), delay=0.05)
    wait_until(lambda: counts(http, queue) == (2, 0, 0, 0))
    assert [message["key"] for message in http.get(f"/q/{queue}?count=3").json()] == [late, after]


def test_a_delay_overrides_the_queues_setting(http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"retry_delay": 1000})
    (key,) = add(http, queue, "x")
    nack(http, lease(http, queue), delay=0)
    assert find(http, key)["state"] == "ready"
    nack(http, lease(http, queue))
    assert find(http, key)["state"] == "delayed"


def test_a_retry_expires_with_its_time_to_live(http: httpx.Client, queue: str) -> None:
    (key,) = add(http, queue, "x", ttl=1)
    nack(http, lease(http, queue), delay=1000)
    assert counts(http, queue) == (0, 0, 1, 0)
    wait_until(lambda: http.get(f"/m/{key}").status_code == 404)


@pytest.mark.parametrize("reason", ["line 1\nline 2\t\x00\x1b[31m", '"} {"', "\\u00e9\\", "Ofen kalt: 🥶", "ü" * 512])
def test_a_reason_is_shown_as_it_was_sent(http: httpx.Client, queue: str, reason: str) -> None:
    (key,) = add(http, queue, "x")
    held = lease(http, queue)
    body = {"receipt": held["receipt"], "lease": 0, "reason": reason}
    assert http.post(f"/m/{key}", json=body).status_code == 200
    assert find(http, key)["reason"] == reason
    held = http.post("/queue", json={"cmd": "lease", "queue": queue}).json()
    assert (held["reason"], held["count"]) == (reason, 2)
    nacked = {"cmd": "nack", "key": key, "receipt": held["receipt"], "reason": reason + "!" if len(reason) < 99 else ""}
    assert http.post("/queue", json=nacked | {"delay": 60}).json() == {"queue": queue, "key": key, "nacked": True}
    assert find(http, key).items() >= {"state": "delayed", "reason": nacked["reason"] or reason}.items()


@pytest.mark.parametrize(
    "fields",
    [
        {"reason": "x" * 1025},
        {"reason": "ü" * 513},
        {"delay": -1},
        {"delay": 2_592_001},
        {"delay": "soon"},
        {"lease": 5, "delay": 1},
        {"lease": 5, "reason": "x"},
        {"why": "x"},
    ],
)
def test_an_invalid_nack_changes_nothing(http: httpx.Client, queue: str, fields: dict[str, object]) -> None:
    (key,) = add(http, queue, "x")
    held = lease(http, queue)
    answer = nack(http, held, **fields)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert find(http, key)["state"] == "leased"
    assert "reason" not in find(http, key)
    assert http.delete(f"/m/{key}?receipt={held['receipt']}").status_code == 204


# Dead letters to another queue


def dead_letters(http: httpx.Client, queue: str, *values: str) -> list[str]:
    http.post(f"/p/{queue}", data={"max_deliveries": 1})
    keys = add(http, queue, *values)
    for value in values:
        nack(http, lease(http, queue), reason=f"{value} failed")
    return keys


def test_dead_letters_are_redriven_into_another_queue(http: httpx.Client, queue: str) -> None:
    keys = dead_letters(http, queue, *"abc")
    other = f"{queue} ü/2"
    answer = http.post(f"/d/{queue}", data={"to": other, "key": keys[1]})
    assert answer.json() == {"queue": queue, "redriven": 1}
    assert http.post(f"/d/{queue}", json={"to": other}).json() == {"queue": queue, "redriven": 2}
    assert counts(http, queue) == (0, 0, 0, 0)
    found = http.get(f"/q/{other}?lease=60&count=9").json()
    assert [message["value"] for message in found] == ["b", "a", "c"]
    origin = found[0]["dead_letter"]
    assert (origin["key"], origin["count"], origin["reason"]) == (keys[1], 1, "b failed")
    assert origin["failed"] >= origin["last"] >= origin["first"] > 0
    assert (found[0]["count"], "reason" in found[0]) == (1, False)


def test_a_redrive_to_the_same_queue_is_one_without_a_target(http: httpx.Client, queue: str) -> None:
    (key,) = dead_letters(http, queue, "a")
    assert http.post(f"/d/{queue}", data={"to": queue}).json() == {"queue": queue, "redriven": 1}
    assert lease(http, queue)["key"] == key


def test_a_redrive_of_an_unknown_letter_makes_no_queue(http: httpx.Client, queue: str) -> None:
    dead_letters(http, queue, "a")
    assert http.post(f"/d/{queue}", data={"to": f"{queue}-2", "key": f"{queue}:99"}).status_code == 404
    assert f"{queue}-2" not in http.get("/q/", headers={"Accept": "application/json"}).json()["queues"]
    assert counts(http, queue) == (0, 0, 0, 1)


def test_a_redrive_reaches_the_other_queues_consumers(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    dead_letters(http, queue, "a")
    stream = Comet(daemon, f"/c/{queue}-2")
    assert http.post("/queue", json={"cmd": "redrive", "queue": queue, "to": f"{queue}-2"}).json()["redriven"] == 1
    assert json.loads(stream.lines(1)[0])["value"] == "a"


def test_the_command_redrives_one_letter_or_all(http: httpx.Client, queue: str) -> None:
    keys = dead_letters(http, queue, *"abc")
    redrive = {"cmd": "redrive", "queue": queue}
    assert http.post("/queue", json=redrive | {"key": keys[2]}).json() == {"queue": queue, "redriven": 1}
    assert http.post("/queue", json=redrive | {"key": keys[2]}).status_code == 404
    assert http.post("/queue", json=redrive).json() == {"queue": queue, "redriven": 2}
    assert [message["key"] for message in http.get(f"/q/{queue}?count=9").json()] == [keys[2], keys[0], keys[1]]


def test_more_letters_than_one_call_moves_are_all_redriven_in_order(http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"max_deliveries": 1})
    for _ in range(2):
        http.post("/queue", json={"cmd": "add", "queue": queue, "values": [str(n) for n in range(600)]})
    for _ in range(2):
        http.get(f"/q/{queue}?lease=1&count=1000")
    wait_until(lambda: counts(http, queue) == (0, 0, 0, 1200))
    assert http.post(f"/d/{queue}", data={"to": f"{queue}-2"}).json()["redriven"] == 1200
    found = [http.get(f"/q/{queue}-2?count=600").json() for _ in range(2)]
    assert [message["value"] for part in found for message in part] == [str(n) for n in range(600)] * 2


# Acks of several messages


def test_several_messages_are_acked_at_once_and_each_is_answered(http: httpx.Client, queue: str) -> None:
    add(http, queue, *"abc")
    held = [
        {name: message[name] for name in ("key", "receipt")}
        for message in http.get(f"/q/{queue}?lease=60&count=3").json()
    ]
    nack(http, held[1])
    answer = http.post("/queue", json={"cmd": "ack", "messages": [*held, held[0]]})
    assert answer.json() == {
        "queue": queue,
        "messages": [
            {"key": lease["key"], "acked": acked} for lease, acked in zip([*held, held[0]], (1, 0, 1, 0), strict=True)
        ],
    }
    assert counts(http, queue) == (1, 0, 0, 0)


def test_a_websocket_acks_a_thousand_messages_at_once(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    http.post("/queue", json={"cmd": "add", "queue": queue, "values": ["x"] * 1000})
    held = http.get(f"/q/{queue}?lease=60&count=1000").json()
    leases = [{"key": message["key"], "receipt": message["receipt"]} for message in held]
    with connect(daemon.url.replace("http", "ws") + f"/ws/{queue}-other", max_size=None) as socket:
        socket.send(json.dumps({"cmd": "ack", "messages": leases, "id": 1}))
        answer = json.loads(socket.recv())
    assert answer["id"] == 1
    assert [each["acked"] for each in answer["messages"]] == [True] * 1000
    assert counts(http, queue) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "Q:1",
        [{"key": "Q:1"}],
        [{"key": "Q:1", "receipt": ""}],
        [{"key": "Q", "receipt": "x"}],
        [{"key": "Q:1", "receipt": "x", "more": 1}],
        [["Q:1", "x"]],
        [{"key": "Q:1", "receipt": "x"}, {"key": "other:1", "receipt": "x"}],
        [{"key": "Q:1", "receipt": "x"}] * 1001,
    ],
)
def test_an_invalid_list_of_acks_acks_nothing(http: httpx.Client, queue: str, messages: Any) -> None:
    add(http, queue, "x")
    held = lease(http, queue)
    if isinstance(messages, list):
        first = {"key": held["key"], "receipt": held["receipt"]}
        messages = [first, *json.loads(json.dumps(messages).replace("Q:1", held["key"]))] if messages else messages
    answer = http.post("/queue", json={"cmd": "ack", "messages": messages})
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert counts(http, queue) == (0, 1, 0, 0)


def test_an_ack_names_one_message_or_several(http: httpx.Client, queue: str) -> None:
    one = {"key": f"{queue}:1", "receipt": "x"}
    for fields in ({**one, "messages": [one]}, {"receipt": "x"}, {"receipt": "x", "messages": [one]}):
        assert http.post("/queue", json={"cmd": "ack", **fields}).status_code == 400
