"""The application: the route table, and the way of each request to its handler."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import cyclone.web

from restmq.errors import WireError
from restmq.handlers import (
    commands,
    dashboard,
    health,
    messages,
    openapi,
    pages,
    queues,
    servers,
    settings,
    several,
    streams,
    websocket,
    xmlrpc,
)
from restmq.handlers.base import Handler
from restmq.handlers.error_status import render_error
from restmq.handlers.services import Services
from restmq.http.limits import Limits
from restmq.http.request import Request
from restmq.http.response import head
from restmq.http.server import HTTPServer

ELSEWHERE = "*"
Route = tuple[str, type[Handler]]
#: The template of each route's path, and its handler. The first that matches is taken. ``{name}`` is the whole rest of
#: the path, still percent-encoded. A template that ends in a slash also matches without it.
ROUTES: list[Route] = [
    ("/q/{queue}", queues.QueueHandler),
    ("/q/", queues.QueueListHandler),
    ("/m/{key}", messages.MessageHandler),
    ("/d/{queue}", messages.DeadLettersHandler),
    ("/c/{queue}", streams.CometHandler),
    ("/sse/{queue}", streams.EventHandler),
    ("/tap/{queue}", streams.TapHandler),
    ("/ws/{queue}", websocket.WebSocketHandler),
    ("/ws/", several.ListenWebSocketHandler),
    ("/listen", several.ListenHandler),
    ("/take", several.TakeHandler),
    ("/queue", commands.CommandHandler),
    ("/queue/{queue}", commands.QueueCommandHandler),
    ("/p/{queue}", settings.PolicyHandler),
    ("/control/", settings.ControlListHandler),
    ("/control/{queue}", settings.ControlHandler),
    ("/stats/", settings.StatsListHandler),
    ("/stats/{queue}", settings.StatsHandler),
    ("/j/{queue}", settings.JobsHandler),
    ("/xmlrpc", xmlrpc.XmlRpcHandler),
    ("/", queues.RootHandler),
    ("/dashboard", pages.DashboardHandler),
    ("/dashboard/events", dashboard.EventsHandler),
    ("/dashboard/samples", dashboard.SamplesHandler),
    ("/dashboard/samples/{queue}", dashboard.QueueSamplesHandler),
    ("/dashboard/consumers/{queue}", dashboard.ConsumersHandler),
    ("/dashboard/sqs/{queue}", dashboard.SqsQueueHandler),
    ("/static/{file}", pages.StaticHandler),
    ("/favicon.ico", pages.IconHandler),
    ("/servers", servers.ServersHandler),
    ("/metrics", health.MetricsHandler),
    ("/healthz", health.HealthHandler),
    ("/readyz", health.ReadinessHandler),
    ("/openapi.json", openapi.DescriptionHandler),
    ("/api", openapi.DescriptionPageHandler),
    (ELSEWHERE, pages.NotFoundHandler),
]


#: Longest path whose route is remembered.
_SHORT_PATH = 256
#: The header that only requests of the SQS interface have, and the mark of its older protocol, in a query or a form. A
#: form with another version belongs to another service of Amazon.
_SQS_HEADER, _SQS_FIELD = "x-amz-target", b"Action="
_SQS_FORM = re.compile(rb"(?=.*(?:^|&)Action=)(?!.*(?:^|&)Version=(?!2012-11-05(?:&|$)))(?!.*(?:^|&)queue=)", re.DOTALL)
#: The templates of the paths to which such a query or form may be sent.
_SQS_TEMPLATES = ("/", ELSEWHERE)


def _is_sqs_form(request: Request) -> bool:
    """Whether the request is one of Amazon's query protocol. A form with the field ``queue`` is RestMQ's own."""
    fields = request.body if request.body and request.is_form else request.query.encode("latin-1")
    return _SQS_FIELD in fields and _SQS_FORM.match(fields) is not None


@cache
def _sqs_handler() -> type[Handler]:
    """The handler of the SQS interface, which is loaded at its first use."""
    handler: type[Handler] = import_module("restmq.frontends.sqs.handler").SqsHandler
    return handler


def route_pattern(template: str) -> re.Pattern[str]:
    """The pattern of the raw paths that match a template."""
    if template == ELSEWHERE:
        return re.compile(".*", re.DOTALL)
    fixed, variable, _ = template.partition("{")
    return re.compile(re.escape(fixed) + "(.+)" if variable else re.escape(fixed.rstrip("/")) + "/?", re.DOTALL)


class Application(HTTPServer, cyclone.web.Application):  # type: ignore[misc]  # untyped
    """RestMQ's web service: finds the handler of each request."""

    def __init__(self, services: Services, limits: Limits, reactor: Any, routes: Sequence[Route] = ROUTES) -> None:
        super().__init__([], transforms=[])
        self.start_server(limits, reactor, services.turns)
        self.services = services
        services.description = openapi.describe(routes)
        self._routes: list[tuple[Callable[[str], Any], type[Handler], str]] = [
            (route_pattern(template).fullmatch, handler_class, template) for template, handler_class in routes
        ]
        #: Clients repeat the same paths.
        self._find_short_route = lru_cache(maxsize=1024)(self._find_route)

    def __call__(self, request: Request) -> Handler:
        """Runs the request's handler. Paths are matched raw; the handler decodes the queue's name, once."""
        if _SQS_HEADER in request.headers:
            return self._run_sqs(request)
        find = self._find_short_route if len(request.path) <= _SHORT_PATH else self._find_route
        handler_class, template, variable = find(request.path)
        if template in _SQS_TEMPLATES and _is_sqs_form(request):
            return self._run_sqs(request)
        self.services.traffic.arrived(request, template)
        handler = handler_class(self.services, request)
        handler.start(*variable)
        return handler

    def _find_route(self, path: str) -> tuple[type[Handler], str, tuple[str, ...]]:
        """The handler, the template, and the variable part of the path, if there is one."""
        for match, handler_class, template in self._routes:
            found = match(path)
            if found:
                return handler_class, template, found.groups()
        raise AssertionError("the last route matches every path")

    def _run_sqs(self, request: Request) -> Handler:
        self.services.traffic.arrived(request, "sqs")
        handler = _sqs_handler()(self.services, request)
        handler.start()
        return handler

    def start_draining(self) -> None:
        self.services.draining = True
        super().start_draining()

    def refused(self, address: str, refusal: WireError) -> None:
        self.services.traffic.refused(address, refusal.status)

    def render_refusal(self, refusal: WireError) -> bytes:
        body, content_type = render_error(refusal.status, str(refusal))
        retry = "Retry-After: 5\r\n" if refusal.status == 503 else ""
        return head(refusal.status, "HTTP/1.1", content_type, len(body), False, retry) + body
