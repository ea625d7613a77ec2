"""The options for the address of Redis: flags, a URL, and the environment."""

from __future__ import annotations

import os
from typing import Any, NoReturn
from urllib.parse import SplitResult, unquote, urlsplit

from twisted.python import usage

from restmq import __version__
from restmq.errors import ConfigurationError
from restmq.server.coercions import seconds, whole_number
from restmq.store.settings import SentinelSettings, StoreSettings, TLSSettings, client_options

_REDIS_URL_VARIABLE = "REDIS_URL"
_REDIS_PASSWORD_VARIABLE = "RESTMQ_REDIS_PASSWORD"  # noqa: S105  its name, not its value
_SENTINEL_PASSWORD_VARIABLE = "RESTMQ_SENTINEL_PASSWORD"  # noqa: S105

_PORT = whole_number(1, 65535)
_POOL = whole_number(1, 1000)
_DB = whole_number(0, 1_000_000)
_POOL_PER_NODE = 4
_SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")
_TLS_FLAGS = {"ca": "redis-tls-ca", "certificate": "redis-tls-cert", "key": "redis-tls-key", "name": "redis-tls-name"}
#: The flags whose values can also be in a URL, by the name in StoreSettings.
_FLAGS = {
    "host": "redis-host",
    "port": "redis-port",
    "db": "redis-db",
    "username": "redis-username",
    "password": "redis-password",
}


def _addresses(text: str, port: int = 26379) -> tuple[tuple[str, int], ...]:
    """Several host:port, by commas."""
    found = []
    for part in text.split(","):
        address = urlsplit(f"//{part.strip()}")
        if not address.hostname or address.path or address.username is not None:
            raise ValueError("give host:port, several by commas")
        found.append((address.hostname, address.port or port))
    return tuple(found)


def _nodes(text: str) -> tuple[tuple[str, int], ...]:
    return _addresses(text, 6379)


