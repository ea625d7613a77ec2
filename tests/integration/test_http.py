"""HTTP end to end: real sockets, a spawned daemon, and any bytes that a client could send."""

from __future__ import annotations

import gzip
import json
import re
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import Daemon, Redis, curl, stopping, wait_until

FORM = "Content-Type: application/x-www-form-urlencoded\r\n"


def exchange(daemon: Daemon, sent: bytes) -> bytes:
    """Sends the bytes and reads until the server closes."""
    with daemon.connect() as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def request(line: str, fields: str = "", body: bytes = b"", end: bool = True) -> bytes:
    """A request; a body is a form. ``end`` asks the server to close."""
    close = "Connection: close\r\n" if end else ""
    length = f"{FORM}Content-Length: {len(body)}\r\n" if body else ""
    return f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}{length}{close}\r\n".encode() + body


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]


def put(http: httpx.Client, queue: str, *messages: str) -> None:
    for message in messages:
        http.post(f"/q/{queue}", data={"value": message}).raise_for_status()


def take(http: httpx.Client, queue: str) -> Any:
    answer = http.get(f"/q/{queue}")
    return answer.json()["value"] if answer.status_code == 200 else answer.status_code


def in_redis(redis: Redis, value: bytes, queue: str) -> bool:
    """Whether the queue's newest message is these bytes."""
    key = redis.command("LINDEX", f"{queue}:queue", "0")
    stored: str = redis.command("GET", key)
    return stored.encode("utf-8", "surrogateescape") == value


# Methods


@pytest.mark.parametrize("path", ["/q/{}", "/?queue={}", "/q/{}?callback=cb"])
def test_head_never_takes_a_message(http: httpx.Client, queue: str, path: str) -> None:
    put(http, queue, "kept")
    answer = http.head(path.format(queue))
    assert answer.status_code == 200
    assert answer.content == b""
    assert take(http, queue) == "kept"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/q/x", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("/c/x", "GET, HEAD, OPTIONS"),
        ("/queue", "GET, HEAD, POST, OPTIONS"),
    ],
)
def test_options_and_405_list_the_allowed_methods(http: httpx.Client, path: str, allowed: str) -> None:
    answer = http.options(path)
    assert (answer.status_code, answer.content) == (204, b"")
    refusal = http.request("PATCH", path)
    assert refusal.status_code == 405
    assert sorted(answer.headers["Allow"].split(", ")) == sorted(allowed.split(", "))
    assert refusal.headers["Allow"] == answer.headers["Allow"]


def test_options_takes_no_message_and_may_ask_about_the_whole_server(
    http: httpx.Client, daemon: Daemon, queue: str
) -> None:
    put(http, queue, "kept")
    http.options(f"/q/{queue}")
    assert take(http, queue) == "kept"
    assert statuses(exchange(daemon, request("OPTIONS *"))) == [204]


def test_an_empty_queue_answers_204_without_body_and_length(daemon: Daemon, queue: str) -> None:
    head, _, body = exchange(daemon, request(f"GET /q/{queue}")).partition(b"\r\n\r\n")
    assert statuses(head) == [204]
    assert body == b""
    names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")]
    assert b"content-length" not in names
    assert b"content-type" not in names


def test_if_none_match_loses_no_message(http: httpx.Client, queue: str) -> None:
    put(http, queue, "one", "two")
    first = http.get(f"/q/{queue}", headers={"If-None-Match": "*"})
    assert first.json()["value"] == "one"
    assert "ETag" not in first.headers
    assert http.get(f"/q/{queue}", headers={"If-None-Match": '"x"', "If-Modified-Since": "x"}).json()["value"] == "two"


