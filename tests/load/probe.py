"""A second client that asks for /healthz every 20 ms: ``python -m tests.load.probe PORT PID``, until stdin ends.

It prints JSON: for requests on a kept connection and on new connections, the milliseconds that each waited, and those
in which the server's process used a CPU meanwhile. On a machine that has other work, the second figure is the
server's own part of the wait. An answer that does not come within a minute counts as ``silent``.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import time
from pathlib import Path

EVERY_SECONDS = 0.02
HANG_SECONDS = 60.0
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def cpu_seconds(process_id: int) -> float:
    spent = 0
    for task in Path(f"/proc/{process_id}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def ask(port: int, connection: socket.socket | None) -> socket.socket | None:
    """Asks on that connection, or on a new one. Returns the connection; None if there was no answer."""
    try:
        connection = connection or socket.create_connection(("127.0.0.1", port), HANG_SECONDS)
        connection.sendall(REQUEST)
        received = b""
        while not received.endswith(b"}\r\n"):
            more = connection.recv(4096)
            if not more:
                return None
            received += more
    except OSError:
        return None
    return connection if received.startswith(b"HTTP/1.1 200 ") else None


def main() -> None:
    port, process_id = map(int, sys.argv[1:])
    waits: dict[str, tuple[list[float], list[float]]] = {"kept": ([], []), "new": ([], [])}
    kept: socket.socket | None = None
    number = silent = 0
    while not select.select([sys.stdin], [], [], EVERY_SECONDS)[0]:
        number += 1
        name = "new" if number % 2 else "kept"
        spent, began = cpu_seconds(process_id), time.monotonic()
        answered = ask(port, kept if name == "kept" else None)
        waited = time.monotonic() - began
        silent += answered is None
        if name == "kept":
            kept = answered
        elif answered is not None:
            answered.close()
        busy = min(waited, cpu_seconds(process_id) - spent)
        for values, value in zip(waits[name], (waited, busy), strict=True):
            values.append(round(1000 * value, 2))
    print(json.dumps({**waits, "silent": silent}))


if __name__ == "__main__":
    main()
