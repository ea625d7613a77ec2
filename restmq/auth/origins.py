"""Detects requests that pages of other web sites make, by the headers that browsers send.

A page of another site must not use this server through its visitor's browser: neither with cross-site requests, nor
through a host name of its own that resolves to this server (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from restmq.http.request import Headers, Request

_HOST_NAME_MAX = 255  # RFC 1035, 2.3.4
_HOST_MAX = _HOST_NAME_MAX + 10  # with a port; a longer one is not a valid name


def is_cross_site(headers: Headers, allowed_origins: frozenset[str]) -> bool:
    """Whether a page of another site sends the request, and its origin is not allowed.

    ``Sec-Fetch-Site`` (Fetch Metadata; browsers send it only over HTTPS and to loopback) tells whether the page is
    ours, also behind a proxy that changes ``Host``. Without it, the page's site is compared with ``Host``. ``Origin``
    (RFC 6454) names this site, or ``Referer`` if there is no ``Origin``, as in GETs by script elements, images and
    links. A request without any of these headers comes from a program, or from a URL that the user typed.
    """
    origin, referrer, site = headers.get("origin"), headers.get("referer"), headers.get("sec-fetch-site")
    if origin is None and referrer is not None:
        origin = "/".join(referrer.split("/", 3)[:3])
    if origin in allowed_origins or site in ("same-origin", "none"):
        return False
    if site is not None:
        return True
    return origin is not None and origin.partition("://")[2] != headers.get("host", "")


def hides_its_origin(request: Request) -> bool:
    """Whether a browser requests JSONP without any header about the page. Over plain HTTP a page can cause this."""
    headers = request.headers
    return (
        headers.get("user-agent", "").startswith("Mozilla/")
        and not any(name in headers for name in ("origin", "sec-fetch-site", "referer"))
        and request.query_text("callback") is not None
    )


def is_prefetch(headers: Headers) -> bool:
    """Whether a browser prefetches: its user may want the answer later, or the browser may discard it."""
    if "sec-purpose" not in headers and "purpose" not in headers and "x-moz" not in headers:
        return False
    purposes = (headers.get(name, "").partition(";")[0].strip().lower() for name in ("sec-purpose", "purpose", "x-moz"))
    return any(purpose in ("prefetch", "prerender", "preview") for purpose in purposes)


def is_own_host(host: str, allowed: frozenset[str]) -> bool:
    """Whether a Host header names loopback or one of these. Any other name may be DNS rebinding."""
    return _is_own_host(host[:_HOST_MAX], allowed)


@lru_cache(maxsize=1024)
def _is_own_host(host: str, allowed: frozenset[str]) -> bool:
    address, is_ipv6, _ = host.lower().partition("]")
    name = address + is_ipv6 if is_ipv6 else address.partition(":")[0]
    if len(name) > _HOST_NAME_MAX:
        return False
    if name in allowed or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