# Names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("{}+b", "{}+b"),
        ("{}%2Bb", "{}+b"),
        ("{}%2Fb%2fc", "{}/b/c"),
        ("{}%C3%A9%F0%9F%98%80", "{}é😀"),
        ("{}%25zz", "{}%zz"),
        ("{}%20b", "{} b"),
        ("{}&b=c;d", "{}&b=c;d"),
    ],
)
def test_a_queues_name_is_the_path_decoded_once(
    http: httpx.Client, daemon: Daemon, redis: Redis, queue: str, path: str, name: str
) -> None:
    added = exchange(daemon, request("POST /q/" + path.format(queue), body=b"value=x"))
    assert statuses(added) == [200], added
    assert redis.command("LLEN", f"{name.format(queue)}:queue") == 1
    taken = exchange(daemon, request("GET /q/" + path.format(queue)))
    assert json.loads(taken.partition(b"\r\n\r\n")[2])["value"] == "x"


@pytest.mark.parametrize("path", ["%", "%zz", "a%4", "%C3", "%ff", "%ED%A0%80", "%C0%AF", "%00", "%0A", "a%0d%0aX:y"])
def test_an_invalid_queue_name_in_the_path_gets_400(daemon: Daemon, path: str) -> None:
    for method, body in (("GET", b""), ("POST", b"value=x"), ("DELETE", b"")):
        received = exchange(daemon, request(f"{method} /q/{path}", body=body))
        assert statuses(received) == [400], received
        assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]


def test_an_invalid_queue_name_in_a_form_gets_400(daemon: Daemon) -> None:
    assert statuses(exchange(daemon, request("POST /", body=b"queue=%ff&value=x"))) == [400]
    assert statuses(exchange(daemon, request("GET /?queue=%ff"))) == [400]


# Values

EXACT = {
    "007": b"007",
    "blanks": b" x ",
    "1_000": b"1_000",
    "invalid UTF-8": b"\xff\xfe\x80",
    "emoji": "😀é".encode(),
    "control characters": b"a\0b\r\nc\x0b\x0c\x85",
    "empty": b"",
    "signs": b"+%2B&=",
    "a megabyte": b"x" * 1_000_000,
}


@pytest.mark.parametrize("value", EXACT.values(), ids=EXACT)
def test_a_value_keeps_its_bytes_in_a_form(http: httpx.Client, redis: Redis, queue: str, value: bytes) -> None:
    encoded = b"".join(b"%%%02x" % byte for byte in value)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert http.post(f"/q/{queue}", content=b"value=" + encoded, headers=form).status_code == 200
    assert in_redis(redis, value, queue)


@pytest.mark.parametrize("value", EXACT.values(), ids=EXACT)
def test_a_value_keeps_its_bytes_in_a_multipart_form(
    http: httpx.Client, redis: Redis, queue: str, value: bytes
) -> None:
    assert http.post(f"/q/{queue}", files={"value": ("photo.jpg", value)}).status_code == 200
    assert in_redis(redis, value, queue)


@pytest.mark.needs("curl")
def test_curls_forms_and_uploads_arrive(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    url = f"{daemon.url}/q/{queue}"
    curl("-d", "value=100%", url)
    curl("--data-urlencode", "value=a+b&c=é", url)
    curl("--form-string", "value= 007 ", url)
    curl("-H", "Transfer-Encoding: chunked", "-d", "value=chunked", url)
    curl("-H", "Expect: 100-continue", "-d", f"value={'x' * 100_000}", url)
    assert [take(http, queue) for _ in range(5)] == ["100%", "a+b&c=é", " 007 ", "chunked", "x" * 100_000]


# Connections


def test_three_pipelined_gets_take_three_messages_in_order(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    put(http, queue, "1", "2", "3", "4")
    get = request(f"GET /q/{queue}", end=False)
    received = exchange(daemon, get + get + request(f"GET /q/{queue}"))
    assert re.findall(rb'"value":"(.)"', received) == [b"1", b"2", b"3"]
    assert take(http, queue) == "4"


def test_a_hundred_pipelined_posts_sent_byte_by_byte_arrive_each_once(
    http: httpx.Client, daemon: Daemon, queue: str
) -> None:
    line = f"POST /q/{queue}"
    sent = b"".join(request(line, body=b"value=%d" % n, end=n == 99) for n in range(100))
    with daemon.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in range(len(sent)):
            connection.send(sent[byte : byte + 1])
        received = b""
        while part := connection.recv(65536):
            received += part
    assert statuses(received) == [200] * 100
    assert [take(http, queue) for _ in range(101)] == [*map(str, range(100)), 204]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 200_000, 431),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 500_000, 413),
        (b"FROB / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 501),
    ],
)
def test_a_refusal_is_json_and_closes_the_connection(
    http: httpx.Client, daemon: Daemon, queue: str, sent: bytes, status: int
) -> None:
    put(http, queue, "kept")
    received = exchange(daemon, sent + request(f"GET /q/{queue}"))
    assert statuses(received) == [status]
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in head + b"\r\n"
    assert json.loads(body)["error"].endswith(".")
    assert take(http, queue) == "kept"


