"""``restmq publish``, ``consume`` and ``tail``."""

from __future__ import annotations

import itertools
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from restmq.cli.arguments import (
    COUNT_MAX,
    YEAR_SECONDS,
    Commands,
    Duration,
    flag,
    option,
    queue_argument,
    queues_argument,
)
from restmq.cli.output import Progress, message_fields, print_error, print_json, print_text
from restmq.client import Client, Message
from restmq.client.exchange import POLL_SECONDS
from restmq.client.interrupts import stopping
from restmq.errors import InvalidInput, LeaseGone, RestMQError
from restmq.model import BATCH_MAX, DELAY_SECONDS_MAX, LEASE_SECONDS_MAX, TTL_SECONDS_MAX

VALUE_BYTES_MAX = 16 << 20
LEASE_SECONDS = Duration(1, LEASE_SECONDS_MAX)
WAIT_HINT = "to wait for a message, pass --wait TIME."
_READ_BYTES = 1 << 16


def add_to(commands: Commands) -> None:
    _add_publish(commands)
    output = [
        option("--lease", "Lease each message for this time; ack it after printing.", "TIME", LEASE_SECONDS),
        flag("--keys", "Print the key and a tab before each value."),
        flag("--raw", "Print values without a newline after them."),
    ]
    commands.add(
        "consume",
        run_consume,
        "take messages from a queue and print them",
        "The server removes each message when it sends it. With --lease it removes the message after it was printed. "
        "Of several queues, each message comes from the first that has one.",
        queues_argument(required=True),
        option(
            "--count", "Number of messages.  [default: 1; with --follow: no limit]", "N", click.IntRange(1, COUNT_MAX)
        ),
        option("--wait", "Maximum time to wait for the messages.", "TIME", Duration(0, YEAR_SECONDS), 0),
        click.Option(
            ["-f", "--follow"],
            is_flag=True,
            help="Take messages until interrupted; reconnect if the server was unavailable.",
        ),
        option("--batch", "Maximum messages per request.", "N", click.IntRange(1, BATCH_MAX), 1),
        *output,
    )
    commands.add(
        "tail",
        run_tail,
        "print each message that is put into a queue, and take none",
        "Shows a copy of each message from now on, whatever becomes of it. With --take it is a connected consumer "
        "instead: messages that wait in the queue come first; with the policy broadcast every consumer gets every "
        "message, with roundrobin a share of them. Reconnects if the connection is lost, and tells of messages that it "
        "missed; with --take and a history none are.",
        queue_argument(),
        click.Option(["-f", "--follow"], is_flag=True, hidden=True, expose_value=False),  # it always follows
        flag("--take", "Take messages, as a connected consumer."),
        option("--count", "Stop after this number of messages.", "N", click.IntRange(1, COUNT_MAX)),
        option("--after", "With --take: start after this message, if the queue keeps a history.", "KEY", default=""),
        *output,
    )


def _add_publish(commands: Commands) -> None:
    commands.add(
        "publish",
        run_publish,
        "add messages to a queue",
        "Each VALUE is a message. Without VALUE and --file each line of standard input is a message, sent as soon as "
        "it is read. Prints the messages' keys; for lines, their number. Retries never queue a message twice.",
        queue_argument(),
        click.Argument(["values"], metavar="[VALUE]...", nargs=-1),
        click.Option(
            ["--file"],
            multiple=True,
            metavar="PATH",
            help="Publish the whole file as one message (-: standard input). Can be repeated.",
            type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        ),
        option("--delay", "Time before delivery.", "TIME", Duration(0, DELAY_SECONDS_MAX), 0),
        option("--ttl", "Time until the messages expire; 0: never.", "TIME", Duration(0, TTL_SECONDS_MAX), 0),
        click.Option(
            ["--header"],
            multiple=True,
            metavar="'NAME: TEXT'",
            help="Keep this header with the message, such as 'x-message-tenant: acme'. Can be repeated.",
            callback=_headers,
        ),
        option("--content-type", "Keep this content type with the message.", "TYPE", default=""),
        option("--idempotency-key", "Queue the message once per key and day. For one message only.", "KEY"),
        option("--batch", "Maximum lines per request.", "N", click.IntRange(1, BATCH_MAX), 500),
        option("--max-value", "Maximum size of a line or file.", "BYTES", click.IntRange(1, 1 << 31), VALUE_BYTES_MAX),
    )


