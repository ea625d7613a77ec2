"""Dockerfile, .dockerignore and docker-compose.yml say what they should; test_container.py runs the first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.boxes.dockerfile import ignore_patterns, is_ignored, read
from tests.servers import ROOT


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, "--no-color", "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_the_image_is_what_the_documents_say() -> None:
    *earlier, last = read(ROOT / "Dockerfile")
    assert earlier  # building tools stay behind
    assert last.words("EXPOSE") == ["8888", "6379"]
    assert last.words("USER")[0].partition(":")[0] not in ("", "0", "root")
    assert last.words("VOLUME") == ["/var/lib/restmq"]
    assert last.last("HEALTHCHECK")


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("restmq/core.py", False),
        ("restmq/lua/add.lua", False),
        ("restmq/__pycache__/core.cpython-311.pyc", True),
        ("twisted/plugins/dropin.cache", True),
        ("start_scripts/healthcheck.py", False),
        ("start_scripts/restmq_server", True),
        (".git/config", True),
        (".venv/bin/python", True),
        ("acl.conf", True),  # a checkout's may hold passwords
        ("tests/servers.py", True),
    ],
)
def test_only_what_is_needed_goes_to_the_build(path: str, ignored: bool) -> None:
    assert is_ignored(path, ignore_patterns(ROOT / ".dockerignore")) is ignored


def test_a_dockerfile_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:trixie-slim\nADD a b\n")
    with pytest.raises(ValueError, match="ADD is not understood"):
        read(tmp_path / "Dockerfile")
