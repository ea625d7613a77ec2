"""The address of Redis, the limits on calls to it, and TLS. Files for TLS are read once, at the start."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from twisted.internet import endpoints

from restmq.errors import ConfigurationError

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

#: Host and port.
Address = tuple[str, int]


def show_address(address: Address) -> str:
    """Host and port, for people."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(slots=True, frozen=True, kw_only=True)
class TLSSettings:
    """TLS for connections to Redis and its Sentinels. All paths are PEM files.

    Attributes:
        ca: certificates of the authorities that may sign the server's certificate; None for the system's.
        certificate: the client's own certificate, with its intermediate ones after it; None for none.
        key: the client's private key.
        name: the name in the server's certificate; None for the host that is connected to.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    name: str | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class SentinelSettings:
    """The Sentinels that know where the primary is.

    Attributes:
        addresses: host and port of each.
        primary: the name by which they know it.
    """

    addresses: tuple[Address, ...]
    primary: str = "mymaster"
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def where(self) -> str:
        return f"{self.primary} (by Sentinel {', '.join(map(show_address, self.addresses))})"


@dataclass(slots=True, frozen=True, kw_only=True)
class StoreSettings:
    """The address of Redis, and the limits on calls to it.

    Attributes:
        pool: number of connections for calls; pub/sub has its own.
        call_timeout_seconds: time limit for each call.
        calls_in_flight_max: maximum number of unanswered calls per connection; more are refused.
        start_seconds: time in which a server that was started with this daemon may still be unreachable.
        replicas: number of replicas that must have a durable write before it is answered (``WAIT``); 0 to answer
            without asking them.
        tls: None for plain connections.
        sentinel: what knows host and port; None if they are fixed.
        cluster: host and port of some nodes of a Redis Cluster; empty if it is none. They name the others.
        is_cluster_node: whether host and port are those of one node of a cluster.
    """

    host: str = "127.0.0.1"
    port: int = 6379
    db: int = 0
    pool: int = 10
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    socket_path: str | None = None
    call_timeout_seconds: float = 5.0
    calls_in_flight_max: int = 10_000
    start_seconds: float = 0.0
    replicas: int = 0
    tls: TLSSettings | None = None
    sentinel: SentinelSettings | None = None
    cluster: tuple[Address, ...] = ()
    is_cluster_node: bool = False

    def where(self) -> str:
        """The address, for people; without any secret."""
        if self.sentinel is not None:
            return self.sentinel.where()
        if self.cluster:
            return f"cluster {','.join(map(show_address, self.cluster))}"
        return self.socket_path or show_address((self.host, self.port))


@cache
def client_options(tls: TLSSettings) -> Callable[[str], Any]:
    """A function that makes the options for a connection to a host.

    Raises ConfigurationError for a file that is missing or invalid.
    """
    from OpenSSL import SSL, crypto
    from twisted.internet import ssl

    trusted, extra, own = ssl.platformTrust(), {}, None
    path = tls.ca
    try:
        if tls.ca is not None:
            trusted = ssl.trustRootFromCertificates(_certificates(tls.ca))
        if tls.certificate is not None and tls.key is not None:
            path = tls.certificate
            first, *others = _certificates(path)
            extra = {"extraCertChain": [certificate.original for certificate in others]}
            path = tls.key
            key = ssl.KeyPair.load(Path(path).read_bytes(), crypto.FILETYPE_PEM)
            own = ssl.PrivateCertificate.fromCertificateAndKeyPair(first, key)
    except OSError as problem:
        raise ConfigurationError(f"{path}: {problem.strerror}") from None
    except (SSL.Error, crypto.Error, ValueError, AssertionError) as problem:
        why = problem if isinstance(problem, ValueError) and str(problem) else "it is not valid PEM, or does not fit"
        raise ConfigurationError(f"{path}: {why}") from None

    def options(host: str) -> Any:
        return ssl.optionsForClientTLS(
            tls.name or host, trustRoot=trusted, clientCertificate=own, extraCertificateOptions=extra
        )

    return options


def _certificates(path: str) -> list[Any]:
    from twisted.internet import ssl

    found = [ssl.Certificate.loadPEM(pem) for pem in _CERTIFICATE.findall(Path(path).read_bytes())]
    if not found:
        raise ValueError("it has no certificate in PEM format")
    return found


def endpoint_to(address: Address, settings: StoreSettings, reactor: Any, timeout: float) -> Any:
    """The endpoint of a server at this address, with TLS if the settings have it."""
    plain = endpoints.HostnameEndpoint(reactor, *address, timeout=timeout)
    if settings.tls is None:
        return plain
    return endpoints.wrapClientTLS(client_options(settings.tls)(address[0]), plain)
