"""Several processes behind one port: a supervisor that holds the sockets, and workers that serve them.

Each worker is a complete RestMQ with a listening socket of its own on the same address (SO_REUSEPORT). The kernel
distributes connections to them, and they share queues like any daemons on one Redis. The supervisor keeps each socket
open. So when a worker is replaced, the connections that wait on its socket go to its successor; none is refused.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from typing import Any

from twisted.application import service
from twisted.internet import address, defer, endpoints, protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from restmq.errors import ConfigurationError
from restmq.monitoring.worker_counters import Membership
from restmq.server import child
from restmq.server.daemon import cannot_listen_on, url_of

log = Logger()

_VARIABLE = "RESTMQ_WORKER"
_LISTEN_FD, _READY_FD = 3, 4
_BACKLOG = 1024
_RUN_TWISTD = "from twisted.scripts.twistd import run; run()"
_TIMESTAMP = re.compile(r"^\d{4}-\S+ \[[^\]]*\] ")
_LINE_MAX = 65_536

READY_SECONDS = 30.0
#: Time before a dead worker is started again. It doubles if the worker dies again soon.
RESTART_SECONDS = 0.1
RESTART_SECONDS_MAX = 10.0
_SOON_SECONDS = 5.0


@dataclass(slots=True, frozen=True)
class WorkerSlot(Membership):
    """A worker's place among the workers, and what it gets from the supervisor, which passes this in the environment.

    Attributes:
        ipv6: whether the listening socket is IPv6.
        store_socket: path of the private store's socket, or None.
    """

    ipv6: bool = False
    store_socket: str | None = None

    def endpoint(self, reactor: Any) -> Any:
        """The supervisor's listening socket."""
        family = socket.AF_INET6 if self.ipv6 else socket.AF_INET
        return endpoints.AdoptedStreamServerEndpoint(reactor, _LISTEN_FD, family)

    def report_ready(self) -> None:
        """Tells the supervisor that this worker serves requests from now on."""
        os.write(_READY_FD, b"ready")
        os.close(_READY_FD)


def my_slot() -> WorkerSlot | None:
    """This process's slot, or None if it is not a worker. It is removed from the environment that children inherit."""
    slot = os.environ.pop(_VARIABLE, None)
    return WorkerSlot(**json.loads(slot)) if slot else None


class _Worker(protocol.ProcessProtocol):  # type: ignore[misc]  # untyped
    """A worker process."""

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self.number = number
        self.told_to_stop = False
        self.ready: defer.Deferred[bool] = defer.Deferred()
        self.ended: defer.Deferred[None] = defer.Deferred()
        self._supervisor = supervisor
        self._incomplete_line = b""

    def childDataReceived(self, fd: int, data: bytes) -> None:
        if fd == _READY_FD:
            self._report_start(True)
            return
        *lines, rest = (self._incomplete_line + data).split(b"\n")
        if len(rest) > _LINE_MAX:
            lines, rest = [*lines, rest], b""
        self._incomplete_line = rest
        for line in lines:
            text = _TIMESTAMP.sub("", line.decode(errors="replace"))
            log.info("worker {number}: {text}", number=self.number, text=text)

    def processEnded(self, reason: Failure) -> None:
        self._report_start(False)
        self.ended.callback(None)
        self._supervisor.ended(self, reason)

    def _report_start(self, is_ready: bool) -> None:
        if not self.ready.called:
            self.ready.callback(is_ready)

    def stop(self, name: str = "TERM") -> None:
        self.told_to_stop = True
        if self.transport is not None and self.transport.pid:
            self.transport.signalProcess(name)


