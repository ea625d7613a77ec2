"""What all clients have: their settings, the retries, and a method for each call in ``restmq.client.calls``."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import wraps
from math import inf
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

from restmq.client import calls
from restmq.client.exchange import Call, RetryPolicy
from restmq.client.server import DEFAULT_URL, Server
from restmq.errors import RestMQError

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Result = TypeVar("_Result", covariant=True)


class _Blocks(Protocol):
    def run(self, call: Call[_T]) -> _T: ...


class _RunsCoroutines(Protocol):
    def run(self, call: Call[_T]) -> Coroutine[Any, Any, _T]: ...


class _RunsDeferreds(Protocol):
    def run(self, call: Call[_T]) -> Deferred[_T]: ...


class _Method(Protocol[_P, _Result]):
    """The type of a method that runs a call: its result is that of the client's own ``run``."""

    @overload
    def __get__(self, client: _Blocks, owner: type) -> Callable[_P, _Result]: ...
    @overload
    def __get__(self, client: _RunsCoroutines, owner: type) -> Callable[_P, Coroutine[Any, Any, _Result]]: ...
    @overload
    def __get__(self, client: _RunsDeferreds, owner: type) -> Callable[_P, Deferred[_Result]]: ...


def _method(make: Callable[_P, Call[_T]]) -> _Method[_P, _T]:
    """Turns a function of ``restmq.client.calls`` into a method that runs the call."""

    @wraps(make)
    def method(self: Any, /, *args: _P.args, **kwargs: _P.kwargs) -> Any:
        return self.run(make(*args, **kwargs))

    return cast(_Method[_P, _T], method)


class BaseClient(ABC):
    """The settings of a client and its methods. A subclass has ``run``, and with it what the methods return."""

    #: A monotonic clock.
    _seconds: Callable[[], float] = staticmethod(time.monotonic)

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
        self._set_up()

    @abstractmethod
    def _set_up(self) -> None:
        """Makes the connections to the server, which connect when they are used."""

    publish = _method(calls.publish)
    publish_many = _method(calls.publish_many)
    take = _method(calls.take)
    take_many = _method(calls.take_many)
    take_first = _method(calls.take_first)
    lease = _method(calls.lease)
    lease_many = _method(calls.lease_many)
    ack = _method(calls.ack)
    ack_many = _method(calls.ack_many)
    extend = _method(calls.extend)
    nack = _method(calls.nack)
    find = _method(calls.find)
    peek = _method(calls.peek)
    delete = _method(calls.delete)
    queues = _method(calls.queues)
    stats = _method(calls.stats)
    stats_of_all = _method(calls.stats_of_all)
    overview = _method(calls.overview)
    ready = _method(calls.ready)
    servers = _method(calls.servers)
    settings = _method(calls.settings)
    configure = _method(calls.configure)
    pause = _method(calls.pause)
    resume = _method(calls.resume)
    purge = _method(calls.purge)
    dead = _method(calls.dead)
    redrive = _method(calls.redrive)
    drop_dead = _method(calls.drop_dead)

    def _retry_policy(self) -> RetryPolicy:
        return RetryPolicy(inf if self.lasting and self.answered else self.retry_seconds, self._seconds)

    def _pause_seconds(self, error: RestMQError, policy: RetryPolicy, repeatable: bool) -> float:
        """Seconds until the retry, which ``on_retry`` is told. Raises the error if there is to be no retry."""
        seconds = policy.delay_seconds(error, repeatable)
        if self.on_retry is not None:
            self.on_retry(error, seconds)
        return seconds
