"""The checks that come before the access check: the client's address behind proxies, host names, pages of other sites.

A browser sends requests on behalf of any page that its user visits. These checks keep such pages from using the server,
whatever the access rules allow to the browser's user (docs/security.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from restmq.auth.acl import Hosts, IPAddress, parse_address
from restmq.auth.guard import BY_FIELD, OPEN, Access
from restmq.auth.origins import hides_its_origin, is_cross_site, is_own_host
from restmq.errors import InvalidInput, NotAllowed
from restmq.handlers.error_status import MisdirectedHost
from restmq.http.request import Request

_FORWARDED = re.compile(r"\[([^\]]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+", re.ASCII)
_FIELD_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:, ?[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_CORS = (
    "Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n"
    "Access-Control-Expose-Headers: X-RestMQ-Key, X-RestMQ-Receipt, X-RestMQ-Count, Retry-After, X-Request-Id\r\n"
)
_CORS_PREFLIGHT = (
    "Access-Control-Allow-Methods: GET, HEAD, POST, DELETE, OPTIONS\r\n"
    "Access-Control-Allow-Headers: Accept, Authorization, Cache-Control, Content-Encoding, Content-Type, "
    "Idempotency-Key, Last-Event-ID, X-Request-Id{more}\r\n"
    "Access-Control-Max-Age: 600\r\n"
)


@dataclass(slots=True)
class Admission:
    """The rules of ``--allow-origin``, ``--allow-host`` and ``--trusted-proxies``.

    Attributes:
        allowed_origins: origins of other sites whose pages may use this server.
        allowed_hosts: host names of this server, besides loopback's; None for any name.
        trusted_proxies: addresses of proxies whose ``X-Forwarded-For`` is believed; None for no proxy.
    """

    allowed_origins: frozenset[str] = frozenset()
    allowed_hosts: frozenset[str] | None = frozenset()
    trusted_proxies: Hosts | None = None

    def check(self, request: Request, requires: Mapping[str, Access]) -> None:
        """Sets the request's ``remote_ip`` to the client's own address, and rejects requests of other sites' pages.

        Args:
            requires: the access that each method of the route requires.

        Raises:
            InvalidInput: a trusted proxy sent an invalid address.
            MisdirectedHost: the Host header has a name that is not this server's.
            NotAllowed: a page of a site that is not allowed makes the request.
        """
        if self.trusted_proxies is not None:
            request.remote_ip = client_behind_proxies(request, self.trusted_proxies)
            request.connection.presence.address = request.remote_ip
        host = request.headers.get("host")
        if (
            self.allowed_hosts is not None
            and host
            and not is_own_host(host, self.allowed_hosts)
            # No host name leads a browser to a Unix socket, so any name is accepted there unless names were listed.
            and (self.allowed_hosts or parse_address(request.remote_ip) is not None)
        ):
            raise MisdirectedHost("this server does not have that host name; add it with --allow-host.")
        if is_cross_site(request.headers, self.allowed_origins) and not _is_link(request, requires):
            raise NotAllowed("requests from pages of other sites are rejected; allow a site with --allow-origin.")
        if request.query and hides_its_origin(request):
            raise NotAllowed("JSONP needs a Referer header; let the page send at least its origin.")

    def cors_headers(self, request: Request) -> str:
        """The CORS header lines for a request of an allowed origin (Fetch standard, 3.2); empty for any other."""
        origin = request.headers.get("origin")
        if origin not in self.allowed_origins:
            return ""
        lines = _CORS.format(origin=origin)
        if request.method != "OPTIONS":
            return lines
        # Messages may have any headers (--keep-headers), and the others mean nothing here.
        asked = request.headers.get("access-control-request-headers", "")
        return lines + _CORS_PREFLIGHT.format(more=f", {asked}" if _FIELD_NAMES.fullmatch(asked) else "")


def _is_link(request: Request, requires: Mapping[str, Access]) -> bool:
    """Whether the request only shows a page that shows and takes nothing of a queue: other sites may link to those."""
    return (
        request.method == "GET"
        and requires.get("GET") in (OPEN, BY_FIELD)
        and not request.query
        and request.wants_page
        and "origin" not in request.headers
    )


def parse_forwarded(text: str) -> IPAddress | None:
    """An address as a proxy writes it: bare, in brackets or with a port, such as ``[2001:db8::7]:5555``."""
    found = _FORWARDED.fullmatch(text.strip())
    return parse_address(found[1] or found[2]) if found else parse_address(text)


def client_behind_proxies(request: Request, trusted: Hosts) -> str:
    """The last address in ``X-Forwarded-For`` that is not a trusted proxy's; clients can forge the addresses before.

    Raises InvalidInput for an invalid address: an unknown client must not get its proxy's rights.
    """
    address: str = request.remote_ip
    forwarded = request.headers.get("x-forwarded-for") or request.headers.get("x-real-ip")
    for earlier in reversed(forwarded.split(",") if forwarded else ()):
        if not trusted.contains(parse_address(address)):
            break
        parsed = parse_forwarded(earlier)
        if parsed is None:
            raise InvalidInput("X-Forwarded-For is invalid: it must contain addresses; correct the proxy.")
        address = str(parsed)
    return address
