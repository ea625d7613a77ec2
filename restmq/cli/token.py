"""``restmq token``: make, list and revoke access tokens.

Tokens are managed in Redis, not over HTTP, so that no client of the server can make itself one. ``restmq_engine.py``
does it.
"""

from __future__ import annotations

import click

from restmq.cli.arguments import YEAR_SECONDS, Commands, Duration, complete_queue

_REDIS = (
    "Tokens are kept in Redis, so this runs where the server's Redis can be reached. It takes the server's options for "
    "Redis, such as --redis-host or --data-dir; if the server has none, this needs none. A server asks for a token, or "
    "a password, only if its acl.conf has a password."
)
_SETTINGS = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}


def add_to(commands: Commands) -> None:
    group = click.Group("token", help=f"Make, list and revoke access tokens.\n\n{_REDIS}")
    rest: click.Parameter = click.Argument(["redis"], nargs=-1, type=click.UNPROCESSED, metavar="[REDIS-OPTION]...")
    name: click.Parameter = click.Argument(["name"], metavar="NAME")
    queues = click.Option(
        ["--queue", "queues"],
        multiple=True,
        required=True,
        metavar="NAME",
        help="Queue, or glob such as 'mail-*'. Can be repeated.",
        shell_complete=complete_queue,
    )
    privileges = click.Option(
        ["--allow"],
        default="read,write",
        show_default=True,
        metavar="RIGHTS",
        help="read, write, admin; separated by commas.",
    )
    expires = click.Option(
        ["--expires"],
        type=Duration(1, 100 * YEAR_SECONDS, whole=True),
        metavar="TIME",
        help="Time until the token expires.  [default: never]",
    )
    for verb, run, summary, params in (
        ("make", _make, "make a token, and print it", [name, queues, privileges, expires, rest]),
        ("list", _list, "list the names of all tokens, with their rights and times", [rest]),
        ("revoke", _revoke, "revoke a token by its name", [name, rest]),
    ):
        text = f"{summary[0].upper()}{summary[1:]}.\n\n{_REDIS}"
        group.add_command(
            click.Command(verb, callback=run, params=params, help=text, short_help=summary, context_settings=_SETTINGS)
        )
    commands.group.add_command(group)
    group.short_help = "make, list and revoke access tokens"


def _make(name: str, queues: tuple[str, ...], allow: str, expires: int | None, redis: tuple[str, ...]) -> None:
    given = ["--create-token", "--name", name, "--queue", ",".join(queues), "--privs", allow]
    _engine([*given, *([] if expires is None else ["--expires", str(expires)])], redis)


def _list(redis: tuple[str, ...]) -> None:
    _engine(["--list-tokens"], redis)


def _revoke(name: str, redis: tuple[str, ...]) -> None:
    _engine(["--revoke-token", "--name", name], redis)


def _engine(arguments: list[str], redis: tuple[str, ...]) -> None:
    """Runs restmq_engine, which loads Twisted, with these arguments."""
    import restmq_engine

    restmq_engine.main([*arguments, *redis])
