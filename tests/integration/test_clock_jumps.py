"""The wall clock jumps by an hour, under a running server and under its Redis, as it does when it is corrected."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import ROOT, Comet, Daemon, Redis, environment, listeners, patched_twistd, stopping, wait_until

pytestmark = pytest.mark.needs("cc")

HOUR = 3600
BOTH_WAYS = pytest.mark.parametrize("jump", [-HOUR, HOUR], ids=["back", "forth"])
TWISTD = str(Path(sys.executable).with_name("twistd"))

ACL = """
[rest:consumer]
username = carla
password = right
"""


class WallClock:
    """The wall clock of the programs that are started with ``env``."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._path = folder / "clock"
        self._path.write_bytes(struct.pack("q", 0))
        self.env = {"LD_PRELOAD": str(library), "RESTMQ_TURNED_CLOCK": str(self._path)}

    def set(self, seconds: int) -> None:
        """Sets the clock this number of seconds ahead of the real time."""
        with self._path.open("r+b") as file:
            file.write(struct.pack("q", seconds))


@pytest.fixture(scope="session")
def clock_library(folder: Path) -> Path:
    library = folder / "turned_clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, ROOT / "tests" / "turned_clock.c"], check=True)
    return library


@pytest.fixture
def clock(private_folder: Path, clock_library: Path) -> WallClock:
    return WallClock(private_folder, clock_library)


def start(folder: Path, redis: Redis, clock: WallClock, *options: str, **settings: Any) -> Daemon:
    """A daemon with this clock, in a process of its own."""
    return Daemon(folder, *options, redis=redis, env=clock.env, **{"twistd": [TWISTD], **settings})


def add(daemon: Daemon, queue: str, **form: object) -> str:
    return httpx.post(f"{daemon.url}/q/{queue}", data={"value": "x", **form}).raise_for_status().text.strip()


def lease(daemon: Daemon, queue: str, seconds: float) -> None:
    httpx.get(f"{daemon.url}/q/{queue}", params={"lease": seconds}).raise_for_status()


def begin_to_wait(pool: ThreadPoolExecutor, daemon: Daemon, queue: str, seconds: int) -> Future[httpx.Response]:
    """A long poll of a client that is waiting now."""
    waiting = pool.submit(httpx.get, f"{daemon.url}/q/{queue}", params={"wait": seconds}, timeout=20)
    wait_until(lambda: httpx.get(f"{daemon.url}/stats/{queue}").json()["waiters"])
    return waiting


def assert_ends_in_time(waiting: Future[httpx.Response], seconds: int) -> None:
    assert waiting.result().status_code == 204
    assert waiting.result().elapsed.total_seconds() >= seconds


def assert_delivers(listener: Comet, key: str) -> None:
    assert json.loads(listener.lines(1)[0])["key"] == key


# The server's clock


@BOTH_WAYS
def test_the_timers_of_a_server_keep_their_time(
    private_folder: Path, private_redis: Redis, clock: WallClock, jump: int
) -> None:
    twistd = patched_twistd("from restmq.delivery import local", "local.KEEPALIVE_SECONDS = 3.0")
    daemon = start(private_folder, private_redis, clock, "--redis-timeout", "1", twistd=twistd)
    with stopping(daemon), ThreadPoolExecutor() as pool:
        idle = Comet(daemon, "/sse/idle")
        delayed, leased = add(daemon, "delayed", delay=2), add(daemon, "leased")
        lease(daemon, "leased", 2)
        consumers = {delayed: Comet(daemon, "/c/delayed"), leased: Comet(daemon, "/c/leased")}
        waiting = begin_to_wait(pool, daemon, "nothing", 2)
        clock.set(jump)
        for key, consumer in consumers.items():
            assert_delivers(consumer, key)
        assert_ends_in_time(waiting, 2)
        while idle.lines(1, b"\n") != [b":"]:  # the comment that keeps idle streams open
            pass
        private_redis.pause()
        assert httpx.get(f"{daemon.url}/q/q", timeout=20).status_code == 503
        private_redis.go_on()


@BOTH_WAYS
def test_access_limits_idempotency_keys_and_logs_go_on(
    private_folder: Path, redis: Redis, clock: WallClock, queue: str, jump: int
) -> None:
    (private_folder / "acl.conf").write_text(ACL)
    log = private_folder / "access.log"
    daemon = start(
        private_folder, redis, clock, "--acl", "acl.conf", "--access-log", "json", "--access-log-file", str(log)
    )
    with stopping(daemon), daemon.client() as http:

        def get(password: str) -> int:
            return http.get(f"/q/{queue}", auth=("carla", password)).status_code

        def add_once() -> str:
            answer = http.post(f"/q/{queue}", data={"value": "x"}, headers={"Idempotency-Key": queue})
            return answer.raise_for_status().text

        key = add_once()
        assert [get("wrong") for _ in range(9)] == [401] * 9
        clock.set(jump)
        assert add_once() == key
        assert [get("right"), get("right"), get("wrong"), get("right")] == [200, 204, 401, 429]
        wait_until(lambda: log.read_text().count(f"/q/{queue}") == 15)


