"""Cross-site requests, by the headers that browsers send; and the host names of this server."""

from __future__ import annotations

import pytest

from restmq.auth.origins import is_cross_site, is_own_host, is_prefetch

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
        {"origin": "https://public.test", "sec-fetch-site": "same-origin"},  # through a proxy that changes Host
        {"origin": "null", "sec-fetch-site": "same-origin"},  # a form of a page with the policy no-referrer
        {"origin": "https://app.example", "sec-fetch-site": "cross-site"},
        {"referer": "https://app.example/"},
        {"referer": "https://app.example/page", "sec-fetch-site": "cross-site"},
        {"referer": "https://app.example/page", "sec-fetch-site": "same-site"},
    ],
)
def test_requests_of_our_pages_allowed_pages_and_programs_pass(said: dict[str, str]) -> None:
    assert not is_cross_site({"host": "queue.test:8888", **said}, ALLOWED)


@pytest.mark.parametrize(
    "said",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "what-comes-next"},
        {"origin": "http://queue.test:8888", "sec-fetch-site": "cross-site"},
        {"origin": "null"},
        {"sec-fetch-site": "same-site", "referer": "http://queue.test:3000/"},
        {"sec-fetch-site": "cross-site", "referer": "http://queue.test:8888/led-on-by-another-site"},
        {"referer": "http://queue.test:3000/"},
        {"referer": "http://evil.test/"},
        {"referer": "http://evil.test/http://queue.test:8888/"},
        {"referer": "http://queue.test:8888@evil.test/"},
        {"referer": "https://app.example.evil.test/"},
        {"referer": "about:blank"},
        {"origin": "http://evil.test", "referer": "https://app.example/"},
    ],
)
def test_requests_of_other_sites_pages_are_cross_site(said: dict[str, str]) -> None:
    assert is_cross_site({"host": "queue.test:8888", **said}, ALLOWED)


def test_a_host_name_is_compared_without_port_and_case() -> None:
    assert is_own_host("QUEUE.lan:80", frozenset({"queue.lan"}))
    assert is_own_host("[2001:db8::1]:80", frozenset({"[2001:db8::1]"}))
    assert not is_own_host("queue.lan.evil.test", frozenset({"queue.lan"}))
    assert not is_own_host("x" * 256, frozenset({"x" * 256}))


@pytest.mark.parametrize(
    ("headers", "prefetches"),
    [
        ({"sec-purpose": "prefetch"}, True),
        ({"sec-purpose": "prefetch;prerender"}, True),
        ({"purpose": "Prefetch"}, True),
        ({"x-moz": "prefetch"}, True),
        ({"purpose": "preview"}, True),
        ({"purpose": "reporting"}, False),
        ({}, False),
    ],
)
def test_a_prefetch_is_known_by_three_headers(headers: dict[str, str], prefetches: bool) -> None:
    assert is_prefetch(headers) is prefetches
