"""``restmq dead`` and ``redrive``."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import click

from restmq.cli.arguments import COUNT_MAX, Commands, flag, option, queue_argument
from restmq.cli.output import (
    VALUE_SHOWN,
    confirm,
    message_fields,
    print_error,
    print_json,
    print_table,
    print_text,
    shortened,
)
from restmq.cli.queues import confirmed, yes_flag
from restmq.client import Client, Message
from restmq.client.interrupts import interrupted_status
from restmq.model import BATCH_MAX


def add_to(commands: Commands) -> None:
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
        yes_flag(),
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


def run_dead(args: SimpleNamespace, client: Client) -> int:
    if args.drop or args.drop_all:
        return _drop(args, client)
    count, letters = client.dead(args.queue, first=args.first, count=args.count)
    if args.json:
        print_json({"queue": args.queue, "dead": count, "messages": [message_fields(letter) for letter in letters]})
        return 0
    if letters:
        print_table(("KEY", "DELIVERIES", "DIED", "REASON", "VALUE"), [_letter_row(letter) for letter in letters])
    elif not count:
        print_error("no dead letters")
    if count > args.first + len(letters):
        print_error(f"shown: {len(letters)} of {count}; use --first and --count to see others.")
    return 0


def _letter_row(letter: Message) -> tuple[object, ...]:
    died = datetime.fromtimestamp(letter.more["died"] / 1000, UTC).astimezone().isoformat(" ", "seconds")
    value = letter.value[: 4 * VALUE_SHOWN].decode(errors="backslashreplace")
    return letter.key, letter.count, died, shortened(letter.more.get("reason", "")), shortened(value)


def _drop(args: SimpleNamespace, client: Client) -> int:
    what = "all dead letters" if args.drop_all else f"{len(args.drop)} dead letters"
    if not confirmed(args, f"Drop {what} of {args.queue!r} for good?"):
        return interrupted_status()
    dropped = sum(client.drop_dead(args.queue, key) for key in ([""] if args.drop_all else args.drop))
    confirm(args, f"dead letters of {args.queue!r} that are dropped: {dropped}.")
    return _print_count(args, "dropped", dropped)


def run_redrive(args: SimpleNamespace, client: Client) -> int:
    redriven = sum(client.redrive(args.queue, key, to=args.to) for key in args.keys or [""])
    confirm(args, f"dead letters of {args.queue!r} that are back in {args.to or args.queue!r}: {redriven}.")
    return _print_count(args, "redriven", redriven)


def _print_count(args: SimpleNamespace, name: str, count: int) -> int:
    if args.json:
        print_json({"queue": args.queue, name: count})
    else:
        print_text(str(count))
    return 0
