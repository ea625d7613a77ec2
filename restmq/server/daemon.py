"""What all our daemons are made of: parts that start and stop in order, ports, and a word on where everything is."""

from __future__ import annotations

import signal
import socket
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application import service
from twisted.internet import defer, endpoints, error
from twisted.internet.address import UNIXAddress
from twisted.logger import Logger

from restmq import __version__
from restmq.auth.acl import parse_address
from restmq.errors import ConfigurationError, StoreRefused, StoreUnavailable
from restmq.server.embedded_redis import DataDirectory, default_data_dir
from restmq.store.pool import Store
from restmq.store.settings import StoreSettings

if TYPE_CHECKING:
    from restmq.server.options import RedisOptions

log = Logger()

_PROBE_SECONDS = 0.5


class InOrder(service.MultiService):  # type: ignore[misc]  # untyped
    """Starts its services first to last, and stops them last to first, each when the one before has stopped.

    A ConfigurationError at the start becomes one line and exit status 1.
    """

    _listens = False

    def privilegedStartService(self) -> None:
        self._listens = True
        try:
            super().privilegedStartService()
        except ConfigurationError as problem:
            raise SystemExit(f"restmq: {problem}") from None

    def startService(self) -> None:
        if not self._listens:  # twist, unlike twistd, has nobody listen before it starts them
            self.privilegedStartService()
        try:
            super().startService()
        except ConfigurationError as problem:
            raise SystemExit(f"restmq: {problem}") from None

    def stopService(self) -> defer.Deferred[None]:
        service.Service.stopService(self)
        # The reactor takes a second word ill. A second Ctrl-C means at once; a second SIGTERM may be the same word,
        # said by systemd and by our own supervisor.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return defer.ensureDeferred(self._stop_in_order())

    async def _stop_in_order(self) -> None:
        for part in reversed(list(self)):
            try:
                await defer.maybeDeferred(part.stopService)
            except Exception:  # the reactor would end without a word, and without stopping the others
                log.failure("stopping {part} failed", part=type(part).__name__)


class Listener(service.Service, ABC):  # type: ignore[misc]  # untyped
    """Listens on endpoints, and at the end first of all stops to."""

    scheme = "tcp"
    path = ""

    def __init__(self, factory: Any, listen_on: list[Any]) -> None:
        self._factory = factory
        self._endpoints = listen_on
        self._ports: list[Any] = []

    def privilegedStartService(self) -> None:
        failures: list[Any] = []
        for endpoint in self._endpoints:
            endpoint.listen(self._factory).addCallbacks(self._ports.append, failures.append)
        for failure in failures:
            raise ConfigurationError(cannot_listen(failure.value))

    @property
    def addresses(self) -> list[str]:
        return [show_address(port.getHost(), self.scheme, self.path) for port in self._ports]

    @property
    def only_loopback(self) -> bool:
        """Whether nobody but this machine reaches the ports, whichever way they were opened."""
        hosts = [port.getHost() for port in self._ports]
        addresses = [parse_address(getattr(host, "host", "")) for host in hosts if not isinstance(host, UNIXAddress)]
        return all(address is not None and address.is_loopback for address in addresses)

    def stopService(self) -> defer.Deferred[None]:
        super().stopService()
        return defer.ensureDeferred(self._stop())

    async def _stop(self) -> None:
        await defer.gatherResults([defer.maybeDeferred(port.stopListening) for port in self._ports])
        await self.drain()

    @abstractmethod
    async def drain(self) -> None:
        """Lets the connections that there are come to their end; nobody new comes any more."""


def listening_on(options: Any, reactor: Any) -> list[Any]:
    """The endpoints that the options name, or the one that ``--listen`` and ``--port`` do."""
    if options["endpoint"]:
        return [_endpoint(reactor, description) for description in options["endpoint"]]
    kind = endpoints.TCP6ServerEndpoint if ":" in options["listen"] else endpoints.TCP4ServerEndpoint
    return [kind(reactor, options["port"], backlog=1024, interface=options["listen"])]


def _endpoint(reactor: Any, description: str) -> Any:
    try:
        return endpoints.serverFromString(reactor, description)
    except (ValueError, TypeError, OSError, LookupError) as problem:
        no_socket = description.startswith("systemd:") and isinstance(problem, LookupError)
        why = "systemd has handed over no such socket." if no_socket else problem
        raise SystemExit(f"restmq: --endpoint {description}: {why}") from None


def cannot_listen(problem: BaseException) -> str:
    """One line for the operator."""
    if isinstance(problem, error.CannotListenError):
        where = f"{problem.interface or ''}:{problem.port}"
        return f"can't listen on {where}: {problem.socketError}."
    return f"can't listen: {problem}."


def show_address(address: Any, scheme: str, path: str = "") -> str:
    """Where a port listens, as a URL."""
    if not hasattr(address, "port"):
        return f"unix:{getattr(address, 'name', '?')}"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{scheme}://{host}:{address.port}{path}"


def redis_answers(settings: StoreSettings) -> bool:
    """Whether a Redis answers there. For the start only: it blocks, for a second at most."""
    try:
        with socket.create_connection((settings.host, settings.port), _PROBE_SECONDS) as connection:
            connection.settimeout(_PROBE_SECONDS)
            connection.sendall(b"PING\r\n")
            return connection.recv(16)[:1] in (b"+", b"-")
    except OSError:
        return False


def find_store(options: RedisOptions, data_dir: str | None) -> tuple[StoreSettings, str]:
    """Where a server on this machine keeps its messages, and that in words. It blocks, for a second at most.

    Returns:
        Redis, as the options say; or where they say nothing and none answers, the private store of the server there.
    """
    settings = options.store_settings()
    if not options.names_redis:
        private = DataDirectory(Path(data_dir or default_data_dir()).absolute())
        if data_dir or (Path(private.socket_path).exists() and not redis_answers(settings)):
            return replace(settings, socket_path=private.socket_path), f"the private store in {private.path}"
    return settings, f"Redis at {settings.where()}"


def say_where(name: str, addresses: list[str], store: Store, where: str, meanwhile: str) -> None:
    """Logs where a daemon listens and keeps its messages, as soon as the store answers.

    Args:
        meanwhile: what happens to clients until then.
    """

    def say(_: Any) -> None:
        log.info(
            "{name} {version} listens on {addresses}. Store: {where}.",
            name=name,
            version=__version__,
            addresses=", ".join(addresses),
            where=where,
        )

    if not store.connected:
        log.info("waiting for the store: {where}. Until it answers, {meanwhile}.", where=where, meanwhile=meanwhile)
    store.first_connected.addCallback(say)
    warn_of_eviction(store)


def warn_of_eviction(store: Store) -> None:
    """Logs, as soon as the store answers, whether it is one that throws messages away and tells nobody."""

    def ask(_: Any) -> None:  # what else is to happen then does not wait for it
        asking = defer.ensureDeferred(_warn_of_eviction(store))
        asking.addErrback(lambda failure: log.failure("asking Redis what it does when full failed", failure))

    store.first_connected.addCallback(ask)


async def _warn_of_eviction(store: Store) -> None:
    try:
        told: bytes = await store.command("INFO", "memory")
    except (StoreRefused, StoreUnavailable):  # a user who may not ask; or it went away again
        return
    facts = dict(line.split(":", 1) for line in told.decode("utf-8", "replace").splitlines() if ":" in line)
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory") != "0":
        log.warn(
            "Redis drops messages when its memory is full (maxmemory-policy {policy}); "
            "set it to noeviction, so that producers are refused instead.",
            policy=policy,
        )
