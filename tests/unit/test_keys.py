"""The names of keys in Redis, which old data, users' scripts and other versions depend on."""

from __future__ import annotations

import json
import re
from binascii import crc_hqx
from pathlib import Path

import pytest

from restmq.queues.base import queue_arguments
from restmq.store import keys, scripts

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
        "samples": layout.samples,
    }
    return {name: stored.decode() for name, stored in names.items()}


@pytest.mark.parametrize("db", [0, 3])
@pytest.mark.parametrize("queue", ["test", "a b", "a:1", "ü/😀", "QUEUESET", "{1}y"])
def test_the_names_in_one_redis_never_change(queue: str, db: int) -> None:
    assert all_names(keys.one_redis(db), queue) == GOLDEN[f"{queue} in database {db}"]


STRANGE = ["test", "}odd", "{1}y", "{}", "{}x", "a}b{c", "{", "}", "ü/😀", "n" * 255]
#: These belong to no queue.
ALONE = {"token", "peers", "workers", "peer", "worker counters", "samples"}


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
    functions = set(re.findall(r"(?<![.:\w])([a-z_]+)\(", text)) - WORDS_OF_LUA
    assert (constants | functions) - known == set()


def test_a_script_makes_the_keys_that_it_names_in_capitals_and_no_others() -> None:
    made = b"local READY, EXPIRING = QUEUE .. ':queue', QUEUE .. ':expiring'\n"
    assert scripts.load("length").source.startswith(b"local QUEUE = ARGV[1]\n" + made)
    assert scripts.load("length", True).source.startswith(b"local QUEUE = ARGV[1]\n" + made)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("layout", [keys.one_redis(3), keys.cluster()], ids=["one Redis", "cluster"])
def test_a_script_makes_the_names_of_its_keys(name: str, layout: keys.Layout) -> None:
    script = scripts.load(name, layout.is_partitioned, db=layout.db)
    names = layout.for_queue("a b")
    known = {"QUEUE": layout.stored("a b"), "KEYS[1]": layout.tag("a b")}
    for words, values in re.findall(r"^local ([A-Z_, ]+) = (.*)$", script.source.decode(), re.MULTILINE):
        for word, value in zip(words.split(", "), values.split(", "), strict=True):
            if word.lower() in names._fields:
                parts = value.split(" .. ")
                made = b"".join(known[part] if part in known else part.strip("'").encode() for part in parts)
                assert made == getattr(names, word.lower())


@pytest.mark.parametrize("name", ["ack", "add", "attend", "extend", "lease", "release", "take"])
def test_only_a_queue_that_may_be_a_fifo_queue_pays_for_them(name: str) -> None:
    of_fifo = {"SQS", "ORDERED", "GROUPED", "GROUPS", "LOCKED", "SENT_IDS", "SENT_TIMES"}

    def named(may_be_fifo: bool) -> set[str]:
        source = scripts.load(name, may_be_fifo=may_be_fifo).source.decode()
        made = re.search(r"^local QUEUE = .*\nlocal (.*) = ", source, re.MULTILINE)
        assert made
        return of_fifo & set(made[1].split(", "))

    assert "SQS" in named(may_be_fifo=True)
    assert not named(may_be_fifo=False)


#: These use no key, so they run on any node; `groups` is called for FIFO queues alone, whose part has keys.
WITHOUT_KEYS = {"check", "groups", "ready"}


@pytest.mark.parametrize("name", sorted(set(SCRIPTS) - WITHOUT_KEYS))
def test_a_script_on_a_cluster_declares_a_key_that_never_exists(name: str) -> None:
    """Otherwise, a script that begins while its slot moves could stop in its middle."""
    _, arguments = queue_arguments(keys.cluster(), name, "test")
    count, guard = arguments.wire.split(b"\r\n")[1:4:2]
    assert (count, guard) == (b"1", keys.cluster().tag("test"))
    assert keys.cluster().tags[arguments.partition] == guard


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_publishes_on_a_cluster_only_to_the_node_of_its_slot(name: str) -> None:
    source = scripts.load(name, True).source.decode()
    assert not re.search(r"call\('(PUBLISH|SPUBLISH)'|'NUMSUB'", source)
    assert ("call(PUBLISH," in source) == ("'SPUBLISH'" in source)
    assert ("NUMSUB, " in source) == ("'SHARDNUMSUB'" in source)
