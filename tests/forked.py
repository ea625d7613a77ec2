"""Our programs without their start: a process that has loaded all modules forks, and the child runs the program.

Python needs 0.4 s of CPU to load a daemon's modules, and the tests start hundreds of daemons. A forked one needs 0.1 s.
The child has the pid, signals, descriptors, working directory, environment and log of a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from importlib import import_module
from pathlib import Path

_FORK_SERVER = multiprocessing.get_context("forkserver")
_FORK_SERVER.set_forkserver_preload(["tests.preloaded"])


def _enter(folder: Path, env: dict[str, str], *streams: tuple[int, Path]) -> None:
    """Gives this process, just forked, the folder, the environment and files for its standard streams."""
    for number, path in streams:
        opened = os.open(path, os.O_RDWR | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)


def _take_reactor() -> None:
    """Gives this process a reactor of its own. Modules hold one by name whose epoll and waker are the parent's."""
    import_module("tests.preloaded")  # already there; if a module in it cannot be imported, this says so
    from twisted.internet import reactor

    import tests.preloaded  # noqa: F401  # already there; if a module cannot be imported, this says so

    vars(reactor).clear()
    reactor.__init__()  # type: ignore[misc]


def _run_program(module: str, arguments: list[str], folder: Path, env: dict[str, str], streams: list[Path]) -> None:
    _enter(folder, env, *enumerate(streams))
    _take_reactor()
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  multiprocessing closed the inherited one
    sys.argv = [module.partition(".")[0], *arguments]
    import_module(module).main()


def program(
    module: str, arguments: list[str], folder: Path, env: dict[str, str], stdin: bytes
) -> subprocess.CompletedProcess[bytes]:
    """Runs the ``main`` of a module as a program that ends by itself."""
    with tempfile.TemporaryDirectory() as files:
        streams = [Path(files, name) for name in ("in", "out", "err")]
        for path in streams:
            path.write_bytes(stdin if path is streams[0] else b"")
        process = _FORK_SERVER.Process(target=_run_program, args=(module, arguments, folder, env, streams), daemon=True)
        process.start()
        process.join(60)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(arguments, 60)
        return subprocess.CompletedProcess(arguments, process.exitcode, *(path.read_bytes() for path in streams[1:]))


def _run_twistd(arguments: list[str], folder: Path, env: dict[str, str], log_path: Path) -> None:
    """Makes this process, just forked, a ``twistd`` in that folder."""
    _enter(folder, env, (1, log_path), (2, log_path))
    _take_reactor()
    warnings.simplefilter("ignore")
    sys.argv = ["twistd", *arguments]
    import_module("twisted.scripts.twistd").run()


class Twistd:
    """A forked ``twistd``, with the methods of ``subprocess.Popen`` that tests use."""

    def __init__(self, arguments: list[str], folder: Path, env: dict[str, str], log_path: Path) -> None:
        log_path.touch()
        self._process = _FORK_SERVER.Process(target=_run_twistd, args=(arguments, folder, env, log_path), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("twistd", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
