"""Bugs of the original program that must not come back."""

from __future__ import annotations

import json
from urllib.parse import quote

import httpx
import pytest

from tests.servers import Comet, Daemon, Redis, curl, listeners, messages_in, wait_until

ODD_VALUES = [
    "007",
    "1.10",
    " x ",
    "1_000",
    "",
    "\x00\x01\x1f",
    "a\r\nb",
    "ü€😀",
    "null",
    "true",
    "1e400",
    "+",
    "%41",
    "a&b=c",
]


def test_round_robin_loses_no_message(daemon: Daemon, redis: Redis, http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"policy": "roundrobin"})
    consumers = [Comet(daemon, f"/c/{queue}") for _ in range(3)]
    wait_until(lambda: redis.command("ZCARD", f"{queue}:turns"))
    keys = [http.post(f"/q/{queue}", data={"value": str(n)}).text.strip() for n in range(60)]
    wait_until(lambda: redis.command("LLEN", f"{queue}:queue") == 0)
    http.delete(f"/q/{queue}")
    assert sorted(messages_in("".join(c.wait_for_end().decode() for c in consumers))) == sorted(keys)


def test_a_queue_stopped_before_its_first_message_stays_stopped(
    daemon: Daemon, redis: Redis, http: httpx.Client, queue: str
) -> None:
    comet = Comet(daemon, f"/c/{queue}")
    wait_until(lambda: listeners(redis, queue))
    http.post(f"/control/{queue}", data={"status": "stop"})
    http.post(f"/q/{queue}", data={"value": "held back"})
    assert http.get(f"/control/{queue}").json()["status"]["status"] == 0
    assert http.get(f"/stats/{queue}").json()["len"] == 1
    http.post(f"/control/{queue}", data={"status": "start"})
    assert b"held back" in comet.lines(1)[0]
    comet.close()


@pytest.mark.needs("curl")
@pytest.mark.parametrize("value", ODD_VALUES)
def test_a_value_is_returned_unchanged(daemon: Daemon, http: httpx.Client, queue: str, value: str) -> None:
    http.post(f"/q/{queue}", data={"value": value})
    http.post("/queue", json={"cmd": "add", "queue": queue, "value": value})
    curl(f"{daemon.url}/q/{queue}", "--data-raw", "value=" + quote(value))
    assert http.get(f"/q/{queue}").json()["value"] == value
    assert http.post("/queue", json={"cmd": "get", "queue": queue}).json()["value"] == value
    assert [http.get(f"/q/{queue}").json()["value"] for _ in range(2)] == [value, value]


def test_an_unusual_value_does_not_stop_the_other_messages_of_a_comet_stream(
    daemon: Daemon, http: httpx.Client, queue: str
) -> None:
    for value in ODD_VALUES:
        http.post(f"/q/{queue}", data={"value": value})
    comet = Comet(daemon, f"/c/{queue}")
    assert [json.loads(line)["value"] for line in comet.lines(len(ODD_VALUES))] == ODD_VALUES
    comet.close()


def test_comet_gets_a_message_of_a_json_add_at_once(
    daemon: Daemon, redis: Redis, http: httpx.Client, queue: str
) -> None:
    comet = Comet(daemon, f"/c/{queue}")
    wait_until(lambda: listeners(redis, queue))
    answer = http.post("/queue", json={"cmd": "add", "queue": queue, "value": "now"})
    # It was published in the very call that answered: nothing waits in the queue for a later look.
    assert http.get(f"/stats/{queue}").json()["len"] == 0
    assert messages_in(comet.lines(1)[0].decode()) == [answer.json()["key"]]
    comet.close()


