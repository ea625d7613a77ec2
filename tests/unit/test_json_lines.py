"""A body of JSON lines: blank lines, and the place of an error."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest

from restmq.errors import InvalidInput
from restmq.handlers.queues import _read_lines


def lines_of(body: bytes) -> list[bytes]:
    messages: list[bytes] = []
    for _ in _read_lines(body, messages):
        pass
    return messages


@pytest.mark.parametrize("blank", [b"\n", b" \r\n", b" ", b"\t\n"])
def test_blank_lines_are_skipped_and_take_no_memory(blank: bytes) -> None:
    body = blank * 500_000 + b'\n\t"one" \r\n [2]\t' + b"\n" + blank * 500_000
    tracemalloc.start()
    try:
        assert lines_of(body) == [b"one", b"[2]"]
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{two", "line 1 .* byte 1"),
        (b"1\n\n  {two\n3", "line 3 .* byte 1"),
        (b"\r\n\t[1,]", "line 2 .* byte 3"),
        (b'1\n"\xff"', "line 2 .* UTF-8"),
        (b'1\n["\xff"]', "line 2 .* UTF-8"),
        (b"[" * 2000 + b"]" * 2000, "line 1 .* too deeply"),
    ],
)
def test_an_invalid_line_is_named_by_its_number_and_the_place_in_it(body: bytes, where: str) -> None:
    with pytest.raises(InvalidInput, match=where):
        lines_of(body)


@pytest.mark.parametrize("body", [b'"a" "b"', b'"a" "b"\n\n', b'"a""b"\n"c"', b'"a" "b"\n \n', b'"a"\r"b"\n\t\n'])
def test_two_strings_on_a_line_are_an_error(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="line 1 "):
        lines_of(body)


@pytest.mark.parametrize(
    "body", [b'"\xc3\xa9"\n"\\u00e9"', b'"\xc3\xa9"\r\n"\\u00e9" \r\n', b'\n"\xc3\xa9"\n "\\u00e9"']
)
def test_strings_on_lines_are_messages(body: bytes) -> None:
    assert lines_of(body) == [b"\xc3\xa9"] * 2


@pytest.mark.parametrize("value", [b"3.10", b"-0", b"1e2", b"1e400", b'{"a": 1, "a": 2}', b"9" * 1000])
def test_a_value_keeps_its_text_exactly(value: bytes) -> None:
    assert lines_of(b"\n".join([value, b" " + value + b"\r"])) == [value, value]


@pytest.mark.parametrize(
    "body",
    [b"\n" * 4_500_000, b'"x"\n' + b" " * 4_500_000, (b'["x"]' + b" " * 6000 + b"\n") * 750],
    ids=["blank lines", "blank end", "many lines"],
)
def test_a_long_body_is_read_in_pieces_of_about_a_megabyte(body: bytes) -> None:
    assert steps_of(body) == 4


def test_a_short_body_is_read_at_once() -> None:
    assert steps_of(b"1\n" * 1000) == 0


def steps_of(body: bytes) -> int:
    steps = 0
    with contextlib.suppress(InvalidInput):
        for _ in _read_lines(body, []):
            steps += 1
    return steps
