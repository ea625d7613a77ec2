"""RestMQ's errors. The text of each says what is wrong, then what to do.

Only WireError knows of HTTP; ``restmq.handlers`` maps the other classes to status codes.
"""


class RestMQError(Exception):
    """The base of all errors whose text a client may see.

    Attributes:
        retry_after_seconds: time after which the same request may succeed; None if waiting does not help.
    """

    retry_after_seconds: int | None = None


class InvalidInput(RestMQError):
    """The request is malformed: a missing field, an invalid name, an unknown command."""


class TooLong(RestMQError):
    """The client sent a part that is longer than its limit."""


class HeadersTooLarge(RestMQError):
    """The headers that would be kept with the message are too many or too long."""


class NotAuthenticated(RestMQError):
    """The password or token is missing or wrong."""


class NotAllowed(RestMQError):
    """The client is authenticated, but may not do this."""


class TooManyFailures(RestMQError):
    """This address sent too many wrong passwords or tokens."""

    retry_after_seconds = 60


class Overloaded(RestMQError):
    """The server has too much of such work; nothing was done."""

    retry_after_seconds = 1


class NotFound(RestMQError):
    """There is no such queue, message or page."""


class Conflict(RestMQError):
    """The request conflicts with the present state: a reused idempotency key, or a lease on a broadcast."""


class LeaseGone(RestMQError):
    """The receipt is invalid: the lease expired, the message was acked, or the receipt never existed."""


class QueueFull(RestMQError):
    """The queue has its maximum number of messages."""

    retry_after_seconds = 1


class StoreUnavailable(RestMQError):
    """Redis is unreachable or did not answer in time. It is unknown whether the operation ran."""

    retry_after_seconds = 1


class StoreRefused(RestMQError):
    """Redis answered with an error: out of memory, read-only, a key of the wrong type."""

    retry_after_seconds = 5


class WireError(Exception):
    """A request that is refused before any handler runs; the connection is closed after the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ConfigurationError(Exception):
    """The service cannot start with these options. The text is one line for the operator."""
