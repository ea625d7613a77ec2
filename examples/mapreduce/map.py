#!/usr/bin/env python3
"""Map: counts the words of files, and posts each file's count to a queue.

Shows producing by plain HTTP, with nothing but Python. reduce.py sums up; map_keyfreq.py and reduce_keyfreq.py do the
same for how often each word occurs.

    split -l 1000 book.txt book-part-
    ./examples/mapreduce/reduce.py --files 2
    ./examples/mapreduce/map.py book-part-aa book-part-ab          in another terminal, or several of it at once

Start reduce.py first or later, as you like: what nobody hears yet waits in the queue.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.parse
import urllib.request
from http.client import HTTPException

ANSWER_SECONDS_MAX = 30


def words_in(path: str) -> int:
    with open(path, encoding="utf-8", errors="replace") as text:
        return sum(len(line.split()) for line in text)


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("files", nargs="+", metavar="file", help="a text in UTF-8")
    described.add_argument("--url", default="http://127.0.0.1:8888", help="where RestMQ is")
    described.add_argument("--queue", default="reducer", help="the queue between map and reduce")
    given = described.parse_args()

    try:
        for path in given.files:
            counted = {"filename": path, "count": words_in(path)}
            form = urllib.parse.urlencode({"queue": given.queue, "value": json.dumps(counted)}).encode()
            urllib.request.urlopen(f"{given.url}/", form, timeout=ANSWER_SECONDS_MAX).close()
            print(f"sent: {path}: {counted['count']}", flush=True)
    except (OSError, ValueError, HTTPException) as problem:
        sys.exit(f"map: {problem}")


if __name__ == "__main__":
    main()
