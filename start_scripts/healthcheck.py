#!/usr/bin/env python3
"""Exit status 0 if the RestMQ server at a URL (default: http://127.0.0.1:8888) and its store answer, else 1.

It asks /readyz, which asks the store and is open to all: no password is needed.
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
