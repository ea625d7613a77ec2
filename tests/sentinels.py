"""A real set of one Redis primary, its replicas, and three Sentinels."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path
from typing import Any

import hiredis

from tests.proxy import Proxy
from tests.servers import Redis, free_port, redis_program, wait_until

DOWN_AFTER_MS = 2000


class _Sentinel:
    def __init__(self, folder: Path, primary_port: int, password: str) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        self._password = password
        self._configuration = folder / "sentinel.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor mymaster 127.0.0.1 {primary_port} 2",
            f"sentinel down-after-milliseconds mymaster {DOWN_AFTER_MS}",
            "sentinel failover-timeout mymaster 6000",
            "sentinel parallel-syncs mymaster 2",
        ]
        if password:
            lines += [f"requirepass {password}", f"sentinel sentinel-pass {password}"]
        self._configuration.write_text("\n".join(lines) + "\n")
        self.start()

    def start(self) -> None:
        command = [redis_program(), str(self._configuration), "--sentinel"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def command(self, *words: str) -> Any:
        many = [("AUTH", self._password), words] if self._password else [words]
        with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
            connection.sendall(b"".join(hiredis.pack_command(command) for command in many))
            reader, replies = hiredis.Reader(encoding="utf-8"), []
            while len(replies) < len(many):
                received = connection.recv(65536)
                assert received, "the Sentinel closed the connection"
                reader.feed(received)
                while (reply := reader.gets()) is not False:
                    replies.append(reply)
            return replies[-1]

    def knows_all(self, replicas: int) -> bool:
        with contextlib.suppress(OSError):
            told = self.command("SENTINEL", "MASTER", "mymaster")
            fields = dict(zip(told[::2], told[1::2], strict=True))
            return (fields["num-slaves"], fields["num-other-sentinels"]) == (str(replicas), "2")
        return False

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class SentinelSet:
    """A primary, its replicas and three Sentinels.

    Args:
        lag_seconds: how late everything reaches the replicas from the first primary.
        password: what the Sentinels require.
    """

    def __init__(self, folder: Path, *, replicas: int = 2, lag_seconds: float = 0.0, password: str = "") -> None:
        self.servers: dict[int, Redis] = {}
        self.sentinels: list[_Sentinel] = []
        self._proxies: list[Proxy] = []
        try:
            self._start_all(folder, replicas, lag_seconds, password)
        except BaseException:
            self.stop()
            raise

    def _start_all(self, folder: Path, replicas: int, lag_seconds: float, password: str) -> None:
        first = self._start(folder / "redis-0")
        for number in range(1, replicas + 1):
            port = first
            if lag_seconds:
                self._proxies.append(Proxy(first, lag_seconds))
                port = self._proxies[-1].port
            self._start(folder / f"redis-{number}", "--replicaof", "127.0.0.1", str(port))
        wait_until(lambda: f"connected_slaves:{replicas}" in self.servers[first].command("INFO", "replication"))
        self.sentinels += [_Sentinel(folder / f"sentinel-{number}", first, password) for number in range(3)]
        ready = [lambda s=sentinel: s.knows_all(replicas) for sentinel in self.sentinels]  # type: ignore[misc]
        wait_until(lambda: all(is_ready() for is_ready in ready), 60, "the Sentinels know all")

    def _start(self, folder: Path, *options: str) -> int:
        port = free_port()
        at_once = ("--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
        self.servers[port] = Redis(folder, *at_once, *options)
        return port

    @property
    def addresses(self) -> str:
        """For ``--redis-sentinel``."""
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    def primary(self, sentinel: int = 0) -> int:
        """The port of the primary, as a Sentinel says."""
        return int(self.sentinels[sentinel].command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")[1])

    def failover(self) -> int:
        """Has the Sentinels promote another Redis, and waits until all agree. Returns its port."""
        before = self.primary()
        for _ in range(3):  # Sentinel gives up if a busy machine is too slow for it
            wait_until(lambda: self.sentinels[0].command("SENTINEL", "FAILOVER", "mymaster") == "OK", 60)
            with contextlib.suppress(AssertionError):
                return self.moved_from(before, 20)
        return self.moved_from(before)

    def moved_from(self, port: int, seconds: float = 60) -> int:
        """Waits until all Sentinels name another primary than this. Returns its port."""

        def agreed() -> int:
            named = {self.primary(number) for number in range(3)}
            return named.pop() if len(named) == 1 and port not in named else 0

        return int(wait_until(agreed, seconds, "the Sentinels agree on another primary"))

    def is_whole(self) -> bool:
        """Whether the primary has all others as replicas again."""
        state = self.servers[self.primary()].command("INFO", "replication")
        return state.count("state=online") == len(self.servers) - 1

    def stop(self) -> None:
        for server in self.servers.values():
            server.kill()  # a primary that is asked to end waits for its replicas
        for part in (*self.sentinels, *self._proxies):
            part.stop()