# Publish


def _headers(_context: object, _parameter: object, lines: tuple[str, ...]) -> dict[str, str]:
    for line in lines:
        if not line.partition(":")[1]:
            raise click.BadParameter(f"{line!r} has no colon; write 'NAME: TEXT'.")
    return {name.strip(): text.strip() for name, _, text in (line.partition(":") for line in lines)}


def run_publish(args: SimpleNamespace, client: Client) -> int:
    options: dict[str, Any] = {"delay_seconds": args.delay, "ttl_seconds": args.ttl}
    if args.header or args.content_type:
        options |= {"headers": args.header, "content_type": args.content_type}
    if args.values == ("-",):
        print_error("the message is '-' itself; to read lines from standard input, leave it out.")
    if not args.values and not args.file:
        if args.idempotency_key is not None:
            raise click.UsageError("--idempotency-key takes one VALUE or --file; lines always get keys of their own.")
        return _publish_lines(args, client, options)
    if args.idempotency_key is not None:
        if len(args.values) + len(args.file) != 1:
            raise click.UsageError("--idempotency-key takes exactly one VALUE or --file.")
        options["idempotency_key"] = args.idempotency_key
    values = itertools.chain(
        (os.fsencode(value) for value in args.values), (_read(path, args.max_value) for path in args.file)
    )
    keys = []
    for value in values:
        keys.append(client.publish(args.queue, value, **options))
        if not args.json:
            print_text(keys[-1])
    if args.json:
        print_json({"queue": args.queue, "keys": keys})
    return 0


def _read(path: str, bytes_max: int) -> bytes:
    with sys.stdin.buffer if path == "-" else Path(path).open("rb") as file:
        value = file.read(bytes_max + 1)
    if len(value) > bytes_max:
        raise InvalidInput(f"{path} is longer than {bytes_max} bytes; raise the limit with --max-value.")
    return value


def _publish_lines(args: SimpleNamespace, client: Client, options: dict[str, Any]) -> int:
    status = os.fstat(sys.stdin.fileno())
    progress = Progress(
        status.st_size if stat.S_ISREG(status.st_mode) else 0, wanted=not (args.json and sys.stdout.isatty())
    )
    messages = done_bytes = 0
    try:
        for lines in lines_as_they_come(sys.stdin.fileno(), args.max_value):
            for batch in batches(lines, args.batch):
                keys = _send(client, args.queue, batch, options)
                messages += len(keys)
                done_bytes += sum(len(value) + 1 for value in batch)
                progress.show(done_bytes, messages)
                if args.json:
                    print_json({"queue": args.queue, "keys": keys})
    except (RestMQError, KeyboardInterrupt) as end:
        progress.end()
        before = "the interruption." if isinstance(end, KeyboardInterrupt) else "this error:"
        print_error(f"{messages} messages were published before {before}")
        raise
    progress.end()
    if not args.json:
        print_text(f"{messages}")
    return 0


def _send(client: Client, queue: str, batch: list[bytes], options: dict[str, Any]) -> list[str]:
    if len(batch) == 1 or "headers" in options:
        return [client.publish(queue, value, **options) for value in batch]
    return client.publish_many(queue, batch, **options)


def lines_as_they_come(descriptor: int, bytes_max: int) -> Iterator[list[bytes]]:
    """Yields the lines of a file or pipe, in lists. No line waits for a later one.

    Raises InvalidInput for a line longer than ``bytes_max``.
    """
    partial: list[bytes] = []
    partial_bytes = 0
    while data := os.read(descriptor, _READ_BYTES):
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*partial, lines[0]])
            partial, partial_bytes = [], 0
            short = list(itertools.takewhile(lambda line: len(line) <= bytes_max, lines))
            if short:
                yield short
            if len(short) < len(lines):
                raise _too_long(bytes_max)
        partial.append(rest)
        partial_bytes += len(rest)
        if partial_bytes > bytes_max:
            raise _too_long(bytes_max)
    if partial_bytes:
        yield [b"".join(partial)]


