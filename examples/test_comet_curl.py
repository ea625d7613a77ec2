#!/usr/bin/env python3
"""Comet with many connections: thousands of listeners in one process, by libcurl.

Shows what a broadcast does (each message reaches every connection), and, after
``curl -d policy=roundrobin http://localhost:8888/p/test``, how messages are shared out instead.

    pip install pycurl
    python3 examples/test_comet_curl.py http://localhost:8888/c/test 1000
    curl -d value=hello http://localhost:8888/q/test                     in another terminal

The server lets 2,000 connections of one address in; --max-connections-per-address says how many it should. Ends at
SIGINT, or after --deliveries, and says then what was delivered.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import selectors
import sys
import time
from collections import Counter

import pycurl

LOOK_SECONDS = 1.0


class Listener:
    """One connection, and what it has heard.

    Args:
        heard: counts the deliveries of each message, for all connections.
    """

    def __init__(self, url: str, heard: Counter[str]) -> None:
        self.deliveries = 0
        self.connected = False
        self._admitted = False
        self._heard = heard
        self._rest = b""
        self.handle = pycurl.Curl()
        self.handle.setopt(pycurl.URL, url)
        self.handle.setopt(pycurl.NOSIGNAL, 1)
        self.handle.setopt(pycurl.CONNECTTIMEOUT, 30)
        self.handle.setopt(pycurl.FAILONERROR, 1)
        self.handle.setopt(pycurl.FRESH_CONNECT, 1)
        self.handle.setopt(pycurl.HEADERFUNCTION, self._header)
        self.handle.setopt(pycurl.WRITEFUNCTION, self._body)

    def _header(self, line: bytes) -> None:
        self._admitted = self._admitted or line.startswith(b"HTTP/1.1 200")
        self.connected = self._admitted and (self.connected or line == b"\r\n")

    def _body(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            self._heard[json.loads(line)["key"]] += 1
            self.deliveries += 1


class Listeners:
    """All connections, driven by one selector: libcurl says which sockets it waits for, and until when."""

    def __init__(self, url: str, count: int) -> None:
        self.heard: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._selector = selectors.DefaultSelector()
        self._deadline = time.monotonic()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self.all = [Listener(url, self.heard) for _ in range(count)]
        self.open = count
        for listener in self.all:
            self._multi.add_handle(listener.handle)

    @property
    def connected(self) -> int:
        return sum(listener.connected for listener in self.all)

    def _watch(self, what: int, socket: int, _multi: object, _data: object) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(socket)
        events = {pycurl.POLL_IN: 1, pycurl.POLL_OUT: 2, pycurl.POLL_INOUT: 3}.get(what)  # as selectors has them
        if events is not None:
            self._selector.register(socket, events)

    def _set_timer(self, milliseconds: int) -> None:
        self._deadline = float("inf") if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def turn(self) -> None:
        """Handles what has come, or waits for it for a while."""
        for key, events in self._selector.select(max(0, min(LOOK_SECONDS, self._deadline - time.monotonic()))):
            read = pycurl.CSELECT_IN if events & selectors.EVENT_READ else 0
            write = pycurl.CSELECT_OUT if events & selectors.EVENT_WRITE else 0
            self._multi.socket_action(key.fd, read | write)
        if time.monotonic() >= self._deadline:
            self._deadline = float("inf")
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        _, ended, failed = self._multi.info_read()
        self.open -= len(ended) + len(failed)
        self.failed.update(message for _, _, message in failed)


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("url", help="a queue's stream, such as http://localhost:8888/c/test")
    described.add_argument("connections", nargs="?", type=int, default=10, help="how many listeners [default: 10]")
    described.add_argument("--deliveries", type=int, help="end after so many, of all connections together")
    given = described.parse_args()
    if given.connections < 1:
        sys.exit("test_comet_curl: it takes one connection at least")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection is a file

    listeners = Listeners(given.url, given.connections)
    announced = False
    with contextlib.suppress(KeyboardInterrupt):
        while listeners.open and (given.deliveries is None or listeners.heard.total() < given.deliveries):
            listeners.turn()
            if not announced and listeners.connected == given.connections:
                announced = True
                print(f"{given.connections} connections listen", file=sys.stderr, flush=True)
    each = [listener.deliveries for listener in listeners.all]
    print(
        f"{given.connections} connections, {len(listeners.heard)} messages, {sum(each)} deliveries,"
        f" {min(each)} to {max(each)} a connection"
    )
    for problem, count in listeners.failed.items():
        print(f"{count} connections failed: {problem}", file=sys.stderr)
    if listeners.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
