"""Building blocks of the command line: commands, common options, parameter types."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import click
from click.shell_completion import CompletionItem

from restmq import __version__
from restmq.cli.habits import ALIASES, OwnCommand, OwnGroup
from restmq.client import Client, Server
from restmq.client.server import DEFAULT_URL, PASSWORD_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE, USER_VARIABLE
from restmq.errors import RestMQError

RETRY_SECONDS = 5.0
COMPLETION_SECONDS = 2.0
COUNT_MAX = 10**12
YEAR_SECONDS = 365 * 86_400

_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ms|s|m|h|d|)")
_UNIT_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

#: Runs a command with the parsed command line; returns the exit status.
CommandFunction = Callable[[SimpleNamespace, Client], int]

_NOTES = f"""\
\b
Environment:
  {URL_VARIABLE:16} the server, if --url is not given
  {TOKEN_VARIABLE:16} access token, if the server requires one; otherwise
  {USER_VARIABLE:16} and {PASSWORD_VARIABLE}; otherwise the host's entry in ~/.netrc

\b
A TIME is a number of seconds, or has a unit: 500ms, 30s, 5m, 2h, 1d.

\b
Other names: {", ".join(f"{name} for {command}" for name, command in ALIASES.items())}; help COMMAND for COMMAND --help.

\b
Exit status:
  0    success; also if a command without an end of its own is interrupted
  1    no message, unknown queue, a job failed, or the reader of a pipe has closed it
  2    usage error
  3    rejected by the server: invalid name, unknown message, conflict, too long
  4    access denied: the token, password or address is not allowed to do this
  5    the server is unreachable, too busy, or not a RestMQ server
  130  interrupted before the end by SIGINT (Ctrl-C); 143: by SIGTERM
"""


class Commands:
    """The group of all commands.

    Args:
        run_command: called with a command's function and the parsed command line. It ends the program.
    """

    def __init__(self, run_command: Callable[[CommandFunction, SimpleNamespace], None]) -> None:
        self._run_command = run_command
        self.group = OwnGroup(
            "restmq",
            help="Work with the queues of a RestMQ server.",
            epilog=_NOTES,
            params=_common(),
            callback=lambda **_: None,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )
        click.version_option(__version__, message="RestMQ %(version)s")(self.group)

    def add(self, name: str, run: CommandFunction, summary: str, more: str = "", *params: click.Parameter) -> None:
        """Adds a command with these parameters and the common ones."""

        def callback(**args: Any) -> None:
            before = click.get_current_context().find_root().params
            shared = {name: before[name] if args[name] is None else args[name] for name in ("url", "json", "retry")}
            shared["retry_given"] = shared["retry"] is not None
            if shared["retry"] is None:
                shared["retry"] = RETRY_SECONDS
            self._run_command(run, SimpleNamespace(**args | shared))

        own = {param.name for param in params}
        common = [param for param in _common() if param.name not in own]
        text = f"{summary[0].upper()}{summary[1:]}.\n\n{more}".strip()
        command = OwnCommand(name, callback=callback, help=text, short_help=summary, params=[*params, *common])
        self.group.add_command(command)


# Parameters


def _common() -> list[click.Parameter]:
    text = "Maximum time to retry while the server is unreachable or busy.  [default: 5]"
    return [
        option("--url", f"The server's URL.  [default: {DEFAULT_URL}]", "URL"),
        click.Option(["--json"], is_flag=True, default=None, help="Print JSON."),
        option("--retry", text, "TIME", Duration(0, 10 * YEAR_SECONDS)),
    ]


def key_argument(**options: Any) -> click.Argument:
    """The argument that names a message."""
    return click.Argument(["key"], metavar="KEY", **options)


def queue_argument(**options: Any) -> click.Argument:
    """The argument that names a queue."""
    metavar = "QUEUE" if options.get("required", True) else "[QUEUE]"
    return click.Argument(["queue"], metavar=metavar, shell_complete=complete_queue, **options)


def queues_argument(required: bool = False) -> click.Argument:
    """The argument that names several queues: one at least if it is required."""
    metavar = "QUEUE..." if required else "[QUEUE]..."
    return click.Argument(["queues"], metavar=metavar, nargs=-1, required=required, shell_complete=complete_queue)


def option(
    name: str, text: str, metavar: str, kind: click.ParamType[Any] | None = None, default: object = None
) -> click.Option:
    """An option with a value. Names of queues are completed."""
    shows_default = default not in (None, "")
    complete = complete_queue if metavar == "QUEUE" else None
    return click.Option(
        [name],
        help=text,
        metavar=metavar,
        type=kind,
        default=default,
        show_default=shows_default,
        shell_complete=complete,
    )


def flag(name: str, text: str) -> click.Option:
    """An option without a value."""
    return click.Option([name], is_flag=True, help=text)


class Duration(click.FloatRange):
    """A time, as a number with a unit: ``30`` or ``30s``, ``5m``, ``2h``, ``1d``. Converts it to seconds.

    Args:
        least, most: bounds in seconds.
    """

    name = "time"

    def __init__(self, least: float, most: float, whole: bool = False) -> None:
        super().__init__(least, most)
        self._whole = whole

    def _describe_range(self) -> str:
        return f"{_in_words(self.min)} to {_in_words(self.max)}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str):
            found = _DURATION.fullmatch(value.strip())
            if found is None:
                self.fail(f"{value!r} is not a time; write it like 30, 30s, 5m, 2h or 1d.", param, ctx)
            value = float(found[1]) * _UNIT_SECONDS[found[2]]
        seconds = super().convert(value, param, ctx)
        if not self._whole:
            return seconds
        if seconds != int(seconds):
            self.fail(f"{seconds:g} is not a whole number of seconds.", param, ctx)
        return int(seconds)


def complete_queue(context: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """The queue names with this prefix; none if the server does not answer within 2 s."""
    url = context.params.get("url") or context.find_root().params.get("url")
    try:
        with Client(Server.from_environment(url), retry_seconds=0, timeout_seconds=COMPLETION_SECONDS) as client:
            return [CompletionItem(name) for name in client.queues() if name.startswith(begun)]
    except RestMQError:
        return []


def _in_words(seconds: float | None) -> str:
    """A bound of times in its largest whole unit."""
    assert seconds is not None
    whole = [unit for unit, size in _UNIT_SECONDS.items() if unit and seconds >= size and seconds % size == 0]
    unit = max(whole, key=_UNIT_SECONDS.__getitem__, default="ms")
    return f"{seconds / _UNIT_SECONDS[unit]:g}{unit}" if seconds else "0"
