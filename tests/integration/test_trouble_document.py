"""What docs/when-something-is-wrong.md quotes is what the server says, and its metrics, flags and links exist."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_documents import blocks
from tests.servers import ROOT, Daemon, twistd

PAGE = (ROOT / "docs" / "when-something-is-wrong.md").read_text()
#: Words of other programs: Redis, curl, nginx, the kernel.
OF_OTHERS = ("curl: (18)", "upstream timed out", "certificate verify failed", "no disk space", "[Errno 98]")


def said() -> str:
    """All texts in the server's code, with ``…`` for what is filled in."""
    found: list[str] = []
    for path in (ROOT / "restmq").glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"{\w+}", "…", node.value))
    return "\n".join(found)


def quoted() -> list[str]:
    """The quoted sentences: code of at least four words that is no command, request or expression."""
    plain = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    texts = [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", plain)]
    commands = ("restmq", "curl ", "rate(", "--", "GET ", "CLIENT ", "SLOWLOG ")
    return [text for text in texts if text.count(" ") > 2 and not text.startswith(commands)]


def test_the_page_quotes_the_server() -> None:
    sources = said()
    sentences = [text for text in quoted() if not any(words in text for words in OF_OTHERS)]
    assert len(sentences) > 25
    for text in sentences:
        for part in text.removeprefix("the message store (Redis) ").split("…"):
            assert part.strip(" .") in sources, text


def test_the_metrics_and_flags_of_the_page_exist(private_folder: Path) -> None:
    operation = (ROOT / "docs" / "operation.md").read_text()
    metrics = set(re.findall(r"\brestmq_[a-z_]+", PAGE))
    assert len(metrics) > 10
    assert {name for name in metrics if f"| `{name}` |" not in operation} == set()
    described = twistd(private_folder, "restmq", "--help").stdout + (ROOT / "docs" / "command-line.md").read_text()
    flags = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert {flag for flag in flags if flag not in described} == set()


def test_the_page_has_twenty_cases_that_each_say_what_to_do() -> None:
    cases = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
    assert len(cases) >= 20
    for case in cases:
        assert "*Signs.*" in case, case
        assert "*Do.*" in case or "*Look at*" in case, case


@pytest.mark.needs("curl")
def test_the_first_commands_of_the_page_run(daemon: Daemon) -> None:
    (block,) = blocks("docs/when-something-is-wrong.md")
    block = block.replace("http://localhost:8888", daemon.url).replace("restmq ", f"{sys.executable} -m restmq ")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RESTMQ_URL": daemon.url}
    done = subprocess.run(["bash", "-ec", block], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "is ready" in done.stdout, "restmq_build_info" in done.stdout) == (0, True, True), done
