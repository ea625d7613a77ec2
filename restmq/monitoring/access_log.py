"""The access log: a line a request, without values, query strings, credentials, or any header but the request's id."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import orjson
from twisted.logger import Logger

from restmq.errors import ConfigurationError
from restmq.http.request import Request

log = Logger()

FORMATS = ("off", "common", "json")
STANDARD_OUTPUT = "-"

_ID = re.compile(r"[\w.:=+/@-]{1,64}", re.ASCII)

#: What is known of a request: None where the wire refused it before it was one.
Entry = dict[str, Any]


def common_line(entry: Entry, now: float) -> bytes:
    """NCSA's Common Log Format, then the request's id and the seconds that it took."""
    when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now))
    path = entry["path"] and entry["path"].replace("\\", "%5C").replace('"', "%22")
    said = f"{entry['method']} {path} {entry['version']}" if path else "-"
    size = "-" if entry["bytes"] is None else entry["bytes"]
    seconds = "-" if entry["seconds"] is None else f"{entry['seconds']:.6f}"
    line = f'{entry["address"]} - - [{when}] "{said}" {entry["status"]} {size} {entry["id"] or "-"} {seconds}'
    return line.encode("ascii", "backslashreplace")


def json_line(entry: Entry, now: float) -> bytes:
    """A JSON object. Its time is in UTC (RFC 3339)."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    return orjson.dumps({"time": when, **entry})


_RENDER = {"common": common_line, "json": json_line}


class LogFile:
    """A file that lines are appended to, each in one write. It is opened anew on request, so that it can be rotated."""

    def __init__(self, path: str) -> None:
        """Raises ConfigurationError if the file can't be opened."""
        self._path = path
        self._failing = False
        self._descriptor = self._open()

    def _open(self) -> int:
        if self._path == STANDARD_OUTPUT:
            return 1
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as problem:
            raise ConfigurationError(f"--access-log-file {self._path}: {problem.strerror}.") from None

    def reopen(self) -> None:
        """After the file was moved away. One that can't be opened leaves the old one in use, and says so in the log."""
        if self._path == STANDARD_OUTPUT:
            return
        try:
            fresh = self._open()
        except ConfigurationError as problem:
            log.error(
                "{problem} The access log goes on in the old file; set it right and send SIGHUP.", problem=problem
            )
            return
        os.close(self._descriptor)
        self._descriptor = fresh

    def write(self, line: bytes) -> None:
        """A disk that is full must not stop the queue: what can't be written is lost, and the log says so once."""
        try:
            os.write(self._descriptor, line + b"\n")
            self._failing = False
        except OSError as problem:
            if not self._failing:
                log.error("lines of the access log are lost: {why}; make room for it.", why=problem.strerror)
            self._failing = True


def to_the_log(line: bytes) -> None:
    """A line among all others that the daemon logs, behind their time and ``[restmq.access#info]``."""
    _access_logger.info("{line}", line=line.decode())


_access_logger = Logger(namespace="restmq.access")


class AccessLog:
    """Writes the lines.

    Args:
        kind: ``common`` or ``json``.
        write: takes a line without its end.
        now: the wall clock, in seconds since 1970.
    """

    def __init__(self, kind: str, write: Callable[[bytes], None], now: Callable[[], float]) -> None:
        self._render = _RENDER[kind]
        self._write = write
        self._now = now
        self._prefix = secrets.token_hex(4)
        self._numbers = count(1)

    def identify(self, request: Request) -> str:
        """The request's id: the one in its header ``X-Request-Id`` if it is short and plain, else one of ours."""
        given: str = request.headers.get("x-request-id", "")
        return given if _ID.fullmatch(given) else f"{self._prefix}-{next(self._numbers)}"

    def answered(self, request: Request, status: int, body_bytes: int | None, took_seconds: float) -> None:
        entry = {
            "id": request.id,
            "address": request.remote_ip,
            "method": request.method,
            "path": request.path,
            "version": request.version,
            "route": request.route,
            "status": status,
            "bytes": body_bytes,
            "seconds": round(took_seconds, 6),
        }
        self._write(self._render(entry, self._now()))

    def refused(self, address: str, status: int) -> None:
        """Nothing of what was sent is repeated: it may be anything."""
        nothing = dict.fromkeys(("id", "address", "method", "path", "version", "route", "status", "bytes", "seconds"))
        self._write(self._render({**nothing, "address": address, "status": status}, self._now()))
