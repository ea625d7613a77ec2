"""The command line of ``twistd restmq``, and the options that all daemons share. Values are checked."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from twisted.python import usage

from restmq.auth.acl import parse_hosts
from restmq.auth.failures import Failures
from restmq.handlers.admission import Admission
from restmq.http.limits import Limits
from restmq.model import QUEUE_NAME_BYTES_MAX, TTL_SECONDS_MAX
from restmq.monitoring.access_log import FORMATS
from restmq.schema.metadata import KeptHeaders
from restmq.server.coercions import OneWord, ip_address, seconds, whole_number
from restmq.server.embedded_redis import StoreListener
from restmq.server.redis_options import RedisOptions

STORE_PASSWORD_VARIABLE = "RESTMQ_STORE_PASSWORD"  # noqa: S105  its name, not its value

_BYTES = whole_number(1, 1 << 31)
_COUNT = whole_number(1, 1_000_000)
_PORT = whole_number(1, 65535)
_NAME_BYTES = whole_number(1, QUEUE_NAME_BYTES_MAX)
_EXPIRY = whole_number(0, TTL_SECONDS_MAX)


def _naming(flag: str, coerce: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same coercion, with the flag's name in its errors."""

    def convert(text: str) -> Any:
        try:
            return coerce(text)
        except ValueError as problem:
            raise usage.UsageError(f"--{flag} {text!r}: {problem}") from None

    return convert


