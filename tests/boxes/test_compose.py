"""The services of the compose files work: their command lines run on hosts that stand for containers (hosts.py)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.boxes.hosts import RESTMQ, TOOLS, Network, place_for_volumes
from tests.boxes.roots import namespaces_are_allowed
from tests.servers import ROOT, wait_until

pytestmark = [
    pytest.mark.needs(*TOOLS),
    pytest.mark.skipif(not namespaces_are_allowed(), reason="namespaces can't be made here"),
]


class Compose:
    """The services of a compose file, each on a host of its name."""

    def __init__(self, folder: Path, file: str) -> None:
        self.services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / file).read_text())["services"]
        self.network = Network(folder, {name: self._address(name) for name in self.services})

    def _address(self, name: str) -> str:
        networks = self.services[name]["networks"]
        if isinstance(networks, dict):
            return str(networks["store"]["ipv4_address"])
        return f"172.28.89.{200 + list(self.services).index(name)}"

    def start(self, name: str) -> None:
        service = self.services[name]
        command = service["command"]
        self.network.start(name, [*RESTMQ, *command] if service["image"] == "restmq" else command)

    def start_all(self, kind: str) -> None:
        for name in self.services:
            if name.startswith(kind):
                self.start(name)

    def post(self, name: str, value: str) -> str:
        """Posts to a RestMQ; returns the status."""
        return self._curl(name, "-o", "/dev/null", "-w", "%{http_code}", "-d", f"value={value}", "/q/jobs")

    def take(self, name: str) -> str:
        return self._curl(name, "-H", "Accept: application/octet-stream", "/q/jobs")

    def is_ready(self, name: str) -> bool:
        return self._curl(name, "-o", "/dev/null", "-w", "%{http_code}", "/readyz") == "200"

    def _curl(self, name: str, *arguments: str) -> str:
        *options, path = arguments
        return self.network.run(name, "curl", "-s", "--max-time", "20", *options, f"http://127.0.0.1:8888{path}")

    def logs(self) -> str:
        return "\n".join(f"--- {name}\n{self.network.log(name)[-1500:]}" for name in self.network.processes)

    def wait_until_ready(self) -> None:
        try:
            for name in ("restmq-1", "restmq-2"):
                wait_until(lambda name=name: self.is_ready(name), 60)
        except AssertionError:
            raise AssertionError(self.logs()) from None


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="restmq-compose-"))
    with place_for_volumes():
        yield path
    shutil.rmtree(path)


@pytest.fixture
def sentinel(folder: Path) -> Iterator[Compose]:
    compose = Compose(folder, "docker-compose.sentinel.yml")
    yield compose
    compose.network.stop()


@pytest.fixture
def cluster(folder: Path) -> Iterator[Compose]:
    compose = Compose(folder, "docker-compose.cluster.yml")
    yield compose
    compose.network.stop()


def told(compose: Compose, name: str, question: str) -> list[str]:
    """What a Sentinel says of the primary."""
    return compose.network.run(name, "valkey-cli", "-p", "26379", "sentinel", question, "mymaster").split("\n")


def primary(compose: Compose) -> str:
    return told(compose, "sentinel-1", "get-master-addr-by-name")[0]


def knows(compose: Compose, name: str) -> tuple[str, str]:
    """The numbers of replicas and of other Sentinels that a Sentinel knows."""
    words = told(compose, name, "master")
    fields = dict(zip(words[::2], words[1::2], strict=False))
    return fields.get("num-slaves", ""), fields.get("num-other-sentinels", "")


def test_the_sentinel_file_makes_a_set_that_outlives_its_primary(sentinel: Compose) -> None:
    for kind in ("valkey-", "sentinel-", "restmq-"):
        sentinel.start_all(kind)
    sentinel.wait_until_ready()
    wait_until(lambda: sentinel.post("restmq-1", "before") == "200", 60)
    names = [name for name in sentinel.services if name.startswith("sentinel-")]
    wait_until(lambda: {knows(sentinel, name) for name in names} == {("2", "2")}, 60)
    sentinel.network.kill("valkey-1")
    wait_until(lambda: primary(sentinel) not in ("", "valkey-1"), 60, "the Sentinels promote a replica")
    sentinel.start("valkey-1")
    wait_until(lambda: sentinel.post("restmq-2", "after") == "200", 60, sentinel.logs())
    assert [sentinel.take("restmq-1") for _ in range(2)] == ["before", "after"]


def test_the_cluster_file_makes_a_cluster_with_a_replica_for_each_primary(cluster: Compose) -> None:
    cluster.start_all("valkey-")
    cluster.start("cluster")
    assert cluster.network.processes["cluster"].wait(60) == 0, cluster.logs()
    nodes = cluster.network.run("valkey-3", "valkey-cli", "cluster", "nodes").splitlines()
    assert (len(nodes), sum(" slave " in node for node in nodes)) == (6, 3), nodes
    cluster.start("cluster")  # as "docker compose up" does again
    assert cluster.network.processes["cluster"].wait(60) == 0, cluster.logs()
    cluster.start_all("restmq-")
    cluster.wait_until_ready()
    wait_until(lambda: cluster.post("restmq-1", "kept") == "200", 60)
    for name in ("valkey-1", "valkey-2", "valkey-3"):  # one of these has the queue
        cluster.network.kill(name)
        wait_until(lambda: cluster.take("restmq-2") == "kept", 60, "a replica is promoted")
        cluster.start(name)
        wait_until(lambda: cluster.post("restmq-1", "kept") == "200", 60, "the primaries have replicas again")
    assert cluster.take("restmq-1") == "kept"
