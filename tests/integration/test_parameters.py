"""Parameters in the query, in forms and in JSON; unknown ones; and bodies that are not understood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from restmq.handlers.base import Handler
from restmq.schema.names import MEANINGFUL
from restmq.web import ROUTES
from tests.servers import Daemon, curl


@pytest.fixture
def dead(http: httpx.Client, queue: str) -> Callable[[], list[str]]:
    """Makes three dead letters. Returns a function that lists the keys of those that are left."""
    http.post(f"/p/{queue}", data={"max_deliveries": 1})
    http.post("/queue", json={"cmd": "add", "queue": queue, "values": ["a", "b", "c"]})
    for message in http.get(f"/q/{queue}?lease=60&count=3").json():
        http.post(f"/m/{message['key']}", data={"receipt": message["receipt"], "lease": 0})
    keys = lambda: [letter["key"] for letter in http.get(f"/d/{queue}").json()["messages"]]  # noqa: E731
    assert keys() == [f"{queue}:{number}" for number in (1, 2, 3)]
    return keys


@pytest.mark.needs("curl")
def test_a_json_key_drops_one_dead_letter_and_not_all(
    daemon: Daemon, queue: str, dead: Callable[[], list[str]]
) -> None:
    shown = curl("-X", "DELETE", "--json", f'{{"key": "{queue}:2"}}', f"{daemon.url}/d/{queue}")
    assert shown.endswith(b'"dropped":1}\r\n')
    assert dead() == [f"{queue}:1", f"{queue}:3"]


def test_a_json_key_redrives_one_dead_letter_and_not_all(
    http: httpx.Client, queue: str, dead: Callable[[], list[str]]
) -> None:
    assert http.post(f"/d/{queue}", json={"key": f"{queue}:1"}).json()["redriven"] == 1
    assert dead() == [f"{queue}:2", f"{queue}:3"]


def send(http: httpx.Client, method: str, path: str, content: str, kind: str = "application/json") -> httpx.Response:
    return http.request(method, path, content=content.encode(), headers={"Content-Type": kind} if kind else {})


@pytest.mark.parametrize("method", ["DELETE", "POST"])
@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        ('{"keys": "{queue}:1"}', "application/json", 400),
        ('{"key": null}', "application/json", 400),
        ('{"key": 1}', "application/json", 400),
        ('["{queue}:1"]', "application/json", 400),
        ('"{queue}:1"', "application/json", 400),
        ('{"key": "{queue}:1"', "application/json", 400),
        ('{"key": "{queue}:1"}', "application/x-www-form-urlencoded", 400),
        ("{queue}:1", "application/x-www-form-urlencoded", 400),
        ("keys={queue}:1", "application/x-www-form-urlencoded", 400),
        ('{"key": "{queue}:1"}', "text/plain", 415),
        ('{"key": "{queue}:1"}', "application/merge-patch+json", 415),
        ('{"key": "{queue}:1"}', "", 415),
        ("<key>{queue}:1</key>", "text/xml", 415),
    ],
)
def test_a_body_of_an_unknown_type_changes_no_dead_letter(
    http: httpx.Client,
    queue: str,
    dead: Callable[[], list[str]],
    method: str,
    content: str,
    kind: str,
    status: int,
) -> None:
    answer = send(http, method, f"/d/{queue}", content.replace("{queue}", queue), kind)
    assert (answer.status_code, len(answer.json()["error"]) > 15) == (status, True)
    assert len(dead()) == 3


def test_an_empty_json_object_is_an_empty_form(http: httpx.Client, queue: str, dead: Callable[[], list[str]]) -> None:
    assert http.request("DELETE", f"/d/{queue}", json={}).json()["dropped"] == 3


def test_a_request_meant_to_delete_one_message_does_not_purge_the_queue(http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}", data={"value": "v"})
    for query, body in (("?key=x:1", None), ("", {"key": f"{queue}:1"}), ("?Key=x:1", None)):
        assert http.request("DELETE", f"/q/{queue}{query}", json=body).status_code == 400
    assert http.get(f"/stats/{queue}").json()["len"] == 1
    assert http.request("DELETE", f"/q/{queue}", json={}).json()["status"] == 1


def test_a_lease_is_acked_and_extended_by_json(http: httpx.Client, queue: str) -> None:
    http.post(f"/q/{queue}", data={"value": "v"})
    message = http.get(f"/q/{queue}?lease=60").json()
    extended = http.post(f"/m/{message['key']}", json={"receipt": message["receipt"], "lease": 30})
    assert extended.json() == {"queue": queue, "key": message["key"], "lease": 30}
    acked = http.request("DELETE", f"/m/{message['key']}", json={"receipt": message["receipt"]})
    assert acked.status_code == 204


def test_settings_and_status_are_set_by_json(http: httpx.Client, queue: str) -> None:
    assert http.post(f"/p/{queue}", json={"policy": "roundrobin", "max_deliveries": 3}).text == "OK\r\n"
    assert http.get(f"/p/{queue}").json() == {"queue": queue, "value": "roundrobin", "max_deliveries": 3}
    assert http.post(f"/control/{queue}", json={"status": "stop"}).json()["stat"]["status"] == 0


@pytest.mark.parametrize(
    ("value", "stored"),
    [('"text"', "text"), ('""', ""), ("3.50", "3.50"), ('{"a": [1]}', '{"a": [1]}'), ("null", "null")],
)
def test_a_message_is_published_by_json_at_the_root(http: httpx.Client, queue: str, value: str, stored: str) -> None:
    assert send(http, "POST", "/", f'{{"queue": "{queue}", "value": {value}}}').text == f"{queue}:1\r\n"
    assert http.get(f"/q/{queue}").json()["value"] == stored


@pytest.mark.parametrize("where", ["query", "form", "multipart", "json"])
@pytest.mark.parametrize("name", ["max_deliverys", "comment", "count", "Policy"])
def test_an_unknown_setting_is_rejected_and_nothing_is_set(
    http: httpx.Client, queue: str, where: str, name: str
) -> None:
    fields = {"max_deliveries": "3", name: "3"}
    sent: dict[str, dict[str, Any]] = {
        "query": {"params": fields},
        "form": {"data": fields},
        "multipart": {"files": {field: (None, value) for field, value in fields.items()}},
        "json": {"json": {"max_deliveries": 3, name: 3}},
    }
    answer = http.post(f"/p/{queue}", **sent[where])
    assert (answer.status_code, name in answer.json()["error"]) == (400, True)
    assert http.get(f"/p/{queue}").json() == {"queue": queue, "value": "broadcast"}


@pytest.mark.parametrize(
    ("method", "path", "form"),
    [
        ("GET", "/q/{queue}?leese=30", {}),
        ("GET", "/q/{queue}?Lease=30", {}),
        ("GET", "/q/{queue}?wiat=1", {}),
        ("GET", "/q/{queue}?receipt=x", {}),
        ("GET", "/?queue={queue}&leas=30", {}),
        ("POST", "/q/{queue}", {"value": "v", "dealy": "60"}),
        ("POST", "/q/{queue}", {"value": "v", "idempotency_key": "once"}),
        ("POST", "/", {"queue": "{queue}", "value": "v", "delays": "60"}),
    ],
)
def test_a_mistyped_parameter_takes_and_adds_nothing(
    http: httpx.Client, queue: str, method: str, path: str, form: dict[str, str]
) -> None:
    http.post(f"/q/{queue}", data={"value": "first"})
    data = {name: value.replace("{queue}", queue) for name, value in form.items()}
    answer = http.request(method, path.replace("{queue}", queue), data=data or None)
    assert (answer.status_code, "unknown parameter" in answer.json()["error"]) == (400, True)
    assert http.get(f"/stats/{queue}").json()["totals"]["in"] == 1
    assert http.get(f"/stats/{queue}").json()["len"] == 1


def test_extra_parameters_of_old_clients_and_caches_are_ignored(http: httpx.Client, queue: str) -> None:
    surplus = {"_": "1700000000", "submit": "Send", "policy": "x", "body": "y", "user": "z"}
    assert http.post(f"/q/{queue}", data={"value": "v", **surplus}).text == f"{queue}:1\r\n"
    assert http.get(f"/q/{queue}", params={**surplus, "ttl": "5", "queue": "other"}).json()["value"] == "v"


@pytest.mark.needs("curl")
def test_the_error_for_a_bare_string_says_how_to_send_it(daemon: Daemon, queue: str) -> None:
    refused = curl("-d", "hello", f"{daemon.url}/q/{queue}").decode()
    assert "curl --data-binary" in refused
    assert "-H 'Content-Type: text/plain'" in refused
    sent = curl("--data-binary", "hello", "-H", "Content-Type: text/plain", f"{daemon.url}/q/{queue}")
    assert sent == f"{queue}:1\r\n".encode()


@pytest.mark.needs("curl")
@pytest.mark.parametrize("path", ["/queue", "/control/{queue}", "/p/{queue}", "/d/{queue}", "/"])
def test_the_error_for_json_sent_as_a_form_names_the_right_header(daemon: Daemon, queue: str, path: str) -> None:
    refused = curl("-d", '{"cmd": "list", "status": "stop"}', daemon.url + path.replace("{queue}", queue))
    assert b"Content-Type: application/json" in refused


def test_the_names_with_a_meaning_equal_the_declared_ones() -> None:
    old = {"authkey", "body", "callback", "msg", "policy", "queue", "status", "ttl", "value"}
    declared: set[str] = {"idempotency_key", "messages", "values"}  # of commands alone
    for handler in {route[1] for route in ROUTES}:
        assert issubclass(handler, Handler)
        for operation in handler.operations.values():
            declared |= operation.known
    assert declared - old == MEANINGFUL
