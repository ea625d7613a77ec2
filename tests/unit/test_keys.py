"""The names that lie in Redis: old data, scripts of users and other versions count on them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from restmq import keys, scripts


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
    suffixes = [key.removeprefix(b"q:") for key in keys.for_queue("q").in_order() if key.startswith(b"q:")]
    assert len(suffixes) == len(set(suffixes)) > 5
    assert not [suffix for suffix in suffixes if suffix.isdigit()]


def test_scripts_name_the_keys_in_the_order_in_which_they_are_given() -> None:
    prelude = (Path(scripts.__file__).parent / "lua" / "_prelude.lua").read_text()
    named = re.search(r"local ([A-Z_, ]+?)=?\s*=\s*unpack\(KEYS\)", prelude)
    assert named is not None
    lua_names = [name.strip().lower() for name in named[1].split(",")]
    python_names = list(keys.QueueKeys.__slots__)
    assert len(lua_names) == len(python_names)
    differing = [pair for pair in zip(lua_names, python_names, strict=True) if pair[0] != pair[1]]
    assert differing == [("queues", "queue_set")]
