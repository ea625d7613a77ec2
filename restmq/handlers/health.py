"""For machines that watch: metrics, and whether the daemon and its store are well."""

from __future__ import annotations

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
        """Metrics for Prometheus: as text, or as OpenMetrics where that is accepted."""
        metrics = self.application.metrics
        self.answer(*await metrics.render(self.request.accepts("application/openmetrics-text")))


class HealthHandler(Handler):
    """``/healthz``."""

    requires = {"GET": guard.OPEN}

    @declare(answers={200: answers_json("It is.", obj(status=STRING))})
    async def get(self) -> None:
        """The process is up."""
        self.answer(b'{"status":"up"}\r\n', JSON)

    head = get


class ReadinessHandler(Handler):
    """``/readyz``."""

    requires = {"GET": guard.OPEN}

    @declare(answers={200: answers_json("It does.", obj(status=STRING))})
    async def get(self) -> None:
        """The store answers; if it does not, 503."""
        await self.application.core.store.command("PING")
        self.answer(b'{"status":"ready"}\r\n', JSON)

    head = get
