"""Parses syslog messages: RFC 5424, and RFC 3164 in the variants that programs send. No input or output here.

No line is rejected. A field that cannot be parsed is left out, and the line itself is always kept.
"""

from __future__ import annotations

import codecs
import re
from typing import Any

from restmq.model import text_or_base64
from restmq.schema.encoding import to_json

#: Names as the first RestMQ had them (RFC 5424, 6.2.1, tables 1 and 2).
FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "at", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
SEVERITIES = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")

#: Bytes around a message that are not part of it: many senders end messages with a line feed, some with NUL.
BLANKS = b" \t\r\n\v\f\0"
_BYTE_ORDER_MARK = "\ufeff"

_PRIORITY = re.compile(r"<([0-9]{1,3})>")
_ISO_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
_BSD_TIME = (
    "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 0-9][0-9] (?:[0-9]{4} )?"
    r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
)

# RFC 5424, 6: VERSION, TIMESTAMP, HOSTNAME, APP-NAME, PROCID, MSGID. Names longer than the RFC allows are accepted.
_HEADER = re.compile(rf"1 (-|{_ISO_TIME}) ([^ ]++) ([^ ]++) ([^ ]++) ([^ ]++) ")
_HEADER_FIELDS = ("timestamp", "hostname", "app", "pid", "msgid")
# RFC 5424, 6.3. An unescaped ']' in a value is accepted, though the RFC forbids it: the quotes make it unambiguous.
# No group has a possessive quantifier: in Python 3.11.2, which Debian 12 has, those match what they must not.
_TEXT = r'[^"\\]*(?:\\.[^"\\]*)*'
_ELEMENT = re.compile(rf'\[([^ =\]"]++)((?: ++[^ =\]"]++="{_TEXT}")*) *+\]', re.DOTALL)
_PARAMETER = re.compile(rf'([^ =\]"]++)="({_TEXT})"', re.DOTALL)
_ESCAPE = re.compile(r'\\(["\\\]])')

# RFC 3164, 4.1.2, and later additions: a year, fractions of a second, Cisco's asterisk, RFC 3339.
_RFC3164_TIME = re.compile(rf"\*?({_BSD_TIME}|{_ISO_TIME}):? ")
_HOSTNAME = re.compile(r"([^ ]++) ++")
_TAG = re.compile(r"([^\s:\[\]]{1,128})(?:\[([^\]\s]{0,128})\])?:(?: |$)")


def encode_line(line: bytes, host: str, received_seconds: float, truncated: bool = False) -> bytes:
    """The JSON message for a line.

    Args:
        host: address of the sender.
        received_seconds: time of arrival, since 1970.
        truncated: whether the end of the line is missing.

    Returns:
        ``line``, ``host``, ``tstamp`` and the fields of ``parse_line``. If the line is not UTF-8, ``line`` is base64,
        ``encoding`` says so, and the other fields have U+FFFD for each invalid byte.
    """
    if truncated:
        line = _whole_characters(line)
    fields = text_or_base64(line)
    document: dict[str, Any] = {"line": fields.pop("value"), **fields, "host": host, "tstamp": received_seconds}
    document |= parse_line(line.decode(errors="replace"))
    if truncated:
        document["truncated"] = True
    return to_json(document)


def _whole_characters(line: bytes) -> bytes:
    """The line without a character at its end that the truncation has cut in two."""
    try:
        return line[: codecs.utf_8_decode(line, "strict", False)[1]]
    except UnicodeDecodeError:
        return line


def parse_line(line: str) -> dict[str, Any]:
    """The fields of a line.

    Returns:
        ``facility`` and ``severity`` (names; None without a valid priority). Then those of these that can be parsed:
        ``timestamp`` (as it was sent), ``hostname``, ``app``, ``pid``, ``msgid``, ``data`` (structured data: id to name
        to value, or to a list of values if the name is repeated), ``message``.
    """
    line = line.removeprefix(_BYTE_ORDER_MARK)
    facility = severity = None
    if (priority := _PRIORITY.match(line)) and int(priority[1]) < 8 * len(FACILITIES):
        facility, severity = FACILITIES[int(priority[1]) // 8], SEVERITIES[int(priority[1]) % 8]
        line = line[priority.end() :]
    fields = {"facility": facility, "severity": severity}
    if facility and (header := _HEADER.match(line + " ")):
        return fields | _parse_rfc5424(header, line[header.end() :])
    return fields | _parse_rfc3164(line)


def _parse_rfc5424(header: re.Match[str], rest: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: text for name, text in zip(_HEADER_FIELDS, header.groups(), strict=True) if text != "-"
    }
    data, at = _parse_structured_data(rest)
    if data:
        fields["data"] = data
    if message := rest[at:].removeprefix(" ").removeprefix(_BYTE_ORDER_MARK):
        fields["message"] = message
    return fields


def _parse_structured_data(rest: str) -> tuple[dict[str, dict[str, str | list[str]]], int]:
    """Structured data at the beginning, and its length. Invalid structured data is part of the message: length 0."""
    if rest.startswith("-") and rest[1:2] in ("", " "):
        return {}, 1
    data: dict[str, dict[str, str | list[str]]] = {}
    at = 0
    while element := _ELEMENT.match(rest, at):
        values: dict[str, list[str]] = {}
        for name, value in _PARAMETER.findall(element[2]):
            values.setdefault(name, []).append(_ESCAPE.sub(r"\1", value))
        data[element[1]] = {name: found[0] if len(found) == 1 else found for name, found in values.items()}
        at = element.end()
    return (data, at) if rest[at : at + 1] in ("", " ") else ({}, 0)


def _parse_rfc3164(rest: str) -> dict[str, Any]:
    """Without a timestamp the whole line is the message (RFC 3164, 4.3.2), even if it begins like a tag."""
    fields: dict[str, Any] = {}
    if time := _RFC3164_TIME.match(rest):
        fields["timestamp"] = time[1]
        rest = rest[time.end() :]
        tag = _TAG.match(rest)  # programs that log to their own machine send no host name
        if tag is None and (hostname := _HOSTNAME.match(rest)):
            fields["hostname"] = hostname[1]
            rest = rest[hostname.end() :]
            tag = _TAG.match(rest)
        if tag is not None:
            fields["app"] = tag[1]
            if tag[2]:
                fields["pid"] = tag[2]
            rest = rest[tag.end() :]
    if rest:
        fields["message"] = rest
    return fields
