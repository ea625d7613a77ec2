"""The ``restmq`` command: work with a server's queues from the shell. ``restmq --help`` lists the commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import click

from restmq.cli import bench, completion, dead, leases, messages, move, peek, queues, serve, servers, token, watch, work
from restmq.cli.arguments import CommandFunction, Commands
from restmq.cli.output import RetryNotices, abandon_output, print_error
from restmq.client import BadAnswer, Busy, Client, Server, Stopped, Unreachable
from restmq.client.interrupts import interrupted_status
from restmq.errors import InvalidInput, NotAllowed, NotAuthenticated, RestMQError

NOTHING_FOUND, USAGE_ERROR, REJECTED, ACCESS_DENIED, UNREACHABLE = 1, 2, 3, 4, 5

#: Exit status by class of error; the first match counts.
_STATUS: tuple[tuple[type[RestMQError], int], ...] = (
    (NotAuthenticated, ACCESS_DENIED),
    (NotAllowed, ACCESS_DENIED),
    (Unreachable, UNREACHABLE),
    (Busy, UNREACHABLE),
    (BadAnswer, UNREACHABLE),
    (RestMQError, REJECTED),
)
_START_ONE = " Start a server with 'restmq serve', or name another one with --url."


def run_command(run: CommandFunction, args: SimpleNamespace) -> NoReturn:
    """Runs a command and exits with the status that ``restmq --help`` describes."""
    try:
        server = Server.from_environment(args.url)
    except InvalidInput as problem:
        raise click.UsageError(str(problem)) from None
    try:
        with Client(server, retry_seconds=args.retry, on_retry=RetryNotices()) as client:
            status = run(args, client)
    except BrokenPipeError:
        abandon_output()
        status = NOTHING_FOUND
    except KeyboardInterrupt:
        status = interrupted_status()
    except Stopped:
        status = interrupted_status()
    except RestMQError as error:
        print_error(f"{error}{_START_ONE}" if isinstance(error, Unreachable) and not error.sent else error)
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
    except OSError as problem:
        print_error(f"{problem.filename or 'the operating system'}: {problem.strerror or problem}")
        status = USAGE_ERROR
    sys.exit(status)


def commands() -> Commands:
    """The command line with all commands."""
    described = Commands(run_command)
    for part in (messages, peek, leases, work, queues, dead, move, watch, bench, servers, serve, token, completion):
        part.add_to(described)
    return described


def main() -> None:
    """Runs the command line (console script ``restmq``)."""
    if sys.stderr is None:  # closed: then errors would be printed to standard output, and a socket could get its number
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  open to the end
    commands().group.main(prog_name="restmq")