def test_a_body_has_at_most_16_mib(http: httpx.Client, queue: str) -> None:
    most = 16 * 1024 * 1024
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert http.post(f"/q/{queue}", content=b"value=" + b"x" * (most - 6), headers=form).status_code == 200
    assert http.post(f"/q/{queue}", content=b"value=" + b"x" * (most - 5), headers=form).status_code == 413
    assert http.delete(f"/q/{queue}").status_code == 200


def test_slow_idle_and_excess_clients_are_disconnected(private_folder: Any, redis: Redis) -> None:
    daemon = Daemon(
        private_folder, "--request-timeout", "1", "--idle-timeout", "1", "--max-connections", "3", redis=redis
    )
    with stopping(daemon):
        assert statuses(exchange(daemon, b"GET / HTTP/1.1\r\nHost:")) == [408]
        assert exchange(daemon, b"") == b""
        idle = exchange(daemon, request("OPTIONS /", end=False))
        assert statuses(idle) == [204]
        kept = [daemon.connect() for _ in range(3)]
        for connection in kept:
            connection.sendall(request("OPTIONS /", end=False))
            assert statuses(connection.recv(1000)) == [204]
        with daemon.connect() as one_too_many:
            assert statuses(one_too_many.recv(1000)) == [503]
        for connection in kept:
            connection.close()
        wait_until(lambda: statuses(exchange(daemon, request("OPTIONS /"))) == [204], why="there is room again")


def test_a_client_that_reads_no_responses_is_not_read_either(http: httpx.Client, daemon: Daemon, queue: str) -> None:
    pages = request("GET /static/dashboard.css", end=False) * 1000
    with daemon.connect() as connection:
        connection.setblocking(False)
        sent = in_vain = 0
        while in_vain < 200:  # requests of another client, in each of which the server could have read on
            assert sent < 64 * 1024 * 1024, "the server reads on, and keeps all answers"
            try:
                sent += connection.send(pages[sent % len(pages) :])
                in_vain = 0
            except BlockingIOError:
                assert take(http, queue) == 204
                in_vain += 1


def test_a_pipelined_listener_ends_when_its_client_disconnects(daemon: Daemon, redis: Redis, queue: str) -> None:
    connection = daemon.connect()
    connection.sendall(request("OPTIONS /", end=False) + request(f"GET /c/{queue}", end=False) * 3)
    wait_until(lambda: redis.command("PUBSUB", "NUMSUB", f"{queue}:PUBSUB")[1] == 1, why="it listens")
    connection.close()
    wait_until(lambda: redis.command("PUBSUB", "NUMSUB", f"{queue}:PUBSUB")[1] == 0, why="it has gone")


# Requests that would take a message by accident


@pytest.mark.parametrize("header", ["Sec-Purpose: prefetch;prerender", "Purpose: prefetch", "X-Moz: prefetch"])
@pytest.mark.parametrize("path", ["/q/{}", "/?queue={}", "/q/{}?lease=60", "/c/{}", "/sse/{}"])
def test_a_prefetch_takes_no_message(http: httpx.Client, daemon: Daemon, queue: str, path: str, header: str) -> None:
    put(http, queue, "kept")
    refused = exchange(daemon, request(f"GET {path.format(queue)}", header + "\r\n"))
    assert statuses(refused) == [403]
    assert take(http, queue) == "kept"


