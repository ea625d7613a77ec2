"""Statistics cover all workers, and all daemons on one Redis, whichever of them answers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.integration.test_dashboard import Watcher
from tests.integration.test_workers import workers_of
from tests.servers import Comet, Daemon, Redis, listeners, stopping, wait_until

#: However busy the machine: nobody is missing who does not hang.
PATIENT = ("--peer-timeout", "10")

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def two_workers(private_folder: Path, private_redis: Redis) -> Iterator[Daemon]:
    daemon = Daemon(private_folder, *PATIENT, "--workers", "2", "--metrics-queues", "2", redis=private_redis)
    with stopping(daemon):
        yield daemon


@pytest.fixture
def two_daemons(private_folder: Path, private_redis: Redis, request: pytest.FixtureRequest) -> Iterator[list[Daemon]]:
    """Two daemons with a peer timeout that tests may choose."""
    options = getattr(request, "param", PATIENT)
    daemons = [Daemon(private_folder / name, *options, redis=private_redis) for name in ("one", "two")]
    with stopping(*daemons):
        yield daemons


def get(daemon: Daemon, path: str) -> httpx.Response:
    """Sends a request on a new connection, which any of the workers may get."""
    with daemon.client() as http:
        return http.get(path)


def post(daemon: Daemon, queue: str, value: str = "x") -> None:
    with daemon.client() as http:
        assert http.post(f"/q/{queue}", data={"value": value}).status_code == 200


def scrape(daemon: Daemon) -> Series:
    found: Series = {}
    for family in parse(get(daemon, "/metrics").text):
        for sample in family.samples:
            series = sample.name, tuple(sorted(sample.labels.items()))
            assert series not in found, "each series is told once"
            found[series] = sample.value
    return found


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, tuple(sorted(labels.items()))]


POSTED = {"route": "/q/{queue}", "method": "POST", "status": "200"}


def posted(series: Series) -> float:
    return value(series, "restmq_http_request_duration_seconds_count", **POSTED)


class Counters:
    """The counters of successive scrapes."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.last: Series = {}

    def look(self) -> Series:
        series = scrape(self.daemon)
        for (name, labels), number in self.last.items():
            is_counter = name.endswith(("_total", "_count", "_bucket", "_sum"))
            if is_counter and not name.startswith(("process_", "python_")) and (name, labels) in series:
                assert series[name, labels] >= number, (name, labels)
        self.last |= series
        return series


def servers(daemon: Daemon, queue: str) -> dict[str, int]:
    """The number of the queue's consumers by process, as one process reports it."""
    counted: dict[str, int] = {}
    for consumer in get(daemon, f"/dashboard/consumers/{queue}").json()["consumers"]:
        counted[consumer["server"]] = counted.get(consumer["server"], 0) + 1
    return counted


def listen_to_both(daemon: Daemon, queue: str) -> list[Comet]:
    """Connects consumers until each worker has some."""
    streams: list[Comet] = []

    def listen() -> bool:
        streams.append(Comet(daemon, f"/c/{queue}"))
        return len(servers(daemon, queue)) == 2

    wait_until(listen)
    return streams


def test_every_worker_shows_the_samples_that_the_leader_takes(two_workers: Daemon, queue: str) -> None:
    with two_workers.client() as http:
        http.post(f"/q/{queue}", data={"value": "x"})
    wait_until(lambda: get(two_workers, f"/dashboard/samples/{queue}").json()["samples"], why="a sample has the queue")
    seen = set()
    for _ in range(10):  # each on a connection of its own, so at either worker
        samples = get(two_workers, f"/dashboard/samples/{queue}").json()["samples"]
        assert [samples[-1][name] for name in ("ready", "in", "out")] == [1, 1, 0]
        seen.add(samples[-1]["time"])
    later = get(two_workers, f"/dashboard/samples/{queue}").json()["samples"]
    assert seen <= {each["time"] for each in later}, "all samples are of one worker"


def test_every_worker_reports_the_consumers_of_all_workers(two_workers: Daemon, queue: str) -> None:
    streams = listen_to_both(two_workers, queue)
    pids = {int(server.rpartition(":")[2]) for server in servers(two_workers, queue)}
    assert pids == set(workers_of(two_workers))
    for _ in range(10):
        shown = get(two_workers, f"/dashboard/consumers/{queue}").json()
        assert shown["total"] == len(shown["consumers"]) == len(streams)
        assert get(two_workers, f"/stats/{queue}").json()["consumers"] == len(streams)
        assert value(scrape(two_workers), "restmq_consumers", queue="", transport="comet") == len(streams)
    for _ in range(4):
        watcher = Watcher(two_workers)
        watcher.until(queue, comet=len(streams), sse=0, waiters=0)
        watcher.stream.close()
    streams.pop().close()
    wait_until(lambda: get(two_workers, f"/stats/{queue}").json()["consumers"] == len(streams))
    for stream in streams:
        stream.close()


