"""``restmq move`` between two real servers: all arrives, in order and once, wherever it is interrupted."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.clusters import Cluster
from tests.proxy import Proxy
from tests.servers import ROOT, Comet, Daemon, Redis, stopping, wait_until

BINARY = bytes(range(256)) * 3
OCTETS = {"Content-Type": "application/octet-stream"}
DAY_MS = 86_400_000


class Trap(Proxy):
    """A proxy that ends a connection at the last of a number of requests: before the server gets it, or as it answers.

    Attributes:
        spring: called then.
    """

    spring: Callable[[], None] | None = None

    def set(self, spring: Callable[[], None], request: bytes, number: int, *, answered: bool) -> None:
        self._request, self._remaining, self._answered = request, number, answered
        self.spring = spring

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: asyncio.StreamWriter | None = None
    ) -> None:
        is_request = answers is not None
        try:
            while data := await reader.read(65536):
                if self.spring is not None:
                    self._remaining -= is_request and data.startswith(self._request)
                    if self._remaining <= 0 and is_request != self._answered:
                        self.spring()
                        self.spring = None
                        return
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


class Pair:
    """A server to move from and a server to move to."""

    target_redis: Redis

    def __init__(self, folder: Path, source: Daemon, target: Daemon) -> None:
        self.source, self.target = source, target
        self._folder = folder
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)}

    def start(self, *arguments: str, stderr: int = subprocess.PIPE, **env: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "restmq", "move", "--from", self.source.url, "--to", self.target.url]
        return subprocess.Popen(
            [*command, *arguments],
            env=self._env | env,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )

    def move(self, *arguments: str, **env: str) -> tuple[int, str]:
        """Moves. Returns the exit status, and the errors or, if there are none, the output."""
        return ended(self.start(*arguments, **env))


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    out, errors = process.communicate(timeout=120)
    assert b"Traceback" not in (errors or b""), errors.decode()
    return process.returncode, (errors or out).decode()


@pytest.fixture(scope="module")
def pair(module_folder: Path) -> Iterator[Pair]:
    redises = [Redis(module_folder / f"move-{side}") for side in ("from", "to")]
    daemons = [Daemon(redis.folder, redis=redis) for redis in redises]
    with stopping(*daemons, *redises):
        found = Pair(module_folder, *daemons)
        found.target_redis = redises[1]
        yield found


@pytest.fixture
def source(pair: Pair) -> Iterator[httpx.Client]:
    with pair.source.client() as client:
        yield client


@pytest.fixture
def target(pair: Pair) -> Iterator[httpx.Client]:
    with pair.target.client() as client:
        yield client


def path(route: str, queue: str) -> str:
    return f"/{route}/{quote(queue, safe='')}"


def add(http: httpx.Client, queue: str, *values: bytes, query: str = "") -> None:
    for value in values:
        if value:
            answer = http.post(path("q", queue) + query, content=value, headers=OCTETS)
        else:
            answer = http.post(path("q", queue) + query, data={"value": ""})
        assert answer.status_code == 200, answer.text


def add_dead(http: httpx.Client, queue: str, *values: bytes) -> None:
    """Has deliveries fail; the queue is empty and has ``max_deliveries=1``."""
    for value in values:
        add(http, queue, value)
        message = http.get(path("q", queue) + "?lease=30").json()
        assert http.post(path("m", message["key"]), data={"receipt": message["receipt"], "lease": 0}).is_success


def value_of(message: dict[str, Any]) -> bytes:
    text: str = message["value"]
    return base64.b64decode(text) if "encoding" in message else text.encode()


def ready(http: httpx.Client, queue: str) -> list[bytes]:
    """Takes all ready messages."""
    taken: list[bytes] = []
    while (answer := http.get(path("q", queue) + "?count=1000")).status_code == 200:
        taken += [value_of(message) for message in answer.json()]
    return taken


def resting(http: httpx.Client, queue: str, place: str) -> list[dict[str, Any]]:
    answer = http.get(path("j", queue) + f"?list={place}&count=100", headers={"Accept": "application/json"})
    return list(answer.json()["messages"])


def stats(http: httpx.Client, queue: str) -> dict[str, Any]:
    return dict(http.get(path("stats", queue)).json())


def held(http: httpx.Client, queue: str) -> int:
    found = stats(http, queue)
    return sum(found[name] for name in ("ready", "leased", "delayed", "dead"))


VALUES = [b"%d" % number for number in range(230)] + [BINARY, b"", "ü 😀\r\n".encode(), b"x" * (1 << 20)]


def fill(http: httpx.Client, queue: str) -> None:
    """Makes a queue with settings, dead letters, delayed and ready messages."""
    http.post(path("p", queue), data={"policy": "roundrobin", "max_deliveries": 1, "lease": 77})
    add_dead(http, queue, b"dead 1", BINARY, b"dead 3")
    add(http, queue, b"later 2", query="?delay=7200")
    add(http, queue, b"y" * 20_000, query="?delay=10800")
    add(http, queue, b"later 1", query="?delay=3600")
    add(http, queue, *VALUES)


def check(http: httpx.Client, queue: str) -> None:
    """The queue has all that ``fill`` made, in order and once."""
    settings = http.get(path("p", queue)).json()
    assert settings == {"queue": queue, "value": "roundrobin", "max_deliveries": 1, "lease": 77}
    assert [value_of(message) for message in resting(http, queue, "dead")] == [b"dead 1", BINARY, b"dead 3"]
    assert [message["size"] for message in resting(http, queue, "delayed")] == [7, 7, 20_000]
    assert ready(http, queue) == VALUES
    assert held(http, queue) == 6


# All of a queue


@pytest.mark.parametrize("name", ["plain", "a/b ü:7?&#%2F", "}odd{", "x" * 255])
def test_a_queue_arrives_as_it_was(pair: Pair, source: httpx.Client, target: httpx.Client, name: str) -> None:
    fill(source, name)
    status, shown = pair.move(name, "--json")
    assert (status, json.loads(shown)) == (
        0,
        [{"queue": name, "ready": len(VALUES), "delayed": 3, "dead": 3, "left": 0}],
    )
    assert held(source, name) == 0
    check(target, name)
    assert source.get(path("p", name)).json()["max_deliveries"] == 1


def test_headers_and_content_types_move_too(pair: Pair, source: httpx.Client, target: httpx.Client, queue: str) -> None:
    kept = {"headers": {"x-message-tenant": "Zürich"}, "content_type": "text/csv"}
    for query in ("", "?delay=3600", "?dead=true"):
        headers = {"Content-Type": "text/csv", "x-message-tenant": "Zürich".encode()}
        source.post(path("q", queue) + query, content=b"a,b", headers=headers).raise_for_status()
    assert pair.move(queue)[0] == 0
    found = [target.get(path("q", queue)).json(), *resting(target, queue, "delayed"), *resting(target, queue, "dead")]
    assert [{name: message[name] for name in kept} for message in found] == [kept] * 3


def test_delays_and_times_to_live_go_on(pair: Pair, source: httpx.Client, target: httpx.Client, queue: str) -> None:
    add(source, queue, b"delayed", query="?delay=3600&ttl=86400")
    add(source, queue, b"ready", query="?ttl=86400")
    key = resting(source, queue, "delayed")[0]["key"]
    before = source.get(path("m", key)).json()
    assert pair.move(queue)[0] == 0
    key = resting(target, queue, "delayed")[0]["key"]
    after = target.get(path("m", key)).json()
    minute_ms = 60_000
    assert abs(after["due"] - before["due"]) < minute_ms
    assert abs(after["expires"] - before["expires"]) < minute_ms
    leased = target.get(path("q", queue) + "?lease=9").json()
    assert leased["value"] == "ready"
    assert abs(leased["expires"] - before["expires"]) < minute_ms


def test_messages_move_into_another_queue_of_the_same_server_without_their_settings(
    pair: Pair, source: httpx.Client, queue: str
) -> None:
    source.post(f"/p/{queue}", data={"lease": "77"})
    for value in ("a", "b"):
        source.post(f"/q/{queue}", data={"value": value})
    source.post(f"/q/{queue}?delay=600", data={"value": "later"})
    other = f"{queue}-other"
    command = [sys.executable, "-m", "restmq", "move", queue, "--to-queue", other, "--url", pair.source.url]
    moved = subprocess.run(command, env=pair._env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (moved.returncode, moved.stderr) == (0, "")
    assert [source.get(f"/q/{other}").json()["value"] for _ in range(2)] == ["a", "b"]
    assert source.get(f"/stats/{other}").json()["delayed"] == 1
    assert source.get(f"/stats/{queue}").json()["ready"] == 0
    assert "lease" not in source.get(f"/p/{other}").json()


def test_without_names_all_queues_are_moved_and_a_stopped_one_stays_stopped(private_folder: Path) -> None:
    redises = [Redis(private_folder / side) for side in ("from", "to")]
    daemons = [Daemon(redis.folder, redis=redis) for redis in redises]
    pair = Pair(private_folder, *daemons)
    with stopping(*daemons, *redises), pair.source.client() as source, pair.target.client() as target:
        for number in range(5):
            add(source, f"q{number}", b"%d" % number)
        source.post("/control/q3", data={"status": "stop"})
        status, table = pair.move()
        assert (status, len(table.splitlines())) == (0, 6)
        for number in range(5):
            assert stats(target, f"q{number}")["status"] == (number != 3)
            assert ready(target, f"q{number}") == [b"%d" % number]
        assert pair.move("q1", "nowhere") == (1, f"restmq: there is no queue 'nowhere' at {pair.source.url}.\n")


def test_queues_move_from_one_redis_to_a_cluster_and_back(private_folder: Path) -> None:
    redis, cluster = Redis(private_folder / "redis"), Cluster(private_folder / "cluster", replicas=0)
    one = Daemon(redis.folder, redis=redis)
    many = Daemon(cluster.folder, "--redis-cluster", cluster.addresses)
    queues = ["jobs", "}odd", "{1}y", "a}b{c"]
    with stopping(one, many, redis, cluster), one.client() as source, many.client() as target:
        for name in queues:
            fill(source, name)
        assert Pair(private_folder, one, many).move()[0] == 0
        assert [held(source, name) for name in queues] == [0, 0, 0, 0]
        assert [held(target, name) for name in queues] == 4 * [len(VALUES) + 6]
        assert Pair(private_folder, many, one).move()[0] == 0
        for name in queues:
            check(source, name)


# Interruptions


@pytest.mark.parametrize(
    ("side", "request_begins", "number", "answered"),
    [
        ("target", b"POST /p/", 1, True),
        ("target", b"POST /q/", 2, True),
        ("source", b"POST /queue", 5, False),
        ("target", b"POST /q/", 7, False),
        ("target", b"POST /q/", 150, True),
        ("source", b"DELETE /m/", 1, False),
        ("source", b"DELETE /m/", 101, True),
        ("source", b"GET /q/", 3, True),
    ],
)
def test_a_move_that_is_killed_and_repeated_neither_loses_nor_doubles_a_message(
    pair: Pair,
    source: httpx.Client,
    target: httpx.Client,
    queue: str,
    side: str,
    request_begins: bytes,
    number: int,
    answered: bool,
) -> None:
    traps = [Trap(pair.source.port), Trap(pair.target.port)]
    fill(source, queue)
    urls = ("--from", f"http://127.0.0.1:{traps[0].port}", "--to", f"http://127.0.0.1:{traps[1].port}")
    with stopping(*traps):
        moving = pair.start(*urls, queue, "--lease", "2")
        trap = traps[side == "target"]
        trap.set(moving.kill, request_begins, number, answered=answered)
        assert ended(moving)[0] == -signal.SIGKILL
        assert held(source, queue) > 0
        assert pair.move(*urls, queue, "--lease", "2")[0] == 0
    assert held(source, queue) == 0
    check(target, queue)


@pytest.mark.parametrize(
    ("side", "request_begins", "number"),
    [
        ("target", b"POST /q/", 2),
        ("target", b"POST /q/", 20),
        ("source", b"POST /queue", 2),
        ("source", b"GET /q/", 2),
        ("source", b"DELETE /m/", 100),
    ],
)
def test_an_answer_that_gets_lost_neither_loses_nor_doubles_a_message_and_changes_no_order(
    pair: Pair,
    source: httpx.Client,
    target: httpx.Client,
    queue: str,
    side: str,
    request_begins: bytes,
    number: int,
) -> None:
    traps = {"source": Trap(pair.source.port), "target": Trap(pair.target.port)}
    fill(source, queue)
    lost = threading.Event()
    traps[side].set(lost.set, request_begins, number, answered=True)
    urls = ("--from", f"http://127.0.0.1:{traps['source'].port}", "--to", f"http://127.0.0.1:{traps['target'].port}")
    with stopping(*traps.values()):
        status, shown = ended(pair.start(*urls, queue, "--lease", "2", "--json", stderr=subprocess.DEVNULL))
    assert lost.is_set()
    moved = {"queue": queue, "ready": len(VALUES), "delayed": 3, "dead": 3, "left": 0}
    assert (status, json.loads(shown)) == (0, [moved])
    assert held(source, queue) == 0
    check(target, queue)


def test_an_interrupted_move_gives_messages_back_and_can_be_repeated(
    pair: Pair, source: httpx.Client, target: httpx.Client, queue: str
) -> None:
    fill(source, queue)
    moving = pair.start(queue)
    wait_until(lambda: stats(target, queue)["ready"])
    moving.send_signal(signal.SIGINT)
    assert ended(moving)[0] == 130
    assert stats(source, queue)["leased"] == 0
    assert source.get(path("p", queue)).json()["max_deliveries"] == 1
    assert pair.move(queue)[0] == 0
    check(target, queue)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_server_that_goes_away_ends_the_move_which_can_be_repeated(private_folder: Path, side: str) -> None:
    redises = [Redis(private_folder / name) for name in ("from", "to")]
    daemons = [Daemon(redis.folder, redis=redis) for redis in redises]
    pair = Pair(private_folder, *daemons)
    with stopping(*daemons, *redises):
        with pair.source.client() as source, pair.target.client() as target:
            fill(source, "jobs")
            moving = pair.start("jobs", "--retry", "0", "--lease", "2")
            wait_until(lambda: stats(target, "jobs")["ready"])
        dying = getattr(pair, side)
        dying.kill()
        status, errors = ended(moving)
        assert (status, dying.url in errors) == (5, True), errors
        dying.start()
        assert pair.move("jobs")[0] == 0
        with pair.source.client() as source, pair.target.client() as target:
            assert held(source, "jobs") == 0
            check(target, "jobs")


# Others who use the queues


def test_messages_that_arrive_during_a_move_are_moved_once(
    pair: Pair, source: httpx.Client, target: httpx.Client, queue: str
) -> None:
    add(source, queue, *VALUES)
    late = [b"late %d" % number for number in range(100)]
    with pair.source.client() as producer:
        producing = threading.Thread(target=add, args=(producer, queue, *late))
        producing.start()
        assert pair.move(queue)[0] == 0
        producing.join()
    assert pair.move(queue)[0] == 0
    assert ready(target, queue) == [*VALUES, *late]


def test_a_queue_with_consumers_is_not_moved_unless_forced(
    pair: Pair, source: httpx.Client, target: httpx.Client, queue: str
) -> None:
    consumer = Comet(pair.source, f"/c/{queue}")
    wait_until(lambda: stats(source, queue)["consumers"])
    add(source, queue, b"heard")
    assert consumer.lines(1)
    status, errors = pair.move(queue)
    assert (status, "1 consumers at the source" in errors) == (2, True), errors
    source.post(f"/control/{queue}", data={"status": "stop"})
    add(source, queue, b"kept")
    assert pair.move(queue)[0] == 0
    source.post(f"/control/{queue}", data={"status": "start"})
    add(source, queue, b"later", query="?delay=3600")
    assert pair.move(queue)[0] == 2
    assert pair.move(queue, "--force")[0] == 0
    consumer.close()
    assert ready(target, queue) == [b"kept"]
    assert [message["value"] for message in resting(target, queue, "delayed")] == ["later"]


def test_messages_leased_by_consumers_are_waited_for_and_keep_their_place(
    pair: Pair, source: httpx.Client, target: httpx.Client, queue: str
) -> None:
    add(source, queue, b"first", b"second", b"third")
    source.get(f"/q/{queue}?lease=2")
    assert pair.move(queue)[0] == 0
    assert ready(target, queue) == [b"first", b"second", b"third"]
    add(source, queue, b"held", b"free")
    source.get(f"/q/{queue}?lease=60")
    status, errors = pair.move(queue, "--wait", "0")
    assert (status, "1 messages are left" in errors) == (1, True)
    assert ready(target, queue) == [b"free"]


# Mistakes


def test_the_same_server_is_noticed_by_its_url_and_by_its_messages(
    pair: Pair, source: httpx.Client, queue: str, folder: Path
) -> None:
    add(source, queue, b"only")
    status, errors = pair.move(queue, "--to", pair.source.url + "/")
    assert (status, "are the same server" in errors) == (2, True), errors
    with stopping(Proxy(pair.source.port)) as other:
        status, errors = pair.move(queue, "--to", f"http://127.0.0.1:{other.port}")
    assert (status, "lead to the same queues" in errors) == (2, True), errors
    assert ready(source, queue) == [b"only"]


def test_credentials_of_the_source_are_not_sent_to_the_target(
    pair: Pair, source: httpx.Client, queue: str, private_folder: Path
) -> None:
    (private_folder / "acl.conf").write_text(
        "[rest:producer]\nusername = ann\npassword = s3cret\n[rest:consumer]\nusername = ann\npassword = s3cret\n"
    )
    redis = Redis(private_folder / "redis")
    closed = Daemon(private_folder, "--acl", str(private_folder / "acl.conf"), redis=redis)
    add(source, queue, b"x")
    with stopping(closed, redis):
        to = ("--to", closed.url)
        status, errors = pair.move(queue, *to, RESTMQ_USER="ann", RESTMQ_PASSWORD="s3cret")
        assert (status, errors.startswith(f"restmq: {closed.url}: ")) == (4, True), errors
        assert held(source, queue) == 1
        assert pair.move(queue, *to, RESTMQ_TO_USER="ann", RESTMQ_TO_PASSWORD="s3cret")[0] == 0
        with closed.client(auth=("ann", "s3cret")) as target:
            assert ready(target, queue) == [b"x"]


def test_settings_of_the_target_are_not_overwritten(
    pair: Pair, source: httpx.Client, target: httpx.Client, queue: str
) -> None:
    source.post(f"/p/{queue}", data={"lease": 60})
    target.post(f"/p/{queue}", data={"lease": 90, "max_length": 1000})
    add(target, queue, b"older")
    add(source, queue, b"x")
    status, errors = pair.move(queue)
    assert (status, f"lease of '{queue}' is 90 at the target, but 60 at the source" in errors) == (2, True), errors
    assert pair.move(queue, "--keep-settings")[0] == 0
    assert target.get(f"/p/{queue}").json() == {"queue": queue, "value": "broadcast", "lease": 90, "max_length": 1000}
    assert ready(target, queue) == [b"older", b"x"]


def test_a_message_that_the_target_rejects_stays_at_the_source(
    pair: Pair, source: httpx.Client, queue: str, private_folder: Path, private_redis: Redis
) -> None:
    small = Daemon(private_folder, "--max-body", "1000", redis=private_redis)
    add(source, queue, b"small", b"x" * 2000, b"behind")
    with stopping(small), small.client() as target:
        status, errors = pair.move(queue, "--to", small.url)
        assert (status, small.url in errors) == (3, True), errors
        assert ready(target, queue) == [b"small"]
    assert ready(source, queue) == [b"x" * 2000, b"behind"]


def test_a_progress_bar_is_shown_on_a_terminal(
    pair: Pair, source: httpx.Client, target: httpx.Client, queue: str
) -> None:
    target.post(f"/p/{queue}", data={"max_length": 200})
    add(source, queue, *VALUES)
    master, terminal = pty.openpty()
    moving = pair.start(queue, "--retry", "60", stderr=terminal)
    os.close(terminal)
    shown = b""
    while b"Retrying" not in shown:  # the target is full, so moving now takes long enough for a bar
        shown += os.read(master, 4096)
    wait_until(lambda: stats(target, queue)["ready"] == 200)
    assert ready(target, queue) == VALUES[:200]
    while b"100%" not in shown:
        shown += os.read(master, 4096)
    assert b"[###" in shown
    assert moving.wait(60) == 0
    os.close(master)
    assert ready(target, queue) == VALUES[200:]


# What the server offers for this


def test_a_dead_letter_can_be_added(target: httpx.Client, queue: str) -> None:
    def add_one(value: str, more: str = "") -> httpx.Response:
        headers = {"Idempotency-Key": "k1", **OCTETS}
        return target.post(f"/q/{queue}?dead=true{more}", content=value.encode(), headers=headers)

    first = add_one("one", "&ttl=86400")
    assert add_one("one", "&ttl=86400").text == first.text
    assert add_one("two").status_code == 409
    assert target.post(f"/q/{queue}", content=b"one", headers={"Idempotency-Key": "k1", **OCTETS}).status_code == 409
    assert target.post(f"/q/{queue}?dead=true", data={"value": "two"}).status_code == 200
    assert target.post(f"/q/{queue}?dead=true&delay=5", data={"value": "three"}).status_code == 200
    lines = {"Content-Type": "application/x-ndjson", "Idempotency-Key": "k2"}
    batch = target.post(f"/q/{queue}?dead=true", content=b'"four"\n"five"', headers=lines)
    assert target.post(f"/q/{queue}?dead=true", content=b'"four"\n"five"', headers=lines).json() == batch.json()
    letters = target.get(f"/d/{queue}").json()["messages"]
    assert [letter["value"] for letter in letters] == ["one", "two", "three", "four", "five"]
    assert batch.json()["keys"] == [letter["key"] for letter in letters[3:]]
    assert target.get(f"/m/{first.text.strip()}").json()["expires"] > letters[0]["died"]
    assert target.post(f"/d/{queue}").json()["redriven"] == 5
    assert ready(target, queue) == [b"one", b"two", b"three", b"four", b"five"]


def test_an_added_dead_letter_is_forwarded(pair: Pair, target: httpx.Client, queue: str) -> None:
    target.post(f"/p/{queue}", data={"dead_letter": queue + "-dead"})
    add(target, queue, b"x", query="?dead=true")
    pair.target_redis.make_due(queue)
    message = target.get(f"/q/{queue}-dead?wait=30").json()
    assert (message["value"], message["dead_letter"]["key"]) == ("x", f"{queue}:1")
