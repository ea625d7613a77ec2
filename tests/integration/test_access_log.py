"""The access log: the contents of a line, the data that is never logged, and no log at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Comet, Daemon, Redis, stopping, wait_until

TRACEPARENT = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n"
SECRETS = ("s3cret-token", "s3cret-value", "s3cret-receipt", "s3cret-password", "czNjcmV0")


@pytest.fixture
def log_path(private_folder: Path) -> Path:
    return private_folder / "access.log"


@pytest.fixture
def logging_daemon(private_folder: Path, redis: Redis, log_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(private_folder / "daemon", "--access-log", "json", "--access-log-file", str(log_path), redis=redis)
    with stopping(daemon):
        yield daemon


def lines(path: Path, count: int) -> list[dict[str, Any]]:
    """Waits for this number of complete lines."""
    wait_until(lambda: path.read_bytes().count(b"\n") >= count, why=f"{count} lines")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_has_the_request_its_status_and_its_duration(logging_daemon: Daemon, log_path: Path, queue: str) -> None:
    with logging_daemon.client() as http:
        http.post(f"/q/{queue}", data={"value": "hello"})
        answer = http.get(f"/q/{queue}")
        http.head(f"/q/{queue}")
        http.get("/no/such")
    posted, got, head, lost = lines(log_path, 4)
    assert got.keys() == {
        "time", "id", "trace", "address", "method", "path", "version", "route", "status", "bytes", "seconds"
    }  # fmt: skip
    assert (posted["method"], posted["path"], posted["route"]) == ("POST", f"/q/{queue}", "/q/{queue}")
    assert (got["status"], got["bytes"], got["address"]) == (200, len(answer.content), "127.0.0.1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", got["time"])
    assert 0 <= got["seconds"] < 20
    assert (head["method"], head["bytes"]) == ("HEAD", 0)
    assert (lost["status"], lost["route"]) == (404, "*")


def test_a_request_keeps_its_id_or_is_given_one_and_errors_carry_it(
    logging_daemon: Daemon, log_path: Path, queue: str
) -> None:
    with logging_daemon.client() as http:
        kept = http.get(f"/q/{queue}", headers={"X-Request-Id": "abc-1.2:3"})
        given = [http.get(path).headers["X-Request-Id"] for path in (f"/q/{queue}", "/no/such", f"/q/{queue}?count=x")]
        refused = [
            http.get(f"/q/{queue}", headers={"X-Request-Id": odd}).headers["X-Request-Id"]
            for odd in ('"', "a b", "x" * 65, "{}")
        ]
    assert kept.headers["X-Request-Id"] == "abc-1.2:3"
    ids = [line["id"] for line in lines(log_path, 8)]
    assert ids == ["abc-1.2:3", *given, *refused]
    assert len(set(ids)) == 8


def test_no_value_and_no_secret_is_ever_logged(logging_daemon: Daemon, log_path: Path, queue: str) -> None:
    with logging_daemon.client() as http:
        http.post(f"/q/{queue}?authkey=s3cret-token", data={"value": "s3cret-value"})
        http.get(f"/q/{queue}", headers={"Authorization": "Bearer s3cret-token"})
        http.get(f"/q/{queue}", auth=("s3cret-user", "s3cret-password"))
        http.delete(f"/m/{queue}:1", params={"receipt": "s3cret-receipt"})
        http.get("/no/such", params={"x": "s3cret-value"}, headers={"Referer": "http://a/?s3cret-token"})
        http.post("/queue", json={"cmd": "s3cret-value"})
    stream = Comet(logging_daemon, f"/c/{queue}?authkey=s3cret-token")
    stream.close()
    with logging_daemon.connect() as connection:
        connection.sendall(b"GET /s3cret-value HTTP/1.1\r\ns3cret-token\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")
    lines(log_path, 8)
    for text in (log_path.read_text(), logging_daemon.log):
        assert [secret for secret in SECRETS if secret in text] == []


def test_a_stream_is_logged_when_it_begins_and_a_rejection_without_the_clients_data(
    logging_daemon: Daemon, log_path: Path, queue: str
) -> None:
    stream = Comet(logging_daemon, f"/sse/{queue}")
    (begun,) = lines(log_path, 1)
    assert (begun["route"], begun["status"], begun["bytes"]) == ("/sse/{queue}", 200, None)
    assert f"x-request-id: {begun['id']}" in stream.head.decode().lower()
    stream.close()
    with logging_daemon.connect() as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 ")
    refused = lines(log_path, 2)[1]
    assert refused["status"] >= 400
    assert {name for name, value in refused.items() if value is not None} == {"time", "address", "status"}


def test_a_client_that_disconnects_is_logged_as_499(logging_daemon: Daemon, log_path: Path, queue: str) -> None:
    with logging_daemon.get(f"/q/{queue}?wait=30"), logging_daemon.client() as http:
        wait_until(lambda: http.get(f"/stats/{queue}").json()["waiters"] == 1)
    wait_until(lambda: '"status":499' in log_path.read_text())
    (gone,) = [line for line in lines(log_path, 1) if line["status"] == 499]
    assert gone["route"] == "/q/{queue}"


def test_after_the_file_was_moved_away_the_next_line_is_in_a_new_file(logging_daemon: Daemon, log_path: Path) -> None:
    with logging_daemon.client() as http:
        http.get("/healthz")
        lines(log_path, 1)
        log_path.rename(log_path.with_suffix(".1"))
        http.get("/readyz")
        (after,) = lines(log_path, 1)
    assert after["path"] == "/readyz"
    assert len(log_path.with_suffix(".1").read_text().splitlines()) == 1


def test_the_common_format_ends_with_id_seconds_and_trace_id(private_folder: Path, redis: Redis) -> None:
    path = private_folder / "access.log"
    daemon = Daemon(private_folder, "--access-log", "common", "--access-log-file", str(path), redis=redis)
    with stopping(daemon):
        with daemon.connect() as connection:
            connection.sendall(b'GET /a"b?c HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: me\r\n' + TRACEPARENT)
            assert connection.recv(100).startswith(b"HTTP/1.1 404")
        wait_until(lambda: path.read_text().endswith("\n"))
    assert re.fullmatch(
        r"127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "
        r'"GET /a%22b HTTP/1\.1" 404 \d+ me \d\.\d{6} 0af7651916cd43dd8448eb211c80319c\n',
        path.read_text(),
    )


def test_a_forwarded_address_is_logged_in_its_canonical_form(private_folder: Path, redis: Redis) -> None:
    path = private_folder / "access.log"
    log = ["--access-log", "common", "--access-log-file", str(path)]
    daemon = Daemon(private_folder, *log, "--trusted-proxies", "127.0.0.1", redis=redis)
    with stopping(daemon), daemon.client() as http:
        http.get("/healthz", headers={"X-Forwarded-For": '10.0.0.1%" 200 <script> - -'})
        wait_until(lambda: path.read_text().endswith("\n"))
    assert path.read_text().startswith("10.0.0.1 - - [")


def test_without_a_file_lines_go_into_the_log(private_folder: Path, redis: Redis) -> None:
    daemon = Daemon(private_folder, "--access-log", "json", redis=redis)
    with stopping(daemon), daemon.client() as http:
        http.get("/healthz")
        wait_until(lambda: '[restmq.access#info] {"time":' in daemon.log)


def test_without_an_access_log_nothing_is_logged(daemon: Daemon, queue: str) -> None:
    with daemon.client() as http:
        assert "X-Request-Id" not in http.get(f"/q/{queue}", headers={"X-Request-Id": "me"}).headers
    assert queue not in daemon.log


def test_a_full_disk_does_not_stop_the_queue(private_folder: Path, redis: Redis, queue: str) -> None:
    daemon = Daemon(private_folder, "--access-log", "json", "--access-log-file", "/dev/full", redis=redis)
    with stopping(daemon), daemon.client() as http:
        for number in range(3):
            assert http.post(f"/q/{queue}", data={"value": "x"}).text == f"{queue}:{number + 1}\r\n"
        assert daemon.log.count("lines of the access log are lost") == 1
