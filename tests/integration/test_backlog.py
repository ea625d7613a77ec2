"""The backlog of a broadcast queue is delivered as fast as its consumers read."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.servers import Comet, Daemon, Redis, free_port, listeners, stopping, wait_until
from tests.ways import Out, as_raw_body, from_comet, from_compressed_websocket, from_events, from_websocket, value_in

MIB = 1 << 20
STREAMS: list[Out] = [from_comet, from_events, from_websocket, from_compressed_websocket]


@pytest.fixture(scope="module")
def daemon(module_folder: Path, redis: Redis) -> Iterator[Daemon]:
    """A daemon with default limits."""
    with stopping(Daemon(module_folder / "backlog", redis=redis)) as server:
        yield server


def big(number: int, size_bytes: int = MIB) -> bytes:
    """A text of this size, different for each number."""
    return (b"%d " % number * size_bytes)[:size_bytes]


def fill(daemon: Daemon, queue: str, count: int, size_bytes: int = MIB) -> list[str]:
    """Puts messages into the queue; returns the checksum of each."""
    for number in range(count):
        as_raw_body(daemon, queue, big(number, size_bytes))
    return [sum_of(big(number, size_bytes)) for number in range(count)]


def sum_of(value: bytes) -> str:
    return sha256(value).hexdigest()


def read_sums(comet: Comet, count: int) -> list[str]:
    """Reads this number of messages; returns the checksum of each."""
    return [sum_of(value_in(json.loads(comet.lines(1)[0]))) for _ in range(count)]


def never_read(daemon: Daemon, path: str) -> socket.socket:
    """A consumer that sends its request and never reads."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", daemon.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return connection


def peak_mib(daemon: Daemon) -> float:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.__name__)
def test_a_consumer_that_reads_gets_the_whole_backlog(daemon: Daemon, queue: str, stream: Out) -> None:
    expected = fill(daemon, queue, 8)
    assert [sum_of(value) for _, value in stream(daemon, queue, 8)] == expected


def test_a_backlog_beyond_all_limits_is_delivered_message_by_message(daemon: Daemon, queue: str) -> None:
    expected = fill(daemon, queue, 4, 15 * MIB)
    with contextlib.closing(Comet(daemon, f"/c/{queue}")) as comet:
        assert read_sums(comet, 4) == expected


def test_a_backlog_of_small_messages_is_delivered_in_order(daemon: Daemon, queue: str) -> None:
    with daemon.client() as http:
        for start in range(0, 5000, 1000):
            lines = "\n".join(f'"{number} {"x" * 1000}"' for number in range(start, start + 1000))
            headers = {"Content-Type": "application/x-ndjson"}
            http.post(f"/q/{queue}", content=lines, headers=headers).raise_for_status()
    numbers = [int(value.split()[0]) for _, value in from_comet(daemon, queue, 5000)]
    assert numbers == list(range(5000))


def test_messages_published_while_a_backlog_is_delivered_follow_it(daemon: Daemon, redis: Redis, queue: str) -> None:
    expected = fill(daemon, queue, 12)
    first = Comet(daemon, f"/c/{queue}")
    with ThreadPoolExecutor() as threads:
        reading = threads.submit(read_sums, first, 14)
        wait_until(lambda: redis.command("LLEN", f"{queue}:queue") < 12)
        as_raw_body(daemon, queue, big(77))
        as_raw_body(daemon, queue, big(78))
        assert reading.result(60) == [*expected, sum_of(big(77)), sum_of(big(78))]
    first.close()


def test_a_connected_consumer_that_reads_is_not_dropped_for_a_burst(daemon: Daemon, redis: Redis, queue: str) -> None:
    comet = Comet(daemon, f"/c/{queue}")
    wait_until(lambda: listeners(redis, queue))
    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(as_raw_body, daemon, queue, big(number)) for number in range(4)]
        came = read_sums(comet, 4)
        for each in sent:
            each.result()
    comet.close()
    assert sorted(came) == sorted(sum_of(big(number)) for number in range(4))


def test_a_consumer_that_reconnects_gets_the_backlog_of_the_meantime(daemon: Daemon, redis: Redis, queue: str) -> None:
    with daemon.client() as http:
        http.post(f"/p/{queue}", data={"history": 3}).raise_for_status()
    with contextlib.closing(Comet(daemon, f"/c/{queue}")) as comet:
        wait_until(lambda: listeners(redis, queue))
        as_raw_body(daemon, queue, b"before it left")
        comet.lines(1)
    wait_until(lambda: not listeners(redis, queue))
    expected = fill(daemon, queue, 8)
    with contextlib.closing(Comet(daemon, f"/c/{queue}?last_event_id={queue}:1")) as comet:
        assert read_sums(comet, 8) == expected


