"""The command line of ``twistd restmq`` and what other daemons share of it, with checked values."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from restmq import __version__
from restmq.auth.acl import parse_hosts
from restmq.http.parser import Limits
from restmq.model import QUEUE_NAME_BYTES_MAX
from restmq.monitoring.access_log import FORMATS
from restmq.server.embedded_redis import TcpListener
from restmq.store.settings import StoreSettings

REDIS_PASSWORD_VARIABLE = "RESTMQ_REDIS_PASSWORD"  # noqa: S105  its name, not its value
STORE_PASSWORD_VARIABLE = "RESTMQ_STORE_PASSWORD"  # noqa: S105


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A coercion for an option that takes whole numbers within bounds."""

    def coerce(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else least - 1
        if not least <= number <= most:
            raise ValueError(f"a whole number from {least} to {most} is wanted")
        return number

    return coerce


def seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < 86400:
        raise ValueError("a number of seconds from 0 to 86400 is wanted")
    return number


def ip_address(text: str) -> str:
    return str(ipaddress.ip_address(text))


_BYTES = whole_number(1, 1 << 31)
_COUNT = whole_number(1, 1_000_000)
_PORT = whole_number(1, 65535)


def _naming(flag: str, coerce: Callable[[str], Any]) -> Callable[[str], Any]:
    """The coercion, whose errors tell which flag they are about."""

    def convert(text: str) -> Any:
        try:
            return coerce(text)
        except ValueError as problem:
            raise usage.UsageError(f"--{flag} {text!r}: {problem}") from None

    return convert


class RedisOptions(usage.Options):  # type: ignore[misc]  # untyped
    """Where Redis is; shared by the service and the command line tool."""

    optParameters: list[list[Any]] = [
        ["redis-host", None, None, "Redis host [default: 127.0.0.1]"],
        ["redis-port", None, None, "Redis port [default: 6379]", _PORT],
        ["redis-pool", None, None, "number of connections to Redis [default: 10]", whole_number(1, 1000)],
        ["redis-db", None, None, "number of the Redis database [default: 0]", whole_number(0, 1_000_000)],
        ["redis-socket", None, None, "path of Redis' Unix socket, instead of host and port"],
        ["redis-username", None, None, "Redis ACL user"],
        ["redis-password", None, None, f"Redis password; better given in the variable {REDIS_PASSWORD_VARIABLE}"],
        ["redis-timeout", None, 5, "seconds within which Redis must answer a call", seconds],
    ]

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        print(f"RestMQ {__version__}")
        raise SystemExit(0)

    @property
    def names_redis(self) -> bool:
        """Whether any of the flags says where Redis is."""
        return any(self[name[0]] is not None for name in RedisOptions.optParameters if name[0] != "redis-timeout")

    def store_settings(self) -> StoreSettings:
        """The flags, with the defaults where none was given, and the password from the environment."""
        given = {
            "host": self["redis-host"],
            "port": self["redis-port"],
            "pool": self["redis-pool"],
            "db": self["redis-db"],
            "socket_path": self["redis-socket"],
            "username": self["redis-username"],
            "password": self["redis-password"] or os.environ.get(REDIS_PASSWORD_VARIABLE) or None,
            "call_timeout_seconds": self["redis-timeout"],
        }
        return StoreSettings(**{name: value for name, value in given.items() if value is not None})


class DaemonOptions(RedisOptions):
    """What each daemon has: where it listens, and how it ends."""

    #: What twistd knows the daemon by.
    command: ClassVar[str]

    optParameters: list[list[Any]] = [
        ["listen", None, "127.0.0.1", "address to listen on"],
        ["drain-timeout", None, 10, "seconds that what is under way is given at shutdown", seconds],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["endpoint"] = []
        for flag, parameter in self._dispatch.items():
            if isinstance(parameter, usage.CoerceParameter):  # which says what is wrong, but not with what
                parameter.coerce = _naming(flag, parameter.coerce)

    def opt_endpoint(self, description: str) -> None:
        """Listen on this Twisted endpoint, such as unix:/run/restmq.sock; may be given several times."""
        self["endpoint"].append(description)

    def parseOptions(self, options: Any = None) -> None:
        """Ends the process with one line that says what is wrong; twistd would put all of the help before it."""
        #: As they were given, for workers to be given them too.
        self.arguments: list[str] = list(options or [])
        try:
            super().parseOptions(options)
        except usage.UsageError as problem:
            raise SystemExit(f"{self.command}: {str(problem).rstrip('.')}; --help says more.") from None

    def parseArgs(self, *args: str) -> None:
        if args:
            raise usage.UsageError(f"{args[0]!r} is no option of {self.command}.")


class Options(DaemonOptions):
    """``twistd restmq``."""

    command = "restmq"
    synopsis = "[restmq options]"
    longdesc = "A message queue that speaks HTTP and keeps its data in Redis."

    optParameters: list[list[Any]] = [
        ["acl", None, None, "file with the access rules [default: acl.conf here if there is one, else open]"],
        ["port", None, 8888, "port to listen on", _PORT],
        ["embedded", None, "auto", "start a private Redis or Valkey: auto (if no Redis answers), always or never"],
        [
            "replicas",
            None,
            0,
            "with --durable: replicas of an outside Redis to wait for",
            whole_number(0, 100),
        ],
        ["workers", None, 1, "processes that serve the port together", whole_number(1, 64)],
        ["data-dir", None, None, "where the private store keeps its data"],
        ["store-port", None, None, "TCP port on which others may reach the private store [default: none]", _PORT],
        [
            "store-listen",
            None,
            "127.0.0.1",
            f"address for --store-port; {STORE_PASSWORD_VARIABLE} sets a password",
            ip_address,
        ],
        ["max-body", None, 16777216, "longest request body in bytes", _BYTES],
        ["max-request-line", None, 8192, "longest URL in bytes", _BYTES],
        ["max-headers", None, 65536, "longest header section in bytes", _BYTES],
        ["max-header-fields", None, 100, "most header fields in a request", _COUNT],
        ["request-timeout", None, 30, "seconds in which a request must have arrived", seconds],
        ["idle-timeout", None, 75, "seconds after which an idle connection is closed", seconds],
        [
            "max-queue-name",
            None,
            QUEUE_NAME_BYTES_MAX,
            "longest queue name in bytes",
            whole_number(1, QUEUE_NAME_BYTES_MAX),
        ],
        ["max-pipelined", None, 16, "most requests that may wait on one connection", _COUNT],
        ["max-connections", None, 10000, "most connections at a time", _COUNT],
        ["max-connections-per-address", None, 2000, "most connections from one address", _COUNT],
        [
            "max-unsent",
            None,
            1048576,
            "bytes by which a live consumer may be behind; by four times as much for a while",
            _BYTES,
        ],
        [
            "stall-timeout",
            None,
            10,
            "seconds in which a live consumer must catch up, and as many for each MiB it was given",
            seconds,
        ],
        ["peer-timeout", None, 0.5, "seconds that other servers and workers have to tell what only they know", seconds],
        ["max-watchers", None, 100, "most browsers that may watch the dashboard", _COUNT],
        ["max-watched-queues", None, 20000, "most queues that the dashboard shows", _COUNT],
        ["trusted-proxies", None, None, "addresses or networks whose X-Forwarded-For and X-Real-IP count", parse_hosts],
        ["access-log", None, "off", "a line of log for each request: off, common or json"],
        ["access-log-file", None, None, "where these lines go, - for standard output [default: into the log]"],
        ["metrics-queues", None, 100, "how many queues /metrics tells apart, the busiest", whole_number(0, 1000)],
    ]
    optFlags = [["durable", None, "answer when a message is on disk (private store), or on replicas (outside Redis)"]]

    def __init__(self) -> None:
        super().__init__()
        self["allow-origin"] = []
        self["allow-host"] = []

    def opt_allow_origin(self, origin: str) -> None:
        """Let pages of this origin, such as https://example.org, use the server; may be given several times."""
        scheme, _, host = origin.partition("://")
        if scheme not in ("http", "https") or not host or "/" in host or not origin.isprintable():
            raise usage.UsageError(f"--allow-origin: {origin!r} is no origin such as https://example.org.")
        self["allow-origin"].append(origin)

    def opt_allow_host(self, host: str) -> None:
        """Answer to this host name (or address) too, and to no others but loopback's; may be given several times."""
        self["allow-host"].append(host.lower())

    def postOptions(self) -> None:
        if self["access-log"] not in FORMATS:
            raise usage.UsageError(f"--access-log must be one of {', '.join(FORMATS)}.")
        if self["access-log-file"] and self["access-log"] == "off":
            raise usage.UsageError("--access-log-file: nothing would be written; add --access-log common or json.")
        if self["embedded"] not in ("auto", "always", "never"):
            raise usage.UsageError("--embedded must be auto, always or never.")
        if self["embedded"] == "always" and self.names_redis:
            raise usage.UsageError("--embedded=always starts a private store; a --redis-… flag names another one.")
        if self["workers"] > 1 and self["endpoint"]:
            raise usage.UsageError("--workers share --listen and --port; --endpoint is for a single process.")
        if self["replicas"] and not self["durable"]:
            raise usage.UsageError("--replicas says what --durable waits for; give both.")
        if self["store-port"] is not None and self["embedded"] != "always":
            raise usage.UsageError("--store-port opens the private store; it needs --embedded=always.")
        if self["acl"] is None:
            self["acl"] = "acl.conf" if Path("acl.conf").is_file() else str(Path(__file__).parents[1] / "acl.conf")
        elif not Path(self["acl"]).is_file():
            raise usage.UsageError(f"--acl {self['acl']}: there is no such file.")

    def limits(self) -> Limits:
        return Limits(
            request_line_bytes=self["max-request-line"],
            header_bytes=self["max-headers"],
            header_fields=self["max-header-fields"],
            body_bytes=self["max-body"],
            request_seconds=self["request-timeout"],
            idle_seconds=self["idle-timeout"],
            requests_waiting=self["max-pipelined"],
            connections=self["max-connections"],
            connections_per_address=self["max-connections-per-address"],
        )

    def store_listener(self) -> TcpListener | None:
        """Where others may reach the private store, with the password from the environment; None: nowhere."""
        if self["store-port"] is None:
            return None
        return TcpListener(self["store-listen"], self["store-port"], os.environ.get(STORE_PASSWORD_VARIABLE) or None)
