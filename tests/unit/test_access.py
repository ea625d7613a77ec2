"""What a client shows of itself, and what the one access check makes of it."""

from __future__ import annotations

import pytest

from restmq.access import cookie_credentials


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("auth=alice:secret", ("alice", "secret")),
        ("theme=dark; auth=alice:se:cr=et; lang=en", ("alice", "se:cr=et")),
        ('theme="; auth=alice:secret', ("alice", "secret")),
        ('auth="alice:secret"', ("alice", "secret")),
        ('auth=alice:"', ("alice", '"')),
        ("auth=alice:p%25%3A%C3%BC%3B%22", ("alice", 'p%:ü;"')),
        ("auth=alice:a+b%zz", ("alice", "a+b%zz")),
        ("auth=old:one; auth=alice:secret", ("alice", "secret")),
        ("auth=:", ("", "")),
        ("auth=alice", None),
        ("auth", None),
        ("AUTH=alice:secret", None),
        ("xauth=alice:secret", None),
        ("", None),
    ],
)
def test_a_cookie_shows_a_username_and_a_password(header: str, shown: tuple[str, str] | None) -> None:
    assert cookie_credentials(header) == shown


@pytest.mark.parametrize("piece", ['\\"', "%", "%41", ";", "=", "auth=x;", '"'])
def test_a_long_cookie_is_read_in_linear_time(piece: str) -> None:
    """The standard library's unquoting is quadratic: 62 KB took it 15 s, so this 1 MB would outlast any test."""
    cookie_credentials('auth="' + piece * (1_000_000 // len(piece)) + '"')
