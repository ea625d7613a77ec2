"""RestMQ behind real Sentinels: it follows the primary, and never writes to one that was replaced."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.sentinels import SentinelSet
from tests.servers import ROOT, Comet, Daemon, environment, free_port, refusal, stopping, wait_until

SECRET = "of-sentinels"


class Producer:
    """Posts numbered values, one after the other, until it is stopped.

    Attributes:
        answered: the values that were answered 200.
    """

    def __init__(self, daemon: Daemon, queue: str = "jobs") -> None:
        self.answered: list[str] = []
        self.refused = 0
        self._url = f"{daemon.url}/q/{queue}"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._produce, daemon=True)
        self._thread.start()

    def _produce(self) -> None:
        with httpx.Client(timeout=20, trust_env=False) as http:
            number = 0
            while not self._stopped.is_set():
                number += 1
                if http.post(self._url, data={"value": str(number)}).status_code == 200:
                    self.answered.append(str(number))
                else:
                    self.refused += 1

    def wait_for(self, count: int) -> None:
        """Waits until so many more values were answered 200."""
        wanted = len(self.answered) + count
        wait_until(lambda: len(self.answered) >= wanted, 60, "values are accepted")

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(30)


def take_all(http: httpx.Client, queue: str = "jobs") -> list[str]:
    taken: list[str] = []
    while (answer := http.get(f"/q/{queue}?count=1000")).status_code == 200:
        taken += [message["value"] for message in answer.json()]
    return taken


@pytest.fixture
def redis_set(private_folder: Path) -> Iterator[SentinelSet]:
    started = SentinelSet(private_folder / "set", password=SECRET)
    yield started
    started.stop()


def serve(folder: Path, redis_set: SentinelSet, *options: str, **more: str) -> Daemon:
    where = ("--redis-sentinel", redis_set.addresses)
    return Daemon(folder, *where, *options, env={"RESTMQ_SENTINEL_PASSWORD": SECRET}, **more)  # type: ignore[arg-type]


def has_run_scripts(redis_set: SentinelSet, port: int) -> bool:
    """Whether a Redis has run a script since it was started."""
    return "cmdstat_eval" in redis_set.servers[port].command("INFO", "commandstats")


def test_the_primary_is_followed_when_it_is_killed_and_when_it_comes_back(
    private_folder: Path, redis_set: SentinelSet
) -> None:
    daemon = serve(private_folder, redis_set, "--durable", "--replicas", "2")
    with stopping(daemon), daemon.client() as http:
        stream = Comet(daemon, "/c/news")
        old = redis_set.primary()
        producer = Producer(daemon)
        producer.wait_for(50)
        redis_set.servers[old].kill()
        new = redis_set.moved_from(old)
        wait_until(lambda: f"Redis is at 127.0.0.1:{new} now" in daemon.log)
        redis_set.servers[old].start()  # it thinks that it is the primary, until the Sentinels tell it
        wait_until(redis_set.is_whole, 60, "the old primary follows the new one")
        producer.wait_for(50)
        producer.stop()
        assert not has_run_scripts(redis_set, old)
        assert has_run_scripts(redis_set, new)
        wait_until(lambda: http.post("/q/news", data={"value": "after"}).status_code == 200)
        assert b"after" in stream.lines(1)[0]
        assert set(producer.answered) <= set(take_all(http))
        assert http.get("/readyz").status_code == 200
        assert "\nrestmq_redis_failovers_total 1.0\n" in http.get("/metrics").text


def test_a_planned_failover_loses_nothing_that_all_replicas_had(private_folder: Path) -> None:
    redis_set = SentinelSet(private_folder / "set", lag_seconds=0.3)
    daemon = Daemon(private_folder, "--redis-sentinel", redis_set.addresses, "--durable", "--replicas", "2")
    with stopping(daemon, redis_set), daemon.client() as http:
        producers = [Producer(daemon, f"jobs-{number}") for number in range(5)]
        for producer in producers:
            producer.wait_for(3)
        redis_set.failover()
        wait_until(redis_set.is_whole, 60, "all follow the new primary")
        for producer in producers:
            producer.wait_for(3)
        for number, producer in enumerate(producers):
            producer.stop()
            assert set(producer.answered) <= set(take_all(http, f"jobs-{number}"))


def test_a_planned_failover_with_paused_writes_loses_nothing(private_folder: Path, redis_set: SentinelSet) -> None:
    daemon = serve(private_folder, redis_set)
    with stopping(daemon), daemon.client() as http:
        producer = Producer(daemon)
        producer.wait_for(50)
        old = redis_set.primary()
        redis_set.servers[old].command("CLIENT", "PAUSE", "60000", "WRITE")

        def all_have_caught_up() -> bool:
            state = redis_set.servers[old].command("INFO", "replication")
            return len(set(re.findall(r"(?:master_repl_offset:|,offset=)(\d+)", state))) == 1

        wait_until(all_have_caught_up)
        redis_set.failover()
        redis_set.servers[old].command("CLIENT", "UNPAUSE")
        producer.wait_for(50)
        producer.stop()
        assert set(producer.answered) <= set(take_all(http))
        daemon.assert_no_tracebacks()


def test_all_programs_ask_the_sentinels(private_folder: Path, redis_set: SentinelSet) -> None:
    workers = serve(private_folder / "w", redis_set, "--workers", "2", starts="workers are ready")
    collectd = serve(private_folder / "c", redis_set, plugin="collectd")
    syslogd = serve(private_folder / "s", redis_set, "--no-udp", plugin="syslogd")
    engine = [sys.executable, str(ROOT / "restmq_engine.py"), "--redis-sentinel", redis_set.addresses]
    variables = environment(RESTMQ_SENTINEL_PASSWORD=SECRET)
    with stopping(workers, collectd, syslogd), workers.client() as http, collectd.client() as data:
        redis_set.failover()
        wait_until(lambda: http.post("/q/x", data={"value": "y"}).status_code == 200)
        produced = subprocess.run([*engine, "-k", "--queue", "x"], env=variables, capture_output=True, check=True)
        assert produced.stdout == b"y\n"
        putval = "PUTVAL h/p/t 1:2"
        posted = wait_until(lambda: data.post("/collectd/data", content=putval, headers={"Content-Type": "text/plain"}))
        assert posted.status_code == 200
        with syslogd.connect() as sender:
            sender.sendall(b"<1>a line\n")
        wait_until(lambda: http.get("/q/syslogd%3A127.0.0.1").status_code == 200)


def test_one_sentinel_is_enough_to_find_the_others(private_folder: Path) -> None:
    redis_set = SentinelSet(private_folder / "set")
    named = redis_set.sentinels[0]
    daemon = Daemon(private_folder, "--redis-sentinel", f"127.0.0.1:{named.port}")
    with stopping(daemon, redis_set), daemon.client() as http:
        old = redis_set.primary()
        listens = "cmd=subscribe"
        wait_until(lambda: all(listens in sentinel.command("CLIENT", "LIST") for sentinel in redis_set.sentinels))
        named.stop()
        redis_set.servers[old].kill()
        wait_until(lambda: redis_set.primary(1) != old, 60)
        wait_until(lambda: http.post("/q/x", data={"value": "y"}).status_code == 200, 30)
        named.start()


@pytest.mark.parametrize("wrong", ["name", "password", "address"])
def test_the_log_says_why_the_sentinels_do_not_help(private_folder: Path, redis_set: SentinelSet, wrong: str) -> None:
    addresses = redis_set.addresses if wrong != "address" else "127.0.0.1:1"
    name = ("--redis-master", "other") if wrong == "name" else ()
    secret = {"RESTMQ_SENTINEL_PASSWORD": "guessed" if wrong == "password" else SECRET}
    daemon = Daemon(private_folder, "--redis-sentinel", addresses, *name, env=secret, starts="waiting for the store")
    says = {
        "name": "it knows no primary 'other' (--redis-master)",
        "password": "WRONGPASS",
        "address": "no Sentinel says where it is (127.0.0.1:1: Connection was refused",
    }
    with stopping(daemon):
        wait_until(lambda: says[wrong] in daemon.log)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--redis-sentinel", "one", "--redis-host", "two"), "omit --redis-host"),
        (("--redis-sentinel", "one", "--redis-url", "redis://two"), "omit --redis-host"),
        (("--redis-sentinel", "one:x"), "--redis-sentinel 'one:x'"),
        (("--redis-master", "x"), "--redis-master needs --redis-sentinel"),
        (("--redis-sentinel", "one", "--embedded", "always"), "--embedded=always starts a private store"),
    ],
)
def test_a_daemon_does_not_start_on_contradictions(private_folder: Path, arguments: tuple[str, ...], says: str) -> None:
    assert says in refusal(private_folder, "restmq", "--port", str(free_port()), *arguments)
