"""The commands and channels that RestMQ uses, and the rights that a Redis user (ACL) needs for them."""

from __future__ import annotations

from collections.abc import Sequence

from restmq.store import keys, scripts

_KEY = keys.QUEUE_SET.decode()

#: Commands by the number of their arguments: Redis checks rights by the whole command. The first argument is a key.
#: Commands that change nothing and that RestMQ can do without (INFO, ROLE, COMMAND, EVAL) are not here.
_BY_ARGUMENTS = {
    1: "GET MGET DEL UNLINK EXISTS TYPE STRLEN INCR PEXPIRETIME LLEN LPOP RPOP HGETALL HKEYS HLEN SCARD ZCARD ZPOPMIN",
    2: "SET MSET INCRBY DECRBY EXPIRE PEXPIRE PEXPIREAT SADD SREM SSCAN LINDEX LPOS LPUSH RPUSH HGET HMGET HDEL "
    "HEXISTS HSTRLEN ZMSCORE ZREM ZSCORE",
    3: "GETRANGE LRANGE LREM LTRIM HSET HSETNX HINCRBY ZADD ZCOUNT ZINCRBY ZRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE "
    "ZREMRANGEBYSCORE",
}
REDIS_COMMANDS: tuple[tuple[str, ...], ...] = (
    *((name, _KEY, *["1"] * (count - 1)) for count, names in _BY_ARGUMENTS.items() for name in names.split()),
    ("RENAME", _KEY, _KEY),
    ("RPOPLPUSH", _KEY, _KEY),
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
    "restmq:PUBSUB:TAP",
    keys.one_redis().due_channel().decode(),
    keys.one_redis().daemon_channel("x", "x").decode(),
    keys.one_redis().peers_channel().decode(),
    keys.one_redis().peer_channel("x").decode(),
)


def _channel_commands(publish: str, subscribe: str, unsubscribe: str) -> tuple[tuple[str, ...], ...]:
    return tuple(
        command
        for channel in _CHANNELS
        for command in ((publish, channel, ""), (subscribe, channel), (unsubscribe, channel))
    )


CHANNEL_COMMANDS = _channel_commands("PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE")
#: The same in a cluster, and what else a cluster needs.
CLUSTER_COMMANDS = (
    *_channel_commands("SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE"),
    ("PUBSUB", "SHARDNUMSUB", "x"),
    ("CLUSTER", "SLOTS"),
    ("ASKING",),
)
#: Commands that only the connection itself needs, and commands that RestMQ can do without.
_BESIDE = ("evalsha", "script|load", "select", "role", "info", "command|info")

CHECK = scripts.load("check")


def check_arguments(is_cluster: bool) -> list[str]:
    """The arguments of ``check.lua``: each command with the number of its words before it."""
    commands = (*REDIS_COMMANDS, *(CLUSTER_COMMANDS if is_cluster else CHANNEL_COMMANDS))
    return [word for command in commands for word in (str(len(command)), *command)]


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


_NAMES_OF_CHANNELS = {command[0] for command in (*CHANNEL_COMMANDS, *CLUSTER_COMMANDS[: len(CHANNEL_COMMANDS)])}


def _join(commands: list[str]) -> str:
    """The commands without the sample keys, but with the sample channels, which show the missing right."""
    names = []
    for command in commands:
        name, *words = command.split(" ")
        shown = f"{name} on channels such as {words[0]}" if name in _NAMES_OF_CHANNELS else name
        names.append(shown if words != [keys.DUE.decode()] else f"{name} {words[0]}")
    return ", ".join(dict.fromkeys(names))


def acl_line(user: str, is_cluster: bool) -> str:
    """The Redis command that creates a user with all the rights that RestMQ needs, and no others."""
    used = (*REDIS_COMMANDS, *CHANNEL_COMMANDS, *(CLUSTER_COMMANDS if is_cluster else ()))
    names = {"|".join(command[:2]) if command[0] in ("PUBSUB", "CLUSTER") else command[0] for command in used}
    beside = (*_BESIDE, "cluster|nodes", "config|get") if is_cluster else _BESIDE
    rights = sorted({name.lower() for name in names} | set(beside))
    return f"ACL SETUSER {user} on >PASSWORD ~* &* -@all {' '.join('+' + right for right in rights)}"
