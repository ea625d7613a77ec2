"""Where messages end on a stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from restmq.frontends.syslog.framing import Frame, Frames

MAX = 480


def frames_of(*pieces: bytes, most: int = MAX, ended: bool = True) -> list[Frame]:
    """All frames of a stream that comes in these pieces."""
    frames = Frames(most)
    found: list[Frame] = []
    for piece in pieces:
        frames.feed(piece)
        while (frame := frames.next()) is not None:
            found.append(frame)
    if ended and (last := frames.end()) is not None:
        found.append(last)
    return found


def test_lines() -> None:
    assert frames_of(b"<1>one\n<2>two\r\n\n\r\nthree\n") == [Frame(b"<1>one"), Frame(b"<2>two"), Frame(b"three")]


def test_octet_counting_carries_line_feeds() -> None:
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


def test_a_number_that_begins_a_line_is_no_length_without_a_priority_behind_it() -> None:
    lines = [b"404 not found", b"2024-01-01 x", b"12", b"007 <13>x", b"12345678901 <13>x"]
    assert [frame.content for frame in frames_of(b"\n".join(lines) + b"\n")] == lines


def test_the_last_line_needs_no_end_and_a_half_sent_frame_is_marked() -> None:
    assert frames_of(b"<1>one\n<2>tw") == [Frame(b"<1>one"), Frame(b"<2>tw")]
    assert frames_of(b"10 <1>on") == [Frame(b"<1>on", True)]
    assert frames_of(b"123") == [Frame(b"123")]
    assert frames_of(b"") == []


def test_a_long_line_is_cut_and_what_follows_is_whole() -> None:
    assert frames_of(b"x" * MAX + b"\n", b"y" * (MAX + 1), b"yyy\n<1>next\n") == [
        Frame(b"x" * MAX),
        Frame(b"y" * MAX, True),
        Frame(b"<1>next"),
    ]


def test_a_long_counted_frame_is_cut_and_what_follows_is_whole() -> None:
    long = b"<1>" + b"x" * 1000 + b"\n9 <2>inside"
    assert frames_of(b"%d " % len(long), long, b"6 <3>two") == [Frame(long[:MAX], True), Frame(b"<3>two")]


def test_a_huge_length_in_the_text_of_a_line_swallows_nothing() -> None:
    lines = [b"<1>one", b"999999999 <1>not a length", b"<1>two"]
    assert [frame.content for frame in frames_of(b"\n".join(lines) + b"\n")] == lines


def test_an_endless_line_grows_nothing() -> None:
    for begin in (b"", b"9999999999 <1>"):
        frames = Frames(MAX)
        frames.feed(begin)
        found = 0
        for _ in range(1000):
            frames.feed(b"x" * 1000)
            while frames.next() is not None:
                found += 1
        assert found == 1
        assert frames.size_bytes <= MAX
        assert frames.end() is None


def test_what_nobody_asks_for_stays_as_it_is() -> None:
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
def test_any_mixture_comes_out_as_it_went_in_however_it_is_cut(
    messages: list[tuple[bool, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(b"%d %b" % (len(text), text) if counted else text + b"\n" for counted, text in messages)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert frames_of(*pieces) == [Frame(text) for _, text in messages]


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"7 <", b"99999 <", b"\n", b"600 <1>", b"x" * 500])))
def test_whatever_comes_is_cut_the_same_in_any_pieces_and_stays_bounded(pieces: list[bytes]) -> None:
    frames = Frames(MAX)
    found: list[Frame] = []
    for piece in pieces:
        frames.feed(piece)
        while (frame := frames.next()) is not None:
            found.append(frame)
        assert frames.size_bytes <= MAX + 12  # a frame, and its length before it
    if (last := frames.end()) is not None:
        found.append(last)
    stream = b"".join(pieces)
    assert found == frames_of(stream) == frames_of(*(stream[i : i + 1] for i in range(len(stream))))
    assert all(0 < len(frame.content) <= MAX for frame in found)
