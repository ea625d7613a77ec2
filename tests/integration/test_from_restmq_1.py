"""Data of the first RestMQ, in its own layout and loaded from a dump, is delivered in every possible way."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.servers import ROOT, Comet, Daemon, Redis, free_port, listeners, stopping, wait_until
from tests.ways import WAYS_OUT, Out, path

PAGE = "docs/from-restmq-1.md"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) + b"\xff\xd9"


@dataclass(frozen=True)
class OldQueue:
    """A queue as the first RestMQ left it.

    Attributes:
        policy: the value of ``Q:queuepolicy``; None for no key.
        status: the value of ``queuestat::Q``; None for no key.
        taken: number of messages taken before; the first RestMQ could leave their values in Redis.
    """

    name: str
    values: tuple[bytes, ...]
    policy: str | None = None
    status: str | None = "1"
    taken: int = 0

    @property
    def messages(self) -> list[tuple[str, bytes]]:
        return [(f"{self.name}:{n}", value) for n, value in enumerate(self.values, self.taken + 1)]

    def commands(self) -> Iterator[tuple[str | bytes, ...]]:
        """The Redis commands that create this queue."""
        if self.taken + len(self.values):
            yield "SADD", "QUEUESET", self.name
            yield "SET", f"{self.name}:UUID", str(self.taken)
        if self.status is not None:
            yield "SET", f"queuestat::{self.name}", self.status
        if self.policy is not None:
            yield "SET", f"{self.name}:queuepolicy", self.policy
        for n in range(1, self.taken + 1):
            yield "SET", f"{self.name}:{n}", "was taken, and left behind"
        for key, value in self.messages:
            yield "INCR", f"{self.name}:UUID"
            yield "SET", key, value
            yield "LPUSH", f"{self.name}:queue", key


QUEUES = [
    OldQueue("plain", (b"first", b"second", b"third"), taken=7),
    OldQueue("broadcast", (b"one", b"two"), policy="1"),
    OldQueue("turns", (b"one", b"two"), policy="2"),
    OldQueue("stopped", (b"held back", b"for long"), policy="2", status="0"),
    OldQueue("no status", (b"x",), status=None),
    OldQueue("values", (b"007", b"1_000", b" x ", b"", "ü€😀".encode(), b"two\nlines", b'{"a": [1, null]}', JPEG)),
    OldQueue("a", (b"its key is a:1",)),
    OldQueue("a:1", (b"its key is a:1:1",)),
    OldQueue("a/b", (b"x",)),
    OldQueue("a%2Fb", (b"x",)),
    OldQueue("ü 😀", (b"x",)),
    OldQueue("plain:queue", (b"x",)),
    OldQueue("q" * 255, (b"x",)),
]
EMPTY = OldQueue("empty", (), policy="2", taken=3)
#: What no queue may be called any more; their data stays where it is.
REFUSED = [OldQueue(name, (b"unseen",)) for name in ("AUTHKEY:mine", "queuestat:x", "tab\tin it", "q" * 256)]
TOKENS = {"old": {"queues": ["plain"], "privs": ["create"]}, "none": {"queues": [], "privs": []}}


def old_data() -> list[tuple[str | bytes, ...]]:
    sent: list[tuple[str | bytes, ...]] = []
    for queue in [*QUEUES, EMPTY, *REFUSED]:
        sent += queue.commands()
    sent += [("SET", f"AUTHKEY:{token}", json.dumps(record)) for token, record in TOKENS.items()]
    sent.append(("SADD", "QUEUESET", b"latin-\xfc"))
    return [*sent, ("SET", "plain:8:refcount", "3")]


@pytest.fixture(scope="module")
def dump(module_folder: Path) -> Iterator[Path]:
    """A dump file with such data, written by a Redis."""
    with stopping(Redis(module_folder / "old", "--appendonly", "no")) as source:
        source.commands(old_data())
        assert source.command("SAVE") == "OK"
        yield module_folder / "old" / "dump.rdb"


@pytest.fixture
def loaded(private_folder: Path, dump: Path) -> Iterator[Redis]:
    """A Redis that has loaded the dump."""
    (private_folder / "r").mkdir()
    shutil.copy(dump, private_folder / "r")
    with stopping(Redis(private_folder / "r", "--appendonly", "no")) as redis:
        assert redis.command("SCARD", "QUEUESET") == len(QUEUES) + 1 + len(REFUSED) + 1
        yield redis


@pytest.fixture
def daemon(private_folder: Path, loaded: Redis) -> Iterator[Daemon]:
    with stopping(Daemon(private_folder / "d", redis=loaded)) as server:
        yield server


def label(policy: str | None) -> str:
    return "roundrobin" if policy == "2" else "broadcast"


def test_every_queue_is_listed_with_its_length_policy_and_status(http: httpx.Client) -> None:
    shown = {
        queue.name: {
            "name": queue.name,
            "len": len(queue.values),
            "status": int(queue.status != "0"),
            "policy": label(queue.policy),
        }
        for queue in [*QUEUES, EMPTY]
    }
    assert http.get("/stats/").json()["queues"] == shown
    assert http.get("/q/", headers={"Accept": "application/json"}).json()["queues"] == sorted(shown)
    assert set(http.get("/control/").json()["queues"]) == set(shown)
    page = http.get("/q/", headers={"Accept": "text/html"})
    assert (page.status_code, "no status" in page.text) == (200, True)
    for name, line in shown.items():
        assert http.get(path("p", name)).json() == {"queue": name, "value": line["policy"]}
        assert http.get(path("control", name)).json()["status"] == {"queue": name, "status": line["status"]}
        stats = http.get(path("stats", name)).json()
        assert (stats["len"], stats["status"], stats["policy"]) == (line["len"], line["status"], line["policy"])
        assert http.get(path("j", name), headers={"Accept": "text/html"}).status_code == 200


@pytest.mark.parametrize("way_out", WAYS_OUT, ids=lambda way_out: way_out.__name__)
def test_every_message_comes_out_in_order(daemon: Daemon, http: httpx.Client, loaded: Redis, way_out: Out) -> None:
    for queue in QUEUES:
        if queue.status == "0":  # so that those who listen get it too
            assert http.post(path("control", queue.name), data={"status": "start"}).status_code == 200
        assert way_out(daemon, queue.name, len(queue.values)) == queue.messages, queue.name
    for queue in [*QUEUES, EMPTY]:
        assert http.get(path("q", queue.name)).status_code == 204
        key = http.post(path("q", queue.name), data={"value": "new"}).text.strip()
        assert key == f"{queue.name}:{queue.taken + len(queue.values) + 1}", "numbers go on where they were"
        assert http.get(path("q", queue.name)).json() == {"key": key, "value": "new", "count": 0}
    left = loaded.keys()
    assert {key for queue in QUEUES for key, _ in queue.messages} & left == set()
    assert "plain:8:refcount" not in left


def test_a_stopped_queue_stays_stopped_and_can_still_be_taken_from(
    daemon: Daemon, http: httpx.Client, loaded: Redis
) -> None:
    comet = Comet(daemon, "/c/stopped")
    wait_until(lambda: listeners(loaded, "stopped"))
    assert http.get("/q/stopped").json()["value"] == "held back"
    http.post("/q/stopped", data={"value": "more"})
    assert http.get("/stats/stopped").json()["len"] == 2
    http.post("/control/stopped", data={"status": "start"})
    assert [json.loads(line)["value"] for line in comet.lines(2)] == ["for long", "more"]
    comet.close()


def test_peeks_are_counted_further(http: httpx.Client) -> None:
    assert http.post("/queue", json={"cmd": "get", "queue": "plain"}).json()["count"] == 4
    assert http.get("/q/plain").json() == {"key": "plain:8", "value": "first", "count": 4}


def test_round_robin_distributes_messages_and_broadcast_does_not(
    daemon: Daemon, loaded: Redis, http: httpx.Client
) -> None:
    for name, each in (("broadcast", [3, 3]), ("turns", [2, 1])):
        http.delete(path("q", name))
        comets = [Comet(daemon, path("c", name)) for _ in range(2)]
        wait_until(lambda name=name: http.get(path("stats", name)).json()["consumers"] == 2)
        wait_until(lambda name=name: listeners(loaded, name))
        for value in "abc":
            http.post(path("q", name), data={"value": value})
        heard = [len(comet.lines(count)) for comet, count in zip(comets, each, strict=True)]
        assert heard == each
        for comet in comets:
            comet.close()


def test_tokens_open_their_queues(http: httpx.Client) -> None:
    old, none = ({"Authorization": f"Bearer {token}"} for token in TOKENS)
    assert http.post("/q/plain", data={"value": "mine"}, headers=old).status_code == 200
    assert http.get("/q/plain?authkey=old").json()["value"] == "first"
    assert http.get("/q/turns", headers=old).status_code == 403
    assert http.get("/q/plain", headers=none).status_code == 403
    assert http.get("/q/plain?authkey=unknown").status_code == 401


def test_queues_with_invalid_names_are_not_listed_and_stay_unchanged(http: httpx.Client, loaded: Redis) -> None:
    for queue in REFUSED:
        assert http.get(path("q", queue.name)).status_code == 400
        assert loaded.command("LRANGE", f"{queue.name}:queue", "0", "-1") == [f"{queue.name}:1"]


def test_entries_of_deleted_and_expired_messages_are_skipped(private_redis: Redis, private_folder: Path) -> None:
    private_redis.commands(list(OldQueue("old", tuple(b"%d" % n for n in range(6))).commands()))
    private_redis.commands([("DEL", "old:1"), ("DEL", "old:4"), ("PEXPIRE", "old:2", "1"), ("EXPIRE", "old:3", "9999")])
    wait_until(lambda: not private_redis.command("EXISTS", "old:2"))
    daemon = Daemon(private_folder / "d", redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        assert http.get("/stats/old").json()["len"] == 6  # their places still stand in the list
        taken = [http.get("/q/old").json()["value"] for _ in range(3)]
        assert taken == ["2", "4", "5"]
        assert http.get("/q/old").status_code == 204
        assert http.get("/stats/old").json()["len"] == 0


# Moving, as the page says


def recipe(command: str, redis: Redis, replaced: dict[str, str] | None = None) -> str:
    """The page's shell block that contains this command, changed to use the test's Redis."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / PAGE).read_text(), re.MULTILINE | re.DOTALL)
    (script,) = [block for block in blocks if command in block]
    for shown, meant in (replaced or {}).items():
        assert shown in script
        script = script.replace(shown, meant)
    return script if "-s /" in script else script.replace("redis-cli", f"redis-cli -s {redis.socket_path}")


