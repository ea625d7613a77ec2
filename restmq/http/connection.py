"""One client connection (RFC 9112): the order of pipelined requests, deadlines, upgrades, streams, and the close.

Rules:

1. The application gets one request at a time. While it is being answered and more are already here, or while the client
   does not read its responses, or while the connection waits for its turn (``http.turns``), the connection is not read.
   So a client cannot pile up work.
2. All bytes of requests count from their arrival to the end of the response (``factory.received``); the first 16 KiB of
   each connection are free. All bytes of responses that the client does not read count too (``factory.unread``).
3. A connection has one deadline, for the rest of a request, for the next request, or for its close. None means that
   the server itself is at work.
4. A closed connection leaves no reference cycle: the garbage collector runs too rarely to free a large buffer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from restmq.errors import WireError
from restmq.http.client_transport import NOTHING, ClientTransport
from restmq.http.limits import Limits
from restmq.http.parser import RequestParser, head_of
from restmq.http.request import Request
from restmq.http.turns import QUIET_SECONDS, SMALL_BYTES, SMALL_SECONDS
from restmq.transport import Presence, notice_vanished_client, send_at_once

#: While the server drains, a new connection may still send its first request within this time.
_FIRST_REQUEST_SECONDS = 1.0
_UPGRADE_BYTES_MAX = 65536
#: A connection that pipelines requests lets other connections have their turn after this number of requests.
_REQUESTS_PER_TURN = 4
#: A shorter read cannot exceed a connection's free bytes, unless a request is in progress.
_SHORT_READ_BYTES = 4096


@implementer(IPushProducer)
class HTTPConnection(ClientTransport):
    """Parses one client's bytes, queues pipelined requests, and hands over one request at a time."""

    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self.remote_ip = getattr(peer, "host", "") or "unix"
        self.secure = hasattr(self.transport, "getPeerCertificate")
        self._limits, self._turns, self._unread = self.factory.limits, self.factory.turns, self.factory.unread
        self._parser = RequestParser(self, self._limits)
        self._handler: Any = None
        self._current: Request | None = None
        self._waiting = False
        self._earned_seconds = 0.0
        self._discarding = False
        self.presence = Presence(self._disconnected_while_paused, self.remote_ip)
        self.deadline = self.factory.seconds() + self._limits.request_seconds
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        notice_vanished_client(self.transport)
        self.transport.registerProducer(self, True)
        refusal = self.factory.admit(self)
        if refusal:
            self._refuse(refusal)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.factory.forget(self)
        self._unread.discard(self)
        handler, self._handler = self._streaming or self._handler, None
        self._streaming = None
        self._discard()
        self._parser = _NO_PARSER
        if handler is not None:
            handler.on_connection_close()
        self.presence.leave()

    def dataReceived(self, data: bytes) -> None:
        if self._discarding:
            return
        turns = self._turns
        if turns.spent >= QUIET_SECONDS and turns.is_full():
            self._parser.feed(data, later=True)
            self._account()
            self._wait(is_short=len(data) <= SMALL_BYTES)
        elif len(data) > SMALL_BYTES:
            turns.process(self._process, data)
        else:
            turns.spent += SMALL_SECONDS
            self._process(data)

    def _process(self, data: bytes) -> None:
        parser = self._parser
        parser.feed(data)
        if parser.in_request:
            self._time_request()
            self._account()
        elif self._charged_bytes or parser.expands or len(data) > _SHORT_READ_BYTES:
            self._account()
        if parser.after_upgrade is not None and len(parser.after_upgrade) > _UPGRADE_BYTES_MAX:
            self.transport.abortConnection()
        else:
            self._next()

    def _time_request(self) -> None:
        """Sets the deadline of the request in progress, once; behind another request its time begins later."""
        if self._parser.begun:
            self._parser.begun, self._earned_seconds = False, 0.0
            if self._current is None:
                self.deadline = self.factory.seconds() + self._limits.request_seconds

    def _wait(self, is_short: bool = False) -> None:
        """Waits for another turn."""
        self._pause_reading(True)
        if not self._waiting:
            self._waiting = True
            self._turns.wait(self._resume, is_short)

    def _resume(self) -> None:
        self._waiting = False
        parser = self._parser
        if parser.unparsed and not parser.requests and not self._discarding:
            parser.resume()
            if parser.in_request:
                self._time_request()
            self._account()
        self._next()

    def _account(self) -> None:
        """Charges the bytes of requests that the connection holds. Refuses the current request if they are too many."""
        held_bytes = self._parser.held_bytes
        if self._current is not None:
            held_bytes += len(self._current.body)
        problem = self.charge(held_bytes)
        if problem and self._parser.refusal is None:
            self._parser.refuse(WireError(503, problem))
            self._account()

    def hand_over(self, request: Request, successor: Any) -> None:
        """Gives the connection to another protocol, which gets the request's head and all bytes after it.

        The connection stays counted until the successor calls the factory's ``forget``.
        """
        after = bytes(self._parser.after_upgrade or b"")
        self._parser.forget()
        self._parser = _NO_PARSER
        self._handler, self._current, self._discarding, self.deadline = None, None, True, None
        self.presence.leave()
        self._account()
        self._unread.discard(self)
        self._pause_reading(False)
        self.transport.unregisterProducer()
        if hasattr(self.transport, "wrappedProtocol"):
            self.transport.wrappedProtocol = successor
        else:
            self.transport.protocol = successor
        successor.makeConnection(self.transport)
        successor.dataReceived(head_of(request) + after)

    # One request at a time

    def _next(self) -> None:
        """Hands over the next request unless one is being answered. Sends the refusal once no request is left."""
        parser, left = self._parser, _REQUESTS_PER_TURN
        while self._client_reads and self._current is None and not self._discarding:
            if parser.requests and left:
                left -= 1
                self._answer(parser.requests.popleft())
            elif parser.requests or parser.unparsed:
                self._wait()
                return
            else:
                break
        if self._discarding or self._waiting:
            return
        if self._current is not None or not self._client_reads:
            self._pause_reading(not self._client_reads or bool(parser.requests or parser.unparsed))
            return
        self._pause_reading(False)
        if parser.refusal is not None:
            self._refuse(parser.refusal)
        elif parser.continue_owed:
            parser.continue_owed = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, request: Request) -> None:
        if self._unread.backlogs and self._unread.refuses(self.remote_ip):
            self._refuse(WireError(503, "too many responses to your address are unread; read them and try again."))
            return
        self._current, self.deadline = request, None
        handler = self.factory(request)
        if self._current is not None and self._streaming is None:
            self._handler = handler

    def pauseProducing(self) -> None:
        """The transport is full: the client does not read its responses, so it gets no more of them."""
        self._client_reads = False
        self._unread.add(self, self.factory.seconds())

    def resumeProducing(self) -> None:
        self._client_reads = True
        self._unread.discard(self)
        if self._rest:
            self._write_rest()
            if not self._rest:
                self._end_response(self._keeps_alive)
        elif self._current is None and not self._discarding:
            self._wait_for_client()
            self._next()

    def stopProducing(self) -> None:
        """Nothing to do: connectionLost follows."""

    def _wait_for_client(self, unsent_bytes: int = 0) -> None:
        """Sets the deadline for the rest of a request, or for the next one."""
        limits = self._limits
        seconds = limits.request_seconds if self._parser.in_request else limits.idle_seconds
        self.deadline = self.factory.seconds() + seconds + unsent_bytes / limits.bytes_per_second

    def finished(self, data: bytes, keep_alive: bool, rest: Sequence[bytes] = ()) -> None:
        """Sends a whole response, or the last bytes of one. Then the next request has its turn.

        Args:
            rest: more of a long response. The transport gets the next piece when it has sent the last one.
        """
        send_at_once(self.transport, data)
        self._handler = None
        self._wait_for_client(len(data) + sum(map(len, rest)))
        if rest:
            self._rest, self._keeps_alive = deque(rest), keep_alive
        self._write_rest()
        if not self._rest:
            self._end_response(keep_alive)

    def _end_response(self, keep_alive: bool) -> None:
        self._current = None
        parser = self._parser
        if self._charged_bytes:
            self._account()
        if not keep_alive or self.factory.draining:
            self._end(linger=self._reading_paused or parser.in_request or bool(parser.requests or parser.after_upgrade))
        elif self._reading_paused or parser.refusal is not None or parser.continue_owed:
            self._wait()

    def start_draining(self) -> None:
        """Closes an idle connection. A new connection gets one more second for its first request."""
        parser = self._parser
        if parser.is_new:
            self.deadline = self.factory.seconds() + _FIRST_REQUEST_SECONDS
        elif self._current is None and not (parser.has_input or self._discarding):
            self._end()

    def _discard(self) -> None:
        """Ignores all that the client has sent and will send."""
        self._discarding, self._current = True, None
        self._rest = NOTHING
        self._parser.forget()
        if self._charged_bytes:
            self._account()

    def _end(self, linger: bool = False) -> None:
        self._discard()
        self._close(linger)

    def stream(self, consumer: Any) -> None:
        """Makes the response endless: the consumer writes to the transport and is its producer.

        The consumer's ``on_connection_close`` is called at the end. Further input is ignored. The request's objects are
        released.
        """
        self._streaming, self._handler = consumer, None
        self._discard()
        self._parser = _NO_PARSER
        self._unread.discard(self)
        self._pause_reading(False)  # else a disconnect would not be seen
        self.transport.unregisterProducer()
        self.transport.registerProducer(consumer, True)

    # Refusals and deadlines

    def _refuse(self, refusal: WireError) -> None:
        self.factory.refused(self.remote_ip, refusal)
        self.transport.write(self.factory.render_refusal(refusal))
        self.expect_end()
        self._end(linger=True)

    def deadline_passed(self) -> None:
        if self._discarding:
            self.transport.abortConnection()
        elif self._earns_time():
            pass
        elif self._parser.in_request and self._client_reads:
            self._refuse(WireError(408, "the request took too long to arrive; send it faster."))
        else:
            self.expect_end()
            self._end()

    def _earns_time(self) -> bool:
        """Extends the deadline by the time that the body's bytes may take. Returns whether that helps."""
        earned_seconds = self._parser.body_bytes / self._limits.bytes_per_second
        assert self.deadline is not None
        self.deadline += earned_seconds - self._earned_seconds
        self._earned_seconds = earned_seconds
        return self.deadline > self.factory.seconds()


#: For a connection that streams or was handed over: its input holds no requests.
_NO_PARSER = RequestParser(None, Limits())
_NO_PARSER.is_new = False
