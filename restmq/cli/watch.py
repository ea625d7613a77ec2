"""``restmq watch``: a live table of queues."""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import click

from restmq.cli.arguments import COUNT_MAX, Commands, Duration, option, queues_argument
from restmq.cli.output import cut, print_json, print_text, table
from restmq.cli.queues import STATS_HEAD, STATS_SPARE, stats_row
from restmq.client import Busy, Client, Stopped, Unreachable
from restmq.client.interrupts import stopping

QUEUES_MAX = 1000
_QUEUES_WITHOUT_A_TERMINAL = 20
_CLEAR, _HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"
_OTHER_SCREEN, _FIRST_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def add_to(commands: Commands) -> None:
    commands.add(
        "watch",
        run_watch,
        "show a live table of queues",
        "Without QUEUE it shows the longest queues. IN/S and OUT/S are messages per second. Continues while the server "
        "is unavailable.",
        queues_argument(),
        option("--interval", "Time between updates.", "TIME", Duration(0.1, 3600), 1),
        option("--rounds", "Stop after this number of updates.", "N", click.IntRange(1, COUNT_MAX)),
        option("--limit", "Maximum number of queues.  [default: fits the screen]", "N", click.IntRange(1, QUEUES_MAX)),
    )


class Rates:
    """Message rates between one update and the next."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, int, int]] = {}

    def row(self, stats: dict[str, Any], now: float) -> list[object]:
        """A row of the table, with the rates in and out since the previous update."""
        queue, (came, went) = stats["queue"], (stats["totals"]["in"], stats["totals"]["out"])
        then, came_then, went_then = self._before.get(queue, (now, came, went))
        self._before[queue] = (now, came, went)
        seconds = now - then
        rates = [(came - came_then) / seconds, (went - went_then) / seconds] if seconds > 0 else [0.0, 0.0]
        name, *rest = stats_row(stats)
        return [name, *(f"{max(0.0, rate):,.1f}" for rate in rates), *rest]


def run_watch(args: SimpleNamespace, client: Client) -> int:
    client.retry_seconds, client.on_retry = 0, None  # the next update is the retry; the title shows the error
    rates, problem, rows = Rates(), "", list[list[object]]()
    live = sys.stdout.isatty() and not args.json
    with stopping(client.stop), suppress(Stopped), _screen(live):
        for turn in itertools.count(1):
            try:
                found = _statistics(args, client, live)
                problem = ""
                rows = [rates.row(stats, time.monotonic()) for stats in found]
            except (Busy, Unreachable) as error:
                if turn == 1:
                    raise
                problem, found = str(error), []
            if args.json:
                print_json({"problem": problem} if problem else {"queues": found})
            else:
                _show(client, rows, problem, live)
            if turn == args.rounds:
                return 0
            if client.stopped_within(args.interval):
                return 0
    return 0


def _statistics(args: SimpleNamespace, client: Client, live: bool) -> list[dict[str, Any]]:
    """The statistics of the queues to show."""
    fits = shutil.get_terminal_size().lines - 3 if live else _QUEUES_WITHOUT_A_TERMINAL
    limit = args.limit or max(1, fits)
    if args.queues:
        return [client.stats(queue) for queue in args.queues[:limit]]
    return sorted(client.stats_of_all(), key=lambda stats: (-stats["ready"], stats["queue"]))[:limit]


def _show(client: Client, rows: list[list[object]], problem: str, live: bool) -> None:
    size = shutil.get_terminal_size()
    head = (STATS_HEAD[0], "IN/S", "OUT/S", *STATS_HEAD[1:])
    title = f"{client.server.url}  {datetime.now().astimezone():%H:%M:%S}" + (f"  {problem}" if problem else "")
    lines = [title, *table(head, rows, size.columns if live else 0, STATS_SPARE)]
    if not live:
        print_text("\n".join(lines))
        return
    shown = [cut(line, size.columns) + _CLEAR_LINE for line in lines[: size.lines - 1]]
    print_text(_HOME + "\n".join(shown) + _CLEAR_BELOW, b"")


@contextmanager
def _screen(live: bool) -> Iterator[None]:
    """Uses the terminal's alternate screen and restores the normal one at the end."""
    if live:
        print_text(_OTHER_SCREEN + _CLEAR, b"")
    try:
        yield
    finally:
        if live:
            print_text(_FIRST_SCREEN, b"")
