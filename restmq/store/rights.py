"""The commands and channels that RestMQ uses, and the rights that a Redis user (ACL) needs for them."""

from __future__ import annotations

from collections.abc import Sequence

from restmq.store import keys, scripts

_KEY = keys.QUEUE_SET.decode()

#: The commands, each with arguments of the right number: Redis checks rights by the whole command. Commands that change
#: nothing and that RestMQ can do without (INFO, ROLE, COMMAND, EVAL) are not here.
REDIS_COMMANDS: tuple[tuple[str, ...], ...] = (
    *(
        (name, _KEY)
        for name in ("GET", "MGET", "DEL", "UNLINK", "EXISTS", "TYPE", "STRLEN", "INCR", "DECR", "PEXPIRETIME")
    ),
    *((name, _KEY) for name in ("LLEN", "LPOP", "RPOP", "HGETALL", "HKEYS", "HLEN", "SCARD")),
    *((name, _KEY) for name in ("ZCARD", "ZPOPMIN")),
    *((name, _KEY, "1") for name in ("SET", "MSET", "INCRBY", "EXPIRE", "PEXPIRE", "PEXPIREAT", "SADD", "SSCAN")),
    *(
        (name, _KEY, "1")
        for name in ("LINDEX", "LPOS", "LPUSH", "RPUSH", "HGET", "HMGET", "HDEL", "HEXISTS", "HSTRLEN")
    ),
    *((name, _KEY, "1") for name in ("ZMSCORE", "ZREM", "ZSCORE")),
    *((name, _KEY, "1", "1") for name in ("GETRANGE", "LRANGE", "LREM", "LTRIM", "HSET", "HSETNX", "HINCRBY")),
    *((name, _KEY, "1", "1") for name in ("ZADD", "ZCOUNT", "ZINCRBY", "ZRANGE", "ZRANGEBYSCORE")),
    *((name, _KEY, "1", "1") for name in ("ZREVRANGEBYSCORE", "ZREMRANGEBYSCORE")),
    *((name, _KEY, _KEY) for name in ("RENAME", "RPOPLPUSH")),
    ("TIME",),
    ("PING",),
    ("SCAN", "0"),
    ("WAIT", "1", "1"),
    ("PUBSUB", "NUMSUB", "x"),
    ("GET", keys.DUE.decode()),
    ("SET", keys.DUE.decode(), "1"),
)
#: One channel of each kind.
_CHANNELS = (
    "restmq:PUBSUB",
    keys.one_redis().due_channel().decode(),
    keys.one_redis().daemon_channel("x", "x").decode(),
    keys.one_redis().peers_channel().decode(),
    keys.one_redis().peer_channel("x").decode(),
)
CHANNEL_COMMANDS = tuple(
    command
    for channel in _CHANNELS
    for command in (("PUBLISH", channel, ""), ("SUBSCRIBE", channel), ("UNSUBSCRIBE", channel))
)
#: Commands that only the connection itself needs, and commands that RestMQ can do without.
_BESIDE = ("evalsha", "script|load", "select", "role", "info", "command|info")

CHECK = scripts.load("check")


def check_arguments() -> list[str]:
    """The arguments of ``check.lua``: each command with the number of its words before it."""
    return [word for command in (*REDIS_COMMANDS, *CHANNEL_COMMANDS) for word in (str(len(command)), *command)]


def describe_missing(answer: Sequence[Sequence[bytes]]) -> str:
    """Describes the rights and commands that ``check.lua`` found missing; empty if none are."""
    denied, unknown = ([words.decode() for words in group] for group in answer)
    found = []
    if denied:
        found.append(f"the user has no right for {_join(denied)}")
    if unknown:
        names = dict.fromkeys(command.partition(" ")[0] for command in unknown)
        found.append(f"the server has no command {', '.join(names)} (it was renamed or disabled)")
    return ", and ".join(found)


def _join(commands: list[str]) -> str:
    """The commands without the sample keys, but with the sample channels, which show the missing right."""
    names = []
    for command in commands:
        name, *words = command.split(" ")
        shown = f"{name} on channels such as {words[0]}" if name in ("PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE") else name
        names.append(shown if words != [keys.DUE.decode()] else f"{name} {words[0]}")
    return ", ".join(dict.fromkeys(names))


def acl_line(user: str) -> str:
    """The Redis command that creates a user with all the rights that RestMQ needs, and no others."""
    names = {"|".join(command[:2]) if command[0] == "PUBSUB" else command[0] for command in REDIS_COMMANDS}
    names |= {command[0] for command in CHANNEL_COMMANDS}
    rights = sorted({name.lower() for name in names} | set(_BESIDE))
    return f"ACL SETUSER {user} on >PASSWORD ~* &* -@all {' '.join('+' + right for right in rights)}"
