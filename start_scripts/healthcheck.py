#!/usr/bin/env python3
"""Exits with 0 if the RestMQ server at a URL (default: http://127.0.0.1:8888) and its store answer, otherwise with 1.

It requests /readyz, which checks the store and needs no password.
"""

import sys
import urllib.error
import urllib.request

SECONDS = 4


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8888"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        direct.open(f"{url}/readyz", timeout=SECONDS).close()
    except urllib.error.HTTPError as answer:
        sys.exit(f"healthcheck: {url} answers {answer.code} {answer.reason}")
    except OSError as problem:
        sys.exit(f"healthcheck: {url} does not answer: {problem}")


if __name__ == "__main__":
    main()
