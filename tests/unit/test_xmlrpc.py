"""XML-RPC calls and answers: both are worked on in small steps, and only text may be large."""

from __future__ import annotations

import tracemalloc
import xmlrpc.client

import pytest

from restmq.errors import InvalidInput
from restmq.handlers.xmlrpc import _Call, _render_value

MIB = 1 << 20


def rendered(value: bytes) -> tuple[bytes, int]:
    """The XML of a value, and the number of steps after the first."""
    pieces: list[bytes] = []
    steps = sum(1 for _ in _render_value(value, pieces))
    return b"".join(pieces), steps


@pytest.mark.parametrize(
    ("value", "element"),
    [
        (b"", b"string"),
        ("<ü&>\t\n".encode(), b"string"),
        ("<ü&>".encode() * (MIB // 4), b"string"),
        (b"\r", b"base64"),
        (b"x" * MIB + b"\x01", b"base64"),
        (b"\xff" * MIB, b"base64"),
        ("ü".encode() * MIB + b"\xff", b"base64"),
    ],
    ids=["empty", "short", "long", "a character that XML changes", "at last no XML", "no text", "at last no text"],
)
def test_a_value_comes_back_unchanged_however_it_is_rendered(value: bytes, element: bytes) -> None:
    xml, steps = rendered(value)
    assert xml.startswith(b"<%b>" % element)
    call = b"<methodCall><methodName>m</methodName><params><param><value>%b</value></param></params></methodCall>"
    ((back,), _) = xmlrpc.client.loads((call % xml).decode(), use_builtin_types=True)
    assert (back if isinstance(back, bytes) else back.encode()) == value
    assert (steps > 3) == (len(value) >= MIB)


_TEXT = b"<methodCall><methodName>set</methodName><params><param><value>"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<methodCall" + b"".join(b' a%d=""' % number for number in range(300_000)) + b"/>", "a tag or comment"),
        (b"<methodCall><!--" + b"x" * 4 * MIB + b"--></methodCall>", "a tag or comment"),
        (b"<methodCall>" + b"<!---->" * 500_000 + b"</methodCall>", "not a valid"),
        (b"<a>" * MIB, "invalid element"),
        (_TEXT + b"<value>" * MIB, "more than 50 elements"),
        (_TEXT + b"&lt;" * MIB, "not a valid"),
        (b"<!DOCTYPE a [" + b'<!ENTITY a "a">' * 300_000, "DOCTYPE"),
    ],
    ids=["attributes", "comment", "comments", "elements", "values", "references", "entities"],
)
def test_a_large_invalid_call_is_rejected_in_small_steps_and_builds_little(body: bytes, why: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=why):
            for _ in _Call().read(body):
                pass
        assert tracemalloc.get_traced_memory()[1] < len(body) + MIB
    finally:
        tracemalloc.stop()


def test_a_long_call_is_read_in_steps() -> None:
    call = _Call()
    body = _TEXT + b"q</value></param><param><value>" + b"&lt;" * MIB + b"</value></param></params></methodCall>"
    assert sum(1 for _ in call.read(body)) > 200
    assert call.arguments == ("q", "<" * MIB)
