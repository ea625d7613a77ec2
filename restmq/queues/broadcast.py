"""Operations between Redis and the daemons for broadcasts and taps: flow control, and values beside the channel."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer

from restmq.queues.base import Operations, State, queue_arguments
from restmq.store.base import RedisCommand

#: As in ``lua/_flow.lua``.
HELD_MS_MAX = 3000
#: As in ``lua/_tap.lua``.
_TAP_WINDOW_BYTES = 16 << 20
_TAPPED_MS = 30_000


class BroadcastOperations(Operations):
    """The daemon's side of ``lua/_flow.lua``, which has the rules."""

    async def queue_confirm(self, queue: str, round_number: int, window_bytes: int, daemon: bytes) -> State:
        """Confirms that the daemon has delivered all messages before the marker of a round.

        If the confirmation is lost, the round ends without it a second later.

        Args:
            window_bytes: number of unconfirmed bytes that the daemon grants from now on.
            daemon: the daemon's channel.

        Returns:
            MORE: the daemon must attend now. HELD_BACK: it must attend in a second, or earlier if it is notified.
        """
        return State(await self._run("confirm", queue, round_number, window_bytes, daemon))

    async def queue_hold(self, queue: str, hold_ms: int) -> None:
        """Gives the open round more time (in ms from now), because the daemon waits for its consumers."""
        await self._run("hold", queue, hold_ms)

    def commands_to_hold(self, queue: str) -> list[RedisCommand]:
        """Redis commands that begin flow control anew and hold back broadcasts (``lua/_flow.lua``, rule 7)."""
        names = self.layout.for_queue(queue)
        return [(b"DEL", names.flow), (b"SET", names.held, 1, b"PX", HELD_MS_MAX)]

    async def queue_stored_value(self, key: str) -> bytes | None:
        """The value of a message that was published beside the channel; None if it has expired."""
        value: bytes | None = await self.store.command("GET", self.layout.stored_key(key))
        return value

    async def queue_tap(self, queue: str) -> None:
        """Has each message that is put into the queue copied to the channel of its taps, for the next 30 seconds.

        Publishes a marker there, with the number of the last message. A copy is at-most-once: see ``lua/_tap.lua``.
        """
        await self._run_for_taps("tap", queue, _TAPPED_MS)

    async def queue_confirm_copies(self, queue: str, round_number: int) -> None:
        """Confirms the copies before the marker of a round, as ``queue_confirm`` does for broadcasts."""
        await self._run_for_taps("confirm", queue, round_number, _TAP_WINDOW_BYTES, b"")

    def _run_for_taps(self, script: str, queue: str, *args: Any) -> defer.Deferred[Any]:
        loaded, first = queue_arguments(self.layout, script, queue, self._clock(), of_taps=True)
        return self.store.run(loaded, first, *args)

    async def queue_copied_value(self, key: str) -> bytes | None:
        """The value of a copy for taps that is beside their channel; None if it has expired."""
        value: bytes | None = await self.store.command("GET", self.layout.stored_key(key) + b":tapped")
        return value
