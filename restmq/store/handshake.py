"""The questions that each new connection asks before it is used: which server answers, and whether RestMQ can use it.

If Redis does not permit a question, the answer is unknown, and an unknown answer is no reason to reject a server. All
questions are sent at once, so the handshake takes one round trip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet import defer

from restmq.errors import StoreUnavailable
from restmq.store import keys, rights
from restmq.store.connection import Connection, Encoded, ErrorReply
from restmq.store.settings import StoreSettings

#: The newest command that the scripts use. Redis has it from 7.0 on, and so has every Valkey.
_NEWEST = b"PEXPIRETIME"
_QUESTIONS: dict[str, tuple[Any, ...]] = {
    "role": (b"ROLE",),
    "info": (b"INFO", b"server", b"cluster", b"memory", b"persistence"),
    "newest": (b"COMMAND", b"INFO", _NEWEST),
    # In a cluster these two keys are in different slots.
    "exists": (b"EXISTS", keys.QUEUE_SET, keys.DUE),
}
_OF_A_CLUSTER = ("CROSSSLOT", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")
_PREFIX = "the message store (Redis)"


@dataclass(slots=True, frozen=True)
class RedisServer:
    """The Redis process at the other end of a connection.

    Attributes:
        run_id: differs between any two processes; empty if it is unknown.
        facts: the fields of ``INFO``; empty if it is not permitted.
    """

    run_id: bytes
    facts: Mapping[str, str]


class Unusable(Exception):
    """The server answers, but RestMQ cannot use it. The text is the reason, for the operator.

    Attributes:
        complaint: the text for clients, which must not reveal more than they need; empty for the text of an unreachable
            Redis.
    """

    def __init__(self, reason: str, complaint: str = "") -> None:
        super().__init__(reason)
        self.complaint = complaint and f"{_PREFIX} {complaint}"


IS_REPLICA = Unusable("it is a replica, which takes no writes", "is a replica and takes no writes; try again later.")
_IS_SENTINEL = Unusable("it is a Sentinel, not a Redis; pass its address to --redis-sentinel")
_IS_CLUSTER = Unusable(
    "it is a node of a Redis Cluster; pass its address to --redis-cluster",
    "is a cluster, and this server is not configured for one.",
)
_IS_NO_CLUSTER = Unusable(
    "it is not a node of a Redis Cluster; pass its address to --redis-host and --redis-port",
    "is no cluster, and this server is configured for one.",
)
_IS_TOO_OLD = Unusable(
    "it is too old; update it to Redis 7.0 or newer, or to Valkey",
    "is too old; RestMQ needs Redis 7.0 or newer, or Valkey.",
)
_IS_LOADING = Unusable("it is reading its data from disk", "is reading its data from disk; try again in a moment.")
_IS_STALE = Unusable("it is a replica without its primary", "is a replica and takes no writes; try again later.")
_WANTS_PASSWORD = Unusable("it requires a password; pass --redis-password or set RESTMQ_REDIS_PASSWORD")


async def examine(connection: Connection, settings: StoreSettings) -> RedisServer:
    """Authenticates to the server, and checks its kind, its version and the user's rights.

    Raises:
        Unusable: the server cannot serve RestMQ.
        StoreUnavailable: the connection was lost before all answers were there.
    """
    questions = dict(_QUESTIONS)
    if settings.db:
        questions = {"select": (b"SELECT", settings.db), **questions}
    if settings.password is not None:
        user = [settings.username] if settings.username is not None else []
        questions = {"auth": (b"AUTH", *user, settings.password), **questions}
    asked = [connection.ask(*question) for question in questions.values()]
    asked.append(_check(connection, settings))
    results = await defer.DeferredList(asked, consumeErrors=True)
    answers = {name: answer for name, (done, answer) in zip((*questions, "check"), results, strict=True) if done}
    _raise_if_unusable(answers, settings)
    if len(answers) < len(results):
        raise StoreUnavailable("the connection was lost")
    facts = info_fields(answers["info"])
    return RedisServer(facts.get("run_id", "").encode(), facts)


async def missing_rights(connection: Connection, settings: StoreSettings) -> str:
    """The rights that the user has lost since the connection was made; empty if none."""
    return _missing(await _check(connection, settings))


def _check(connection: Connection, settings: StoreSettings) -> defer.Deferred[Any]:
    arguments = rights.check_arguments(settings.is_cluster_node)
    return connection.ask_script(rights.CHECK, Encoded([0]), *arguments)


def _raise_if_unusable(answers: Mapping[str, Any], settings: StoreSettings) -> None:
    """Raises the Unusable that explains most. A connection that was lost may have answered the first questions only."""
    errors = {name: answer for name, answer in answers.items() if isinstance(answer, ErrorReply)}
    first = next(iter(answers.values()), None)
    if isinstance(first, ErrorReply) and "max number of clients" in str(first):
        raise Unusable("it has no place for one more connection (maxclients)")
    if isinstance(first, ErrorReply) and first.code == "DENIED":
        raise Unusable(f"it answers {str(first).split('.')[0]!r}")
    if "auth" in errors:
        raise Unusable(f"it does not accept the user and password: {errors['auth']}")
    codes = {name: error.code for name, error in errors.items()}
    if "NOAUTH" in codes.values():
        raise _WANTS_PASSWORD
    role = answers.get("role")
    role = role[0] if isinstance(role, list) and role else None
    if role == b"sentinel":
        raise _IS_SENTINEL
    if role not in (None, b"master"):
        raise IS_REPLICA
    facts = info_fields(answers.get("info"))
    is_cluster = facts.get("cluster_enabled") == "1" or codes.get("exists") in _OF_A_CLUSTER
    if is_cluster and not settings.is_cluster_node:
        raise _IS_CLUSTER
    if settings.is_cluster_node and facts.get("cluster_enabled") == "0":
        raise _IS_NO_CLUSTER
    if "select" in errors:
        raise Unusable(f"database {settings.db} (--redis-db) cannot be selected: {errors['select']}")
    if codes.get("exists") == "LOADING" or facts.get("loading") == "1":
        raise _IS_LOADING
    if codes.get("exists") == "MASTERDOWN":
        raise _IS_STALE
    if answers.get("newest") in ([None], [[]]):
        raise _IS_TOO_OLD
    if "check" in answers and (missing := _missing(answers["check"])):
        raise lacks_rights(missing)


def lacks_rights(missing: str) -> Unusable:
    return Unusable(missing, f"does not permit all that RestMQ needs: {missing}.")


def _missing(check: Any) -> str:
    if not isinstance(check, ErrorReply):
        return rights.describe_missing(check)
    if check.code == "NOPERM" or "unknown command" in str(check).lower():
        return f"it runs no scripts: {check}"
    return ""


def info_fields(info: Any) -> dict[str, str]:
    """The fields in an answer such as that to ``INFO``; none if the question was not permitted."""
    if not isinstance(info, bytes):
        return {}
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
