"""Long messages: rendered in steps, for each transport exactly as short ones are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import defer, task

from restmq.delivery import format as formats
from restmq.delivery.format import Format, LongMessage, prepare
from restmq.handlers.streams import EVENTS, chunked, lines
from restmq.handlers.websocket_frames import text_frames
from restmq.http.turns import Turns
from restmq.model import Message, Metadata
from restmq.schema import encoding


def shortened(wanted: Format) -> Format:
    """The same format, for which values of some hundred bytes are long."""
    return replace(wanted, long_bytes=PIECE)


PIECE = 64
FORMATS = {
    "comet": lines(None),
    "comet in chunks": chunked(lines(None)),
    "JSONP": lines("show"),
    "JSONP in chunks": chunked(lines("show")),
    "events": EVENTS,
    "events in chunks": chunked(EVENTS),
    "WebSocket": text_frames(),
    "WebSocket with compression": text_frames(15),
    "a line of several queues": lines(None, "ü"),
    "JSONP of several queues": lines("show", "ü"),
    "WebSocket of several queues": text_frames(0, "ü"),
}
FORMATS = {name: shortened(wanted) for name, wanted in FORMATS.items()}
LINES, SSE = FORMATS["comet"], FORMATS["events"]
RECORD = Metadata("text/x-é", {"x-message-event": "made\u2028"}).record(1_700_000_000_000)


@pytest.fixture(scope="module", autouse=True)
def _short_pieces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "_PIECE_CHARACTERS", PIECE)
        patch.setattr(encoding, "_BASE64_PIECE_BYTES", 3 * PIECE)
        patch.setattr(formats, "LONG_VALUE_BYTES", PIECE)
        yield


def consumers(*wanted: Format) -> list[SimpleNamespace]:
    return [SimpleNamespace(format=each) for each in wanted]


def turn(clock: task.Clock) -> None:
    """A single turn of the event loop."""
    (call,) = clock.getDelayedCalls()
    due = call.func
    call.cancel()
    due()


def prepared(message: Message, *wanted: Format) -> Message:
    clock = task.Clock()
    turns = Turns(clock.callLater, clock.seconds)
    call = defer.ensureDeferred(prepare(message, consumers(*wanted), turns))
    while not call.called:
        clock.advance(0)
    done: list[Message] = []
    call.addCallback(done.append)
    return done[0]


TEXTS = st.text(st.sampled_from('a\r\n\t\x00"\\é\u2028\u2029\U0001f600'), min_size=PIECE // 2, max_size=5 * PIECE)
VALUES = TEXTS.map(str.encode) | st.binary(min_size=PIECE // 2, max_size=10 * PIECE)


@pytest.mark.parametrize("name", FORMATS)
@given(value=VALUES, receipt=st.sampled_from(["", "r"]), record=st.sampled_from([b"", RECORD]))
def test_a_long_message_looks_as_if_it_were_short(name: str, value: bytes, receipt: str, record: bytes) -> None:
    message = Message("ü:1", value, 2, 0, receipt, record)
    wanted = FORMATS[name]
    long = prepared(message, wanted)
    assert isinstance(long, LongMessage) == (len(value) > PIECE)
    found = b"".join(wanted.render([long]))
    assert found == wanted.wrap(wanted.message(message))


def test_formats_share_the_rendered_value_of_a_long_message() -> None:
    formats = [shortened(lines(f"f{n}")) for n in range(50)]
    message = prepared(Message("q:1", b"\x01" * 1000 * PIECE), *formats, LINES, FORMATS["WebSocket"])
    assert isinstance(message, LongMessage)
    assert len(message.bodies) == 2  # JSON, and JSON for scripts
    pieces = {id(piece): piece for each in formats for piece in each.render([message])}
    assert sum(map(len, pieces.values())) < 7000 * PIECE


def test_other_clients_have_their_turn_between_the_steps() -> None:
    clock = task.Clock()
    turns = Turns(clock.callLater, clock.seconds)
    call = defer.ensureDeferred(prepare(Message("q:1", b"\n" * 100 * PIECE), consumers(SSE), turns))
    for _ in range(100):
        assert not call.called
        turn(clock)
    turn(clock)
    assert call.called


def test_a_long_message_is_rendered_for_consumers_that_join_meanwhile() -> None:
    clock = task.Clock()
    turns = Turns(clock.callLater, clock.seconds)
    listening = consumers(LINES)
    found: list[Message] = []
    defer.ensureDeferred(prepare(Message("q:1", b"v" * 10 * PIECE), listening, turns)).addCallback(found.append)
    turn(clock)
    listening += consumers(SSE)
    while not found:
        clock.advance(0)
    assert isinstance(found[0], LongMessage)
    assert set(found[0].bodies) == {lines(None).body, EVENTS.body}


def test_a_short_message_is_not_prepared() -> None:
    message = Message("q:1", b"v" * PIECE)
    assert prepared(message, LINES) is message
