"""The word count: what map posts, reduce hears, and the sums are those of a plain count."""

from __future__ import annotations

import pydoc_data.topics
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.servers import ROOT, Daemon, Redis, listeners, wait_until

EXAMPLE = ROOT / "examples" / "mapreduce"
WORDS_AT_LEAST = 100_000


def real_text() -> str:
    """Python's own documentation, often enough to be long."""
    text = "\n".join(str(topic) for topic in pydoc_data.topics.topics.values())
    return text * (1 + WORDS_AT_LEAST // len(re.findall(r"\w+", text)))


@pytest.mark.parametrize("reduce_first", [True, False])
@pytest.mark.parametrize("what", ["words", "keys"])
def test_the_sums_are_those_of_a_plain_count(
    daemon: Daemon, redis: Redis, queue: str, private_folder: Path, what: str, reduce_first: bool
) -> None:
    text = real_text()
    (private_folder / "text.txt").write_text(text, "utf-8")
    found = re.findall(r"\w+", text.lower())
    assert len(found) >= WORDS_AT_LEAST
    expected = Counter(found) if what == "words" else Counter(c for c in text.lower() if c.isalpha())

    where = ["--url", daemon.url, "--queue", queue]
    reduce_command = [sys.executable, EXAMPLE / "reduce.py", *where]
    map_command = [sys.executable, EXAMPLE / "map.py", *where, *(["--keys"] if what == "keys" else [])]
    map_command.append(private_folder / "text.txt")
    if not reduce_first:
        subprocess.run(map_command, check=True, timeout=100)
    reducing = subprocess.Popen(reduce_command, stdout=subprocess.PIPE, text=True)
    if reduce_first:
        wait_until(lambda: listeners(redis, queue))
        subprocess.run(map_command, check=True, timeout=100)
    shown, _ = reducing.communicate(timeout=100)
    sums = {item: int(count) for count, item in (line.split("\t") for line in shown.splitlines())}
    assert sums == dict(expected)


def test_sums_of_a_stream_that_was_cut_off_are_not_shown(redis: Redis, queue: str, private_folder: Path) -> None:
    daemon = Daemon(private_folder / "d", redis=redis)
    command = [sys.executable, EXAMPLE / "reduce.py", "--url", daemon.url, "--queue", queue]
    reducing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: listeners(redis, queue))
    with daemon.client() as client:
        client.post(f"/q/{queue}", data={"value": '{"counts": {"a": 1}}'}).raise_for_status()
    daemon.stop()
    shown, complained = reducing.communicate(timeout=100)
    assert (reducing.returncode, shown) == (1, b"")
    assert complained.startswith(b"reduce: the stream ended")
