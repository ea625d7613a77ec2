"""Requests, responses and the retry policy. This module does no I/O; all clients share it."""

from __future__ import annotations

import base64
import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from http.client import responses
from typing import Any, Generic, TypeVar

from restmq import errors
from restmq.client.errors import BadAnswer, Busy, Refused, Unreachable
from restmq.client.server import Server

#: Maximum size of a response, and of a line of a stream.
RESPONSE_BYTES_MAX = 256 << 20
CONNECT_SECONDS = 10.0
IDLE_CONNECTIONS_MAX = 16
#: Maximum duration of one long poll within a longer wait, so that no proxy cuts it off.
POLL_SECONDS = 30.0
#: How often a lease is extended within its duration, so that two extensions may fail.
EXTENSIONS_A_LEASE = 3
_PAUSE_SECONDS_MIN = 0.1
_PAUSE_SECONDS_MAX = 5.0

_STATUS: dict[int, type[errors.RestMQError]] = {
    400: errors.InvalidInput,
    401: errors.NotAuthenticated,
    403: errors.NotAllowed,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.LeaseGone,
}

_T = TypeVar("_T")


@dataclass(slots=True, frozen=True)
class ApiRequest:
    """An HTTP request.

    Attributes:
        path: path and query, percent-encoded.
        wait_seconds: time that the server may wait before it answers.
        repeatable: whether it is safe to send the request again if it is unknown whether the server ran it.
    """

    method: str
    path: str
    _: KW_ONLY
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_seconds: float = 0
    repeatable: bool = True

    def fields(self, server: Server) -> dict[str, str]:
        """The header fields, without those that frame the body."""
        found = {"Accept": "application/json", "User-Agent": "restmq", **self.headers}
        if self.content_type:
            found["Content-Type"] = self.content_type
        if server.authorization:
            found["Authorization"] = server.authorization
        return found


@dataclass(slots=True, frozen=True)
class ApiResponse:
    """An HTTP response. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def check(self) -> ApiResponse:
        """Returns itself. Raises an error with the server's own text if the status is an error."""
        if self.status < 300:
            return self
        if self.status < 400:
            raise BadAnswer(f"the server redirects ({self.status}); use the URL that it redirects to.")
        try:
            text = str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            status = f"{self.status} {responses.get(self.status, '')}".strip()
            text = f"{status}, but this response is not from RestMQ; check the URL."
        if self.status in (429, 503):
            seconds = self.headers.get("retry-after", "")
            raise Busy(text, int(seconds) if seconds.isascii() and seconds.isdigit() else None)
        kind = _STATUS.get(self.status)
        raise kind(text) if kind else Refused(text, self.status)

    @property
    def is_stream(self) -> bool:
        """Whether the body is a live stream of messages."""
        return self.status == 200 and self.headers.get("content-type", "").startswith("text/plain")

    def check_stream(self) -> None:
        """Raises an error as ``check`` does, or BadAnswer if the body is not a live stream."""
        if not self.check().is_stream:
            raise BadAnswer("the response is not a stream of messages; check that the URL is a RestMQ server's.")

    def json(self) -> Any:
        """The JSON document in the body. Raises an error as ``check`` does, or BadAnswer if the body is not JSON."""
        try:
            return json.loads(self.check().body)
        except ValueError:
            raise BadAnswer("the response is not JSON; check that the URL is a RestMQ server's.") from None


@dataclass(slots=True, frozen=True)
class Call(Generic[_T]):
    """An operation of the server: its request, and the function that reads the response."""

    request: ApiRequest
    read: Callable[[ApiResponse], _T]

    def result(self, response: ApiResponse) -> _T:
        """The result in the response. Raises the server's error, or BadAnswer if the response is not RestMQ's."""
        try:
            return self.read(response)
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise BadAnswer(f"RestMQ would not send this response ({problem!r}); check the URL.") from None


@dataclass(slots=True, frozen=True)
class Message:
    """A message that the client received.

    Attributes:
        key: ``<queue>:<number>``.
        value: the exact bytes that were published.
        count: delivery count, if the message is leased.
        receipt: proof of the lease, if the message is leased.
        more: the server's other fields, such as ``state``, ``died`` or ``dead_letter``.
    """

    key: str
    value: bytes
    _: KW_ONLY
    count: int = 0
    receipt: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Message:
        """The message in a JSON object of the server."""
        more = dict(fields)
        key, text = more.pop("key"), more.pop("value")
        value = base64.b64decode(text, validate=True) if more.pop("encoding", "") == "base64" else text.encode()
        return cls(key, value, count=more.pop("count", 0), receipt=more.pop("receipt", ""), more=more)

    @property
    def text(self) -> str:
        """The value as text. Raises UnicodeDecodeError if it is not valid UTF-8."""
        return self.value.decode()


def failure_reason(failure: BaseException) -> str:
    """Why a job failed, for ``nack``; empty if it was only interrupted."""
    return f"{type(failure).__name__}: {failure}".rstrip(": ") if isinstance(failure, Exception) else ""


class RetryPolicy:
    """Exponential backoff with jitter. The server's Retry-After is respected.

    Args:
        retry_seconds: maximum time from the first failure to the last retry (math.inf for no limit).
        seconds: a monotonic clock.
    """

    def __init__(self, retry_seconds: float, seconds: Callable[[], float]) -> None:
        self._retry_seconds = retry_seconds
        self._seconds = seconds
        self._deadline = math.inf
        self._failures = 0

    def delay_seconds(self, error: errors.RestMQError, repeatable: bool) -> float:
        """Seconds to wait before the retry. Raises the error if a retry could do harm or would come too late."""
        retryable = isinstance(error, Busy) or (isinstance(error, Unreachable) and (repeatable or not error.sent))
        if not retryable:
            raise error
        if not self._failures:
            self._deadline = self._seconds() + self._retry_seconds
        pause: float = min(_PAUSE_SECONDS_MIN * 2.0 ** min(self._failures, 20), _PAUSE_SECONDS_MAX)
        pause *= random.uniform(1, 1.5)  # noqa: S311  jitter: many clients must not retry at the same instant
        if error.retry_after_seconds is not None:
            pause = max(pause, error.retry_after_seconds)
        if self._seconds() + pause > self._deadline:
            raise error
        self._failures += 1
        return pause
