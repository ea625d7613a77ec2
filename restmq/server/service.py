"""The services of ``twistd restmq``, which start in order and stop in the reverse order."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.application import internet, service
from twisted.internet import defer, task
from twisted.logger import Logger

from restmq.auth.acl import SECTIONS, Acl
from restmq.auth.guard import Guard
from restmq.auth.passwords import PasswordCheck
from restmq.core import RedisOperations
from restmq.delivery.backpressure import BackpressureLimits
from restmq.delivery.fanout import Fanout
from restmq.delivery.longpoll import LongPolls
from restmq.delivery.revocation import Revocation
from restmq.delivery.shared import Shared
from restmq.delivery.taps import Taps
from restmq.delivery.timers import Deadlines, ExpiringQueues
from restmq.handlers.services import Services
from restmq.handlers.websocket_connection import make_factory
from restmq.http.turns import Turns
from restmq.model import limit_queue_names
from restmq.monitoring.access_log import AccessLog, LogFile, write_to_log
from restmq.monitoring.dashboard_feed import DashboardFeed
from restmq.monitoring.listeners import ListenerStatistics
from restmq.monitoring.metrics import Metrics
from restmq.monitoring.peers import Peers
from restmq.monitoring.request_counters import Traffic
from restmq.monitoring.samples import Samples
from restmq.monitoring.servers import Servers
from restmq.monitoring.worker_counters import Membership
from restmq.server.daemon import (
    InOrder,
    Listener,
    listening_on,
    log_addresses,
    or_exit,
    redis_answers,
    warn_of_settings,
)
from restmq.server.embedded_redis import DataDirectory, EmbeddedServer, default_data_dir, find_program
from restmq.server.options import Options
from restmq.server.workers import Supervisor, WorkerSlot, my_slot, on_hangup
from restmq.store.base import BaseStore
from restmq.store.cluster.store import make_store
from restmq.store.settings import StoreSettings
from restmq.web import ROUTES, Application, Route

log = Logger()

_TRIM_SECONDS = 2.0
_ACL_CHECK_SECONDS = 2.0
_STOP_SECONDS = 5.0
_STORE_START_SECONDS = 5.0
_OVERDUE_CHECK_SECONDS = 1.0


class Web(Listener):
    """Listens. While stopping it accepts no connections: a new client finds the port closed, or reaches a new worker.

    Until the store answers for the first time, clients wait in the ports' backlog, for at most the time limit of a
    call. With socket activation, the server is started for such a client.
    """

    scheme = "http"
    path = "/"

    def __init__(self, application: Application, store: BaseStore, listen_on: list[Any], reactor: Any) -> None:
        super().__init__(application, listen_on)
        self._application = application
        self._store = store
        self._reactor = reactor
        self._store_overdue: Any = None

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        admission = self._application.services.admission
        if not admission.allowed_hosts and not self.only_loopback:
            admission.allowed_hosts = None  # clients elsewhere use names that the server does not know

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
        self._application.start_draining()


class _Drain(service.Service):  # type: ignore[misc]  # untyped
    """While the server stops, waits until each request in progress has its whole answer."""

    def __init__(self, application: Application, drain_seconds: float) -> None:
        self._application = application
        self._drain_seconds = drain_seconds

    def stopService(self) -> defer.Deferred[None]:
        super().stopService()
        return defer.ensureDeferred(self._application.drain(self._drain_seconds))


def makeService(options: Options, more_routes: Sequence[Route] = ()) -> service.IService:
    """The service that the options describe.

    Args:
        more_routes: routes that come before RestMQ's own.
    """
    from twisted.internet import reactor

    acl = or_exit(Acl, options["acl"] or Path("acl.conf").absolute(), options["acl"] is None)
    traffic = Traffic(time.perf_counter, or_exit(_access_log, options))
    limit_queue_names(options["max-queue-name"])
    parts = InOrder()
    slot = my_slot()
    settings, where = _choose_store(options, parts, reactor, slot)
    if options["workers"] > 1 and slot is None:
        return _supervise(options, parts, settings, reactor)
    store = make_store(settings, reactor)
    store.part_seconds = options["peer-timeout"]
    core = RedisOperations(store, expires_seconds=options["queue-expires"])
    membership = slot or Membership()
    peers = Peers(core, reactor, options["peer-timeout"], membership.group)
    services = _make_services(options, core, peers, acl, traffic, reactor)
    application = Application(services, options.limits(), reactor, [*more_routes, *ROUTES])

    def count_clients() -> dict[str, int]:
        return {"connections": len(application.connections), "taps": services.taps.count}

    services.metrics = Metrics(
        core,
        services.fanout,
        services.listeners,
        peers,
        membership,
        traffic,
        count_clients,
        options["metrics-queues"],
    )
    workers = services.metrics.workers
    services.samples = Samples(core, services.dashboard_feed, peers, workers.leader)
    listen_on = [slot.endpoint(reactor)] if slot else listening_on(options, reactor)
    web = Web(application, store, listen_on, reactor)
    services.servers = Servers(
        store=store,
        peers=peers,
        membership=membership,
        listeners=services.listeners,
        clients=count_clients,
        addresses=lambda: web.addresses,
    )
    for part in (
        store,
        internet.TimerService(_ACL_CHECK_SECONDS, acl.reload_if_changed),
        internet.TimerService(_OVERDUE_CHECK_SECONDS, application.close_overdue),
        Deadlines(core, reactor, membership.worker),
        ExpiringQueues(core, reactor),
        peers,
        workers,  # stops after the connections are drained, and writes what they counted
        _Drain(application, options["drain-timeout"]),
        services.fanout,
        services.taps,
        Revocation((services.fanout, services.taps), services.guard, core, reactor),
        services.polls,
        services.dashboard_feed,
        services.samples,
        web,  # stops first: a client that another part disconnects must not reconnect here
    ):
        part.setServiceParent(parts)
    on_hangup(reactor, acl.reload)
    reactor.callWhenRunning(_collect_garbage_rarely)
    if slot is None or slot.worker == 1:  # one warning is enough
        reactor.callWhenRunning(_warn_if_open, acl, web)
    _return_freed_memory(reactor)
    if slot is None:
        reactor.callWhenRunning(lambda: log_addresses("RestMQ", web.addresses, store, where, "requests get 503"))
    else:
        if slot.worker == 1:
            reactor.callWhenRunning(warn_of_settings, store)
        reactor.callWhenRunning(lambda: store.first_connected.addCallback(lambda _: slot.report_ready()))
    return parts


def _warn_if_open(acl: Acl, web: Web) -> None:
    unrestricted = [name for name in SECTIONS if acl.section(name).is_open]
    if unrestricted and not web.only_loopback:
        log.warn(
            "everyone who reaches {addresses} is let in: acl.conf restricts nobody in {sections}. Set a username and "
            "password, or hosts_allow.",
            addresses=", ".join(web.addresses),
            sections=", ".join(f"[{name}]" for name in unrestricted),
        )


def _make_services(
    options: Options, core: RedisOperations, peers: Peers, acl: Acl, traffic: Traffic, reactor: Any
) -> Services:
    """The services for handlers, without the metrics."""
    limits = BackpressureLimits(options["max-unsent"], options["stall-timeout"], options["max-unsent-total"])
    turns = Turns(reactor.callLater, time.perf_counter)
    fanout = Fanout(core, reactor, limits, turns)
    for_taps = Shared(core=core, reactor=reactor, limits=limits, turns=turns, counters=fanout.counters)
    polls = LongPolls(core, reactor)
    guard = Guard(acl, core, options.failures(reactor.seconds), PasswordCheck())
    guard.signs_always = options["sqs-auth"] == "sigv4"
    listeners = ListenerStatistics(fanout, polls, peers, reactor)
    return Services(
        core=core,
        fanout=fanout,
        taps=Taps(for_taps),
        polls=polls,
        guard=guard,
        admission=options.admission(),
        listeners=listeners,
        dashboard_feed=DashboardFeed(
            core, listeners, guard, reactor, options["max-watchers"], options["max-watched-queues"]
        ),
        traffic=traffic,
        kept_headers=options["keep-headers"],
        websockets=make_factory(reactor, options.limits().body_bytes),
        command_bytes_max=options["max-command"],
        turns=turns,
    )


def _access_log(options: Options) -> AccessLog | None:
    """Raises ConfigurationError if the file can't be opened."""
    kind, path = options["access-log"], options["access-log-file"]
    return None if kind == "off" else AccessLog(kind, LogFile(path).write if path else write_to_log, time.time)


