"""The blocking client. It needs only the standard library."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from restmq.client import calls
from restmq.client.base import BaseClient
from restmq.client.connections import HttpConnections
from restmq.client.errors import Stopped, Unreachable
from restmq.client.exchange import EXTENSIONS_A_LEASE, Call, Message, RetryPolicy, failure_reason
from restmq.client.interrupts import stopping
from restmq.client.stream import LiveStream
from restmq.errors import LeaseGone, RestMQError

_T = TypeVar("_T")


class Client(BaseClient):
    """A client for one server. It keeps connections alive and is thread-safe.

    ``restmq.client.calls`` documents the methods.

    Args:
        server: the server, or its URL.
        retry_seconds: maximum time to retry a request while the server is busy or unreachable (default 30, 0 for no
            retries). A request is retried only if sending it twice does no harm.
        timeout_seconds: maximum time without data from the server (default 30).
        lasting: retry without limit once the server has answered a request (default False).
        on_retry: called before each retry with the error and the number of seconds until the retry.
    """

    def _set_up(self) -> None:
        self._connections = HttpConnections(self.server, self.timeout_seconds)
        self._stopped = False
        self._stop_notes: SimpleQueue[None] = SimpleQueue()

    def run(self, call: Call[_T]) -> _T:
        """Runs a call, and retries it where that is safe. Raises the last error when retries end."""
        policy = self._retry_policy()
        while True:
            try:
                result = call.result(self._connections.exchange(call.request))
            except RestMQError as error:
                self._sleep_after(error, policy, call.request.repeatable)
            else:
                self.answered = True
                return result

    def consume(
        self, queue: str | Sequence[str], lease_seconds: float | None = None, *, count: int = 1
    ) -> Iterator[Message]:
        """Yields messages as they arrive, until ``stop``: taken for good, or leased if ``lease_seconds`` is given.

        Reconnects after the server was unavailable. A message in transit at that moment may be lost unless it is
        leased.

        Args:
            queue: a queue, or up to 32: each message is taken from the first of them that has one.
            count: maximum number of messages per request (default 1); of several queues, each request takes one.
        """
        call = calls.consume(queue, lease_seconds, count=count)
        with contextlib.suppress(Stopped):
            while True:
                yield from self.run(call)

    def listen(
        self,
        queue: str,
        *,
        last_key: str = "",
        lease_seconds: float | None = None,
        prefetch: int | None = None,
        on_gap: Callable[[str], None] | None = None,
    ) -> Iterator[Message]:
        """Yields the messages that a connected consumer receives, until ``stop``.

        Reconnects after the connection was lost. If the queue keeps a history, the missed messages come first.
        ``restmq.client.stream.LiveStream`` documents the arguments.
        """
        return self._follow(
            LiveStream(queue, last_key=last_key, lease_seconds=lease_seconds, prefetch=prefetch, on_gap=on_gap)
        )

    def tap(self, queue: str, *, on_gap: Callable[[str], None] | None = None) -> Iterator[Message]:
        """Yields a copy of each message that is put into the queue from the first iteration on, until ``stop``.

        Takes nothing from the queue. Reconnects after the connection was lost.

        Args:
            on_gap: called with the last key seen if messages after it were missed: while there was no connection, or
                because this client reads too slowly.
        """
        return self._follow(LiveStream(queue, is_tap=True, on_gap=on_gap))

    def _follow(self, stream: LiveStream) -> Iterator[Message]:
        policy = self._retry_policy()
        with contextlib.suppress(Stopped):
            while True:
                try:
                    with self._connections.stream(stream.request()) as chunks:
                        self.answered = True
                        policy = self._retry_policy()
                        for chunk in chunks:
                            yield from stream.feed(chunk)
                    error: RestMQError = Unreachable("the server ended the stream.", sent=True)
                except RestMQError as problem:
                    error = problem
                self._sleep_after(error, policy, repeatable=True)

    @contextlib.contextmanager
    def leased(self, queue: str, lease_seconds: float = 30.0, *, wait_seconds: float = 0) -> Iterator[Message | None]:
        """Leases the next message while the block runs; None if no message came within ``wait_seconds``.

        The lease is extended as long as the block runs. At its end the message is acked. If the block raises an
        exception, the message returns to its queue, with the exception's text as the reason.

        Raises LeaseGone at the end of the block if the lease ended nevertheless, because the server was away or this
        process was suspended: the message may be processed twice.
        """
        message = self.lease(queue, lease_seconds, wait_seconds=wait_seconds)
        if message is None:
            yield None
            return
        with self.twin() as keeper:  # stop() must not keep the message from being acked
            done = threading.Event()
            thread = threading.Thread(target=_extend, args=(keeper, message, lease_seconds, done), daemon=True)
            thread.start()
            try:
                yield message
            except BaseException as failure:
                done.set()
                with contextlib.suppress(RestMQError):  # the lease ends by itself
                    keeper.nack(message, reason=failure_reason(failure))
                raise
            done.set()
            keeper.ack(message)

    @contextlib.contextmanager
    def until_interrupted(self) -> Iterator[None]:
        """Within the block, SIGINT (Ctrl-C) and SIGTERM call ``stop``, so that a loop over messages just ends.

        A second signal has its usual effect. Only for the main thread.
        """
        with stopping(self.stop):
            yield

    def stop(self) -> None:
        """Ends every iterator, and every call that waits for a response; such a call raises Stopped.

        Data that has already arrived is still returned. Safe to call from a signal handler. A stopped client can't be
        started again.
        """
        self._stopped = True
        self._stop_notes.put(None)
        self._connections.cut()

    def stopped_within(self, seconds: float) -> bool:
        """Waits until the client is stopped, at most ``seconds``; returns whether it is stopped."""
        with contextlib.suppress(Empty):
            self._stop_notes.get(timeout=seconds)
            self._stop_notes.put(None)  # wakes the next waiting thread
        return self._stopped

    def twin(self) -> Client:
        """A second client with the same server and settings. ``stop`` on one does not stop the other."""
        return Client(
            self.server,
            retry_seconds=self.retry_seconds,
            timeout_seconds=self.timeout_seconds,
            lasting=self.lasting,
            on_retry=self.on_retry,
        )

    def close(self) -> None:
        """Closes the idle connections."""
        self._connections.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sleep_after(self, error: RestMQError, policy: RetryPolicy, repeatable: bool) -> None:
        if self._stopped:
            raise Stopped("stopped before the response came.") from None
        if self.stopped_within(self._pause_seconds(error, policy, repeatable)):
            raise Stopped("stopped before the response came.") from None


def _extend(client: Client, message: Message, lease_seconds: float, done: threading.Event) -> None:
    """Extends a lease until ``done`` is set or the lease is gone."""
    while not done.wait(lease_seconds / EXTENSIONS_A_LEASE):
        try:
            client.extend(message, lease_seconds)
        except LeaseGone:  # the ack will raise it
            return
        except RestMQError:
            continue
