#!/usr/bin/env python3
"""Requests: RestMQ from Python with nothing but the HTTP library that everybody has.

Shows text and bytes in and out, a long poll that waits for a message, and what errors look like.

    pip install requests
    python3 examples/test_request.py
    python3 examples/test_request.py --url http://queue.example.org photo.jpg
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from urllib.parse import quote

import requests

WAIT_SECONDS = 20
ANSWER_SECONDS_MAX = WAIT_SECONDS + 10


def main() -> None:
    described = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    described.add_argument("file", nargs="?", default=__file__, help="what to send as bytes (this program itself)")
    described.add_argument("--url", default="http://127.0.0.1:8888", help="where RestMQ is")
    described.add_argument("--queue", default="test_request", help="the queue to use")
    given = described.parse_args()
    try:
        show(f"{given.url}/q/{quote(given.queue, safe='')}", Path(given.file))
    except OSError as problem:  # those of requests are such, too
        raise SystemExit(f"test_request: {problem}") from None


def show(queue: str, file: Path) -> None:
    with requests.Session() as session:  # keeps its connection for all of them
        answer = session.post(queue, data={"value": "el requesto"}, timeout=ANSWER_SECONDS_MAX)
        answer.raise_for_status()
        print("put in:", answer.text.strip())

        # Waits for a message if there is none: 204 says that none came.
        answer = session.get(queue, params={"wait": WAIT_SECONDS}, timeout=ANSWER_SECONDS_MAX)
        answer.raise_for_status()
        print("taken: ", answer.json() if answer.status_code == 200 else "nothing")

        # Any body that is no form is the message itself, byte for byte.
        sent = file.read_bytes()
        headers = {"Content-Type": "application/octet-stream"}
        session.post(queue, data=sent, headers=headers, timeout=ANSWER_SECONDS_MAX).raise_for_status()
        answer = session.get(queue, headers={"Accept": "application/octet-stream"}, timeout=ANSWER_SECONDS_MAX)
        answer.raise_for_status()
        print("bytes: ", len(answer.content), "of", answer.headers["X-RestMQ-Key"], hashlib.sha256(sent).hexdigest())
        if answer.content != sent:
            raise SystemExit("test_request: another message was in the queue; name one that is empty with --queue")

        # What is refused is refused in JSON, with a reason.
        answer = session.post(queue, data={"value": "x", "ttl": "soon"}, timeout=ANSWER_SECONDS_MAX)
        print("refused:", answer.status_code, answer.json()["error"])


if __name__ == "__main__":
    main()
