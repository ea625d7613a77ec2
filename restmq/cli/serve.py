"""``restmq serve``: run a server, as ``twistd -n restmq`` does."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from restmq.cli.arguments import Commands

_RUN_TWISTD = "from twisted.scripts.twistd import run; run()"


def add_to(commands: Commands) -> None:
    """Adds the command. All of its arguments, also ``--help``, are those of the server."""
    commands.group.add_command(
        click.Command(
            "serve",
            callback=_serve,
            params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED, metavar="[OPTION]...")],
            short_help="run a server in the foreground",
            context_settings={"ignore_unknown_options": True, "help_option_names": []},
        )
    )


def _serve(arguments: tuple[str, ...]) -> NoReturn:
    twistd = [sys.executable, "-c", _RUN_TWISTD, "-n", "--pidfile=", "restmq", *arguments]
    os.execv(sys.executable, twistd)  # noqa: S606  signals must reach the server itself
