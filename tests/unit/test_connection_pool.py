"""The connections of a pool to a Redis that answers when the test says so."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import defer, task
from twisted.internet.testing import StringTransport

from restmq.store.connection import Connection
from restmq.store.connection_pool import ConnectionPool
from restmq.store.handshake import RedisServer
from restmq.store.settings import StoreSettings


class Transport(StringTransport):  # type: ignore[misc]  # untyped
    def abortConnection(self) -> None:
        """The connection is lost in the next turn of the reactor."""


class Endpoint:
    """Connects at once."""

    def connect(self, factory: Any) -> defer.Deferred[Connection]:
        connection: Connection = factory.buildProtocol(None)
        connection.makeConnection(Transport())
        return defer.succeed(connection)


async def examine(_connection: Connection, _settings: StoreSettings) -> RedisServer:
    return RedisServer(b"1", {})


def nothing(*_: Any) -> None: ...


@pytest.mark.parametrize("reason", ["overdue", "another primary"])
def test_no_call_is_sent_on_a_connection_that_was_given_up(reason: str) -> None:
    clock = task.Clock()
    owner: Any = SimpleNamespace(joined=nothing, lost=nothing, problem=nothing, stable=nothing, may_grow=lambda _: True)
    pool = ConnectionPool(
        settings=StoreSettings(call_timeout_seconds=1),
        size=2,
        owner=owner,
        reactor=clock,
        kind=Connection,
        examine=examine,
    )
    pool.start(Endpoint())
    given_up, kept = pool.pool
    given_up.call(b"PING").addErrback(nothing)
    if reason == "overdue":
        clock.pump([0.5] * 4)
    else:
        pool.abort_others(lambda connection: connection is kept)
    assert pool.pool == [kept]
