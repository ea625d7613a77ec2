#!/usr/bin/env python3
"""Manages queues and tokens from the shell, directly in Redis, without HTTP.

    restmq_engine.py -p --queue test --value hello     publish a message
    restmq_engine.py -k --queue test                   take it
    restmq_engine.py -c --queue test                   take all messages until interrupted

Exit status: 0 success, 1 failure (nothing found, rejected, Redis unreachable), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

try:
    from twisted.internet import defer, task
    from twisted.logger import globalLogBeginner
    from twisted.python.usage import UsageError

    from restmq import __version__
    from restmq.auth.passwords import hash_password
    from restmq.core import RedisOperations
    from restmq.delivery.lines import TakeRequest
    from restmq.delivery.longpoll import LongPolls
    from restmq.errors import InvalidInput, RestMQError, StoreUnavailable
    from restmq.model import WAIT_SECONDS_MAX, Message, Policy, check_queue_name
    from restmq.queues.overview import PEEK_MAX
    from restmq.queues.tokens import Authorization
    from restmq.server.clock import use_monotonic_clock
    from restmq.server.coercions import whole_number
    from restmq.server.daemon import find_store
    from restmq.server.redis_options import RedisOptions
    from restmq.store.cluster.store import make_store
    from restmq.store.rights import acl_line
    from restmq.store.settings import StoreSettings
    from restmq.transport import Presence
except ImportError as missing:
    print(f"restmq_engine: {missing}. Run it with the Python in which RestMQ is installed.", file=sys.stderr)
    raise SystemExit(1) from None

LAST_ITEMS = 10
TOKEN_BYTES, SECRET_BYTES = 24, 30
PRIVILEGES = ("read", "write", "create", "admin")
RECONNECT_CHECK_SECONDS = 0.2
NAME_CHARACTERS_MAX = 100
EXPIRES_SECONDS_MAX = 100 * 365 * 86_400


#: Performs the action that the command line asks for. Returns whether it succeeded.
Action = Callable[[RedisOperations, argparse.Namespace], Awaitable[bool]]


def say(value: str | bytes) -> None:
    """Prints a line; the bytes of a value stay unchanged."""
    sys.stdout.buffer.write((value if isinstance(value, bytes) else value.encode()) + b"\n")
    sys.stdout.buffer.flush()


def complain(text: object) -> None:
    print(f"restmq_engine: {text}", file=sys.stderr, flush=True)


def show(message: Message | None) -> bool:
    """Prints a message's value, or that there is no message. Returns True if there is one."""
    if message is None:
        print("empty queue", file=sys.stderr)
        return False
    say(message.value)
    return True


async def produce(core: RedisOperations, given: argparse.Namespace) -> bool:
    say(await core.queue_add(given.queue, given.value))
    return True


async def consume(core: RedisOperations, given: argparse.Namespace) -> bool:
    """Takes all messages until interrupted; continues when Redis was away."""
    polls = LongPolls(core, core.store.clock)
    polls.startService()
    here = Presence(lambda: given.interrupted.called)
    given.interrupted.addCallback(lambda _: here.leave())
    while not here.left:
        try:
            for message in await polls.take(given.queue, TakeRequest(), here, WAIT_SECONDS_MAX):
                show(message)
        except StoreUnavailable as problem:
            complain(problem)
            await reconnected(core, given)
    await polls.stopService()
    return True


async def reconnected(core: RedisOperations, given: argparse.Namespace) -> None:
    """Waits until Redis answers again or the user interrupts."""
    store = core.store
    while not store.connected and not given.interrupted.called:
        await task.deferLater(store.clock, RECONNECT_CHECK_SECONDS)


async def peek(core: RedisOperations, given: argparse.Namespace) -> bool:
    return show(await core.queue_get(given.queue, softget=True))


async def get_and_delete(core: RedisOperations, given: argparse.Namespace) -> bool:
    return show(await core.queue_getdel(given.queue))


async def take(core: RedisOperations, given: argparse.Namespace) -> bool:
    messages = await core.queue_tail(given.queue, 10)
    for message in messages:
        show(message)
    return bool(messages) or show(None)


async def stats(core: RedisOperations, given: argparse.Namespace) -> bool:
    queues = [given.queue] if given.queue else await core.queue_all()
    for line in await core.queue_overview(queues):
        say(f"{line.name}\t{line.length}\t{line.policy.label}\t{'started' if line.started else 'stopped'}")
    return True


async def get_policy(core: RedisOperations, given: argparse.Namespace) -> bool:
    say((await core.queue_policy_get(given.queue)).label)
    return True


async def set_roundrobin(core: RedisOperations, given: argparse.Namespace) -> bool:
    await core.queue_policy_set(given.queue, Policy.ROUNDROBIN)
    return True


async def count(core: RedisOperations, given: argparse.Namespace) -> bool:
    say(str(await core.queue_len(given.queue)))
    return True


async def last_items(core: RedisOperations, given: argparse.Namespace) -> bool:
    newest = await core.queue_peek(given.queue, "newest", count=PEEK_MAX)  # more, as expired ones are skipped
    found = [await core.queue_find(seen.key) for seen in newest.messages[:LAST_ITEMS]]
    messages = [each.message for each in found if each is not None]
    for message in messages:
        say(message.key.encode() + b"\t" + message.value)
    return bool(messages) or show(None)


