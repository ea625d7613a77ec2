"""Commands and options of other tools (nats, rabbitmqadmin, kcat, aws sqs), and the ones to use here instead.

A word is an alias only if it has one meaning here and drops no message. For any other word, the usage error names the
commands to choose from.
"""

from __future__ import annotations

import click

ALIASES = {"pub": "publish", "send": "publish", "ls": "stats"}

_TAKE = "'consume' takes messages, 'lease' and 'ack' do it in two steps, 'peek' leaves them in the queue"
_DROP = "'remove' removes a queue, 'purge' drops its messages, 'drop' some of them, 'ack' removes a leased message"
_RETRY = "'redrive' moves dead letters back, 'nack' returns a leased message"
_FOLLOW = "'tail' shows copies of new messages, 'consume --follow' takes messages"
_CREATE = "a queue is created by its first message ('publish'); 'policy' changes its settings"
_COMMANDS = {
    "'publish' adds messages": ("put", "push", "post", "produce", "enqueue", "send-message"),
    _TAKE: ("get", "pop", "pull", "receive", "reserve", "next", "read", "view", "receive-message"),
    _FOLLOW: ("sub", "subscribe", "listen", "follow"),
    _DROP: ("delete", "del", "rm", "delete-queue", "delete-message"),
    "'purge' drops the messages of a queue": ("clear", "empty", "drain", "flush", "purge-queue"),
    _RETRY: ("requeue", "replay", "retry", "release", "reject", "kick", "bury", "start-message-move-task"),
    _CREATE: ("create", "add", "declare", "new", "create-queue"),
    "'stats' shows queues and their counters": (
        "list",
        "queues",
        "queue",
        "show",
        "info",
        "inspect",
        "count",
        "len",
        "list-queues",
    ),
    "'stats' shows queues, 'ping' checks the server, 'servers' shows all servers": ("status", "health", "check"),
    "'servers' shows all servers": ("nodes", "cluster", "overview", "daemons"),
    "'watch' shows a live table of queues": ("top", "monitor"),
    "'resume' continues the delivery of a queue, 'serve' runs a server": ("start", "unpause", "up"),
    "'pause' stops the delivery of a queue": ("stop", "suspend"),
    "'work' runs a command for each message": ("worker", "run", "exec", "process"),
    "'serve' runs a server": ("server", "daemon", "run-server"),
    "'extend' makes a lease end later": ("touch", "renew", "change-message-visibility"),
    "'policy' shows and changes the settings of a queue": ("config", "configure", "set", "edit", "update"),
    "'dead' shows dead letters, 'redrive' moves them back": ("dlq", "failed", "dead-letters"),
    "'peek QUEUE KEY' shows a message": ("find", "message", "cat"),
    "use 'restmq --version'": ("version",),
}
#: By word: the commands to choose from.
INSTEAD = {word: text for text, words in _COMMANDS.items() for word in words}

#: Options of other tools, and the first of these options that a command has.
_OPTIONS = {
    "--server": ("--url",),
    "--host": ("--url",),
    "--endpoint-url": ("--url",),
    "-s": ("--url",),
    "-b": ("--url",),
    "-H": ("--header", "--url"),
    "-n": ("--count",),
    "-c": ("--count",),
    "--limit": ("--count",),
    "--max-messages": ("--count",),
    "--max-number-of-messages": ("--count",),
    "--wait-time-seconds": ("--wait",),
    "--delay-seconds": ("--delay",),
    "--visibility-timeout": ("--lease",),
    "--ack": ("--lease",),
    "-f": ("--yes",),
    "--force": ("--yes",),
    "-y": ("--yes",),
    "-o": ("--json",),
    "-j": ("--json",),
    "--output": ("--json",),
    "--format": ("--json",),
}
#: Options of other tools that are arguments here, and how the arguments are called.
_ARGUMENTS = {
    **dict.fromkeys(("--queue", "--queue-name", "--queue-url", "--name", "--topic", "--subject", "-q", "-t"), "QUEUE"),
    **dict.fromkeys(("--message", "--message-body", "--payload", "--body", "--data", "--value", "-m", "-d"), "VALUE"),
    **dict.fromkeys(("--receipt-handle", "--receipt"), "RECEIPT"),
}


def _corrected(error: click.NoSuchOption, command: click.Command, context: click.Context) -> click.UsageError:
    """The error, with the option or argument to use instead if another tool has this option."""
    name = error.option_name
    options = {word for param in command.params for word in param.opts if isinstance(param, click.Option)}
    arguments = [param.make_metavar(context) for param in command.params if isinstance(param, click.Argument)]
    own = next((option for option in _OPTIONS.get(name, ()) if option in options), None)
    if own is not None:
        return click.UsageError(f"No such option {name!r}. Use {own!r}.", context)
    argument = _ARGUMENTS.get(name)
    if argument is not None and any(argument in metavar for metavar in arguments):
        return click.UsageError(f"No such option {name!r}. {argument} is an argument, without an option.", context)
    return error


class OwnCommand(click.Command):
    """A command whose usage errors name the option to use in place of another tool's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _corrected(error, self, ctx) from None


class OwnGroup(OwnCommand, click.Group):
    """All commands; ``help COMMAND`` is ``COMMAND --help``, and usage errors name the command to use."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word, *rest = args
        if word == "help":
            return self.resolve_command(ctx, [*rest, "--help"])
        if word in INSTEAD:
            raise click.UsageError(f"No such command {word!r}: {INSTEAD[word]}.", ctx)
        name, command, rest = super().resolve_command(ctx, args)
        return command.name if command is not None else name, command, rest
