#!/usr/bin/env python3
"""Queues from the shell, straight on Redis, without HTTP.

    restmq_engine.py -p --queue test --value hello     put a message in
    restmq_engine.py -k --queue test                   take it out
    restmq_engine.py -c --queue test                   take all that comes, until interrupted

Exit status: 0 done, 1 not done (nothing there, refused, Redis away), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from typing import Any

TOKEN_BYTES = 24

Action = Callable[[Any, argparse.Namespace], Awaitable[bool]]


def say(value: str | bytes) -> None:
    """A line of output; a value's own bytes stay what they are."""
    sys.stdout.buffer.write((value if isinstance(value, bytes) else value.encode()) + b"\n")
    sys.stdout.buffer.flush()


def show(message: Any) -> bool:
    """Prints a message's value, or says that there is none. Returns whether there was."""
    if message is None:
        print("empty queue", file=sys.stderr)
        return False
    say(message.value)
    return True


async def produce(core: Any, given: argparse.Namespace) -> bool:
    value = sys.stdin.buffer.read() if given.value is None else os.fsencode(given.value)
    say(await core.queue_add(given.queue, value))
    return True


async def consume(core: Any, given: argparse.Namespace) -> bool:
    while not given.interrupted.called:
        found = await core.queue_block_multi_get([given.queue], stop=given.interrupted)
        if found:
            show(found[1])
    return True


async def look(core: Any, given: argparse.Namespace) -> bool:
    return show(await core.queue_get(given.queue, softget=True))


async def get_and_delete(core: Any, given: argparse.Namespace) -> bool:
    return show(await core.queue_getdel(given.queue))


async def take(core: Any, given: argparse.Namespace) -> bool:
    messages = await core.queue_tail(given.queue, 10)
    for message in messages:
        show(message)
    return bool(messages) or show(None)


async def stats(core: Any, given: argparse.Namespace) -> bool:
    queues = [given.queue] if given.queue else await core.queue_all()
    for line in await core.queue_overview(queues):
        say(f"{line.name}\t{line.length}\t{line.policy.label}\t{'started' if line.started else 'stopped'}")
    return True


async def get_policy(core: Any, given: argparse.Namespace) -> bool:
    say((await core.queue_policy_get(given.queue)).label)
    return True


async def set_roundrobin(core: Any, given: argparse.Namespace) -> bool:
    from restmq.model import Policy

    await core.queue_policy_set(given.queue, Policy.ROUNDROBIN)
    return True


async def count(core: Any, given: argparse.Namespace) -> bool:
    say(str(await core.queue_count_elements(given.queue)))
    return True


async def last_items(core: Any, given: argparse.Namespace) -> bool:
    messages = await core.queue_last_items(given.queue)
    for message in messages:
        say(message.key.encode() + b"\t" + message.value)
    return bool(messages) or show(None)


async def authorize(core: Any, given: argparse.Namespace) -> bool:
    found = await core.authorization(given.value or "")
    if found is None or not found.covers(given.queue):
        print("not authorized", file=sys.stderr)
        return False
    say("authorized: " + ", ".join(sorted(found.privileges)))
    return True


async def create_token(core: Any, given: argparse.Namespace) -> bool:
    token = given.value or secrets.token_urlsafe(TOKEN_BYTES)
    await core.authorization_create(token, given.queue.split(","), given.privs.split(","))
    say(token)
    return True


async def list_tokens(core: Any, _given: argparse.Namespace) -> bool:
    async for token, record in core.authorizations():
        fields = {"queues": record.queues, "privs": sorted(record.privileges)} if record else {"broken": True}
        say(f"{token}\t{json.dumps(fields)}")
    return True


async def revoke_token(core: Any, given: argparse.Namespace) -> bool:
    if await core.authorization_revoke(given.value or ""):
        return True
    print("no such token", file=sys.stderr)
    return False


