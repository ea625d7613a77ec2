"""Joins calls: like calls that arrive together, and the same call while it runs.

Under load, many requests arrive in the same reactor turn. A script call costs more, in Redis and in the daemon, than
the work that one request asks of it. So like calls make a batch, which is one script call.

1.  All batches go out together, in the order of their first calls: one system call for each connection.
2.  They wait for the end of the turn, and, if the turn brought more calls, for the end of the next one; at most for
    ``_MORE_TURNS_MAX`` of them. The reactor does not sleep meanwhile. With one Redis, all answers arrive together, and
    with them the next requests of all clients. The nodes of a cluster answer one by one; without this rule, so would
    the batches go out, each with few calls.
3.  A call that comes alone while no batch is unanswered goes out at the end of its turn: it would wait in vain.
4.  No batch waits for the answer to another one. So a node that hangs or fails concerns its own batches alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from functools import partial
from types import MethodType
from typing import Any, Generic, TypeVar

from twisted.internet import defer
from twisted.python.failure import Failure

from restmq.model import BATCH_MAX
from restmq.store.connection import Connection

_BATCH_BYTES_MAX = 1 << 20
#: With twice as many, batches hardly become larger.
_MORE_TURNS_MAX = 3

BatchKind = TypeVar("BatchKind", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class TurnEnd:
    """Sends batches at the end of a reactor turn, by the rules above.

    Args:
        call_later: the reactor's ``callLater``.

    Attributes:
        joined: number of calls that joined batches in this turn.
        unanswered: number of batches that were sent and have no answer yet.
    """

    def __init__(self, call_later: Callable[..., Any]) -> None:
        self._call_later = call_later
        self._calls: list[Callable[[], Any]] = []
        self._more_turns = 0
        self.joined = 0
        self.unanswered = 0

    def add(self, call: Callable[[], Any]) -> None:
        """Adds a function that sends a batch."""
        if not self._calls:
            self._more_turns = _MORE_TURNS_MAX
            self._call_later(0, self._run)
        self._calls.append(call)

    def _run(self) -> None:
        joined, self.joined = self.joined, 0
        if self._more_turns and joined > (0 if self.unanswered else 1):
            self._more_turns -= 1
            self._call_later(0, self._run)
            return
        calls, self._calls = self._calls, []
        if len(calls) == 1:
            calls[0]()
        else:
            Connection.send_together(calls)


class _Batch(Generic[Item, Result]):
    """Calls of one kind."""

    __slots__ = ("answers", "items", "size_bytes")

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.answers: list[defer.Deferred[Result]] = []
        self.size_bytes = 0

    def answer(self, results: Sequence[Result | Exception]) -> None:
        for answer, result in zip(self.answers, results, strict=True):
            if isinstance(result, Exception):
                answer.errback(Failure(result))
            else:
                answer.callback(result)

    def fail(self, failure: Failure) -> None:
        for answer in self.answers:
            answer.errback(failure)


class Batcher(Generic[BatchKind, Item, Result]):
    """Joins calls of each kind.

    Args:
        turn_end: the store's.
        send: makes one call for many items; returns for each item, in order, its result or its error.
    """

    def __init__(
        self,
        turn_end: TurnEnd,
        send: Callable[[BatchKind, list[Item]], Awaitable[Sequence[Result | Exception]]],
    ) -> None:
        self._turn_end = turn_end
        self._send = send
        self._batches: dict[BatchKind, _Batch[Item, Result]] = {}

    def add(self, kind: BatchKind, item: Item, size_bytes: int = 0) -> defer.Deferred[Result]:
        """Joins the batch of this kind, which goes out with the others, or now if it has become large."""
        batch = self._batches.get(kind)
        if batch is None:
            batch = self._batches[kind] = _Batch()
            self._turn_end.add(partial(self._flush, kind, batch))
        self._turn_end.joined += 1
        answer: defer.Deferred[Result] = defer.Deferred()
        batch.items.append(item)
        batch.answers.append(answer)
        batch.size_bytes += size_bytes
        if batch.size_bytes > _BATCH_BYTES_MAX or len(batch.items) >= BATCH_MAX:
            self._flush(kind, batch)
        return answer

    def flush(self, kind: BatchKind) -> None:
        """Sends this kind's batch now, so that it goes before the caller's next call."""
        batch = self._batches.get(kind)
        if batch is not None:
            self._flush(kind, batch)

    def _flush(self, kind: BatchKind, batch: _Batch[Item, Result]) -> None:
        if self._batches.get(kind) is batch:
            del self._batches[kind]
            self._turn_end.unanswered += 1
            sent = defer.ensureDeferred(self._send(kind, batch.items))
            sent.addBoth(self._answered).addCallbacks(batch.answer, batch.fail)

    def _answered(self, result: Any) -> Any:
        self._turn_end.unanswered -= 1
        return result


class SharedCall(Generic[Result]):
    """Runs a call once at a time. Callers that come while it runs get the same result or failure.

    Args:
        call: the coroutine function to run.
    """

    def __init__(self, call: Callable[[], Coroutine[Any, Any, Result]]) -> None:
        self._call = call
        self._waiting: list[defer.Deferred[Result]] = []

    def __call__(self) -> defer.Deferred[Result]:
        answer: defer.Deferred[Result] = defer.Deferred()
        self._waiting.append(answer)
        if len(self._waiting) == 1:
            defer.ensureDeferred(self._call()).addBoth(self._answer)
        return answer

    def _answer(self, result: Any) -> None:
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer.callback(result)  # also if it is a Failure


def _weakly(function: _Function) -> Callable[[], _Function | None]:
    """Returns a function that returns this one; None for a method of an object that nobody else has."""
    return weakref.WeakMethod(function) if isinstance(function, MethodType) else lambda: function


class SingleFlight:
    """Runs a call one at a time. A request during a run causes one more run after it.

    It does not keep alive the object whose methods it calls, because that object usually has it as an attribute.

    Args:
        call: the coroutine function to run.
        failed: handles the failure of a run. Requests made during that run are dropped.
        start: starts the coroutine; for example ``PendingCalls.run``.
    """

    __slots__ = ("_again", "_call", "_failed", "_start", "running")

    def __init__(
        self,
        call: Callable[[], Awaitable[None]],
        failed: Callable[[Failure], None],
        start: Callable[[Coroutine[Any, Any, None]], defer.Deferred[None]] = defer.ensureDeferred,
    ) -> None:
        self._call = _weakly(call)
        self._failed = _weakly(failed)
        self._start = start
        self._again = False
        self.running = False

    def request(self) -> None:
        """Runs the call now, or once more after the run in progress."""
        if self.running:
            self._again = True
            return
        call, failed = self._call(), self._failed()
        if call is not None and failed is not None:
            self.running = True
            self._start(self._run(call)).addErrback(failed)

    async def _run(self, call: Callable[[], Awaitable[None]]) -> None:
        try:
            self._again = True
            while self._again:
                self._again = False
                await call()
        finally:
            self.running = False
