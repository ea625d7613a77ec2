"""A live consumer of several queues on one connection.

For the fan-out it is several consumers, a ``Share`` per queue, each with the format, the leases and the history of its
queue. All of them write to the one connection, whose back-pressure holds for all. If one of them is closed, all are.

An event's id names the position in each queue, in the order in which the client names the queues, joined by commas.
``12`` means that message 12 was the last one, ``~12`` that no message came since the queue's message 12, and an empty
position that nothing is known. A client that reconnects sends the last id, and each Share resumes at its own position.

A stream of events begins before the positions are known: Redis may hang, and an EventSource never comes back after
another answer than 200. A Share joins the fan-out when Redis has told its position, so the client misses nothing after
it. Messages are held until all positions are known: a client that resumed without the position in a queue would miss
messages of this queue unnoticed. The wait also ends when Redis has failed for the Shares that have none, or if more
than ``--max-unsent`` bytes are held. Positions that are still unknown are empty then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial

from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.core import RedisOperations
from restmq.delivery.consumer import CloseReason, Consumer, write_gap, write_messages
from restmq.delivery.fanout import Fanout
from restmq.delivery.format import Format
from restmq.delivery.transport_consumer import TransportConsumer
from restmq.errors import InvalidInput, RestMQError
from restmq.model import Message, number_of

log = Logger()

_POSITION = re.compile(r"(?:~?[0-9]{1,19})?")


def read_positions(last_id: str | None, count: int) -> list[str]:
    """The position in each queue, from the id of an event. Raises InvalidInput unless there are ``count`` of them."""
    positions = last_id.split(",") if last_id else [""] * count
    if len(positions) != count or not all(map(_POSITION.fullmatch, positions)):
        raise InvalidInput(
            f"the last event id must have {count} positions, one for each queue, such as 17,~4; name the same queues "
            "in the same order as before."
        )
    return positions


@dataclass(slots=True, frozen=True, eq=False, kw_only=True)
class _Held(Format):
    """The format of a Share while its messages are held. It renders nothing, and passes them to ``hold``."""

    hold: Callable[[Message], bytes]

    def wrap(self, _data: bytes) -> bytes:
        return b""

    def render(self, messages: Sequence[Message]) -> tuple[bytes, ...]:
        for message in messages:
            self.hold(message)
        return ()


class Share:
    """The part of a connection's consumer that is about one queue.

    Attributes:
        connected: the consumer of the connection.
        position: after the last message, as in ids.
    """

    __slots__ = (
        "_prefetch",
        "_several",
        "access",
        "connected",
        "credentials",
        "format",
        "lease_ms",
        "leases",
        "position",
        "queue",
        "since_seconds",
    )

    def __init__(self, several: SeveralQueues, consumer: TransportConsumer, queue: str, position: str) -> None:
        self._several = several
        self.connected = consumer
        self.queue = queue
        self.position = position
        self.format: Format
        self.credentials, self.access = consumer.credentials, consumer.access
        self.since_seconds = consumer.since_seconds
        self.lease_ms, self._prefetch = consumer.lease_ms, consumer.prefetch
        self.leases: dict[str, str] = {}

    @property
    def unsent_bytes(self) -> int:
        return self.connected.unsent_bytes

    def write(self, *pieces: bytes) -> None:
        if any(pieces):
            self.connected.write(*pieces)

    def capacity(self) -> int:
        if self.connected.paused or self._several.is_holding:
            return 0
        return max(0, self._prefetch - len(self.leases))

    def wait_until(self, is_shared: bool = False) -> float:
        return self.connected.wait_until(is_shared)

    def close_if_vanished(self) -> None:
        if self is self._several.shares[0]:
            self.connected.close_if_vanished()

    def event_id(self, message: Message) -> str:
        """The id of the event with this message, which is the next one of the queue."""
        self.position = str(number_of(message.key))
        return ",".join(self._several.positions())

    def close(self, reason: CloseReason) -> None:
        self._several.leave("", self.connected)
        self.connected.close(reason)


class SeveralQueues:
    """Stands between the consumer of a connection and the fan-out.

    Args:
        last_id: the last event that the client saw.
        format_of: makes the format of a queue, when the connection is ready for messages.
        core: tells positions that the client does not know; None if the client gets no ids.
    """

    def __init__(
        self,
        fanout: Fanout,
        queues: Sequence[str],
        last_id: str | None,
        format_of: Callable[[Share, bool], Format],
        *,
        core: RedisOperations | None = None,
    ) -> None:
        self.limits = fanout.limits
        self.seconds = fanout.seconds
        self.shared_bytes = fanout.shared_bytes
        self.queues = tuple(queues)
        self.shares: list[Share] = []
        self.is_holding = False
        self._fanout = fanout
        self._wanted = list(zip(queues, read_positions(last_id, len(queues)), strict=True))
        self._format_of = format_of
        self._core = core
        self._unlocated = 0
        self._held: list[tuple[Share, Message | str]] = []
        self._held_bytes = 0

    def connect(self, _queue: str, consumer: Consumer, _last_key: str | None) -> None:
        """Connects a Share for each queue."""
        assert isinstance(consumer, TransportConsumer)
        self.shares = [Share(self, consumer, queue, position) for queue, position in self._wanted]
        located = [share for share in self.shares if share.position or self._core is None]
        self._unlocated = len(self.shares) - len(located)
        if self._unlocated:
            self._begin_to_hold(consumer.format)
        else:
            self._set_formats()
        for share in list(self.shares):
            number = share.position.removeprefix("~")
            if share not in located:
                defer.ensureDeferred(self._locate(share)).addErrback(self._locating_failed, share)
            elif number == "":
                self._fanout.join(share.queue, share)
            elif number == share.position:
                self._fanout.resume(share.queue, share, f"{share.queue}:{number}")
            else:
                self._fanout.resume(share.queue, share, "", int(number))

    def _set_formats(self) -> None:
        for share in self.shares:
            share.format = self._format_of(share, share is self.shares[0])

    # Holding events until the positions for their ids are known

    async def _locate(self, share: Share) -> None:
        """Asks Redis for the position at which the client begins, then joins the fan-out."""
        assert self._core is not None
        with suppress(RestMQError):
            share.position = await self._core.queue_position(share.queue)
        if share not in self.shares:  # the client has left
            return
        if not self._fanout.running:
            share.close(CloseReason.SHUTDOWN)
            return
        self._fanout.join(share.queue, share)
        self._unlocated -= 1
        if not self._unlocated:
            self._release()

    def _locating_failed(self, failure: Failure, share: Share) -> None:
        log.failure("the position in {queue} can't be read", failure=failure, queue=share.queue)
        share.close(CloseReason.TRY_AGAIN)

    def _begin_to_hold(self, wire_format: Format) -> None:
        self.is_holding = True
        same = {each.name: getattr(wire_format, each.name) for each in fields(wire_format)}
        for share in self.shares:
            hold = partial(self._hold, share)
            share.format = _Held(**same | {"keepalive": b"", "gap": hold}, hold=hold)

    def _hold(self, share: Share, item: Message | str) -> bytes:
        """Holds a message, or the key of a gap notice. Renders nothing."""
        self._held.append((share, item))
        self._held_bytes += len(item.value if isinstance(item, Message) else item)
        if not self.is_holding:  # released within one write
            self._write_held()
        elif self._held_bytes > self.limits.unsent_bytes:
            self._release()
        return b""

    def _release(self) -> None:
        if self.is_holding:
            self.is_holding = False
            self._set_formats()
            self._write_held()
            for share in self.shares:  # round robin: it has capacity now
                self._fanout.ready(share.queue, share)

    def _write_held(self) -> None:
        held, self._held = self._held, []
        for share, item in held:
            if share not in self.shares:  # the connection was closed
                return
            if isinstance(item, Message):
                write_messages([share], [item])
            else:
                write_gap([share], item)

    def leave(self, _queue: str, _consumer: Consumer) -> None:
        shares, self.shares, self._held = self.shares, [], []
        for share in shares:
            share.format = share.connected.format  # its own one may refer to it: a reference cycle
            self._fanout.leave(share.queue, share)

    def drop(self, queue: str, _consumer: Consumer) -> None:
        for share in self.shares[:1]:
            self._fanout.drop(queue, share)

    def ready(self, _queue: str, _consumer: Consumer) -> None:
        for share in self.shares:
            self._fanout.ready(share.queue, share)

    def positions(self) -> Iterator[str]:
        """The position in each queue."""
        for share in self.shares:
            share.position = share.position or self._fanout.position(share.queue)
            yield share.position
