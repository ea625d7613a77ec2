"""``twistd collectd``: RestMQ with two more routes, for collectd's write_http and exec plugins.

Each request becomes one message, or is rejected as a whole. The messages have the format of the first RestMQ.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import cache
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Raw
from twisted.application import service

from restmq.auth import guard
from restmq.errors import InvalidInput, TooLong
from restmq.handlers.base import Handler
from restmq.http.response import TEXT
from restmq.schema.encoding import to_json
from restmq.schema.json_input import refuse
from restmq.server import options
from restmq.server.coercions import whole_number
from restmq.server.service import makeService as make_restmq

VALUES_MAX = 10_000  # per request; collectd sends about fifty
#: collectd's own lines are shorter. In the message each value repeats the names of its line, so a long line with many
#: values would make a message many times as long.
_LINE_CHARACTERS_MAX = 4096
#: Blank lines count too. A value in JSON has one object, and one for its metadata.
_LINES_PER_VALUE = _OBJECTS_PER_VALUE = 2
_NOTIFICATION_BYTES_MAX = 64 * 1024
_NOTIFICATION_HEADERS_MAX = 100
_SHOWN_CHARACTERS = 80
_VALUES_MEMBERS = ("host", "plugin", "type", "time", "values")

# Parts of a line in collectd's plain text protocol (collectd-unixsock(5)), each with the blanks after it.
# No group has a possessive quantifier: in Python 3.11.2, which Debian 12 has, those match what they must not.
_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_STRING = re.compile(rf"({_QUOTED}|[^\s\"]++)(?: ++|$)", re.ASCII)
_OPTION = re.compile(rf"([A-Za-z][^\s=\":]*+(?::[^\s=\"]+)?)=({_QUOTED}|[^\s\"]++)(?: ++|$)", re.ASCII)
_NUMBER = r"[-+]?(?:[0-9]++(?:\.[0-9]*+)?(?:[eE][-+]?[0-9]++)?|nan|inf|U)"
_VALUE_LIST = re.compile(rf"((?:N|[0-9]++(?:\.[0-9]*+)?)(?::{_NUMBER})+)(?: ++|$)", re.IGNORECASE)
_HEADER = re.compile(r"([^\s:]++):(?: |$)(.*)", re.ASCII)


class _InvalidLine(InvalidInput):
    def __init__(self, number: int, line: str, problem: str) -> None:
        shown = line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "…"
        super().__init__(f"line {number} {problem}: {shown!r}")


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as problem:
        number = body.count(b"\n", 0, problem.start) + 1
        line = body[body.rfind(b"\n", 0, problem.start) + 1 :].partition(b"\n")[0]
        raise _InvalidLine(number, line.decode(errors="replace"), "is not UTF-8") from None


def _lines(text: str, lines_max: int = -1) -> list[str]:
    """Splits at line feeds only, because names may contain the other line ends that Python knows.

    Args:
        lines_max: if there are more lines, the last item is all the rest.
    """
    return [line.removesuffix("\r") for line in text.split("\n", lines_max)]


def _unquote(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word


def parse_values(body: bytes, values_max: int = VALUES_MAX) -> list[dict[str, Any]]:
    """Parses lines such as ``PUTVAL host/plugin-instance/type-instance interval=10.000 1251533299:1:2``.

    Returns:
        An object for each list of values, all members strings: ``host``, ``plugin_instance``, ``type_instance``,
        ``value`` (as sent, time first), ``interval`` if given, and ``options`` if there are other options.

    Raises:
        InvalidInput: a line is invalid (the error names the first such line), or the body has no values.
        TooLong: it has many blank lines.
    """
    if body.count(b"\n") > _LINES_PER_VALUE * values_max:
        raise TooLong(f"the body has more than {_LINES_PER_VALUE * values_max} lines; send several requests.")
    found: list[dict[str, Any]] = []
    for number, line in enumerate(_lines(_text(body)), 1):
        if line.strip():
            found += _parse_putval(number, line)
        if len(found) > values_max:
            raise _InvalidLine(number, line, f"exceeds the limit of {values_max} values in a request")
    if not found:
        raise InvalidInput("the body has no values; send PUTVAL lines.")
    return found


def _parse_putval(number: int, line: str) -> list[dict[str, Any]]:
    if len(line) > _LINE_CHARACTERS_MAX:
        raise _InvalidLine(number, line, f"is longer than {_LINE_CHARACTERS_MAX} characters")
    command, _, rest = line.strip().partition(" ")
    if command.upper() != "PUTVAL":
        raise _InvalidLine(number, line, "does not begin with PUTVAL")
    rest = rest.lstrip()
    identifier = _STRING.match(rest)
    parts = _unquote(identifier[1]).split("/", 2) if identifier else []
    if identifier is None or len(parts) < 3 or not all(parts):
        raise _InvalidLine(number, line, "has no host/plugin/type")
    host, plugin, kind = parts
    found: list[dict[str, Any]] = []
    given: dict[str, str] = {}  # an option applies to all lists of values after it
    at = identifier.end()
    while at < len(rest):
        if values := _VALUE_LIST.match(rest, at):
            item: dict[str, Any] = {"host": host, "plugin_instance": plugin, "type_instance": kind}
            if "interval" in given:
                item["interval"] = given["interval"]
            item["value"] = values[1]
            if others := {name: value for name, value in given.items() if name != "interval"}:
                item["options"] = others
            found.append(item)
            at = values.end()
        elif option := _OPTION.match(rest, at):
            given[option[1]] = _unquote(option[2])
            at = option.end()
        else:
            raise _InvalidLine(number, line, "has an invalid option or list of values")
    if not found:
        raise _InvalidLine(number, line, "has no values")
    return found


def parse_notification(body: bytes) -> list[dict[str, str]]:
    """Parses header lines such as ``Severity: WARNING``, a blank line and the text (collectd-exec(5)).

    Returns:
        An object with one member for each header, its name in lower case. The last object has ``event_text``: the
        whole text, without the line end that collectd adds.

    Raises:
        InvalidInput: a line is invalid; the error names the first such line.
    """
    lines = _lines(_text(body), _NOTIFICATION_HEADERS_MAX + 1)
    if "" not in lines:
        raise InvalidInput(
            "the notification has no blank line between its headers and its text; "
            f"send up to {_NOTIFICATION_HEADERS_MAX} headers."
        )
    blank = lines.index("")
    found: list[dict[str, str]] = []
    for number, line in enumerate(lines[:blank], 1):
        header = _HEADER.fullmatch(line)
        if header is None:
            raise _InvalidLine(number, line, "is not a header such as 'Severity: OKAY'")
        found.append({header[1].lower(): header[2]})
    if not found:
        raise InvalidInput("the notification has no header.")
    text = "\n".join(lines[blank + 1 :]).replace("\r\n", "\n")
    return [*found, {"event_text": text.removesuffix("\n")}]


def check_json(body: bytes, members: tuple[str, ...], values_max: int = VALUES_MAX) -> None:
    """Checks that the body is JSON as write_http sends it: an array of objects with these members.

    No Python object is made of what the members hold.

    Raises:
        InvalidInput: it is anything else.
        TooLong: it has many more objects than values are allowed.
    """
    if body.count(b"{") > _OBJECTS_PER_VALUE * values_max:
        raise TooLong(f"the body has more than {_OBJECTS_PER_VALUE * values_max} objects; send several requests.")
    try:
        body.decode()
        _reader(members).decode(body)
    except msgspec.ValidationError as problem:
        raise InvalidInput(f"the body must be a JSON array as write_http sends it: {problem}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        refuse("the body", problem)


@cache
def _reader(members: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    item = msgspec.defstruct("Item", [(name, Raw) for name in members])
    return msgspec.json.Decoder(Annotated[list[item], msgspec.Meta(min_length=1)])  # type: ignore[valid-type]


class _Receiver(Handler, ABC):
    """Puts the body of a request into a queue."""

    # The path has no queue name, so the handler checks the access itself.
    requires = {"POST": guard.BY_COMMAND}
    target_queue: ClassVar[str]

    async def post(self) -> None:
        await self.services.guard.check(self.credentials, guard.PRODUCE, self.target_queue)
        key = await self.services.core.queue_add(self.target_queue, self.message(self.request.body))
        self.answer(f"{key}\r\n".encode(), TEXT)

    @abstractmethod
    def message(self, body: bytes) -> bytes:
        """The message for a body. Raises InvalidInput."""


class ValuesHandler(_Receiver):
    """``/collectd/data``: values, in write_http's formats Command and JSON."""

    target_queue = "collectd_data"
    values_max = VALUES_MAX

    def message(self, body: bytes) -> bytes:
        kind = self.request.media_type
        if kind == "application/json":
            check_json(body, _VALUES_MEMBERS, self.values_max)
            return body
        if kind == "text/plain":
            return to_json(parse_values(body, self.values_max))
        raise InvalidInput("send values as text/plain (write_http's format Command) or application/json (format JSON).")


