"""The Dockerfile makes a container that works: built and run without Docker, see chroot.py.

One test, since building takes about a minute: what it holds stands in the functions above it.
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
    """This machine's number for a process of the container's."""
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


def both_ports_can_be_reached_and_the_log_warns(image: Image, folder: Path) -> None:
    with running(image, folder) as container:
        assert put(container, "hello", "world") == "hello:1"
        assert redis(container, "LRANGE", "hello:queue", "0", "-1") == "hello:1"
        assert redis(container, "GET", "hello:1") == "world"
        assert take(container, "hello") == "world"
        assert "open on 0.0.0.0:6379 without a password" in container.log
        assert "Traceback" not in container.log
        assert "plugin" not in container.log  # Twisted would write its cache of plugins, and may not


def with_a_password_only_those_who_know_it_get_in(image: Image, folder: Path) -> None:
    with running(image, folder, env={"RESTMQ_STORE_PASSWORD": PASSWORD}) as container:
        put(container, "hello", "world")
        assert redis(container, "LLEN", "hello:queue").startswith("NOAUTH")
        assert redis(container, "--no-auth-warning", "-a", PASSWORD, "LLEN", "hello:queue") == "1"
        assert "without a password" not in container.log
        assert container.is_healthy()


def it_runs_as_an_account_that_may_write_its_data_only(image: Image, folder: Path) -> None:
    with running(image, folder) as container:
        assert Path(f"/proc/{container.process_1}/comm").read_text().strip() == "tini"
        for name in ("tini", "twistd", "valkey-server"):
            assert Path(f"/proc/{child_of(container, name)}").stat().st_uid == 888, name
    for path in ("etc/restmq", "opt/restmq", "opt/restmq/lib", "opt/restmq/bin/twistd"):
        place = image.root / path
        assert (place.stat().st_uid, place.stat().st_mode & 0o022) == (0, 0), path


def what_is_in_a_queue_survives_a_stop_and_the_stop_is_a_clean_one(image: Image, folder: Path) -> None:
    with running(image, folder) as container:
        put(container, "kept", "over restarts")
        assert container.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        assert "Server Shut Down" in container.log
    with running(image, folder) as container:
        assert take(container, "kept") == "over restarts"


def a_hangup_reads_the_rules_again(image: Image, folder: Path) -> None:
    with running(image, folder) as container:
        os.kill(container.process_1, signal.SIGHUP)
        container.wait_for("are in force")


def the_healthcheck_knows_when_the_store_hangs(image: Image, folder: Path) -> None:
    with running(image, folder) as container:
        assert container.is_healthy()
        store = child_of(container, "valkey-server")
        os.kill(store, signal.SIGSTOP)
        assert not container.is_healthy()
        os.kill(store, signal.SIGCONT)
        wait_until(container.is_healthy, why="the store answers again")


def other_arguments_replace_the_defaults(image: Image, folder: Path) -> None:
    data = image.stage.words("VOLUME")[0]
    with running(image, folder, "--listen", "0.0.0.0", "--embedded", "always", "--data-dir", data) as container:
        assert put(container, "alone", "x") == "alone:1"
        ports = container.from_outside("ss", "-Hltn")
        assert ":8888" in ports
        assert ":6379" not in ports


def test_the_dockerfile_makes_a_container_that_works() -> None:
    folder = Path(tempfile.mkdtemp(prefix="restmq-container-"))
    try:
        image = Image(folder)
        for number, holds in enumerate(
            [
                both_ports_can_be_reached_and_the_log_warns,
                with_a_password_only_those_who_know_it_get_in,
                it_runs_as_an_account_that_may_write_its_data_only,
                what_is_in_a_queue_survives_a_stop_and_the_stop_is_a_clean_one,
                a_hangup_reads_the_rules_again,
                the_healthcheck_knows_when_the_store_hangs,
                other_arguments_replace_the_defaults,
            ]
        ):
            holds(image, folder / f"run-{number}")
    finally:
        shutil.rmtree(folder)
