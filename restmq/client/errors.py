"""What can go wrong for a client, beside the errors that it shares with the server (``restmq.errors``)."""

from __future__ import annotations

from restmq.errors import RestMQError


class Refused(RestMQError):
    """The server refuses, or failed, with a status that has no class of its own: ``status`` says which."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Busy(RestMQError):
    """The server can't do it now (429: the queue is full, or too many wrong passwords; 503: its store is away)."""

    def __init__(self, text: str, retry_after_seconds: int | None) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class Unreachable(RestMQError):
    """No whole answer came.

    Attributes:
        sent: whether the server may have got the request; whether it was carried out is not known then.
    """

    def __init__(self, text: str, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class BadAnswer(RestMQError):
    """What answers there is no RestMQ, or answers too much."""


class Stopped(RestMQError):
    """The client was told to stop before the answer came."""
