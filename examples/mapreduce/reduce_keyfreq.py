#!/usr/bin/env python3
"""Reduce: listens on comet to the counts that map_keyfreq.py posts, and sums them up.

Shows a consumer of a live stream that knows when it has everything, and reports a stream that was cut off.

    ./examples/mapreduce/reduce_keyfreq.py --top 20

Prints the count of each word, the most frequent first, when it has all pieces.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.parse
import urllib.request
from collections import Counter
from http.client import HTTPException


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--url", default="http://127.0.0.1:8888", help="URL of the RestMQ server")
    described.add_argument("--queue", default="keyfreq", help="queue between map and reduce")
    described.add_argument("--top", type=int, default=None, help="number of words to print (default: all)")
    given = described.parse_args()

    sums: Counter[str] = Counter()
    seen, expected = 0, None
    try:
        with urllib.request.urlopen(f"{given.url}/c/{urllib.parse.quote(given.queue, safe='')}") as stream:
            for line in stream:
                try:
                    message = json.loads(json.loads(line)["value"])
                    if "pieces" in message:
                        expected = int(message["pieces"])
                    else:
                        sums.update({word: int(count) for word, count in message["counts"].items()})
                        seen += 1
                except (ValueError, TypeError, KeyError, AttributeError):
                    print(f"reduce_keyfreq: skipped an invalid message: {line!r}", file=sys.stderr, flush=True)
                if seen == expected:
                    break
    except (OSError, ValueError, HTTPException) as problem:
        sys.exit(f"reduce_keyfreq: {problem}, after {seen} pieces")
    if seen != expected:
        sys.exit(f"reduce_keyfreq: the stream ended after {seen} pieces, before all were there")
    for item, count in sums.most_common(given.top):
        print(f"{count}\t{item}")


if __name__ == "__main__":
    main()
