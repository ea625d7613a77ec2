"""Other projects' clients and test suites. pip and npm download them when the tests run; nothing of them is kept here.

They are installed once, into a folder of the user's cache, or into the one that RESTMQ_JUDGES names.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("RESTMQ_JUDGES") or Path.home() / ".cache" / "restmq-judges")
INSTALL_SECONDS = 400
#: What a client needs to sign; the server accepts everybody.
AWS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that ``make`` fills once, whatever number of processes ask for it. Skips the test if that fails."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = CACHE / name
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                make(folder)
            except (subprocess.SubprocessError, OSError) as problem:
                pytest.skip(f"{name} can't be downloaded: {problem}")
            (folder / "complete").touch()
    return folder


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, timeout=INSTALL_SECONDS)


def python_with(name: str, *packages: str) -> Path:
    """The Python of an environment of its own that has these packages."""

    def make(folder: Path) -> None:
        _run(sys.executable, "-m", "venv", folder)
        _run(folder / "bin" / "pip", "install", "--quiet", "--prefer-binary", *packages)

    return _made(name, make) / "bin" / "python"


def sources_of(package: str, version: str) -> Path:
    """The folder of a package's source distribution, which has its tests."""

    def make(folder: Path) -> None:
        wanted = f"{package}=={version}"
        _run(
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            package,
            "-d",
            folder,
            wanted,
        )
        _run("tar", "-xzf", folder / f"{package}-{version}.tar.gz", "-C", folder)

    return _made(f"{package}-{version}", make) / f"{package}-{version}"


def node_with(name: str, *packages: str) -> Path:
    """A folder in which Node.js finds these packages."""

    def make(folder: Path) -> None:
        _run("npm", "init", "--yes", cwd=folder)
        _run("npm", "install", "--silent", *packages, cwd=folder)

    return _made(name, make)
