"""The hostile inputs: each is valid or nearly valid, small to send, and expensive to read for a careless server."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass

from tests.load.clients import Request, frame, get, post, websocket

QUEUE = "hostile"
_COMMANDS, _LINES = "application/json", "application/x-ndjson"
_BODY_BYTES = 16 * 1024 * 1024 - 4096  # below the default of --max-body
_LAST = frame(b'{"cmd":"get","queue":"none","id":"the-last"}')  # its answer is too short to be compressed
_ANSWERED_LAST = b'"the-last"'
_DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


@dataclass(frozen=True, slots=True)
class Input:
    """An input that a number of clients send again and again.

    Attributes:
        requests: variants, sent in turns.
        guesses: whether each request has an address and a wrong password of its own.
        pause_seconds: time between two requests of a client.
    """

    clients: int
    requests: tuple[Request, ...]
    guesses: bool = False
    pause_seconds: float = 0.0

    def headers(self, client: int, number: int) -> tuple[str, ...]:
        """Header lines that differ between requests. Odd numbers have addresses in one IPv6 network of 64 bits."""
        if not self.guesses:
            return (f"X-Forwarded-For: 10.0.0.{client % 250 + 1}",)
        ipv4 = f"10.{1 + (number >> 16) % 254}.{(number >> 8) % 256}.{number % 256}"
        wrong = base64.b64encode(b"consumer:wrong-%d" % number).decode()
        address = f"2001:db8::{number:x}" if number % 2 else ipv4
        return f"X-Forwarded-For: {address}", f"Authorization: Basic {wrong}"


def _deflated(text: bytes) -> bytes:
    """A message as permessage-deflate sends it (RFC 7692 section 7.2.1)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _command(value: bytes, name: bytes = b"value") -> bytes:
    return b'{"cmd":"add","queue":"' + QUEUE.encode() + b'","' + name + b'":' + value + b"}"


def _empty_arrays(size: int) -> bytes:
    return b"[" + b"[]," * (size // 3 - 1) + b"[]]"


def _values(size: int) -> bytes:
    each = _empty_arrays(size // 1000 - 1)
    return b"[" + b",".join([each] * 1000) + b"]"


def _long_integer(size: int) -> bytes:
    """A large array with an integer beyond 64 bits."""
    return b"[" + b"0," * (size // 2 - 12) + b"12345678901234567890]"


def deflate_bombs(size: int = _BODY_BYTES) -> Input:
    """A few KB that inflate to a command of many arrays; over one message, and over fragments."""
    bomb = _deflated(_command(_empty_arrays(size)))
    halves = frame(bomb[: len(bomb) // 2], final=False, compressed=True) + frame(bomb[len(bomb) // 2 :], 0)
    whole = frame(bomb, compressed=True)
    return Input(
        8, tuple(websocket("/ws/none", data + _LAST, _DEFLATE, until=_ANSWERED_LAST) for data in (whole, halves))
    )


def small_frames(count: int = 200_000) -> Input:
    """Frames of one byte: messages, fragments of one message, pings, and commands."""
    fragments = frame(b"x", final=False) + frame(b"x", 0, final=False) * count + frame(b"x", 0)
    commands = frame(b"{}") * count
    variants = frame(b"x") * count, fragments, frame(b"x", 9) * count, commands
    return Input(10, tuple(websocket("/ws/none", data + _LAST, until=_ANSWERED_LAST) for data in variants))


def pipelined(count: int = 2000) -> Input:
    """Many requests at once on each connection: of a handler, of a missing path, of a file, of Redis."""
    paths = "/healthz", "/missing", "/static/dashboard.js", "/q/none"
    return Input(30, tuple(_pipeline(path, count) for path in paths))


def _pipeline(path: str, count: int) -> Request:
    more = Request(f"GET {path}").head() * (count - 2)
    return Request(f"GET {path}", body=more + get(path).head())


def large_xml(size: int = _BODY_BYTES) -> Input:
    """XML-RPC with a million attributes, with deep elements, and with many references."""
    attributes = b"".join(b' a%d=""' % number for number in range(size // 12))
    bodies = (
        b"<methodCall" + attributes + b"/>",
        b"<a>" * (size // 7) + b"</a>" * (size // 7),
        b"<methodCall><methodName>set</methodName><params><param><value>" + b"&lt;" * (size // 4 - 50),
        b"<methodCall>" + b"<!---->" * (size // 7 - 10) + b"</methodCall>",
    )
    return Input(4, tuple(post("/xmlrpc", "text/xml", body) for body in bodies))


def large_json(size: int = _BODY_BYTES) -> Input:
    """Commands of many arrays: as a value, as a thousand values, with a long integer, and as a form's field."""
    commands = (
        _command(_values(size - 100), b"values"),
        _command(_empty_arrays(size - 100)),
        _command(_long_integer(size - 100)),
        _command(b"[" * 100_000 + b"]" * 100_000),
        b'{"cmd":"list",' + b",".join(b'"%d":{}' % number for number in range(size // 16)) + b"}",
    )
    field = b"body=" + _command(_empty_arrays(size - 200))
    form = post("/queue", "application/x-www-form-urlencoded", field)
    return Input(6, (*(post("/queue", _COMMANDS, command) for command in commands), form))


def large_lines(size: int = _BODY_BYTES) -> Input:
    """NDJSON: one line of many arrays, a thousand lines of them, a long integer, more lines than are allowed."""
    bodies = (
        _empty_arrays(size),
        (_empty_arrays(size // 1000 - 2) + b"\n") * 1000,
        _long_integer(size),
        b"[]\n" * (size // 3),
        b"\n" * size,
    )
    return Input(5, tuple(post(f"/q/{QUEUE}", _LINES, body) for body in bodies))


def large_forms(size: int = _BODY_BYTES) -> Input:
    """Forms of many fields, many escapes, and many parts."""
    part = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    coded = "application/x-www-form-urlencoded"
    return Input(
        4,
        (
            post(f"/q/{QUEUE}", coded, b"a&" * (size // 2)),
            post(f"/q/{QUEUE}", coded, b"value=" + b"%41+" * (size // 4 - 2)),
            post(f"/q/{QUEUE}", "multipart/form-data; boundary=B", part * (size // len(part) - 1) + b"--B--\r\n"),
            post(f"/q/{QUEUE}", "multipart/form-data; boundary=B", b"--B\r\n" + b"a: b\r\n" * (size // 6 - 2)),
        ),
    )


def wrong_passwords(clients: int = 200) -> Input:
    """A wrong password from each of many addresses, against a hash that is slow to check."""
    return Input(clients, (get("/c/none"),), guesses=True, pause_seconds=1.0)


def many_queues() -> Input:
    """Lists of all queues: by commands, as statistics, as a page, as metrics, for the dashboard."""
    lists = frame(b'{"cmd":"list"}') * 29
    return Input(
        7,
        (
            websocket("/ws/none", lists + _LAST, until=_ANSWERED_LAST),
            get("/stats/"),
            get("/stats/?count=100000", "Accept: application/json"),
            get("/q/?count=100000"),
            get("/control/"),
            get("/metrics"),
            Request("GET /dashboard/events", until=b"\n\n"),
        ),
    )


def purges() -> Input:
    """Not hostile: keeps Redis small while messages are accepted."""
    return Input(1, (Request(f"DELETE /q/{QUEUE}", ("Connection: close",)),), pause_seconds=0.5)
