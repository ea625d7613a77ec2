#!/usr/bin/env python3
"""Reduce: listens on comet to the counts that map_keyfreq.py posts, and sums them up.

Shows consuming a live stream until its end is told, and not taking one that was cut off for complete.

    ./examples/mapreduce/reduce_keyfreq.py --top 20

Prints how often each word occurred, the most frequent first, when all pieces are there.
"""

from __future__ import annotations

import argparse
import json
import urllib.parse
import urllib.request
from collections import Counter


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("--url", default="http://127.0.0.1:8888", help="where RestMQ is")
    described.add_argument("--queue", default="keyfreq", help="the queue between map and reduce")
    described.add_argument("--top", type=int, default=None, help="show so many of the greatest sums only")
    given = described.parse_args()

    sums: Counter[str] = Counter()
    seen, expected = 0, None
    with urllib.request.urlopen(f"{given.url}/c/{urllib.parse.quote(given.queue, safe='')}") as stream:
        for line in stream:
            message = json.loads(json.loads(line)["value"])
            if "pieces" in message:
                expected = message["pieces"]
            else:
                sums.update(message["counts"])
                seen += 1
            if seen == expected:
                break
    if seen != expected:
        raise SystemExit(f"reduce_keyfreq: the stream ended after {seen} pieces; their sums would be wrong")
    for item, count in sums.most_common(given.top):
        print(f"{count}\t{item}")


if __name__ == "__main__":
    main()