def test_counters_equal_the_clients_counts_and_never_decrease_even_across_reloads(
    two_workers: Daemon, private_redis: Redis
) -> None:
    counters = Counters(two_workers)
    for sent in range(1, 51):
        post(two_workers, f"queue-{sent % 5}")
        counters.look()
    wait_until(lambda: posted(counters.look()) == 50)
    published = queues_published(counters.look())
    assert sum(published.values()) == 50
    assert len(published) == 3, "two queues are told apart"
    # What a queue that is gone has added to the sum of the others stays in there, whichever worker adds up.
    gone = next(name for name in ("queue-1", "queue-2", "queue-3") if name not in published)
    private_redis.command("SREM", "QUEUESET", gone)
    assert queues_published(counters.look())[""] == 30

    for _ in range(20):
        post(two_workers, "queue-0")  # nobody asks before those who counted it are gone
    reload(two_workers, lambda: None)
    wait_until(lambda: posted(counters.look()) == 70)

    def go_on() -> None:
        nonlocal sent
        post(two_workers, "queue-0")
        sent += 1
        assert posted(counters.look()) <= sent

    sent = 70
    reload(two_workers, go_on)
    for _ in range(50):
        go_on()
    wait_until(lambda: posted(counters.look()) == sent)
    series = counters.look()
    assert queues_published(series)[""] >= 30
    with two_workers.client(headers={"Accept": "application/openmetrics-text"}) as http:
        assert list(parse_openmetrics(http.get("/metrics").text))
    for worker in ("1", "2"):
        assert value(series, "process_resident_memory_bytes", worker=worker) > 0


def queues_published(series: Series) -> dict[str, float]:
    name = "restmq_messages_published_total"
    return {dict(labels)["queue"]: number for (found, labels), number in series.items() if found == name}


def reload(daemon: Daemon, meanwhile: Callable[[], None]) -> None:
    before, times = set(workers_of(daemon)), daemon.log.count("all workers are replaced")
    daemon.process.send_signal(signal.SIGHUP)

    def reloaded() -> bool:
        meanwhile()
        after = set(workers_of(daemon))
        return len(after) == 2 and not after & before and daemon.log.count("all workers are replaced") > times

    wait_until(reloaded)


def test_counters_do_not_decrease_when_a_worker_is_killed(two_workers: Daemon) -> None:
    counters = Counters(two_workers)
    for _ in range(10):
        post(two_workers, "jobs")
    wait_until(lambda: posted(counters.look()) == 10)
    for killed in workers_of(two_workers):
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda killed=killed: len(workers_of(two_workers)) == 2 and killed not in workers_of(two_workers))
        wait_until(lambda: {sample[1] for sample in counters.look() if "process_open_fds" in sample} >= BOTH)
    for _ in range(10):
        post(two_workers, "jobs")
    wait_until(lambda: posted(counters.look()) == 20)


BOTH = {(("worker", "1"),), (("worker", "2"),)}


def test_without_redis_the_counters_of_workers_are_absent_and_continue_when_it_is_back(
    two_workers: Daemon, private_redis: Redis
) -> None:
    counters = Counters(two_workers)
    for _ in range(10):
        post(two_workers, "jobs")
    wait_until(lambda: posted(counters.look()) == 10)
    private_redis.kill()
    wait_until(lambda: value(scrape(two_workers), "restmq_redis_up") == 0)
    for _ in range(5):
        assert not [name for name, _ in scrape(two_workers) if name.startswith("restmq_http_request")]
        assert get(two_workers, "/dashboard/consumers/jobs").status_code == 200
    private_redis.start()
    wait_until(lambda: get(two_workers, "/readyz").status_code == 200)
    wait_until(lambda: {sample[1] for sample in counters.look() if "process_open_fds" in sample} >= BOTH)
    for _ in range(10):
        wait_until(lambda: accepted(two_workers))
    wait_until(lambda: posted(counters.look()) == 20)


def accepted(daemon: Daemon) -> bool:
    with daemon.client() as http:
        return http.post("/q/jobs", data={"value": "x"}).status_code == 200


@contextlib.contextmanager
def waiting(daemon: Daemon, queue: str) -> Iterator[None]:
    with daemon.get(f"/q/{queue}?wait=30"):
        yield


