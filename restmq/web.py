"""The application: the route table, and what hangs together for all routes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from importlib import resources
from typing import Any

import cyclone.template
import cyclone.web
from twisted.internet import defer

from restmq.auth.acl import Hosts, parse_address
from restmq.auth.guard import BY_FIELD, OPEN, Guard
from restmq.auth.origins import hides_its_origin, is_cross_site, is_own_host
from restmq.core import RedisOperations
from restmq.delivery.fanout import Fanout
from restmq.delivery.longpoll import LongPolls
from restmq.errors import InvalidInput, NotAllowed, WireError
from restmq.handlers.base import Handler
from restmq.handlers.commands import CommandHandler, QueueCommandHandler, XmlRpcHandler
from restmq.handlers.dashboard import ConsumersHandler, EventsHandler
from restmq.handlers.error_status import MisdirectedHost
from restmq.handlers.health import HealthHandler, MetricsHandler, ReadinessHandler
from restmq.handlers.messages import DeadLettersHandler, MessageHandler
from restmq.handlers.openapi import DescriptionHandler, DescriptionPageHandler, describe
from restmq.handlers.pages import DashboardHandler, NotFoundHandler, StaticHandler
from restmq.handlers.queues import QueueHandler, QueueListHandler, RootHandler
from restmq.handlers.settings import (
    ControlHandler,
    ControlListHandler,
    JobsHandler,
    PolicyHandler,
    StatsHandler,
    StatsListHandler,
)
from restmq.handlers.streams import CometHandler, EventHandler
from restmq.handlers.websocket import WebSocketHandler, make_factory
from restmq.http.parser import Limits
from restmq.http.request import Request
from restmq.http.response import HTML, JSON, head
from restmq.http.server import HTTPServer
from restmq.monitoring.access_log import AccessLog
from restmq.monitoring.dashboard_feed import DashboardFeed
from restmq.monitoring.listeners import ListenerStatistics
from restmq.monitoring.metrics import Metrics
from restmq.monitoring.peers import Peers
from restmq.monitoring.request_counters import Traffic
from restmq.monitoring.worker_counters import Membership
from restmq.schema.encoding import to_json

ELSEWHERE = "*"
#: Each route's template and its handler; the first that fits is taken. ``{name}`` is all that follows, raw; a slash at
#: the end may be there or not.
ROUTES: list[tuple[str, type[Handler]]] = [
    ("/q/{queue}", QueueHandler),
    ("/q/", QueueListHandler),
    ("/m/{key}", MessageHandler),
    ("/d/{queue}", DeadLettersHandler),
    ("/c/{queue}", CometHandler),
    ("/sse/{queue}", EventHandler),
    ("/ws/{queue}", WebSocketHandler),
    ("/queue", CommandHandler),
    ("/queue/{queue}", QueueCommandHandler),
    ("/p/{queue}", PolicyHandler),
    ("/control/", ControlListHandler),
    ("/control/{queue}", ControlHandler),
    ("/stats/", StatsListHandler),
    ("/stats/{queue}", StatsHandler),
    ("/j/{queue}", JobsHandler),
    ("/xmlrpc", XmlRpcHandler),
    ("/", RootHandler),
    ("/dashboard", DashboardHandler),
    ("/dashboard/events", EventsHandler),
    ("/dashboard/consumers/{queue}", ConsumersHandler),
    ("/static/{file}", StaticHandler),
    ("/metrics", MetricsHandler),
    ("/healthz", HealthHandler),
    ("/readyz", ReadinessHandler),
    ("/openapi.json", DescriptionHandler),
    ("/api", DescriptionPageHandler),
    (ELSEWHERE, NotFoundHandler),
]


def route_pattern(template: str) -> re.Pattern[str]:
    """What a raw path must match to be the template's."""
    if template == ELSEWHERE:
        return re.compile(".*", re.DOTALL)
    fixed, variable, _ = template.partition("{")
    return re.compile(re.escape(fixed) + "(.+)" if variable else re.escape(fixed.rstrip("/")) + "/?", re.DOTALL)


