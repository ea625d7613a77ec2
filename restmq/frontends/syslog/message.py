"""What a syslog message says: RFC 5424, and RFC 3164 as it is found in the wild. Pure.

Nothing is refused: what can't be read is left out, and the line itself is always kept.
"""

from __future__ import annotations

import codecs
import re
from typing import Any

from restmq.model import text_or_base64
from restmq.schema.encoding import to_json

#: The names that the first RestMQ gave them (RFC 5424, 6.2.1, tables 1 and 2).
FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "at", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
SEVERITIES = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")

#: What may stand around a message and is not of it: datagrams and streams end in line feeds, some also in NUL.
BLANKS = b" \t\r\n\v\f\0"
_BYTE_ORDER_MARK = "\ufeff"

_PRIORITY = re.compile(r"<([0-9]{1,3})>")
_ISO_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
_BSD_TIME = (
    "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 0-9][0-9] (?:[0-9]{4} )?"
    r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
)

# RFC 5424, 6: VERSION, TIMESTAMP, HOSTNAME, APP-NAME, PROCID, MSGID. Too long a name is still a name.
_HEADER = re.compile(rf"1 (-|{_ISO_TIME}) ([^ ]++) ([^ ]++) ([^ ]++) ([^ ]++) ")
_HEADER_FIELDS = ("timestamp", "hostname", "app", "pid", "msgid")
# RFC 5424, 6.3. A bare ']' in a value, which is against the rules, is unmistakable inside quotes.
_ELEMENT = re.compile(r'\[([^ =\]"]++)((?: ++[^ =\]"]++="(?:[^"\\]|\\.)*+")*+) *+\]', re.DOTALL)
_PARAMETER = re.compile(r'([^ =\]"]++)="((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPE = re.compile(r'\\(["\\\]])')

# RFC 3164, 4.1.2, and what became of it: a year, fractions of a second, Cisco's asterisk, RFC 3339.
_OLD_TIME = re.compile(rf"\*?({_BSD_TIME}|{_ISO_TIME}):? ")
_HOSTNAME = re.compile(r"([^ ]++) ++")
_TAG = re.compile(r"([^\s:\[\]]{1,128})(?:\[([^\]\s]{0,128})\])?:(?: |$)")


def render(line: bytes, host: str, received_seconds: float, truncated: bool = False) -> bytes:
    """The JSON that is queued for a line.

    Args:
        host: the address of the sender.
        received_seconds: when it came, since 1970.
        truncated: whether the line went on, or was to go on, but is not here.

    Returns:
        ``line``, ``host``, ``tstamp``, ``facility``, ``severity`` (names, or null) and what else ``read`` finds. A line
        that is not UTF-8 goes as base64 beside ``"encoding": "base64"``; the fields then show U+FFFD for what is not.
    """
    if truncated:
        line = _whole_characters(line)
    fields = text_or_base64(line)
    document: dict[str, Any] = {"line": fields.pop("value"), **fields, "host": host, "tstamp": received_seconds}
    document |= read(line.decode(errors="replace"))
    if truncated:
        document["truncated"] = True
    return to_json(document)


def _whole_characters(line: bytes) -> bytes:
    """Without the beginning of a character that the cut went through."""
    try:
        return line[: codecs.utf_8_decode(line, "strict", False)[1]]
    except UnicodeDecodeError:
        return line


def read(line: str) -> dict[str, Any]:
    """The fields of a message.

    Returns:
        ``facility`` and ``severity``, each None without a valid priority; then, where they can be read, ``timestamp``
        (as it was sent), ``hostname``, ``app``, ``pid``, ``msgid``, ``data`` (structured data: id to name to value, or
        to a list of values if the name came several times), and ``message``.
    """
    line = line.removeprefix(_BYTE_ORDER_MARK)
    facility = severity = None
    if (priority := _PRIORITY.match(line)) and int(priority[1]) < 8 * len(FACILITIES):
        facility, severity = FACILITIES[int(priority[1]) // 8], SEVERITIES[int(priority[1]) % 8]
        line = line[priority.end() :]
    fields = {"facility": facility, "severity": severity}
    if facility and (header := _HEADER.match(line + " ")):
        return fields | _read_new(header, line[header.end() :])
    return fields | _read_old(line)


def _read_new(header: re.Match[str], rest: str) -> dict[str, Any]:
    """RFC 5424."""
    fields: dict[str, Any] = {
        name: text for name, text in zip(_HEADER_FIELDS, header.groups(), strict=True) if text != "-"
    }
    data, at = _read_structured_data(rest)
    if data:
        fields["data"] = data
    if message := rest[at:].removeprefix(" ").removeprefix(_BYTE_ORDER_MARK):
        fields["message"] = message
    return fields


def _read_structured_data(rest: str) -> tuple[dict[str, dict[str, str | list[str]]], int]:
    """The structured data at the beginning, and where it ends; if it is broken, none of it, and all is message."""
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


def _read_old(rest: str) -> dict[str, Any]:
    """RFC 3164. Without a timestamp all is message (4.3.2): what looks like a tag may be anything."""
    fields: dict[str, Any] = {}
    if time := _OLD_TIME.match(rest):
        fields["timestamp"] = time[1]
        rest = rest[time.end() :]
        tag = _TAG.match(rest)  # at once after the time: programs that log to their own machine name no host
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
