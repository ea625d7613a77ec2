"""Loads the Lua scripts: one file an operation, with the few shared pieces put in where a file asks for them.

A file says in comments what it needs: ``-- include: _part`` puts a part in (once, whoever asks);
``-- KEYS: ready, due`` names keys after the fields of ``restmq.store.keys.QueueKeys``, which it then has as ``READY``
and ``DUE``; ``-- durable`` marks an operation whose answer is a promise that must survive Redis.
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


@dataclass(slots=True, frozen=True)
class Script:
    """A script's text and its SHA-1, by which Redis knows it; and which keys of a queue it is given, in order."""

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
    wanted = tuple(key for key in QueueKeys._fields if key in named)
    if wanted:
        text = f"local {', '.join(wanted).upper()} = unpack(KEYS)\n{text}"
    source = text.encode()
    sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
    return Script(name, source, sha, wanted, bool(_DURABLE.search(text)))
