"""``restmq stats``, ``drop``, ``purge``, ``remove``, ``pause``, ``resume`` and ``policy``."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import click

from restmq.cli.arguments import Commands, Duration, flag, option, queue_argument, queues_argument
from restmq.cli.output import confirm, print_error, print_json, print_missing, print_table, print_text, visible
from restmq.client import Client
from restmq.client.interrupts import interrupted_status
from restmq.model import DEAD_LETTER, SETTINGS, Policy

_COUNTS = ("ready", "leased", "delayed", "dead", "consumers", "waiters")
_SETTING_HELP = {
    "expires": "Time after which the queue is removed if it has no messages and is not used.",
    "history": "Number of broadcast messages kept for consumers that reconnect.",
    "history_bytes": "Maximum bytes of these messages (64 MiB).",
    "lease": "Default duration of a lease.",
    "max_deliveries": "Number of failed deliveries after which a message becomes a dead letter.",
    "max_length": "Maximum number of messages in the queue; more are rejected.",
    "retry_delay": "Time until a message whose delivery failed comes back; doubles with each delivery.",
    "retry_delay_max": "Maximum of this time (1h).",
}
_TIMES = ("expires", "lease", "retry_delay", "retry_delay_max")
STATS_HEAD = ("QUEUE", "READY", "LEASED", "DELAYED", "DEAD", "CONSUMERS", "WAITERS", "OLDEST", "POLICY", "STATUS")
#: Columns to leave out on a narrow terminal, in this order. STATUS always stays, to show that a queue is paused.
STATS_SPARE = ("WAITERS", "DELAYED", "POLICY", "LEASED", "CONSUMERS", "OLDEST", "DEAD")


def add_to(commands: Commands) -> None:
    more = (
        "Shows each QUEUE, or all queues, with the consumers and waiters of all servers. With --json, it prints a list "
        "of objects with the same names in both cases."
    )
    names = flag("--names", "Print only the names of all queues.")
    commands.add("stats", run_stats, "show statistics of queues", more, queues_argument(), names)
    yes = yes_flag()
    more = "If a consumer has leased a message, its ack then fails, even if the work is done already."
    keys = click.Argument(["keys"], metavar="KEY...", nargs=-1, required=True)
    commands.add("drop", run_drop, "drop messages by their keys, in any state", more, queue_argument(), keys, yes)
    commands.add("purge", run_purge, "drop all messages of a queue", "", queue_argument(), yes)
    more = "Also drops its settings, policy, status and counters. Message numbers go on if it comes again within a day."
    commands.add("remove", run_remove, "remove a queue with all its messages", more, queue_argument(), yes)
    more = "Messages queue up; consume and work can still take them."
    commands.add("pause", run_pause, "stop delivery to connected consumers", more, queue_argument())
    commands.add("resume", run_resume, "continue delivery to connected consumers", "", queue_argument())
    _add_policy(commands)


def _add_policy(commands: Commands) -> None:
    numbers = []
    for name, most in SETTINGS.items():
        kind = Duration(0, most, whole=True) if name in _TIMES else click.IntRange(0, most)
        metavar = "TIME" if name in _TIMES else "N"
        numbers.append(option("--" + name.replace("_", "-"), f"{_SETTING_HELP[name]} 0: default.", metavar, kind))
    text = "Queue that receives the dead letters. '': they stay with this queue."
    commands.add(
        "policy",
        run_policy,
        "show or set a queue's policy and settings",
        "Prints the policy and settings, after changing those that are given.",
        queue_argument(),
        click.Argument(["policy"], required=False, type=click.Choice([policy.label for policy in Policy])),
        *numbers,
        option("--dead-letter", text, "QUEUE"),
    )


# Statistics


def run_stats(args: SimpleNamespace, client: Client) -> int:
    if args.names:
        names = client.queues()
        if args.json:
            print_json(names)
        elif names:
            print_text("\n".join(names))
    elif args.queues:
        return _print_stats_of(args, client)
    else:
        found = client.stats_of_all()
        if args.json:
            print_json(found)
        else:
            print_table(STATS_HEAD, map(stats_row, found), STATS_SPARE)
    return 0


def _print_stats_of(args: SimpleNamespace, client: Client) -> int:
    found = [client.stats(queue) for queue in args.queues]
    for stats in found:
        stats.pop("redis", None)
    # An unknown queue has all counts 0, but a known queue may have them too: only the list of names is reliable.
    blank = {stats["queue"] for stats in found if stats["status"] and not any(stats[name] for name in _COUNTS)}
    unknown = blank.difference(client.queues()) if blank else blank
    if args.json:
        print_json(found)
    elif len(unknown) < len(found):
        print_table(STATS_HEAD, [stats_row(stats) for stats in found if stats["queue"] not in unknown], STATS_SPARE)
    for name in sorted(unknown):
        print_error(f"there is no queue {name!r}; publish a message to create it.")
    return 1 if unknown else 0


def stats_row(stats: dict[str, Any]) -> list[object]:
    """A row of the table whose head is STATS_HEAD."""
    age = stats["oldest_age_seconds"]
    counts = (stats[name] for name in _COUNTS)
    return [stats["queue"], *counts, "-" if age is None else duration(age), stats["policy"], status(stats)]


def status(stats: dict[str, Any]) -> str:
    return "started" if stats["status"] else "paused"


def duration(seconds: float) -> str:
    """A duration in its two largest units, such as 2h5m."""
    if seconds < 60:
        return f"{seconds:.0f}s"
    for size, unit, smaller, name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}{seconds % size // smaller:.0f}{name}"
    return ""


# Changes


def yes_flag() -> click.Option:
    return flag("--yes", "Do not ask for confirmation.")


def confirmed(args: SimpleNamespace, question: str) -> bool:
    """Whether --yes was given or the user confirms. Raises UsageError if standard input is not a terminal."""
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("stdin is not a terminal; pass --yes.")
    print(f"{visible(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def run_drop(args: SimpleNamespace, client: Client) -> int:
    if not confirmed(args, f"Drop {len(args.keys)} messages of {args.queue!r} for good?"):
        return interrupted_status()
    gone = [key for key in args.keys if not client.delete(args.queue, key)]
    for key in gone:
        print_missing(key)
    dropped = len(args.keys) - len(gone)
    if args.json:
        print_json({"queue": args.queue, "dropped": dropped})
    confirm(args, f"messages of {args.queue!r} that are dropped: {dropped}.")
    return 1 if gone else 0


def run_purge(args: SimpleNamespace, client: Client) -> int:
    if not confirmed(args, f"Drop {held(client.stats(args.queue))} messages of {args.queue!r} for good?"):
        return interrupted_status()
    purged = client.purge(args.queue)
    if args.json:
        print_json({"queue": args.queue, "purged": purged})
    confirm(args, f"all messages of {args.queue!r} are dropped." if purged else f"{args.queue!r} had no messages.")
    return 0


def run_remove(args: SimpleNamespace, client: Client) -> int:
    if not confirmed(args, f"Remove the queue {args.queue!r} with {held(client.stats(args.queue))} messages for good?"):
        return interrupted_status()
    removed = client.purge(args.queue, remove=True)
    if args.json:
        print_json({"queue": args.queue, "removed": removed})
    elif not removed:
        print_error(f"unknown queue {args.queue!r}.")
    else:
        confirm(args, f"the queue {args.queue!r} is removed.")
    return 0 if removed else 1


def held(stats: dict[str, Any]) -> int:
    """The number of a queue's messages, in all states."""
    return sum(int(stats[name]) for name in ("ready", "leased", "delayed", "dead"))


def run_pause(args: SimpleNamespace, client: Client) -> int:
    client.pause(args.queue)
    return _print_status(args, 0)


def run_resume(args: SimpleNamespace, client: Client) -> int:
    client.resume(args.queue)
    return _print_status(args, 1)


def _print_status(args: SimpleNamespace, started: int) -> int:
    if args.json:
        print_json({"queue": args.queue, "status": started})
    confirm(args, f"the delivery of {args.queue!r} to connected consumers is {'resumed' if started else 'paused'}.")
    return 0


def run_policy(args: SimpleNamespace, client: Client) -> int:
    named = {name: getattr(args, name) for name in (*SETTINGS, DEAD_LETTER)}
    wanted = {name: value for name, value in named.items() if value is not None}
    if args.policy is not None or wanted:
        client.configure(args.queue, policy=args.policy, **wanted)
        confirm(args, f"the settings of {args.queue!r} are changed.")
    found = client.settings(args.queue)
    if args.json:
        print_json(found)
    else:
        print_text(found.pop("value"))
        print_text("".join(f"{name}\t{visible(str(value))}\n" for name, value in found.items() if name != "queue"), b"")
    return 0
