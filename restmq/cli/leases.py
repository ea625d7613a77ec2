"""``restmq lease``, ``ack``, ``nack`` and ``extend``: the steps of a worker one by one, for scripts."""

from __future__ import annotations

import time
from types import SimpleNamespace

import click

from restmq.cli.arguments import YEAR_SECONDS, Commands, Duration, key_argument, option, queue_argument
from restmq.cli.messages import LEASE_SECONDS, WAIT_HINT, wait_left
from restmq.cli.output import confirm, message_fields, print_error, print_json, print_text
from restmq.client import Client, Message
from restmq.model import BATCH_MAX, DELAY_SECONDS_MAX


def add_to(commands: Commands) -> None:
    receipt = click.Argument(["receipt"], metavar="RECEIPT")
    commands.add(
        "lease",
        run_lease,
        "lease messages: print their keys, receipts and values",
        "Prints a line per message: its key, a tab, its receipt, a tab, its value. Nobody else gets the message until "
        "the lease ends. Then ack it with its key and receipt when its work is done, or nack it.",
        queue_argument(),
        option("--lease", "Duration of the lease.  [default: the queue's setting, or else 30s]", "TIME", LEASE_SECONDS),
        option("--count", "Maximum number of messages.", "N", click.IntRange(1, BATCH_MAX), 1),
        option("--wait", "Maximum time to wait for the first message.", "TIME", Duration(0, YEAR_SECONDS), 0),
    )
    more = "Exits with status 3 if the lease has ended: the message may be delivered again."
    commands.add("ack", run_ack, "remove a leased message, whose work is done", more, key_argument(), receipt)
    commands.add(
        "nack",
        run_nack,
        "return a leased message to its queue, as its work failed",
        more,
        key_argument(),
        receipt,
        option(
            "--delay",
            "Time before it is delivered again.  [default: the queue's retry_delay]",
            "TIME",
            Duration(0, DELAY_SECONDS_MAX),
        ),
        option("--reason", "Why it failed; shown with the message.", "TEXT", default=""),
    )
    from_now = click.Argument(["time"], metavar="TIME", type=LEASE_SECONDS)
    commands.add("extend", run_extend, "make a lease end TIME from now", more, key_argument(), receipt, from_now)


def run_lease(args: SimpleNamespace, client: Client) -> int:
    deadline = time.monotonic() + args.wait
    while True:
        messages = client.lease_many(args.queue, args.count, args.lease, wait_seconds=wait_left(deadline))
        for message in messages:
            if args.json:
                print_json(message_fields(message))
            else:
                print_text(f"{message.key}\t{message.receipt}\t".encode() + message.value)
        if messages:
            return 0
        if time.monotonic() >= deadline:
            print_error("empty queue" if args.wait else f"empty queue; {WAIT_HINT}")
            return 1


def run_ack(args: SimpleNamespace, client: Client) -> int:
    client.ack(_leased(args))
    return _done(args, "acked")


def run_nack(args: SimpleNamespace, client: Client) -> int:
    client.nack(_leased(args), delay_seconds=args.delay, reason=args.reason)
    return _done(args, "nacked")


def run_extend(args: SimpleNamespace, client: Client) -> int:
    client.extend(_leased(args), args.time)
    return _done(args, "extended")


def _leased(args: SimpleNamespace) -> Message:
    return Message(args.key, b"", receipt=args.receipt)


def _done(args: SimpleNamespace, what: str) -> int:
    if args.json:
        print_json({"key": args.key, what: True})
    confirm(args, f"{args.key} is {what}.")
    return 0
