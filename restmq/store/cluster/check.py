"""The checks of a cluster before clients are served: the layout of its data, and a setting that is dangerous."""

from __future__ import annotations

from twisted.logger import Logger

from restmq.errors import RestMQError
from restmq.store import keys
from restmq.store.base import BaseStore
from restmq.store.cluster.node import ClusterNode

log = Logger()


async def layout_version(store: BaseStore) -> bytes | None:
    """The layout of the data, which an empty cluster gets now; None if it cannot be read."""
    try:
        version: bytes | None = await store.command(b"GET", keys.LAYOUT)
        if version is None:
            await store.command(b"SET", keys.LAYOUT, keys.LAYOUT_VERSION, b"NX")
            version = await store.command(b"GET", keys.LAYOUT)
    except RestMQError:
        return None
    return version


async def warn_of_full_coverage(node: ClusterNode) -> None:
    """Warns of the setting that lets the loss of one node stop all."""
    coverage = await node.ask(b"CONFIG", b"GET", b"cluster-require-full-coverage")
    if isinstance(coverage, list) and coverage[-1:] == [b"yes"]:
        log.warn(
            "the cluster stops for all queues when one node is away without a replica "
            "(cluster-require-full-coverage yes); set it to no, so that only that node's queues stop."
        )