async def authorize(core: RedisOperations, given: argparse.Namespace) -> bool:
    found = await core.authorization(token_of(given))
    if found is None or not found.covers(given.queue):
        print("not authorized", file=sys.stderr)
        return False
    say("authorized: " + ", ".join(sorted(found.privileges)))
    return True


def token_of(given: argparse.Namespace) -> str:
    try:
        return (given.value or b"").decode()
    except UnicodeDecodeError:
        raise InvalidInput("invalid token: it must be UTF-8.") from None


def name_of(token: str, record: Authorization | None) -> str:
    """The token's name; without a printable name, the beginning of its hash, which tells nothing of the secret."""
    return (record.name if record and record.name.isprintable() else "") or hashlib.sha256(token.encode()).hexdigest()[
        :12
    ]


async def tokens_named(core: RedisOperations, name: str) -> list[str]:
    return [token async for token, record in core.authorizations() if name_of(token, record) == name]


async def create_token(core: RedisOperations, given: argparse.Namespace) -> bool:
    token = token_of(given) or secrets.token_hex(TOKEN_BYTES)  # hex digits never look like an option
    names = [check_queue_name(name) for name in given.queue.split(",")]
    name = given.name or ""
    if not name.isprintable() or len(name) > NAME_CHARACTERS_MAX:
        raise InvalidInput(f"invalid name: use up to {NAME_CHARACTERS_MAX} printable characters.")
    if name and await tokens_named(core, name):
        complain(f"a token has the name {name!r} already; revoke it first, or choose another name.")
        return False
    secret = secrets.token_urlsafe(SECRET_BYTES) if given.signing else ""
    await core.authorization_create(token, names, given.privs, secret=secret, name=name, expires_seconds=given.expires)
    say(f"{token}\t{secret}" if secret else token)
    return True


def shown_time(time_ms: int) -> str | None:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds") if time_ms else None


async def list_tokens(core: RedisOperations, _given: argparse.Namespace) -> bool:
    async for token, record in core.authorizations():
        fields: dict[str, Any] = {"broken": True}
        if record is not None:
            fields = {"queues": record.queues, "privs": sorted(record.privileges)}
            fields |= {"created": shown_time(record.created_ms), "expires": shown_time(record.expires_ms)}
        if record and record.secret:  # then the token itself is no secret
            fields["signing"] = token
        say(f"{name_of(token, record)}\t{json.dumps(fields)}")
    return True


async def revoke_token(core: RedisOperations, given: argparse.Namespace) -> bool:
    found = [token_of(given)] if given.value is not None else await tokens_named(core, given.name)
    revoked = [token for token in found if await core.authorization_revoke(token)]
    print(f"tokens that are revoked: {len(revoked)}" if revoked else "no such token", file=sys.stderr)
    return bool(revoked)


#: Short option, long option, required options, help, action.
ACTIONS: list[tuple[str, str, tuple[str, ...], str, Action]] = [
    ("-p", "--produce", ("queue",), "publish a message: --value, or standard input", produce),
    ("-c", "--consume", ("queue",), "take all messages until interrupted", consume),
    ("-g", "--get", ("queue",), "peek at the next message", peek),
    ("-k", "--get-delete", ("queue",), "take the next message", get_and_delete),
    ("-t", "--take", ("queue",), "take up to 10 messages", take),
    ("-s", "--stats", (), "length, policy and status of all queues, or of --queue", stats),
    ("-q", "--get-policy", ("queue",), "show the queue's policy", get_policy),
    ("-j", "--roundrobin", ("queue",), "set the queue's policy to roundrobin", set_roundrobin),
    ("-u", "--count", ("queue",), "count the queue's messages", count),
    ("-i", "--last-items", ("queue",), "show the 10 newest messages", last_items),
    ("-a", "--authorize", ("queue", "value"), "show the rights of the token --value on the queue", authorize),
    (
        "-r",
        "--create-token",
        ("queue",),
        "create a token for --queue (names or globs, separated by commas) with --privs",
        create_token,
    ),
    ("-l", "--list-tokens", (), "list the names of all tokens with their queues, rights and times", list_tokens),
    (
        "-d",
        "--revoke-token",
        ("name",),
        "revoke the token with this --name (or, if it is given, the token --value)",
        revoke_token,
    ),
]


def checked(coerce: Callable[[str], Any]) -> Callable[[str], Any]:
    """Turns a ValueError into an ArgumentTypeError, because argparse shows only the text of the latter."""

    def convert(text: str) -> Any:
        try:
            return coerce(text)
        except ValueError as problem:
            raise argparse.ArgumentTypeError(f"{text!r}: {problem}") from None

    return convert


def privileges(text: str) -> list[str]:
    words = text.split(",")
    for word in words:
        if word not in PRIVILEGES:
            raise ValueError(f"unknown privilege; use {', '.join(PRIVILEGES)}")
    return words


