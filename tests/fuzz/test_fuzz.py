"""A short fuzz run: the whole corpus, and some mutations of it, the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.fuzz_http import Fuzz, open_descriptors
from tests.servers import Daemon, Redis, stopping


@pytest.fixture
def fuzz(private_folder: Path, redis: Redis) -> Iterator[Fuzz]:
    """A run against its own daemon, whose log and descriptors are checked."""
    with stopping(Daemon(private_folder, redis=redis)) as daemon:
        yield Fuzz(daemon)


def test_the_server_survives_every_input_of_the_corpus(fuzz: Fuzz) -> None:
    descriptors = open_descriptors(fuzz.daemon)
    assert len(fuzz.inputs) > 30
    fuzz.whole_corpus()
    fuzz.check_alive(descriptors)
    fuzz.check_log()
    assert fuzz.problems == []
    assert fuzz.statuses["400"] > 10 and fuzz.statuses["200"] > 5


def test_the_server_survives_some_hundred_mutations(fuzz: Fuzz) -> None:
    descriptors = open_descriptors(fuzz.daemon)
    fuzz.mutations("a short pass", rounds=300)
    fuzz.check_alive(descriptors)
    fuzz.check_log()
    assert fuzz.problems == []
    assert fuzz.rounds == 300
