"""``twistd syslogd``: puts syslog lines into queues, one a sending host: ``syslogd:<its address>``."""

from __future__ import annotations

from typing import Any

from twisted.application import internet, service
from twisted.internet import defer, error
from twisted.logger import Logger

from restmq.auth.acl import parse_hosts
from restmq.core import RedisOperations
from restmq.errors import ConfigurationError
from restmq.frontends.syslog.receiver import Datagrams, Intake, TcpSenders
from restmq.frontends.syslog.spool import Counts, SharedRoom, Spool
from restmq.server import options as shared
from restmq.server.daemon import InOrder, Listener, cannot_listen, find_store, listening_on, say_where, show_address
from restmq.store.pool import Store

log = Logger()

_DATAGRAM_BYTES_MAX = 65_535
_COUNT = shared.whole_number(1, 10_000_000)
_BYTES = shared.whole_number(1, 1 << 40)


class Options(shared.DaemonOptions):
    """``twistd syslogd``."""

    command = "syslogd"
    synopsis = "[syslogd options]"
    longdesc = "Puts syslog lines that come by TCP and UDP into queues named syslogd:<address of the sender>."

    optParameters: list[list[Any]] = [
        ["port", None, 25000, "port to listen on, TCP and UDP", shared.whole_number(1, 65535)],
        ["data-dir", None, None, "data directory of a RestMQ here that keeps its messages in a private store"],
        ["senders", None, None, "addresses or networks whose lines are taken [default: all]", parse_hosts],
        ["max-line", None, 65536, "longest line in bytes; what is longer is cut", shared.whole_number(480, 1 << 24)],
        ["max-connections", None, 1000, "most TCP connections at a time", _COUNT],
        ["max-connections-per-address", None, 200, "most TCP connections from one address", _COUNT],
        ["max-buffered-lines", None, 100000, "most lines that may wait for Redis, of TCP and UDP each", _COUNT],
        ["max-buffered-bytes", None, 67108864, "bytes that may wait for Redis, of TCP and UDP each", _BYTES],
        ["hold-time", None, 3600, "seconds a line is kept for a Redis that does not take it", shared.seconds],
        ["count-interval", None, 60, "seconds between counts in the log, if there is something new", shared.seconds],
    ]
    optFlags = [["no-udp", None, "take no lines by UDP"]]


class TcpListener(Listener):
    """Listens for TCP senders."""

    def __init__(self, senders: TcpSenders, listen_on: list[Any], drain_seconds: float, clock: Any) -> None:
        super().__init__(senders, listen_on)
        self._senders = senders
        self._drain_seconds = drain_seconds
        self._clock = clock

    async def drain(self) -> None:
        await self._senders.drain(self._drain_seconds, self._clock)


class UdpListener(service.Service):  # type: ignore[misc]  # untyped
    """Listens for datagrams."""

    def __init__(self, datagrams: Datagrams, port: int, interface: str, reactor: Any) -> None:
        self._reactor = reactor
        self._where = (port, datagrams, interface, _DATAGRAM_BYTES_MAX)
        self._port: Any = None

    def privilegedStartService(self) -> None:
        try:
            self._port = self._reactor.listenUDP(*self._where)
        except error.CannotListenError as problem:
            raise ConfigurationError(f"UDP: {cannot_listen(problem)}") from None

    @property
    def addresses(self) -> list[str]:
        return [show_address(self._port.getHost(), "udp")]

    def stopService(self) -> Any:
        super().stopService()
        return defer.maybeDeferred(self._port.stopListening)


class CountsLog(internet.TimerService):  # type: ignore[misc]  # untyped
    """Says what became of all lines: now and then where there is something new, and at the end."""

    def __init__(self, interval_seconds: float, counts: Counts, spool: Spool, senders: TcpSenders) -> None:
        super().__init__(interval_seconds, self.say)
        self._counts = counts
        self._spool = spool
        self._senders = senders
        self._said = self._describe()

    def _describe(self) -> str:
        return (
            f"lines since the start: {self._counts.describe()}; {self._spool.waiting_lines} wait for Redis, "
            f"{self._senders.waiting} connections for room"
        )

    def say(self) -> None:
        text = self._describe()
        if text != self._said:
            self._said = text
            self._counts.begin_interval()
            log.info("{text}.", text=text)

    def stopService(self) -> Any:
        stopped = super().stopService()
        self.say()
        if unread_bytes := self._senders.unread_bytes:
            log.warn("lost at the end, for want of room: {count} bytes that were no lines yet.", count=unread_bytes)
        return stopped


def makeService(options: Options) -> service.IService:
    """The service that the options describe."""
    from twisted.internet import reactor

    settings, where = find_store(options, options["data-dir"])
    drain_seconds = options["drain-timeout"]
    store = Store(settings, reactor)
    counts = Counts()
    spool = Spool(RedisOperations(store), counts, options["hold-time"], drain_seconds, reactor)
    intake = Intake(spool, counts, store.time_ms, options["max-line"], options["senders"])
    tcp_room, udp_room = (SharedRoom(options["max-buffered-lines"], options["max-buffered-bytes"]) for _ in range(2))
    senders = TcpSenders(intake, tcp_room, options["max-connections"], options["max-connections-per-address"])
    spool.on_room = senders.room_made
    listeners: list[Any] = [TcpListener(senders, listening_on(options, reactor), drain_seconds, reactor)]
    if not options["no-udp"]:
        listeners.append(UdpListener(Datagrams(intake, udp_room), options["port"], options["listen"], reactor))
    parts = InOrder()
    for part in (store, CountsLog(options["count-interval"], counts, spool, senders), spool, *listeners):
        part.setServiceParent(parts)
    reactor.callWhenRunning(
        lambda: say_where(
            "RestMQ syslogd", [where for part in listeners for where in part.addresses], store, where, "lines wait"
        )
    )
    return parts
