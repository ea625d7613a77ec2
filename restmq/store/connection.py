"""One connection to Redis. Only this module imports txredisapi; its oddities are dealt with here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol

import txredisapi
from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.errors import StoreUnavailable
from restmq.store.keys import Layout
from restmq.store.scripts import Script
from restmq.transport import send_at_once

log = Logger()

_WENT_AWAY = "the message store (Redis) went away or took too long; try again in a moment."

#: By Valkey and newer Redis, and by Redis 7.0.
_NO_RIGHT_IN_SCRIPT = ("ERR ACL failure", "ERR The user executing the script can't")


class Encoded:
    """Arguments of a command, encoded once and sent many times.

    Attributes:
        partition: the partition of the keys among them.
    """

    __slots__ = ("count", "partition", "wire")

    def __init__(self, args: Iterable[Any], partition: int = 0) -> None:
        parts = [_encode(arg) for arg in args]
        self.count = len(parts)
        self.partition = partition
        self.wire = b"".join(parts)


def script_arguments(layout: Layout, tag: bytes, keys: Sequence[bytes], *args: Any) -> Encoded:
    """The first arguments of a script for the partition with this tag: number of keys, the keys, further arguments."""
    declared = layout.declare(tag, keys)
    return Encoded([len(declared), *declared, *args], layout.partition_of(tag))


def _encode(arg: Any) -> bytes:
    value = arg if isinstance(arg, bytes) else str(arg).encode()
    return b"$%d\r\n%b\r\n" % (len(value), value)


class ErrorReply(Exception):
    """An error that Redis answered, in its own words."""

    @property
    def code(self) -> str:
        """The first word, such as ``OOM``; ``NOPERM`` also for a right that a script lacks."""
        text = str(self)
        return "NOPERM" if text.startswith(_NO_RIGHT_IN_SCRIPT) else text.split(" ", 1)[0]


class Owner(Protocol):
    """The pool that makes connections, and gets their events: ``connection_pool.ConnectionPool``."""

    def seconds(self) -> float: ...
    def connection_made(self, connection: Any) -> None: ...
    def connection_lost(self, connection: Any, why: Failure) -> None: ...
    def refused(self, connection: Any, error: ErrorReply) -> Exception:
        """The error that the caller of a refused call gets."""


class Connection(txredisapi.RedisProtocol):  # type: ignore[misc]  # untyped
    """A connection for calls.

    Attributes:
        sent_at: the times (reactor seconds) of its unanswered calls, the oldest first.
        server: identifies the Redis process at the other end (see ``handshake``); empty until that is known.
        address: host and port, if Sentinel said where to connect to.
        attempt: number of attempts in a row that failed before this connection was made.
        joined_at: the time (reactor seconds) from which its owner could use it.
        is_overdue: whether it was closed because the server did not answer in time.
        held: commands that are sent when ``send_together`` ends.
    """

    _holding: ClassVar[list[Connection] | None] = None

    def __init__(self, owner: Owner, attempt: int = 0) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.factory = owner
        self.sent_at: deque[float] = deque()
        self.server = b""
        self.address: tuple[str, int] | None = None
        self.attempt = attempt
        self.joined_at = 0.0
        self.is_overdue = False
        self.held: list[bytes] = []

    def _build_command(self, *args: Any, **kwargs: Any) -> bytes:
        # Several times as fast as txredisapi's own, and takes pre-encoded arguments.
        count, parts = 0, []
        for arg in args:
            if type(arg) is Encoded:
                count += arg.count
                parts.append(arg.wire)
            elif type(arg) is bytes:  # the usual case, up to a thousand times
                count += 1
                parts.append(b"$%d\r\n%b\r\n" % (len(arg), arg))
            else:
                count += 1
                parts.append(_encode(arg))
        return b"*%d\r\n%b" % (count, b"".join(parts))

    def execute_command(self, *args: Any, **_: Any) -> defer.Deferred[Any]:
        # txredisapi's own also serves pipelines and transactions, which are not used here.
        if not self.connected:
            return defer.fail(txredisapi.ConnectionError("Not connected"))
        self.sent_at.append(self.factory.seconds())
        command, holding = self._build_command(*args), Connection._holding
        if holding is None:
            send_at_once(self.transport, command)
        else:
            if not self.held:
                holding.append(self)
            self.held.append(command)
        answer: defer.Deferred[Any] = self.replyQueue.get()
        return answer.addCallback(self.handle_reply)

    @staticmethod
    def send_together(calls: Iterable[Callable[[], Any]]) -> None:
        """Runs functions that make commands, and then sends the commands: one system call for each connection."""
        if Connection._holding is not None:
            for call in calls:
                call()
            return
        holding: list[Connection] = []
        Connection._holding = holding
        try:
            for call in calls:
                call()
        finally:
            Connection._holding = None
            for connection in holding:
                commands, connection.held = connection.held, []
                send_at_once(connection.transport, b"".join(commands))

    def call(self, *args: Any) -> defer.Deferred[Any]:
        """Makes a command. Fails with StoreUnavailable, or with the owner's error for an error that Redis answered."""
        return self.execute_command(*args).addErrback(self._translate)

    def ask(self, *args: Any) -> defer.Deferred[Any]:
        """As ``call``, but an error that Redis answers is a result: an ErrorReply."""
        return self.execute_command(*args).addErrback(_as_result)

    def run(self, script: Script, first_args: Encoded, *args: Any) -> defer.Deferred[Any]:
        """Runs a script by its hash, or by its text if Redis does not know it (after a restart). Fails as ``call``."""
        answer = self.execute_command(b"EVALSHA", script.sha, first_args, *args)
        return answer.addErrback(self._send_text, self._translate, script, first_args, *args)

    def ask_script(self, script: Script, first_args: Encoded, *args: Any) -> defer.Deferred[Any]:
        """Runs a script. An error that Redis answers is a result, as with ``ask``."""
        answer = self.execute_command(b"EVALSHA", script.sha, first_args, *args)
        return answer.addErrback(self._send_text, _as_result, script, first_args, *args)

    def _send_text(
        self, failure: Failure, otherwise: Callable[[Failure], Any], script: Script, first_args: Encoded, *args: Any
    ) -> Any:
        """Teaches Redis a script that it does not know, and runs it. Hands any other error to ``otherwise``."""
        if not _is_unknown_script(failure):
            return otherwise(failure)

        def evaluate(failure: Failure) -> Any:
            if not _is_unknown_script(failure):
                return failure
            return self.execute_command(b"EVAL", script.source, first_args, *args)

        # A user may have the right for only one of SCRIPT LOAD and EVAL.
        self.execute_command(b"SCRIPT", b"LOAD", script.source).addErrback(lambda _: None)
        again = self.execute_command(b"EVALSHA", script.sha, first_args, *args)
        return again.addErrback(evaluate).addErrback(otherwise)

    def _translate(self, failure: Failure) -> Failure:
        error = failure.value
        if isinstance(error, txredisapi.ConnectionError):
            return Failure(StoreUnavailable(_WENT_AWAY))
        if isinstance(error, txredisapi.ResponseError):
            return Failure(self.factory.refused(self, ErrorReply(str(error))))
        return failure

    def replyReceived(self, reply: Any) -> None:
        if self.sent_at:
            self.sent_at.popleft()
        super().replyReceived(reply)

    @staticmethod
    def handle_reply(reply: Any) -> Any:
        """As txredisapi's, which raises an error: its traceback would be a cycle that holds the call's arguments."""
        return Failure(reply) if isinstance(reply, Exception) else reply

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        # txredisapi's own also serves transactions.
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self.replyReceived(reply)
        except txredisapi.InvalidData:
            self.connectionLost(Failure(ErrorReply("it does not speak Redis' protocol")))
            self.transport.abortConnection()

    def makeConnection(self, transport: Any) -> None:
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        super().makeConnection(transport)

    def connectionMade(self) -> None:
        # txredisapi's own sends AUTH and SELECT, and logs each failure; here the handshake does that.
        self.factory.connection_made(self)

    def connectionLost(self, why: Failure) -> None:
        if self.connected:
            super().connectionLost(why)
            self.factory.connection_lost(self, why)

    def close_when_answered(self) -> None:
        """Closes the connection after the answers to the calls that were sent."""
        self.ask(b"PING").addBoth(lambda _: self.transport.loseConnection())


