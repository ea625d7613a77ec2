"""Loads the Lua scripts of ``queues/lua``: one file per operation, plus shared parts (``_name.lua``).

Comment lines at the start of a file declare its parts:

- ``-- include: _part`` inserts a shared part, once, however often it is named.
- ``-- KEYS: ready, due`` names keys by the fields of ``restmq.store.keys.QueueKeys``; the script then has them as
  ``READY`` and ``DUE``.
- ``-- durable`` marks an operation whose answer promises that Redis' failure does not undo it (see ``replication``).
- ``-- allow-oom`` lets a script run while Redis has no memory left: it frees memory, or keeps a promise with a bounded
  number of bytes. Without this line, Redis refuses the script's first write, so that nothing is half done.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from restmq.store.keys import QueueKeys

_INCLUDE = re.compile(r"^-- include: (\w+)\n", re.MULTILINE)
_KEYS = re.compile(r"^-- KEYS: ([\w, ]+)", re.MULTILINE)
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


@cache
def load(name: str) -> Script:
    """The script ``queues/lua/<name>.lua`` with its includes. Raises FileNotFoundError."""
    included: set[str] = set()

    def read(part: str) -> str:
        included.add(part)
        text = resources.files("restmq").joinpath("queues", "lua", part + ".lua").read_text("utf-8")
        return _INCLUDE.sub(lambda found: "" if found[1] in included else read(found[1]), text)

    text = read(name)
    named = {key.strip() for line in _KEYS.findall(text) for key in line.split(",")}
    keys = tuple(key for key in QueueKeys._fields if key in named)
    if keys:
        text = f"local {', '.join(keys).upper()} = unpack(KEYS)\n{text}"
    if _ALLOW_OOM.search(text):
        text = f"#!lua flags=allow-oom\n{text}"
    source = text.encode()
    sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
    return Script(name=name, source=source, sha=sha, keys=keys, durable=bool(_DURABLE.search(text)))
