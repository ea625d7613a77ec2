"""Which page asks, by the headers that browsers send; and which names are ours."""

from __future__ import annotations

import pytest

from restmq.auth.origins import goes_by, is_foreign

ALLOWED = frozenset({"https://app.example"})


@pytest.mark.parametrize(
    "said",
    [
        {},  # curl, or somebody's own typing where no Fetch Metadata is sent
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-origin", "referer": "http://queue.test:8888/dashboard"},
        {"referer": "http://queue.test:8888/dashboard?http://evil.test/"},
        {"origin": "http://queue.test:8888"},
        {"origin": "https://app.example", "sec-fetch-site": "cross-site"},
        {"referer": "https://app.example/"},
        {"referer": "https://app.example/page", "sec-fetch-site": "cross-site"},
        {"referer": "https://app.example/page", "sec-fetch-site": "same-site"},
    ],
)
def test_ours_allowed_or_nobodys(said: dict[str, str]) -> None:
    assert not is_foreign({"host": "queue.test:8888", **said}, ALLOWED)


@pytest.mark.parametrize(
    "said",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "what-comes-next"},
        {"sec-fetch-site": "same-site", "referer": "http://queue.test:3000/"},
        {"sec-fetch-site": "cross-site", "referer": "http://queue.test:8888/led-on-by-another-site"},
        {"referer": "http://queue.test:3000/"},
        {"referer": "http://evil.test/"},
        {"referer": "http://evil.test/http://queue.test:8888/"},
        {"referer": "http://queue.test:8888@evil.test/"},
        {"referer": "https://app.example.evil.test/"},
        {"referer": "about:blank"},
        {"origin": "http://evil.test", "referer": "https://app.example/"},
        {"origin": "null", "sec-fetch-site": "same-origin"},
    ],
)
def test_of_another_site(said: dict[str, str]) -> None:
    assert is_foreign({"host": "queue.test:8888", **said}, ALLOWED)


def test_a_name_is_looked_at_without_its_port_and_only_so_far() -> None:
    assert goes_by("QUEUE.lan:80", frozenset({"queue.lan"}))
    assert goes_by("[2001:db8::1]:80", frozenset({"[2001:db8::1]"}))
    assert not goes_by("queue.lan.evil.test", frozenset({"queue.lan"}))
    assert not goes_by("x" * 256, frozenset({"x" * 256}))
