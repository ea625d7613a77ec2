"""``restmq serve``: run a server, as ``twistd -n restmq`` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import NoReturn

import click

from restmq.cli.arguments import Commands

#: Length of a row of ``optParameters`` without a check of its values, which may then be paths.
_UNCHECKED = 4
_RUN_TWISTD = "from twisted.scripts.twistd import run; run()"


def add_to(commands: Commands) -> None:
    """Adds the command. All of its arguments, also ``--help``, are those of the server."""
    commands.group.add_command(
        _Serve(
            "serve",
            callback=_serve,
            params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED, metavar="[OPTION]...")],
            short_help="run a server in the foreground",
            context_settings={"ignore_unknown_options": True, "help_option_names": []},
        )
    )


class _Serve(click.Command):
    """Passes all arguments to the server. It has the server's options only for the shell's completion."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*_server_options()] if ctx.resilient_parsing else super().get_params(ctx)


def _server_options() -> Iterator[click.Option]:
    """The options of ``twistd restmq``. They are in the server's part, which only completion needs here."""
    server = import_module("restmq.server.options").Options()
    rows = {row[0]: row for kind in type(server).__mro__ for row in vars(kind).get("optParameters", ())}
    for name, text in server.docs.items():
        words = getattr(rows.get(name, [None])[-1], "words", None)
        takes_text = name in rows and len(rows[name]) == _UNCHECKED
        yield click.Option(
            [f"--{name}"],
            help=text,
            type=click.Choice(words) if words else click.Path() if takes_text else None,
            is_flag=f"{name}=" not in server.longOpt,
            multiple=isinstance(server.get(name), list),
        )


def _serve(arguments: tuple[str, ...]) -> NoReturn:
    twistd = [sys.executable, "-c", _RUN_TWISTD, "-n", "--pidfile=", "restmq", *arguments]
    os.execv(sys.executable, twistd)  # noqa: S606  signals must reach the server itself
