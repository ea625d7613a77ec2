"""``restmq move`` from and to a cluster, while slots move and primaries are killed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.clusters import Cluster, ClusterAsRedis, slot_of
from tests.integration.test_move import VALUES, Pair, add, ended, fill, held, ready, resting, value_of
from tests.servers import Daemon, Redis, stopping, wait_until

QUEUE = "jobs"
MANY = [b"many %d" % number for number in range(600)]


def disturb(cluster: Cluster, moving: subprocess.Popen[bytes]) -> None:
    """Moves the queue's slot to another primary and back, and kills its primary, which comes back as a replica."""
    here = cluster.owner(QUEUE)
    there = next(node for node in cluster.primaries() if node is not here)
    for node in (there, here):
        cluster.move(slot_of(QUEUE), node)
    assert moving.poll() is None, "the move was over too early"
    here.kill()
    wait_until(lambda: here not in cluster.primaries() and cluster.owner(QUEUE).is_alive(), 60)
    here.start()


@pytest.mark.parametrize("disturbed", ["source", "target"])
def test_all_arrives_in_order_and_once_while_slots_move_and_a_primary_is_killed(
    private_folder: Path, private_cluster: Cluster, disturbed: str
) -> None:
    durable = ("--durable", "--replicas", "1")
    redis = Redis(private_folder / "redis")
    one = Daemon(redis.folder, redis=redis)
    many = Daemon(private_folder / "many", "--redis-cluster", private_cluster.addresses, *durable)
    source, target = (many, one) if disturbed == "source" else (one, many)
    with stopping(one, many, redis), source.client() as source_http, target.client() as target_http:
        fill(source_http, QUEUE)
        add(source_http, QUEUE, *MANY)
        pair = Pair(private_folder, source, target)
        moving = pair.start(QUEUE, "--lease", "5", "--retry", "120", "--json", stderr=subprocess.DEVNULL)
        wait_until(lambda: held(target_http, QUEUE) > 6)
        disturb(private_cluster, moving)
        status, shown = ended(moving)
        assert (status, json.loads(shown)[0]["left"]) == (0, 0)
        assert held(source_http, QUEUE) == 0
        assert [value_of(message) for message in resting(target_http, QUEUE, "dead")][::2] == [b"dead 1", b"dead 3"]
        assert [message["size"] for message in resting(target_http, QUEUE, "delayed")] == [7, 7, 20_000]
        assert ready(target_http, QUEUE) == [*VALUES, *MANY]


def test_queues_of_a_node_that_hangs_are_waited_for(private_folder: Path, private_redis: ClusterAsRedis) -> None:
    redis = Redis(private_folder / "redis")
    one = Daemon(redis.folder, redis=redis)
    many = Daemon(private_folder / "many", redis=private_redis)
    names = [f"q{number}" for number in range(12)]
    with stopping(one, many, redis), many.client() as source, one.client() as target:
        for name in names:
            add(source, name, name.encode())
        hung = private_redis.owner("q0")
        hung.pause()
        try:
            moving = Pair(private_folder, many, one).start("--retry", "120")
            assert moving.stderr is not None
            assert b"some queues are not known. Retrying." in moving.stderr.readline()
        finally:
            hung.go_on()
        moving.communicate(timeout=120)
        assert moving.returncode == 0
        assert [ready(target, name) for name in names] == [[name.encode()] for name in names]