class Supervisor(service.Service):  # type: ignore[misc]  # untyped
    """Starts the workers, restarts those that die, replaces all at SIGHUP, and stops them.

    Args:
        count: number of workers.
        address: address and port to listen on.
        command: name of the twistd command that the workers run, and its arguments.
        store_socket: path of the socket of the private store, which the supervisor runs; None without one.
        stop_seconds: seconds after which a worker that does not stop is killed.
    """

    def __init__(
        self,
        *,
        count: int,
        address: tuple[str, int],
        command: list[str],
        store_socket: str | None,
        stop_seconds: float,
        reactor: Any,
    ) -> None:
        self._count = count
        self._address = address
        self._command = command
        self._store_socket = store_socket
        self._stop_seconds = stop_seconds
        self._reactor = reactor
        self._group = secrets.token_hex(8)
        self._serials = itertools.count(1)
        self._sockets: list[socket.socket] = []
        self._workers: list[_Worker | None] = [None] * count
        self._stopping: set[_Worker] = set()
        self._delays = [RESTART_SECONDS] * count
        self._started_at = [0.0] * count
        self._reloading = False

    def privilegedStartService(self) -> None:
        """Binds the sockets. Raises ConfigurationError if that fails."""
        try:
            # The first bind does not share the address, so that it fails if another server has it.
            with _bound(self._address, is_shared=False) as alone:
                host, port = alone.getsockname()[:2]
            for _ in range(self._count):
                listening = _bound((host, port), is_shared=True)
                listening.listen(_BACKLOG)
                self._sockets.append(listening)
        except OSError as problem:
            raise ConfigurationError(cannot_listen_on(self._address, problem)) from None
        super().privilegedStartService()

    def startService(self) -> None:
        super().startService()
        for index in range(self._count):
            self._workers[index] = self._spawn(index)
        all_ready = defer.gatherResults([worker.ready for worker in self._workers if worker])
        all_ready.addCallback(lambda _: self._log_address())

    def _log_address(self) -> None:
        listening = address.IPv4Address("TCP", *self._sockets[0].getsockname()[:2])
        url = url_of(listening, "http", "/")
        log.info("{count} workers are ready; the server listens on {url}.", count=self._count, url=url)

    def _spawn(self, index: int) -> _Worker:
        worker = _Worker(self, index + 1)
        slot = WorkerSlot(self._group, index + 1, next(self._serials), ":" in self._address[0], self._store_socket)
        reactor_chosen = [argument for argument in sys.argv[1:] if argument.startswith("--reactor=")]
        twistd = [sys.executable, "-c", _RUN_TWISTD, "-n", "--pidfile=", *reactor_chosen, *self._command]
        self._started_at[index] = self._reactor.seconds()
        self._reactor.spawnProcess(
            worker,
            sys.executable,
            [sys.executable, "-I", str(child.__file__), str(os.getpid()), *twistd],
            env={**os.environ, _VARIABLE: json.dumps(asdict(slot))},
            childFDs={0: "w", 1: "r", 2: "r", _LISTEN_FD: self._sockets[index].fileno(), _READY_FD: "r"},
        )
        return worker

    def ended(self, worker: _Worker, reason: Failure) -> None:
        """Starts a worker that has ended again, unless it was told to stop."""
        self._stopping.discard(worker)
        index = worker.number - 1
        if self._workers[index] is not worker or worker.told_to_stop or not self.running:
            return
        soon = self._reactor.seconds() - self._started_at[index] < _SOON_SECONDS
        self._delays[index] = min(2 * self._delays[index], RESTART_SECONDS_MAX) if soon else RESTART_SECONDS
        log.error(
            "worker {number} ended ({why}); it is started again in {delay} s.",
            number=worker.number,
            why=reason.getErrorMessage(),
            delay=self._delays[index],
        )
        self._reactor.callLater(self._delays[index], self._start_again, index, worker)

    def _start_again(self, index: int, ended: _Worker) -> None:
        if self.running and self._workers[index] is ended:
            self._workers[index] = self._spawn(index)

    def reload(self) -> None:
        """Replaces the workers one by one: a new worker takes over when it is ready; the old one drains and stops."""
        if self._reloading or not self.running:
            return
        self._reloading = True
        defer.ensureDeferred(self._replace_all()).addErrback(lambda failure: log.failure("reloading failed", failure))

    async def _replace_all(self) -> None:
        try:
            for index in range(self._count):
                new = self._spawn(index)
                overdue = self._reactor.callLater(READY_SECONDS, new.stop, "KILL")
                ready = await new.ready
                if overdue.active():
                    overdue.cancel()
                if not ready:
                    log.error("a new worker does not start; the old ones stay. The lines above have the reason.")
                    return
                # Looked up only now: the worker in this place may have died and been restarted meanwhile.
                replaced, self._workers[index] = self._workers[index], new
                if replaced is not None and not replaced.ended.called:
                    self._end(replaced)
            log.info("all workers are replaced.")
        finally:
            self._reloading = False

    def _end(self, worker: _Worker) -> defer.Deferred[None]:
        self._stopping.add(worker)
        if not worker.told_to_stop:
            worker.stop()
        kill = self._reactor.callLater(self._stop_seconds, worker.stop, "KILL")
        return worker.ended.addCallback(lambda _: kill.cancel() if kill.active() else None)

    def stopService(self) -> defer.Deferred[Any]:
        super().stopService()
        workers = {worker for worker in self._workers if worker is not None and not worker.ended.called}
        all_ended = defer.DeferredList([self._end(worker) for worker in workers | self._stopping])
        return all_ended.addCallback(self._close)

    def _close(self, _result: Any) -> None:
        for listening in self._sockets:
            listening.close()


def _bound(address: tuple[str, int], is_shared: bool) -> socket.socket:
    """A new socket that is bound to the address, which others of this process may share."""
    bound = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)
    bound.bind(address)
    return bound


def on_hangup(reactor: Any, call: Any) -> None:
    """Calls a function in the reactor at SIGHUP."""
    reactor.callWhenRunning(signal.signal, signal.SIGHUP, lambda *_: reactor.callFromThread(call))