class RedisOptions(usage.Options):  # type: ignore[misc]  # untyped
    """The options for the address of Redis, and for calls to it."""

    optParameters: list[list[Any]] = [
        [
            "redis-url",
            None,
            None,
            "redis://[user:password@]host[:port][/db], rediss:// for TLS; redis+cluster://…host:port[,host:port…] and "
            f"rediss+cluster:// for a Redis Cluster [default: {_REDIS_URL_VARIABLE}]",
        ],
        ["redis-host", None, None, "Redis host [default: 127.0.0.1]"],
        ["redis-port", None, None, "Redis port [default: 6379]", _PORT],
        ["redis-pool", None, None, "connections to Redis [default: 10; 4 per node of a cluster]", _POOL],
        ["redis-db", None, None, "number of the Redis database [default: 0]", _DB],
        ["redis-socket", None, None, "path of Redis' Unix socket, instead of host and port"],
        ["redis-username", None, None, "Redis ACL user"],
        ["redis-password", None, None, f"Redis password; {_REDIS_PASSWORD_VARIABLE} hides it from other users"],
        ["redis-tls-ca", None, None, "file with the certificates that Redis' is signed by [default: the system's]"],
        ["redis-tls-cert", None, None, "file with the certificate to show to Redis"],
        ["redis-tls-key", None, None, "file with its private key"],
        ["redis-tls-name", None, None, "name in Redis' certificate [default: the host]"],
        ["redis-cluster", None, None, "host:port[,host:port…] of a Redis Cluster; its nodes name the others", _nodes],
        ["redis-sentinel", None, None, "host:port[,host:port…] of Sentinels, which know where Redis is", _addresses],
        ["redis-master", None, None, "name by which the Sentinels know Redis [default: mymaster]"],
        ["redis-sentinel-username", None, None, f"ACL user of the Sentinels; password: {_SENTINEL_PASSWORD_VARIABLE}"],
        ["redis-timeout", None, 5, "maximum seconds that a call to Redis may take", seconds],
    ]
    optFlags: list[list[Any]] = [["redis-tls", None, "encrypt connections to Redis"]]

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        print(f"RestMQ {__version__}")
        raise SystemExit(0)

    @property
    def names_redis(self) -> bool:
        """Whether any flag, or the environment, names a Redis."""
        names = [name for name, *_ in RedisOptions.optParameters if name != "redis-timeout"]
        return any(self[name] is not None for name in names) or bool(
            self["redis-tls"] or os.environ.get(_REDIS_URL_VARIABLE)
        )

    def store_settings(self) -> StoreSettings:
        """The settings from the flags, the environment and the defaults.

        Raises UsageError if flags, URL and environment contradict each other, or a file of --redis-tls-… is invalid.
        """
        flags = {name: self[flag] for name, flag in _FLAGS.items()}
        flags["password"] = flags["password"] or os.environ.get(_REDIS_PASSWORD_VARIABLE) or None
        given = {name: value for name, value in flags.items() if value is not None}
        is_tls = bool(self["redis-tls"])
        if url := self["redis-url"] or os.environ.get(_REDIS_URL_VARIABLE):
            source = "--redis-url" if self["redis-url"] else f"the environment variable {_REDIS_URL_VARIABLE}"
            is_tls = self._add_url(given, url, source)
        given |= {"sentinel": self._sentinel(given), "tls": self._tls(is_tls)}
        given |= {"pool": self["redis-pool"], "socket_path": self["redis-socket"], "cluster": self._cluster(given)}
        if given["cluster"] and given["pool"] is None:
            given["pool"] = _POOL_PER_NODE
        given["call_timeout_seconds"] = self["redis-timeout"]
        return StoreSettings(**{name: value for name, value in given.items() if value is not None})

    def _add_url(self, given: dict[str, Any], url: str, source: str) -> bool:
        """Adds the parts of the URL to the settings. Returns whether the URL requires TLS."""
        try:
            scheme, parts = parse_url(url)
        except ValueError as problem:  # the URL itself may hold a password
            raise usage.UsageError(f"{source}: {problem}") from None
        for name, value in parts.items():
            if given.setdefault(name, value) != value:
                raise usage.UsageError(f"{source} and --{_FLAGS[name]} contradict each other; give one of them.")
        if self["redis-socket"] is not None:
            raise usage.UsageError(f"{source} and --redis-socket contradict each other; give one of them.")
        if scheme.startswith("redis") and not scheme.startswith("rediss") and self["redis-tls"]:
            secure = scheme.replace("redis", "rediss", 1)
            raise usage.UsageError(f"--redis-tls: {source} has {scheme}://, which is not encrypted; use {secure}://.")
        return scheme.startswith("rediss")

    def _cluster(self, given: dict[str, Any]) -> tuple[tuple[str, int], ...] | None:
        """The addresses of nodes, from the flag or the URL."""
        addresses: tuple[tuple[str, int], ...] | None = self["redis-cluster"]
        told: tuple[tuple[str, int], ...] | None = given.pop("cluster", addresses)
        if told is None:
            return None
        if addresses is not None and told != addresses:
            raise usage.UsageError("the URL and --redis-cluster contradict each other; give one of them.")
        if given.keys() & {"host", "port"} or self["redis-socket"] is not None or self["redis-sentinel"] is not None:
            raise usage.UsageError(
                "--redis-cluster finds all nodes; omit --redis-host, --redis-port, --redis-socket, --redis-sentinel, "
                "and a URL that begins with redis:// or rediss://."
            )
        if given.get("db"):
            raise usage.UsageError("a Redis Cluster has only database 0; omit --redis-db.")
        return told

    def _sentinel(self, given: dict[str, Any]) -> SentinelSettings | None:
        if self["redis-sentinel"] is None:
            for flag in ("redis-master", "redis-sentinel-username"):
                if self[flag] is not None:
                    raise usage.UsageError(f"--{flag} needs --redis-sentinel.")
            return None
        if given.keys() & {"host", "port"} or self["redis-socket"] is not None:
            raise usage.UsageError(
                "--redis-sentinel finds Redis; omit --redis-host, --redis-port, --redis-socket, --redis-url and "
                f"{_REDIS_URL_VARIABLE}."
            )
        told = {"primary": self["redis-master"], "username": self["redis-sentinel-username"]}
        told["password"] = os.environ.get(_SENTINEL_PASSWORD_VARIABLE) or None
        return SentinelSettings(
            addresses=self["redis-sentinel"], **{name: value for name, value in told.items() if value is not None}
        )

    def _tls(self, is_tls: bool) -> TLSSettings | None:
        given = {name: self[flag] for name, flag in _TLS_FLAGS.items() if self[flag] is not None}
        if not is_tls:
            for name in given:
                raise usage.UsageError(f"--{_TLS_FLAGS[name]} needs --redis-tls, or a URL that begins with rediss://.")
            return None
        if self["redis-socket"] is not None:
            raise usage.UsageError("--redis-tls and --redis-socket contradict each other; a socket needs no TLS.")
        if ("certificate" in given) != ("key" in given):
            raise usage.UsageError("--redis-tls-cert and --redis-tls-key belong together; give both.")
        tls = TLSSettings(**given)
        try:
            client_options(tls)
        except ConfigurationError as problem:
            raise usage.UsageError(f"--redis-tls: {problem}") from None
        return tls


def parse_url(url: str) -> tuple[str, dict[str, Any]]:
    """The scheme of a URL, and its other parts by their names in StoreSettings.

    Raises ValueError, whose text does not repeat the URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError("it must begin with redis://, rediss://, redis+cluster:// or rediss+cluster://")
    if parts.scheme.endswith("+cluster"):
        return parts.scheme, _of_a_cluster(parts)
    if not parts.hostname:
        raise ValueError("it has no host")
    if parts.query or parts.fragment:
        raise ValueError("RestMQ knows no parameters after ? or #; omit them")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port is not a number from 1 to 65535") from None
    found: dict[str, Any] = {"host": parts.hostname}
    if port is not None:
        found["port"] = _PORT(str(port))
    if path := parts.path.strip("/"):
        found["db"] = _DB(path)
    return parts.scheme, found | _credentials(parts)


def _of_a_cluster(parts: SplitResult) -> dict[str, Any]:
    """The parts of a URL with several hosts."""
    if parts.query or parts.fragment or parts.path.strip("/"):
        raise ValueError("RestMQ knows nothing after the hosts of a cluster; omit it")
    try:
        nodes = _nodes(parts.netloc.rpartition("@")[2])
    except ValueError:
        raise ValueError("it needs host:port, several by commas") from None
    return {"cluster": nodes} | _credentials(parts)


def _credentials(parts: SplitResult) -> dict[str, str]:
    found = {"username": parts.username, "password": parts.password}
    return {name: unquote(value) for name, value in found.items() if value}
