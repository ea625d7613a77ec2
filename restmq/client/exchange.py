"""One request and its answer, whatever carries them: how requests look, how answers are read, when to try again."""

from __future__ import annotations

import base64
import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import responses
from typing import Any, Generic, TypeVar

from restmq import errors
from restmq.client.errors import BadAnswer, Busy, Refused, Unreachable
from restmq.client.server import Server

#: The longest answer that is read, and the longest line of a stream.
ANSWER_BYTES_MAX = 256 << 20
CONNECT_SECONDS = 10.0
#: A long poll that is part of a longer wait lasts so long at most, so that no proxy cuts it.
POLL_SECONDS = 30.0
_PAUSE_SECONDS_LEAST = 0.1
_PAUSE_SECONDS_MOST = 5.0

_STATUS: dict[int, type[errors.RestMQError]] = {
    400: errors.InvalidInput,
    401: errors.NotAuthenticated,
    403: errors.NotAllowed,
    404: errors.NotFound,
    409: errors.Conflict,
    410: errors.LeaseGone,
}

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Request:
    """What is sent.

    Attributes:
        path: with its query, percent-encoded.
        wait_seconds: how long the server was asked to wait before it answers.
        repeatable: whether it does no harm to send it again when it is not known whether the server carried it out.
    """

    method: str
    path: str
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_seconds: float = 0
    repeatable: bool = True

    def fields(self, server: Server) -> dict[str, str]:
        """The header fields, but for those that say how the body is framed."""
        found = {"Accept": "application/json", "User-Agent": "restmq", **self.headers}
        if self.content_type:
            found["Content-Type"] = self.content_type
        if server.authorization:
            found["Authorization"] = server.authorization
        return found


@dataclass(slots=True, frozen=True)
class Answer:
    """What came back. Names of header fields are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def check(self) -> Answer:
        """Itself, or raises what the server refuses with, in its own words."""
        if self.status < 300:
            return self
        if self.status < 400:
            raise BadAnswer(f"the server sends elsewhere ({self.status}); give the URL that it is really at.")
        try:
            text = str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            text = (
                f"{self.status} {responses.get(self.status, '')}".strip() + ", in no words of RestMQ; is the URL right?"
            )
        if self.status in (429, 503):
            seconds = self.headers.get("retry-after", "")
            raise Busy(text, int(seconds) if seconds.isascii() and seconds.isdigit() else None)
        kind = _STATUS.get(self.status)
        raise kind(text) if kind else Refused(text, self.status)

    @property
    def is_stream(self) -> bool:
        """Whether its body is a live stream of messages."""
        return self.status == 200 and self.headers.get("content-type", "").startswith("text/plain")

    def check_stream(self) -> None:
        """Raises what the server refuses a stream with, or BadAnswer for what is none."""
        if not self.check().is_stream:
            raise BadAnswer("the answer is no stream of messages; is that a RestMQ server?")

    def json(self) -> Any:
        """The document in the body of an answer that is no refusal. Raises BadAnswer if there is none."""
        try:
            return json.loads(self.check().body)
        except ValueError:
            raise BadAnswer("the answer is no JSON; is that a RestMQ server?") from None


@dataclass(slots=True, frozen=True)
class Call(Generic[T]):
    """Something to ask of a server: the request, and what its answer means."""

    request: Request
    read: Callable[[Answer], T]

    def result(self, answer: Answer) -> T:
        """What the answer means. Raises what the server refuses with, or BadAnswer."""
        try:
            return self.read(answer)
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise BadAnswer(f"the answer is not what RestMQ would say: {problem!r}.") from None


@dataclass(slots=True, frozen=True)
class Message:
    """A message as a client holds it.

    Attributes:
        key: ``<queue>:<number>``.
        value: the bytes that were put in.
        count: of a leased one, how often it was delivered.
        receipt: of a leased one, what proves that one holds it.
        more: what else the server said of it, such as ``state``, ``died`` or ``dead_letter``.
    """

    key: str
    value: bytes
    count: int = 0
    receipt: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Message:
        """From the members of a JSON answer."""
        more = dict(fields)
        key, text = more.pop("key"), more.pop("value")
        value = base64.b64decode(text, validate=True) if more.pop("encoding", "") == "base64" else text.encode()
        return cls(key, value, more.pop("count", 0), more.pop("receipt", ""), more)

    @property
    def text(self) -> str:
        """The value as text. Raises UnicodeDecodeError if it is none."""
        return self.value.decode()


class Patience:
    """When to try again, and when to give up: at first soon, then ever later, or when the server says.

    Args:
        retry_seconds: how long after the first failure there are further tries; math.inf for without end.
        seconds: a clock.
    """

    def __init__(self, retry_seconds: float, seconds: Callable[[], float]) -> None:
        self._retry_seconds = retry_seconds
        self._seconds = seconds
        self.reset()

    def reset(self) -> None:
        """It has worked; what fails from now on fails for the first time."""
        self._deadline = math.inf
        self._failures = 0

    def pause_seconds(self, error: errors.RestMQError, repeatable: bool) -> float:
        """How long to wait before the next try. Raises the error where another try could harm, or comes too late."""
        again = isinstance(error, Busy) or (isinstance(error, Unreachable) and (repeatable or not error.sent))
        if not again:
            raise error
        if not self._failures:
            self._deadline = self._seconds() + self._retry_seconds
        pause: float = min(_PAUSE_SECONDS_LEAST * 2.0 ** min(self._failures, 20), _PAUSE_SECONDS_MOST)
        pause *= random.uniform(1, 1.5)  # noqa: S311  so that many clients don't come back in the same instant
        if error.retry_after_seconds is not None:
            pause = max(pause, error.retry_after_seconds)
        if self._seconds() + pause > self._deadline:
            raise error
        self._failures += 1
        return pause
