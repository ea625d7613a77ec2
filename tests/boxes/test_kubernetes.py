"""examples/kubernetes.yaml is valid, and its scripts make a cluster that survives new addresses."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from restmq.web import ROUTES
from tests.boxes.hosts import TOOLS, Network, place_for_volumes
from tests.boxes.roots import namespaces_are_allowed
from tests.servers import ROOT, wait_until

NODES = [f"valkey-{number}" for number in range(6)]


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "examples" / "kubernetes.yaml").read_text()))


def find(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in documents() if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def pods() -> dict[str, dict[str, Any]]:
    """The specifications of all pods, by the name of what makes them."""
    found = [each for each in documents() if "template" in each["spec" if "spec" in each else "data"]]
    return {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in found}


@pytest.mark.parametrize("version", ["1.29", "1.31", "1.33"])
def test_every_part_is_valid(version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for document in documents():
        kubernetes_validate.validate(document, version, strict=True)


def test_no_pod_has_rights_that_it_does_not_need() -> None:
    assert set(pods()) == {"valkey", "valkey-create", "restmq"}
    for pod in pods().values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["resources"]["limits"]["memory"]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_kubernetes_asks_restmq_whether_it_lives_and_is_ready() -> None:
    (container,) = pods()["restmq"]["containers"]
    probes = [container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")]
    assert probes == ["/healthz", "/readyz"]
    assert set(probes) < {template for template, _ in ROUTES}


@pytest.fixture
def network() -> Iterator[Network]:
    folder = Path(tempfile.mkdtemp(prefix="restmq-kubernetes-"))
    with place_for_volumes():
        made = Network(folder, {name: address(number) for number, name in enumerate([*NODES, "job"])})
        made.resolve(names(0))
        yield made
        made.stop()
    shutil.rmtree(folder)


def address(number: int) -> str:
    return f"172.28.90.{10 + number}"


def names(moved: int) -> dict[str, str]:
    """The names of the headless service, whose pods have moved on by some addresses."""
    return {f"{name}.valkey": address(number + moved) for number, name in enumerate(NODES)}


def script(name: str) -> list[str]:
    return ["sh", "-c", find("ConfigMap", "valkey")["data"][name]]


def start(network: Network, moved: int) -> None:
    for number, name in enumerate(NODES):
        network.start(name, script("node.sh"), POD_IP=address(number + moved))


def is_whole(network: Network, name: str, moved: int) -> bool:
    """Whether a node reaches all others at their present addresses, and all parts of the cluster are served."""
    expected = {address(number + moved) for number in range(len(NODES))}
    nodes = network.run(name, "valkey-cli", "cluster", "nodes").splitlines()
    is_ok = "cluster_state:ok" in network.run(name, "valkey-cli", "cluster", "info")
    found = {node.split()[1].partition(":")[0] for node in nodes if ",fail" not in node and " connected" in node}
    return is_ok and found == expected


@pytest.mark.needs(*TOOLS)
@pytest.mark.skipif(not namespaces_are_allowed(), reason="namespaces can't be made here")
def test_the_nodes_find_each_other_when_all_come_back_with_new_addresses(network: Network) -> None:
    start(network, 0)
    network.start("job", script("create.sh"))
    assert network.processes["job"].wait(60) == 0, network.log("job")
    wait_until(lambda: all(is_whole(network, name, 0) for name in NODES), 60)
    assert network.run("valkey-0", "valkey-cli", "-c", "set", "kept", "value") == "OK"
    for name in NODES:
        network.kill(name)
    for number, name in enumerate(NODES):
        network.move(name, address(number + 20))
    network.resolve(names(20))
    start(network, 20)
    wait_until(lambda: all(is_whole(network, name, 20) for name in NODES), 90, "the nodes find each other")
    assert network.run("valkey-3", "valkey-cli", "-c", "get", "kept") == "value"
    network.start("job", script("create.sh"))  # a Job that is made anew
    assert network.processes["job"].wait(60) == 0, network.log("job")
