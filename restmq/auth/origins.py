"""What a browser says of the page that it asks for, and which names lead to this server. Pure.

A page of another site must not use this server through its visitor: neither by requests of its own, nor by a name of
its own that leads here (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from restmq.http.request import Headers, Request

_HOST_NAME_MAX = 255  # RFC 1035, 2.3.4
_HOST_MAX = _HOST_NAME_MAX + 10  # with a port; more is not looked at, and no name


def is_foreign(headers: Headers, allowed_origins: frozenset[str]) -> bool:
    """Whether a page asks that is neither ours nor of an origin that was let in.

    ``Origin`` (RFC 6454) says whose page it is. With a GET by a script element, an image or a link there is none: then
    ``Sec-Fetch-Site`` says whether the page is ours (Fetch Metadata), and ``Referer`` which it is; browsers send the
    former to HTTPS and loopback only. Where nothing is said no page asks: it is a program, or somebody's own typing.
    """
    origin = headers.get("origin")
    if origin is None:
        referrer, site = headers.get("referer"), headers.get("sec-fetch-site")
        if referrer is not None:
            origin = "/".join(referrer.split("/", 3)[:3])
        if site is not None:
            return site not in ("same-origin", "none") and origin not in allowed_origins
        if origin is None:
            return False
    return origin not in allowed_origins and origin.partition("://")[2] != headers.get("host", "")


def hides_its_page(request: Request) -> bool:
    """Whether a browser asks for JSONP without a word on the page: over plain HTTP, a page can make it say nothing."""
    headers = request.headers
    return (
        headers.get("user-agent", "").startswith("Mozilla/")
        and not any(name in headers for name in ("origin", "sec-fetch-site", "referer"))
        and "callback" in request.arguments
    )


def goes_by(host: str, allowed: frozenset[str]) -> bool:
    """Whether a Host header names loopback or one of these: else it may be a page's trick with its own DNS."""
    return _goes_by(host[:_HOST_MAX], allowed)


@lru_cache(maxsize=1024)
def _goes_by(host: str, allowed: frozenset[str]) -> bool:
    name = _host_name(host)
    if len(name) > _HOST_NAME_MAX:
        return False
    if name in allowed or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """A Host header's value without its port, in lower case."""
    name = host.lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]
