"""A Debian machine that start_scripts/provision has made a RestMQ server. It boots its root with its own systemd."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.boxes.roots import PATH, Running, build_environment, debootstrap, in_root
from tests.servers import ROOT, wait_until

TOOLS = ("debootstrap", "unshare", "nsenter", "systemd-nspawn", "curl", "git", "openssl")
CHECKOUT = "/root/restmq"


def make(suite: str, target: Path) -> None:
    """Makes a minimal Debian with systemd and this checkout."""
    debootstrap(suite, target, "systemd-sysv")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        if (ROOT / name).is_file():
            copy = Path(f"{target}{CHECKOUT}") / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy)


def provision(root: Path, *options: str) -> None:
    in_root(root, [f"{CHECKOUT}/start_scripts/provision", *options], build_environment(root))


class Machine(Running):
    """A booted root with its own network."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log_path = root.with_name(f"{root.name}.log")
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("systemd-nspawn", "--quiet", "--directory", str(root), f"--machine=restmq-{os.getpid()}"),
                    *("--boot", "--register=no", "--keep-unit", "--private-network", "--link-journal=no"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._has_started, 120, "it boots")
        except AssertionError as failure:
            self.stop()
            raise AssertionError(f"{failure}: {self.log_path.read_text(errors='replace')}") from None

    def _has_started(self) -> bool:
        assert self.process.poll() is None, "it ended"
        if not Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text():
            return False
        # "degraded": a service of Debian's does not work in a namespace, which does not matter here
        return self.inside("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "--target", str(self.process_1), "--mount", "--uts", "--ipc", "--net", "--pid", "--root"]
        return subprocess.run(
            [*enter, "--", "/usr/bin/env", "-i", f"PATH={PATH}", *command], capture_output=True, text=True, timeout=100
        )

    def run(self, *command: str) -> str:
        """Runs a command inside, which must succeed, and returns its output."""
        result = self.inside(*command)
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        return result.stdout.strip()

    def shows(self, unit: str, what: str) -> str:
        return self.run("systemctl", "show", "--value", "--property", what, unit)

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--unit", unit, "--boot", "--no-pager", "--output", "cat")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)  # then systemd-nspawn powers the machine off
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
