"""The names of all Redis keys and channels, in one of two layouts.

``Layout`` is that of one Redis. It is the layout of the first RestMQ, so that old data still works and ``redis-cli``
can read it. Per queue Q: ``Q:UUID``, ``Q:queue``, ``Q:queuepolicy``, ``queuestat::Q``, the channel ``Q:PUBSUB``; per
message n of it ``Q:<n>`` and ``Q:<n>:refcount``. No suffix of a queue is also a suffix of a message, so ``a`` and
``a:1`` never share a key.

``Partitioned`` is that of a Redis Cluster, where a script may only use keys of one slot. There are 1,024 partitions.
A queue is in partition p, the CRC16 of its name modulo 1,024, and all of its names begin with ``{p}``, which Redis
calls a hash tag: the slot of a key is that of its tag. Names that are global in one Redis, such as the set of all
queues, exist once per partition. So a script finds everything that it needs in one slot. It knows the queue as
``{p}Q``, its *stored name*. The tag is added and removed in ``restmq.queues``, and clients never see it. The number of
partitions can never change. The queue's name itself as the tag would fail for names that begin with a brace, and would
need a set of queues for each of the 16,384 slots.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from restmq.model import queue_of

QUEUE_SET = b"QUEUESET"
#: Queues by the time at which a daemon must promote messages, because a lease or a delay ends.
DUE = b"QUEUEDUE"
#: Queues by the queue to which their dead letters go (``lua/_sources.lua``).
DEAD_LETTERS = b"QUEUEDEADLETTERS"
PARTITIONS = 1024
#: The key that the no-op for ``WAIT`` writes in a cluster.
WRITTEN = b"RESTMQ-REPLICATED"
#: The key that says which layout a cluster has, and its value.
LAYOUT, LAYOUT_VERSION = b"{0}RESTMQ-LAYOUT", b"1 %d" % PARTITIONS


def crc16(name: bytes) -> int:
    """The CRC16 that Redis Cluster uses for slots (XMODEM)."""
    return crc_hqx(name, 0)


class QueueKeys(NamedTuple):
    """The keys of one queue. Each script names those that it needs (see ``restmq.store.scripts``)."""

    queue_set: bytes
    number: bytes
    last_number: bytes
    ready: bytes
    status: bytes
    policy: bytes
    channel: bytes
    flow: bytes
    held: bytes
    beside: bytes
    tapped: bytes
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
    marked: bytes
    idle: bytes
    sqs: bytes
    ordered: bytes
    grouped: bytes
    groups: bytes
    locked: bytes
    sent_ids: bytes
    sent_times: bytes
    moves: bytes
    due: bytes
    due_channel: bytes
    dead_letters: bytes

    def being_dropped(self) -> tuple[bytes, ...]:
        """The names to which a purge renames the list and the sorted sets of messages, before it drops their values."""
        return tuple(name + b":purging" for name in (self.ready, self.leased, self.delayed, self.dead, self.ordered))

    def of_taps(self) -> QueueKeys:
        """The same, but with the channel and the flow control of the queue's taps, as ``lua/_tap.lua`` names them."""
        name = self.tapped.removesuffix(b"ped")
        return self._replace(
            channel=self.channel + b":TAP", flow=name + b"flow", held=name + b"held", beside=name + b"beside"
        )


#: What the names of keys add to their queue's name: that of the field, unless the first RestMQ had another one.
_OWN_WORDS = {"number": "UUID", "ready": "queue", "policy": "queuepolicy"}
_SUFFIXES = {
    field: b":" + _OWN_WORDS.get(field, field.replace("_", "")).encode()
    for field in QueueKeys._fields
    if field not in ("queue_set", "status", "channel", "due", "due_channel", "dead_letters")
}


