"""The names of keys in Redis, which old data, users' scripts and other versions depend on."""

from __future__ import annotations

import json
import re
from binascii import crc_hqx
from pathlib import Path

import pytest

from restmq.store import keys, scripts
from restmq.store.connection import script_arguments

GOLDEN = json.loads(Path(__file__).with_name("names_in_one_redis.json").read_text())


def all_names(layout: keys.Layout, queue: str) -> dict[str, str]:
    """Everything that is in Redis for a queue, and what is there beside queues."""
    found = layout.for_queue(queue)
    names = {
        **found._asdict(),
        **{f"taps' {kind}": getattr(found.of_taps(), kind) for kind in ("channel", "flow", "held", "beside")},
        **{f"purging {number}": name for number, name in enumerate(found.being_dropped())},
        "stored": layout.stored(queue),
        "message": layout.stored_key(f"{queue}:17"),
        "idempotency": layout.idempotency(queue, "d" * 64),
        "daemon": layout.daemon_channel("0123456789abcdef", queue),
        "token": layout.token("t0ken"),
        "peers": layout.peers_channel(),
        "workers": layout.peers_channel("group"),
        "peer": layout.peer_channel("0123456789abcdef"),
        "worker counters": layout.worker_counters("group"),
    }
    return {name: stored.decode() for name, stored in names.items()}


@pytest.mark.parametrize("db", [0, 3])
@pytest.mark.parametrize("queue", ["test", "a b", "a:1", "ü/😀", "QUEUESET", "{1}y"])
def test_the_names_in_one_redis_never_change(queue: str, db: int) -> None:
    assert all_names(keys.one_redis(db), queue) == GOLDEN[f"{queue} in database {db}"]


STRANGE = ["test", "}odd", "{1}y", "{}", "{}x", "a}b{c", "{", "}", "ü/😀", "n" * 255]
#: These belong to no queue.
ALONE = {"token", "peers", "workers", "peer", "worker counters"}


def slot(key: str) -> int:
    """The slot of a key, by the Redis Cluster specification."""
    tag, closing, _ = key.partition("{")[2].partition("}")
    return crc_hqx((tag if tag and closing else key).encode(), 0) % 16384


@pytest.mark.parametrize("queue", STRANGE)
def test_all_names_of_a_queue_are_in_one_slot_of_a_cluster(queue: str) -> None:
    layout = keys.cluster()
    names = all_names(layout, queue)
    tag = layout.tag(queue).decode()
    assert re.fullmatch(r"\{(\d|[1-9]\d{1,3})\}", tag)
    assert all(name.startswith(tag) for kind, name in names.items() if kind not in ALONE)
    assert len({slot(name) for kind, name in names.items() if kind not in ALONE}) == 1
    assert all(re.match(r"\{\d+\}[A-Z]", names[kind]) for kind in ALONE)
    assert layout.shown(layout.stored(queue)) == queue
    assert layout.shown(layout.stored_key(f"{queue}:17")) == f"{queue}:17"


def test_a_queue_is_always_in_the_same_partition() -> None:
    where = {queue: keys.cluster().tag(queue) for queue in ("test", "}odd", "ü/😀")}
    assert where == {"test": b"{774}", "}odd": b"{869}", "ü/😀": b"{26}"}


def test_no_key_of_a_queue_looks_like_a_message() -> None:
    suffixes = [key.removeprefix(b"q:") for key in keys.one_redis().for_queue("q") if key.startswith(b"q:")]
    assert len(suffixes) == len(set(suffixes)) > 5
    assert not [suffix for suffix in suffixes if suffix.isdigit()]


