"""A newcomer's first session: a fresh Debian, a checkout, and the lines of the README, typed in order in a terminal."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boxes.roots import PATH, Running, build_environment, debootstrap, namespaces_are_allowed
from tests.servers import ROOT, wait_until

CHECKOUT = "/root/restmq"
PROMPT = "newcomer> "

pytestmark = [
    pytest.mark.needs("debootstrap", "unshare", "nsenter", "ip", "git"),
    pytest.mark.skipif(not namespaces_are_allowed(), reason="namespaces can't be made here"),
]

#: What each of the README's curl lines prints.
PRINTED = [
    r"test:1",
    r'\{"key":"test:1","value":"hello","count":0\}',
    r"test:2",
    r'\{"key":"test:2","value":"live"\}',
    r"",
    r"",
    r"HTTP/1.1 204 No Content\n.*",
]


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A fresh Debian with what the README asks for, and a checkout."""
    folder = Path(tempfile.mkdtemp(prefix="restmq-first-"))
    root = folder / "root"
    debootstrap("trixie", root, "python3-venv,curl")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        copy = Path(f"{root}{CHECKOUT}") / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)
    yield root
    shutil.rmtree(folder)


def inside(root: Path, line: str) -> list[str]:
    """The command that runs a line of shell in the root, in the checkout."""
    settings = [f"{name}={value}" for name, value in {"PATH": PATH, "HOME": "/root", **build_environment(root)}.items()]
    return ["chroot", str(root), "/usr/bin/env", "-i", f"--chdir={CHECKOUT}", *settings, "/bin/bash", "-c", line]


class Server(Running):
    """The README's first command, in a network of its own: so it gets the port of the documents."""

    def __init__(self, root: Path, line: str) -> None:
        self.log_path = root.parent / "server.log"
        start = f"mount -t proc proc {root}/proc; ip link set lo up; exec {shlex.join(inside(root, 'exec ' + line))}"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "/bin/sh", "-ec", start],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log
        return "listens on" in self.log


class Terminal:
    """An interactive bash beside the server."""

    def __init__(self, server: Server, root: Path) -> None:
        enter = ["nsenter", "--target", str(server.process_1), "--mount", "--pid", "--net", "--"]
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            # exec in the pty's own session
            os.execvp(enter[0], [*enter, *inside(root, f"PS1='{PROMPT}' exec bash --norc --noprofile --noediting -i")])
        self._read()

    def _read(self) -> str:
        shown = ""
        while not shown.endswith(PROMPT):
            shown += os.read(self._terminal, 4096).decode()
        return shown.removesuffix(PROMPT).replace("\r", "")

    def type(self, line: str) -> str:
        """Types a line. Returns what is printed until the next prompt, without the line's own echo."""
        os.write(self._terminal, line.encode() + b"\n")
        return self._read().removeprefix(line + "\n")

    def close(self) -> None:
        os.close(self._terminal)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def test_a_first_session_goes_as_the_readme_says(root: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    start, _, curl_lines = (block.splitlines() for block in blocks)

    # The first start needs the network, so it has no other network than this machine's, and opens no port.
    first = subprocess.run(inside(root, f"{start[0]} --help"), capture_output=True, text=True, timeout=600)
    assert first.returncode == 0, first.stderr
    assert "--redis-host" in first.stdout
    steps = [line for line in first.stderr.splitlines() if not line.startswith("  ")]
    assert [line.split()[0] for line in steps] == ["Creating", "Updating", "Installing", "Installing", "Done."], steps
    assert "  Twisted" in first.stderr  # each package is named when its installation begins

    server = Server(root, start[0])
    try:
        wait_until(server.is_up, 60, server.log)
        terminal = Terminal(server, root)
        for line, expected in zip(curl_lines, PRINTED, strict=True):
            shown = terminal.type(line)
            assert re.fullmatch(f"{expected}\n*", without_progress(shown), re.DOTALL), (line, shown)
        (publish,) = re.findall(r"`(\./start_scripts/restmq publish .*?)`", (ROOT / "README.md").read_text())
        assert terminal.type(publish) == "test:3\n"
        assert terminal.type(publish.replace("publish test hello", "consume test")) == "hello\n"
        terminal.close()
    finally:
        if server.process.poll() is None:
            os.kill(server.process_1, signal.SIGTERM)
        server.process.wait(60)
    assert "Traceback" not in server.log


def without_progress(shown: str) -> str:
    """What curl printed without its progress meter."""
    return "".join(line for line in shown.splitlines(keepends=True) if not re.match(r" *%|.*--:--", line))
