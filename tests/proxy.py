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
        delay_seconds: how late everything arrives at the target, in order.
    """

    def __init__(self, target: int, delay_seconds: float = 0.0, port: int = 0) -> None:
        self.target = target
        self.delay_seconds = delay_seconds
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
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
        ways = self._carry(reader, there_writer, self.delay_seconds), self._carry(there_reader, writer, 0.0)
        await asyncio.gather(*ways, return_exceptions=True)
        self._writers -= {writer, there_writer}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_seconds: float) -> None:
        try:
            while data := await reader.read(65536):
                if delay_seconds:
                    self._loop.call_later(delay_seconds, writer.write, data)
                else:
                    writer.write(data)
                    await writer.drain()
        finally:
            self._loop.call_later(delay_seconds, writer.close)

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
