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
WORDS_OF_LUA = {"and", "elseif", "function", "if", "in", "ipairs", "not", "or", "pairs", "pcall", "return", "tonumber"}
WORDS_OF_LUA |= {"tostring", "type", "unpack", "until", "while"}


@pytest.mark.parametrize("name", sorted(path.stem for path in LUA.glob("[a-z]*.lua")))
def test_a_script_defines_all_names_that_it_uses(name: str) -> None:
    script = scripts.load(name)
    assert "include:" not in script.source.decode()
    text = re.sub(r"--.*|'[^']*'", "", script.source.decode())
    defined = re.findall(r"\b(?:local(?: function)?|function|for)\s+([\w, ]+)|\bfunction[ \w]*\(([\w, ]*)\)", text)
    known = {word.strip() for names in defined for part in names for word in part.split(",")} | {"KEYS", "ARGV"}
    constants = set(re.findall(r"\b[A-Z][A-Z_]+\b", text))
    functions = set(re.findall(r"(?<![.\w])([a-z_]+)\(", text)) - WORDS_OF_LUA
    assert (constants | functions) - known == set()


def test_a_script_gets_the_keys_that_it_names_in_capitals_and_no_others() -> None:
    assert set(scripts.load("length").keys) == {"status", "policy", "settings", "ready", "expiring"}
    assert scripts.load("length").source.startswith(b"local READY, STATUS, POLICY, EXPIRING, SETTINGS = unpack(KEYS)")
    assert scripts.load("postpone").keys == ()
