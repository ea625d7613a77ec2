#!/usr/bin/env python3
"""Map: counts how often each word of a text occurs, piece by piece, and posts each piece's counts to a queue.

Shows how to mark the end of a job that is sent in pieces: the last message contains the number of pieces.

    ./examples/mapreduce/reduce_keyfreq.py --top 20
    ./examples/mapreduce/map_keyfreq.py book.txt          in another terminal

You can start reduce_keyfreq.py later, too: counts wait in the queue until somebody listens.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPException

LINES_A_PIECE = 200
ANSWER_SECONDS_MAX = 30


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))


def pieces(path: str) -> Iterator[str]:
    """Yields the text in pieces of LINES_A_PIECE lines."""
    with open(path, encoding="utf-8") as text:
        lines: list[str] = []
        for line in text:
            lines.append(line)
            if len(lines) == LINES_A_PIECE:
                yield "".join(lines)
                lines = []
        if lines:
            yield "".join(lines)


def post(url: str, queue: str, value: object) -> None:
    form = urllib.parse.urlencode({"value": json.dumps(value)}).encode()
    urllib.request.urlopen(f"{url}/q/{urllib.parse.quote(queue, safe='')}", form, timeout=ANSWER_SECONDS_MAX).close()


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("text", help="a text file in UTF-8")
    described.add_argument("--url", default="http://127.0.0.1:8888", help="URL of the RestMQ server")
    described.add_argument("--queue", default="keyfreq", help="queue between map and reduce")
    given = described.parse_args()

    posted = 0
    try:
        for piece in pieces(given.text):
            post(given.url, given.queue, {"counts": words(piece)})
            posted += 1
        post(given.url, given.queue, {"pieces": posted})  # the number of pieces that reduce_keyfreq.py must receive
    except (OSError, ValueError, HTTPException) as problem:
        sys.exit(f"map_keyfreq: {problem}")


if __name__ == "__main__":
    main()