class NotificationHandler(_Receiver):
    """``/collectd/event``: notifications, in the format of the exec plugin or in write_http's JSON.

    Every content type except JSON is read as text, because curl sends a form's content type by default.
    """

    target_queue = "collectd_event"

    def message(self, body: bytes) -> bytes:
        if len(body) > _NOTIFICATION_BYTES_MAX:
            raise TooLong(f"a notification may have {_NOTIFICATION_BYTES_MAX} bytes; shorten it.")
        if self.request.media_type == "application/json":
            check_json(body, ())
            return body
        return to_json(parse_notification(body))


_VALUES = whole_number(1, 1_000_000)


class Options(options.Options):
    """``twistd collectd``."""

    command = "collectd"
    synopsis = "[collectd options]"
    longdesc = "RestMQ with /collectd/data and /collectd/event for collectd's write_http and exec plugins."

    optParameters: list[list[Any]] = [
        ["max-values", None, VALUES_MAX, "maximum values per request to /collectd/data", _VALUES],
    ]


def makeService(options: Options) -> service.IService:
    """The service that the options describe: RestMQ with collectd's routes."""
    ValuesHandler.values_max = options["max-values"]
    return make_restmq(options, [("/collectd/data", ValuesHandler), ("/collectd/event", NotificationHandler)])
