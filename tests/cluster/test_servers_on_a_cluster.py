"""``/servers`` shows the nodes of a Redis Cluster, also while one of them is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import Cluster
from tests.servers import Daemon, stopping, wait_until


@pytest.fixture
def daemons(private_folder: Path, private_cluster: Cluster) -> Iterator[list[Daemon]]:
    options = ("--redis-cluster", private_cluster.addresses, "--peer-timeout", "3")
    found = [Daemon(private_folder / name, *options) for name in ("one", "two")]
    with stopping(*found):
        yield found


def report(daemon: Daemon) -> dict[str, Any]:
    with daemon.client() as http:
        found: dict[str, Any] = http.get("/servers").json()
    return found


def nodes(daemon: Daemon) -> dict[str, dict[str, Any]]:
    return {node["address"]: node for node in report(daemon)["redis"]["nodes"]}


def test_each_node_is_shown_with_its_role_its_slots_and_its_primary(
    daemons: list[Daemon], private_cluster: Cluster
) -> None:
    found = report(daemons[0])
    assert found["redis"]["kind"] == "cluster"
    assert "problem" not in found["redis"]
    assert (len(found["servers"]), found["missing"]) == (2, 0)
    shown = nodes(daemons[0])
    primaries = private_cluster.primaries()
    assert len(shown) == 2 * len(primaries)
    for primary in primaries:
        node = shown[f"127.0.0.1:{primary.port}"]
        assert (node["role"], node["state"], node["append_only_file"]) == ("primary", "up", True)
        assert node["memory_bytes"] > 0
        replica = shown[f"127.0.0.1:{private_cluster.replica_of(primary).port}"]
        assert (replica["role"], replica["slots"], replica["primary"]) == ("replica", 0, node["address"])
    assert sum(node["slots"] for node in shown.values()) == 16384


def test_a_node_that_hangs_is_said_to_give_no_answer_and_the_others_are_shown(
    daemons: list[Daemon], private_cluster: Cluster
) -> None:
    hanging, *others = private_cluster.primaries()
    where = f"127.0.0.1:{hanging.port}"
    private_cluster.replica_of(hanging).kill()
    hanging.pause()
    shown = nodes(daemons[0])
    assert shown[where]["state"] == "no answer"
    assert all(shown[f"127.0.0.1:{node.port}"]["state"] == "up" for node in others)
    wait_until(lambda: "slots have no primary" in report(daemons[0])["redis"].get("problem", ""), 60)
    hanging.go_on()
    wait_until(lambda: nodes(daemons[0]).get(where, {}).get("state") == "up", 60)
