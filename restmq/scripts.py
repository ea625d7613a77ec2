"""Loads the Lua scripts: one file an operation, with the few shared pieces put in where a file asks for them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)


@dataclass(slots=True, frozen=True)
class Script:
    """A script's text and its SHA-1, by which Redis knows it."""

    name: str
    source: bytes
    sha: bytes


@cache
def load(name: str) -> Script:
    """The script ``lua/<name>.lua`` with its includes. Raises FileNotFoundError."""

    def read(part: str) -> str:
        return resources.files("restmq").joinpath("lua", part + ".lua").read_text("utf-8")

    source = _INCLUDE.sub(lambda include: read(include[1]), read(name)).encode()
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())
