from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import Daemon, Redis


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="run unit tests, and integration tests that only need Redis")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Selects tests for ``--fast``. Skips tests whose ``needs`` mark names a missing tool; in CI they fail instead."""
    if config.getoption("--fast"):
        left_out = [item for item in items if not is_fast(item)]
        items[:] = [item for item in items if is_fast(item)]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        for mark in item.iter_markers("needs"):
            for tool in mark.args:
                if shutil.which(tool) is None and os.environ.get("CI") != "true":
                    item.add_marker(pytest.mark.skip(reason=f"{tool} is not installed"))


def is_fast(item: pytest.Item) -> bool:
    """Whether a test needs no tool, and no server but the Redis and the daemon that all tests of a worker share."""
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    if folder == "integration":
        return not list(item.iter_markers("needs")) and not any(map(starts_servers, fixtures_of(item)))
    return folder == "unit"


def fixtures_of(item: pytest.Item) -> list[pytest.FixtureDef[Any]]:
    """All fixtures that a test uses, also by other fixtures."""
    found = getattr(item, "_fixtureinfo", None)
    return [definitions[-1] for definitions in found.name2fixturedefs.values()] if found else []


def starts_servers(fixture: pytest.FixtureDef[Any]) -> bool:
    """Whether a fixture has a folder of its own, as for a server, or is that of a module that starts one."""
    if fixture.argname in ("redis", "daemon") and fixture.scope == "session":
        return False
    return fixture.argname == "tmp_path" or "folder" in fixture.argnames


def pytest_configure(config: pytest.Config) -> None:
    # In a shell's background SIGINT is ignored, and children inherit that. The programs under test must react to it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "needs(tool, …): skipped where the tool is missing, except in CI")


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder with a short path, because the path of a Unix socket may have at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="restmq-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _new_folder(folder: Path) -> Path:
    path = folder / uuid.uuid4().hex[:8]
    path.mkdir()
    return path


@pytest.fixture
def private_folder(folder: Path) -> Path:
    return _new_folder(folder)


@pytest.fixture(scope="module")
def module_folder(folder: Path) -> Path:
    """For fixtures of a module: a process that runs tests may set them up more than once."""
    return _new_folder(folder)


@pytest.fixture(scope="session")
def redis(folder: Path) -> Iterator[Redis]:
    """One Redis for all tests that only need queues of their own."""
    server = Redis(folder / "redis")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def daemon(folder: Path, redis: Redis) -> Iterator[Daemon]:
    """One daemon for all tests that only need queues of their own. It is started by the command that operators use."""
    server = Daemon(folder / "daemon", redis=redis, twistd=[str(Path(sys.executable).with_name("twistd"))])
    yield server
    assert server.stop() in (0, -signal.SIGTERM)  # the signal that stopped it ends twistd
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
    """A Redis of the test's own, whose keys it may count, and which it may kill and restart."""
    server = Redis(private_folder / "redis")
    yield server
    server.stop()
