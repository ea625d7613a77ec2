"""What the command line client prints: values as they are, tables, JSON, a progress bar; and how it is interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from restmq.client import Message
from restmq.errors import RestMQError
from restmq.model import text_or_base64

#: The exit status of what was interrupted before it was done.
INTERRUPTED = 130
PROGRESS_AFTER_SECONDS = 0.5
PROGRESS_EVERY_SECONDS = 0.1
_BAR_WIDTH = 30
_FIRST_COLUMN_LEAST, _FIRST_COLUMN_WANTED = 8, 20


def say(text: str | bytes, end: bytes = b"\n") -> None:
    """A line on standard output, at once; bytes stay what they are."""
    data = text if isinstance(text, bytes) else text.encode(errors="surrogateescape")
    sys.stdout.buffer.write(data + end)
    sys.stdout.buffer.flush()


def say_json(document: Any) -> None:
    say(json.dumps(document, ensure_ascii=False))


def complain(text: object) -> None:
    """A line on standard error."""
    print(f"restmq: {visible(str(text))}", file=sys.stderr, flush=True)


class Complaints:
    """Tells of failures that are got over, once each."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, error: RestMQError, _seconds: float) -> None:
        if str(error) != self._last:
            self._last = str(error)
            complain(f"{error} Trying again.")


def message_fields(message: Message) -> dict[str, Any]:
    """A message as the server's JSON has it."""
    fields: dict[str, Any] = {"key": message.key, **text_or_base64(message.value)}
    if message.receipt:
        fields |= {"receipt": message.receipt, "count": message.count}
    return fields | dict(message.more)


# Tables


def visible(text: str) -> str:
    """The text without anything that a terminal would take for a command."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def cut(text: str, columns: int) -> str:
    """The text, or its beginning and an ellipsis if it is wider."""
    if width(text) <= columns:
        return text
    while text and width(text) > columns - 1:
        text = text[:-1]
    return text + "…"


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], columns_max: int = 0, spare: Sequence[str] = ()
) -> list[str]:
    """Lines of a table, the first column to the left and the others to the right.

    Args:
        columns_max: lines are no wider, if that can be done; 0 for any width.
        spare: the heads of columns that are left out, in this order, before the first column is cut to less than 20.
    """
    cells = [list(head), *([visible(str(cell)) for cell in row] for row in rows)]
    widths = [max(width(row[i]) for row in cells) for i in range(len(head))]

    def room() -> int:
        return columns_max - sum(widths[1:]) - 2 * (len(widths) - 1)

    if columns_max:
        for name in spare:
            if room() >= min(widths[0], _FIRST_COLUMN_WANTED):
                break
            place = cells[0].index(name)
            del widths[place]
            for row in cells:
                del row[place]
        widths[0] = max(_FIRST_COLUMN_LEAST, min(widths[0], room()))
    lines = []
    for row in cells:
        first = cut(row[0], widths[0])
        line = first + " " * (widths[0] - width(first))
        lines.append("".join([line, *(f"  {cell:>{widths[i]}}" for i, cell in enumerate(row[1:], 1))]).rstrip())
    return lines


def say_table(head: Sequence[str], rows: Iterable[Sequence[object]], spare: Sequence[str] = ()) -> None:
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    say("\n".join(table(head, rows, columns, spare)))


# Progress


class Progress:
    """A bar on standard error while something takes long, if that is a terminal.

    Args:
        total_bytes: how much there is to do; 0 if that is not known.
        wanted: False for none at all.
    """

    def __init__(self, total_bytes: int, wanted: bool = True) -> None:
        self._total_bytes = total_bytes
        self._wanted = wanted and sys.stderr.isatty()
        self._began = time.monotonic()
        self._next = self._began + PROGRESS_AFTER_SECONDS
        self._shown = False

    def show(self, done_bytes: int, messages: int) -> None:
        now = time.monotonic()
        ends = self._shown and done_bytes >= self._total_bytes > 0
        if not self._wanted or (now < self._next and not ends):
            return
        self._next = now + PROGRESS_EVERY_SECONDS
        self._shown = True
        text = f"{messages:,} messages, {messages / (now - self._began):,.0f}/s"
        if self._total_bytes:
            share = min(1.0, done_bytes / self._total_bytes)
            full = int(share * _BAR_WIDTH)
            text = f"[{'#' * full}{'.' * (_BAR_WIDTH - full)}] {share:4.0%}  {text}"
        self._write(text)

    def end(self) -> None:
        """Takes the bar away."""
        if self._shown:
            self._write("")

    def _write(self, text: str) -> None:
        print(f"\r{cut(text, shutil.get_terminal_size().columns - 1)}\x1b[K", end="", file=sys.stderr, flush=True)


# Interruption


@contextlib.contextmanager
def stopping(stop: Callable[[], None], once: bool = True) -> Iterator[None]:
    """Until the end of the block SIGINT and SIGTERM call ``stop``, in a thread of its own.

    A handler in Python waits for the main thread to come to it; a signal that comes just before that one waits for
    something else, or that another thread gets, wakes nobody.

    Args:
        once: the second one ends the program as ever.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)

    def listen() -> None:
        while os.read(heard, 1):
            stop()

    def handle(_number: int, _frame: object) -> None:
        if once:
            restore()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    told_before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    try:
        yield
    finally:
        restore()
        signal.set_wakeup_fd(told_before)
        os.close(told)
        listener.join()
        os.close(heard)


def abandon_output() -> None:
    """Whoever read has gone; Python would try to write the rest once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
