"""What ``twistd restmq`` runs: the parts as Twisted services, which start in order and stop in the reverse one."""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.application import internet, service
from twisted.internet import defer, endpoints
from twisted.logger import Logger

from restmq.auth.acl import Acl
from restmq.auth.guard import Guard
from restmq.core import RedisOperations
from restmq.delivery.backpressure import BackpressureLimits
from restmq.delivery.fanout import Fanout
from restmq.delivery.longpoll import LongPolls
from restmq.delivery.revocation import Revocation
from restmq.delivery.timers import Deadlines
from restmq.errors import ConfigurationError
from restmq.model import limit_queue_names
from restmq.monitoring.access_log import AccessLog, LogFile, to_the_log
from restmq.monitoring.dashboard_feed import DashboardFeed
from restmq.monitoring.listeners import ListenerStatistics
from restmq.monitoring.peers import Peers
from restmq.monitoring.worker_counters import Membership
from restmq.server.daemon import InOrder, Listener, listening_on, redis_answers, say_where, warn_of_eviction
from restmq.server.embedded_redis import DataDirectory, EmbeddedServer, default_data_dir, find_program
from restmq.server.options import Options
from restmq.server.workers import Post, Supervisor, my_post, on_hangup
from restmq.store.pool import Store
from restmq.store.settings import StoreSettings
from restmq.web import Application

log = Logger()

_ACL_LOOK_SECONDS = 2.0
_STOP_SECONDS = 5.0
_OVERDUE_LOOK_SECONDS = 1.0


class Web(Listener):
    """Listens, and at the end takes nobody new: whoever comes finds the port closed, or the next worker behind it.

    Who comes before the store can be reached for the first time waits in the ports' backlog, for as long as a call may
    take. With socket activation, that is the client that the server is started for.
    """

    scheme = "http"
    path = "/"

    def __init__(self, application: Application, store: Store, listen_on: list[Any], reactor: Any) -> None:
        super().__init__(application, listen_on)
        self._application = application
        self._store = store
        self._reactor = reactor
        self._store_overdue: Any = None

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        if not self._application.allowed_hosts and not self.only_loopback:
            self._application.allowed_hosts = None  # from elsewhere it is reached by names that nobody has told it

    def startService(self) -> None:
        super().startService()
        if self._store.connected:
            return
        for port in self._ports:
            port.stopReading()
        self._store_overdue = self._reactor.callLater(self._store.settings.call_timeout_seconds, self._accept)
        self._store.first_connected.addCallback(lambda _: self._accept())

    def _accept(self) -> None:
        if self.running:
            for port in self._ports:
                port.startReading()

    async def drain(self) -> None:
        if self._store_overdue is not None and self._store_overdue.active():
            self._store_overdue.cancel()
        self._application.finish_soon()


class _Drain(service.Service):  # type: ignore[misc]  # untyped
    """At the end each request under way gets its whole answer."""

    def __init__(self, application: Application, drain_seconds: float) -> None:
        self._application = application
        self._drain_seconds = drain_seconds

    def stopService(self) -> defer.Deferred[None]:
        super().stopService()
        return defer.ensureDeferred(self._application.drain(self._drain_seconds))


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


