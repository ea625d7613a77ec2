#!/usr/bin/env python3
"""Exits with 0 if the RestMQ server at a URL answers /healthz, otherwise with 1.

Without a URL it asks the port that process 1 of the container was started with (``--port`` or ``--endpoint``), else
8888. A failing check asks for a restart, which does not help while Redis is away: /readyz reports that.
"""

import re
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

SECONDS = 4
_OPTION = re.compile(r"\0--(?:port[\0=]|endpoint[\0=](tcp|ssl)(?::interface=[^:\0]+)?:(?:port=)?)(\d+)")


def url_of(command_line: str) -> str:
    """The URL of a server on this host with this command line, whose arguments are separated by NUL."""
    found = _OPTION.search(command_line)
    scheme, port = ("https" if found[1] == "ssl" else "http", found[2]) if found else ("http", "8888")
    return f"{scheme}://127.0.0.1:{port}"


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else url_of(Path("/proc/1/cmdline").read_text(errors="replace"))
    # The certificate names the server's public host, not 127.0.0.1.
    any_certificate = urllib.request.HTTPSHandler(context=ssl._create_unverified_context())  # noqa: S323
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), any_certificate)
    try:
        direct.open(f"{url}/healthz", timeout=SECONDS).close()
    except urllib.error.HTTPError as answer:
        sys.exit(f"healthcheck: {url} answers {answer.code} {answer.reason}")
    except OSError as problem:
        sys.exit(f"healthcheck: {url} does not answer: {problem}")


if __name__ == "__main__":
    main()
