"""Errors of the client. It shares those in ``restmq.errors`` with the server."""

from __future__ import annotations

from restmq.errors import RestMQError


class Refused(RestMQError):
    """The server answered with an error status that has no class of its own. ``status`` is this status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Busy(RestMQError):
    """The server can't run the request now. 429: queue full, or too many wrong passwords; 503: store unavailable."""

    def __init__(self, text: str, retry_after_seconds: int | None) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class Unreachable(RestMQError):
    """No complete response arrived.

    Attributes:
        sent: whether the server may have received the request. If so, it is unknown whether the server ran it.
    """

    def __init__(self, text: str, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class BadAnswer(RestMQError):
    """The response does not come from a RestMQ server, or is too long."""


class Stopped(RestMQError):
    """The client was stopped before the response arrived."""
