"""The choice of the store if no flag names one, and of the private store's program."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.python import usage

from restmq.server import daemon, embedded_redis
from restmq.server.redis_options import RedisOptions
from restmq.store.settings import TLSSettings


def options(*arguments: str) -> RedisOptions:
    parsed = RedisOptions()
    parsed.parseOptions(arguments)
    return parsed


@pytest.mark.parametrize(
    ("arguments", "answers", "has_socket", "socket"),
    [
        ((), False, True, "store.sock"),
        ((), False, False, None),
        ((), True, True, None),
        (("--redis-port", "7000"), False, True, None),
    ],
)
def test_the_private_store_is_found_where_no_redis_answers(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    answers: bool,
    has_socket: bool,
    socket: str | None,
) -> None:
    monkeypatch.setattr(daemon, "redis_answers", lambda _: answers)
    monkeypatch.setattr(daemon, "default_data_dir", lambda: tmp_path)
    if has_socket:
        (tmp_path / "store.sock").touch()
    settings, _ = daemon.find_store(options(*arguments), None)
    assert settings.socket_path == (socket and str(tmp_path / socket))


def test_a_named_data_directory_is_used_even_if_a_redis_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(daemon, "redis_answers", lambda _: True)
    settings, where = daemon.find_store(options(), str(tmp_path))
    assert settings.socket_path == str(tmp_path / "store.sock")
    assert where == f"the private store in {tmp_path}"


def install(folder: Path, name: str, says: str) -> str:
    """Installs a program that prints this version."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("says", ["Redis server v=6.2.14 sha=0:0 malloc=libc bits=64 build=0", "nonsense"])
def test_a_program_that_is_too_old_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str) -> None:
    install(tmp_path, "redis-server", says)
    monkeypatch.setenv("PATH", str(tmp_path))
    program = embedded_redis.find_program()
    assert program.name == "a private Valkey"
    assert not program.path.startswith(str(tmp_path))


def test_a_program_on_the_path_is_named_with_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    redis = install(tmp_path, "redis-server", "Redis server v=7.0.15 sha=0:0 malloc=libc bits=64 build=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded_redis.find_program() == embedded_redis.Program(redis, f"a private Redis ({redis})")
    valkey = install(tmp_path, "valkey-server", "Valkey server v=8.1.1 sha=0:0 malloc=libc bits=64 build=0")
    assert embedded_redis.find_program() == embedded_redis.Program(valkey, f"a private Valkey ({valkey})")
    install(tmp_path, "valkey-server", "Valkey server v=0.9.0")
    assert embedded_redis.find_program().path == redis


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("redis://one", {"host": "one", "port": 6379, "db": 0, "password": None, "tls": None}),
        ("redis://:p%40ss@one:7000/3", {"host": "one", "port": 7000, "db": 3, "username": None, "password": "p@ss"}),
        ("rediss://default:pw@one:6380", {"username": "default", "password": "pw", "port": 6380, "tls": TLSSettings()}),
        ("redis://[::1]:7000/", {"host": "::1", "port": 7000}),
    ],
)
def test_a_url_says_where_redis_is(monkeypatch: pytest.MonkeyPatch, url: str, settings: dict[str, object]) -> None:
    for source in ("flag", "environment"):
        arguments = ("--redis-url", url) if source == "flag" else ()
        monkeypatch.setenv("REDIS_URL", "" if source == "flag" else url)
        parsed = options(*arguments)
        found = parsed.store_settings()
        assert {name: getattr(found, name) for name in settings} == settings
        assert parsed.names_redis


def test_flags_and_urls_that_agree_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:pw@one:7000")
    monkeypatch.setenv("RESTMQ_REDIS_PASSWORD", "pw")
    assert options("--redis-host", "one", "--redis-db", "2").store_settings().db == 2
    monkeypatch.setenv("RESTMQ_REDIS_PASSWORD", "other")
    with pytest.raises(usage.UsageError, match="REDIS_URL and --redis-password contradict"):
        options().store_settings()
