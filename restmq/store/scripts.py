"""Loads the Lua scripts of ``queues/lua``: one file per operation, plus shared parts (``_name.lua``).

Comment lines in a file declare its parts:

- ``-- include: _part`` inserts a shared part, once, however often it is named. An indented one inserts it into a block:
  its functions and names are made only if the block runs. This counts in the busiest scripts, see below.
- ``-- include anew: _part`` inserts a part and all of its own parts once more, for a block that gives keys such as
  ``CHANNEL`` another meaning.
- ``-- durable`` marks an operation whose answer promises that Redis' failure does not undo it (see ``replication``).
- ``-- allow-oom`` lets a script run while Redis has no memory left: it frees memory, or keeps a promise with a bounded
  number of bytes. Without this line, Redis refuses the script's first write, so that nothing is half done.

A script has the keys of its queue under the names of the fields of ``restmq.store.keys.QueueKeys``, in capitals, e.g.
``READY``, and the queue's name as ``QUEUE``. The script makes the keys from the queue's name; those that only an
included block needs, it makes in that block. In a cluster, the first of ``KEYS`` is the guard, so that Redis knows the
slot (``keys.Partitioned.declare``). A script with a loop over queues sets ``QUEUE`` itself, in front of an include that
has the body of the loop. ``PUBLISH`` and ``NUMSUB`` are the commands for channels: in a cluster, those for sharded
channels, which are known to the node of their slot alone.

What the parts of a script cost Redis 7.0, in thousands of instructions (it makes about nine of these in a microsecond):

- the call itself 10, each argument 1.2, each of ``KEYS`` 1.4; a name that is made 0.6;
- a function 0.6, a table 1.3, a table inside the answer 4;
- ``redis.call`` 3 to 7, and 2.3 for each element of a list that it returns;
- a number that becomes text 2.3, in ``cjson`` 4.5.

So the busiest scripts have few of them. Leases and acks of one message have a short way with neither functions nor
tables: a lease has 99,000 instructions instead of 155,000, an ack 73,000 instead of 103,000.

A script for a queue whose name ends in ``.fifo`` has two parts. If the queue's hash says that it is a FIFO queue, the
first part runs, otherwise the second, which is the usual script. In the first part, each file of ``lua/fifo`` replaces
the file of the same name in ``lua``. ``-- include plain: _part`` inserts the file that is replaced, so that a part can
extend its functions. Queues with other names pay nothing for this.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from restmq.store.keys import Layout, QueueKeys, cluster, one_redis

_INCLUDE = re.compile(r"^( *)-- include( plain| anew)?: (\w+)\n", re.MULTILINE)
_COMMENT_OR_STRING = re.compile(r"--.*|'[^']*'")
_DURABLE = re.compile(r"^-- durable$", re.MULTILINE)
_ALLOW_OOM = re.compile(r"^-- allow-oom$", re.MULTILINE)


@dataclass(slots=True, frozen=True, kw_only=True)
class Script:
    """A script, ready to be called.

    Attributes:
        sha: the SHA-1 by which Redis knows the script.
    """

    name: str
    source: bytes
    sha: bytes
    durable: bool


#: A script for a queue that may be a FIFO queue.
_EITHER = """\
if redis.call('HGET', SQS, 'a:FifoQueue') == 'true' then
return (function()
{fifo}
end)()
end
{plain}"""

#: Words of pub/sub, for one Redis and for a cluster.
_WORDS = {"PUBLISH": ("PUBLISH", "SPUBLISH"), "NUMSUB": ("NUMSUB", "SHARDNUMSUB")}
#: Around the text of an indented include.
_BEGIN, _END = "\1", "\2"


def _read(name: str, for_fifo: bool) -> str:
    """A script with its includes."""
    folder = resources.files("restmq").joinpath("queues", "lua")

    def read(part: str, included: set[str], plain: bool = False) -> str:
        def insert(found: re.Match[str]) -> str:
            indent, how, inner = found.groups()
            if how == " anew":
                return read(inner, set())
            if inner in included and how != " plain":
                return ""
            if indent and how != " plain":
                return _BEGIN + read(inner, set(included)) + _END
            return read(inner, included, how == " plain")

        included.add(part)
        file = folder.joinpath("fifo", part + ".lua")
        if plain or not for_fifo or not file.is_file():
            file = folder.joinpath(part + ".lua")
        return _INCLUDE.sub(insert, file.read_text("utf-8"))

    return read(name, set())


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", _COMMENT_OR_STRING.sub("", text)))


def _define(text: str, values: dict[str, str]) -> str:
    """Defines the names that a text uses, those that only an indented include uses at its beginning."""
    tokens = iter(re.split(f"([{_BEGIN}{_END}])", text))

    def block() -> list[Any]:
        found: list[Any] = []
        for token in tokens:
            if token == _END:
                break
            found.append(block() if token == _BEGIN else token)
        return found

    def render(found: list[Any], known: set[str]) -> str:
        words = _words("".join(part for part in found if isinstance(part, str)))
        new = [name for name in values if name in words - known]
        defined = f"local {', '.join(new)} = {', '.join(values[name] for name in new)}\n" if new else ""
        return defined + "".join(part if isinstance(part, str) else render(part, known | words) for part in found)

    return render(block(), set())


def _made_from_name(name: bytes, layout: Layout) -> str:
    """The Lua expression for a key, from its name for a queue that is called NUL."""
    before, queue, after = (part.decode() for part in name.partition(layout.stored("\0")))
    tag = layout.tag("\0").decode()
    parts = (
        before and tag and "KEYS[1]",
        before and f"'{before.removeprefix(tag)}'",
        queue and "QUEUE",
        after and f"'{after}'",
    )
    return " .. ".join(filter(None, parts))


@cache
def load(
    name: str, is_partitioned: bool = False, may_be_fifo: bool = False, db: int = 0, of_taps: bool = False
) -> Script:
    """The script ``queues/lua/<name>.lua`` with its includes. Raises FileNotFoundError.

    Args:
        is_partitioned: whether it is for a cluster, where a guard precedes its keys (``keys.Partitioned.declare``).
        may_be_fifo: whether it is for a queue that may be a FIFO queue, by its name.
        db: number of the database.
        of_taps: whether channel and flow control are those of the queue's taps (``QueueKeys.of_taps``).
    """
    text = _read(name, False)
    if may_be_fifo:
        text = _EITHER.format(fifo=_read(name, True), plain=text)
    words = _words(text)
    keys = tuple(key for key in QueueKeys._fields if key.upper() in words)
    values = {word: f"'{sharded if is_partitioned else plain}'" for word, (plain, sharded) in _WORDS.items()}
    layout = cluster() if is_partitioned else one_redis(db)
    made = layout.make_keys("\0")
    if of_taps:
        made = made.of_taps()
    values.update((key.upper(), _made_from_name(getattr(made, key), layout)) for key in keys)
    is_loop = "local QUEUE =" in text
    text = _define(text, values)
    if "QUEUE" in _words(text) and not is_loop:
        text = f"local QUEUE = ARGV[1]\n{text}"
    if is_partitioned and not keys and "KEYS" in words:
        text = f"table.remove(KEYS, 1)\n{text}"
    if _ALLOW_OOM.search(text):
        text = f"#!lua flags=allow-oom\n{text}"
    source = text.encode()
    sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
    durable = bool(_DURABLE.search(text))
    return Script(name=name, source=source, sha=sha, durable=durable)
