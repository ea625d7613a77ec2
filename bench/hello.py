"""The framework's own floor: a bare cyclone handler that says hello and keeps nothing. Run by http_rate.py."""

from __future__ import annotations

import sys

import cyclone.web
from twisted.internet import reactor


class Hello(cyclone.web.RequestHandler):
    def get(self) -> None:
        self.write("hello")

    def post(self) -> None:
        self.write(self.get_argument("value")[:0] + "hello")


application = cyclone.web.Application([(r"/q/(?:.*)", Hello)])
application.log_request = lambda _: None  # ours logs no requests either
reactor.listenTCP(int(sys.argv[1]), application, interface="127.0.0.1", backlog=1024)
print("listens on", sys.argv[1], flush=True)
reactor.run()