class Application(HTTPServer, cyclone.web.Application):  # type: ignore[misc]  # untyped
    """RestMQ's web service.

    Args:
        allowed_origins: origins of other sites whose pages may use this server.
        allowed_hosts: host names beside loopback's that this server goes by. ``service.Web`` makes it None, which takes
            any, where there are none and the server can be reached from elsewhere.
        trusted_proxies: addresses whose word on who their client is counts.
        metrics_queues_max: how many queues ``/metrics`` tells apart.
    """

    routes = ROUTES

    def __init__(
        self,
        core: RedisOperations,
        fanout: Fanout,
        polls: LongPolls,
        listening: ListenerStatistics,
        peers: Peers,
        membership: Membership,
        guard: Guard,
        observatory: DashboardFeed,
        reactor: Any,
        limits: Limits | None = None,
        allowed_origins: frozenset[str] = frozenset(),
        allowed_hosts: frozenset[str] = frozenset(),
        trusted_proxies: Hosts | None = None,
        access_log: AccessLog | None = None,
        metrics_queues_max: int = 100,
    ) -> None:
        super().__init__([], transforms=[])
        self.start_server(limits or Limits(), reactor)
        self.websockets = make_factory(reactor, self.limits.body_bytes)
        self.core = core
        self.fanout = fanout
        self.polls = polls
        self.listening = listening
        self.guard = guard
        self.observatory = observatory
        self.allowed_origins = allowed_origins
        self.allowed_hosts: frozenset[str] | None = allowed_hosts
        self.trusted_proxies = trusted_proxies
        self.pages = cyclone.template.Loader(str(resources.files("restmq").joinpath("templates")))
        self.traffic = Traffic(time.perf_counter, access_log)
        self.metrics = Metrics(
            core,
            fanout,
            listening,
            peers,
            membership,
            self.traffic,
            lambda: len(self.connections),
            metrics_queues_max,
        )
        self.description = describe(self.routes)
        self.description_json = to_json(self.description)
        self._routes: list[tuple[Callable[[str], Any], type[Handler], str]] = [
            (route_pattern(template).fullmatch, handler_class, template) for template, handler_class in self.routes
        ]

    def __call__(self, request: Request) -> Handler:
        """Runs the request's handler. Paths are matched raw: a queue's name is decoded once, by the handler."""
        for match, handler_class, template in self._routes:
            found = match(request.path)
            if found:
                self.traffic.arrived(request, template)
                handler = handler_class(self, request)
                handler._execute(None, *found.groups())
                return handler
        raise AssertionError("the last route matches all")

    async def visible_queues(self, handler: Handler) -> list[str]:
        """The names of all queues that this client may know of, sorted."""
        return await self.guard.visible(handler.credentials, await self.core.queue_all())

    async def page_of_queues(self, handler: Handler) -> tuple[list[str], int]:
        """The same, as far as the client's ``first`` and ``count`` ask for them; and how many there are in all."""
        names = await self.visible_queues(handler)
        first, count = handler.given["first"] or 0, handler.given["count"]
        return names[first:] if count is None else names[first : first + count], len(names)

    async def queue_stats(self, queue: str) -> dict[str, Any]:
        """A queue in numbers, as ``/stats/<queue>`` shows it. Consumers and waiters are those of all daemons."""
        asked = defer.ensureDeferred(self.listening.count(queue))
        stats = await self.core.queue_stats(queue)
        consumers, waiters = await asked
        return {
            "redis": self.core.store.describe(),
            **stats.fields(),
            "consumers": consumers,
            "waiters": waiters,
        }

    # Who asks

    def check_client(self, handler: Handler) -> None:
        """Learns the client's own address behind proxies, and refuses what a page of another site asks through it.

        Raises:
            InvalidInput: a proxy of ours passes on what is no address.
            MisdirectedHost: the Host header has a name that is not this server's.
            NotAllowed: a browser asks for a page that is not let in.
        """
        request = handler.request
        if self.trusted_proxies:
            request.remote_ip = client_behind_proxies(request, self.trusted_proxies)
        host = request.headers.get("host")
        if (
            self.allowed_hosts is not None
            and host
            and not is_own_host(host, self.allowed_hosts)
            # No name leads a browser to a Unix socket: any will do there, if there are none to choose from.
            and (self.allowed_hosts or parse_address(request.remote_ip) is not None)
        ):
            raise MisdirectedHost("this server does not go by that name; --allow-host adds it.")
        if is_cross_site(request.headers, self.allowed_origins) and not self._is_link(handler):
            raise NotAllowed("requests from pages of other sites are refused; --allow-origin admits a site.")
        if hides_its_origin(request):
            raise NotAllowed("JSONP is refused to a page that sends no Referer; it may send its origin at least.")
        self.allow_origin(handler)

    @staticmethod
    def _is_link(handler: Handler) -> bool:
        """Whether no more than a page is asked for that shows and takes nothing: links to these may stand anywhere."""
        request = handler.request
        return (
            handler.requires.get(request.method) in (OPEN, BY_FIELD)
            and request.method == "GET"
            and not request.query
            and request.accepts("text/html")
            and "origin" not in request.headers
        )

    def allow_origin(self, handler: Handler) -> None:
        """The CORS headers for a site that is admitted (Fetch standard, 3.2)."""
        origin = handler.request.headers.get("origin")
        if origin in self.allowed_origins:
            handler._extra_headers += (
                f"Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n"
                "Access-Control-Expose-Headers: X-RestMQ-Key, X-RestMQ-Receipt, X-RestMQ-Count, Retry-After, "
                "X-Request-Id\r\n"
            )
            if handler.request.method == "OPTIONS":
                handler._extra_headers += (
                    "Access-Control-Allow-Methods: GET, HEAD, POST, DELETE, OPTIONS\r\n"
                    "Access-Control-Allow-Headers: Authorization, Content-Type, Idempotency-Key, Last-Event-ID\r\n"
                    "Access-Control-Max-Age: 600\r\n"
                )

    # Errors

    def render_error(self, status: int, message: str, request: Request | None = None) -> tuple[bytes, str]:
        """An error's body and its content type: JSON, or a page for a browser that asks for one."""
        if request is not None and request.accepts("text/html"):
            sentence = message[:1].upper() + message[1:]
            return self.pages.load("error.html").generate(status=status, message=sentence), HTML
        return to_json({"error": message}) + b"\r\n", JSON

    def refused(self, address: str, refusal: WireError) -> None:
        self.traffic.refused(address, refusal.status)

    def render_refusal(self, refusal: WireError) -> bytes:
        body, content_type = self.render_error(refusal.status, str(refusal))
        retry = "Retry-After: 5\r\n" if refusal.status == 503 else ""
        return head(refusal.status, "HTTP/1.1", content_type, len(body), False, retry) + body


def client_behind_proxies(request: Request, trusted: Hosts) -> str:
    """The last address on the way here that is no proxy of ours: what stands before it anybody may have written.

    Raises InvalidInput for what is no address: a client that is not known must not have its proxy's rights.
    """
    address: str = request.remote_ip
    forwarded = request.headers.get("x-forwarded-for") or request.headers.get("x-real-ip")
    for earlier in reversed(forwarded.split(",") if forwarded else ()):
        if not trusted.contains(parse_address(address)):
            break
        parsed = parse_address(earlier)
        if parsed is None:
            raise InvalidInput("X-Forwarded-For must have bare addresses; what the proxy in front wrote there is none.")
        address = str(parsed)
    return address
