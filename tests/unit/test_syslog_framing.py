"""Splitting a stream into syslog messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from restmq.frontends.syslog.framing import Frame, Frames

MAX = 480


def frames_of(*pieces: bytes, most: int = MAX) -> list[Frame]:
    """All frames of a stream that arrives in these pieces. Its buffer stays bounded."""
    frames = Frames(most)
    found: list[Frame] = []
    for piece in pieces:
        frames.feed(piece)
        found += iter(frames.next, None)
        assert frames.size_bytes <= most + 12  # one frame, and the length before it
    frames.end()
    found += iter(frames.next, None)
    return found


def test_lines_end_at_line_feeds() -> None:
    assert frames_of(b"<1>one\n<2>two\r\n\n\r\nthree\n") == [Frame(b"<1>one"), Frame(b"<2>two"), Frame(b"three")]


def test_a_counted_message_may_contain_line_feeds() -> None:
    assert frames_of(b"8 <1>o\nne\n6 <2>two") == [Frame(b"<1>o\nne\n"), Frame(b"<2>two")]


def test_a_connection_may_change_its_framing_from_frame_to_frame() -> None:
    stream = b"6 <1>one<2>two\n8 <3>three\nplain\n5 <4>x\n"
    assert [frame.content for frame in frames_of(stream)] == [
        b"<1>one",
        b"<2>two",
        b"<3>three",
        b"plain",
        b"<4>x\n",
    ]


def test_a_number_at_the_start_of_a_line_is_a_length_only_before_a_priority() -> None:
    lines = [b"404 not found", b"2024-01-01 x", b"12", b"007 <13>x", b"12345678901 <13>x"]
    assert [frame.content for frame in frames_of(b"\n".join(lines) + b"\n")] == lines


def test_the_last_line_needs_no_line_feed_and_an_incomplete_counted_frame_is_marked() -> None:
    assert frames_of(b"<1>one\n<2>tw") == [Frame(b"<1>one"), Frame(b"<2>tw")]
    assert frames_of(b"10 <1>on") == [Frame(b"<1>on", True)]
    assert frames_of(b"123") == [Frame(b"123")]
    assert frames_of(b"") == []


def test_a_long_line_is_truncated_and_the_next_one_is_whole() -> None:
    assert frames_of(b"x" * MAX + b"\n", b"y" * (MAX + 1), b"yyy\n<1>next\n") == [
        Frame(b"x" * MAX),
        Frame(b"y" * MAX, True),
        Frame(b"<1>next"),
    ]


def test_a_long_counted_frame_is_truncated_and_the_next_one_is_whole() -> None:
    long = b"<1>" + b"x" * 1000 + b"\n9 <2>inside"
    assert frames_of(b"%d " % len(long), long, b"6 <3>two") == [Frame(long[:MAX], True), Frame(b"<3>two")]


def test_a_huge_length_between_lines_is_text() -> None:
    lines = [b"<1>one", b"999999999 <1>not a length", b"<1>two"]
    assert [frame.content for frame in frames_of(b"\n".join(lines) + b"\n")] == lines


def test_an_endless_line_is_truncated_once() -> None:
    for begin in (b"", b"9999999999 <1>"):
        assert len(frames_of(begin, *[b"x" * 1000] * 1000)) == 1


def test_frames_that_nobody_requests_stay_in_the_buffer() -> None:
    frames = Frames(MAX)
    frames.feed(b"<1>one\n<2>two\n")
    assert frames.next() == Frame(b"<1>one")
    frames.feed(b"<3>three\n")
    assert [frames.next(), frames.next(), frames.next()] == [Frame(b"<2>two"), Frame(b"<3>three"), None]


MESSAGES = st.lists(
    st.tuples(st.booleans(), st.binary(max_size=30).map(lambda text: b"<13>" + text)).map(
        lambda pair: (pair[0], pair[1] if pair[0] else pair[1].replace(b"\n", b" ").rstrip(b"\r"))
    )
)


@given(MESSAGES, st.data())
def test_any_mixture_of_framings_in_any_pieces_gives_the_same_messages(
    messages: list[tuple[bool, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(b"%d %b" % (len(text), text) if counted else text + b"\n" for counted, text in messages)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert frames_of(*pieces) == [Frame(text) for _, text in messages]


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"7 <", b"99999 <", b"\n", b"600 <1>", b"x" * 500])))
def test_any_bytes_give_the_same_frames_in_any_pieces(pieces: list[bytes]) -> None:
    found = frames_of(*pieces)
    stream = b"".join(pieces)
    assert found == frames_of(stream) == frames_of(*(stream[i : i + 1] for i in range(len(stream))))
    assert all(0 < len(frame.content) <= MAX for frame in found)
