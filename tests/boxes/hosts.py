"""Hosts that stand for containers: each has a network namespace, a name that the others can resolve, and a volume."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.servers import ROOT, redis_program, valkey_program

TOOLS = ("ip", "unshare", "mount", "curl", "redis-cli", "getent")
#: The command that the image of the Dockerfile runs, before its arguments.
RESTMQ = [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "restmq"]


class Network:
    """A bridge, and hosts on it.

    Args:
        addresses: the address of each host, by name. A host can be reached by all ``names`` that lead to its address.
    """

    def __init__(self, folder: Path, addresses: dict[str, str], names: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._prefix = f"r{os.getpid() % 100_000}-"
        self._hosts: list[str] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        programs = folder / "bin"
        programs.mkdir(parents=True)
        (programs / "valkey-server").symlink_to(
            valkey_program() if Path(valkey_program()).exists() else redis_program()
        )
        (programs / "valkey-cli").symlink_to(str(shutil.which("redis-cli")))
        self._path = f"{programs}:{os.environ['PATH']}"
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        self.resolve({**addresses, **(names or {})})
        self._ip("netns", "add", self._space("hub"))
        self._hosts.append("hub")
        self._ip("-n", self._space("hub"), "link", "add", "bridge", "up", "type", "bridge")
        for name, address in addresses.items():
            self._add(name, address)

    def resolve(self, names: dict[str, str]) -> None:
        """Changes what the names lead to."""
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
        with (self._folder / "hosts").open("r+") as file:  # the same file: hosts have it mounted
            file.write("\n".join(lines) + "\n")
            file.truncate()

    def _add(self, name: str, address: str) -> None:
        link = f"h{len(self._hosts)}"
        self._ip("netns", "add", self._space(name))
        self._hosts.append(name)
        peer = ("peer", "name", "eth0", "netns", self._space(name))
        self._ip("-n", self._space("hub"), "link", "add", link, "type", "veth", *peer)
        self._ip("-n", self._space("hub"), "link", "set", link, "master", "bridge", "up")
        self._ip("-n", self._space(name), "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self._ip("-n", self._space(name), "link", "set", device, "up")

    def move(self, name: str, address: str) -> None:
        """Gives a host another address, as a new pod of the same name has one."""
        self._ip("-n", self._space(name), "address", "flush", "dev", "eth0")
        self._ip("-n", self._space(name), "address", "add", f"{address}/24", "dev", "eth0")

    def _space(self, name: str) -> str:
        return self._prefix + name

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def _command(self, name: str, command: Sequence[str]) -> list[str]:
        """A command as a container runs it: with its volume at /data, which is its working directory."""
        volume = self._folder / name
        volume.mkdir(exist_ok=True)
        mounts = {self._folder / "hosts": "/etc/hosts", volume: "/data"}
        prepare = [f"mount --bind {shlex.quote(str(source))} {target}" for source, target in mounts.items()]
        inside = "; ".join([*prepare, "cd /data", f"exec {shlex.join(command)}"])
        return ["ip", "netns", "exec", self._space(name), "unshare", "--mount", "sh", "-ec", inside]

    def start(self, name: str, command: Sequence[str], **env: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self._command(name, command),
                env={"PATH": self._path, "PYTHONPATH": str(ROOT), "HOME": "/data", **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, name: str, *command: str) -> str:
        """What a command prints on a host."""
        env = {"PATH": self._path, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            self._command(name, command), env=env, capture_output=True, text=True, timeout=60
        ).stdout.strip()

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def kill(self, name: str) -> None:
        """Ends all processes of a host."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].wait()

    def stop(self) -> None:
        for name in self.processes:
            self.kill(name)
        for name in self._hosts:
            with contextlib.suppress(subprocess.CalledProcessError):
                self._ip("netns", "del", self._space(name))


@contextlib.contextmanager
def place_for_volumes() -> Iterator[None]:
    """Sees to it that there is a folder /data, over which volumes are mounted."""
    is_new = not Path("/data").exists()
    Path("/data").mkdir(exist_ok=True)
    try:
        yield
    finally:
        if is_new:
            Path("/data").rmdir()
