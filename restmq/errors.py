"""What can go wrong, in RestMQ's own words.

Each error carries one sentence for the person who caused it: what is wrong and what to do.
Nothing here knows of HTTP; ``restmq.handlers.base`` maps these classes to status codes.
"""


class RestMQError(Exception):
    """The root of all errors that a client may be told about."""

    #: Seconds after which the same request may succeed, or None if waiting does not help.
    retry_after_seconds: int | None = None


class InvalidInput(RestMQError):
    """What the client sent is malformed: a missing field, a bad name, an unknown command."""


class NotAuthenticated(RestMQError):
    """A password or token is needed, or the one given is wrong."""


class NotAllowed(RestMQError):
    """The client is known well enough, and may not do this."""


class TooManyFailures(RestMQError):
    """Too many wrong passwords or tokens came from this address."""

    retry_after_seconds = 60


class NotFound(RestMQError):
    """There is no such queue, message or page."""


class Conflict(RestMQError):
    """It contradicts what was said before: another message with the same idempotency key, a lease on a broadcast."""


class LeaseGone(RestMQError):
    """The receipt is not that of a lease in force: it is over, was acked, or never was."""


class QueueFull(RestMQError):
    """The queue holds as many messages as it may."""

    retry_after_seconds = 1


class StoreUnavailable(RestMQError):
    """Redis did not answer in time, or is not there. Whether the operation ran is not known."""

    retry_after_seconds = 1


class StoreRefused(RestMQError):
    """Redis answered with an error: out of memory, read-only, wrong type of key."""

    retry_after_seconds = 5


class WireError(Exception):
    """A request that is refused before any handler sees it; the connection is closed after the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ConfigurationError(Exception):
    """The service cannot start as it was asked to. The text is one line for the operator."""
