"""Loads the Lua scripts of ``queues/lua``: one file per operation, plus shared parts (``_name.lua``).

Comment lines in a file declare its parts:

- ``-- include: _part`` inserts a shared part, once, however often it is named. An indented one inserts it into a block:
  its functions are made only if the block runs. Making one costs Redis 0.07 µs, which counts in the busiest scripts.
- ``-- include anew: _part`` inserts a part and all of its own parts once more, for a block that gives keys such as
  ``CHANNEL`` another meaning.
- ``-- durable`` marks an operation whose answer promises that Redis' failure does not undo it (see ``replication``).
- ``-- allow-oom`` lets a script run while Redis has no memory left: it frees memory, or keeps a promise with a bounded
  number of bytes. Without this line, Redis refuses the script's first write, so that nothing is half done.

A script has the keys of its queue under the names of the fields of ``restmq.store.keys.QueueKeys``, in capitals, e.g.
``READY``. It gets those whose names it uses. ``PUBLISH`` and ``NUMSUB`` are the commands for channels: in a cluster,
those for sharded channels, which are known to the node of their slot alone.

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

from restmq.store.keys import QueueKeys

_INCLUDE = re.compile(r"^( *)-- include( plain| anew)?: (\w+)\n", re.MULTILINE)
_COMMENT_OR_STRING = re.compile(r"--.*|'[^']*'")
_DURABLE = re.compile(r"^-- durable$", re.MULTILINE)
_ALLOW_OOM = re.compile(r"^-- allow-oom$", re.MULTILINE)


@dataclass(slots=True, frozen=True, kw_only=True)
class Script:
    """A script, ready to be called.

    Attributes:
        sha: the SHA-1 by which Redis knows the script.
        keys: the fields of QueueKeys that the script gets, in order.
    """

    name: str
    source: bytes
    sha: bytes
    keys: tuple[str, ...]
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
            return read(inner, set(included) if indent else included, how == " plain")

        included.add(part)
        file = folder.joinpath("fifo", part + ".lua")
        if plain or not for_fifo or not file.is_file():
            file = folder.joinpath(part + ".lua")
        return _INCLUDE.sub(insert, file.read_text("utf-8"))

    return read(name, set())


@cache
def load(name: str, is_partitioned: bool = False, may_be_fifo: bool = False) -> Script:
    """The script ``queues/lua/<name>.lua`` with its includes. Raises FileNotFoundError.

    Args:
        is_partitioned: whether it is for a cluster, where a guard precedes its keys (``keys.Partitioned.declare``).
        may_be_fifo: whether it is for a queue that may be a FIFO queue, by its name.
    """
    text = _read(name, False)
    if may_be_fifo:
        text = _EITHER.format(fifo=_read(name, True), plain=text)
    words = set(re.findall(r"\w+", _COMMENT_OR_STRING.sub("", text)))
    keys = tuple(key for key in QueueKeys._fields if key.upper() in words)
    for word, (plain, sharded) in _WORDS.items():
        if word in words:
            text = f"local {word} = '{sharded if is_partitioned else plain}'\n{text}"
    if keys:
        text = f"local {', '.join(keys).upper()} = unpack(KEYS{', 2' if is_partitioned else ''})\n{text}"
    elif is_partitioned and "KEYS" in words:
        text = f"table.remove(KEYS, 1)\n{text}"
    if _ALLOW_OOM.search(text):
        text = f"#!lua flags=allow-oom\n{text}"
    source = text.encode()
    sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
    return Script(name=name, source=source, sha=sha, keys=keys, durable=bool(_DURABLE.search(text)))
