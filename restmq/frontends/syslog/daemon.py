"""``twistd syslogd``: puts syslog lines into queues, one per sending host: ``syslogd:<its address>``."""

from __future__ import annotations

from typing import Any

from twisted.application import internet, service
from twisted.internet import address, error

from restmq.auth.acl import parse_hosts
from restmq.core import RedisOperations
from restmq.errors import ConfigurationError
from restmq.frontends.syslog.receiver import Intake, TcpReceiver, UdpReceiver
from restmq.frontends.syslog.spool import LineCounts, Quota, Spool
from restmq.server import options as shared
from restmq.server.coercions import seconds, whole_number
from restmq.server.daemon import InOrder, Listener, cannot_listen, find_store, listening_on, log_addresses, url_of
from restmq.store.cluster.store import make_store

_DATAGRAM_BYTES_MAX = 65_535
_COUNT = whole_number(1, 10_000_000)
_BYTES = whole_number(1, 1 << 40)


class Options(shared.DaemonOptions):
    """``twistd syslogd``."""

    command = "syslogd"
    synopsis = "[syslogd options]"
    longdesc = "Receives syslog lines by TCP and UDP, and puts them into queues named syslogd:<address of the sender>."

    optParameters: list[list[Any]] = [
        ["port", None, 25000, "port to listen on, TCP and UDP", whole_number(1, 65535)],
        ["data-dir", None, None, "data directory of a RestMQ on this machine with a private store"],
        ["senders", None, None, "addresses or networks that may send [default: all]", parse_hosts],
        ["max-line", None, 65536, "maximum line in bytes; the rest is cut off", whole_number(480, 1 << 24)],
        ["max-connections", None, 1000, "maximum TCP connections", _COUNT],
        ["max-connections-per-address", None, 200, "maximum TCP connections from one address", _COUNT],
        ["max-buffered-lines", None, 100000, "maximum lines that wait for Redis, each for TCP and for UDP", _COUNT],
        ["max-buffered-bytes", None, 67108864, "maximum bytes that wait for Redis, each for TCP and for UDP", _BYTES],
        ["hold-time", None, 3600, "seconds to keep a line that Redis does not accept", seconds],
        ["count-interval", None, 60, "seconds between summaries in the log, if numbers changed", seconds],
    ]
    optFlags = [["no-udp", None, "do not listen for UDP"]]


class SenderListener(Listener):
    """Listens for TCP senders."""

    def __init__(self, receiver: TcpReceiver, listen_on: list[Any], drain_seconds: float, clock: Any) -> None:
        super().__init__(receiver, listen_on)
        self._receiver = receiver
        self._drain_seconds = drain_seconds
        self._clock = clock

    async def drain(self) -> None:
        await self._receiver.drain(self._drain_seconds, self._clock)


class UdpListener(internet.UDPServer):  # type: ignore[misc]  # untyped
    """Listens for datagrams."""

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except error.CannotListenError as problem:
            raise ConfigurationError(f"UDP: {cannot_listen(problem)}") from None


def makeService(options: Options) -> service.IService:
    """The service that the options describe."""
    from twisted.internet import reactor

    settings, where = find_store(options, options["data-dir"])
    drain_seconds = options["drain-timeout"]
    store = make_store(settings, reactor)
    counts = LineCounts(options["count-interval"])
    spool = Spool(
        RedisOperations(store), counts, hold_seconds=options["hold-time"], drain_seconds=drain_seconds, clock=reactor
    )
    intake = Intake(
        spool=spool,
        counts=counts,
        time_ms=store.time_ms,
        line_bytes_max=options["max-line"],
        allowed=options["senders"],
    )
    tcp_quota, udp_quota = (Quota(options["max-buffered-lines"], options["max-buffered-bytes"]) for _ in range(2))
    receiver = TcpReceiver(intake, tcp_quota, options["max-connections"], options["max-connections-per-address"])
    spool.on_capacity = receiver.resume_connections
    counts.describe_waiting = lambda: f"wait for Redis: {spool.waiting_lines}, {receiver.describe_waiting()}"
    tcp = SenderListener(receiver, listening_on(options, reactor), drain_seconds, reactor)
    parts = InOrder()
    for part in (store, counts, spool, tcp):
        part.setServiceParent(parts)
    udp_addresses = []
    if not options["no-udp"]:
        udp = (options["port"], UdpReceiver(intake, udp_quota), options["listen"], _DATAGRAM_BYTES_MAX)
        UdpListener(*udp).setServiceParent(parts)
        udp_addresses = [url_of(address.IPv4Address("UDP", options["listen"], options["port"]), "udp")]
    reactor.callWhenRunning(
        lambda: log_addresses("RestMQ syslogd", [*tcp.addresses, *udp_addresses], store, where, "lines wait")
    )
    return parts
