"""Forms, queries and the Accept header, byte for byte."""

from __future__ import annotations

import tracemalloc
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import defer
from twisted.python.failure import Failure

from restmq.errors import InvalidInput, WireError
from restmq.http.forms import ARGUMENTS_MAX, PART_HEADER_BYTES_MAX, _unquote
from restmq.http.request import Request
from tests.in_memory import App, Client, get, post


def form(body: bytes, content_type: str = "application/x-www-form-urlencoded", query: str = "") -> Request:
    client = Client(App()).send(post(f"/{query}", body, f"Content-Type: {content_type}\r\n"))
    (request,) = client.app.requests
    return request


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (b"007", b"007"),
        (b"+x+", b" x "),
        (b"%20x%20", b" x "),
        (b"%2B", b"+"),
        (b"%00%0a%0D", b"\0\n\r"),
        (b"%ff\xfe", b"\xff\xfe"),
        ("😀%F0%9F%98%80".encode(), "😀😀".encode()),
        (b"100%", b"100%"),
        (b"%zz%4", b"%zz%4"),
        (b"%%41", b"%A"),
        (b"a=b==", b"a=b=="),
        (b"%3D%25=\r\n_", b"=%=\r\n_"),
        (b"%\r\n", b"%\r\n"),
        (b"", b""),
    ],
)
def test_a_form_value_arrives_byte_for_byte(sent: bytes, value: bytes) -> None:
    assert form(b"a=1&value=%b&b" % sent).arguments == {"a": [b"1"], "value": [value], "b": [b""]}


SIGNS = [b"%", b"=", b"%3D", b"%3d", b"%25", b"4", b"F", b"g", b"\n", b"\r", b" ", b"_", b"\xff", b"\0"]


@given(st.lists(st.sampled_from(SIGNS)).map(b"".join))
def test_percent_decoding_equals_the_standard_librarys(encoded: bytes) -> None:
    assert _unquote(encoded) == unquote_to_bytes(encoded)


@pytest.mark.parametrize("sign", [b"%", b"%a", b"%\n", b"%="])
def test_invalid_escapes_take_memory_of_about_their_size(sign: bytes) -> None:
    encoded = sign * (1_000_000 // len(sign))
    tracemalloc.start()
    try:
        assert _unquote(encoded) == encoded
        assert tracemalloc.get_traced_memory()[1] < 8 * len(encoded)
    finally:
        tracemalloc.stop()


def test_a_query_parameter_is_read_without_parsing_the_form() -> None:
    request = form(b"v=form", "multipart/form-data", "?v=1&v=%C3%BC&w=%FF")  # a form without a boundary is refused
    assert (request.query_text("v"), request.query_text("x")) == ("ü", None)
    with pytest.raises(InvalidInput, match="'w' is not valid UTF-8"):
        request.query_text("w")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_get_has_no_form(method: str) -> None:
    sent = post("/?v=1", b"v=2", "Content-Type: application/x-www-form-urlencoded\r\n")
    client = Client(App()).send(sent.replace(b"POST", method.encode()))
    assert client.app.requests[0].arguments == {"v": [b"1"]}


def test_query_and_form_fields_keep_their_order() -> None:
    request = form(b"v=2&&v=3&=&=x&n%C3%A4me=1", query="?v=1&")
    assert request.arguments == {"v": [b"1", b"2", b"3"], "": [b"x"], "näme": [b"1"]}


def test_a_body_of_another_type_is_not_a_form() -> None:
    assert form(b'{"v=1":1}', "application/json; charset=utf-8").arguments == {}


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=B"])
def test_a_form_has_at_most_a_thousand_fields(kind: str) -> None:
    def body(count: int) -> bytes:
        if "B" in kind:
            return b'--B\r\nContent-Disposition: form-data; name="v"\r\n\r\n\r\n' * count + b"--B--"
        return b"&".join([b"v="] * count)

    assert len(form(body(ARGUMENTS_MAX), kind).arguments["v"]) == ARGUMENTS_MAX
    with pytest.raises(WireError) as refusal:
        _ = form(body(ARGUMENTS_MAX + 1), kind).arguments
    assert refusal.value.status == 400


MULTIPART = (
    b"preamble\r\n--B \t\r\n"
    b'content-disposition: form-data; name="value"\r\n\r\n'
    b" 007\r\n--b\r\n--\xff\0--B\r\n"
    b"\r\n--B\r\n"
    b'X: y\r\nContent-Disposition: form-data; filename="a; name=\\"b\\""; name="f;\\"\xc3\xa9"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n"
    b"\xff\xd8\r\n"
    b"\r\n--B\r\n"
    b"Content-Disposition: form-data; name=empty\r\n\r\n"
    b"\r\n--B--\r\nepilogue\r\n--B\r\n"
)


def test_the_header_of_a_part_has_at_most_eight_kilobytes() -> None:
    def body(header_bytes: int) -> bytes:
        header = b"Content-Disposition: form-data; name=v; x="
        return b"--B\r\n%b\r\n\r\n1\r\n--B--" % header.ljust(header_bytes, b"x")

    kind = "multipart/form-data; boundary=B"
    assert form(body(PART_HEADER_BYTES_MAX), kind).arguments == {"v": [b"1"]}
    with pytest.raises(WireError, match="8192") as refusal:
        _ = form(body(PART_HEADER_BYTES_MAX + 1), kind).arguments
    assert refusal.value.status == 400


@pytest.mark.parametrize("boundary", ["boundary=B", 'Boundary="B"', "charset=utf-8; boundary=B; x=y"])
def test_a_multipart_form_arrives_byte_for_byte(boundary: str) -> None:
    assert form(MULTIPART, f"Multipart/Form-Data; {boundary}").arguments == {
        "value": [b" 007\r\n--b\r\n--\xff\0--B\r\n"],
        'f;"é': [b"\xff\xd8\r\n"],
        "empty": [b""],
    }


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", MULTIPART),
        ("multipart/form-data; boundary=", MULTIPART),
        ("multipart/form-data; boundary=C", MULTIPART),
        ("multipart/form-data; boundary=B", b""),
        ("multipart/form-data; boundary=B", b"--B\r\nContent-Disposition: form-data; name=v\r\n\r\nx"),
        ("multipart/form-data; boundary=B", b"--B\r\nContent-Disposition: form-data; name=v\r\n--B--"),
        ("multipart/form-data; boundary=B", b"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--"),
        ("multipart/form-data; boundary=B", b"--BC\r\nContent-Disposition: form-data; name=v\r\n\r\nx\r\n--B--"),
    ],
    ids=[
        "no boundary",
        "empty boundary",
        "other boundary",
        "empty",
        "no end",
        "no value",
        "no name",
        "longer boundary",
    ],
)
def test_a_broken_multipart_form_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(WireError) as refusal:
        _ = form(body, content_type).arguments
    assert refusal.value.status == 400


