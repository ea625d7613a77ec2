#!/usr/bin/env python3
"""Trends: publishes posts on current topics as messages.

It used to read Twitter. Now it reads the public trends of a Mastodon instance (no account is needed), or a file of JSON
lines. It publishes {"subject": …, "author": …, "text": …} to the queue "twitter", as before. Open
http://localhost:8888/c/twitter in a browser, or listen with test_comet.py, and run this program from time to time.

Shows how to queue each message once, even if the program dies between sending a message and recording that it was sent.

    PYTHONPATH=. .venv/bin/python examples/twitter_trends.py https://mastodon.social     from a checkout
    python3 examples/twitter_trends.py posts.jsonl                                       if RestMQ is installed

Each line of the file is an object with subject, author and text. The file --seen records which posts of an instance
were read, so the next run continues from there. Exits with status 1 if a topic or a line was skipped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from restmq.client import Client
from restmq.errors import RestMQError

TRENDS, POSTS_A_TREND = 20, 40  # the maximum numbers that Mastodon returns at a time
ANSWER_BYTES_MAX = 16 << 20
ANSWER_SECONDS_MAX = 30
SEEN_MAX = 1000


class Text(HTMLParser):
    """The text of a post, which Mastodon sends as HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self._found: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "br" or (tag == "p" and self._found):
            self._found.append("\n")

    def handle_data(self, data: str) -> None:
        self._found.append(data)

    def __str__(self) -> str:
        return "".join(self._found)


def ask(instance: str, path: str, **parameters: Any) -> list[dict[str, Any]]:
    """Returns the instance's answer (https://docs.joinmastodon.org/methods/trends/, …/methods/timelines/)."""
    url = f"{instance.rstrip('/')}/api/v1/{path}?{urlencode(parameters)}"
    request = urllib.request.Request(url, headers={"User-Agent": "RestMQ example", "Accept": "application/json"})
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS_MAX) as answer:
        body = answer.read(ANSWER_BYTES_MAX + 1)
    found = json.loads(body) if len(body) <= ANSWER_BYTES_MAX else None
    if not isinstance(found, list):
        raise ValueError(f"the answer of {url} is not a list, or longer than {ANSWER_BYTES_MAX} bytes")
    return found


class Trends:
    """The public trends of an instance, and a record of posts read so far."""

    def __init__(self, instance: str, seen: Path) -> None:
        self._instance = instance
        self._file = seen
        self._seen: dict[str, str] = json.loads(seen.read_text("utf-8")) if seen.exists() else {}
        self.skipped = 0

    def posts(self) -> Iterator[tuple[dict[str, str], str]]:
        """Yields new posts, the oldest of each trend first, each with an idempotency key that never changes."""
        for trend in ask(self._instance, "trends/tags", limit=TRENDS):
            subject = trend["name"]
            place = f"{self._instance} {subject}"
            after = {"min_id": self._seen[place]} if place in self._seen else {}
            try:
                found = ask(self._instance, "timelines/tag/" + quote(subject, safe=""), limit=POSTS_A_TREND, **after)
            except urllib.error.HTTPError as refusal:
                print(f"twitter_trends: skipped {subject}: {refusal}", file=sys.stderr)
                self.skipped += 1
                continue
            for post in sorted(found, key=lambda post: int(post["id"])):
                author = post["account"]["acct"]
                shown = {"subject": subject, "author": author, "text": str(Text(post["content"]))}
                yield shown, hashlib.sha256(f"{place} {post['id']}".encode()).hexdigest()
                self._seen.pop(place, None)  # moves it to the end: SEEN_MAX drops the least recent topics
                self._seen[place] = post["id"]
            self._save()

    def _save(self) -> None:
        kept = dict(list(self._seen.items())[-SEEN_MAX:])
        part = self._file.with_name(self._file.name + ".part")
        part.write_text(json.dumps(kept, ensure_ascii=False, indent=1), "utf-8")
        part.replace(self._file)


class Lines:
    """A file of JSON lines, with the same interface."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.skipped = 0

    def posts(self) -> Iterator[tuple[dict[str, str], None]]:
        with open(0 if self._path == "-" else self._path, encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    said = json.loads(line)
                    yield {name: str(said[name]) for name in ("subject", "author", "text")}, None
                except (ValueError, TypeError, KeyError) as problem:
                    print(f"twitter_trends: line {number} is not a post: {problem!r}", file=sys.stderr)
                    self.skipped += 1


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("source", help="a Mastodon instance's URL, a file of JSON lines, or - for standard input")
    described.add_argument("--url", default="http://127.0.0.1:8888", help="URL of the RestMQ server")
    described.add_argument("--queue", default="twitter", help="queue to publish to (default: twitter)")
    described.add_argument("--seen", type=Path, default=Path("last_topic_ids.json"), help="record of posts read so far")
    given = described.parse_args()

    def note(problem: RestMQError, seconds: float) -> None:
        print(f"twitter_trends: {problem} Again in {seconds:.1f} s.", file=sys.stderr, flush=True)

    try:
        of_instance = given.source.startswith(("http://", "https://"))
        source = Trends(given.source, given.seen) if of_instance else Lines(given.source)
        with Client(given.url, on_retry=note) as client:
            for post, idempotency_key in source.posts():
                value = json.dumps(post, ensure_ascii=False)
                print(client.publish(given.queue, value, idempotency_key=idempotency_key), value, sep="\t", flush=True)
    except (OSError, ValueError, KeyError, TypeError, RestMQError) as problem:
        sys.exit(f"twitter_trends: {problem}")
    sys.exit(source.skipped > 0)


if __name__ == "__main__":
    main()