def parser() -> argparse.ArgumentParser:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    described = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    action = described.add_mutually_exclusive_group(required=True)
    for short, long, _needs, text, _run in ACTIONS:
        action.add_argument(short, long, dest="action", action="store_const", const=long, help=text)
    action.add_argument("--acl-user", metavar="NAME", help="print the command that makes a Redis user for RestMQ")
    action.add_argument("--hash-password", action="store_true", help="ask for a password and print its hash")
    action.add_argument("--version", action="version", version=f"RestMQ {__version__}")
    described.add_argument("--queue", help="name of the queue")
    described.add_argument("--value", type=os.fsencode, help="message or token")
    described.add_argument(
        "--privs",
        type=checked(privileges),
        default="read,write",
        help=f"rights of a new token, separated by commas: {', '.join(PRIVILEGES)} [default: read,write]",
    )
    described.add_argument(
        "--signing",
        action="store_true",
        help="with --create-token: also print a secret, with which SQS clients sign; the token alone opens nothing",
    )
    described.add_argument("--name", help="name of a token")
    expires = checked(whole_number(1, EXPIRES_SECONDS_MAX))
    described.add_argument(
        "--expires", type=expires, default=0, help="seconds until a new token expires [default: never]"
    )
    redis = described.add_argument_group("location of Redis")
    for name, _short, default, text, *coerce in RedisOptions.optParameters:
        redis.add_argument(f"--{name}", default=default, type=checked(coerce[0] if coerce else str), help=text)
    for name, _short, text in RedisOptions.optFlags:
        redis.add_argument(f"--{name}", action="store_true", help=text)
    redis.add_argument(
        "--data-dir",
        help="data directory of a RestMQ server with a private store on this machine "
        "[default: the server's own default, if no Redis answers]",
    )
    return described


def store_settings(given: argparse.Namespace) -> StoreSettings:
    """Returns the location of Redis by flags and environment, as the server does, or of the private store."""
    options = RedisOptions()
    for name, *_ in (*RedisOptions.optParameters, *RedisOptions.optFlags):
        options[name] = getattr(given, name.replace("-", "_"))
    return find_store(options, given.data_dir)[0]


def print_hash() -> int:
    """Asks for a password and prints its hash for ``acl.conf``. Returns the exit status."""
    try:
        password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.buffer.readline().rstrip(b"\r\n").decode()
    except (EOFError, KeyboardInterrupt):
        password = ""
    except UnicodeDecodeError:
        complain("invalid password: it must be UTF-8.")
        return 1
    if not password:
        complain("the password is missing. Type one, or pass it on standard input.")
        return 1
    say(hash_password(password))
    return 0


async def perform(reactor: Any, settings: StoreSettings, action: Action, given: argparse.Namespace) -> None:
    """Runs one action on its own store. Always raises SystemExit, as task.react expects."""
    use_monotonic_clock(reactor)
    globalLogBeginner.beginLoggingTo([lambda _: None], redirectStandardIO=False, discardBuffer=True)
    store = make_store(settings, reactor)
    given.interrupted = defer.Deferred()  # fires at SIGINT or SIGTERM
    done: defer.Deferred[None] = defer.Deferred()

    def interrupt() -> defer.Deferred[None]:
        if not given.interrupted.called:
            given.interrupted.callback(None)
        return done

    def not_reachable(_failure: Any, _timeout: float) -> None:
        why = store.reason or "it does not answer"
        raise StoreUnavailable(
            f"Redis at {settings.where()} cannot be used: {why.rstrip('.')}. "
            "Set its location with --redis-host, --redis-socket or --data-dir."
        )

    reactor.addSystemEventTrigger("before", "shutdown", interrupt)
    status = 1
    try:
        store.startService()
        await store.first_connected.addTimeout(settings.call_timeout_seconds, reactor, not_reachable)
        status = 0 if await action(RedisOperations(store), given) else 1
    except BrokenPipeError:  # the reader of the pipe has exited; stops Python from writing the rest at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except RestMQError as problem:
        complain(problem)
    except Exception as problem:
        complain(f"unexpected {type(problem).__name__}: {problem}")
    await store.stopService()
    done.callback(None)
    raise SystemExit(status)


def main(arguments: list[str] | None = None) -> None:
    """The entry point. Exits with the status that the module's docstring describes."""
    described = parser()
    given = described.parse_args(arguments)
    if given.hash_password:
        raise SystemExit(print_hash())
    if given.acl_user:
        say(acl_line(given.acl_user, is_cluster=given.redis_cluster is not None))
        raise SystemExit(0)
    action, needs = next((run_it, needs) for _, long, needs, _, run_it in ACTIONS if long == given.action)
    for name in needs:
        if getattr(given, name) is None and not (name == "name" and given.value is not None):
            described.error(f"{given.action} needs --{name}")
    if action is produce and given.value is None:
        try:
            given.value = sys.stdin.buffer.read()
        except KeyboardInterrupt:
            raise SystemExit(1) from None
    try:
        settings = store_settings(given)
    except UsageError as problem:
        described.error(str(problem))
    task.react(perform, (settings, action, given))


if __name__ == "__main__":
    main()