@pytest.mark.parametrize("path", ["/q/{}", "/?queue={}", "/c/{}"])
def test_a_websocket_handshake_at_another_path_takes_no_message(
    http: httpx.Client, daemon: Daemon, queue: str, path: str
) -> None:
    put(http, queue, "kept")
    handshake = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    refused = exchange(daemon, request(f"GET {path.format(queue)}", handshake, end=False))
    assert statuses(refused) == [400]
    assert b"/ws/" in refused
    assert take(http, queue) == "kept"


def test_a_java_program_gets_errors_as_json_and_a_browser_as_a_page(http: httpx.Client) -> None:
    java = http.post("/q/x", data={"nothing": "x"}, headers={"Accept": "text/html, image/gif, image/jpeg, */*; q=.2"})
    assert (java.status_code, java.headers["Content-Type"]) == (400, "application/json")
    page = http.post("/q/x", data={"nothing": "x"}, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (page.status_code, page.headers["Content-Type"]) == (400, "text/html; charset=utf-8")


# Limits that show only with a real socket


def test_unread_responses_leave_no_memory_when_their_clients_have_gone(private_folder: Path, redis: Redis) -> None:
    daemon = Daemon(private_folder, "--redis-timeout", "60", redis=redis)
    with stopping(daemon), daemon.client() as http:
        octets = {"Content-Type": "application/octet-stream"}
        key = http.post("/q/unread", content=b"\1" * 8_000_000, headers=octets).text.strip()
        http.get(f"/m/{key}").raise_for_status()
        before = daemon.resident_bytes
        clients = [daemon.connect() for _ in range(5)]
        for client in clients:
            client.sendall(request(f"GET /m/{key}", end=False))
            assert client.recv(1), "the response, six times as long as the value, begins"
        assert daemon.resident_bytes > before + 100_000_000
        for client in clients:
            client.close()
        wait_until(lambda: daemon.resident_bytes < before + 50_000_000, why="the buffers are freed")


def test_a_listener_whose_machine_vanishes_is_noticed_by_keepalive(daemon: Daemon, queue: str) -> None:
    with daemon.connect() as connection:
        connection.sendall(request(f"GET /c/{queue}", end=False))
        assert statuses(connection.recv(1000)) == [200]
        ours, theirs = f":{daemon.port:04X}", f":{connection.getsockname()[1]:04X}"

        def timer() -> str:
            """The kind of timer of the connection on the server's side (proc_net_tcp.txt): 2 is keepalive."""
            for line in Path("/proc/net/tcp").read_text().splitlines():
                fields = line.split()
                if fields[1].endswith(ours) and fields[2].endswith(theirs):
                    return fields[5].partition(":")[0]
            return "no such connection"

        wait_until(lambda: timer() == "02", why="nothing is unacknowledged, and keepalive waits")


def test_a_compressed_message_is_stored_as_it_was(http: httpx.Client, redis: Redis, queue: str) -> None:
    value = b"\xff\0" + b"text " * 1000
    coded = {"Content-Encoding": "gzip", "Content-Type": "application/octet-stream"}
    assert http.post(f"/q/{queue}", content=gzip.compress(value), headers=coded).status_code == 200
    assert in_redis(redis, value, queue)
    refused = http.post(f"/q/{queue}", content=value, headers={**coded, "Content-Encoding": "br"})
    assert refused.status_code == 415
    assert "gzip or deflate" in refused.json()["error"]


def test_a_client_of_http_2_is_told_to_use_http_1(daemon: Daemon) -> None:
    received = exchange(daemon, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    assert b"HTTP/2 is not spoken here; use HTTP/1.1." in received
