"""``twistd collectd``: RestMQ, and two routes for what collectd's write_http and exec plugins send.

A request becomes one message, all of it or nothing. What stands in the messages is what the first RestMQ put there.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar

import orjson
from twisted.application import service

from restmq import web
from restmq.auth import guard
from restmq.errors import InvalidInput
from restmq.handlers.base import Handler
from restmq.http.response import TEXT
from restmq.schema.encoding import to_json
from restmq.server import options
from restmq.server.service import makeService as make

VALUES_MAX = 10_000  # in one request; collectd sends some fifty
#: collectd's own lines are shorter. A long name times many lists of values would be much more than was sent.
_LINE_CHARACTERS_MAX = 4096
_SHOWN_CHARACTERS = 80
_VALUES_MEMBERS = ("host", "plugin", "type", "time", "values")

# Forms of collectd's plain text protocol (collectd-unixsock(5)), each up to the blank that follows.
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_STRING = re.compile(rf"({_QUOTED}|[^\s\"]++)(?: ++|$)", re.ASCII)
_OPTION = re.compile(rf"([A-Za-z][^\s=\":]*+(?::[^\s=\"]++)?)=({_QUOTED}|[^\s\"]++)(?: ++|$)", re.ASCII)
_NUMBER = r"[-+]?(?:[0-9]++(?:\.[0-9]*+)?(?:[eE][-+]?[0-9]++)?|nan|inf|U)"
_VALUE_LIST = re.compile(rf"((?:N|[0-9]++(?:\.[0-9]*+)?)(?::{_NUMBER})++)(?: ++|$)", re.IGNORECASE)
_HEADER = re.compile(r"([^\s:]++):(?: |$)(.*)", re.ASCII)


class _BadLine(InvalidInput):
    def __init__(self, number: int, line: str, problem: str) -> None:
        shown = line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "…"
        super().__init__(f"line {number} {problem}: {shown!r}")


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as problem:
        number = body.count(b"\n", 0, problem.start) + 1
        line = body.split(b"\n")[number - 1]
        raise _BadLine(number, line.decode(errors="replace"), "is not UTF-8") from None


def _lines(text: str) -> list[str]:
    """Split at line feeds only: what else Python takes for a line's end may stand in a name."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def _unquote(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word


def parse_values(body: bytes, values_max: int = VALUES_MAX) -> list[dict[str, Any]]:
    """Reads lines such as ``PUTVAL host/plugin-instance/type-instance interval=10.000 1251533299:1:2``.

    Returns:
        For each list of values ``host``, ``plugin_instance``, ``type_instance``, ``value`` (as it was sent, time
        first), ``interval`` if it was given, and ``options`` if there were others. All of them are strings.

    Raises:
        InvalidInput: it names the first line that is bad; also where there is none at all.
    """
    found: list[dict[str, Any]] = []
    for number, line in enumerate(_lines(_text(body)), 1):
        if line.strip():
            found += _parse_putval(number, line)
        if len(found) > values_max:
            raise _BadLine(number, line, f"is one too many, after {values_max} values")
    if not found:
        raise InvalidInput("the body holds no values.")
    return found


def _parse_putval(number: int, line: str) -> list[dict[str, Any]]:
    if len(line) > _LINE_CHARACTERS_MAX:
        raise _BadLine(number, line, f"is longer than {_LINE_CHARACTERS_MAX} characters")
    command, _, rest = line.strip().partition(" ")
    if command.upper() != "PUTVAL":
        raise _BadLine(number, line, "does not begin with PUTVAL")
    rest = rest.lstrip()
    identifier = _STRING.match(rest)
    parts = _unquote(identifier[1]).split("/", 2) if identifier else []
    if identifier is None or len(parts) < 3 or not all(parts):
        raise _BadLine(number, line, "names no host/plugin/type")
    host, plugin, kind = parts
    found: list[dict[str, Any]] = []
    given: dict[str, str] = {}  # an option holds for all value lists that follow it
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
            raise _BadLine(number, line, "has neither an option nor a list of values where one should be")
    if not found:
        raise _BadLine(number, line, "has no values")
    return found


