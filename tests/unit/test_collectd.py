"""Parsing collectd's values and notifications."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restmq.errors import InvalidInput, TooLong
from restmq.frontends.collectd import check_json, parse_notification, parse_values


def _check(body: bytes) -> None:
    check_json(body, ("host",))


def test_a_line_of_write_http() -> None:
    assert parse_values(b"PUTVAL web.example/df-root/df_complex-free interval=10.000 1251533299.617:42.5\r\n") == [
        {
            "host": "web.example",
            "plugin_instance": "df-root",
            "type_instance": "df_complex-free",
            "interval": "10.000",
            "value": "1251533299.617:42.5",
        }
    ]


def test_quoted_names_with_backslashes() -> None:
    (item,) = parse_values(rb'PUTVAL "my \"own\" host/exec-a b/gauge-c\\d" interval="10" N:1')
    assert (item["host"], item["plugin_instance"], item["type_instance"]) == ('my "own" host', "exec-a b", "gauge-c\\d")
    assert item["interval"] == "10"


def test_an_option_applies_to_the_values_after_it() -> None:
    items = parse_values(b'PUTVAL h/p/t 1:1 interval=10 meta:colour="dark red" 2:2:U 3:nan:-inf:1e-5 interval=20 4:4')
    assert [(item.get("interval"), item.get("options"), item["value"]) for item in items] == [
        (None, None, "1:1"),
        ("10", {"meta:colour": "dark red"}, "2:2:U"),
        ("10", {"meta:colour": "dark red"}, "3:nan:-inf:1e-5"),
        ("20", {"meta:colour": "dark red"}, "4:4"),
    ]
    assert "interval" not in items[0]


def test_blank_lines_are_skipped_and_unusual_characters_are_kept() -> None:
    items = parse_values("\n\r\nPUTVAL höst\u2028x/p/t N:1\n\nputval h/p/t-a/b N:2\n".encode())
    assert [item["host"] for item in items] == ["höst\u2028x", "h"]
    assert items[1]["type_instance"] == "t-a/b"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"", "no values"),
        (b"\r\n\n", "no values"),
        (b"GETVAL h/p/t", "line 1 does not begin with PUTVAL: 'GETVAL h/p/t'"),
        (b"PUTVAL h/p/t N:1\nPUTVAL h/p N:1", "line 2 has no host/plugin/type: 'PUTVAL h/p N:1'"),
        (b"PUTVAL h//t N:1", "line 1 has no host"),
        (b'PUTVAL "h/p/t N:1', "line 1 has no host"),
        (b'PUTVAL "h/p/t"N:1', "line 1 has no host"),
        (b"PUTVAL", "line 1 has no host"),
        (b"PUTVAL h/p/t", "line 1 has no values"),
        (b"PUTVAL h/p/t interval=10", "line 1 has no values"),
        (b"PUTVAL h/p/t 10", "line 1 has an invalid option or list of values"),
        (b"PUTVAL h/p/t N:1:", "line 1 has an invalid option"),
        (b"PUTVAL h/p/t N:one", "line 1 has an invalid option"),
        (b'PUTVAL h/p/t meta:a="b N:1', "line 1 has an invalid option"),
        (b"PUTVAL h/p/t N:1\nPUTVAL \xff/p/t N:1", "line 2 is not UTF-8"),
        (b"PUTVAL h/p/t " + b"N:1 " * 2000, "line 1 is longer than 4096 characters"),
    ],
)
def test_an_invalid_line_is_named(line: bytes, problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_values(line)
    assert problem in str(refused.value)
    assert len(str(refused.value)) < 250


def test_the_number_of_values_is_limited() -> None:
    assert len(parse_values(b"PUTVAL h/p/t N:1\n" * 3, values_max=3)) == 3
    with pytest.raises(InvalidInput, match="line 4 exceeds the limit of 3 values"):
        parse_values(b"PUTVAL h/p/t N:1\n" * 5, values_max=3)


def test_a_notification_keeps_its_whole_text() -> None:
    body = b"Severity: WARNING\nTime: 1251533299.000\nHost: my host\nCurrentValue: 1.1e+08\nNote:\n"
    body += b"\nfirst: line\n\n  last\n"
    assert parse_notification(body) == [
        {"severity": "WARNING"},
        {"time": "1251533299.000"},
        {"host": "my host"},
        {"currentvalue": "1.1e+08"},
        {"note": ""},
        {"event_text": "first: line\n\n  last"},
    ]


def test_a_notification_with_crlf_and_without_a_text() -> None:
    assert parse_notification(b"Severity: OKAY\r\n\r\n") == [{"severity": "OKAY"}, {"event_text": ""}]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "no header"),
        (b"Severity: OKAY\ntext", "no blank line"),
        (b"\ntext", "no header"),
        (b"Severity: OKAY\nwhat is this\n\ntext", "line 2 is not a header such as 'Severity: OKAY': 'what is this'"),
        (b"Severity: OKAY\n\nfirst\n\xfe\n", "line 4 is not UTF-8"),
    ],
)
def test_the_invalid_line_of_a_notification_is_named(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_notification(body)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "not valid JSON"),
        (b'[{"host":"h"},\n{"host":]', "at byte 23"),
        (b"[]", "JSON array"),
        (b'{"host":"h"}', "JSON array"),
        (b'[{"host":"h"},{}]', "missing required field `host` - at `$[1]`"),
        (b"[7]", "Expected `object`, got `int` - at `$[0]`"),
        (b'[{"host":"\xff"}]', "not valid UTF-8"),
    ],
)
def test_invalid_json_is_located(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_json(body, ("host",))
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (parse_values, b"\n" * 4_000_000),
        (parse_notification, b"a:\n" * 1_000_000),
        (parse_notification, b"a:\n\n" + b"\n" * 4_000_000),
        (_check, b"[" + b"[]," * 1_000_000 + b"[]]"),
        (_check, b'[{"host":[' + b"[]," * 1_000_000 + b"[]]}]"),
        (_check, b"[" + b"{}," * 1_000_000 + b"{}]"),
        (_check, b'[{"host":1,"b":' + b"[" * 1_000_000),
    ],
    ids=["blank lines", "headers", "text", "arrays", "arrays in a member", "objects", "deep arrays"],
)
def test_a_large_body_becomes_few_python_objects(read: Callable[[bytes], object], body: bytes) -> None:
    tracemalloc.start()
    try:
        with suppress(InvalidInput, TooLong):
            read(body)
        assert tracemalloc.get_traced_memory()[1] < 5 * len(body)
    finally:
        tracemalloc.stop()


def test_more_lines_or_objects_than_values_may_have_are_too_long() -> None:
    with pytest.raises(TooLong, match="more than 6 lines"):
        parse_values(b"PUTVAL h/p/t N:1\n" + b"\n" * 6, values_max=3)
    with pytest.raises(TooLong, match="more than 6 objects"):
        check_json(b'[{"host":' + b"{}" * 6, ("host",), values_max=3)


@given(st.binary() | st.text(alphabet='PUTVAL hpt/"\\=:1N. \n\x00é').map(lambda text: b"PUTVAL " + text.encode()))
def test_any_bytes_are_parsed_or_rejected(body: bytes) -> None:
    for read in (parse_values, parse_notification):
        with suppress(InvalidInput):
            assert read(body)
