"""Parsing syslog lines."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restmq.frontends.syslog.message import FACILITIES, SEVERITIES, encode_line, parse_line

BOM = "\ufeff"


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (  # RFC 5424, 6.5, example 1
            f"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - {BOM}'su root' failed for lonvick",
            {
                "facility": "auth",
                "severity": "crit",
                "timestamp": "2003-10-11T22:14:15.003Z",
                "hostname": "mymachine.example.com",
                "app": "su",
                "msgid": "ID47",
                "message": "'su root' failed for lonvick",
            },
        ),
        (  # example 2
            "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
            {
                "facility": "local4",
                "severity": "notice",
                "timestamp": "2003-08-24T05:14:15.000003-07:00",
                "hostname": "192.0.2.1",
                "app": "myproc",
                "pid": "8710",
                "message": "%% It's time to make the do-nuts.",
            },
        ),
        (  # example 4: structured data alone
            '<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [exampleSDID@32473 iut="3" eventSource="Application"]'
            '[examplePriority@32473 class="high"]',
            {
                "facility": "local4",
                "severity": "notice",
                "timestamp": "2003-10-11T22:14:15.003Z",
                "hostname": "h",
                "app": "evntslog",
                "msgid": "ID47",
                "data": {
                    "exampleSDID@32473": {"iut": "3", "eventSource": "Application"},
                    "examplePriority@32473": {"class": "high"},
                },
            },
        ),
        ("<0>1 - - - - - -", {"facility": "kern", "severity": "emerg"}),
        ("<0>1 - - - - - - x", {"facility": "kern", "severity": "emerg", "message": "x"}),
        ("<0>1 - - - - -", {"facility": "kern", "severity": "emerg"}),
        (  # invalid structured data is part of the message
            '<13>1 - h a - - [x a="1][y]',
            {"facility": "user", "severity": "notice", "hostname": "h", "app": "a", "message": '[x a="1][y]'},
        ),
        (  # not an RFC 5424 time, so RFC 3164 without a header
            "<13>1 one two three four five six",
            {"facility": "user", "severity": "notice", "message": "1 one two three four five six"},
        ),
        (  # RFC 3164, 5.4, example 1
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            {
                "facility": "auth",
                "severity": "crit",
                "timestamp": "Oct 11 22:14:15",
                "hostname": "mymachine",
                "app": "su",
                "message": "'su root' failed for lonvick on /dev/pts/8",
            },
        ),
        (  # example 2
            "Use the BFG!",
            {"facility": None, "severity": None, "message": "Use the BFG!"},
        ),
        (
            "<22>Nov  1 00:12:04 gleicon-vm1 postfix/smtpd[4880]: connect from localhost[127.0.0.1]",
            {
                "facility": "mail",
                "severity": "info",
                "timestamp": "Nov  1 00:12:04",
                "hostname": "gleicon-vm1",
                "app": "postfix/smtpd",
                "pid": "4880",
                "message": "connect from localhost[127.0.0.1]",
            },
        ),
        (  # a program on the same machine sends no host name
            "<13>Nov  1 00:12:04 cron[7]: done",
            {
                "facility": "user",
                "severity": "notice",
                "timestamp": "Nov  1 00:12:04",
                "app": "cron",
                "pid": "7",
                "message": "done",
            },
        ),
        (
            "<190>*Mar  1 2024 18:46:11.123: fe80::1 %LINK-3-UPDOWN: up",
            {
                "facility": "local7",
                "severity": "info",
                "timestamp": "Mar  1 2024 18:46:11.123",
                "hostname": "fe80::1",
                "app": "%LINK-3-UPDOWN",
                "message": "up",
            },
        ),
        (
            "<13>2024-02-03T04:05:06.789+01:00 h kernel: [ 1.0] x",
            {
                "facility": "user",
                "severity": "notice",
                "timestamp": "2024-02-03T04:05:06.789+01:00",
                "hostname": "h",
                "app": "kernel",
                "message": "[ 1.0] x",
            },
        ),
        ("<13>ERROR: no time", {"facility": "user", "severity": "notice", "message": "ERROR: no time"}),
        ("<192>x", {"facility": None, "severity": None, "message": "<192>x"}),
        ("<>x", {"facility": None, "severity": None, "message": "<>x"}),
        ("<1000>x", {"facility": None, "severity": None, "message": "<1000>x"}),
        ("<-1>x", {"facility": None, "severity": None, "message": "<-1>x"}),
        ("<1²>x", {"facility": None, "severity": None, "message": "<1²>x"}),
        (f"{BOM}<13>x", {"facility": "user", "severity": "notice", "message": "x"}),
    ],
)
def test_the_fields_of_a_line(line: str, fields: dict[str, Any]) -> None:
    assert parse_line(line) == fields


def test_structured_data_with_escapes_brackets_and_a_repeated_name() -> None:
    line = r'<13>1 - - - - - [a@1 q="say \"hi\" \\ [x\] \n ]" ip="1" ip="2"  ][empty] - text'
    assert parse_line(line)["data"] == {"a@1": {"q": r'say "hi" \ [x] \n ]', "ip": ["1", "2"]}, "empty": {}}
    assert parse_line(line)["message"] == "- text"


def test_all_priorities_have_names() -> None:
    for number in range(192):
        fields = parse_line(f"<{number}>x")
        assert (FACILITIES.index(fields["facility"]), SEVERITIES.index(fields["severity"])) == divmod(number, 8)


def test_a_message_begins_with_the_fields_of_the_first_restmq() -> None:
    document = json.loads(encode_line("<13>höst".encode(), "192.0.2.1", 1.5))
    assert list(document.items()) == [
        ("line", "<13>höst"),
        ("host", "192.0.2.1"),
        ("tstamp", 1.5),
        ("facility", "user"),
        ("severity", "notice"),
        ("message", "höst"),
    ]


def test_a_truncated_line_ends_with_a_whole_character() -> None:
    document = json.loads(encode_line("<13>xé".encode()[:-1], "h", 0, truncated=True))
    assert (document["line"], document["truncated"]) == ("<13>x", True)


def test_a_line_that_is_not_utf8_is_kept_as_base64() -> None:
    document = json.loads(encode_line(b"<13>caf\xe9 \x00", "h", 0))
    assert base64.b64decode(document["line"]) == b"<13>caf\xe9 \x00"
    assert (document["encoding"], document["message"], document["facility"]) == ("base64", "caf\ufffd \0", "user")


@given(
    st.binary()
    | st.text(alphabet='<>0139 -[]"=\\:aTZ\ufeff\n', min_size=1).map(str.encode)
    | st.text(alphabet='[]"=\\ a-', max_size=40).map(lambda text: b"<13>1 - - - - - " + text.encode())
    | st.text(alphabet="[]:. a1-", max_size=40).map(lambda text: b"<13>Nov  1 00:12:04 " + text.encode()),
    st.booleans(),
)
def test_any_line_is_kept_as_it_was_sent(line: bytes, truncated: bool) -> None:
    document = json.loads(encode_line(line, "h", 0, truncated))
    kept = base64.b64decode(document["line"]) if "encoding" in document else document["line"].encode()
    assert line.startswith(kept) if truncated else line == kept
    assert {"host", "tstamp", "facility", "severity"} <= set(document)
