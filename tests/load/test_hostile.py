"""A short run of the hostile inputs; ``python -m tests.load.hostile --seconds 120`` is the long run."""

from __future__ import annotations

from pathlib import Path

from tests.load import inputs
from tests.load.hostile import attack, make_queues, options
from tests.load.measuring import target

BYTES = 1_000_000


def test_hostile_inputs_all_at_once_are_answered_and_the_server_goes_on(private_folder: Path) -> None:
    sent = {
        "deflate": inputs.deflate_bombs(BYTES),
        "frames": inputs.small_frames(2000),
        "pipelined": inputs.pipelined(200),
        "xml": inputs.large_xml(BYTES),
        "json": inputs.large_json(BYTES),
        "ndjson": inputs.large_lines(BYTES),
        "forms": inputs.large_forms(BYTES),
        "passwords": inputs.wrong_passwords(20),
        "queues": inputs.many_queues(),
    }
    with target(*options(private_folder)) as server:
        make_queues(server.store, 2000)
        found = attack(server, sent, seconds=1, last_answers_seconds=120)
    print(found)
    assert not found.wrong
    for name, answers in found.answers.items():
        assert answers.total() >= (sent[name].clients if name in sent else 1)
        assert "unfinished" not in answers, name