LUA = Path(scripts.__file__).parent.parent / "queues" / "lua"
SCRIPTS = sorted(path.stem for path in LUA.glob("[a-z]*.lua"))
WORDS_OF_LUA = {"and", "elseif", "function", "if", "in", "ipairs", "not", "or", "pairs", "pcall", "return"}
WORDS_OF_LUA |= {"tonumber", "tostring", "type", "unpack", "until", "while"}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("is_partitioned", [False, True])
@pytest.mark.parametrize("may_be_fifo", [False, True])
def test_a_script_defines_all_names_that_it_uses(name: str, is_partitioned: bool, may_be_fifo: bool) -> None:
    script = scripts.load(name, is_partitioned, may_be_fifo)
    assert "include:" not in script.source.decode()
    text = re.sub(r"--.*|'[^']*'", "", script.source.decode())
    defined = re.findall(r"\b(?:local(?: function)?|function|for)\s+([\w, ]+)|\bfunction[ \w]*\(([\w, ]*)\)", text)
    known = {word.strip() for names in defined for part in names for word in part.split(",")} | {"KEYS", "ARGV"}
    constants = set(re.findall(r"\b[A-Z][A-Z_]+\b", text))
    functions = set(re.findall(r"(?<![.\w])([a-z_]+)\(", text)) - WORDS_OF_LUA
    assert (constants | functions) - known == set()


def test_a_script_gets_the_keys_that_it_names_in_capitals_and_no_others() -> None:
    script = scripts.load("length", True)
    assert set(script.keys) == {"ready", "expiring"}
    assert script.source.startswith(b"local READY, EXPIRING = KEYS[2], KEYS[3]\n")
    assert scripts.load("postpone", True).keys == ()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_on_one_redis_makes_the_names_of_its_keys(name: str) -> None:
    script, names = scripts.load(name, db=3), keys.one_redis(3).for_queue("a b")
    assert script.keys == ()
    for words, values in re.findall(r"^local ([A-Z_, ]+) = ((?:'|QUEUE ).*)$", script.source.decode(), re.MULTILINE):
        for word, value in zip(words.split(", "), values.split(", "), strict=True):
            made = value.replace("QUEUE ..", "'a b' ..").replace(".. QUEUE", ".. 'a b'").replace("' .. '", "")
            if word.lower() in names._fields:
                assert made.strip("'").encode() == getattr(names, word.lower())


@pytest.mark.parametrize("name", ["ack", "add", "attend", "extend", "lease", "release", "take"])
def test_only_a_queue_that_may_be_a_fifo_queue_pays_for_them(name: str) -> None:
    of_fifo = {"sqs", "ordered", "grouped", "groups", "locked", "sent_ids", "sent_times"}
    assert "sqs" in scripts.load(name, True, may_be_fifo=True).keys
    assert of_fifo & set(scripts.load(name, True).keys) == set()


#: These use no key, so they run on any node; `groups` is called for FIFO queues alone, whose part has keys.
WITHOUT_KEYS = {"check", "groups", "ready"}


@pytest.mark.parametrize("name", sorted(set(SCRIPTS) - WITHOUT_KEYS))
def test_a_script_on_a_cluster_declares_first_a_key_that_never_exists(name: str) -> None:
    """Without it, a script that begins while its slot moves could stop in its middle."""
    layout, script = keys.cluster(), scripts.load(name, True)
    arguments = script_arguments(layout, [getattr(layout.for_queue("test"), key) for key in script.keys or ("due",)])
    assert arguments.wire.split(b"\r\n")[3] == layout.tag("test") + b"RESTMQ-GUARD"
    assert layout.tags[arguments.partition] == layout.tag("test")
    source = script.source.decode()
    if script.keys:
        assert set(map(int, re.findall(r"KEYS\[(\d+)\]", source))) == set(range(2, 2 + len(script.keys)))
    else:
        assert "table.remove(KEYS, 1)" in source.splitlines()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_publishes_on_a_cluster_only_to_the_node_of_its_slot(name: str) -> None:
    source = scripts.load(name, True).source.decode()
    assert not re.search(r"call\('(PUBLISH|SPUBLISH)'|'NUMSUB'", source)
    assert ("call(PUBLISH," in source) == ("'SPUBLISH'" in source)
    assert ("NUMSUB, " in source) == ("'SHARDNUMSUB'" in source)
