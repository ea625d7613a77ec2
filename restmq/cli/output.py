"""Output of the command line: values, tables, JSON, a progress bar."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from restmq.client import Message
from restmq.errors import RestMQError
from restmq.model import text_or_base64

PROGRESS_AFTER_SECONDS = 0.5
PROGRESS_EVERY_SECONDS = 0.1
VALUE_SHOWN = 60
_BAR_WIDTH = 30
_FIRST_COLUMN_LEAST, _FIRST_COLUMN_WANTED = 8, 20


def print_text(text: str | bytes, end: bytes = b"\n") -> None:
    """Writes a line to standard output and flushes. Bytes are written unchanged."""
    data = text if isinstance(text, bytes) else text.encode(errors="surrogateescape")
    sys.stdout.buffer.write(data + end)
    sys.stdout.buffer.flush()


def print_json(document: Any) -> None:
    print_text(json.dumps(document, ensure_ascii=False))


def print_error(text: object) -> None:
    """Writes a line to standard error."""
    print(f"restmq: {visible(str(text))}", file=sys.stderr, flush=True)


def print_missing(key: str) -> None:
    """Says on standard error that a queue has no message with this key."""
    print_error(f"there is no message {key!r} in this queue: it never existed, was taken or acked, or expired.")


def confirm(args: SimpleNamespace, done: str) -> None:
    """Says on standard error what was done, unless the output is JSON."""
    if not args.json:
        print_error(done)


class RetryNotices:
    """Prints errors before retries; an error that repeats is printed once."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, error: RestMQError, _seconds: float) -> None:
        if str(error) != self._last:
            self._last = str(error)
            print_error(f"{error} Retrying.")


def message_fields(message: Message) -> dict[str, Any]:
    """A message's fields, as in the server's JSON."""
    fields: dict[str, Any] = {"key": message.key, **text_or_base64(message.value)}
    if message.receipt:
        fields |= {"receipt": message.receipt, "count": message.count}
    return fields | dict(message.more)


# Tables


def visible(text: str) -> str:
    """The text with all non-printable characters escaped, so that it can't control the terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def width(text: str) -> int:
    """The number of terminal columns that the text takes."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def cut(text: str, columns: int) -> str:
    """The text, shortened with an ellipsis if it is wider than ``columns``."""
    if width(text) <= columns:
        return text
    while text and width(text) > columns - 1:
        text = text[:-1]
    return text + "…"


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], columns_max: int = 0, spare: Sequence[str] = ()
) -> list[str]:
    """The lines of a table: first column left-aligned, the others right-aligned.

    Args:
        columns_max: maximum width, if it can be reached (default 0: no limit).
        spare: heads of columns to leave out, in this order, before the first column is cut below 20 characters.
    """
    cells = [list(head), *([visible(str(cell)) for cell in row] for row in rows)]
    widths = [max(width(row[i]) for row in cells) for i in range(len(head))]

    def space_left() -> int:
        return columns_max - sum(widths[1:]) - 2 * (len(widths) - 1)

    if columns_max:
        for name in spare:
            if space_left() >= min(widths[0], _FIRST_COLUMN_WANTED):
                break
            place = cells[0].index(name)
            del widths[place]
            for row in cells:
                del row[place]
        widths[0] = max(_FIRST_COLUMN_LEAST, min(widths[0], space_left()))
    lines = []
    for row in cells:
        first = cut(row[0], widths[0])
        line = first + " " * (widths[0] - width(first))
        lines.append("".join([line, *(f"  {cell:>{widths[i]}}" for i, cell in enumerate(row[1:], 1))]).rstrip())
    return lines


def shortened(text: str) -> str:
    """The beginning of a long text, for a column of a table."""
    return text if len(text) <= VALUE_SHOWN else text[: VALUE_SHOWN - 1] + "…"


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]], spare: Sequence[str] = ()) -> None:
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    print_text("\n".join(table(head, rows, columns, spare)))


# Progress


class Progress:
    """A progress bar on standard error, shown after 0.5 s if standard error is a terminal.

    Args:
        total_bytes: total amount of work; 0 if unknown.
        wanted: False for no bar (default True).
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
        """Removes the bar."""
        if self._shown:
            self._write("")

    def _write(self, text: str) -> None:
        print(f"\r{cut(text, shutil.get_terminal_size().columns - 1)}\x1b[K", end="", file=sys.stderr, flush=True)


def abandon_output() -> None:
    """Redirects standard output to /dev/null, or Python would try to flush to the closed pipe at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
