"""Calls on one partition that no node has run yet, because the partition's slot is being moved or has moved.

The first call is sent again and again: at once if a node names another node, otherwise after pauses that grow. The
other calls wait behind it, because they would get the same answer, and could run in another order. When the first call
has run, all others are sent, in their order. A call that is still waiting at its time limit fails, and was not run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import defer, task
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.errors import StoreUnavailable
from restmq.store.cluster.node import ClusterNode, Redirection

log = Logger()

_PAUSE_SECONDS, _PAUSE_FACTOR, _PAUSE_SECONDS_MAX = 0.01, 1.6, 0.25
#: Number of redirections without a pause, because two nodes may name each other.
_AT_ONCE_MAX = 3


_Send = Callable[[ClusterNode], defer.Deferred[Any]]


class HeldCall:
    """A call that can be sent again, because no node has run it.

    Args:
        send: sends the call to a node.
        send_asking: sends it to a node to which the slot is being moved (``ASKING``); None if it must not run there.
        deadline: the time (reactor seconds) until which the call may wait.
    """

    __slots__ = ("answer", "deadline", "send", "send_asking", "timer")

    def __init__(self, send: _Send, send_asking: _Send | None, deadline: float) -> None:
        self.send = send
        self.send_asking = send_asking
        self.deadline = deadline
        self.answer: defer.Deferred[Any] = defer.Deferred()
        self.timer: Any = None


class GateOwner(Protocol):
    """The cluster's store, as a gate sees it."""

    def node_of(self, partition: int) -> ClusterNode | None: ...
    def follow(self, partition: int, problem: Redirection) -> ClusterNode | None:
        """The node that another node named, for the next try; None to wait."""

    def opened(self, partition: int, calls: list[HeldCall]) -> None:
        """The first call was run. Sends these calls, which waited behind it."""


class Gate:
    """The waiting calls of one partition, the oldest first."""

    def __init__(self, owner: GateOwner, partition: int, reactor: Any) -> None:
        self._owner = owner
        self._partition = partition
        self._reactor = reactor
        self._calls: deque[HeldCall] = deque()
        self._problem: Redirection | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def hold(self, call: HeldCall, problem: Redirection | None = None) -> None:
        """Adds a call. If it is the first one, it is sent again as the node's answer says."""
        self._wait(call)
        self._calls.append(call)
        if self._problem is None and problem is not None:
            self._problem = problem
            asking = defer.ensureDeferred(self._ask())
            asking.addErrback(lambda failure: log.failure("asking a cluster again failed", failure))

    def _wait(self, call: HeldCall) -> None:
        left_seconds = max(0.0, call.deadline - self._reactor.seconds())
        call.timer = self._reactor.callLater(left_seconds, self._expire, call)

    def _expire(self, call: HeldCall) -> None:
        self._calls.remove(call)
        call.answer.errback(Failure(StoreUnavailable(str(self._problem))))

    async def _ask(self) -> None:
        """Sends the first call again until it has run, or no call waits any more."""
        problem = self._problem
        pause, at_once = _PAUSE_SECONDS, 0
        while self._calls:
            is_coming = problem is not None and problem.code == "ASK"
            node = self._owner.follow(self._partition, problem) if problem is not None else None
            if is_coming and self._calls[0].send_asking is None:
                node = None
            if node is not None and node.connected and at_once < _AT_ONCE_MAX:
                at_once += 1
            else:
                await task.deferLater(self._reactor, pause)
                pause, at_once = min(pause * _PAUSE_FACTOR, _PAUSE_SECONDS_MAX), 0
                node, is_coming = self._owner.node_of(self._partition), False
                if node is None or not node.connected or not self._calls:
                    problem = None
                    continue
            problem = await self._send_first(node, is_coming)
            if problem is None:
                break
            self._problem = problem
        waiting = list(self._calls)
        self._calls.clear()
        for call in waiting:
            call.timer.cancel()
        self._owner.opened(self._partition, waiting)

    async def _send_first(self, node: ClusterNode, is_coming: bool) -> Redirection | None:
        """Sends the first call. Returns the node's answer if the call was not run."""
        call = self._calls.popleft()
        call.timer.cancel()

        def take(result: Any) -> Redirection | None:
            if not isinstance(result, Failure) or not result.check(Redirection):
                call.answer.callback(result)  # a Failure too
                return None
            self._wait(call)
            self._calls.appendleft(call)
            problem: Redirection = result.value
            return problem

        send = call.send_asking if is_coming and call.send_asking is not None else call.send
        problem: Redirection | None = await send(node).addBoth(take)
        return problem