def test_an_expired_message_is_never_delivered(daemon: Daemon, redis: Redis, http: httpx.Client, queue: str) -> None:
    key = http.post(f"/q/{queue}", data={"value": "gone", "ttl": "0.02"}).text.strip()
    stays = http.post(f"/q/{queue}", data={"value": "stays"}).text.strip()
    wait_until(lambda: redis.command("EXISTS", key) == 0)
    assert http.get(f"/stats/{queue}").json()["len"] == 1
    assert http.post("/queue", json={"cmd": "get", "queue": queue}).json()["key"] == stays
    assert http.get(f"/q/{queue}").json()["key"] == stays
    assert http.get(f"/q/{queue}").status_code == 204


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/p/{queue}", {"policy": "everybody"}),
        ("/p/{queue}", {"policy": ""}),
        ("/p/{queue}", {}),
        ("/control/{queue}", {"status": "pause"}),
        ("/control/{queue}", {}),
        ("/q/{queue}", {"other": "x"}),
        ("/q/{queue}", {"value": "x", "ttl": "soon"}),
        ("/q/{queue}", {"value": "x", "ttl": "-1"}),
        ("/q/{queue}", {"value": "x", "ttl": "1_0"}),
        ("/", {"value": "x"}),
        ("/queue", {"body": "no json"}),
        ("/queue", {"body": '["list"]'}),
        ("/queue", {"body": '{"queue": "x"}'}),
        ("/queue", {"body": '{"cmd": "get"}'}),
        ("/queue", {"body": '{"cmd": "get", "queue": 7}'}),
        ("/queue", {"body": '{"cmd": "get", "queue": ""}'}),
        ("/queue", {"body": '{"cmd": "add", "queue": "x"}'}),
        ("/queue", {"body": '{"cmd": "del", "queue": "x"}'}),
        ("/queue", {"body": '{"cmd": "_class__", "queue": "x"}'}),
        ("/queue", {"body": '{"cmd": ["get"], "queue": "x"}'}),
        ("/queue", {"body": '{"cmd": "add", "queue": "x", "value": ' + "[" * 2000 + "]" * 2000 + "}"}),
        ("/queue", {"body": '{"cmd": "add", "queue": "{queue}", "value": ' + "[" * 20_000 + "]" * 20_000 + "}"}),
        ("/queue", {"body": b'{"cmd": "add", "queue": "x", "value": "\xff"}'}),
        ("/queue", {}),
        ("/q/AUTHKEY:secret", {"value": "x"}),
        ("/q/AUTHKEY", {"value": "x"}),
        ("/q/queuestat::x", {"value": "x"}),
        ("/q/" + "x" * 256, {"value": "x"}),
    ],
)
def test_invalid_input_is_rejected_with_a_reason(
    http: httpx.Client, redis: Redis, queue: str, path: str, form: dict[str, str]
) -> None:
    sent = {name: value.replace("{queue}", queue) if isinstance(value, str) else value for name, value in form.items()}
    answer = http.post(path.format(queue=queue), data=sent)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) > 15
    assert redis.command("EXISTS", f"{queue}:queuepolicy", f"queuestat::{queue}", f"{queue}:queue") == 0


def test_post_to_the_root_accepts_msg_too(http: httpx.Client, queue: str) -> None:
    assert http.post("/", data={"queue": queue, "msg": "by msg"}).text == f"{queue}:1\r\n"
    assert http.get("/", params={"queue": queue}).json()["value"] == "by msg"
    assert http.get("/", params={"queue": queue}).status_code == 404


def test_jsonp_is_javascript_and_checks_its_callback(http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}", data={"value": "it's \u2028"})
    for name in ("alert(1)//", "a b", "1a", "", "a..b", "ü", "x" * 200, "a;b", "<script>"):
        refused = http.get(f"/q/{queue}", params={"callback": name})
        assert refused.status_code == 400, name
        assert "callback" in refused.json()["error"]
    answer = http.get(f"/q/{queue}", params={"callback": "app.show_1$"})  # and no refusal cost the message
    assert answer.headers["Content-Type"].startswith("application/javascript")
    assert answer.text.startswith("app.show_1$({")
    assert answer.text.endswith("});\r\n")
    assert json.loads(answer.text[len("app.show_1$(") : -4])["value"] == "it's \u2028"
    assert "\u2028" not in answer.text


def test_jsonp_calls_back_for_an_empty_queue_too(http: httpx.Client, queue: str) -> None:
    empty = http.get(f"/q/{queue}", params={"callback": "f"})
    assert (empty.status_code, empty.text) == (200, 'f({"error":"empty queue"});\r\n')
    assert empty.headers["Content-Type"].startswith("application/javascript")
    assert http.get(f"/q/{queue}", params={"callback": "f", "wait": 0.01}).text == empty.text
    assert http.get(f"/q/{queue}", params={"callback": "f", "count": 5}).text == "f([]);\r\n"
    # An error keeps its status, so that a script element has the event "error".
    root = http.get("/", params={"queue": queue, "callback": "f"})
    assert (root.status_code, root.json()) == (404, {"error": "empty queue"})
    assert http.get(f"/q/{queue}", params={"callback": "f", "wait": "long"}).status_code == 400


@pytest.mark.parametrize("path", ["/p/{}", "/control/{}", "/stats/{}", "/stats/", "/control/", "/q/"])
def test_every_json_answer_can_be_jsonp(http: httpx.Client, queue: str, path: str) -> None:
    answer = http.get(path.format(queue), params={"callback": "f"})
    assert answer.status_code == 200
    json.loads(answer.text.removeprefix("f(").removesuffix(");\r\n"))
