"""The one error map: each error's status, and the body of an error's answer."""

from __future__ import annotations

from restmq import errors
from restmq.errors import WireError
from restmq.handlers.templates import render
from restmq.http.response import HTML, JSON
from restmq.schema.encoding import to_json


class MethodNotAllowed(errors.RestMQError):
    """The route does not have this method."""


class MisdirectedHost(errors.RestMQError):
    """The Host header has a name that is not this server's."""


class UnsupportedBody(errors.RestMQError):
    """The body is of no kind that the route takes (RFC 9110, 15.5.16)."""


class UpgradeRequired(errors.RestMQError):
    """The route needs another protocol (RFC 9110, 15.5.22)."""


#: Status by class of error; the nearest base class in the MRO counts.
STATUS: dict[type[BaseException], int] = {
    errors.InvalidInput: 400,
    errors.NotAuthenticated: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    errors.Conflict: 409,
    errors.LeaseGone: 410,
    errors.TooLong: 413,
    UnsupportedBody: 415,
    MisdirectedHost: 421,
    UpgradeRequired: 426,
    errors.QueueFull: 429,
    errors.TooManyFailures: 429,
    errors.HeadersTooLarge: 431,
    errors.Overloaded: 503,
    errors.StoreUnavailable: 503,
    errors.StoreRefused: 503,
}


def status_of(error: BaseException | None) -> int:
    """An error's status; 500 for a fault of the server."""
    if isinstance(error, WireError):
        return error.status
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def render_error(status: int, message: str, page_root: str | None = None) -> tuple[bytes, str]:
    """An error's body and its content type: JSON, or a page with links relative to ``page_root``."""
    if page_root is not None:
        return render("error.html", root=page_root, status=status, message=message[:1].upper() + message[1:]), HTML
    return to_json({"error": message}) + b"\r\n", JSON
