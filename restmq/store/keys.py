"""The names of all Redis keys and channels.

The layout of the first RestMQ is kept, so that old data still works and ``redis-cli`` can read it. Per queue Q:
``Q:UUID``, ``Q:queue``, ``Q:queuepolicy``, ``queuestat::Q``, the channel ``Q:PUBSUB``; per message n of it ``Q:<n>``
and ``Q:<n>:refcount``. No suffix of a queue is also a suffix of a message, so ``a`` and ``a:1`` never share a key.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

QUEUE_SET = b"QUEUESET"
#: Queues by the time at which a daemon must promote messages, because a lease or a delay ends.
DUE = b"QUEUEDUE"


class QueueKeys(NamedTuple):
    """The keys of one queue. Each script names those that it needs (see ``restmq.store.scripts``)."""

    queue_set: bytes
    number: bytes
    ready: bytes
    status: bytes
    policy: bytes
    channel: bytes
    flow: bytes
    held: bytes
    beside: bytes
    turns: bytes
    waiters: bytes
    expiring: bytes
    totals: bytes
    settings: bytes
    history: bytes
    history_values: bytes
    leased: bytes
    receipts: bytes
    deliveries: bytes
    delayed: bytes
    dead: bytes
    times: bytes
    due: bytes
    due_channel: bytes

    def being_dropped(self) -> tuple[bytes, ...]:
        """The names to which a purge renames the list and the sorted sets of messages, before it drops their values."""
        return tuple(name + b":purging" for name in (self.ready, self.leased, self.delayed, self.dead))


@lru_cache(maxsize=4096)
def for_queue(queue: str, db: int = 0) -> QueueKeys:
    """The keys of a queue. The channel's name has the database number in it, as pub/sub has no databases."""
    name = queue.encode()
    return QueueKeys(
        queue_set=QUEUE_SET,
        number=name + b":UUID",
        ready=name + b":queue",
        status=b"queuestat::" + name,
        policy=name + b":queuepolicy",
        channel=name + (b":PUBSUB:%d" % db if db else b":PUBSUB"),
        flow=name + b":flow",
        held=name + b":held",
        beside=name + b":beside",
        turns=name + b":turns",
        waiters=name + b":waiters",
        expiring=name + b":expiring",
        totals=name + b":totals",
        settings=name + b":settings",
        history=name + b":history",
        history_values=name + b":historyvalues",
        leased=name + b":leased",
        receipts=name + b":receipts",
        deliveries=name + b":deliveries",
        delayed=name + b":delayed",
        dead=name + b":dead",
        times=name + b":times",
        due=DUE,
        due_channel=due_channel(db),
    )


def due_channel(db: int = 0) -> bytes:
    """The channel that tells all daemons of a deadline earlier than all others in ``DUE``."""
    return b"RESTMQ-DUE:%d" % db


def idempotency(queue: str, key_digest: str) -> bytes:
    """The key that remembers an idempotency key, which is given as its SHA-256."""
    return f"{queue}:idempotency:{key_digest}".encode()


def token(secret: str) -> bytes:
    """The key of an access token's record."""
    return b"AUTHKEY:" + secret.encode()


def daemon_channel(daemon: str) -> bytes:
    """The channel that tells one daemon that a queue has messages for it."""
    return b"RESTMQ-DAEMON:" + daemon.encode()


def peers_channel(db: int = 0, group: str = "") -> bytes:
    """The channel on which all daemons ask each other; with a group, the workers of one server."""
    return b"RESTMQ-PEERS:%d" % db + (b":" + group.encode() if group else b"")


def worker_counters(group: str) -> bytes:
    """The hash with one record for each worker of a server."""
    return b"RESTMQ-WORKERS:" + group.encode()


def peer_channel(peer: str) -> bytes:
    """The channel on which one daemon gets questions of other daemons, and their answers."""
    return b"RESTMQ-PEER:" + peer.encode()
