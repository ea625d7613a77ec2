"""TLS to Redis. The server's certificate is always checked. The files are read once, at the start."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from twisted.internet import endpoints

from restmq.errors import ConfigurationError
from restmq.store.settings import Address, StoreSettings, TLSSettings

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


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
