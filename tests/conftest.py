from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import Daemon, Redis


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that needs a tool says so with the mark; it is skipped without it, and fails in CI."""
    for item in items:
        for mark in item.iter_markers("needs"):
            for tool in mark.args:
                if shutil.which(tool) is None and os.environ.get("CI") != "true":
                    item.add_marker(pytest.mark.skip(reason=f"{tool} is not installed"))


def pytest_configure(config: pytest.Config) -> None:
    # Whoever runs the tests in a shell's background hands down an ignored SIGINT; what they start must know Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "needs(tool, …): skipped where the tool is missing, except in CI")


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder with a short path: a Unix socket's may have 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="restmq-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def private_folder(folder: Path) -> Path:
    path = folder / uuid.uuid4().hex[:8]
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def redis(folder: Path) -> Iterator[Redis]:
    """A Redis for tests that only need queues of their own."""
    server = Redis(folder / "redis")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def daemon(folder: Path, redis: Redis) -> Iterator[Daemon]:
    """A daemon for tests that only need queues of their own. It is started by the command that operators use."""
    server = Daemon(folder / "daemon", redis=redis, twistd=[str(Path(sys.executable).with_name("twistd"))])
    yield server
    assert server.stop() in (0, -signal.SIGTERM)  # twistd ends by the signal that it was sent
    server.assert_no_tracebacks()


@pytest.fixture
def http(daemon: Daemon) -> Iterator[httpx.Client]:
    with daemon.client() as client:
        yield client


@pytest.fixture
def queue() -> str:
    """A queue name that no other test uses."""
    return f"q-{uuid.uuid4().hex}"


@pytest.fixture
def private_redis(private_folder: Path) -> Iterator[Redis]:
    """A Redis that the test may count keys in, kill and restart."""
    server = Redis(private_folder / "redis")
    yield server
    server.stop()