class Layout:
    """The layout of one Redis.

    Args:
        db: number of the database. It is in the names of channels, because pub/sub has no databases.

    Attributes:
        db: as given.
        is_partitioned: whether names have tags.
        tags: the tag of each partition. One Redis is one partition, without a tag.
        for_queue: returns the keys of a queue; as ``make_keys``, with a cache for queues in use.
    """

    is_partitioned = False
    tags: tuple[bytes, ...] = (b"",)
    _status = b"\1queuestat::\0"

    def __init__(self, db: int = 0) -> None:
        self.db = db
        own = {field: b"\1\0" + suffix for field, suffix in _SUFFIXES.items()}
        own["channel"] = b"\1\0:PUBSUB" + (b":%d" % db if db else b"")
        own |= {"queue_set": b"\1" + QUEUE_SET, "status": self._status}
        own |= {"due": b"\1" + DUE, "due_channel": self.due_channel(b"\1"), "dead_letters": b"\1" + DEAD_LETTERS}
        #: The keys of a queue, one a line, with NUL in place of its name, which has no line ends, and SOH for its tag.
        self._names = b"\n".join(own[field] for field in QueueKeys._fields)
        self.for_queue: Callable[[str], QueueKeys] = lru_cache(maxsize=4096)(self.make_keys)

    def tag(self, name: str) -> bytes:
        """The beginning of all stored names of a queue."""
        return b""

    def partition_of(self, stored: bytes) -> int:
        """The partition of a key or channel."""
        return 0

    def declare(self, tag: bytes, keys: Sequence[bytes]) -> list[bytes]:
        """The keys that a script declares in the partition with this tag. It is given ``keys``, and makes others."""
        return list(keys)

    def stored(self, queue: str) -> bytes:
        """The name by which scripts know a queue."""
        return self.tag(queue) + queue.encode()

    def stored_key(self, key: str) -> bytes:
        """The key of a message, from the key that clients know. Raises InvalidInput."""
        return self.tag(queue_of(key)) + key.encode()

    def shown(self, stored: bytes) -> str:
        """The name that clients know: of a queue, a message or a token."""
        return stored.decode(errors="replace")

    def make_keys(self, queue: str) -> QueueKeys:
        """The keys of a queue."""
        names = self._names.replace(b"\0", queue.encode()).replace(b"\1", self.tag(queue))
        return QueueKeys(*names.split(b"\n"))

    def make_key(self, queue: str, field: str) -> bytes:
        """One of the keys that ``make_keys`` makes, by its field: any that begins with the queue's name."""
        return self.stored(queue) + _SUFFIXES[field]

    def due_channel(self, tag: bytes = b"") -> bytes:
        """The channel that tells all daemons of a deadline earlier than all others in ``DUE`` of this partition."""
        return tag + b"RESTMQ-DUE:%d" % self.db

    def idempotency(self, queue: str, key_digest: str) -> bytes:
        """The key that remembers an idempotency key, which is given as its SHA-256."""
        return self.stored(queue) + b":idempotency:" + key_digest.encode()

    def daemon_channel(self, daemon: str, queue: str) -> bytes:
        """The channel that tells one daemon that a queue has messages for it."""
        return self.tag(queue) + b"RESTMQ-DAEMON:" + daemon.encode()

    def token(self, secret: str) -> bytes:
        """The key of an access token's record."""
        return self.stored("AUTHKEY:" + secret)

    def token_of(self, stored: bytes) -> str:
        """The token of a key of ``token``."""
        return self.shown(stored).removeprefix("AUTHKEY:")

    @property
    def signing_tokens(self) -> bytes:
        """The set of the tokens that sign requests."""
        return self.stored("RESTMQ-SIGNING")

    @property
    def token_pattern(self) -> bytes:
        """The pattern with which SCAN finds the keys of all tokens."""
        return b"AUTHKEY:*"

    @property
    def samples(self) -> bytes:
        """The key of the samples of the dashboard's charts."""
        return self.stored("RESTMQ-SAMPLES")

    def peers_channel(self, group: str = "") -> bytes:
        """The channel on which all daemons ask each other; with a group, the workers of one server."""
        return self.stored(f"RESTMQ-PEERS:{self.db}" + (f":{group}" if group else ""))

    def peer_channel(self, peer: str) -> bytes:
        """The channel on which one daemon gets questions of other daemons, and their answers."""
        return self.stored("RESTMQ-PEER:" + peer)

    def worker_counters(self, group: str) -> bytes:
        """The hash with one record for each worker of a server."""
        return self.stored("RESTMQ-WORKERS:" + group)


class Partitioned(Layout):
    """The layout of a Redis Cluster, which has no databases."""

    is_partitioned = True
    tags = tuple(b"{%d}" % partition for partition in range(PARTITIONS))
    _status = b"\1\0:status"

    def tag(self, name: str) -> bytes:
        return self.tags[crc16(name.encode()) % PARTITIONS]

    def partition_of(self, stored: bytes) -> int:
        return int(stored[1 : stored.index(b"}")])

    def declare(self, tag: bytes, keys: Sequence[bytes]) -> list[bytes]:
        """The keys behind the bare tag, a key that never exists, as a guard.

        While Redis moves a slot to another node key by key, the node that it leaves runs a script if all declared keys
        are there. The script would then fail in its middle at an undeclared key that has moved. Because of the guard,
        that node does not begin the script. Neither does the other one, because it is not asked (``ASKING``).
        """
        return [tag, *keys]

    def shown(self, stored: bytes) -> str:
        return stored.partition(b"}")[2].decode(errors="replace")

    @property
    def token_pattern(self) -> bytes:
        return b"{*}AUTHKEY:*"


@cache
def one_redis(db: int = 0) -> Layout:
    """The layout of one Redis."""
    return Layout(db)


@cache
def cluster() -> Layout:
    """The layout of a Redis Cluster."""
    return Partitioned()