KINDS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "asyncio": ([], {"twistd": [TWISTD, "--reactor=asyncio"]}),
    "workers": (["--workers", "2"], {"starts": "workers are ready"}),
    "collectd": ([], {"plugin": "collectd"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_long_polls_of_each_kind_of_server_end_in_time(
    private_folder: Path, redis: Redis, clock: WallClock, queue: str, kind: str
) -> None:
    options, settings = KINDS[kind]
    daemon = start(private_folder, redis, clock, *options, **settings)
    with stopping(daemon), ThreadPoolExecutor() as pool:
        waiting = begin_to_wait(pool, daemon, queue, 1)
        clock.set(-HOUR)
        assert_ends_in_time(waiting, 1)


def test_syslogd_notices_that_redis_does_not_answer(
    private_folder: Path, private_redis: Redis, clock: WallClock
) -> None:
    daemon = start(private_folder, private_redis, clock, "--no-udp", "--redis-timeout", "1", plugin="syslogd")
    with stopping(daemon):
        clock.set(-HOUR)
        private_redis.pause()
        with daemon.connect() as sender:
            sender.sendall(b"<14>hello\n")
            wait_until(lambda: "Redis has not answered for 1.0 s" in daemon.log)
        private_redis.go_on()
        wait_until(lambda: private_redis.command("EXISTS", "syslogd:127.0.0.1:1"))


def test_the_engine_gives_up_if_redis_does_not_answer(private_folder: Path, clock: WallClock) -> None:
    path = str(private_folder / "mute.sock")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.settimeout(20)
        mute.bind(path)
        mute.listen()
        engine = subprocess.Popen(
            [sys.executable, str(ROOT / "restmq_engine.py"), "-k", "--queue", "q", "--redis-socket", path],
            env=environment(**clock.env),
            stderr=subprocess.PIPE,
            text=True,
        )
        mute.accept()
        clock.set(-HOUR)
        assert "cannot be used" in engine.communicate(timeout=20)[1]
        assert engine.returncode == 1


# The clock of Redis


@pytest.fixture
def redis_with_clock(private_folder: Path, clock: WallClock) -> Iterator[Redis]:
    server = Redis(private_folder / "redis", env=clock.env)
    yield server
    server.stop()


@pytest.fixture
def daemon(private_folder: Path, redis_with_clock: Redis) -> Iterator[Daemon]:
    with stopping(Daemon(private_folder, redis=redis_with_clock)) as server:
        yield server


def test_leases_and_delays_end_when_the_clock_of_redis_says_so(daemon: Daemon, clock: WallClock) -> None:
    delayed, leased = add(daemon, "delayed", delay=HOUR), add(daemon, "leased")
    lease(daemon, "leased", HOUR)
    consumers = {delayed: Comet(daemon, "/c/delayed"), leased: Comet(daemon, "/c/leased")}
    clock.set(HOUR)
    for key, consumer in consumers.items():
        assert_delivers(consumer, key)


def test_a_clock_of_redis_that_was_wrong_for_a_while_delays_nothing_else(daemon: Daemon, clock: WallClock) -> None:
    with ThreadPoolExecutor() as pool:
        delayed = add(daemon, "delayed", delay=1)
        consumer, live = Comet(daemon, "/c/delayed"), Comet(daemon, "/c/live")
        clock.set(-HOUR)
        assert_ends_in_time(begin_to_wait(pool, daemon, "nothing", 2), 2)
        assert_delivers(live, add(daemon, "live"))
        clock.set(0)
        assert_delivers(consumer, delayed)


def test_broadcasts_that_are_held_back_for_another_server_go_on(
    private_folder: Path, daemon: Daemon, redis_with_clock: Redis, clock: WallClock
) -> None:
    with stopping(Daemon(private_folder, redis=redis_with_clock)) as hangs:
        consumer, other = Comet(daemon, "/c/q"), Comet(hangs, "/c/q")
        wait_until(lambda: listeners(redis_with_clock, "q") == 2)
        hangs.process.send_signal(signal.SIGSTOP)
        keys = [add(daemon, "q", value="x" * 30_000) for _ in range(5)]
        assert redis_with_clock.command("EXISTS", "q:held")
        clock.set(-HOUR)
        for key in keys:
            assert_delivers(consumer, key)
        hangs.process.send_signal(signal.SIGCONT)
        for key in keys:
            assert_delivers(other, key)


def test_the_age_of_a_message_is_not_negative(daemon: Daemon, clock: WallClock) -> None:
    add(daemon, "q")
    clock.set(-HOUR)
    assert httpx.get(f"{daemon.url}/stats/q").json()["oldest_age_seconds"] == 0
