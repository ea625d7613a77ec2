"""What ``twistd restmq`` runs: the parts as Twisted services, which start in order and stop in the reverse one."""

from __future__ import annotations

import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.application import internet, service
from twisted.internet import defer, endpoints, error
from twisted.logger import Logger

from restmq import __version__
from restmq.access import Guard
from restmq.acl import Acl
from restmq.core import RedisOperations
from restmq.deadlines import Deadlines
from restmq.embedded import DataDirectory, EmbeddedServer, default_data_dir
from restmq.errors import ConfigurationError
from restmq.fanout import Fanout
from restmq.longpoll import LongPolls
from restmq.model import limit_queue_names
from restmq.observe import Observatory
from restmq.options import Options
from restmq.store import Store, StoreSettings
from restmq.web import Application

log = Logger()

_PROBE_SECONDS = 0.5
_ACL_LOOK_SECONDS = 2.0
_OVERDUE_LOOK_SECONDS = 1.0


class InOrder(service.MultiService):  # type: ignore[misc]  # untyped
    """Starts its services first to last, and stops them last to first, each when the one before has stopped.

    A ConfigurationError at the start becomes one line and exit status 1.
    """

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except ConfigurationError as problem:
            raise SystemExit(f"restmq: {problem}") from None

    def startService(self) -> None:
        try:
            super().startService()
        except ConfigurationError as problem:
            raise SystemExit(f"restmq: {problem}") from None

    def stopService(self) -> defer.Deferred[None]:
        service.Service.stopService(self)
        return defer.ensureDeferred(self._stop_in_order())

    async def _stop_in_order(self) -> None:
        for part in reversed(list(self)):
            await defer.maybeDeferred(part.stopService)


class Web(service.Service):  # type: ignore[misc]  # untyped
    """Listens, and at the end drains: no new connections, and each request under way gets its whole answer."""

    def __init__(self, application: Application, listen_on: list[Any], drain_seconds: float, reactor: Any) -> None:
        self._application = application
        self._endpoints = listen_on
        self._drain_seconds = drain_seconds
        self._reactor = reactor
        self._ports: list[Any] = []

    def privilegedStartService(self) -> None:
        failures: list[Any] = []
        for endpoint in self._endpoints:
            endpoint.listen(self._application).addCallbacks(self._ports.append, failures.append)
        for failure in failures:
            raise ConfigurationError(_cannot_listen(failure.value))

    @property
    def addresses(self) -> list[str]:
        return [_show(port.getHost()) for port in self._ports]

    def stopService(self) -> defer.Deferred[None]:
        super().stopService()
        return defer.ensureDeferred(self._drain())

    async def _drain(self) -> None:
        await defer.gatherResults([defer.maybeDeferred(port.stopListening) for port in self._ports])
        await self._application.drain(self._drain_seconds)


def _cannot_listen(problem: BaseException) -> str:
    if isinstance(problem, error.CannotListenError):
        where = f"{problem.interface or ''}:{problem.port}"
        return f"can't listen on {where}: {problem.socketError}."
    return f"can't listen: {problem}."


def _show(address: Any) -> str:
    if not hasattr(address, "port"):
        return f"unix:{getattr(address, 'name', '?')}"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"http://{host}:{address.port}/"


class _AclWatch:
    """Renews the access rules when their file changes, and at SIGHUP; a broken file keeps the old ones."""

    def __init__(self, acl: Acl) -> None:
        self._acl = acl

    def look(self) -> None:
        if self._acl.changed():
            self.reload()

    def reload(self) -> None:
        try:
            self._acl.reload()
        except ConfigurationError as problem:
            log.error("{problem} The old access rules stay in force.", problem=problem)
        else:
            log.info("the access rules of {path} are in force.", path=self._acl.path)


def makeService(options: Options) -> service.IService:
    """The service that the options describe."""
    from twisted.internet import reactor

    try:
        acl = Acl(options["acl"])
    except ConfigurationError as problem:
        raise SystemExit(f"restmq: {problem}") from None
    limit_queue_names(options["max-queue-name"])
    parts = InOrder()
    settings, where = _choose_store(options, parts, reactor)
    store = Store(settings, reactor)
    core = RedisOperations(store)
    fanout = Fanout(core, reactor, options["max-unsent"])
    polls = LongPolls(core, reactor)
    guard = Guard(acl, core, reactor.seconds)
    observatory = Observatory(
        core, fanout, polls, guard, reactor, options["max-watchers"], options["max-watched-queues"]
    )
    application = Application(
        core,
        fanout,
        polls,
        guard,
        observatory,
        reactor,
        options.limits(),
        frozenset(options["allow-origin"]),
        frozenset(options["allow-host"]) if options.only_loopback else None,
        options["trusted-proxies"],
    )
    web = Web(application, _endpoints(options, reactor), options["drain-timeout"], reactor)
    watch = _AclWatch(acl)
    for part in (
        store,
        internet.TimerService(_ACL_LOOK_SECONDS, watch.look),
        internet.TimerService(_OVERDUE_LOOK_SECONDS, application.end_overdue),
        Deadlines(core, reactor),
        web,
        fanout,
        polls,
        observatory,
    ):
        part.setServiceParent(parts)
    reactor.callWhenRunning(_say_where, store, web, where)
    reactor.callWhenRunning(signal.signal, signal.SIGHUP, lambda *_: reactor.callFromThread(watch.reload))
    return parts


def _choose_store(options: Options, parts: InOrder, reactor: Any) -> tuple[StoreSettings, str]:
    """Where the messages are kept, with the private server among the parts if there is to be one."""
    settings = options.store_settings()
    wanted = options["embedded"]
    if wanted == "never" or options.names_redis or (wanted == "auto" and _redis_answers(settings)):
        return settings, f"Redis at {settings.where()}"
    directory = DataDirectory(Path(options["data-dir"] or default_data_dir()).absolute())
    EmbeddedServer(directory, reactor, options["durable"]).setServiceParent(parts)
    private = replace(settings, socket_path=directory.socket_path, username=None, password=None)
    return private, f"a private Valkey; its data is in {directory.path}"


def _redis_answers(settings: StoreSettings) -> bool:
    try:
        with socket.create_connection((settings.host, settings.port), _PROBE_SECONDS) as connection:
            connection.settimeout(_PROBE_SECONDS)
            connection.sendall(b"PING\r\n")
            return connection.recv(16)[:1] in (b"+", b"-")
    except OSError:
        return False


def _endpoints(options: Options, reactor: Any) -> list[Any]:
    if options["endpoint"]:
        try:
            return [endpoints.serverFromString(reactor, description) for description in options["endpoint"]]
        except (ValueError, TypeError, OSError, LookupError) as problem:
            raise SystemExit(f"restmq: --endpoint: {problem}") from None
    kind = endpoints.TCP6ServerEndpoint if ":" in options["listen"] else endpoints.TCP4ServerEndpoint
    return [kind(reactor, options["port"], backlog=1024, interface=options["listen"])]


def _say_where(store: Store, web: Web, where: str) -> None:
    def say(_: Any) -> None:
        log.info(
            "RestMQ {version} listens on {addresses}. Store: {where}.",
            version=__version__,
            addresses=", ".join(web.addresses),
            where=where,
        )

    if not store.connected:
        log.info("waiting for the store: {where}. Until it answers, requests get 503.", where=where)
    store.first_connected.addCallback(say)