class DaemonOptions(RedisOptions):
    """The options of all daemons: where they listen, and how they stop."""

    #: The daemon's name in twistd.
    command: ClassVar[str]

    optParameters: list[list[Any]] = [
        ["listen", None, "127.0.0.1", "address to listen on"],
        ["drain-timeout", None, 10, "seconds that requests in progress may take at shutdown", seconds],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["endpoint"] = []
        for flag, parameter in self._dispatch.items():
            if isinstance(parameter, usage.CoerceParameter):  # whose own errors do not name the flag
                parameter.coerce = _naming(flag, parameter.coerce)

    def opt_endpoint(self, description: str) -> None:
        """Listen on this Twisted endpoint, such as unix:/run/restmq.sock; may be repeated."""
        self["endpoint"].append(description)

    def opt_help(self) -> NoReturn:
        """Display this help and exit."""
        with contextlib.suppress(BrokenPipeError):  # of head, or of a pager that was left
            print(self, flush=True)
        os._exit(0)  # the exit would flush the output, and fail again

    def parseOptions(self, options: Any = None) -> None:
        """Ends the process with a one-line error; twistd would print the whole help before it."""
        #: The arguments as given; the workers get the same.
        self.arguments: list[str] = list(options or [])
        try:
            super().parseOptions(options)
            self.store_settings()
        except usage.UsageError as problem:
            raise SystemExit(f"{self.command}: {str(problem).rstrip('.')}; see --help.") from None

    def parseArgs(self, *args: str) -> None:
        if args:
            raise usage.UsageError(f"{args[0]!r} is not an option of {self.command}.")


class Options(DaemonOptions):
    """``twistd restmq``."""

    command = "restmq"
    longdesc = "A message queue that you use over plain HTTP. It keeps its data in Redis."

    def getSynopsis(self) -> str:
        return "Usage: restmq serve [options], or twistd [options of twistd] restmq [options]"

    optParameters: list[list[Any]] = [
        ["acl", None, None, "file with the access rules [default: ./acl.conf; until it exists, all is open]"],
        ["port", None, 8888, "port to listen on", _PORT],
        [
            "embedded",
            None,
            "auto",
            "start a private Redis or Valkey: auto (if no Redis answers), always or never",
            OneWord("auto", "always", "never"),
        ],
        ["replicas", None, 0, "number of replicas of an outside Redis that --durable waits for", whole_number(0, 100)],
        ["workers", None, 1, "number of processes that serve the port", whole_number(1, 64)],
        ["data-dir", None, None, "directory of the private store's data"],
        ["store-port", None, None, "TCP port of the private store for other clients [default: none]", _PORT],
        [
            "store-listen",
            None,
            "127.0.0.1",
            f"address of --store-port; password: {STORE_PASSWORD_VARIABLE}",
            ip_address,
        ],
        ["max-body", None, 16777216, "maximum size of a request body in bytes", _BYTES],
        ["max-command", None, 16777216, "maximum size of a JSON command or an XML-RPC call in bytes", _BYTES],
        ["max-form", None, 1048576, "maximum size of a form in bytes, not counting its longest field", _BYTES],
        ["max-request-line", None, 8192, "maximum length of a URL in bytes", _BYTES],
        ["max-headers", None, 65536, "maximum size of a request's header section in bytes", _BYTES],
        ["max-header-fields", None, 100, "maximum number of header fields in a request", _COUNT],
        ["request-timeout", None, 30, "seconds for a request to arrive; a body has more (--min-rate)", seconds],
        ["idle-timeout", None, 75, "seconds after which an idle connection is closed", seconds],
        ["max-queue-name", None, QUEUE_NAME_BYTES_MAX, "maximum length of a queue name in bytes", _NAME_BYTES],
        ["queue-expires", None, 0, "seconds after which an empty, unused queue is removed; 0: never", _EXPIRY],
        ["max-pipelined", None, 16, "maximum number of pipelined requests that wait on a connection", _COUNT],
        ["max-connections", None, 10000, "maximum number of connections", _COUNT],
        ["max-connections-per-address", None, 2000, "maximum number of connections from one address", _COUNT],
        ["max-received", None, 536870912, "maximum bytes of requests that are not answered yet", _BYTES],
        ["max-received-per-address", None, 268435456, "the same from one address", _BYTES],
        ["max-unread", None, 536870912, "maximum bytes of responses that clients do not read", _BYTES],
        ["max-unread-per-address", None, 268435456, "the same to one address", _BYTES],
        ["unread-timeout", None, 30, "seconds after which a client that reads nothing of its response is cut", seconds],
        ["min-rate", None, 16384, "slowest bytes per second of a request's body or a response", _BYTES],
        ["max-unsent", None, 1048576, "maximum unread bytes per live consumer (briefly four times as much)", _BYTES],
        ["max-unsent-total", None, 268435456, "maximum unread bytes of all live consumers together", _BYTES],
        ["stall-timeout", None, 10, "seconds for a live consumer to catch up; as many again per MiB sent", seconds],
        ["max-failures", None, 1000, "maximum number of wrong passwords and tokens per minute", _COUNT],
        ["max-failures-per-address", None, 10, "the same from one address; of IPv6, from one /64", _COUNT],
        [
            "keep-headers",
            None,
            KeptHeaders(),
            "headers to keep with a message, joined by commas; x-* stands for all that begin with x-",
            KeptHeaders.parse,
        ],
        ["peer-timeout", None, 0.5, "seconds to wait for statistics from other servers and workers", seconds],
        ["max-watchers", None, 100, "maximum number of open dashboards", _COUNT],
        ["max-watched-queues", None, 20000, "maximum number of queues on the dashboard", _COUNT],
        ["trusted-proxies", None, None, "addresses and networks whose X-Forwarded-For is believed", parse_hosts],
        ["access-log", None, "off", "format of the access log: off, common or json", OneWord(*FORMATS)],
        ["access-log-file", None, None, "file of the access log; - for standard output [default: the log]"],
        [
            "sqs-auth",
            None,
            "auto",
            "whether SQS clients must sign: auto (as docs/security.md says) or sigv4 (always)",
            OneWord("auto", "sigv4"),
        ],
        ["metrics-queues", None, 100, "maximum number of queues with own metrics: the busiest", whole_number(0, 1000)],
    ]
    optFlags = [["durable", None, "answer when the message is on disk (private store) or on replicas (outside Redis)"]]

    def __init__(self) -> None:
        super().__init__()
        self["allow-origin"] = []
        self["allow-host"] = []

    def opt_allow_origin(self, origin: str) -> None:
        """Let pages of this origin, such as https://example.org, use the server; may be repeated."""
        scheme, _, host = origin.partition("://")
        if scheme not in ("http", "https") or not host or "/" in host or not origin.isprintable():
            raise usage.UsageError(
                f"--allow-origin: {origin!r} is invalid; give an origin such as https://example.org."
            )
        self["allow-origin"].append(origin)

    def opt_allow_host(self, host: str) -> None:
        """Accept only this host name (or address) and loopback's; may be repeated."""
        self["allow-host"].append(host.lower())

    def postOptions(self) -> None:
        if self["access-log-file"] and self["access-log"] == "off":
            raise usage.UsageError("--access-log-file has no effect; add --access-log common or json.")
        if self["embedded"] == "always" and self.names_redis:
            raise usage.UsageError("--embedded=always starts a private store; omit the --redis-… flags and REDIS_URL.")
        if self["workers"] > 1 and self["endpoint"]:
            raise usage.UsageError("--endpoint is for a single process; use --listen and --port with --workers.")
        if self["replicas"] and not self["durable"]:
            raise usage.UsageError("--replicas has no effect without --durable; give both.")
        if self["store-port"] is not None and self["embedded"] != "always":
            raise usage.UsageError("--store-port opens the private store; add --embedded=always.")
        if self["acl"] is not None and not Path(self["acl"]).is_file():
            raise usage.UsageError(f"--acl {self['acl']}: the file does not exist.")

    def admission(self) -> Admission:
        return Admission(frozenset(self["allow-origin"]), frozenset(self["allow-host"]), self["trusted-proxies"])

    def limits(self) -> Limits:
        return Limits(
            request_line_bytes=self["max-request-line"],
            header_bytes=self["max-headers"],
            header_fields=self["max-header-fields"],
            body_bytes=self["max-body"],
            form_bytes=self["max-form"],
            request_seconds=self["request-timeout"],
            idle_seconds=self["idle-timeout"],
            requests_waiting=self["max-pipelined"],
            connections=self["max-connections"],
            connections_per_address=self["max-connections-per-address"],
            received_bytes=self["max-received"],
            received_bytes_per_address=self["max-received-per-address"],
            unread_bytes=self["max-unread"],
            unread_bytes_per_address=self["max-unread-per-address"],
            unread_seconds=self["unread-timeout"],
            bytes_per_second=self["min-rate"],
        )

    def failures(self, seconds: Callable[[], float]) -> Failures:
        return Failures(seconds, self["max-failures"], self["max-failures-per-address"])

    def store_listener(self) -> StoreListener | None:
        """The private store's TCP listener, with the password from the environment; None without --store-port."""
        if self["store-port"] is None:
            return None
        return StoreListener(self["store-listen"], self["store-port"], os.environ.get(STORE_PASSWORD_VARIABLE) or None)
