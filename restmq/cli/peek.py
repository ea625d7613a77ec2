"""``restmq peek``: print messages and leave them where they are."""

from __future__ import annotations

import re
from types import SimpleNamespace

import click

from restmq.cli.arguments import COUNT_MAX, Commands, flag, option, queue_argument
from restmq.cli.messages import MessagePrinter
from restmq.cli.output import print_error, print_missing
from restmq.client import Client, Message
from restmq.model import queue_of

_PEEK_MAX = 100
_KEY = re.compile(r".+:\d+", re.DOTALL)
_STATES = ("next", "newest", "leased", "delayed", "dead")


def add_to(commands: Commands) -> None:
    commands.add(
        "peek",
        run_peek,
        "print messages and leave them in the queue",
        "Prints the next messages of the queue, those of another --list, or those with these KEYs in any state.",
        queue_argument(),
        click.Argument(["keys_given"], metavar="[KEY]...", nargs=-1),
        click.Option(
            ["--list", "place"],
            type=click.Choice(_STATES),
            default="next",
            show_default=True,
            help="Which messages: the next or the newest ones that are ready, or those in this state.",
        ),
        option("--count", "Maximum number of messages.", "N", click.IntRange(1, _PEEK_MAX), 10),
        option("--first", "Number of messages to skip.", "N", click.IntRange(0, COUNT_MAX), 0),
        flag("--keys", "Print the key and a tab before each value."),
        flag("--raw", "Print values without a newline after them."),
    )


def run_peek(args: SimpleNamespace, client: Client) -> int:
    print_message = MessagePrinter(args, client)
    keys = args.keys_given or [
        seen.key for seen in client.peek(args.queue, args.place, first=args.first, count=args.count)
    ]
    for key in keys:
        # A list has only the beginning of a long value.
        message = client.find(key) if queue_of(key) == args.queue else None
        if message is not None:
            print_message(Message(message.key, message.value, more={**message.more, "count": message.count}))
        elif args.keys_given:
            print_missing(key)
    if not args.keys_given and not print_message.count:
        found = client.find(args.queue) if _KEY.fullmatch(args.queue) else None
        hint = f"; to peek at this message: restmq peek {queue_of(args.queue)} {args.queue}" if found else ""
        print_error(f"no messages{hint}")
    return 0 if print_message.count and print_message.count >= len(args.keys_given) else 1
