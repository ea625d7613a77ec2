"""Signals that end a program: they stop a client in an orderly way."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

_caught = signal.SIGINT


def interrupted_status() -> int:
    """The exit status of a program that a signal ended early, as shells have it: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + _caught


@contextlib.contextmanager
def stopping(stop: Callable[[], None], once: bool = True) -> Iterator[None]:
    """Within the block, SIGINT and SIGTERM call ``stop`` in a separate thread.

    A plain Python signal handler runs only when the main thread executes bytecode. A signal would go unnoticed if it
    arrived just before the main thread blocks, or in another thread.

    Args:
        once: True (the default) if a second signal ends the program in the usual way.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)

    def listen() -> None:
        while os.read(read_end, 1):
            stop()

    def handle(number: int, _frame: object) -> None:
        global _caught
        _caught = signal.Signals(number)
        if once:
            restore()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    previous_fd = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    try:
        yield
    finally:
        restore()
        signal.set_wakeup_fd(previous_fd)
        os.close(write_end)
        listener.join()
        os.close(read_end)
