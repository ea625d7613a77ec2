"""Several workers behind one port: they share it, are replaced one by one, and are restarted when killed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import Comet, Daemon, Redis, command_lines, free_port, listeners, refusal, stopping, wait_until


def workers_of(daemon: Daemon) -> list[int]:
    """The process numbers of the workers."""
    return [pid for pid, line in command_lines(daemon.process.pid).items() if "twistd" in line]


@pytest.fixture(scope="module")
def shared(module_folder: Path, redis: Redis) -> Iterator[Daemon]:
    with stopping(Daemon(module_folder / "workers", "--workers", "2", redis=redis)) as daemon:
        yield daemon
    assert not workers_of(daemon)


@pytest.fixture
def two(shared: Daemon) -> Daemon:
    """A daemon with two workers, which tests may replace and kill."""
    wait_until(lambda: len(workers_of(shared)) == 2 and all(answered_by(shared, pid) for pid in workers_of(shared)))
    return shared


def said(daemon: Daemon, words: str) -> Callable[[], int]:
    """Counts how often the log says this from now on."""
    before = daemon.log.count(words)
    return lambda: daemon.log.count(words) - before


def answered_by(daemon: Daemon, pid: int) -> bool:
    """Whether this worker serves a new connection."""
    with daemon.connect() as connection:
        port = connection.getsockname()[1]
        connection.sendall(b"GET /stats/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        inodes = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{daemon.port:04X}") and fields[2].endswith(f":{port:04X}"):
                return f"socket:[{fields[9]}]" in inodes
        return False


def test_both_workers_serve_the_port_and_share_a_queue(two: Daemon, queue: str) -> None:
    pids = workers_of(two)
    assert len(pids) == 2
    for pid in pids:
        wait_until(lambda pid=pid: answered_by(two, pid))
    sent = []
    for number in range(20):
        with two.client() as http:  # each on a connection of its own
            sent.append(http.post(f"/q/{queue}", data={"value": str(number)}).text.strip())
    with two.client() as http:
        assert [message["key"] for message in http.get(f"/q/{queue}?count=100").json()] == sent


def test_a_consumer_of_one_worker_gets_messages_published_through_the_other(two: Daemon, queue: str) -> None:
    streams = [Comet(two, f"/c/{queue}") for _ in range(6)]
    for value in "abc":
        with two.client() as http:
            http.post(f"/q/{queue}", data={"value": value})
    for stream in streams:
        values = b"".join(stream.lines(1))
        assert b'"value":"' in values
        stream.close()


def test_at_sighup_new_workers_take_over_and_no_connection_is_refused(two: Daemon, queue: str) -> None:
    before = set(workers_of(two))
    replaced = said(two, "all workers are replaced")
    statuses: list[int] = []
    failures: list[Exception] = []
    done = threading.Event()

    def keep_posting() -> None:
        while not done.is_set():
            try:
                answer = httpx.post(f"{two.url}/q/{queue}", data={"value": "x"}, timeout=20)
                statuses.append(answer.status_code)
            except httpx.HTTPError as failure:
                failures.append(failure)

    threads = [threading.Thread(target=keep_posting) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(statuses) > 20)
    two.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(after := set(workers_of(two))) == 2 and not after & before)
    more = len(statuses) + 20
    wait_until(lambda: len(statuses) > more)
    done.set()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert set(statuses) == {200}
    with two.client() as http:
        assert http.get(f"/stats/{queue}").json()["len"] == len(statuses)
    assert replaced()


def test_a_worker_that_is_killed_is_started_again(two: Daemon, queue: str) -> None:
    killed = workers_of(two)[0]
    started_again = said(two, "started again")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: len(workers_of(two)) == 2 and killed not in workers_of(two))
    wait_until(started_again)
    for _ in range(10):  # connections that come meanwhile wait for it
        assert httpx.post(f"{two.url}/q/{queue}", data={"value": "x"}, timeout=20).status_code == 200


def test_a_worker_that_dies_while_it_is_replaced_is_not_started_twice(two: Daemon, queue: str) -> None:
    before = workers_of(two)
    replaced, started_again = said(two, "all workers are replaced"), said(two, "it is started again")
    two.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(workers_of(two)) > 2)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(replaced)
    wait_until(lambda: started_again() == 2 or len(workers_of(two)) == 2)
    two.process.send_signal(signal.SIGHUP)
    wait_until(lambda: replaced() == 2)
    wait_until(lambda: len(workers_of(two)) == 2)
    assert not set(workers_of(two)) & set(before)


def test_while_redis_is_away_the_log_repeats_nothing(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder, "--workers", "2", redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        streams = [Comet(daemon, f"/c/{queue}") for queue in ("a", "b", "c")]
        wait_until(lambda: all(listeners(private_redis, queue) for queue in ("a", "b", "c")))
        private_redis.kill()
        wait_until(lambda: daemon.log.count("cannot be used: ") == 2)
        for _ in range(3):
            assert "restmq_redis_up 0.0" in http.get("/metrics").text
        log = daemon.log
        private_redis.start()
        for stream in streams:
            stream.close()
    lines = log[log.index("cannot be used: ") :].splitlines()[1:]
    texts = [line.partition("] ")[2] for line in lines]
    assert len(texts) == len(set(texts)), texts
    assert not any("not reachable" in text for text in texts), texts


def test_workers_end_when_their_supervisor_is_killed(private_folder: Path, redis: Redis) -> None:
    daemon = Daemon(private_folder, "--workers", "2", redis=redis)
    pids = workers_of(daemon)
    daemon.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_workers_share_a_private_store(private_folder: Path) -> None:
    options = ("--workers", "2", "--embedded", "always", "--data-dir", str(private_folder / "data"), "--durable")
    with stopping(Daemon(private_folder, *options)) as daemon:
        for _ in range(6):
            with daemon.client() as http:
                assert http.post("/q/test", data={"value": "x"}).status_code == 200
        with daemon.client() as http:
            assert http.get("/stats/test").json()["len"] == 6


def test_an_address_in_use_is_reported(private_folder: Path, redis: Redis, daemon: Daemon) -> None:
    options = ("--workers", "2", "--port", str(daemon.port), "--embedded", "never")
    assert f"can't listen on 127.0.0.1:{daemon.port}" in refusal(private_folder, "restmq", *options)


def test_workers_and_endpoints_exclude_each_other(private_folder: Path) -> None:
    refused = refusal(private_folder, "restmq", "--workers", "2", "--endpoint", f"tcp:{free_port()}")
    assert "--endpoint is for a single process" in refused
