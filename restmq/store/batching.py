"""Calls of one reactor turn that are alike go to Redis as one, and each is answered on its own.

Under load many requests arrive in the same turn; a script call costs Redis and us more than what one of them asks for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet import defer
from twisted.python.failure import Failure

from restmq.model import BATCH_MAX

_BYTES_AT_MOST = 1 << 20

Kind = TypeVar("Kind", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


class _Batch(Generic[Item, Result]):
    """What came in one turn."""

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


class Batcher(Generic[Kind, Item, Result]):
    """Gathers calls of each kind.

    Args:
        call_later: the reactor's.
        send: makes one call of many; returns for each item, in order, a result or the error that it is to fail with.
    """

    def __init__(
        self,
        call_later: Callable[..., Any],
        send: Callable[[Kind, list[Item]], Awaitable[Sequence[Result | Exception]]],
    ) -> None:
        self._call_later = call_later
        self._send = send
        self._gathered: dict[Kind, _Batch[Item, Result]] = {}

    def add(self, kind: Kind, item: Item, size_bytes: int = 0) -> defer.Deferred[Result]:
        """Joins the call of this kind that goes out at the end of the turn, or now, if it has become large."""
        gathered = self._gathered.get(kind)
        if gathered is None:
            gathered = self._gathered[kind] = _Batch()
            self._call_later(0, self._flush, kind, gathered)
        answer: defer.Deferred[Result] = defer.Deferred()
        gathered.items.append(item)
        gathered.answers.append(answer)
        gathered.size_bytes += size_bytes
        if gathered.size_bytes > _BYTES_AT_MOST or len(gathered.items) >= BATCH_MAX:
            self._flush(kind, gathered)
        return answer

    def flush(self, kind: Kind) -> None:
        """Sends now what was gathered, so that it goes before what comes next."""
        gathered = self._gathered.get(kind)
        if gathered is not None:
            self._flush(kind, gathered)

    def _flush(self, kind: Kind, gathered: _Batch[Item, Result]) -> None:
        if self._gathered.get(kind) is gathered:
            del self._gathered[kind]
            sent = defer.ensureDeferred(self._send(kind, gathered.items))
            sent.addCallbacks(gathered.answer, gathered.fail)