def test_daemons_report_each_others_consumers_and_waiters(
    two_daemons: list[Daemon], private_redis: Redis, queue: str
) -> None:
    one, two = two_daemons
    streams = [Comet(one, f"/c/{queue}"), Comet(two, f"/sse/{queue}"), Comet(two, f"/c/{queue}")]
    wait_until(lambda: listeners(private_redis, queue) == 2)
    with waiting(one, queue), waiting(two, queue), waiting(two, "elsewhere"):
        for daemon in two_daemons:
            wait_until(lambda daemon=daemon: numbers(daemon, queue) == (3, 2))
            assert numbers(daemon, "elsewhere") == (0, 1)
            assert len(servers(daemon, queue)) == 2
            watcher = Watcher(daemon)
            watcher.until(queue, comet=2, sse=1, waiters=2)
            watcher.until("elsewhere", comet=0, waiters=1)
            watcher.stream.close()
            with daemon.client() as http:
                told = http.post("/queue", json={"cmd": "stats", "queue": queue}).json()
            assert (told["consumers"], told["waiters"]) == (3, 2)
        # What Prometheus is told is each server's own: it adds them up itself.
        own = [value(scrape(daemon), "restmq_consumers", queue="", transport="comet") for daemon in two_daemons]
        assert own == [1, 1]
    for stream in streams:
        stream.close()
    wait_until(lambda: all(numbers(daemon, queue) == (0, 0) for daemon in two_daemons))


def numbers(daemon: Daemon, queue: str) -> tuple[int, int]:
    told = get(daemon, f"/stats/{queue}").json()
    return told["consumers"], told["waiters"]


@pytest.mark.parametrize("two_daemons", [("--peer-timeout", "0.2")], indirect=True)
def test_a_daemon_that_hangs_is_left_out_and_delays_no_answer_beyond_the_timeout(
    two_daemons: list[Daemon], queue: str
) -> None:
    one, two = two_daemons
    streams = [Comet(daemon, f"/c/{queue}") for daemon in two_daemons]
    wait_until(lambda: numbers(one, queue) == (2, 0))
    two.process.send_signal(signal.SIGSTOP)
    try:
        watcher = Watcher(one)
        watcher.until(queue, comet=1)
        assert numbers(one, queue) == (1, 0)
        assert len(servers(one, queue)) == 1
        assert scrape(one)
        watcher.stream.close()
    finally:
        two.process.send_signal(signal.SIGCONT)
    for daemon in two_daemons:
        wait_until(lambda daemon=daemon: numbers(daemon, queue) == (2, 0))
    for stream in streams:
        stream.close()


def test_daemons_find_each_other_again_when_redis_was_away(
    two_daemons: list[Daemon], private_redis: Redis, queue: str
) -> None:
    streams = [Comet(daemon, f"/c/{queue}") for daemon in two_daemons]
    wait_until(lambda: numbers(two_daemons[0], queue) == (2, 0))
    private_redis.kill()
    for daemon in two_daemons:
        wait_until(lambda daemon=daemon: len(servers(daemon, queue)) == 1)
    private_redis.start()
    for daemon in two_daemons:
        wait_until(lambda daemon=daemon: told(daemon, queue) == 2)
    for stream in streams:
        stream.close()


def told(daemon: Daemon, queue: str) -> int:
    return int(get(daemon, f"/dashboard/consumers/{queue}").json()["total"])


def test_invalid_messages_on_the_channels_do_no_harm(
    two_daemons: list[Daemon], private_redis: Redis, queue: str
) -> None:
    said: list[Any] = ["", "{}", "[", "\x00", '{"by":"0123456789abcdef","kind":"listeners","ask":true,"about":7}',
                       '{"by":"0123456789abcdef","kind":"consumers","ask":true,"about":{}}',
                       '{"by":"0123456789abcdef","kind":"queues","answer":[1,2,3]}']  # fmt: skip
    wait_until(lambda: private_redis.command("PUBSUB", "NUMSUB", "RESTMQ-PEERS:0")[1] == 2)
    assert [private_redis.command("PUBLISH", "RESTMQ-PEERS:0", each) for each in said] == [2] * len(said)
    stream = Comet(two_daemons[0], f"/c/{queue}")
    for daemon in two_daemons:
        wait_until(lambda daemon=daemon: numbers(daemon, queue) == (1, 0))
    stream.close()


def test_daemons_ask_once_a_second_for_all_queues_and_not_at_all_without_watchers(
    two_daemons: list[Daemon], private_redis: Redis
) -> None:
    streams = [Comet(two_daemons[1], f"/c/queue-{number}") for number in range(20)]

    def published() -> int:
        stats = private_redis.command("INFO", "commandstats")
        found = [line for line in stats.splitlines() if line.startswith("cmdstat_publish:")]
        return int(found[0].split("calls=")[1].split(",")[0]) if found else 0

    watcher = Watcher(two_daemons[0])
    for number in range(20):
        watcher.until(f"queue-{number}", comet=1)
    before, looks = published(), 0
    while looks < 3:
        looks += watcher.next() == "change"
    asked = published() - before
    assert asked <= 2 * (looks + 1), "a question and an answer a look"
    watcher.stream.close()
    for stream in streams:
        stream.close()
