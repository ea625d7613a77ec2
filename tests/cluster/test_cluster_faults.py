"""What users see while nodes of a cluster are away, hang, come and go, and while slots move."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clusters import Cluster, Node, slot_of
from tests.proxy import Proxy
from tests.servers import Comet, Daemon, redis_program, stopping, valkey_program, wait_until

ON_REDIS_AND_VALKEY = pytest.mark.parametrize(
    "private_cluster", [redis_program(), valkey_program()], ids=["redis", "valkey"], indirect=True
)


@pytest.fixture
def daemon(private_folder: Path, private_cluster: Cluster) -> Iterator[Daemon]:
    daemon = Daemon(private_folder / "daemon", "--redis-cluster", private_cluster.addresses)
    with stopping(daemon):
        yield daemon


@pytest.fixture
def http(daemon: Daemon) -> Iterator[httpx.Client]:
    with daemon.client() as client:
        yield client


def queue_of_each(cluster: Cluster) -> dict[Node, str]:
    """For each primary, the name of a queue that it has."""
    found: dict[Node, str] = {}
    for number in itertools.count():
        found.setdefault(cluster.owner(f"q{number}"), f"q{number}")
        if len(found) == len(cluster.primaries()):
            return found
    raise AssertionError


def add(http: httpx.Client, queue: str, value: str = "x") -> str:
    answer = http.post(f"/q/{queue}", content=value, headers={"Content-Type": "text/plain"})
    assert answer.status_code == 200, answer.text
    return answer.text.strip()


def takes_messages(http: httpx.Client, queue: str) -> bool:
    return http.post(f"/q/{queue}", content=b"x").status_code == 200


class Load:
    """Adds numbered messages to queues, one after the other, until it is stopped."""

    def __init__(self, daemon: Daemon, queues: list[str]) -> None:
        self.answers: dict[str, list[tuple[int, str]]] = {queue: [] for queue in queues}
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._add, args=(daemon, queue)) for queue in queues]
        for thread in self._threads:
            thread.start()

    def _add(self, daemon: Daemon, queue: str) -> None:
        with daemon.client() as http:
            while not self._stopped.is_set():
                number = len(self.answers[queue])
                answer = http.post(f"/q/{queue}", content=str(number), headers={"Content-Type": "text/plain"})
                self.answers[queue].append((answer.status_code, answer.text.strip()))

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        assert all(self.answers.values()), "a queue got no answer at all"

    def failed(self, queue: str) -> int:
        return sum(status != 200 for status, _ in self.answers[queue])


def all_taken(http: httpx.Client, queue: str) -> list[str]:
    """Keys of all messages of a queue, in the order in which they come."""
    keys: list[str] = []
    while True:
        answer = http.get(f"/q/{queue}")
        if answer.status_code == 204:
            return keys
        assert answer.status_code == 200, answer.text
        keys.append(answer.json()["key"])


@ON_REDIS_AND_VALKEY
def test_a_killed_primary_concerns_its_own_queues_until_its_replica_takes_over(
    private_cluster: Cluster, daemon: Daemon, http: httpx.Client
) -> None:
    queues = queue_of_each(private_cluster)
    killed, hurt = next(iter(queues.items()))
    for queue in queues.values():
        add(http, queue, "before")
    load = Load(daemon, list(queues.values()))
    try:
        wait_until(lambda: all(load.answers.values()))
        killed.kill()
        wait_until(lambda: load.failed(hurt))
        wait_until(lambda: load.answers[hurt][-1][0] == 200, 60)
    finally:
        load.stop()
    assert [load.failed(queue) for queue in queues.values() if queue != hurt] == [0, 0]
    assert {status for status, _ in load.answers[hurt]} == {200, 503}
    assert http.get(f"/q/{hurt}").json()["value"] == "before"
    assert http.get("/readyz").json() == {"status": "ready", "parts": "3 of 3"}


def test_without_a_replica_the_other_queues_go_on_and_what_is_missing_is_told(private_folder: Path) -> None:
    cluster = Cluster(private_folder / "cluster", replicas=0)
    daemon = Daemon(private_folder / "daemon", "--redis-cluster", cluster.addresses)
    try:
        with stopping(daemon), daemon.client() as http:
            queues = queue_of_each(cluster)
            killed, hurt = next(iter(queues.items()))
            for queue in queues.values():
                add(http, queue)
            killed.kill()
            wait_until(lambda: http.post(f"/q/{hurt}", content=b"x").status_code == 503)
            others = set(queues.values()) - {hurt}
            assert all(takes_messages(http, queue) for queue in others)
            shown = http.get("/stats/").json()
            assert (set(shown["queues"]), shown["missing"]) == (others, 1)
            assert http.get("/readyz").json() == {"status": "ready", "parts": "2 of 3"}
            assert f'restmq_redis_up{{node="127.0.0.1:{killed.port}"}} 0.0' in http.get("/metrics").text
            killed.start()
            wait_until(lambda: takes_messages(http, hurt), 60)
            wait_until(lambda: "missing" not in http.get("/stats/").json())
    finally:
        cluster.stop()


def test_a_primary_that_hangs_costs_the_queues_of_others_nothing(
    private_cluster: Cluster, daemon: Daemon, http: httpx.Client
) -> None:
    queues = queue_of_each(private_cluster)
    hung, hurt = next(iter(queues.items()))
    others = [queue for queue in queues.values() if queue != hurt]
    for queue in queues.values():
        add(http, queue, "before")
    hung.pause()
    try:
        load = Load(daemon, others)
        try:
            wait_until(lambda: takes_messages(http, hurt), 60)
        finally:
            load.stop()
        assert [load.failed(queue) for queue in others] == [0, 0]
        assert http.get("/stats/").json()["count"] == 3
    finally:
        hung.go_on()
    assert http.get(f"/q/{hurt}").json()["value"] == "before"


def test_while_a_primary_hangs_pages_answer_before_its_calls_end_and_say_what_is_missing(private_folder: Path) -> None:
    cluster = Cluster(private_folder / "cluster", replicas=0)
    # The time limit of calls is longer than that of this client.
    limits = ("--redis-timeout", "300", "--peer-timeout", "3")
    daemon = Daemon(private_folder / "daemon", "--redis-cluster", cluster.addresses, *limits)
    try:
        with stopping(daemon), daemon.client() as http:
            queues = queue_of_each(cluster)
            hung, hurt = next(iter(queues.items()))
            others = set(queues.values()) - {hurt}
            for queue in queues.values():
                add(http, queue)
            hung.pause()
            for _ in range(2):
                for path in ("/stats/", "/control/"):
                    shown = http.get(path, headers={"Accept": "application/json"}).json()
                    assert (set(shown["queues"]), shown["missing"]) == (others, 1)
                metrics = http.get("/metrics").text
                assert f'restmq_redis_up{{node="127.0.0.1:{hung.port}"}} 0.0' in metrics
                assert all(f'restmq_messages{{queue="{queue}",state="ready"}} 1.0' in metrics for queue in others)
                assert all(http.get(f"/stats/{queue}").json()["ready"] == 1 for queue in others)
            assert http.get("/readyz").status_code == 200
            with http.stream("GET", "/dashboard/events") as events:
                lines = iter(events.iter_lines())
                while next(lines) != "event: snapshot":
                    pass
                snapshot = json.loads(next(lines).removeprefix("data: "))
            assert snapshot["missing"] == 1
            assert {row[0] for row in snapshot["queues"]} == others
            hung.go_on()
    finally:
        cluster.stop()


@ON_REDIS_AND_VALKEY
def test_slots_move_both_ways_under_load_and_nothing_is_lost_or_comes_twice(
    private_cluster: Cluster, daemon: Daemon, http: httpx.Client
) -> None:
    queues = queue_of_each(private_cluster)
    (here, queue), (there, _), *_ = queues.items()
    listened = next(f"l{n}" for n in itertools.count() if private_cluster.owner(f"l{n}") is here)
    leased = next(f"s{n}" for n in itertools.count() if private_cluster.owner(f"s{n}") is here)
    grave = next(f"g{n}" for n in itertools.count() if private_cluster.owner(f"g{n}") is there)
    http.post(f"/p/{leased}", data={"max_deliveries": "1", "dead_letter": grave}).raise_for_status()
    http.post(f"/p/{listened}", data={"history": "10000"}).raise_for_status()
    comet = Comet(daemon, f"/c/{listened}")
    wait_until(lambda: http.get(f"/stats/{listened}").json()["consumers"])
    for number in range(20):
        add(http, leased, str(number))
        http.get(f"/q/{leased}", params={"lease": "1"}).raise_for_status()
        http.post(f"/q/{queue}-late", content=str(number), params={"delay": "1"}).raise_for_status()
    load = Load(daemon, [queue, listened])
    moved = [queue, listened, leased, grave]
    try:
        for _ in range(2):
            for place in (there, here):
                for name in moved:
                    if private_cluster.owner(name) is not place:
                        private_cluster.move(slot_of(name), place)
    finally:
        load.stop()
    assert (load.failed(queue), load.failed(listened)) == (0, 0)
    assert all_taken(http, queue) == [key for _, key in load.answers[queue]]
    sent = [key for _, key in load.answers[listened]]
    heard = [json.loads(line)["key"] for line in comet.lines(len(sent))]
    assert heard == sent
    wait_until(lambda: http.get(f"/stats/{grave}").json()["ready"] == 20, 60, "dead letters arrive")
    values = [http.get(f"/q/{grave}").json()["value"] for _ in range(20)]
    assert sorted(map(int, values)) == list(range(20))
    assert http.get(f"/d/{leased}").json()["messages"] == []
    wait_until(lambda: http.get(f"/stats/{queue}-late").json()["ready"] == 20, why="delays end")
    comet.close()


def test_calls_wait_while_a_slot_moves_and_run_once(private_cluster: Cluster, http: httpx.Client) -> None:
    (here, queue), (there, _), *_ = queue_of_each(private_cluster).items()
    slot = slot_of(queue)
    keys = [add(http, queue, str(number)) for number in range(50)]
    private_cluster.start_moving(slot, there)
    private_cluster.move_keys(slot, here, there, 25)
    taken: list[Any] = []
    taking = threading.Thread(target=lambda: taken.append(http.get(f"/q/{queue}").json()))
    taking.start()
    wait_until(lambda: "errorstat_ASK" in here.command("INFO", "errorstats"))
    private_cluster.move_keys(slot, here, there)
    private_cluster.end_moving(slot, here, there)
    taking.join()
    assert taken[0]["key"] == keys[0]
    assert all_taken(http, queue) == keys[1:]


def test_a_new_node_is_asked_for_what_has_moved_to_it_before_it_has_a_slot(
    private_cluster: Cluster, http: httpx.Client
) -> None:
    here, queue = next(iter(queue_of_each(private_cluster).items()))
    http.post(f"/p/{queue}", data={"policy": "roundrobin", "max_length": "7"}).raise_for_status()
    new = private_cluster.add_node()
    private_cluster.meet(new)
    private_cluster.settle()
    private_cluster.start_moving(slot_of(queue), new)
    private_cluster.move_keys(slot_of(queue), here, new)
    # A busy machine may take longer to connect to the new node than a call waits.
    expected = {"queue": queue, "value": "roundrobin", "max_length": 7}
    wait_until(lambda: http.get(f"/p/{queue}").json() == expected)
    assert "cmdstat_asking" in new.command("INFO", "commandstats")
    private_cluster.end_moving(slot_of(queue), here, new)
    add(http, queue)
    assert http.get("/readyz").json() == {"status": "ready", "parts": "4 of 4"}


def test_a_node_is_added_and_another_one_removed(private_cluster: Cluster, http: httpx.Client) -> None:
    queues = queue_of_each(private_cluster)
    leaving, queue = next(iter(queues.items()))
    keys = [add(http, queue, str(number)) for number in range(5)]
    new = private_cluster.add_node()
    private_cluster.meet(new)
    private_cluster.settle()
    first = sorted(
        (first, last) for first, last, node, *_ in leaving.command("CLUSTER", "SLOTS") if node[2] == leaving.id
    )
    for begin, end in first:
        for slot in range(begin, end + 1):
            if leaving.command("CLUSTER", "COUNTKEYSINSLOT", str(slot)):
                private_cluster.move(slot, new)
        rest = [str(slot) for slot in range(begin, end + 1)]
        for node in private_cluster.primaries():
            for slot in rest:
                node.command("CLUSTER", "SETSLOT", slot, "NODE", new.id)
    assert all_taken(http, queue) == keys
    leaving.kill()
    wait_until(lambda: takes_messages(http, queue), 60)
    wait_until(lambda: http.get("/readyz").json() == {"status": "ready", "parts": "3 of 3"}, 60)


def test_scripts_are_taught_to_a_node_that_forgot_them(private_cluster: Cluster, http: httpx.Client) -> None:
    queues = queue_of_each(private_cluster)
    node, queue = next(iter(queues.items()))
    keys = [add(http, queue)]
    node.command("SCRIPT", "FLUSH")
    keys.append(add(http, queue))
    node.command("SCRIPT", "FLUSH")
    assert all_taken(http, queue) == keys


def test_live_consumers_get_everything_when_a_primary_is_killed(
    private_cluster: Cluster, daemon: Daemon, http: httpx.Client
) -> None:
    queues = queue_of_each(private_cluster)
    killed, queue = next(iter(queues.items()))
    comet = Comet(daemon, f"/c/{queue}")
    wait_until(lambda: http.get(f"/stats/{queue}").json()["consumers"])
    before = add(http, queue, "before")
    assert json.loads(comet.lines(1)[0])["key"] == before
    killed.kill()
    wait_until(lambda: takes_messages(http, queue), 60)
    after = add(http, queue, "after")
    heard: list[str] = []
    while after not in heard:
        heard += [json.loads(line).get("key", "") for line in comet.lines(1)]
    comet.close()


def test_all_nodes_are_restarted_at_other_addresses(private_folder: Path) -> None:
    """One of the addresses is a name that leads to whatever node runs, as in Kubernetes."""
    cluster = Cluster(private_folder / "cluster", replicas=0)
    name = Proxy(cluster.nodes[0].port)
    daemon = Daemon(private_folder / "daemon", "--redis-cluster", f"127.0.0.1:{name.port},{cluster.addresses}")
    try:
        with stopping(daemon), daemon.client() as http:
            keys = {queue: add(http, queue) for queue in queue_of_each(cluster).values()}
            cluster.restart_elsewhere()
            name.target = cluster.nodes[0].port
            wait_until(lambda: http.get("/readyz").status_code == 200, 60)
            for queue, key in keys.items():
                wait_until(lambda queue=queue, key=key: http.get(f"/q/{queue}").text.find(key) >= 0, 60)  # type: ignore[misc]
    finally:
        name.stop()
        cluster.stop()
