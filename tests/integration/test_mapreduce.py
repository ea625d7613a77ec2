"""Map and reduce: reduce gets the messages of map, and its sums equal a simple count."""

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
    """Python's own documentation, repeated until it is long."""
    text = "\n".join(str(topic) for topic in pydoc_data.topics.topics.values())
    return text * (1 + WORDS_AT_LEAST // len(re.findall(r"\w+", text)))


@pytest.mark.parametrize("reduce_first", [True, False])
def test_the_word_counts_equal_a_simple_count(
    daemon: Daemon, redis: Redis, queue: str, private_folder: Path, reduce_first: bool
) -> None:
    text = real_text()
    (private_folder / "text.txt").write_text(text, "utf-8")
    found = re.findall(r"\w+", text.lower())
    assert len(found) >= WORDS_AT_LEAST

    where = ["--url", daemon.url, "--queue", queue]
    map_command = [sys.executable, EXAMPLE / "map_keyfreq.py", *where, private_folder / "text.txt"]
    if not reduce_first:
        subprocess.run(map_command, check=True, timeout=100)
    reducing = subprocess.Popen(
        [sys.executable, EXAMPLE / "reduce_keyfreq.py", *where], stdout=subprocess.PIPE, text=True
    )
    if reduce_first:
        wait_until(lambda: listeners(redis, queue))
        subprocess.run(map_command, check=True, timeout=100)
    shown, _ = reducing.communicate(timeout=100)
    sums = {item: int(count) for count, item in (line.split("\t") for line in shown.splitlines())}
    assert sums == dict(Counter(found))


@pytest.mark.parametrize("reduce_first", [True, False])
def test_the_words_of_many_files_are_counted_by_several_maps_at_once(
    daemon: Daemon, redis: Redis, queue: str, private_folder: Path, reduce_first: bool
) -> None:
    lines = real_text().splitlines(keepends=True)
    parts = [private_folder / f"part-{n}" for n in range(10)]
    for n, part in enumerate(parts):
        part.write_text("".join(lines[n::10]), "utf-8")

    where = ["--url", daemon.url, "--queue", queue]
    reduce_command = [sys.executable, EXAMPLE / "reduce.py", *where, "--files", "10"]
    map_commands = [[sys.executable, EXAMPLE / "map.py", *where, *half] for half in (parts[:5], parts[5:])]

    def map_all() -> None:
        maps = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in map_commands]
        assert [each.wait(100) for each in maps] == [0, 0]

    if not reduce_first:
        map_all()
    reducing = subprocess.Popen(reduce_command, stdout=subprocess.PIPE, text=True)
    if reduce_first:
        wait_until(lambda: listeners(redis, queue))
        map_all()
    shown, _ = reducing.communicate(timeout=100)
    assert reducing.returncode == 0
    assert {line.partition(":")[0] for line in shown.splitlines()} == {str(part) for part in parts}
    assert shown.splitlines()[-1].endswith(f"total: {sum(len(line.split()) for line in lines)}")


def test_sums_of_a_stream_that_was_cut_off_are_not_shown(redis: Redis, queue: str, private_folder: Path) -> None:
    daemon = Daemon(private_folder / "d", redis=redis)
    command = [sys.executable, EXAMPLE / "reduce_keyfreq.py", "--url", daemon.url, "--queue", queue]
    reducing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: listeners(redis, queue))
    with daemon.client() as client:
        client.post(f"/q/{queue}", data={"value": '{"counts": {"a": 1}}'}).raise_for_status()
    daemon.stop()
    shown, complained = reducing.communicate(timeout=100)
    assert (reducing.returncode, shown) == (1, b"")
    assert complained.startswith(b"reduce_keyfreq: the stream ended")
