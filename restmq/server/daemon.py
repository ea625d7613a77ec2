"""Code that all daemons share: services that start and stop in order, listening, finding and describing the store."""

from __future__ import annotations

import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from errno import EADDRINUSE
from pathlib import Path
from typing import Any, TypeVar

from twisted.application import service
from twisted.internet import defer, endpoints, error
from twisted.internet.address import UNIXAddress
from twisted.logger import Logger

from restmq import __version__
from restmq.auth.acl import parse_address
from restmq.errors import ConfigurationError
from restmq.server.embedded_redis import DataDirectory, default_data_dir
from restmq.server.redis_options import RedisOptions
from restmq.store.base import BaseStore
from restmq.store.settings import Address, StoreSettings, show_address

log = Logger()

_PROBE_SECONDS = 0.5

_Result = TypeVar("_Result")


def or_exit(call: Callable[..., _Result], *args: Any) -> _Result:
    """Calls a function at the start. A ConfigurationError becomes one line of text and exit status 1."""
    try:
        return call(*args)
    except ConfigurationError as problem:
        raise SystemExit(f"restmq: {problem}") from None


class InOrder(service.MultiService):  # type: ignore[misc]  # untyped
    """Starts its services in order, and stops them in reverse order, each after the one before has stopped.

    A ConfigurationError at the start becomes one line of text and exit status 1.
    """

    _listens = False

    def privilegedStartService(self) -> None:
        self._listens = True
        or_exit(super().privilegedStartService)

    def startService(self) -> None:
        if not self._listens:  # twist, unlike twistd, does not call it
            self.privilegedStartService()
        or_exit(super().startService)

    def stopService(self) -> defer.Deferred[None]:
        service.Service.stopService(self)
        # A second signal would make the reactor fail. A second Ctrl-C kills the process. A second SIGTERM is ignored,
        # because systemd and the supervisor may both send the first one.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return defer.ensureDeferred(self._stop_in_order())

    async def _stop_in_order(self) -> None:
        for part in reversed(list(self)):
            try:
                await defer.maybeDeferred(part.stopService)
            except Exception:  # else the reactor would end silently, and not stop the other parts
                log.failure("stopping {part} failed", part=type(part).__name__)


class Listener(service.Service, ABC):  # type: ignore[misc]  # untyped
    """Listens on endpoints."""

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
        return [url_of(port.getHost(), self.scheme, self.path) for port in self._ports]

    @property
    def only_loopback(self) -> bool:
        """Whether only this machine can reach the ports."""
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
        """Lets the open connections end. The ports are already closed."""


def listening_on(options: Any, reactor: Any) -> list[Any]:
    """The endpoints of ``--endpoint``, or else the one of ``--listen`` and ``--port``."""
    if options["endpoint"]:
        return [_endpoint(reactor, description) for description in options["endpoint"]]
    kind = endpoints.TCP6ServerEndpoint if ":" in options["listen"] else endpoints.TCP4ServerEndpoint
    return [kind(reactor, options["port"], backlog=1024, interface=options["listen"])]


def _endpoint(reactor: Any, description: str) -> Any:
    try:
        return endpoints.serverFromString(reactor, description)
    except (ValueError, TypeError, OSError, LookupError) as problem:
        no_socket = description.startswith("systemd:") and isinstance(problem, LookupError)
        why = "systemd did not hand over such a socket." if no_socket else problem
        raise SystemExit(f"restmq: --endpoint {description}: {why}") from None


def cannot_listen(problem: BaseException) -> str:
    """A one-line error for the operator."""
    if isinstance(problem, error.CannotListenError):
        return cannot_listen_on((problem.interface or "", problem.port), problem.socketError)
    return f"can't listen: {problem}."


def cannot_listen_on(address: Address, problem: OSError) -> str:
    advice = " Stop the program that uses this port, or choose another port." if problem.errno == EADDRINUSE else ""
    return f"can't listen on {show_address(address)}: {problem}.{advice}"


def url_of(address: Any, scheme: str, path: str = "") -> str:
    """A port's address as a URL."""
    if not hasattr(address, "port"):
        return f"unix:{getattr(address, 'name', '?')}"
    return f"{scheme}://{show_address((address.host, address.port))}{path}"


def redis_answers(settings: StoreSettings) -> bool:
    """Whether a Redis answers. Only for the start, because it blocks, for up to a second."""
    try:
        with socket.create_connection((settings.host, settings.port), _PROBE_SECONDS) as connection:
            connection.settimeout(_PROBE_SECONDS)
            connection.sendall(b"PING\r\n")
            return connection.recv(16)[:1] in (b"+", b"-")
    except OSError:
        return False


def find_store(options: RedisOptions, data_dir: str | None) -> tuple[StoreSettings, str]:
    """Finds the store of the server on this machine, and describes it in words. It blocks, for up to a second.

    Returns:
        The Redis of the options. If they name none and none answers, the private store of the server here.
    """
    settings = options.store_settings()
    if not options.names_redis:
        private = DataDirectory(Path(data_dir or default_data_dir()).absolute())
        if data_dir or (Path(private.socket_path).exists() and not redis_answers(settings)):
            return replace(settings, socket_path=private.socket_path), f"the private store in {private.path}"
    return settings, f"Redis at {settings.where()}"


def log_addresses(name: str, addresses: list[str], store: BaseStore, where: str, meanwhile: str) -> None:
    """Logs the addresses and the store of a daemon as soon as the store answers.

    Args:
        meanwhile: the effect on clients until then, for the log.
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
    warn_of_settings(store)


def warn_of_settings(store: BaseStore) -> None:
    """Logs, as soon as the store answers, if its settings can lose messages."""
    store.first_connected.addCallback(lambda _: _warn_of_settings(store.facts))


def _warn_of_settings(facts: Mapping[str, str]) -> None:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory") != "0":
        log.warn(
            "Redis drops messages when its memory is full (maxmemory-policy {policy}); "
            "set it to noeviction, so that producers are refused instead.",
            policy=policy,
        )
    if facts.get("aof_enabled") == "0":
        log.warn(
            "Redis keeps no append-only file: after a crash it has only its last snapshot, and gives keys of lost "
            "messages to new ones. Set appendonly to yes."
        )
