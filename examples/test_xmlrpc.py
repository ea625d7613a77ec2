#!/usr/bin/env python3
"""XML-RPC: RestMQ's two methods, ``set`` and ``get``, with Python's own library.

Shows that a value comes back unchanged: text as a string, and text that XML cannot represent as bytes (sent as base64).

    python3 examples/test_xmlrpc.py hello world      publishes both, then takes all messages of the queue
    python3 examples/test_xmlrpc.py --file photo.jpg
"""

from __future__ import annotations

import argparse
import sys
import xmlrpc.client
from http.client import HTTPException
from pathlib import Path


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("values", nargs="*", metavar="value", help="a message to publish")
    described.add_argument("--file", type=Path, action="append", default=[], help="file to publish as a message")
    described.add_argument("--url", default="http://127.0.0.1:8888", help="URL of the RestMQ server")
    described.add_argument("--queue", default="test_xmlrpc", help="queue to use (default: test_xmlrpc)")
    given = described.parse_args()

    try:
        # get answers nil for an empty queue; use_builtin_types returns base64 as bytes.
        with xmlrpc.client.ServerProxy(f"{given.url}/xmlrpc", allow_none=True, use_builtin_types=True) as server:
            for value in [*given.values, *(file.read_bytes() for file in given.file)]:
                print("set", server.set(given.queue, value))
            while (message := server.get(given.queue)) is not None:
                print("get", message["key"], repr(message["value"]))  # type: ignore[index,call-overload]
    except xmlrpc.client.Fault as fault:
        sys.exit(f"test_xmlrpc: {fault.faultString}")
    except (OSError, HTTPException, xmlrpc.client.ProtocolError) as problem:
        sys.exit(f"test_xmlrpc: {problem}")


if __name__ == "__main__":
    main()
