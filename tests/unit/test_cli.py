"""The command line's help and its usage errors, in this process: neither needs a server."""

from __future__ import annotations

import re

import pytest
from click.shell_completion import ShellComplete

from restmq.cli import commands, habits
from restmq.cli.arguments import Duration
from restmq.server.options import Options
from tests.servers import ROOT


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The exit status of a command, and what it printed on standard output and standard error."""
    with pytest.raises(SystemExit) as ended:
        commands().group.main(list(arguments), prog_name="restmq")
    status = ended.value.code
    assert isinstance(status, int)
    return (status, *capsys.readouterr())


def names() -> list[str]:
    """The commands, but for ``serve``: its options are those of the server."""
    return [name for name in commands().group.commands if name != "serve"]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, shown, _ = run(capsys, "--help")
    assert status == 0
    assert set(names()) == {"publish", "consume", "tail", "work", "peek", "lease", "ack", "nack", "extend", "stats",
                            "watch", "drop", "purge", "remove", "pause", "resume", "policy", "dead", "redrive", "move",
                            "ping", "servers", "token", "bench", "completion"}  # fmt: skip
    for name in names():
        assert f"\n  {name} " in shown
    assert "\n  serve " in shown


def test_every_command_has_a_help_text(capsys: pytest.CaptureFixture[str]) -> None:
    for name in names():
        status, shown, _ = run(capsys, name, "--help")
        assert (status, f"Usage: restmq {name} " in shown) == (0, True)
    assert "bench [OPTIONS] [QUEUE]\n" in run(capsys, "bench", "-h")[1]


def test_completion_knows_every_option_that_the_help_of_serve_shows() -> None:
    shell = ShellComplete(commands().group, {}, "restmq", "_RESTMQ_COMPLETE")
    offered = {item.value: item.help for item in shell.get_completions(["serve"], "--")}
    shown = str(Options())
    assert offered.keys() == set(re.findall(r"(?m)^ +(--[a-z-]+)", shown))
    assert all(text and text.split()[0] in shown for text in offered.values())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("1.5", 1.5), ("500ms", 0.5), ("5m", 300), ("2h", 7200), ("1d", 86_400), (" 1s ", 1)],
)
def test_a_time_has_a_unit(text: str, seconds: float) -> None:
    assert Duration(0, 10**9).convert(text, None, None) == seconds


def test_the_bounds_of_a_time_are_shown_with_their_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert "[1s to 12h]" in run(capsys, "lease", "--help")[1]
    assert "is not in the range 0 to 30d" in run(capsys, "publish", "q", "x", "--delay", "31d")[2]


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, "RestMQ 2.0.0\n", "")


def test_the_document_names_every_command_and_no_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "command-line.md").read_text()
    helps = [run(capsys, *name.split(), "--help")[1] for name in (*names(), "token make")]
    known = set(re.findall(r"--[a-z-]+", "".join(helps)))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - known == set()
    for name in names():
        assert re.search(rf"restmq {name}\b", text), name


@pytest.mark.parametrize(
    ("words", "command"),
    [("pub", "publish"), ("send", "publish"), ("ls", "stats"), ("help publish", "publish"), ("help pub", "publish"),
     ("help token make", "token make")],
)  # fmt: skip
def test_a_command_has_other_names_and_help_takes_a_command(
    capsys: pytest.CaptureFixture[str], words: str, command: str
) -> None:
    status, shown, error = run(capsys, *words.split(), "--help")
    assert (status, error) == (0, "")
    assert shown == run(capsys, *command.split(), "--help")[1]


def test_help_alone_is_the_help_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "help") == run(capsys, "help", "help") == run(capsys, "--help")
    assert run(capsys, "help", "get") == run(capsys, "get")
    status, _, error = run(capsys, "help", "nonsense")
    assert (status, "No such command 'nonsense'" in error) == (2, True)


def test_every_word_of_another_tool_leads_to_a_command_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    known = commands().group.commands
    for word, text in habits.INSTEAD.items():
        assert word not in known
        assert word not in habits.ALIASES
        status, shown, error = run(capsys, word, "jobs")
        assert (status, shown, error.splitlines()[-1]) == (2, "", f"Error: No such command {word!r}: {text}.")
        named = re.findall(r"'([a-z]+)[^']*'", text)
        assert named, text
        assert set(named) <= {*known, "restmq"}
    assert set(habits.ALIASES.values()) <= set(known)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["-s", "localhost", "stats"], "Use '--url'."),
        (["stats", "--server", "localhost"], "Use '--url'."),
        (["stats", "-o", "json"], "Use '--json'."),
        (["consume", "-n", "3", "q"], "Use '--count'."),
        (["publish", "-H", "a: b", "q", "x"], "Use '--header'."),
        (["consume", "-H", "localhost", "q"], "Use '--url'."),
        (["consume", "q", "--visibility-timeout", "30"], "Use '--lease'."),
        (["purge", "q", "--force"], "Use '--yes'."),
        (["publish", "--topic", "q", "x"], "QUEUE is an argument, without an option."),
        (["purge", "--queue", "q"], "QUEUE is an argument, without an option."),
        (["publish", "q", "--payload", "x"], "VALUE is an argument, without an option."),
        (["ack", "q:1", "--receipt-handle", "r"], "RECEIPT is an argument, without an option."),
        (["stats", "--nmaes"], "Did you mean '--names'?"),
    ],
)
def test_an_option_of_another_tool_is_answered_with_what_to_use(
    capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str
) -> None:
    status, _, error = run(capsys, *arguments)
    assert (status, hint in error.splitlines()[-1]) == (2, True), error


def test_an_option_that_the_command_has_not_is_not_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "ping", "-n", "3")[2].endswith("No such option '-n'.\n")
    assert run(capsys, "ping", "--queue", "q")[2].endswith("No such option '--queue'.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["publish"],
        ["--token", "t", "stats"],
        ["stats", "--token", "t"],
        ["stats", "--url", "http://ann:s3cret@127.0.0.1:8888"],
        ["stats", "--url", "ftp://127.0.0.1:8888"],
        ["consume", "q", "--wait", "5 minutes"],
        ["policy", "q", "--lease", "1.5s"],
        ["publish", "q", "x", "--delay", "31d"],
        ["consume", "q", "--count", "0"],
        ["consume", "q", "--wait", "nan"],
        ["policy", "q", "sometimes"],
        ["work", "q"],
        ["work", "q", "--", "no-such-command"],
        ["publish", "q", "d", "e", "--idempotency-key", "k"],
        ["publish", "q", "--file", "nowhere"],
        ["completion", "csh"],
        ["move", "q"],
        ["move", "q", "--to", "http://"],
        ["move", "q", "--to-queue", "q"],
        ["move", "q", "other", "--to-queue", "third"],
        ["lease", "q", "--wait", "1w"],
        ["ack", "q:1"],
        ["move", "q", "--from", "http://localhost:1", "--to", "http://localhost:1/"],
    ],
)
def test_wrong_usage_is_exit_status_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    status, shown, error = run(capsys, *arguments)
    assert (status, shown) == (2, "")
    assert error.startswith("Usage: restmq")
    assert "s3cret" not in error