# What a client accepts

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"
JAVA = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"


def accepting(accept: str) -> Request:
    return Client(App()).send(get("/", f"Accept: {accept}\r\n")).app.requests[0]


@pytest.mark.parametrize(
    ("accept", "accepts"),
    [
        ("text/html", True),
        ("a/b, Text/HTML;q=0.9", True),
        ("*/*", False),
        ("text/*", False),
        ("text/html;q=0", False),
        ("", False),
    ],
)
def test_only_a_media_type_that_the_accept_header_names_is_accepted(accept: str, accepts: bool) -> None:
    assert accepting(accept).accepts("text/html") is accepts


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ("text/html", True),
        (CHROME, True),
        ("text/html, application/json", True),
        ("application/json, text/html", False),
        ("application/json;q=0.5, text/html;q=0.9", True),
        ("text/html;q=0.5, application/json", False),
        ("text/html;q=0.5, */*", False),
        ("*/*, text/html", True),
        ("text/html;q=0", False),
        ("application/json, text/plain, */*", False),  # axios
        ("*/*", False),
        (JAVA, False),
    ],
)
def test_a_page_is_for_clients_that_prefer_it_to_json(accept: str, page: bool) -> None:
    assert accepting(accept).wants_page is page


# Long forms


def read_in_steps(request: Request) -> int:
    """Reads a long form as a handler does; returns the number of turns that it took."""
    reading = defer.ensureDeferred(request.read_form())
    app, turns = request.connection.factory, 0
    while not reading.called:
        app.turn()
        turns += 1
    failure: list[Failure] = []
    reading.addErrback(failure.append)
    if failure:
        failure[0].raiseException()
    return turns


@pytest.mark.parametrize("value", [b"%", b"%zz", b"%41", b"+", b"a%2", b"x", b"%4", b"%C3%A9"])
def test_a_long_value_is_decoded_in_many_turns_and_byte_for_byte(value: bytes) -> None:
    encoded = value * (400_003 // len(value))
    request = form(b"a=1&value=" + encoded + b"&b=%41")
    turns = read_in_steps(request)
    assert request.arguments == {"a": [b"1"], "value": [unquote_to_bytes(encoded.replace(b"+", b" "))], "b": [b"A"]}
    assert turns > (4 if value != b"x" else 1)


def test_a_long_multipart_form_is_parsed_a_part_a_turn() -> None:
    part = b'--B\r\nContent-Disposition: form-data; name="v"\r\n\r\n%b\r\n'
    request = form(part % b"x" * 100 + part % (b"y" * 1_000_000) + b"--B--", "multipart/form-data; boundary=B")
    assert read_in_steps(request) > 100
    assert request.arguments["v"] == [b"x"] * 100 + [b"y" * 1_000_000]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=B"])
def test_the_fields_of_a_form_beside_the_longest_may_have_one_mib(kind: str) -> None:
    def body(count: int) -> bytes:
        values = [b"x" * 10_000] * count + [b"y" * 3_000_000]
        if "B" in kind:
            return (
                b"".join(b"--B\r\nContent-Disposition: form-data; name=v\r\n\r\n%b\r\n" % v for v in values) + b"--B--"
            )
        return b"&".join(b"v=" + value for value in values)

    request = form(body(100), kind)
    read_in_steps(request)
    assert len(request.arguments["v"]) == 101
    with pytest.raises(WireError, match="1048576") as refusal:
        read_in_steps(form(body(105), kind))
    assert refusal.value.status == 413


def test_a_long_body_that_is_not_a_form_is_not_parsed() -> None:
    request = form(b"v=1&" * 100_000, "text/plain")
    assert read_in_steps(request) == 0
    assert request.arguments == {}
