"""One question to one server, on a connection of its own, before it is known what the server is good for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet import defer, error, protocol, task
from twisted.python.failure import Failure

from restmq.errors import StoreRefused, StoreUnavailable
from restmq.store.connection import Connection, ErrorReply
from restmq.store.connection_pool import why_lost
from restmq.store.handshake import Unusable
from restmq.store.settings import StoreSettings


class _Asker(protocol.Factory):  # type: ignore[misc]  # untyped
    """The owner of such a connection."""

    noisy = False

    def __init__(self, reactor: Any) -> None:
        self.seconds = reactor.seconds
        self.why_lost: Failure | None = None

    def buildProtocol(self, _address: Any) -> Connection:
        return Connection(self)

    def connection_made(self, connection: Any) -> None:
        """There is nothing to examine."""

    def connection_lost(self, connection: Any, why: Failure) -> None:
        self.why_lost = why  # the question fails by itself

    def refused(self, _connection: Any, problem: ErrorReply) -> Exception:
        return StoreRefused(str(problem))


def authenticate(connection: Connection, username: str | None, password: str | None) -> defer.Deferred[Any]:
    """Sends the password, if there is one. An error that the server answers is a result."""
    if password is None:
        return defer.succeed(None)
    user = [username] if username is not None else []
    return connection.ask(b"AUTH", *user, password)


async def ask_once(
    endpoint: Any,
    reactor: Any,
    settings: StoreSettings,
    username: str | None,
    password: str | None,
    questions: Sequence[Sequence[Any]],
) -> list[Any]:
    """Connects, asks, and closes the connection. Returns the answers; an error answer is an ErrorReply.

    Raises Unusable if the server does not accept the password or closes the connection, and what connecting fails with.
    """
    asker = _Asker(reactor)
    connection = await endpoint.connect(asker)
    try:
        greeted = authenticate(connection, username, password)
        asked = [connection.ask(*question) for question in questions]
        answers = await defer.gatherResults([greeted, *asked], consumeErrors=True)
    except defer.FirstError as problem:
        await task.deferLater(reactor, 0)  # the connection tells why when all its calls have failed
        if asker.why_lost is not None:
            raise Unusable(why_lost(connection, asker.why_lost, settings)) from None
        raise problem.subFailure.value from None
    finally:
        if connection.connected:
            connection.transport.abortConnection()
    if isinstance(answers[0], ErrorReply):
        raise Unusable(str(answers[0]))
    return list(answers[1:])


def why_no_answer(failure: Failure) -> str:
    """The reason of a failed question, for people."""
    if failure.check(defer.TimeoutError, defer.CancelledError, StoreUnavailable, error.TimeoutError):
        return "no answer"
    return str(failure.getErrorMessage())
