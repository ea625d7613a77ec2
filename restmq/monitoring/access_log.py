"""The access log: a line per request. It has no values, query strings or credentials. Of the headers it has the
request's id, and the trace id of ``traceparent`` (W3C Trace Context).
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from itertools import count
from logging.handlers import WatchedFileHandler
from typing import Any

import orjson
from twisted.logger import Logger

from restmq.errors import ConfigurationError
from restmq.http.request import Request

log = Logger()

FORMATS = ("off", "common", "json")
STANDARD_OUTPUT = "-"

_ID = re.compile(r"[\w.:=+/@-]{1,64}", re.ASCII)
_TRACE = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-")

_FACTS = ("id", "trace", "address", "method", "path", "version", "route", "status", "bytes", "seconds")
#: The facts about a request. They are None if the request was rejected before it was parsed.
Entry = dict[str, Any]


def common_line(entry: Entry, now: float) -> bytes:
    """A line in NCSA's Common Log Format, followed by the request's id, its duration in seconds, and the trace id."""
    when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now))
    path = entry["path"] and entry["path"].replace("\\", "%5C").replace('"', "%22")
    request_line = f"{entry['method']} {path} {entry['version']}" if path else "-"
    size = "-" if entry["bytes"] is None else entry["bytes"]
    seconds = "-" if entry["seconds"] is None else f"{entry['seconds']:.6f}"
    line = f'{entry["address"]} - - [{when}] "{request_line}" {entry["status"]} {size} {entry["id"] or "-"} {seconds}'
    line += f" {entry['trace'] or '-'}"
    return line.encode("ascii", "backslashreplace")


def json_line(entry: Entry, now: float) -> bytes:
    """A line with a JSON object. Its time is in UTC (RFC 3339)."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    return orjson.dumps({"time": when, **entry})


_RENDER = {"common": common_line, "json": json_line}


class LogFile(WatchedFileHandler):
    """A file that lines are appended to. If it was moved away or deleted, the next line goes to a new file."""

    def __init__(self, path: str) -> None:
        """Raises ConfigurationError if the file can't be opened."""
        self._failing = False
        self._is_standard_output = path == STANDARD_OUTPUT
        try:
            super().__init__(path)
        except OSError as problem:
            raise ConfigurationError(f"--access-log-file {path}: {problem.strerror}.") from None

    def _open(self) -> Any:
        if self._is_standard_output:
            return open(1, "wb", buffering=0, closefd=False)
        return open(self.baseFilename, "ab", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o640))

    def write(self, line: bytes) -> None:
        """Appends a line. A full disk must not stop the queue: then lines are lost, and the log reports this once."""
        try:
            if not self._is_standard_output:
                self.reopenIfNeeded()
            self.stream = self.stream or self._open()
            self.stream.write(line + b"\n")  # type: ignore[arg-type]  # it is a binary file
            self._failing = False
        except OSError as problem:
            if not self._failing:
                log.error(
                    "lines of the access log are lost: {why}; check its disk and permissions.", why=problem.strerror
                )
            self._failing = True


def write_to_log(line: bytes) -> None:
    """Writes a line to the daemon's log, after the time and ``[restmq.access#info]``."""
    _access_logger.info("{line}", line=line.decode())


_access_logger = Logger(namespace="restmq.access")


class AccessLog:
    """Renders and writes the lines.

    Args:
        kind: ``common`` or ``json``.
        write: writes a line, which it gets without its line end.
        now: the wall clock, in seconds since 1970.
    """

    def __init__(self, kind: str, write: Callable[[bytes], None], now: Callable[[], float]) -> None:
        self._render = _RENDER[kind]
        self._write = write
        self._now = now
        self._prefix = secrets.token_hex(4)
        self._numbers = count(1)

    def identify(self, request: Request) -> str:
        """The request's id: from its header ``X-Request-Id`` if that is short and plain, else a new one."""
        given: str = request.headers.get("x-request-id", "")
        return given if _ID.fullmatch(given) else f"{self._prefix}-{next(self._numbers)}"

    def answered(self, request: Request, status: int, body_bytes: int | None, took_seconds: float) -> None:
        trace = _TRACE.match(request.headers.get("traceparent", ""))
        self._log(
            request.id,
            trace and trace[1],
            request.remote_ip,
            request.method,
            request.path,
            request.version,
            request.route,
            status,
            body_bytes,
            round(took_seconds, 6),
        )

    def refused(self, address: str, status: int) -> None:
        """Logs a rejection. The line contains no data from the client, because this data was not parsed."""
        self._log(None, None, address, None, None, None, None, status, None, None)

    def _log(self, *facts: Any) -> None:
        self._write(self._render(dict(zip(_FACTS, facts, strict=True)), self._now()))
