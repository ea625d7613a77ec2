"""``restmq stats``, ``purge``, ``pause``, ``start``, ``policy``, ``dead`` and ``redrive``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import click

from restmq.cli.arguments import COUNT_MAX, Commands, flag, option, queue_argument, queues_argument
from restmq.cli.output import INTERRUPTED, message_fields, print_error, print_json, print_table, print_text, visible
from restmq.client import Client, Message
from restmq.model import BATCH_MAX, DEAD_LETTER, SETTINGS, Policy

_COUNTS = ("ready", "leased", "delayed", "dead", "consumers", "waiters")
_SETTING_HELP = {
    "expires": "Seconds after which the queue is removed if it has no messages and is not used.",
    "history": "Number of broadcast messages kept for consumers that reconnect.",
    "history_bytes": "Maximum bytes of these messages (64 MiB).",
    "lease": "Default duration of a lease in seconds.",
    "max_deliveries": "Number of failed deliveries after which a message becomes a dead letter.",
    "max_length": "Maximum number of messages in the queue; more are rejected.",
    "retry_delay": "Seconds until a message whose delivery failed comes back; doubles with each delivery.",
    "retry_delay_max": "Maximum of these seconds (3600).",
}
STATS_HEAD = ("QUEUE", "READY", "LEASED", "DELAYED", "DEAD", "CONSUMERS", "WAITERS", "OLDEST", "POLICY", "STATUS")
#: Columns to leave out on a narrow terminal, in this order. STATUS always stays, to show that a queue is paused.
STATS_SPARE = ("WAITERS", "DELAYED", "POLICY", "LEASED", "CONSUMERS", "OLDEST", "DEAD")
_VALUE_SHOWN = 60


def add_to(commands: Commands) -> None:
    more = (
        "Shows each QUEUE in detail, with the consumers and waiters of all servers. "
        "Without QUEUE, lists all queues in short."
    )
    names = flag("--names", "Print only the names of all queues.")
    commands.add("stats", run_stats, "show statistics of queues", more, queues_argument(), names)
    yes = flag("--yes", "Do not ask for confirmation.")
    commands.add("purge", run_purge, "drop all messages of a queue", "", queue_argument(), yes)
    more = "Also drops its settings, policy, status and counters. Message numbers go on if it comes again within a day."
    commands.add("remove", run_remove, "remove a queue with all its messages", more, queue_argument(), yes)
    more = "Messages queue up; consume and work can still take them."
    commands.add("pause", run_pause, "stop delivery to connected consumers", more, queue_argument())
    commands.add("start", run_start, "resume delivery to connected consumers", "", queue_argument())
    _add_policy(commands)
    _add_dead_letters(commands, yes)


def _add_policy(commands: Commands) -> None:
    numbers = [
        option("--" + name.replace("_", "-"), f"{_SETTING_HELP[name]} 0: default.", "N", click.IntRange(0, most))
        for name, most in SETTINGS.items()
    ]
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


def _add_dead_letters(commands: Commands, yes: click.Option) -> None:
    commands.add(
        "dead",
        run_dead,
        "show or drop a queue's dead letters",
        "",
        queue_argument(),
        option("--first", "Number of dead letters to skip.", "N", click.IntRange(0, COUNT_MAX), 0),
        option("--count", "Maximum number to show.", "N", click.IntRange(1, BATCH_MAX), 100),
        click.Option(["--drop"], metavar="KEY", multiple=True, help="Drop this dead letter for good. Can be repeated."),
        flag("--drop-all", "Drop all dead letters for good."),
        yes,
    )
    keys = click.Argument(["keys"], metavar="[KEY]...", nargs=-1)
    commands.add(
        "redrive",
        run_redrive,
        "move dead letters back to the end of their queue",
        "Moves all dead letters, or those with these KEYs. Their delivery counts restart at 0.",
        queue_argument(),
        keys,
        option("--to", "Move them to this queue instead.", "QUEUE", default=""),
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
        lines = client.overview()
        if args.json:
            print_json(lines)
        else:
            rows = [(name, line["len"], line["policy"], status(line)) for name, line in lines.items()]
            print_table(("QUEUE", "LENGTH", "POLICY", "STATUS"), rows)
    return 0


def _print_stats_of(args: SimpleNamespace, client: Client) -> int:
    found = [client.stats(queue) for queue in args.queues]
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


def confirmed(args: SimpleNamespace, question: str) -> bool:
    """Whether --yes was given or the user confirms. Raises UsageError if standard input is not a terminal."""
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("stdin is not a terminal; pass --yes.")
    print(f"{visible(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def run_purge(args: SimpleNamespace, client: Client) -> int:
    if not confirmed(args, f"Drop {_held(args, client)} messages of {args.queue!r} for good?"):
        return INTERRUPTED
    purged = client.purge(args.queue)
    if args.json:
        print_json({"queue": args.queue, "purged": purged})
    return 0


def run_remove(args: SimpleNamespace, client: Client) -> int:
    if not confirmed(args, f"Remove the queue {args.queue!r} with {_held(args, client)} messages for good?"):
        return INTERRUPTED
    removed = client.purge(args.queue, remove=True)
    if args.json:
        print_json({"queue": args.queue, "removed": removed})
    elif not removed:
        print_error(f"unknown queue {args.queue!r}.")
    return 0 if removed else 1


def _held(args: SimpleNamespace, client: Client) -> int:
    stats = client.stats(args.queue)
    return sum(stats[name] for name in ("ready", "leased", "delayed", "dead"))


def run_pause(args: SimpleNamespace, client: Client) -> int:
    client.pause(args.queue)
    return _print_status(args, 0)


def run_start(args: SimpleNamespace, client: Client) -> int:
    client.start(args.queue)
    return _print_status(args, 1)


def _print_status(args: SimpleNamespace, started: int) -> int:
    if args.json:
        print_json({"queue": args.queue, "status": started})
    return 0


def run_policy(args: SimpleNamespace, client: Client) -> int:
    named = {name: getattr(args, name) for name in (*SETTINGS, DEAD_LETTER)}
    wanted = {name: value for name, value in named.items() if value is not None}
    if args.policy is not None or wanted:
        client.configure(args.queue, policy=args.policy, **wanted)
    found = client.settings(args.queue)
    if args.json:
        print_json(found)
    else:
        print_text(found.pop("value"))
        print_text("".join(f"{name}\t{visible(str(value))}\n" for name, value in found.items() if name != "queue"), b"")
    return 0


# Dead letters


def run_dead(args: SimpleNamespace, client: Client) -> int:
    if args.drop or args.drop_all:
        return _drop(args, client)
    count, letters = client.dead(args.queue, first=args.first, count=args.count)
    if args.json:
        print_json({"queue": args.queue, "dead": count, "messages": [message_fields(letter) for letter in letters]})
        return 0
    if letters:
        print_table(("KEY", "DELIVERIES", "DIED", "REASON", "VALUE"), [_letter_row(letter) for letter in letters])
    if count > args.first + len(letters):
        print_error(f"shown: {len(letters)} of {count}; use --first and --count to see others.")
    return 0


def _letter_row(letter: Message) -> tuple[object, ...]:
    died = datetime.fromtimestamp(letter.more["died"] / 1000, UTC).astimezone().isoformat(" ", "seconds")
    value = letter.value[: 4 * _VALUE_SHOWN].decode(errors="backslashreplace")
    return letter.key, letter.count, died, _shortened(letter.more.get("reason", "")), _shortened(value)


def _shortened(text: str) -> str:
    return text if len(text) <= _VALUE_SHOWN else text[: _VALUE_SHOWN - 1] + "…"


def _drop(args: SimpleNamespace, client: Client) -> int:
    what = "all dead letters" if args.drop_all else f"{len(args.drop)} dead letters"
    if not confirmed(args, f"Drop {what} of {args.queue!r} for good?"):
        return INTERRUPTED
    dropped = sum(client.drop_dead(args.queue, key) for key in ([""] if args.drop_all else args.drop))
    return _print_count(args, "dropped", dropped)


def run_redrive(args: SimpleNamespace, client: Client) -> int:
    redriven = sum(client.redrive(args.queue, key, to=args.to) for key in args.keys or [""])
    return _print_count(args, "redriven", redriven)


def _print_count(args: SimpleNamespace, name: str, count: int) -> int:
    if args.json:
        print_json({"queue": args.queue, name: count})
    else:
        print_text(str(count))
    return 0
