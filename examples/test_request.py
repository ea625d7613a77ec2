#!/usr/bin/env python3
"""Requests: RestMQ from Python with the HTTP library ``requests`` only.

Shows how to publish and take text and bytes, a long poll, and an error.

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
    described.add_argument("file", nargs="?", default=__file__, help="file to send as bytes (default: this program)")
    described.add_argument("--url", default="http://127.0.0.1:8888", help="URL of the RestMQ server")
    described.add_argument("--queue", default="test_request", help="queue to use (default: test_request)")
    given = described.parse_args()
    try:
        show(f"{given.url}/q/{quote(given.queue, safe='')}", Path(given.file))
    except OSError as problem:  # includes the exceptions of requests
        raise SystemExit(f"test_request: {problem}") from None


def show(queue: str, file: Path) -> None:
    with requests.Session() as session:  # uses one connection for all requests
        answer = session.post(queue, data={"value": "el requesto"}, timeout=ANSWER_SECONDS_MAX)
        answer.raise_for_status()
        print("published:", answer.text.strip())

        # Waits if the queue is empty; 204 means that no message came.
        answer = session.get(queue, params={"wait": WAIT_SECONDS}, timeout=ANSWER_SECONDS_MAX)
        answer.raise_for_status()
        print("taken:", answer.json() if answer.status_code == 200 else "nothing")

        # A body that is not a form is the message itself, byte for byte.
        sent = file.read_bytes()
        headers = {"Content-Type": "application/octet-stream"}
        session.post(queue, data=sent, headers=headers, timeout=ANSWER_SECONDS_MAX).raise_for_status()
        answer = session.get(queue, headers={"Accept": "application/octet-stream"}, timeout=ANSWER_SECONDS_MAX)
        answer.raise_for_status()
        print("bytes:", len(answer.content), "of", answer.headers["X-RestMQ-Key"], hashlib.sha256(sent).hexdigest())
        if answer.content != sent:
            raise SystemExit("test_request: another message was in the queue. Name an empty queue with --queue.")

        # An error is JSON with a reason.
        answer = session.post(queue, data={"value": "x", "ttl": "soon"}, timeout=ANSWER_SECONDS_MAX)
        print("rejected:", answer.status_code, answer.json()["error"])


if __name__ == "__main__":
    main()