def _too_long(bytes_max: int) -> InvalidInput:
    return InvalidInput(f"a line is longer than {bytes_max} bytes; raise the limit with --max-value.")


def batches(values: list[bytes], count_max: int) -> Iterator[list[bytes]]:
    """Splits the values, in order, into batches for one request each: values in UTF-8, or a single other value."""
    for is_text, alike in itertools.groupby(values, _is_text):
        while batch := list(itertools.islice(alike, count_max if is_text else 1)):
            yield batch


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


# Consume and tail


def run_consume(args: SimpleNamespace, client: Client) -> int:
    if len(args.queues) > 1 and args.batch > 1:
        raise click.UsageError("--batch takes one queue; of several queues, each request takes one message.")
    client.lasting = args.follow
    count = args.count or (None if args.follow else 1)
    print_message = MessagePrinter(args, client.twin())
    with stopping(client.stop):
        if args.follow:
            queues = args.queues if len(args.queues) > 1 else args.queues[0]
            messages = client.consume(queues, args.lease, count=min(args.batch, count or BATCH_MAX))
        else:
            messages = _take_until_timeout(args, client, count or 1)
        for message in itertools.islice(messages, count):
            print_message(message)
    if print_message.count or args.follow:
        return 0
    print_error("empty queue" if args.wait else f"empty queue; {WAIT_HINT}")
    return 1


def wait_left(deadline: float) -> float:
    """Seconds that the next request may wait, until ``deadline`` on the monotonic clock."""
    return min(max(0.0, deadline - time.monotonic()), POLL_SECONDS)


def _take_until_timeout(args: SimpleNamespace, client: Client, count: int) -> Iterator[Message]:
    deadline = time.monotonic() + args.wait
    while count:
        wait_seconds = wait_left(deadline)
        wanted = min(count, args.batch)
        if len(args.queues) > 1:
            message = client.take_first(args.queues, wait_seconds=wait_seconds, lease_seconds=args.lease)
            messages = [] if message is None else [message]
        elif args.lease is None:
            messages = client.take_many(args.queues[0], wanted, wait_seconds=wait_seconds)
        else:
            messages = client.lease_many(args.queues[0], wanted, args.lease, wait_seconds=wait_seconds)
        yield from messages
        count -= len(messages)
        if not messages and time.monotonic() >= deadline:
            return


def run_tail(args: SimpleNamespace, client: Client) -> int:
    def on_gap(last_key: str) -> None:
        where = "the queue's history no longer holds them" if args.take else "the connection broke or was too slow"
        print_error(f"messages after {last_key} were missed: {where}.")

    if not args.take and (args.lease is not None or args.after):
        raise click.UsageError("--lease and --after need --take; without it, tail shows copies of new messages.")
    client.lasting = True
    print_message = MessagePrinter(args, client.twin())
    with stopping(client.stop):
        if args.take:
            print_error(
                f"taking messages from {args.queue}: those that wait in it, and new ones. With the policy roundrobin "
                "no other consumer gets them; with broadcast all connected consumers do."
            )
            messages = client.listen(args.queue, last_key=args.after, lease_seconds=args.lease, on_gap=on_gap)
        else:
            messages = client.tap(args.queue, on_gap=on_gap)
        for message in itertools.islice(messages, args.count):
            print_message(message)
    return 0


class MessagePrinter:
    """Prints messages, and acks each leased message after printing it.

    Args:
        client: sends the acks. An interruption must not stop this client, so that printed messages are acked.
    """

    def __init__(self, args: SimpleNamespace, client: Client) -> None:
        self._args = args
        self._client = client
        self.count = 0

    def __call__(self, message: Message) -> None:
        if self._args.json:
            print_json(message_fields(message))
        else:
            key = message.key.encode() + b"\t" if self._args.keys else b""
            print_text(key + message.value, b"" if self._args.raw else b"\n")
        self.count += 1
        if message.receipt:
            try:
                self._client.ack(message)
            except LeaseGone:
                print_error(f"{message.key}: the lease ended too early, so this message will be delivered again.")