def makeService(options: Options, make_application: Callable[..., Application] = Application) -> service.IService:
    """The service that the options describe.

    Args:
        make_application: makes the one that is to be served, of what ``Application`` takes.
    """
    from twisted.internet import reactor

    try:
        acl = Acl(options["acl"])
        log_file = LogFile(options["access-log-file"]) if options["access-log-file"] else None
    except ConfigurationError as problem:
        raise SystemExit(f"restmq: {problem}") from None
    limit_queue_names(options["max-queue-name"])
    parts = InOrder()
    post = my_post()
    settings, where = _choose_store(options, parts, reactor, post)
    if options["workers"] > 1 and post is None:
        return _supervise(options, parts, settings, reactor)
    store = Store(settings, reactor)
    core = RedisOperations(store)
    fanout = Fanout(core, reactor, BackpressureLimits(options["max-unsent"], options["stall-timeout"]))
    polls = LongPolls(core, reactor)
    membership = Membership() if post is None else Membership(post.group, post.number, post.serial)
    peers = Peers(core, reactor, options["peer-timeout"], membership.group)
    listening = ListenerStatistics(fanout, polls, peers, reactor)
    guard = Guard(acl, core, reactor.seconds)
    observatory = DashboardFeed(core, listening, guard, reactor, options["max-watchers"], options["max-watched-queues"])
    application = make_application(
        core,
        fanout,
        polls,
        listening,
        peers,
        membership,
        guard,
        observatory,
        reactor,
        options.limits(),
        frozenset(options["allow-origin"]),
        frozenset(options["allow-host"]),
        options["trusted-proxies"],
        _access_log(options["access-log"], log_file),
        options["metrics-queues"],
    )
    listen_on = listening_on(options, reactor) if post is None else [_adopted(post, reactor)]
    web = Web(application, store, listen_on, reactor)
    watch = _AclWatch(acl)
    for part in (
        store,
        internet.TimerService(_ACL_LOOK_SECONDS, watch.look),
        internet.TimerService(_OVERDUE_LOOK_SECONDS, application.close_overdue),
        Deadlines(core, reactor),
        peers,
        application.metrics.workers,  # at the end, what was counted while connections drained is written
        _Drain(application, options["drain-timeout"]),
        fanout,
        Revocation(fanout, guard, core, reactor),
        polls,
        observatory,
        web,  # at the end the first: who is sent away by the others is not to come back here
    ):
        part.setServiceParent(parts)

    def renew() -> None:
        watch.reload()
        if log_file:
            log_file.reopen()

    on_hangup(reactor, renew)
    reactor.callWhenRunning(_collect_garbage_rarely)
    if post is None:
        reactor.callWhenRunning(lambda: say_where("RestMQ", web.addresses, store, where, "requests get 503"))
    else:
        if post.number == 1:  # one voice is enough
            reactor.callWhenRunning(warn_of_eviction, store)
        reactor.callWhenRunning(lambda: store.first_connected.addCallback(lambda _: post.report_ready()))
    return parts


def _access_log(kind: str, file: LogFile | None) -> AccessLog | None:
    return None if kind == "off" else AccessLog(kind, file.write if file else to_the_log, time.time)


def _collect_garbage_rarely() -> None:
    """What was loaded stays for good, and requests leave few cycles behind: they need not be looked for so often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _supervise(options: Options, parts: InOrder, settings: StoreSettings, reactor: Any) -> service.IService:
    """The service of the process that starts the workers."""
    store_socket = settings.socket_path if len(list(parts)) else None
    address = (options["listen"], options["port"])
    command = [options.command, *options.arguments]
    stop_seconds = options["drain-timeout"] + _STOP_SECONDS
    supervisor = Supervisor(options["workers"], address, command, store_socket, stop_seconds, reactor)
    supervisor.setServiceParent(parts)
    on_hangup(reactor, supervisor.reload)
    return parts


def _adopted(post: Post, reactor: Any) -> Any:
    """The supervisor's socket as an endpoint."""
    family = socket.AF_INET6 if post.ipv6 else socket.AF_INET
    return endpoints.AdoptedStreamServerEndpoint(reactor, post.listen_fd, family)


def _choose_store(
    options: Options, parts: InOrder, reactor: Any, post: Post | None = None
) -> tuple[StoreSettings, str]:
    """Where the messages are kept, with the private server among the parts if there is to be one."""
    settings = options.store_settings()
    if post is not None and post.store_socket is not None:
        listener = options.store_listener()
        password = listener.password if listener else None
        return replace(settings, socket_path=post.store_socket, username=None, password=password), "the private store"
    wanted = options["embedded"]
    if wanted == "never" or options.names_redis or (wanted == "auto" and redis_answers(settings)):
        if options["durable"] and not options["replicas"]:
            log.warn(
                "--durable can't make an outside Redis write to disk: its appendfsync decides. "
                "--replicas=N waits until N replicas have each message."
            )
        return replace(settings, replicas=options["replicas"]), f"Redis at {settings.where()}"
    directory = DataDirectory(Path(options["data-dir"] or default_data_dir()).absolute())
    listener = options.store_listener()
    try:
        program = find_program()
    except ConfigurationError as problem:
        raise SystemExit(f"restmq: {problem}") from None
    EmbeddedServer(program, directory, reactor, options["durable"], listener).setServiceParent(parts)
    password = listener.password if listener else None
    private = replace(settings, socket_path=directory.socket_path, username=None, password=password)
    reached = f", and it is open on {listener.where}" if listener else ""
    return private, f"{program.name}; its data is in {directory.path}{reached}"
