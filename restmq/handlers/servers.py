"""``/servers``: all RestMQ servers on this Redis, and the servers of Redis."""

from __future__ import annotations

from restmq.auth import guard
from restmq.handlers.base import Handler
from restmq.handlers.declare import answers_json, declare
from restmq.handlers.parameters import JSONP_CALLBACK
from restmq.schema.answers import BOOLEAN, STRING, WHOLE, array, described, obj

_WORKER = obj(
    worker=described(WHOLE, "Its number, from 1 on."),
    pid=WHOLE,
    uptime_seconds=WHOLE,
    connections=described(WHOLE, "Number of its clients' connections."),
    consumers=described(WHOLE, "Number of its live consumers."),
    waiters=described(WHOLE, "Number of its clients in a long poll."),
    taps=described(WHOLE, "Number of clients that watch queues without taking messages."),
)
_SERVER = obj(
    host=STRING,
    version=described(STRING, "The version of RestMQ."),
    listens_on=described(array(STRING), "The URLs of its ports."),
    workers=described(array(_WORKER), "Its processes; one, unless it was started with --workers."),
)
_NODE = obj(
    {
        "problem": described(STRING, "Why there is no answer, or not a whole one."),
        "version": described(STRING, "Program and version, such as Redis 7.4.2."),
        "uptime_seconds": WHOLE,
        "clients": WHOLE,
        "clients_max": WHOLE,
        "memory_bytes": WHOLE,
        "memory_max_bytes": described(WHOLE, "Limit of the memory; 0 for none."),
        "eviction_policy": described(STRING, "What happens at this limit; noeviction loses no messages."),
        "evicted_keys": described(WHOLE, "Number of keys that were dropped at this limit."),
        "append_only_file": described(BOOLEAN, "Whether each write is appended to a file."),
        "saved": described(WHOLE, "Time of the last snapshot (RDB) or of the start, in milliseconds since 1970."),
        "failed_writes": described(array(STRING), "What failed when it was last written to disk; usually nothing."),
        "slots": described(WHOLE, "Number of slots that a node of a cluster has."),
        "primary": described(STRING, "Address of a replica's primary."),
        "lag_seconds": described(WHOLE, "Seconds since a replica last reported to its primary."),
    },
    address=STRING,
    role={"type": "string", "enum": ["primary", "replica"]},
    state=described(STRING, "up, no answer, or what Redis says, such as fail or wait_bgsave."),
)
_REDIS = obj(
    {
        "name": described(STRING, "The name by which the Sentinels know the primary."),
        "problem": described(STRING, "Why Redis cannot be used, or not all of it."),
    },
    kind={"type": "string", "enum": ["redis", "sentinel", "cluster"]},
    nodes=described(array(_NODE), "The servers of Redis: each primary, and the replicas that it names."),
)
_MISSING = described(
    {"type": ["integer", "null"], "minimum": 0},
    "Number of RestMQ processes that did not answer; null while Redis does not answer, because then none can be asked.",
)


class ServersHandler(Handler):
    """``/servers``."""

    requires = {"GET": guard.WATCH}

    @declare(
        query=(JSONP_CALLBACK,),
        answers={
            200: answers_json("The servers.", obj(servers=array(_SERVER), missing=_MISSING, redis=_REDIS)),
        },
    )
    async def get(self) -> None:
        """Shows all RestMQ servers on this Redis with their workers, and the servers of Redis.

        What does not answer within ``--peer-timeout`` is said to be missing.
        """
        self.answer_json(await self.services.servers.report(), b"\r\n")
