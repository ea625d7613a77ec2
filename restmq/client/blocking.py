"""The blocking client. It needs only the standard library."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import wraps
from math import inf
from queue import Empty, SimpleQueue
from typing import Concatenate, ParamSpec, TypeVar

from restmq.client import calls
from restmq.client.connections import Connections
from restmq.client.errors import Stopped, Unreachable
from restmq.client.exchange import POLL_SECONDS, Call, Message, Patience
from restmq.client.server import DEFAULT_URL, Server
from restmq.client.stream import Listening
from restmq.errors import RestMQError

P = ParamSpec("P")
T = TypeVar("T")


def _carried_out(make: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """Turns a function of ``restmq.client.calls`` into a method that runs the call."""

    @wraps(make)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(make(*args, **kwargs))

    return method


class Client:
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

    def __init__(
        self,
        server: Server | str = DEFAULT_URL,
        *,
        retry_seconds: float = 30.0,
        timeout_seconds: float = 30.0,
        lasting: bool = False,
        on_retry: Callable[[RestMQError, float], None] | None = None,
    ) -> None:
        self.server = Server(server) if isinstance(server, str) else server
        self.retry_seconds = retry_seconds
        self.timeout_seconds = timeout_seconds
        self.lasting = lasting
        self.on_retry = on_retry
        self.answered = False
        self._connections = Connections(self.server, timeout_seconds)
        self._stopped = False
        self._stop_notes: SimpleQueue[None] = SimpleQueue()

    publish = _carried_out(calls.publish)
    publish_many = _carried_out(calls.publish_many)
    take = _carried_out(calls.take)
    take_many = _carried_out(calls.take_many)
    lease = _carried_out(calls.lease)
    lease_many = _carried_out(calls.lease_many)
    ack = _carried_out(calls.ack)
    extend = _carried_out(calls.extend)
    nack = _carried_out(calls.nack)
    find = _carried_out(calls.find)
    delete = _carried_out(calls.delete)
    queues = _carried_out(calls.queues)
    stats = _carried_out(calls.stats)
    overview = _carried_out(calls.overview)
    settings = _carried_out(calls.settings)
    configure = _carried_out(calls.configure)
    pause = _carried_out(calls.pause)
    start = _carried_out(calls.start)
    purge = _carried_out(calls.purge)
    dead = _carried_out(calls.dead)
    redrive = _carried_out(calls.redrive)
    drop_dead = _carried_out(calls.drop_dead)

    def run(self, call: Call[T]) -> T:
        """Runs a call, and retries it where that is safe. Raises the last error when retries end."""
        patience = self._patience()
        while True:
            try:
                result = call.result(self._connections.exchange(call.request))
            except RestMQError as error:
                self._sleep_after(error, patience, call.request.repeatable)
            else:
                self.answered = True
                return result

    def consume(self, queue: str, lease_seconds: float | None = None, *, count: int = 1) -> Iterator[Message]:
        """Yields messages as they arrive, until ``stop``: taken for good, or leased if ``lease_seconds`` is given.

        Reconnects after the server was unavailable. A message in transit at that moment may be lost unless it is
        leased.

        Args:
            count: maximum number of messages per request (default 1).
        """
        if lease_seconds is None:
            call = calls.repeatable(calls.take_many(queue, count, wait_seconds=POLL_SECONDS))
        else:
            call = calls.lease_many(queue, count, lease_seconds, wait_seconds=POLL_SECONDS)
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
        ``restmq.client.stream.Listening`` documents the arguments.
        """
        listening = Listening(queue, last_key, lease_seconds, prefetch, on_gap)
        patience = self._patience()
        with contextlib.suppress(Stopped):
            while True:
                try:
                    with self._connections.stream(listening.request()) as chunks:
                        self.answered = True
                        patience = self._patience()
                        for chunk in chunks:
                            yield from listening.feed(chunk)
                    error: RestMQError = Unreachable("the server ended the stream.", sent=True)
                except RestMQError as problem:
                    error = problem
                self._sleep_after(error, patience, repeatable=True)

    def stop(self) -> None:
        """Ends every call that waits for a response, with Stopped, and every iterator. Received responses still count.

        Safe to call from a signal handler. A stopped client can't be started again.
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

    # Retries

    def _patience(self) -> Patience:
        return Patience(inf if self.lasting and self.answered else self.retry_seconds, time.monotonic)

    def _sleep_after(self, error: RestMQError, patience: Patience, repeatable: bool) -> None:
        if self._stopped:
            raise Stopped("stopped before the answer came.") from None
        seconds = patience.pause_seconds(error, repeatable)
        if self.on_retry is not None:
            self.on_retry(error, seconds)
        if self.stopped_within(seconds):
            raise Stopped("stopped before the answer came.") from None
