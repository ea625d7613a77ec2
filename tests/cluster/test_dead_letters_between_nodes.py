"""Dead letters that move to a queue of another node, which may be full or without its replica."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cluster.test_cluster_faults import add, all_taken, queue_of_each
from tests.clusters import Cluster
from tests.servers import Daemon, stopping, wait_until

DURABLE = ("--durable", "--replicas", "1", "--redis-timeout", "1")


@pytest.fixture
def http(private_folder: Path, private_cluster: Cluster) -> Iterator[httpx.Client]:
    daemon = Daemon(private_folder / "daemon", "--redis-cluster", private_cluster.addresses, *DURABLE)
    with stopping(daemon), daemon.client() as client:
        yield client


def dead_letter(http: httpx.Client, queue: str) -> str:
    """Makes a message of the queue a dead letter. Returns its key."""
    http.post(f"/p/{queue}", data={"max_deliveries": "1"}).raise_for_status()
    key = add(http, queue, "letter")
    leased = http.get(f"/q/{queue}?lease=60").json()
    http.post(f"/m/{key}", data={"receipt": leased["receipt"], "lease": "0"}).raise_for_status()
    return key


def dead_letters(http: httpx.Client, queue: str) -> list[str]:
    return [letter["key"] for letter in http.get(f"/d/{queue}").json()["messages"]]


def test_a_dead_letter_stays_where_it_is_while_the_other_node_has_no_replica(
    private_cluster: Cluster, http: httpx.Client
) -> None:
    (_, queue), (there, grave), *_ = queue_of_each(private_cluster).items()
    key = dead_letter(http, queue)
    replica = private_cluster.replica_of(there)
    replica.pause()
    try:
        answer = http.post(f"/d/{queue}", data={"to": grave})
        assert (answer.status_code, dead_letters(http, queue)) == (503, [key])
        assert "0 of 1 replicas" in answer.text
    finally:
        replica.go_on()
    wait_until(lambda: http.post(f"/d/{queue}", data={"to": grave}).status_code == 200)
    assert dead_letters(http, queue) == []
    assert len(all_taken(http, grave)) == 1


def test_a_full_node_takes_no_dead_letters_and_nothing_is_half_done(
    private_cluster: Cluster, http: httpx.Client
) -> None:
    (_, queue), (there, grave), *_ = queue_of_each(private_cluster).items()
    key = dead_letter(http, queue)
    there.command("CONFIG", "SET", "maxmemory", "1")
    answer = http.post(f"/d/{queue}", data={"to": grave})
    assert (answer.status_code, dead_letters(http, queue)) == (503, [key])
    assert "OOM" in answer.text
    assert not [name for name in there.command("KEYS", "*") if grave in name]
    there.command("CONFIG", "SET", "maxmemory", "0")
    assert http.post(f"/d/{queue}", data={"to": grave}).status_code == 200
    assert dead_letters(http, queue) == []
    assert len(all_taken(http, grave)) == 1
