"""For monitoring: ``/metrics``, ``/healthz`` and ``/readyz``."""

from __future__ import annotations

from functools import partial

from restmq.auth import guard
from restmq.handlers.base import Handler
from restmq.handlers.declare import Answer, answers_json, declare
from restmq.http.response import JSON
from restmq.schema.answers import STRING, obj


class MetricsHandler(Handler):
    """``/metrics``."""

    requires = {"GET": guard.WATCH}

    @declare(answers={200: Answer("The metrics.", {"text/plain": STRING, "application/openmetrics-text": STRING})})
    async def get(self) -> None:
        """Metrics for Prometheus, as text, or as OpenMetrics if the client accepts that."""
        metrics = self.services.metrics
        self.answer(*await metrics.render(self.request.accepts("application/openmetrics-text")))


class HealthHandler(Handler):
    """``/healthz``."""

    requires = {"GET": guard.OPEN}

    @declare(answers={200: answers_json("It is up.", obj(status=STRING))})
    async def get(self) -> None:
        """Answers if the process is up."""
        self.answer(b'{"status":"up"}\r\n', JSON)


class ReadinessHandler(Handler):
    """``/readyz``."""

    requires = {"GET": guard.OPEN}

    @declare(answers={200: answers_json("It takes writes.", obj({"parts": STRING}, status=STRING))})
    async def get(self) -> None:
        """Answers 200 if the store accepts writes, else 503. Clients that may see statistics also get the reason.

        With a Redis Cluster, 200 if any part of it does; ``parts`` says how many do, such as ``2 of 3``.
        """
        services = self.services
        may_explain = partial(services.guard.permits, self.credentials, guard.WATCH)
        parts = await services.core.store.check_ready(may_explain)
        self.answer_json({"status": "ready"} | ({"parts": parts} if parts else {}), b"\r\n")
