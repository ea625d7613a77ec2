"""All RestMQ servers on one Redis, and the servers of Redis itself, for operators.

Each process answers for itself (``peers``). A process that hangs, or that Redis cuts off, is only counted.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from itertools import groupby
from typing import Annotated, Any

import msgspec
from twisted.internet import defer

from restmq import __version__
from restmq.monitoring.listeners import ListenerStatistics
from restmq.monitoring.peers import Peers
from restmq.monitoring.worker_counters import Membership
from restmq.store.base import BaseStore
from restmq.store.batching import SharedCall
from restmq.store.inspection import inspect

_TEXT_MAX = 255
_ADDRESSES_MAX = 20
_Text = Annotated[str, msgspec.Meta(max_length=_TEXT_MAX)]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class ProcessReport(msgspec.Struct, kw_only=True):
    """A process of a RestMQ server, as it tells the others about itself.

    Attributes:
        server: identifies the server: all of its workers have the same.
        worker: the worker's number, from 1 on.
        listens_on: its addresses as URLs.
        uptime_seconds: time since it was started.
        connections: number of its clients' connections.
        consumers, waiters, taps: numbers of live consumers, of clients in a long poll, and of taps among them.
    """

    server: _Text
    host: _Text
    version: _Text
    listens_on: Annotated[list[_Text], msgspec.Meta(max_length=_ADDRESSES_MAX)]
    worker: _Count
    pid: _Count
    uptime_seconds: _Count
    connections: _Count
    consumers: _Count
    waiters: _Count
    taps: _Count


class Servers:
    """Reports on all servers.

    Args:
        clients: returns the numbers of this process's client connections, and of taps among them.
        addresses: returns the URLs of this process's ports.
    """

    def __init__(
        self,
        *,
        store: BaseStore,
        peers: Peers,
        membership: Membership,
        listeners: ListenerStatistics,
        clients: Callable[[], dict[str, int]],
        addresses: Callable[[], list[str]],
    ) -> None:
        self._store = store
        self._peers = peers
        self._membership = membership
        self._listeners = listeners
        self._clients = clients
        self._addresses = addresses
        self._started_at = store.clock.seconds()
        #: Returns the report. Simultaneous calls share one.
        self.report = SharedCall(self._report)
        peers.answer("server", None, lambda _: defer.ensureDeferred(self._report_on_this_process()))

    async def _report_on_this_process(self) -> ProcessReport:
        counts = (await self._listeners.here()).values()
        return ProcessReport(
            server=self._membership.group or self._peers.id,
            host=socket.gethostname()[:_TEXT_MAX],
            version=__version__,
            listens_on=[address[:_TEXT_MAX] for address in self._addresses()[:_ADDRESSES_MAX]],
            worker=self._membership.worker,
            pid=os.getpid(),
            uptime_seconds=round(self._store.clock.seconds() - self._started_at),
            **self._clients(),
            consumers=sum(sum(each[:-1]) for each in counts),
            waiters=sum(each[-1] for each in counts),
        )

    async def _report(self) -> dict[str, Any]:
        inspecting = defer.ensureDeferred(inspect(self._store))
        others, missing = await self._peers.ask_and_count("server", None, self._peers.everybody, ProcessReport)
        processes = [await self._report_on_this_process(), *others]
        processes.sort(key=lambda each: (each.host, each.listens_on, each.server, each.worker, each.pid))
        return {
            "servers": [_server(list(of_one)) for _, of_one in groupby(processes, lambda each: each.server)],
            "missing": missing,
            "redis": await inspecting,
        }


_OF_A_WORKER = ("worker", "pid", "uptime_seconds", "connections", "consumers", "waiters", "taps")


def _server(processes: list[ProcessReport]) -> dict[str, Any]:
    """A server, from the reports of its workers."""
    first = processes[0]
    workers = [{name: getattr(process, name) for name in _OF_A_WORKER} for process in processes]
    return {"host": first.host, "version": first.version, "listens_on": first.listens_on, "workers": workers}
