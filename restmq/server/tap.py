"""The objects that twistd's plugins name. The modules of a daemon are imported only when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from restmq.server.clock import serve_directly, use_monotonic_clock

CYCLONE_MISSING = "restmq: cyclone is missing; run: pip install --no-deps cyclone==1.3"


class Tap:
    """A daemon, by the names of the modules with its ``Options`` and its ``makeService``."""

    def __init__(self, options_module: str, service_module: str) -> None:
        self._options_module = options_module
        self._service_module = service_module

    def Options(self) -> Any:
        """The options of the daemon's command."""
        try:
            return import_module(self._options_module).Options()
        except ModuleNotFoundError as missing:
            if missing.name == "cyclone":
                raise SystemExit(CYCLONE_MISSING) from None
            raise

    def makeService(self, options: Any) -> Any:
        """The service that the options describe."""
        from twisted.internet import reactor

        use_monotonic_clock(reactor)
        serve_directly(reactor)
        return import_module(self._service_module).makeService(options)


restmq = Tap("restmq.server.options", "restmq.server.service")
collectd = Tap("restmq.frontends.collectd", "restmq.frontends.collectd")
syslogd = Tap("restmq.frontends.syslog.daemon", "restmq.frontends.syslog.daemon")
