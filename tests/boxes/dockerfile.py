"""Reads the parts of the Dockerfile language that ours uses. It rejects any other part."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

INSTRUCTIONS = {"FROM", "RUN", "COPY", "ENV", "LABEL", "WORKDIR", "USER", "VOLUME", "EXPOSE"}
INSTRUCTIONS |= {"HEALTHCHECK", "ENTRYPOINT", "CMD"}


@dataclass(frozen=True)
class Step:
    """An instruction. Its flags, such as ``--from=build``, are separate from its text."""

    name: str
    flags: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments of an exec form (a JSON array), or the words of another text."""
        return list(json.loads(self.text)) if self.text.startswith("[") else shlex.split(self.text)


@dataclass
class Stage:
    """The steps after one FROM, which names the base image and its digest."""

    base: str
    digest: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def last(self, name: str) -> Step | None:
        """The last step with that name, which replaces the earlier ones."""
        return next((step for step in reversed(self.steps) if step.name == name), None)

    def words(self, name: str) -> list[str]:
        step = self.last(name)
        return step.words if step else []


def read(path: Path) -> list[Stage]:
    """The stages of a Dockerfile, in order."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    stages: list[Stage] = []
    for text in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not text.strip():
            continue
        step = _step(text.strip())
        if step.name == "FROM":
            found = re.fullmatch(r"([^@\s]+)(@(sha256:[0-9a-f]{64}))?( AS (\S+))?", step.text)
            assert found, step.text
            stages.append(Stage(found[1], found[3] or "", found[5] or str(len(stages))))
        else:
            stages[-1].steps.append(step)
    return stages


def _step(text: str) -> Step:
    name, _, rest = text.partition(" ")
    if name not in INSTRUCTIONS:
        raise ValueError(f"{name} is not understood")
    flags = {}
    while flag := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
        flags[flag[1]] = flag[2]
        rest = rest[flag.end() :]
    return Step(name, flags, rest.strip())


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore excludes a file: the last pattern that matches it or one of its folders decides."""
    parts = path.split("/")
    ignored = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!").rstrip("/")
        anywhere = wanted.startswith("**/")
        starts = range(len(parts)) if anywhere else range(1)
        wanted_parts = wanted.removeprefix("**/").split("/")
        for start in starts:
            here = parts[start : start + len(wanted_parts)]
            if len(here) == len(wanted_parts) and all(map(fnmatch.fnmatchcase, here, wanted_parts)):
                ignored = not pattern.startswith("!")
    return ignored


def ignore_patterns(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