def parse_notification(body: bytes) -> list[dict[str, str]]:
    """Reads header lines such as ``Severity: WARNING``, a blank line and the text (collectd-exec(5)).

    Returns:
        An object of one member for each header, its name in lower case, and at last ``event_text`` with the whole text,
        but for the line's end that collectd puts after it.

    Raises:
        InvalidInput: it names the line that is bad.
    """
    lines = _lines(_text(body))
    if "" not in lines:
        raise InvalidInput("the notification has no blank line between its header and its text.")
    blank = lines.index("")
    found: list[dict[str, str]] = []
    for number, line in enumerate(lines[:blank], 1):
        header = _HEADER.fullmatch(line)
        if header is None:
            raise _BadLine(number, line, "is no header such as 'Severity: OKAY'")
        found.append({header[1].lower(): header[2]})
    if not found:
        raise InvalidInput("the notification has no header.")
    text = "\n".join(lines[blank + 1 :])
    return [*found, {"event_text": text.removesuffix("\n")}]


def check_json(body: bytes, members: tuple[str, ...]) -> None:
    """Raises InvalidInput if this is not what write_http sends as JSON: an array of objects that have these members."""
    try:
        items = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        where = f"line {problem.lineno}, column {problem.colno}"
        raise InvalidInput(f"the body is not valid JSON at {where}: {problem.msg}.") from None
    if not isinstance(items, list) or not items:
        raise InvalidInput("the body must be a JSON array of what collectd sends.")
    for number, item in enumerate(items, 1):
        missing = [name for name in members if name not in item] if isinstance(item, dict) else ["a JSON object"]
        if missing:
            raise InvalidInput(f"item {number} of the array lacks {missing[0]}.")


class _Receiver(Handler, ABC):
    """Puts one request's body into a queue, in the words of collectd or in JSON."""

    # The path does not name the queue, so the handler itself asks whether this client may add to it.
    requires = {"POST": guard.BY_COMMAND}
    application: Application
    into: ClassVar[str]

    async def post(self) -> None:
        await self.application.guard.check(self.credentials, guard.PRODUCE, self.into)
        key = await self.application.core.queue_add(self.into, self.read(self.request.body))
        self.answer(f"{key}\r\n".encode(), TEXT)

    @abstractmethod
    def read(self, body: bytes) -> bytes:
        """What is to be queued. Raises InvalidInput."""


class ValuesHandler(_Receiver):
    """``/collectd/data``: values, as write_http's formats Command and JSON have them."""

    into = "collectd_data"

    def read(self, body: bytes) -> bytes:
        kind = self.request.media_type
        if kind == "application/json":
            check_json(body, _VALUES_MEMBERS)
            return body
        if kind == "text/plain":
            return to_json(parse_values(body, self.application.values_max))
        raise InvalidInput("send values as text/plain (write_http's format Command) or application/json (its JSON).")


class NotificationHandler(_Receiver):
    """``/collectd/event``: notifications, as the exec plugin has them; or JSON, as write_http has them.

    Any content type but JSON's is taken for text: curl names a form's where nobody tells it otherwise.
    """

    into = "collectd_event"

    def read(self, body: bytes) -> bytes:
        if self.request.media_type == "application/json":
            check_json(body, ())
            return body
        return to_json(parse_notification(body))


class Application(web.Application):
    """RestMQ's web service with collectd's two routes."""

    routes = [(r"/collectd/data", ValuesHandler), (r"/collectd/event", NotificationHandler), *web.ROUTES]

    def __init__(self, *args: Any, values_max: int = VALUES_MAX) -> None:
        super().__init__(*args)
        self.values_max = values_max


class Options(options.Options):
    """``twistd collectd``."""

    command = "collectd"
    synopsis = "[collectd options]"
    longdesc = "RestMQ with /collectd/data and /collectd/event, where collectd's write_http and exec plugins may write."

    optParameters: list[list[Any]] = [
        [
            "max-values",
            None,
            VALUES_MAX,
            "most values in one request to /collectd/data",
            options.whole_number(1, 1_000_000),
        ],
    ]


def makeService(options: Options) -> service.IService:
    """RestMQ as the options describe it, with collectd's routes."""
    return make(options, partial(Application, values_max=options["max-values"]))