def _is_unknown_script(failure: Failure) -> bool:
    return bool(failure.check(txredisapi.ResponseError)) and str(failure.value).startswith("NOSCRIPT")


def _as_result(failure: Failure) -> Any:
    error = failure.value
    if isinstance(error, txredisapi.ResponseError):
        return ErrorReply(str(error))
    return Failure(StoreUnavailable(_WENT_AWAY)) if isinstance(error, txredisapi.ConnectionError) else failure


class SubscriptionOwner(Protocol):
    """The owner of subscriptions: ``subscriber.Subscriber``."""

    def message_received(self, channel: bytes, payload: bytes, /) -> None: ...
    def confirmed(self, channel: bytes) -> None: ...
    def ended(self, channel: bytes) -> None:
        """The server ended a subscription, on request or because another node has its slot now."""

    def redirected(self, error: ErrorReply) -> bool:
        """A subscription was refused. Returns whether that is no reason to close the connection."""


class SubscriberConnection(Connection):
    """A connection for pub/sub. Confirmations are matched by channel, because one command may bring several."""

    _listener: SubscriptionOwner | None = None

    def listen(self, owner: SubscriptionOwner) -> None:
        """Passes all further data from Redis to the owner. Until now, the data answered calls."""
        self._listener = owner

    def replyReceived(self, reply: Any) -> None:
        owner = self._listener
        if owner is None or not self.connected:
            super().replyReceived(reply)
        elif isinstance(reply, txredisapi.ResponseError):
            error = ErrorReply(str(reply))
            if not owner.redirected(error):  # it may not subscribe
                self.factory.refused(self, error)
                self.transport.loseConnection()
        elif not isinstance(reply, list) or len(reply) < 2:
            self.sent_at.clear()  # PING, answered by a Sentinel
        elif reply[0] in (b"message", b"smessage"):
            try:
                owner.message_received(reply[1], reply[2])
            except Exception:  # e.g. another program has published it; the other messages go on
                log.failure("a message on the channel {channel!r} could not be handled", channel=reply[1])
        elif reply[0] in (b"subscribe", b"ssubscribe"):
            owner.confirmed(reply[1])
        elif reply[0] in (b"unsubscribe", b"sunsubscribe"):
            owner.ended(reply[1])
        elif reply[0] == b"pong":
            self.sent_at.clear()

    def send(self, *args: Any) -> None:
        self.transport.write(self._build_command(*args))

    def ping(self) -> None:
        self.sent_at.append(self.factory.seconds())
        self.send(b"PING")

    def close_when_answered(self) -> None:
        self.transport.abortConnection()
