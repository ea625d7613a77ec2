"""The command line: commands, what they share, and the checks of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import click
from click.shell_completion import CompletionItem

from restmq import __version__
from restmq.client import Client, Server
from restmq.client.server import DEFAULT_URL, PASSWORD_VARIABLE, TOKEN_VARIABLE, URL_VARIABLE, USER_VARIABLE
from restmq.errors import RestMQError

RETRY_SECONDS = 5.0
COMPLETION_SECONDS = 2.0
COUNT_MAX = 10**12
YEAR_SECONDS = 365 * 86_400

#: Runs a command with what was given on the command line; returns the exit status.
Run = Callable[[SimpleNamespace, Client], int]

_NOTES = f"""\
\b
Environment:
  {URL_VARIABLE:16} the server, where --url is not given
  {TOKEN_VARIABLE:16} a token, where the server asks for one; else
  {USER_VARIABLE:16} and {PASSWORD_VARIABLE}; else those of the host in ~/.netrc

\b
Exit status:
  0    done
  1    nothing there (no message, no such queue), a job failed, or the reader has gone
  2    wrong usage
  3    refused: a bad name, no such message, a conflict, too long
  4    not let in: the token, password or address may not do this
  5    the server can't be reached, is too busy, or is no RestMQ
  130  interrupted before it was done; what goes on until it is interrupted ends with 0
"""


class Commands:
    """The group to which each command is added.

    Args:
        carry_out: what is called for a command: with its function and what was given. Ends the program.
    """

    def __init__(self, carry_out: Callable[[Run, SimpleNamespace], None]) -> None:
        self._carry_out = carry_out
        self.group = click.Group(
            "restmq",
            help="Queues of a RestMQ server, from the shell.",
            epilog=_NOTES,
            params=_common(),
            callback=lambda **_: None,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )
        click.version_option(__version__, message="RestMQ %(version)s")(self.group)

    def add(self, name: str, run: Run, summary: str, more: str = "", *params: click.Parameter) -> None:
        """A command that takes these parameters, and those that all have."""

        def callback(**given: Any) -> None:
            before = click.get_current_context().find_root().params
            shared = {name: before[name] if given[name] is None else given[name] for name in ("url", "json", "retry")}
            if shared["retry"] is None:
                shared["retry"] = RETRY_SECONDS
            self._carry_out(run, SimpleNamespace(**given | shared))

        text = f"{summary[0].upper()}{summary[1:]}.\n\n{more}".strip()
        command = click.Command(name, callback=callback, help=text, short_help=summary, params=[*params, *_common()])
        self.group.add_command(command)


# Parameters


def _common() -> list[click.Parameter]:
    text = "For how long to try again while the server can't be reached or is busy.  [default: 5]"
    return [
        option("--url", f"The server.  [default: {DEFAULT_URL}]", "URL"),
        click.Option(["--json"], is_flag=True, default=None, help="Answer in JSON."),
        option("--retry", text, "SECONDS", Number(0, 10 * YEAR_SECONDS)),
    ]


def queue(**options: Any) -> click.Argument:
    """The argument that names a queue."""
    metavar = "QUEUE" if options.get("required", True) else "[QUEUE]"
    return click.Argument(["queue"], metavar=metavar, shell_complete=complete_queue, **options)


def queues() -> click.Argument:
    """The argument that names any number of queues."""
    return click.Argument(["queues"], metavar="[QUEUE]...", nargs=-1, shell_complete=complete_queue)


def option(
    name: str, text: str, metavar: str, kind: click.ParamType[Any] | None = None, default: object = None
) -> click.Option:
    """An option with a value."""
    return click.Option([name], help=text, metavar=metavar, type=kind or click.STRING, default=default)


def flag(name: str, text: str) -> click.Option:
    """An option that is there or not."""
    return click.Option([name], is_flag=True, help=text)


class Number(click.FloatRange):
    """A number within bounds, and really one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value!r} is no number.", param, ctx)
        return found


def complete_queue(context: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    """The names of queues that begin so, if the server says them at once."""
    url = context.params.get("url") or context.find_root().params.get("url")
    try:
        with Client(Server.from_environment(url), retry_seconds=0, timeout_seconds=COMPLETION_SECONDS) as client:
            return [CompletionItem(name) for name in client.queues() if name.startswith(begun)]
    except RestMQError:
        return []
