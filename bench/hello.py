"""A bare cyclone handler that answers "hello" and stores nothing: the speed of the framework alone. Run by rig.py."""

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
application.log_request = lambda _: None  # RestMQ logs no requests by default either
reactor.listenTCP(int(sys.argv[1]), application, interface="127.0.0.1", backlog=1024)
print("listens on", sys.argv[1], flush=True)
reactor.run()
