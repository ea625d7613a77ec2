"""``restmq completion``: scripts that complete the command line in bash, zsh and fish."""

from __future__ import annotations

from types import SimpleNamespace

import click
from click.shell_completion import get_completion_class

from restmq.cli.arguments import Commands
from restmq.cli.output import print_text
from restmq.client import Client

_VARIABLE = "_RESTMQ_COMPLETE"
_MORE = """\
\b
bash, in ~/.bashrc:      eval "$(restmq completion bash)"
zsh, in ~/.zshrc:        eval "$(restmq completion zsh)"    (after compinit)
fish, in config.fish:    restmq completion fish | source

Queue names are completed as well; the shell asks the server for them.
"""


def add_to(commands: Commands) -> None:
    def run(args: SimpleNamespace, _client: Client) -> int:
        shell = get_completion_class(args.shell)
        assert shell is not None
        print_text(shell(commands.group, {}, "restmq", _VARIABLE).source())
        return 0

    shell = click.Argument(["shell"], type=click.Choice(["bash", "zsh", "fish"]))
    commands.add("completion", run, "print a script that completes this command line", _MORE, shell)
