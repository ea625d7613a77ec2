#!/usr/bin/env python3
"""Comet with many connections: thousands of listeners in one process, with libcurl.

Shows the two policies: with broadcast each message reaches every connection, and after
``curl -d policy=roundrobin http://localhost:8888/p/test`` each message reaches one connection in turn.

    pip install pycurl
    python3 examples/test_comet_curl.py http://localhost:8888/c/test 1000
    curl -d value=hello http://localhost:8888/q/test                     in another terminal

By default the server accepts 2,000 connections from one address; raise --max-connections-per-address for more. Ends at
SIGINT, or after --deliveries, and then prints the counts.
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
    """One connection and its deliveries.

    Args:
        heard: number of deliveries per message key, shared by all connections.
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
    """All connections, driven by one selector. libcurl reports the sockets that it waits for, and its deadline."""

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
        events = {pycurl.POLL_IN: 1, pycurl.POLL_OUT: 2, pycurl.POLL_INOUT: 3}.get(what)  # the values of selectors
        if events is not None:
            self._selector.register(socket, events)

    def _set_timer(self, milliseconds: int) -> None:
        self._deadline = float("inf") if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def turn(self) -> None:
        """Waits at most LOOK_SECONDS for events, and handles them."""
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
    described.add_argument("url", help="URL of a queue's stream, such as http://localhost:8888/c/test")
    described.add_argument("connections", nargs="?", type=int, default=10, help="number of listeners (default 10)")
    described.add_argument("--deliveries", type=int, help="total deliveries after which to end (default: no end)")
    given = described.parse_args()
    if given.connections < 1:
        sys.exit("test_comet_curl: invalid number of connections: it must be at least 1")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection is a file descriptor

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
