"""The part of a live consumer that all transports share: sending, back-pressure, and noticing a vanished client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from restmq.auth.guard import Access, Credentials
from restmq.delivery.backpressure import Outbox
from restmq.delivery.consumer import PREFETCH, CloseReason, ConsumerOwner
from restmq.delivery.format import Format
from restmq.transport import offer, sender, silent_seconds, unsent_bytes, write_and_resume

#: The leases of a consumer without leases; always empty.
_NO_LEASES: dict[str, str] = {}
#: Bytes offered to the system per consumer and reactor turn.
_SLICE_BYTES = 32768
#: Bytes that a plain transport is given to wait for the system.
_COPIED_BYTES = 1024
#: Time between the first check that finds a client silent, and the check that closes its connection.
_VANISHED_SECONDS = 48.0


@implementer(IPushProducer)
class TransportConsumer(ABC):
    """A consumer on a Twisted transport. ``delivery/backpressure.py`` has the rules that it implements.

    While the system takes everything, ``_direct`` sends to the socket, and a write is a call of it and little else. It
    is None if there is more to do: bytes wait, the transport is not plain, or the connection is closing. Whatever else
    is written to the transport must set it to None, or a write could come between two parts of that.
    """

    __slots__ = (
        "_backlog_bytes",
        "_deadline_seconds",
        "_direct",
        "_fanout",
        "_finish",
        "_last_unsent_bytes",
        "_outbox",
        "_progress_seconds",
        "_queue",
        "_silent_since",
        "credentials",
        "format",
        "lease_ms",
        "leases",
        "paused",
        "prefetch",
        "since_seconds",
    )

    #: The access that its transport requires.
    access: Access

    def attach(
        self,
        *,
        fanout: ConsumerOwner,
        queue: str,
        wire_format: Format,
        credentials: Credentials,
        lease_ms: int = 0,
        prefetch: int = PREFETCH,
    ) -> None:
        """Sets the consumer up. It joins the fan-out afterwards."""
        self._fanout = fanout
        self._queue = queue
        self.format = wire_format
        self.credentials = credentials
        self.since_seconds = fanout.seconds()
        self.paused = False
        self._backlog_bytes = self._last_unsent_bytes = 0
        self._deadline_seconds = self._progress_seconds = self._silent_since = 0.0
        self._direct: Callable[[bytes], int] | None = None
        self._outbox: Outbox | None = None
        self._finish: Callable[[], None] | None = None
        self.lease_ms = lease_ms
        self.prefetch = prefetch
        self.leases = {} if lease_ms else _NO_LEASES

    def write(self, *pieces: bytes) -> None:
        data = pieces[0]
        if self._direct is not None and len(data) <= _SLICE_BYTES and len(pieces) == 1:
            try:
                sent = self._direct(data)
            except OSError:
                sent = 0
            if sent != len(data):
                self._keep_rest(data, sent)
                self._give_time(len(data))
            return
        was_full = self.paused
        if was_full and self._is_too_slow():
            self._fanout.drop(self._queue, self)
            return
        self.send(*pieces)
        if self.paused:
            size_bytes = sum(map(len, pieces))
            if was_full:
                self._backlog_bytes += size_bytes
            self._give_time(size_bytes)

    def _give_time(self, size_bytes: int) -> None:
        """These bytes were written while the consumer is FULL."""
        if self._fanout.seconds() < self._deadline_seconds:
            self._deadline_seconds += self._fanout.limits.seconds_for(size_bytes)

    def send(self, *pieces: bytes) -> None:
        """Sends bytes, or keeps them until the system takes them."""
        data = pieces[0]
        if self.paused or self._outbox is not None:
            self._keep(pieces)
        elif len(pieces) > 1 or len(data) > _SLICE_BYTES:
            self._keep(pieces)
            self._send_kept()
        else:
            sent = offer(self.outlet, data)
            if sent is None:
                self.outlet.write(data)
            elif sent < len(data):
                self._keep_rest(data, sent)
            else:
                self._direct = sender(self.outlet)

    def _keep_rest(self, data: bytes, sent: int) -> None:
        outbox = self._keep((data,))
        outbox.consume(sent)
        self._wait_for_system(outbox)

    def _keep(self, pieces: tuple[bytes, ...]) -> Outbox:
        self._direct = None
        outbox = self._outbox
        if outbox is None:
            outbox = self._outbox = Outbox(self._fanout.shared_bytes)
        for piece in pieces:
            outbox.append(piece)
        return outbox

    def _send_kept(self) -> None:
        """Sends a bounded number of kept bytes, so that others have their turn."""
        outbox, transport, offered_bytes = self._outbox, self.outlet, 0
        if outbox is None:
            return
        while outbox.unsent_bytes and offered_bytes < _SLICE_BYTES and not self.paused:
            view = outbox.peek(_SLICE_BYTES)
            sent = offer(transport, view)
            if sent is None:
                transport.write(bytes(view))  # calls pauseProducing when it has enough
                outbox.consume(len(view))
                continue
            offered_bytes += len(view)
            outbox.consume(sent)
            if sent < len(view):
                break
        if outbox.unsent_bytes:
            if not self.paused:
                self._wait_for_system(outbox)
            return
        self._outbox = None
        if self._finish is not None:
            self._finish()
            self._finish = None

    def _wait_for_system(self, outbox: Outbox) -> None:
        """Has the transport call ``resumeProducing`` when the system takes bytes again."""
        view = outbox.peek(_COPIED_BYTES)
        write_and_resume(self.outlet, bytes(view))
        outbox.consume(len(view))
        self.pauseProducing()

    def send_behind(self, data: bytes) -> bool:
        """Keeps bytes behind those that are kept already. Returns False if none are."""
        if self._outbox is None:
            return False
        self._outbox.append(data)
        return True

    def finish(self, then: Callable[[], None]) -> bool:
        """Calls back when the transport has all bytes. Returns whether it has them now."""
        self._direct = None
        if self._outbox is None:
            then()
            return True
        self._finish = then
        return False

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the system has not taken yet."""
        return unsent_bytes(self.outlet) + (self._outbox.unsent_bytes if self._outbox is not None else 0)

    def close_if_vanished(self) -> None:
        """Closes the connection if the client's machine has not answered for a minute. Called at intervals."""
        now, silent = self._fanout.seconds(), silent_seconds(self.outlet)
        if not silent:
            self._silent_since = 0.0
        elif not self._silent_since or now - self._silent_since > silent:  # it was silent before, but owed no answer
            self._silent_since = now
        elif now - self._silent_since >= _VANISHED_SECONDS:
            self.outlet.abortConnection()

    def _is_too_slow(self) -> bool:
        limits = self._fanout.limits
        if self._backlog_bytes <= limits.unsent_bytes:
            return False
        behind_bytes = min(self._backlog_bytes, self.unsent_bytes)  # older bytes are sent first
        is_late = self._fanout.seconds() >= self._deadline_seconds
        return behind_bytes > (limits.unsent_bytes if is_late else limits.unsent_bytes_max)

    def wait_until(self, is_shared: bool = False) -> float:
        if not self.paused:
            return 0.0
        limits, now = self._fanout.limits, self._fanout.seconds()
        unsent = self.unsent_bytes
        if unsent <= limits.unsent_bytes // 2:
            return 0.0
        if unsent != self._last_unsent_bytes:
            self._last_unsent_bytes, self._progress_seconds = unsent, now
        if now >= self._progress_seconds + limits.stall_seconds:
            self._deadline_seconds = min(self._deadline_seconds, now)
        stall_seconds = limits.shared_stall_seconds if is_shared else limits.stall_seconds
        return min(self._deadline_seconds, self._progress_seconds + stall_seconds)

    @property
    @abstractmethod
    def outlet(self) -> Any:
        """The transport."""

    def capacity(self) -> int:
        return 0 if self.paused else max(0, self.prefetch - len(self.leases))

    @abstractmethod
    def close(self, reason: CloseReason) -> None:
        """Closes the connection, with the reason if the protocol can carry it."""

    def detach(self) -> None:
        """The connection has ended."""
        self._direct = None
        if self._outbox is not None:
            self._outbox.clear()
            self._outbox = self._finish = None
        self._fanout.leave(self._queue, self)

    def pauseProducing(self) -> None:
        if not self.paused:  # a transport calls this with each write
            self.paused, self._direct = True, None
            self._deadline_seconds = self._fanout.seconds() + self._fanout.limits.stall_seconds

    def resumeProducing(self) -> None:
        if self._outbox is not None:
            self.paused = False
            self._send_kept()
            if self.paused:
                return
        self.paused, self._backlog_bytes, self._last_unsent_bytes = False, 0, 0
        self._fanout.ready(self._queue, self)

    def stopProducing(self) -> None:  # noqa: B027  a subclass need not override it
        """The transport has ended. The connection's own callback handles that."""