def run(script: str, folder: Path) -> str:
    command = ["bash", "-eu", "-o", "pipefail", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.needs("redis-cli")
def test_the_private_store_copies_the_data_of_another_redis(private_folder: Path, dump: Path) -> None:
    (private_folder / "r").mkdir()
    shutil.copy(dump, private_folder / "r")
    port = free_port()
    old = Redis(private_folder / "r", "--appendonly", "no", "--bind", "127.0.0.1", "--port", str(port))
    daemon = Daemon(private_folder / "d", "--embedded", "always", "--data-dir", str(private_folder / "data"))
    with stopping(old, daemon), daemon.client() as http:
        places = {"/var/lib/restmq": str(private_folder / "data"), "redis.example 6379": f"127.0.0.1 {port}"}
        first, second, last = recipe("REPLICAOF", old, places).splitlines()
        run(first, private_folder)
        wait_until(lambda: "master_link_status:up" in run(second, private_folder))
        assert http.post("/q/plain", data={"value": "not yet"}).status_code == 503
        run(last, private_folder)
        old.stop()
        wait_until(lambda: http.get("/stats/plain").json().get("len") == 3, why="the store takes writes again")
        daemon.stop()
        daemon.start()  # it is in the private store's own file
        assert http.get("/q/plain").json()["value"] == "first"


@pytest.mark.needs("redis-cli")
@pytest.mark.parametrize("queue", [QUEUES[0], EMPTY], ids=lambda queue: queue.name)
def test_leftover_values_can_be_deleted(private_folder: Path, loaded: Redis, queue: OldQueue) -> None:
    before = loaded.keys()
    run(recipe("UNLINK", loaded, {"queue=test": f"queue={queue.name}"}), private_folder)
    assert before - loaded.keys() == {f"{queue.name}:{n}" for n in range(1, queue.taken + 1)}


@pytest.mark.needs("redis-cli", "curl")
def test_messages_of_a_queue_with_an_invalid_name_can_be_moved(
    private_folder: Path, daemon: Daemon, http: httpx.Client, loaded: Redis
) -> None:
    values = [b"one", JPEG, b"", b"ends in a line feed\n"]
    name = REFUSED[-1].name
    for key, value in ((f"{name}:{number}", value) for number, value in enumerate(values, 2)):
        loaded.commands([("SET", key, value), ("LPUSH", f"{name}:queue", key)])
    run(
        recipe("too long a name", loaded, {"too long a name": name, "http://localhost:8888": daemon.url}),
        private_folder,
    )
    accept = {"Accept": "application/octet-stream"}
    assert [http.get("/q/new", headers=accept).content for _ in range(5)] == [b"unseen", *values]
    assert http.get("/q/new").status_code == 204
    assert loaded.command("EXISTS", f"{name}:queue", f"{name}:2") == 0


@pytest.mark.needs("redis-cli", "curl")
def test_a_message_that_cannot_be_moved_stays_in_its_queue(private_folder: Path, loaded: Redis) -> None:
    name = REFUSED[-1].name
    nobody = f"127.0.0.1:{free_port()}"
    run(recipe("too long a name", loaded, {"too long a name": name, "localhost:8888": nobody}), private_folder)
    assert loaded.command("GET", loaded.command("LINDEX", f"{name}:queue", "-1")) == "unseen"
