#!/usr/bin/env python3
"""Map: counts the words of a text, piece by piece, and posts each piece's counts to a queue.

Shows producing by plain HTTP. Start reduce.py first or later, as you like: what nobody hears yet waits in the queue.

    ./map.py text.txt            counts words
    ./map.py --keys text.txt     counts letters ("keyfreq")
"""

from __future__ import annotations

import argparse
import json
import re
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator

LINES_A_PIECE = 200


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))


def letters(text: str) -> Counter[str]:
    return Counter(character for character in text.lower() if character.isalpha())


def pieces(path: str) -> Iterator[str]:
    """The text, some lines at a time."""
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
    urllib.request.urlopen(f"{url}/q/{urllib.parse.quote(queue, safe='')}", form).close()


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("text", help="a file in UTF-8")
    described.add_argument("--keys", action="store_true", help="count letters instead of words")
    described.add_argument("--url", default="http://127.0.0.1:8888", help="where RestMQ is")
    described.add_argument("--queue", default="mapreduce", help="the queue between map and reduce")
    given = described.parse_args()

    count = letters if given.keys else words
    posted = 0
    for piece in pieces(given.text):
        post(given.url, given.queue, {"counts": count(piece)})
        posted += 1
    post(given.url, given.queue, {"pieces": posted})  # how many reduce has to wait for


if __name__ == "__main__":
    main()