def _collect_garbage_rarely() -> None:
    """Makes garbage collections rare: the loaded modules stay for good, and requests leave few reference cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _return_freed_memory(reactor: Any) -> None:
    """Makes glibc give freed memory back to the system every few seconds.

    By itself it keeps what lies between blocks that are in use: after a burst of large messages, hundreds of MiB. A
    call takes 1 ms, and after such a burst 0.1 ms per MiB. Another C library needs no such call.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trimming = task.LoopingCall(trim, 0)
        trimming.clock = reactor
        trimming.start(_TRIM_SECONDS, now=False)


def _supervise(options: Options, parts: InOrder, settings: StoreSettings, reactor: Any) -> service.IService:
    """The service of the process that starts the workers."""
    supervisor = Supervisor(
        count=options["workers"],
        address=(options["listen"], options["port"]),
        command=[options.command, *options.arguments],
        store_socket=settings.socket_path if len(list(parts)) else None,
        stop_seconds=options["drain-timeout"] + _STOP_SECONDS,
        reactor=reactor,
    )
    supervisor.setServiceParent(parts)
    on_hangup(reactor, supervisor.reload)
    return parts


def _choose_store(options: Options, parts: InOrder, reactor: Any, slot: WorkerSlot | None) -> tuple[StoreSettings, str]:
    """Chooses the store and describes it in words. A private server is added to the parts."""
    settings, listener = options.store_settings(), options.store_listener()
    password = listener.password if listener else None
    private = replace(settings, username=None, password=password, start_seconds=_STORE_START_SECONDS)
    if slot is not None and slot.store_socket is not None:
        return replace(private, socket_path=slot.store_socket), "the private store"
    wanted = options["embedded"]
    if wanted == "never" or options.names_redis or (wanted == "auto" and redis_answers(settings)):
        if options["durable"] and not options["replicas"]:
            log.warn(
                "--durable can't make an outside Redis write to disk; set its appendfsync. "
                "With --replicas=N, each answer waits until N replicas have the message."
            )
        return replace(settings, replicas=options["replicas"]), f"Redis at {settings.where()}"
    directory = DataDirectory(Path(options["data-dir"] or default_data_dir()).absolute())
    program = or_exit(find_program)
    server = EmbeddedServer(
        program=program, directory=directory, reactor=reactor, durable=options["durable"], listener=listener
    )
    server.setServiceParent(parts)
    reached = f"; other clients can reach it on {listener.where}" if listener else ""
    return replace(
        private, socket_path=directory.socket_path
    ), f"{program.name}; its data is in {directory.path}{reached}"
