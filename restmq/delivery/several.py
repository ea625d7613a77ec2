"""A live consumer of several queues on one connection.

For the fan-out it is several consumers, a ``Share`` per queue, each with the format, the leases and the history of its
queue. All of them write to the one connection, whose back-pressure holds for all. If one of them is closed, all are.

An event's id names the position in each queue, in the order in which the client names the queues, joined by commas.
``12`` means that message 12 was the last one, ``~12`` that no message came since the queue's message 12, and an empty
position that nothing is known. A client that reconnects sends the last id, and each Share resumes at its own position.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from twisted.internet import defer

from restmq.core import RedisOperations
from restmq.delivery.consumer import CloseReason, Consumer
from restmq.delivery.fanout import Fanout
from restmq.delivery.format import Format
from restmq.delivery.transport_consumer import TransportConsumer
from restmq.errors import InvalidInput, StoreUnavailable
from restmq.model import Message, number_of

_POSITION = re.compile(r"(?:~?[0-9]{1,19})?")


def read_positions(last_id: str | None, count: int) -> list[str]:
    """The position in each queue, from the id of an event. Raises InvalidInput if it is not one of so many queues."""
    positions = last_id.split(",") if last_id else [""] * count
    if len(positions) != count or not all(map(_POSITION.fullmatch, positions)):
        raise InvalidInput(
            f"the last event id must have {count} positions, one for each queue, such as 17,~4; name the same queues "
            "in the same order as before."
        )
    return positions


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
        self.connected.write(*pieces)

    def capacity(self) -> int:
        return 0 if self.connected.paused else max(0, self._prefetch - len(self.leases))

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
    """

    def __init__(
        self, fanout: Fanout, queues: Sequence[str], last_id: str | None, format_of: Callable[[Share, bool], Format]
    ) -> None:
        self.limits = fanout.limits
        self.seconds = fanout.seconds
        self.shared_bytes = fanout.shared_bytes
        self.queues = tuple(queues)
        self.shares: list[Share] = []
        self._fanout = fanout
        self._wanted = list(zip(queues, read_positions(last_id, len(queues)), strict=True))
        self._begun: dict[str, str] = {}
        self._format_of = format_of

    async def locate(self, core: RedisOperations) -> None:
        """Reads where the client begins in queues of which it knows nothing.

        An event of another queue may come before the fan-out knows. A client that resumes with its id must not miss
        messages in silence. A position that Redis does not tell stays empty: the stream begins all the same, as that of
        one queue does, because an EventSource never comes back after a refusal.
        """
        queues = [queue for queue, wanted in self._wanted if not wanted]
        asked = [defer.ensureDeferred(core.queue_position(queue)) for queue in queues]
        answers = await defer.DeferredList(asked, consumeErrors=True)
        for queue, (is_told, found) in zip(queues, answers, strict=True):
            if is_told:
                self._begun[queue] = found
            else:
                found.trap(StoreUnavailable)

    def connect(self, _queue: str, consumer: Consumer, _last_key: str | None) -> None:
        """Connects a Share for each queue."""
        assert isinstance(consumer, TransportConsumer)
        self.shares = [Share(self, consumer, queue, position) for queue, position in self._wanted]
        for share in self.shares:
            share.format = self._format_of(share, share is self.shares[0])
            number = share.position.removeprefix("~")
            if number == "":
                share.position = self._begun.get(share.queue, "")
                self._fanout.join(share.queue, share)
            elif number == share.position:
                self._fanout.resume(share.queue, share, f"{share.queue}:{number}")
            else:
                self._fanout.resume(share.queue, share, "", int(number))

    def leave(self, _queue: str, _consumer: Consumer) -> None:
        shares, self.shares = self.shares, []
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
