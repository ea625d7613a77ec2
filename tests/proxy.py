"""A TCP proxy in a thread of the test's: its target can change, and what it carries can be late."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any


class Proxy:
    """Listens on a port of loopback's and hands all on to another.

    Attributes:
        target: the port that new connections are led to.
        lag_seconds: how late the data of a Redis arrives at its replicas, in order. Other clients do not wait.
    """

    def __init__(self, target: int, lag_seconds: float = 0.0, port: int = 0) -> None:
        self.target = target
        self.lag_seconds = lag_seconds
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._to_replicas: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", port))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, there_writer}
        ways = self._carry(reader, there_writer, writer), self._carry(there_reader, writer)
        await asyncio.gather(*ways, return_exceptions=True)
        self._writers -= {writer, there_writer}
        self._to_replicas.discard(writer)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: asyncio.StreamWriter | None = None
    ) -> None:
        """Hands on all that is read. Requests come with the writer of their answers."""
        try:
            while data := await reader.read(65536):
                if answers is not None and self.lag_seconds and b"REPLCONF" in data:
                    self._to_replicas.add(answers)
                if writer in self._to_replicas:
                    self._loop.call_later(self.lag_seconds, _write, writer, data)
                else:
                    writer.write(data)
                    await writer.drain()
        finally:
            self._loop.call_later(self.lag_seconds if writer in self._to_replicas else 0, writer.close)

    def cut(self) -> None:
        """Ends all connections at once; what was on its way is lost."""

        async def abort() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._run(abort())

    def stop(self) -> None:
        async def close() -> None:
            self._server.close()

        self._run(close())
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)
