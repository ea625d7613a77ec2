#!/usr/bin/env python3
"""Reduce: listens on comet to the counts that map.py posts, and sums them up.

Shows a consumer of a live stream that needs only Python: each message is one line of JSON.

    ./examples/mapreduce/reduce.py               until SIGINT
    ./examples/mapreduce/reduce.py --files 20    until 20 files are counted

Prints each file's count, and the total so far.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.parse
import urllib.request
from http.client import HTTPException


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--url", default="http://127.0.0.1:8888", help="URL of the RestMQ server")
    described.add_argument("--queue", default="reducer", help="queue between map and reduce")
    described.add_argument("--files", type=int, help="number of files after which to end (default: run until SIGINT)")
    given = described.parse_args()

    total = seen = 0
    try:
        with urllib.request.urlopen(f"{given.url}/c/{urllib.parse.quote(given.queue, safe='')}") as stream:
            for line in stream:
                try:
                    counted = json.loads(json.loads(line)["value"])
                    name, count = counted["filename"], int(counted["count"])
                except (ValueError, TypeError, KeyError):
                    print(f"reduce: skipped an invalid message: {line!r}", file=sys.stderr, flush=True)
                    continue
                total += count
                seen += 1
                print(f"{name}: {count}, total: {total}", flush=True)
                if seen == given.files:
                    return
    except KeyboardInterrupt:
        return
    except (OSError, ValueError, HTTPException) as problem:
        sys.exit(f"reduce: {problem}, after {seen} files")
    sys.exit(f"reduce: the stream ended after {seen} files")


if __name__ == "__main__":
    main()
