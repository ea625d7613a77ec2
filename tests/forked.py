"""``twistd`` without its start: a process that has loaded all modules forks, and the child runs ``twistd``'s own code.

Python needs 0.4 s of CPU to load a daemon's modules, and the tests start hundreds of daemons. A forked one needs 0.1 s.
The child has the pid, signals, descriptors, working directory, environment and log of a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

_FORK_SERVER = multiprocessing.get_context("forkserver")
_FORK_SERVER.set_forkserver_preload(["tests.preloaded"])


def _run_twistd(arguments: list[str], folder: Path, env: dict[str, str], log_path: Path) -> None:
    """Makes this process, just forked, a ``twistd`` in that folder."""
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    warnings.simplefilter("ignore")
    sys.argv = ["twistd", *arguments]

    from twisted.internet import reactor
    from twisted.scripts import twistd

    # Modules hold this reactor by name. Its epoll and waker are the parent's; the child needs its own.
    vars(reactor).clear()
    reactor.__init__()  # type: ignore[misc]
    twistd.run()


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