def test_consumers_of_several_daemons_all_get_the_whole_backlog(
    private_folder: Path, private_redis: Redis, queue: str
) -> None:
    # Each daemon keeps the pace of its own consumers only: the others' must have room for all.
    room = ("--max-unsent", str(8 << 20))
    daemons = [Daemon(private_folder / str(number), *room, redis=private_redis) for number in range(2)]
    with stopping(*daemons), daemons[0].client() as http:
        expected = fill(daemons[0], queue, 24)
        http.post(f"/control/{queue}", data={"status": "stop"}).raise_for_status()
        comets = [Comet(daemon, f"/c/{queue}") for daemon in daemons for _ in range(2)]
        wait_until(lambda: listeners(private_redis, queue) == 2)
        http.post(f"/control/{queue}", data={"status": "start"}).raise_for_status()
        with ThreadPoolExecutor() as threads:
            for found in threads.map(lambda comet: read_sums(comet, 24), comets):
                assert found == expected
        for comet in comets:
            comet.close()


@pytest.mark.parametrize("route", ["c", "sse"])
def test_a_consumer_that_never_reads_is_dropped_and_the_others_get_everything(
    private_folder: Path, private_redis: Redis, queue: str, route: str
) -> None:
    daemon = Daemon(private_folder, "--stall-timeout", "1", redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        expected = fill(daemon, queue, 48)
        http.post(f"/control/{queue}", data={"status": "stop"}).raise_for_status()
        before_mib = peak_mib(daemon)
        deaf = never_read(daemon, f"/{route}/{queue}")
        reader = Comet(daemon, f"/c/{queue}")
        wait_until(lambda: http.get(f"/stats/{queue}").json().get("consumers") == 2)
        http.post(f"/control/{queue}", data={"status": "start"}).raise_for_status()
        assert read_sums(reader, len(expected)) == expected
        assert daemon.log.count("was dropped") == 1
        assert peak_mib(daemon) - before_mib < 24
        reader.close()
        deaf.close()


def test_a_consumer_that_disconnects_while_the_backlog_waits_for_it_delays_no_other(
    private_folder: Path, private_redis: Redis, queue: str
) -> None:
    with stopping(Daemon(private_folder, "--stall-timeout", "80000", redis=private_redis)) as daemon:
        expected = fill(daemon, queue, 32)
        deaf = never_read(daemon, f"/c/{queue}")
        wait_until(lambda: private_redis.command("LLEN", f"{queue}:queue") < 32)
        left: list[int] = [33]

        def stands_still() -> bool:
            threading.Event().wait(0.5)  # what is looked for is a time without a change
            left.append(private_redis.command("LLEN", f"{queue}:queue"))
            return left[-4:] == [left[-1]] * 4

        wait_until(stands_still)
        assert left[-1] > 0
        reader = Comet(daemon, f"/c/{queue}")
        deaf.close()
        assert read_sums(reader, left[-1]) == expected[-left[-1] :]
        reader.close()
        assert "was dropped" not in daemon.log


@pytest.mark.needs("openssl")
def test_a_consumer_over_tls_gets_the_whole_backlog(private_folder: Path, private_redis: Redis, queue: str) -> None:
    (cert, key), port = Authority(private_folder).issue("localhost"), free_port()
    tls = f"ssl:{port}:privateKey={key}:certKey={cert}:interface=127.0.0.1"
    plain = f"tcp:{free_port()}:interface=127.0.0.1"
    daemon = Daemon(private_folder, "--endpoint", tls, "--endpoint", plain, "--stall-timeout", "1", redis=private_redis)
    daemon.port = int(plain.split(":")[1])
    trust = ssl._create_unverified_context()
    with stopping(daemon), trust.wrap_socket(socket.create_connection(("127.0.0.1", port), 20)) as deaf:
        expected = fill(daemon, queue, 32)
        deaf.sendall(f"GET /c/{queue} HTTP/1.0\r\n\r\n".encode())
        wait_until(lambda: private_redis.command("LLEN", f"{queue}:queue") < 32)
        wait_until(lambda: "was dropped" in daemon.log)
        left = private_redis.command("LLEN", f"{queue}:queue")
        assert left > 0
        with trust.wrap_socket(socket.create_connection(("127.0.0.1", port), 20)) as reader:
            reader.sendall(f"GET /c/{queue} HTTP/1.0\r\n\r\n".encode())
            with reader.makefile("rb") as lines:
                while lines.readline() != b"\r\n":
                    pass
                found = [sum_of(value_in(json.loads(lines.readline()))) for _ in range(left)]
        assert found == expected[-left:]
