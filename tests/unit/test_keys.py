"""The names of keys in Redis, which old data, users' scripts and other versions depend on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from restmq.store import keys, scripts


@pytest.mark.parametrize("queue", ["test", "a b", "a:1", "ü/😀", "QUEUESET"])
def test_the_names_of_the_first_restmq_are_kept(queue: str) -> None:
    found = keys.for_queue(queue)
    assert found.queue_set.decode() == "QUEUESET"
    assert found.number.decode() == f"{queue}:UUID"
    assert found.ready.decode() == f"{queue}:queue"
    assert found.policy.decode() == f"{queue}:queuepolicy"
    assert found.status.decode() == f"queuestat::{queue}"
    assert found.channel.decode() == f"{queue}:PUBSUB"
    assert keys.token("t0ken").decode() == "AUTHKEY:t0ken"


def test_no_key_of_a_queue_looks_like_a_message() -> None:
    suffixes = [key.removeprefix(b"q:") for key in keys.for_queue("q") if key.startswith(b"q:")]
    assert len(suffixes) == len(set(suffixes)) > 5
    assert not [suffix for suffix in suffixes if suffix.isdigit()]


LUA = Path(scripts.__file__).parent.parent / "queues" / "lua"


@pytest.mark.parametrize("name", sorted(path.stem for path in LUA.glob("[a-z]*.lua")))
def test_a_script_has_all_the_keys_that_it_uses(name: str) -> None:
    script = scripts.load(name)
    text = re.sub(r"--.*|'[^']*'", "", script.source.decode())
    defined = set(re.findall(r"\b(?:local|function)\s+([\w, ]+)", text))
    defined = {part.strip() for names in defined for part in names.split(",")}
    used = set(re.findall(r"\b[A-Z][A-Z_]+\b", text)) - {"KEYS", "ARGV"}
    known = {key.upper() for key in script.keys}
    if name not in ("queue_rows", "due_queues"):  # these are about many queues
        assert used - defined <= known
    assert "include:" not in script.source.decode().replace("-- include: _name", "")