#: Switch, long form, what it needs, help, action.
ACTIONS: list[tuple[str, str, tuple[str, ...], str, Action]] = [
    ("-p", "--produce", ("queue",), "put a message in: --value, or standard input", produce),
    ("-c", "--consume", ("queue",), "take all messages that come, until interrupted", consume),
    ("-g", "--get", ("queue",), "look at the next message without taking it", look),
    ("-k", "--get-delete", ("queue",), "take the next message", get_and_delete),
    ("-t", "--take", ("queue",), "take up to 10 messages", take),
    ("-s", "--stats", (), "length, policy and status of all queues, or of --queue", stats),
    ("-q", "--get-policy", ("queue",), "show the queue's policy", get_policy),
    ("-j", "--roundrobin", ("queue",), "set the queue's policy to roundrobin", set_roundrobin),
    ("-u", "--count", ("queue",), "count the queue's messages", count),
    ("-i", "--last-items", ("queue",), "show the 10 newest messages", last_items),
    ("-a", "--authorize", ("queue", "value"), "say what the token --value may do with the queue", authorize),
    (
        "-r",
        "--create-token",
        ("queue",),
        "make a token for --queue (names or globs, by commas) and --privs",
        create_token,
    ),
    ("-l", "--list-tokens", (), "list all tokens and what they may use", list_tokens),
    ("-d", "--revoke-token", ("value",), "revoke the token --value", revoke_token),
]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    described = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action = described.add_mutually_exclusive_group(required=True)
    for short, long, _needs, text, _run in ACTIONS:
        action.add_argument(short, long, dest="action", action="store_const", const=long, help=text)
    action.add_argument("--hash-password", action="store_true", help="ask for a password and print a hash for acl.conf")
    described.add_argument("--queue", help="the queue's name")
    described.add_argument("--value", help="the message, or the token")
    described.add_argument("--privs", default="read,write", help="what a new token may do: read, write, create, admin")
    return described


def redis_flags(arguments: list[str]) -> tuple[Any, list[str]]:
    """The flags that say where Redis is, which the server has too, and all others."""
    from restmq.options import RedisOptions

    ours: list[str] = []
    rest: list[str] = []
    pending = iter(arguments)
    for argument in pending:
        if argument.startswith("--redis-"):
            ours += [argument] if "=" in argument else [argument, *[value for value in [next(pending, None)] if value]]
        else:
            rest.append(argument)
    options = RedisOptions()
    options.parseOptions(ours)
    return options.store_settings(), rest


def ask_password() -> str:
    if sys.stdin.isatty():
        return getpass.getpass()
    return sys.stdin.readline().rstrip("\n")


async def run(reactor: Any, settings: Any, action: Action, given: argparse.Namespace) -> bool:
    """Runs one action on a store of its own."""
    from restmq.core import RedisOperations
    from restmq.errors import StoreUnavailable
    from restmq.store import Store

    def not_reachable(_failure: Any, _timeout: float) -> None:
        raise StoreUnavailable(f"Redis at {settings.where()} does not answer.")

    store = Store(settings, reactor)
    store.startService()
    try:
        await store.first_connected.addTimeout(settings.call_timeout_seconds, reactor, not_reachable)
        return await action(RedisOperations(store), given)
    finally:
        await store.stopService()


def main(arguments: list[str] | None = None) -> None:
    """The entry point; ends the process with the exit status that the module's text describes."""
    from twisted.internet import defer, reactor
    from twisted.python import usage

    from restmq.acl import hash_password
    from restmq.errors import RestMQError

    described = parser()
    try:
        settings, rest = redis_flags(sys.argv[1:] if arguments is None else arguments)
    except usage.UsageError as problem:
        described.error(str(problem))
    given = described.parse_args(rest)
    if given.hash_password:
        say(hash_password(ask_password()))
        raise SystemExit(0)
    given.interrupted = defer.Deferred()
    action, needs = next((run_it, needs) for _, long, needs, _, run_it in ACTIONS if long == given.action)
    for name in needs:
        if getattr(given, name) is None:
            described.error(f"{given.action} needs --{name}")

    status = 1

    def ended(result: Any) -> None:
        nonlocal status
        if result is True:
            status = 0
        elif isinstance(getattr(result, "value", None), RestMQError):
            print(f"restmq_engine: {result.value}", file=sys.stderr)
        elif result is not False:
            result.printTraceback(sys.stderr)
        if not given.interrupted.called:
            reactor.stop()  # type: ignore[attr-defined]

    def begin() -> None:
        running = defer.ensureDeferred(run(reactor, settings, action, given)).addBoth(ended)
        reactor.addSystemEventTrigger("before", "shutdown", lambda: interrupt() or running)  # type: ignore[attr-defined]

    def interrupt() -> None:
        if not given.interrupted.called:
            given.interrupted.callback(None)

    reactor.callWhenRunning(begin)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]
    raise SystemExit(status)


if __name__ == "__main__":
    main()
