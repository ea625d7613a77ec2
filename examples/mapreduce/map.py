#!/usr/bin/env python3
"""Map: counts the words of files, and posts each file's count to a queue.

Shows a producer over plain HTTP that needs only Python. reduce.py sums up the counts. map_keyfreq.py and
reduce_keyfreq.py count how often each word occurs.

    split -l 1000 book.txt book-part-
    ./examples/mapreduce/reduce.py --files 2
    ./examples/mapreduce/map.py book-part-aa book-part-ab          in another terminal; several may run at once

You can start reduce.py later, too: counts wait in the queue until somebody listens.
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
    described.add_argument("files", nargs="+", metavar="file", help="a text file in UTF-8")
    described.add_argument("--url", default="http://127.0.0.1:8888", help="URL of the RestMQ server")
    described.add_argument("--queue", default="reducer", help="queue between map and reduce")
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
