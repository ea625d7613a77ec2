"""The one error map: which status an error of ours has."""

from __future__ import annotations

from restmq import errors
from restmq.errors import WireError


class MethodNotAllowed(errors.RestMQError):
    """The route knows other methods."""


class MisdirectedHost(errors.RestMQError):
    """The Host header names no host that this server goes by."""


class UpgradeRequired(errors.RestMQError):
    """The route speaks another protocol (RFC 9110, 15.5.22)."""


#: Status by class of error, looked up along the error's MRO.
STATUS: dict[type[BaseException], int] = {
    errors.InvalidInput: 400,
    errors.NotAuthenticated: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    errors.Conflict: 409,
    errors.LeaseGone: 410,
    MisdirectedHost: 421,
    UpgradeRequired: 426,
    errors.QueueFull: 429,
    errors.TooManyFailures: 429,
    errors.StoreUnavailable: 503,
    errors.StoreRefused: 503,
}


def status_of(error: BaseException | None) -> int:
    """An error's status; 500 for what is a fault of ours."""
    if isinstance(error, WireError):
        return error.status
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
