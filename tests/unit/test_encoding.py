"""Encodings of messages."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restmq.errors import InvalidInput
from restmq.handlers.websocket_frames import frame
from restmq.model import Message
from restmq.schema.encoding import (
    check_callback,
    comet_line,
    event,
    event_gap,
    has_long_values,
    json_in_pieces,
    jsonp,
    to_json,
)


def parse_events(stream: str) -> list[dict[str, str]]:
    """The HTML standard's parser (9.2.6), line by line, for streams whose lines end in LF, CR or both."""
    events: list[dict[str, str]] = []
    data: list[str] = []
    fields: dict[str, str] = {}
    last_id = ""
    for line in stream.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line == "":
            if data:
                events.append({"id": last_id, "data": "\n".join(data), **fields})
            data, fields = [], {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "id":
                last_id = value
            elif name in ("event", "encoding"):
                fields[name] = value
    return events


def unified(text: str) -> str:
    """SSE has one kind of line end."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


@given(st.lists(st.text(), max_size=5))
def test_an_event_source_gets_each_value_back(values: list[str]) -> None:
    messages = [Message(f"q ü:{n}", value.encode()) for n, value in enumerate(values)]
    stream = b"".join(map(event, messages)).decode()
    assert parse_events(stream) == [{"id": m.key, "data": unified(m.value.decode())} for m in messages]


@given(st.binary().filter(lambda value: not is_text(value)))
def test_an_event_of_bytes_is_base64_and_marked_so(value: bytes) -> None:
    (found,) = parse_events(event(Message("q:1", value)).decode())
    assert found["encoding"] == "base64"
    assert base64.b64decode(found["data"]) == value


def is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_a_gap_is_an_event_of_its_own_type() -> None:
    (found,) = parse_events(event_gap("q:7").decode())
    assert found["event"] == "gap"
    assert json.loads(found["data"]) == {"event": "gap", "last_event_id": "q:7"}


@given(st.text())
def test_a_comet_line_is_one_line_of_json(value: str) -> None:
    line = comet_line(Message("q:1", value.encode())).decode()
    assert line.endswith("\r\n")
    assert "\r" not in line[:-2]
    assert "\n" not in line[:-2]
    assert json.loads(line) == {"key": "q:1", "value": value}


@pytest.mark.parametrize("name", ["f", "_", "$", "a.b.c", "jQuery123_4"])
def test_a_javascript_name_is_a_valid_callback(name: str) -> None:
    assert check_callback(name) == name


@given(st.text())
def test_any_other_callback_is_invalid(name: str) -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$.")
    if not name or not set(name) <= allowed:
        with pytest.raises(InvalidInput):
            check_callback(name)


@given(st.text())
def test_jsonp_has_no_line_ends_of_javascript(value: str) -> None:
    text = jsonp("f", to_json(value)).decode()
    assert not set(text[:-2]) & set("\r\n\u2028\u2029")
    assert json.loads(text[2:-4]) == value


def test_integers_of_any_size_stay_exact() -> None:
    assert to_json({"n": 2**70}) == b'{"n":1180591620717411303424}'


@given(st.integers(0, 70_000))
def test_a_websocket_frame_has_its_length(size: int) -> None:
    framed = frame(b"x" * size)
    assert framed[0] == 0x81
    if framed[1] < 126:
        length, start = framed[1], 2
    elif framed[1] == 126:
        length, start = int.from_bytes(framed[2:4], "big"), 4
    else:
        length, start = int.from_bytes(framed[2:10], "big"), 10
    assert length == size == len(framed) - start
    assert start == (2 if size < 126 else 4 if size < 65536 else 10)  # the shortest form (RFC 6455, 5.2)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"a": {}, "b": [], "c": [{"value": "x"}], "d": None, "e": 1.5, "f": "é\u2028\x01"},
        {"value": "\x01é" * 300_000, "key": "q:1"},
        [{"value": "v" * 1000}] * 1000,
    ],
)
def test_json_in_pieces_is_the_same_json(value: Any) -> None:
    pieces: list[bytes] = []
    steps = sum(1 for _ in json_in_pieces(value, pieces))
    assert b"".join(pieces) == to_json(value)
    assert steps >= len(to_json(value)) // 2_000_000


def test_long_values_are_found_in_an_answer_of_one_or_of_many() -> None:
    long, short = {"value": "v" * 300_000}, {"value": "v"}
    assert has_long_values(long)
    assert has_long_values([long])
    assert has_long_values({"queue": "q", "messages": [{"value": "v" * 1000}] * 300})
    for answer in (short, [short] * 1000, {"error": "empty queue"}, {"messages": [short]}, [], {"queues": ["q"] * 9}):
        assert not has_long_values(answer)
