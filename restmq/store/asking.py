"""One question to one server, on a connection of its own, before it is known what the server is good for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet import defer, error, protocol
from twisted.python.failure import Failure

from restmq.errors import StoreRefused, StoreUnavailable
from restmq.store.connection import Connection, ErrorReply
from restmq.store.handshake import Unusable


class _Asker(protocol.Factory):  # type: ignore[misc]  # untyped
    """The owner of such a connection."""

    noisy = False

    def __init__(self, reactor: Any) -> None:
        self.seconds = reactor.seconds

    def buildProtocol(self, _address: Any) -> Connection:
        return Connection(self)

    def connection_made(self, connection: Any) -> None:
        """There is nothing to examine."""

    def connection_lost(self, connection: Any, why: Failure) -> None:
        """The question fails by itself."""

    def refused(self, _connection: Any, problem: ErrorReply) -> Exception:
        return StoreRefused(str(problem))


def authenticate(connection: Connection, username: str | None, password: str | None) -> defer.Deferred[Any]:
    """Sends the password, if there is one. An error that the server answers is a result."""
    if password is None:
        return defer.succeed(None)
    user = [username] if username is not None else []
    return connection.ask(b"AUTH", *user, password)


async def ask_once(
    endpoint: Any, reactor: Any, username: str | None, password: str | None, questions: Sequence[Sequence[Any]]
) -> list[Any]:
    """Connects, asks, and closes the connection. Returns the answers; an error answer is an ErrorReply.

    Raises Unusable if the server does not accept the password, and what the connection fails with.
    """
    connection = await endpoint.connect(_Asker(reactor))
    try:
        greeted = authenticate(connection, username, password)
        asked = [connection.ask(*question) for question in questions]
        answers = await defer.gatherResults([greeted, *asked], consumeErrors=True)
    except defer.FirstError as problem:
        raise problem.subFailure.value from None
    finally:
        connection.transport.abortConnection()
    if isinstance(answers[0], ErrorReply):
        raise Unusable(str(answers[0]))
    return list(answers[1:])


def why_no_answer(failure: Failure) -> str:
    """The reason of a failed question, for people."""
    if failure.check(defer.TimeoutError, defer.CancelledError, StoreUnavailable, error.TimeoutError):
        return "no answer"
    return str(failure.getErrorMessage())
