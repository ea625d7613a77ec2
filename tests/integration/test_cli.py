"""The ``restmq`` command against real servers."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from restmq.cli.queues import STATS_HEAD
from tests import forked
from tests.servers import ROOT, Daemon, Redis, free_port, listeners, stopping, wait_until

BINARY = bytes(range(256)) * 3
RESTMQ = [sys.executable, "-m", "restmq"]


class Shell:
    """Runs commands with a home folder of their own and the server's URL in the environment."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "RESTMQ_URL": url}
        for size in ("COLUMNS", "LINES"):  # set by pytest-xdist; these tests use the terminal's size
            self.env.pop(size, None)
        self.started: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        result = forked.program("restmq.cli", list(arguments), self.home, self.env | env, stdin)
        assert b"Traceback" not in result.stderr, result.stderr.decode()
        return result

    def output(self, *arguments: str, stdin: bytes = b"", **env: str) -> bytes:
        """The output of a command that must succeed."""
        result = self.run(*arguments, stdin=stdin, **env)
        assert result.returncode == 0, result
        return result.stdout

    def json(self, *arguments: str, stdin: bytes = b"") -> Any:
        return json.loads(self.output(*arguments, "--json", stdin=stdin))

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([*RESTMQ, *arguments], env=self.env, cwd=self.home, **streams | options)
        self.started.append(process)
        return process


def ended(process: subprocess.Popen[bytes], signal_number: int | None = None) -> tuple[bytes, str, int]:
    """Sends a signal if one is given and waits. Returns standard output, standard error and the exit status."""
    if signal_number is not None:
        process.send_signal(signal_number)
    out, err = process.communicate(timeout=300)
    assert b"Traceback" not in err, err.decode()
    return out, err.decode(), process.returncode


@pytest.fixture
def shell(private_folder: Path, daemon: Daemon) -> Iterator[Shell]:
    made = Shell(private_folder, daemon.url)
    yield made
    for process in made.started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):  # its child processes may hold them open
            if stream is not None:
                stream.close()


@pytest.fixture(scope="module")
def mortal(module_folder: Path, redis: Redis) -> Iterator[Daemon]:
    """A daemon that tests may kill, and must start again."""
    with stopping(Daemon(module_folder / "mortal", redis=redis)) as daemon:
        yield daemon


def add(http: httpx.Client, queue: str, *values: bytes | str) -> list[str]:
    octets = {"Content-Type": "application/octet-stream"}
    return [http.post(f"/q/{queue}", content=value, headers=octets).text.strip() for value in values]


def stats(http: httpx.Client, queue: str) -> dict[str, Any]:
    return dict(http.get(f"/stats/{queue}").json())


def counts(http: httpx.Client, queue: str) -> tuple[int, ...]:
    """The numbers of ready, leased, delayed and dead messages."""
    found = stats(http, queue)
    return tuple(found[name] for name in ("ready", "leased", "delayed", "dead"))


def everything(http: httpx.Client, queue: str) -> list[str]:
    answer = http.get(f"/q/{queue}?count=1000")
    return [message["value"] for message in answer.json()] if answer.status_code == 200 else []


# publish


def test_publish_reads_messages_from_arguments_files_and_lines(shell: Shell, http: httpx.Client, queue: str) -> None:
    assert shell.output("publish", queue, "one", "ü 😀", "", "--", "--five") == b"".join(
        f"{queue}:{n}\n".encode() for n in range(1, 5)
    )
    (shell.home / "note.txt").write_bytes(b"a\nb\r\n")
    shell.output("publish", queue, "--file", "note.txt", "--file", "-", stdin=b"piped\n")
    assert shell.output("publish", queue, stdin=b"x\n\n z\r\nlast") == b"4\n"
    assert everything(http, queue) == ["one", "ü 😀", "", "--five", "a\nb\r\n", "piped\n", "x", "", " z\r", "last"]


def test_consume_prints_the_exact_published_bytes(shell: Shell, queue: str) -> None:
    (shell.home / "photo.jpg").write_bytes(BINARY)
    shell.output("publish", queue, "--file", "photo.jpg")
    assert shell.output("consume", queue, "--raw") == BINARY
    lines = [b"text", b"\xff\xfe", b"more", b"text", b"\x00", b"\xff"]
    assert shell.output("publish", queue, "--batch", "2", stdin=b"\n".join(lines)) == b"6\n"
    assert shell.output("consume", queue, "--count", "9") == b"".join(line + b"\n" for line in lines)


def test_many_lines_are_published_in_batches_and_in_order(shell: Shell, http: httpx.Client, queue: str) -> None:
    lines = [str(n) for n in range(20_000)]
    assert shell.output("publish", queue, stdin="\n".join(lines).encode()) == b"20000\n"
    found: list[str] = []
    while more := everything(http, queue):
        found += more
    assert found == lines


def test_a_line_is_published_as_soon_as_it_is_read(shell: Shell, http: httpx.Client, queue: str) -> None:
    publishing = shell.start("publish", queue, stdin=subprocess.PIPE)
    assert publishing.stdin is not None
    for n in range(3):
        publishing.stdin.write(f"{n}\nhalf".encode())
        publishing.stdin.flush()
        wait_until(lambda n=n: counts(http, queue)[0] == n + 1)
    assert ended(publishing) == (b"4\n", "", 0)
    assert everything(http, queue) == ["0", "half1", "half2", "half"]


def test_an_interrupted_publish_prints_the_number_of_published_messages(
    shell: Shell, http: httpx.Client, queue: str
) -> None:
    publishing = shell.start("publish", queue, stdin=subprocess.PIPE)
    assert publishing.stdin is not None
    publishing.stdin.write(b"a\nb\n")
    publishing.stdin.flush()
    wait_until(lambda: counts(http, queue)[0] == 2)
    publishing.send_signal(signal.SIGINT)
    assert publishing.wait(60) == 130
    assert publishing.stderr is not None
    assert publishing.stderr.read() == b"restmq: 2 messages were published before the interruption.\n"


def test_publish_takes_delay_and_idempotency_key(shell: Shell, http: httpx.Client, queue: str) -> None:
    assert shell.json("publish", queue, "a", "b", "--delay", "3600") == {
        "queue": queue,
        "keys": [f"{queue}:1", f"{queue}:2"],
    }
    assert counts(http, queue) == (0, 0, 2, 0)
    key = shell.output("publish", queue, "--idempotency-key", "k", "c")
    assert shell.output("publish", queue, "c", "--idempotency-key", "k") == key
    refused = shell.run("publish", queue, "d", "--idempotency-key", "k")
    assert (refused.returncode, b"Idempotency-Key" in refused.stderr) == (3, True)


def test_a_line_or_file_over_the_limit_is_rejected(shell: Shell, http: httpx.Client, queue: str) -> None:
    refused = shell.run("publish", queue, "--max-value", "10", stdin=b"short\n" + b"x" * 11)
    assert (refused.returncode, b"--max-value" in refused.stderr) == (3, True)
    assert b"1 messages were published before" in refused.stderr
    (shell.home / "big").write_bytes(b"x" * 11)
    assert shell.run("publish", queue, "--max-value", "10", "--file", "big").returncode == 3
    by_server = shell.run("publish", queue, "--max-value", "30000000", stdin=b"x" * (17 << 20))
    assert (by_server.returncode, b"16777216" in by_server.stderr) == (3, True)
    assert everything(http, queue) == ["short"]


def test_publish_retries_for_the_given_time_while_the_queue_is_full(
    shell: Shell, http: httpx.Client, queue: str
) -> None:
    http.post(f"/p/{queue}", data={"max_length": "1"})
    shell.output("publish", queue, "first")
    refused = shell.run("publish", queue, "no room", "--retry", "0")
    assert (refused.returncode, b"max_length" in refused.stderr) == (5, True)
    publishing = shell.start("--retry", "60", "publish", queue, "second")
    assert publishing.stderr is not None
    assert b"Retrying" in publishing.stderr.readline()
    assert everything(http, queue) == ["first"]
    assert ended(publishing) == (f"{queue}:2\n".encode(), "", 0)


def test_a_progress_bar_is_shown_only_on_a_terminal(shell: Shell, http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"max_length": "100"})
    (shell.home / "lines").write_bytes(b"line\n" * 200)
    with (shell.home / "lines").open("rb") as lines:
        master, terminal = pty.openpty()
        publishing = shell.start("publish", queue, "--batch", "50", "--retry", "60", stdin=lines, stderr=terminal)
        os.close(terminal)
        shown = b""
        while b"Retrying" not in shown:  # the queue is full, so publishing now takes long enough for a bar
            shown += os.read(master, 4096)
        while b"100%" not in shown:
            everything(http, queue)
            shown += os.read(master, 4096)
        assert b"[###" in shown
        assert b"200 messages" in shown
        assert ended_on_terminal(publishing, master) == (b"200\n", 0)
    assert b"%" not in shell.run("publish", queue, stdin=b"line\n" * 50).stderr


def ended_on_terminal(process: subprocess.Popen[bytes], master: int) -> tuple[bytes, int]:
    assert process.stdout is not None
    out = process.stdout.read()
    status = process.wait(60)
    os.close(master)
    return out, status


# consume


def test_consume_prints_ready_messages(shell: Shell, http: httpx.Client, queue: str) -> None:
    keys = add(http, queue, "a", "b", BINARY, "d")
    assert shell.output("consume", queue) == b"a\n"
    assert shell.output("consume", queue, "--keys") == f"{keys[1]}\tb\n".encode()
    assert shell.json("consume", queue)["encoding"] == "base64"
    assert shell.json("consume", queue) == {"key": keys[3], "value": "d"}
    empty = shell.run("consume", queue)
    assert (empty.returncode, empty.stdout) == (1, b"")
    assert empty.stderr == b"restmq: empty queue; to wait for a message, pass --wait TIME.\n"
    assert shell.run("lease", queue).stderr == empty.stderr
    waited = shell.run("consume", queue, "--wait", "0.05")
    assert (waited.returncode, waited.stderr) == (1, b"restmq: empty queue\n")


def test_consume_waits_for_the_requested_number_of_messages(shell: Shell, http: httpx.Client, queue: str) -> None:
    consuming = shell.start("consume", queue, "--count", "3", "--wait", "60", "--batch", "2")
    for value in "abc":
        wait_until(lambda: stats(http, queue)["waiters"] == 1)
        add(http, queue, value)
        wait_until(lambda: counts(http, queue)[0] == 0)
    assert ended(consuming) == (b"a\nb\nc\n", "", 0)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_consume_follow_runs_until_interrupted_and_takes_nothing_afterwards(
    shell: Shell, http: httpx.Client, queue: str, signal_number: int
) -> None:
    consuming = shell.start("consume", queue, "--follow")
    assert consuming.stdout is not None
    for value in (b"one", b"two"):
        add(http, queue, value)
        assert consuming.stdout.readline() == value + b"\n"
    wait_until(lambda: stats(http, queue)["waiters"] == 1)
    assert ended(consuming, signal_number) == (b"", "", 0)
    wait_until(lambda: stats(http, queue)["waiters"] == 0)
    add(http, queue, "stays")
    assert everything(http, queue) == ["stays"]


def test_consume_and_tail_continue_after_the_server_was_killed(
    shell: Shell, mortal: Daemon, http: httpx.Client, queue: str
) -> None:
    consuming = shell.start("--url", mortal.url, "consume", queue, "--follow")
    tailing = shell.start("tail", queue + "-live", "--take", "--url", mortal.url)
    assert consuming.stdout is not None and tailing.stdout is not None
    with mortal.client() as there:
        for value in (b"before", b"after"):
            wait_until(lambda: stats(there, queue)["waiters"] == 1)
            wait_until(lambda: stats(there, queue + "-live")["consumers"] == 1)
            add(http, queue, value)
            add(http, queue + "-live", value)
            assert consuming.stdout.readline() == value + b"\n"
            assert tailing.stdout.readline() == value + b"\n"
            if value == b"before":
                mortal.kill()
                mortal.start()
    for process in (consuming, tailing):
        _, complaints, status = ended(process, signal.SIGTERM)
        assert (status, "Retrying" in complaints) == (0, True)


def test_leased_messages_are_not_lost_when_the_reader_of_the_pipe_exits(
    shell: Shell, http: httpx.Client, queue: str
) -> None:
    keys = add(http, queue, *(b"%d" % n + b"x" * 100_000 for n in range(20)))
    consuming = shell.start("consume", queue, "--follow", "--lease", "600", "--keys")
    assert consuming.stdout is not None
    assert consuming.stdout.readline().startswith(keys[0].encode())
    consuming.stdout.close()
    assert consuming.stderr is not None
    assert (consuming.stderr.read(), consuming.wait(60)) == (b"", 1)
    found = stats(http, queue)
    assert found["leased"] == 1
    assert found["ready"] + found["leased"] + found["totals"]["acked"] == 20
    assert found["totals"]["acked"] < 5


# tail


def test_tail_prints_live_and_from_the_history(shell: Shell, http: httpx.Client, redis: Redis, queue: str) -> None:
    http.post(f"/p/{queue}", data={"history": "2"})
    tailing = shell.start("tail", "--take", queue, "--json", "--count", "4")
    wait_until(lambda: listeners(redis, queue))
    keys = add(http, queue, "a\r\nb", BINARY, "c", "d")
    out, _, status = ended(tailing)
    assert [json.loads(line)["key"] for line in out.splitlines()] == keys
    assert (json.loads(out.splitlines()[0])["value"], status) == ("a\r\nb", 0)
    wait_until(lambda: not listeners(redis, queue))
    again = shell.run("tail", "--take", queue, "--after", keys[0], "--count", "2")
    assert (again.stdout, again.returncode) == (b"c\nd\n", 0)
    assert f"messages after {keys[0]} were missed".encode() in again.stderr


def test_tail_shows_what_is_put_in_and_takes_nothing(
    shell: Shell, http: httpx.Client, redis: Redis, queue: str
) -> None:
    http.post(f"/p/{queue}", data={"policy": "roundrobin"})
    add(http, queue, "before")
    tailing = shell.start("tail", queue, "--keys", "--count", "2")
    wait_until(lambda: redis.command("PUBSUB", "NUMSUB", f"{queue}:PUBSUB:TAP")[1] == 1)
    wait_until(lambda: redis.command("EXISTS", f"{queue}:tapped") == 1)
    keys = add(http, queue, "a\r\nb", "c")
    out, complaints, status = ended(tailing)
    assert (out.encode() if isinstance(out, str) else out) == f"{keys[0]}\ta\r\nb\n{keys[1]}\tc\n".encode()
    assert (complaints, status) == ("", 0)
    assert everything(http, queue) == ["before", "a\r\nb", "c"]


def test_tail_goes_on_after_the_server_was_killed_and_reports_what_it_missed(
    shell: Shell, mortal: Daemon, redis: Redis, http: httpx.Client, queue: str
) -> None:
    tailing = shell.start("tail", queue, "--url", mortal.url, "--count", "2")
    assert tailing.stdout is not None
    for value in (b"before", b"after"):
        wait_until(lambda: redis.command("PUBSUB", "NUMSUB", f"{queue}:PUBSUB:TAP")[1] == 1)
        wait_until(lambda: redis.command("EXISTS", f"{queue}:tapped") == 1)
        (key,) = add(http, queue, value)
        assert tailing.stdout.readline() == value + b"\n"
        if value == b"before":
            mortal.kill()
            last = key
            redis.command("DEL", f"{queue}:tapped")
            add(http, queue, "missed")
            mortal.start()
    _, complaints, status = ended(tailing)
    assert (status, f"messages after {last} were missed: the connection broke" in complaints) == (0, True)


def test_tail_says_that_it_takes_messages(shell: Shell, http: httpx.Client, queue: str) -> None:
    add(http, queue, "a")
    result = shell.run("tail", "--take", queue, "--count", "1")
    assert (result.stdout, result.returncode) == (b"a\n", 0)
    assert f"taking messages from {queue}: those that wait in it".encode() in result.stderr
    assert everything(http, queue) == []


@pytest.mark.parametrize("options", [["--lease", "3"], ["--after", "x:1"]])
def test_tail_without_take_has_no_leases_and_no_history(shell: Shell, queue: str, options: list[str]) -> None:
    result = shell.run("tail", queue, *options)
    assert (result.returncode, b"need --take" in result.stderr) == (2, True)


def test_consume_takes_from_the_first_of_several_queues(shell: Shell, http: httpx.Client, queue: str) -> None:
    high, low = queue + "-high", queue + "-low"
    for name in (low, high):
        add(http, name, f"1 {name}", f"2 {name}")
    wanted = f"1 {high}\n2 {high}\n1 {low}\n".encode()
    assert shell.output("consume", high, low, "--lease", "60", "--count", "3") == wanted
    assert shell.output("consume", high, low, "--follow", "--count", "1") == f"2 {low}\n".encode()
    assert shell.run("consume", high, low).returncode == 1
    refused = shell.run("consume", high, low, "--batch", "2")
    assert (refused.returncode, b"--batch takes one queue" in refused.stderr) == (2, True)


def test_tail_with_leases_acks_each_printed_message(shell: Shell, http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"policy": "roundrobin"})
    add(http, queue, "a", "b", "c")
    assert shell.output("tail", "--take", queue, "--lease", "600", "--count", "2") == b"a\nb\n"
    wait_until(lambda: counts(http, queue) == (1, 0, 0, 0))


# work


def script(shell: Shell, text: str) -> list[str]:
    return ["--", "sh", "-c", text]


def test_work_runs_a_command_for_each_message(shell: Shell, http: httpx.Client, queue: str) -> None:
    keys = add(http, queue, BINARY, "two", "3")
    shell.output(
        "work", queue, "--until-empty", *script(shell, 'cat > "$RESTMQ_KEY"; echo "$RESTMQ_QUEUE $RESTMQ_COUNT"')
    )
    assert [(shell.home / key).read_bytes() for key in keys] == [BINARY, b"two", b"3"]
    assert counts(http, queue) == (0, 0, 0, 0)
    add(http, queue, BINARY)
    worked = shell.run("work", "--count", "1", queue, "--", "cat")
    assert (worked.stdout, worked.stderr) == (BINARY, b"restmq: 1 done, 0 failed.\n")
    add(http, queue, "many lines that nobody reads\n" * 100_000)
    assert shell.run("work", "--until-empty", queue, "--", "true").returncode == 0


def test_work_runs_the_given_number_of_jobs_at_once(shell: Shell, http: httpx.Client, queue: str) -> None:
    keys = add(http, queue, *"abcde")
    waits = script(shell, 'touch "$RESTMQ_KEY"; while [ ! -e go ]; do sleep 0.02; done')
    working = shell.start("work", queue, "--jobs", "3", "--count", "5", *waits)
    wait_until(lambda: all((shell.home / key).exists() for key in keys[:3]))
    assert counts(http, queue) == (2, 3, 0, 0)
    (shell.home / "go").touch()
    assert ended(working) == (b"", "restmq: 5 done, 0 failed.\n", 0)
    assert counts(http, queue) == (0, 0, 0, 0)


def test_a_failed_message_is_delivered_again_and_becomes_a_dead_letter(
    shell: Shell, http: httpx.Client, queue: str
) -> None:
    http.post(f"/p/{queue}", data={"max_deliveries": "3"})
    (key,) = add(http, queue, "poison")
    failing = script(shell, 'echo "$RESTMQ_COUNT"; echo oh >&2; exit 7')
    worked = shell.run("work", queue, "--again-after", "0", "--until-empty", *failing)
    assert (worked.stdout, worked.returncode) == (b"1\n2\n3\n", 1)
    assert f"restmq: {key}, delivery 3: exit status 7; it is a dead letter now.\n".encode() in worked.stderr
    assert counts(http, queue) == (0, 0, 0, 1)
    assert http.get(f"/d/{queue}").json()["messages"][0]["reason"] == "exit status 7: oh"
    assert worked.stderr.count(b"oh\n") == 3
    assert b"exit status 7: oh" in shell.output("dead", queue)
    assert shell.output("redrive", queue, "--to", f"{queue}-2") == b"1\n"
    assert http.get(f"/q/{queue}-2").json()["dead_letter"]["reason"] == "exit status 7: oh"
    (key,) = add(http, queue, "poison")
    worked = shell.run("work", queue, "--json", "--count", "3", "--again-after", "1", *failing)
    lines = [json.loads(line) for line in worked.stdout.splitlines()]
    assert [(line["key"], line["count"], line["exit"]) for line in lines] == [(key, n, 7) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("first\\n\\nthe last\\n\\n", ": the last"),
        ("10 %%\\r99 %%\\rbroken", ": broken"),
        ("", ""),
        ("\\n", ""),
        ("\\377\\033[31mred\\n", ": \ufffd\x1b[31mred"),
    ],
)
def test_the_reason_of_a_failure_has_the_last_line_of_standard_error(
    shell: Shell, http: httpx.Client, queue: str, written: str, reason: str
) -> None:
    (key,) = add(http, queue, "x")
    worked = shell.run("work", queue, "--count", "1", *script(shell, f"printf '{written}' >&2; exit 2"))
    assert http.get(f"/m/{key}").json()["reason"] == f"exit status 2{reason}"
    assert worked.stderr.startswith(subprocess.run(["printf", written], capture_output=True, check=True).stdout)


def test_the_errors_of_a_command_are_passed_on_while_it_runs_and_at_its_end(
    shell: Shell, http: httpx.Client, queue: str
) -> None:
    add(http, queue, "x")
    errors = shell.home / "errors"
    waits = script(shell, "echo begun >&2; while [ ! -e go ]; do sleep 0.02; done; seq 20000 >&2; echo done >&2")
    with errors.open("wb") as file:
        working = shell.start("work", queue, "--count", "1", *waits, stderr=file)
        wait_until(lambda: errors.read_bytes() == b"begun\n")
        (shell.home / "go").touch()
        assert working.wait(60) == 0
    assert errors.read_text().splitlines()[-3:] == ["20000", "done", "restmq: 1 done, 0 failed."]


def test_commands_run_with_a_closed_standard_error(shell: Shell, http: httpx.Client, queue: str) -> None:
    (key,) = add(http, queue, "x")
    fails = script(shell, "seq 20000 >&2; exit 7")
    working = shell.start("work", queue, "--count", "1", *fails, stderr=None, preexec_fn=lambda: os.close(2))
    assert working.communicate(timeout=60)[0] == b""
    assert http.get(f"/m/{key}").json()["reason"] == "exit status 7: 20000"


def test_a_child_that_outlives_its_command_does_not_hold_up_the_ack(
    shell: Shell, http: httpx.Client, queue: str
) -> None:
    add(http, queue, "x")
    worked = shell.run("work", queue, "--count", "1", *script(shell, "sleep 1000 >/dev/null & echo $!"))
    os.kill(int(worked.stdout), signal.SIGKILL)
    assert (worked.returncode, counts(http, queue)) == (0, (0, 0, 0, 0))


def test_work_until_empty_waits_for_delayed_and_failed_messages(shell: Shell, http: httpx.Client, queue: str) -> None:
    add(http, queue, "a", "b")
    http.post(f"/q/{queue}?delay=0.5", content=b"late")
    worked = shell.run(
        "work", queue, "--again-after", "0.5", "--until-empty", *script(shell, 'cat; test "$RESTMQ_COUNT" = 2')
    )
    assert sorted(worked.stdout.decode()) == sorted("aabb" + "latelate")
    assert worked.stderr.endswith(b"restmq: 3 done, 3 failed.\n")
    assert counts(http, queue) == (0, 0, 0, 0)


def test_work_until_empty_ends_when_another_worker_acks_the_last_message(
    shell: Shell, http: httpx.Client, queue: str
) -> None:
    add(http, queue, "elsewhere")
    taken = http.get(f"/q/{queue}?lease=1000").json()
    working = shell.start("work", queue, "--until-empty", "--", "cat")
    wait_until(lambda: http.get(f"/stats/{queue}").json()["waiters"])
    http.delete("/m/" + taken["key"], params={"receipt": taken["receipt"]})
    assert ended(working) == (b"", "restmq: 0 done, 0 failed.\n", 0)


def test_a_command_over_its_timeout_is_ended_with_its_child_processes(
    shell: Shell, http: httpx.Client, queue: str
) -> None:
    add(http, queue, "x")
    hangs = script(shell, "sleep 1000 & echo $!; wait")
    worked = shell.run("work", queue, "--timeout", "0.3", "--count", "1", "--again-after", "0", *hangs)
    assert b"took longer than 0.3 s; ended by SIGTERM; returned to the queue" in worked.stderr
    assert worked.returncode == 1
    wait_until(lambda: not alive(int(worked.stdout)))
    assert counts(http, queue) == (1, 0, 0, 0)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_lease_of_a_long_job_is_extended(shell: Shell, http: httpx.Client, queue: str) -> None:
    (key,) = add(http, queue, "x")
    waits = script(shell, "while [ ! -e go ]; do sleep 0.02; done; echo $RESTMQ_COUNT")
    working = shell.start("work", queue, "--lease", "3", "--count", "1", *waits)
    first_due = wait_until(lambda: http.get(f"/m/{key}").json().get("due"))
    wait_until(lambda: http.get(f"/m/{key}").json()["due"] > first_due + 1500)
    (shell.home / "go").touch()
    assert ended(working) == (b"1\n", "restmq: 1 done, 0 failed.\n", 0)
    assert stats(http, queue)["totals"]["redelivered"] == 0


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_commands_finish_and_takes_no_more_messages(
    shell: Shell, http: httpx.Client, queue: str, signal_number: int
) -> None:
    add(http, queue, *"abc")
    waits = script(shell, "touch began; while [ ! -e go ]; do sleep 0.02; done; echo finished")
    working = shell.start("work", queue, *waits, start_new_session=True)
    wait_until(lambda: (shell.home / "began").exists())
    os.killpg(working.pid, signal_number)  # to the whole process group, like Ctrl-C on a terminal
    assert working.poll() is None
    (shell.home / "go").touch()
    assert ended(working) == (b"finished\n", "restmq: 1 done, 0 failed.\n", 0)
    assert counts(http, queue) == (2, 0, 0, 0)


def test_a_signal_ends_an_idle_worker_at_once(shell: Shell, http: httpx.Client, queue: str) -> None:
    working = shell.start("work", queue, "--", "true")
    wait_until(lambda: stats(http, queue)["waiters"] == 1)
    assert ended(working, signal.SIGTERM) == (b"", "restmq: 0 done, 0 failed.\n", 0)
    wait_until(lambda: stats(http, queue)["waiters"] == 0)


def test_a_signal_to_another_thread_is_noticed_while_the_main_thread_waits(shell: Shell) -> None:
    program = """
import os, signal, threading, time
from pathlib import Path
from queue import SimpleQueue
from restmq.client.interrupts import stopping

def main_thread_sleeps():
    time.sleep(0.05)
    return ") S " in Path(f"/proc/self/task/{os.getpid()}/stat").read_text()

def send():
    while not main_thread_sleeps():
        pass
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

heard = SimpleQueue()
with stopping(lambda: heard.put("stopped")):
    threading.Thread(target=send, daemon=True).start()
    print(heard.get(timeout=20))
"""
    result = subprocess.run([sys.executable, "-c", program], env=shell.env, capture_output=True, timeout=60)
    assert result.stdout == b"stopped\n", result.stderr.decode()


@pytest.mark.parametrize(
    ("options", "signal_number", "status"),
    [
        (["--until-empty"], signal.SIGINT, 130),
        (["--until-empty"], signal.SIGTERM, 143),
        (["--count", "5"], signal.SIGTERM, 143),
        ([], signal.SIGTERM, 0),
    ],
)
def test_work_tells_by_its_exit_status_that_a_signal_ended_it_before_its_end(
    shell: Shell, http: httpx.Client, queue: str, options: list[str], signal_number: int, status: int
) -> None:
    key, *_ = add(http, queue, *"abcdefgh")
    waits = script(shell, 'touch "$RESTMQ_KEY"; until [ -e go ]; do sleep 0.02; done')
    working = shell.start("work", queue, *options, *waits)
    wait_until(lambda: (shell.home / key).exists())
    working.send_signal(signal_number)
    (shell.home / "go").touch()
    assert ended(working)[2] == status


def test_a_command_that_outlasts_the_grace_period_is_ended_and_its_message_returns(
    shell: Shell, http: httpx.Client, queue: str
) -> None:
    keys = add(http, queue, "a", "b")
    hangs = script(shell, 'trap "echo ending; exit 3" TERM; touch "$RESTMQ_KEY"; while :; do sleep 0.02; done')
    working = shell.start("work", queue, "--jobs", "2", "--grace", "0.1", *hangs)
    wait_until(lambda: all((shell.home / key).exists() for key in keys))
    out, complaints, status = ended(working, signal.SIGTERM)
    assert (out, status) == (b"ending\nending\n", 143)
    assert complaints.count("returned to the queue") == 2
    assert counts(http, queue) == (2, 0, 0, 0)


def test_a_second_signal_ends_the_grace_period_and_kills_a_command_that_ignores_sigterm(
    shell: Shell, http: httpx.Client, queue: str
) -> None:
    add(http, queue, "a")
    hangs = script(shell, 'trap "" TERM; touch began; while [ -e began ]; do sleep 0.02; done')
    working = shell.start("work", queue, "--grace", "3600", *hangs)
    wait_until(lambda: (shell.home / "began").exists())
    working.send_signal(signal.SIGTERM)
    wait_until(lambda: stats(http, queue)["leased"] == 1)
    _, complaints, status = ended(working, signal.SIGINT)
    assert ("ended by SIGKILL; returned to the queue" in complaints, status) == (True, 130)
    assert counts(http, queue) == (1, 0, 0, 0)


def test_work_continues_after_the_server_was_killed(
    shell: Shell, mortal: Daemon, http: httpx.Client, queue: str
) -> None:
    waits = script(shell, 'touch "$RESTMQ_KEY"; while [ ! -e go ]; do sleep 0.02; done; echo "$RESTMQ_COUNT"')
    working = shell.start("--url", mortal.url, "work", queue, "--count", "2", "--lease", "30", *waits)
    (first,) = add(http, queue, "a")
    wait_until(lambda: (shell.home / first).exists())
    mortal.kill()
    (shell.home / "go").touch()
    mortal.start()
    add(http, queue, "b")
    out, complaints, status = ended(working)
    assert (out, complaints.splitlines()[-1], status) == (b"1\n1\n", "restmq: 2 done, 0 failed.", 0)
    assert counts(http, queue) == (0, 0, 0, 0)


def test_a_lease_that_ends_during_a_job_is_reported(shell: Shell, http: httpx.Client, queue: str) -> None:
    (key,) = add(http, queue, "x")
    waits = script(shell, "touch began; while [ ! -e go ]; do sleep 0.02; done")
    working = shell.start("work", queue, "--count", "1", "--lease", "600", *waits)
    wait_until(lambda: (shell.home / "began").exists())
    http.post("/queue", json={"cmd": "del", "queue": queue, "key": key})
    (shell.home / "go").touch()
    _, complaints, status = ended(working)
    assert ("lease ended" in complaints, status) == (True, 0)


# Queues


def test_queues_are_inspected_and_changed(shell: Shell, http: httpx.Client, queue: str) -> None:
    name = f"{queue} ü/😀"
    shell.output("publish", name, "a", "b")
    assert name in shell.output("stats", "--names").decode().splitlines()
    named, *_ = shell.json("stats", name)
    (listed,) = (stats for stats in shell.json("stats") if stats["queue"] == name)
    assert named["totals"].pop("acked") == 0
    assert {field: value for field, value in listed.items() if field not in ("oldest_age_seconds", "totals")} == {
        field: value for field, value in named.items() if field not in ("oldest_age_seconds", "totals")
    }
    assert (listed["ready"], listed["totals"]) == (2, {"in": 2, "out": 0})
    assert f"{name}" in shell.output("stats").decode()
    (head, row) = shell.output("stats", name).decode().splitlines()
    assert head.split()[:3] == ["QUEUE", "READY", "LEASED"]
    assert row.removeprefix(name).split()[:4] == ["2", "0", "0", "0"]
    assert shell.output("policy", name) == b"broadcast\n"
    assert shell.output("policy", name, "roundrobin", "--max-deliveries", "1") == b"roundrobin\nmax_deliveries\t1\n"
    assert shell.json("policy", name, "--lease", "5m")["lease"] == 300
    assert shell.json("pause", name) == {"queue": name, "status": 0}
    assert shell.json("stats", name)[0]["status"] == 0
    assert b"is resumed" in shell.run("resume", name).stderr
    assert shell.json("stats", name)[0]["status"] == 1


def test_stats_of_an_unknown_queue_is_an_error(shell: Shell, http: httpx.Client, queue: str) -> None:
    missing = shell.run("stats", queue)
    assert (missing.returncode, missing.stdout) == (1, b"")
    assert missing.stderr == f"restmq: there is no queue '{queue}'; publish a message to create it.\n".encode()
    shell.output("publish", f"{queue}-there", "x")
    both = shell.run("stats", queue, f"{queue}-there")
    assert (both.returncode, both.stdout.count(b"\n"), both.stderr) == (1, 2, missing.stderr)
    shell.output("consume", f"{queue}-there")
    assert shell.output("stats", f"{queue}-there").count(b"\n") == 2
    shell.output("pause", queue)
    assert b"paused" in shell.output("stats", queue)


@pytest.mark.parametrize(("columns", "left_out"), [(120, set()), (80, {"WAITERS", "DELAYED"})])
def test_a_narrow_terminal_shows_whole_names_and_fewer_columns(
    shell: Shell, http: httpx.Client, queue: str, columns: int, left_out: set[str]
) -> None:
    name = queue[:18]
    add(http, name, "x")
    shell.output("pause", name)
    for command in (["stats", name], ["watch", name, "--rounds", "1"]):
        master, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        looking = shell.start(*command, stdout=terminal)
        os.close(terminal)
        shown = re.sub(rb"\x1b\[[?0-9]*[A-Za-z]", b"", read_all(master)).decode()
        assert looking.wait(60) == 0
        head, row = [line for line in shown.splitlines() if line.startswith(("QUEUE", name))]
        assert row.startswith(f"{name} ")
        assert row.endswith("paused")
        assert "…" not in row
        assert left_out.isdisjoint(head.split())
        assert {*STATS_HEAD} - left_out - {"POLICY"} <= set(head.split())


def read_all(master: int) -> bytes:
    """The output to a terminal until all processes have closed it."""
    shown = b""
    with contextlib.suppress(OSError):
        while more := os.read(master, 4096):
            shown += more
    os.close(master)
    return shown


def test_a_queue_is_removed_after_a_confirmation(shell: Shell, http: httpx.Client, queue: str) -> None:
    add(http, queue, "x")
    assert shell.run("remove", queue).returncode == 2
    assert shell.output("remove", queue, "--yes") == b""
    assert queue not in shell.json("stats", "--names")
    assert shell.run("remove", queue, "--yes").returncode == 1
    shell.output("policy", queue, "--expires", "60")
    assert http.get(f"/p/{queue}").json()["expires"] == 60
    assert (
        shell.run("remove", "--json", queue, "--yes").stdout == b'{"queue": "%b", "removed": true}\n' % queue.encode()
    )


def test_messages_are_dropped_by_their_keys_in_any_state(shell: Shell, http: httpx.Client, queue: str) -> None:
    leased, ready = add(http, queue, "leased", "ready")
    delayed = http.post(f"/q/{queue}?delay=1000", data={"value": "later"}).text.strip()
    receipt = http.get(f"/q/{queue}?lease=1000").json()["receipt"]
    asked = shell.run("drop", queue, leased)
    assert (asked.returncode, b"--yes" in asked.stderr) == (2, True)
    dropped = shell.run("drop", queue, leased, delayed, "--yes")
    assert (dropped.returncode, dropped.stdout) == (0, b"")
    assert dropped.stderr.decode() == f"restmq: messages of {queue!r} that are dropped: 2.\n"
    again = shell.run("drop", queue, leased, ready, "--yes", "--json")
    assert (again.returncode, json.loads(again.stdout)) == (1, {"queue": queue, "dropped": 1})
    assert f"there is no message {leased!r} in this queue" in again.stderr.decode()
    stats = http.get(f"/stats/{queue}").json()
    assert [stats[state] for state in ("ready", "leased", "delayed", "dead")] == [0, 0, 0, 0]
    assert shell.run("ack", leased, receipt).returncode == 3


@pytest.fixture
def paused_redis(private_redis: Redis) -> Iterator[Redis]:
    """A Redis that the test may pause."""
    yield private_redis
    private_redis.go_on()


def test_servers_shows_all_processes_and_what_redis_suffers_from(private_folder: Path, paused_redis: Redis) -> None:
    options = ("--peer-timeout", "10", "--workers", "2")
    with stopping(Daemon(private_folder / "daemon", *options, redis=paused_redis)) as daemon, daemon.client() as http:
        shell = Shell(private_folder, daemon.url)
        wait_until(lambda: len(http.get("/servers").json()["servers"][0]["workers"]) == 2)
        shown = shell.run("servers")
        processes, redis = shown.stdout.decode().split("\n\n")
        head, *rows = (line.split() for line in processes.splitlines())
        assert head[:5] == ["SERVER", "HOST", "WORKER", "PID", "VERSION"]
        assert [(row[0], row[2]) for row in rows] == [(f"{daemon.url}/", "1"), (f"{daemon.url}/", "2")]
        assert re.search(r"REDIS +ROLE +STATE .* MEMORY .* DISK", redis)
        assert re.search(r" primary +up .*, no limit +noeviction +append-only file ", redis)
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert shell.json("servers").keys() == {"servers", "missing", "redis"}
        paused_redis.command("CONFIG", "SET", "maxmemory", "500mb", "maxmemory-policy", "allkeys-lru")
        risky = shell.run("servers")
        assert b"drops messages when its memory is full; set maxmemory-policy to noeviction." in risky.stderr
        assert b" of 500.0 MiB " in risky.stdout
        paused_redis.command("CONFIG", "SET", "maxmemory", "1", "maxmemory-policy", "noeviction")
        assert b"is almost full; while it is full, new messages are refused." in shell.run("servers").stderr


def test_servers_says_that_redis_hangs(private_folder: Path, paused_redis: Redis) -> None:
    with stopping(Daemon(private_folder / "daemon", redis=paused_redis)) as daemon:
        paused_redis.pause()
        shown = Shell(private_folder, daemon.url).run("servers")
        assert shown.returncode == 0
        assert re.search(rf"{re.escape(daemon.url)}/ ", shown.stdout.decode())
        assert b" no answer" in shown.stdout


def test_dead_letters_are_shown_redriven_and_dropped(shell: Shell, http: httpx.Client, queue: str) -> None:
    http.post(f"/p/{queue}", data={"max_deliveries": "1"})
    keys = add(http, queue, "evil \x1b[31mred", BINARY, "c")
    shell.run("work", queue, "--again-after", "0", "--until-empty", "--", "false")
    shown = shell.output("dead", queue)
    assert b"\\x1b[31mred" in shown
    assert b"\x1b" not in shown
    assert [line.split()[0] for line in shown.decode().splitlines()] == ["KEY", *keys]
    assert shell.json("dead", queue, "--first", "1", "--count", "1")["messages"][0]["key"] == keys[1]
    assert shell.output("redrive", queue, keys[0]) == b"1\n"
    assert shell.run("redrive", queue, keys[0]).returncode == 3
    assert shell.run("dead", queue, "--drop", keys[1]).returncode == 2
    assert shell.output("dead", queue, "--drop", keys[1], "--yes") == b"1\n"
    assert shell.json("dead", queue, "--drop-all", "--yes") == {"queue": queue, "dropped": 1}
    assert counts(http, queue) == (1, 0, 0, 0)


def test_purge_asks_for_confirmation(shell: Shell, http: httpx.Client, queue: str) -> None:
    add(http, queue, "a", "b")
    for answer, status, left in ((b"n\n", 130, 2), (b"\n", 130, 2), (b"y\n", 0, 0)):
        master, terminal = pty.openpty()
        purging = shell.start("purge", queue, stdin=terminal)
        os.close(terminal)
        assert purging.stderr is not None
        question = f"Drop 2 messages of '{queue}' for good? [y/N] ".encode()
        assert purging.stderr.read(len(question)) == question
        os.write(master, answer)
        assert ended(purging)[2] == status
        os.close(master)
        assert counts(http, queue)[0] == left
    add(http, queue, "c")
    refused = shell.run("purge", queue)
    assert (refused.returncode, b"--yes" in refused.stderr) == (2, True)
    assert shell.json("purge", queue, "--yes") == {"queue": queue, "purged": True}


# watch and bench


def test_watch_shows_queues_and_their_rates(shell: Shell, http: httpx.Client, queue: str) -> None:
    add(http, queue, "a")
    shown = shell.output("watch", queue, "--rounds", "2", "--interval", "0.1").decode()
    assert shown.count(queue) == 2
    watching = shell.start("watch", queue, "--json", "--interval", "0.1")
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["queues"][0]["ready"] == 1
    add(http, queue, "b")
    while json.loads(watching.stdout.readline())["queues"][0]["ready"] != 2:
        pass
    assert ended(watching, signal.SIGINT)[2] == 0


def test_watch_continues_after_the_server_was_killed(shell: Shell, mortal: Daemon) -> None:
    master, terminal = pty.openpty()
    watching = shell.start("watch", "--url", mortal.url, "--interval", "0.1", stdout=terminal)
    os.close(terminal)

    def read_until(pattern: bytes) -> None:
        shown = b""
        while not re.search(pattern, shown):
            shown += os.read(master, 4096)

    read_until(b"READY")
    mortal.kill()
    read_until(b"can't be reached")
    mortal.start()
    read_until(rb"\d:\d\d\x1b\[K")
    watching.send_signal(signal.SIGTERM)
    read_until(rb"\x1b\[\?1049l")
    assert watching.wait(60) == 0
    os.close(master)


def test_bench_prints_rates_and_percentiles_and_leaves_nothing(shell: Shell, http: httpx.Client, queue: str) -> None:
    runs = shell.json("bench", queue, "--messages", "120", "--clients", "3", "--batch", "7")
    assert [(run["what"], run["messages"], run["requests"], run["failed"]) for run in runs] == [
        ("publish", 126, 18, 0),
        ("take", 126, 18, 0),
    ]
    for run in runs:
        assert 0 < run["p50_ms"] <= run["p90_ms"] <= run["p99_ms"] <= run["p100_ms"]
        assert run["messages_per_second"] > 0
    assert counts(http, queue) == (0, 0, 0, 0)
    assert b"MESSAGES/S" in shell.output("bench", queue, "--messages", "5", "--idempotent")
    add(http, queue, "mine")
    refused = shell.run("bench", queue)
    assert (refused.returncode, everything(http, queue)) == (2, ["mine"])


def test_an_interrupted_bench_ends_and_leaves_nothing(shell: Shell, http: httpx.Client, queue: str) -> None:
    # So many messages that waiting for all of them would exceed the test's own time limit.
    benching = shell.start("bench", queue, "--messages", "10000000", "--clients", "4")
    wait_until(lambda: counts(http, queue)[0] > 0)
    assert ended(benching, signal.SIGINT) == (b"", "", 130)
    assert counts(http, queue) == (0, 0, 0, 0)


# Servers, credentials and errors


def test_an_unreachable_server_is_exit_status_5(shell: Shell, queue: str) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    for command in (
        ["stats"],
        ["tail", queue],
        ["work", queue, "--", "true"],
        ["watch"],
        ["consume", queue, "--follow"],
    ):
        result = shell.run("--url", away, "--retry", "0", *command)
        assert (result.returncode, result.stdout) == (5, b"")
        assert result.stderr.decode() == (
            f"restmq: {away} can't be reached: Connection refused. Start a server with 'restmq serve', or name another "
            "one with --url.\n"
        )
    result = shell.run("stats", "--retry", "0.2", RESTMQ_URL=away)
    assert (result.returncode, result.stderr.count(b"Retrying")) == (5, 1)


def test_denied_access_is_exit_status_4(shell: Shell, private_folder: Path, redis: Redis, queue: str) -> None:
    (private_folder / "acl.conf").write_text("[rest:consumer]\nusername = ann\npassword = s3cret\n")
    daemon = Daemon(private_folder, redis=redis)
    shell.output("publish", queue, "x", RESTMQ_URL=daemon.url)
    redis.command("SET", f"AUTHKEY:t-{queue}", json.dumps({"queues": [queue], "privs": ["read"]}))
    shell.env["RESTMQ_URL"] = daemon.url
    try:
        assert shell.run("stats").returncode == 4
        assert shell.run("stats", queue, RESTMQ_TOKEN=f"t-{queue}").returncode == 0
        assert shell.run("purge", "--yes", queue, RESTMQ_TOKEN=f"t-{queue}").returncode == 4
        for arguments in (["stats", queue], ["tail", queue], ["work", queue, "--", "true"]):
            wrong = shell.run(*arguments, RESTMQ_TOKEN="wr0ng")
            assert (wrong.returncode, b"token is unknown" in wrong.stderr) == (4, True)
            assert b"wr0ng" not in wrong.stderr
        assert shell.run("stats", queue, RESTMQ_USER="ann", RESTMQ_PASSWORD="s3cret").returncode == 0
        (shell.home / ".netrc").write_text("machine 127.0.0.1 login ann password s3cret\n")
        (shell.home / ".netrc").chmod(0o600)
        assert shell.run("stats", queue).returncode == 0
        (shell.home / ".netrc").write_text("machine 127.0.0.1 login ann password n0pe\n")
        wrong = shell.run("stats", queue)
        assert (wrong.returncode, b"n0pe" in wrong.stderr) == (4, False)
    finally:
        daemon.stop()


def test_rejected_requests_are_exit_status_3(shell: Shell) -> None:
    for arguments in (["publish", "AUTHKEY:x", "a"], ["consume", "a\nb"], ["stats", "x" * 256]):
        result = shell.run(*arguments)
        assert (result.returncode, result.stdout, result.stderr.count(b"\n")) == (3, b"", 1)


# serve


def test_serve_runs_a_server_until_it_gets_a_signal(shell: Shell, redis: Redis, queue: str) -> None:
    port = free_port()
    serving = shell.start("serve", "--port", str(port), "--redis-socket", redis.socket_path, stderr=subprocess.STDOUT)
    assert serving.stdout is not None
    while f"listens on http://127.0.0.1:{port}".encode() not in (line := serving.stdout.readline()):
        assert line, "it ended"
    assert shell.output("publish", queue, "x", RESTMQ_URL=f"http://127.0.0.1:{port}") == f"{queue}:1\n".encode()
    serving.terminate()
    assert b"Server Shut Down" in serving.communicate(timeout=60)[0]
    assert b"--redis-host" in shell.run("serve", "--help").stdout


# peek, lease, ack, nack, extend, ping


def test_peek_prints_messages_in_any_state_and_takes_nothing(shell: Shell, http: httpx.Client, queue: str) -> None:
    keys = add(http, queue, "a", BINARY, "c" * 100_000)
    assert shell.output("peek", queue, "--count", "1") == b"a\n"
    assert shell.output("peek", queue, "--list", "newest", "--raw", "--count", "1") == b"c" * 100_000
    assert shell.output("peek", queue, keys[1], "--raw") == BINARY
    assert shell.json("peek", queue, keys[0])["state"] == "ready"
    http.get(f"/q/{queue}?lease=600")
    assert shell.output("peek", queue, "--list", "leased", "--keys") == f"{keys[0]}\ta\n".encode()
    assert counts(http, queue) == (2, 1, 0, 0)
    for key in (f"{queue}:99", f"{queue}-other:1"):
        missing = shell.run("peek", queue, key)
        assert (missing.returncode, b"there is no message" in missing.stderr) == (1, True)
    assert shell.run("peek", queue, "no key").returncode == 3
    assert shell.run("peek", queue, "--list", "dead").returncode == 1


def test_a_script_leases_extends_and_acks_a_message(shell: Shell, http: httpx.Client, queue: str) -> None:
    (key,) = add(http, queue, "a\tb")
    shown = shell.output("lease", queue, "--lease", "5m").decode()
    leased_key, receipt, value = shown.rstrip("\n").split("\t", 2)
    assert (leased_key, value) == (key, "a\tb")
    assert shell.run("extend", key, receipt, "10m").stderr == f"restmq: {key} is extended.\n".encode()
    assert shell.json("ack", key, receipt) == {"key": key, "acked": True}
    assert stats(http, queue)["totals"]["acked"] == 1
    again = shell.run("ack", key, receipt)
    assert (again.returncode, again.stdout, again.stderr.count(b"\n")) == (3, b"", 1)
    assert shell.run("lease", queue, "--wait", "50ms").returncode == 1


def test_a_nacked_message_returns_with_its_reason(shell: Shell, http: httpx.Client, queue: str) -> None:
    (key,) = add(http, queue, "a")
    leased = shell.json("lease", queue)
    shell.output("nack", key, leased["receipt"], "--delay", "1h", "--reason", "no disk")
    assert counts(http, queue) == (0, 0, 1, 0)
    delayed = shell.json("peek", queue, "--list", "delayed")
    assert (delayed["reason"], delayed["count"]) == ("no disk", 1), "with the number of deliveries"


def test_lease_waits_for_a_message(shell: Shell, http: httpx.Client, queue: str) -> None:
    leasing = shell.start("lease", queue, "--wait", "1m")
    wait_until(lambda: stats(http, queue)["waiters"] == 1)
    (key,) = add(http, queue, "late")
    assert ended(leasing)[0].startswith(f"{key}\t".encode())


def test_ping_tells_whether_the_store_takes_messages(shell: Shell, private_folder: Path, private_redis: Redis) -> None:
    assert re.fullmatch(rb"http://127.0.0.1:\d+ is ready: [\d.]+ ms\n", shell.output("ping"))
    daemon = Daemon(private_folder / "ping", "--redis-timeout", "1", redis=private_redis)
    with stopping(daemon):
        assert shell.json("ping", "--url", f"127.0.0.1:{daemon.port}")["status"] == "ready"
        private_redis.pause()
        away = shell.run("ping", "--url", daemon.url)
        private_redis.go_on()
        assert (away.returncode, away.stdout, b"Retrying" in away.stderr) == (5, b"", False)


# Tokens


def test_tokens_are_made_listed_and_revoked_by_name(shell: Shell, private_redis: Redis) -> None:
    redis = ["--redis-socket", private_redis.socket_path]
    made = shell.output("token", "make", "ci", "--queue", "jobs", "--queue", "mail-*", "--expires", "30d", *redis)
    token = made.decode().strip()
    assert 0 < private_redis.command("TTL", f"AUTHKEY:{token}") <= 30 * 86_400
    private_redis.command("SET", "AUTHKEY:old", json.dumps({"queues": ["*"], "privs": ["read"]}))
    again = shell.run("token", "make", "ci", "--queue", "jobs", *redis)
    assert (again.returncode, b"already" in again.stderr) == (1, True)
    listed = shell.output("token", "list", *redis).decode()
    assert token not in listed
    assert "old" not in listed
    tokens = {name: json.loads(fields) for name, _, fields in (line.partition("\t") for line in listed.splitlines())}
    assert tokens["ci"]["queues"] == ["jobs", "mail-*"]
    assert tokens["ci"]["created"] < tokens["ci"]["expires"]
    (old,) = tokens.keys() - {"ci"}
    assert tokens[old] == {"queues": ["*"], "privs": ["read"], "created": None, "expires": None}
    for name in ("ci", old):
        revoked = shell.run("token", "revoke", name, *redis)
        assert (revoked.returncode, revoked.stderr) == (0, b"tokens that are revoked: 1\n")
    assert shell.run("token", "revoke", "ci", *redis).returncode == 1
    assert private_redis.keys() == set()


# Habits from other tools


def test_follow_has_the_short_option_of_tail(shell: Shell, http: httpx.Client, redis: Redis, queue: str) -> None:
    add(http, queue, "a")
    assert shell.output("consume", "-f", "--count", "1", queue) == b"a\n"
    tail = shell.start("tail", "-f", "--count", "1", queue)
    wait_until(lambda: redis.command("EXISTS", f"{queue}:tapped") == 1)
    add(http, queue, "b")
    assert ended(tail)[0] == b"b\n"


def test_a_dash_is_published_and_said_to_be_no_standard_input(shell: Shell, http: httpx.Client, queue: str) -> None:
    published = shell.run("publish", queue, "-", stdin=b"unread\n")
    assert (published.returncode, b"to read lines from standard input, leave it out" in published.stderr) == (0, True)
    assert http.get(f"/q/{queue}").json()["value"] == "-"
    assert shell.run("publish", queue, "--", "-x").stderr == b""


def test_a_key_in_place_of_a_queue_is_answered_with_the_command_to_use(
    shell: Shell, http: httpx.Client, queue: str
) -> None:
    (key,) = add(http, queue, "a")
    asked = shell.run("peek", key)
    hint = f"restmq: no messages; to peek at this message: restmq peek {queue} {key}\n"
    assert (asked.returncode, asked.stderr.decode()) == (1, hint)
    assert shell.run("peek", f"{queue}:999").stderr == b"restmq: no messages\n"


def test_a_queue_without_dead_letters_is_said_to_have_none(shell: Shell, queue: str) -> None:
    shown = shell.run("dead", queue)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, b"", b"restmq: no dead letters\n")
    assert shell.json("dead", queue)["dead"] == 0


# Completion: Tab is pressed in an interactive shell


@pytest.fixture
def completing(shell: Shell, http: httpx.Client, queue: str) -> Shell:
    """A shell with ``restmq`` on its PATH, and a server with a queue."""
    add(http, queue, "x")
    return with_program(shell)


def with_program(shell: Shell) -> Shell:
    """The shell with ``restmq`` on its PATH."""
    program = shell.home / "restmq"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m restmq "$@"\n')
    program.chmod(0o755)
    shell.env["PATH"] = f"{shell.home}:{shell.env['PATH']}"
    return shell


SHELLS = [
    pytest.param(["bash", "--norc", "--noprofile", "-i"], 'eval "$(restmq completion bash)"', id="bash"),
    pytest.param(
        ["zsh", "-f", "-i"],
        'autoload -U compinit; compinit -u -D; eval "$(restmq completion zsh)"',
        id="zsh",
        marks=pytest.mark.needs("zsh"),
    ),
    pytest.param(
        ["fish", "--no-config", "-i"], "restmq completion fish | source", id="fish", marks=pytest.mark.needs("fish")
    ),
]


@pytest.mark.parametrize(("command", "setup"), SHELLS)
def test_tab_completes_commands_queues_and_options_also_those_of_a_server(
    completing: Shell, queue: str, command: list[str], setup: str
) -> None:
    env = completing.env | {"TERM": "xterm", "XDG_DATA_HOME": str(completing.home)}
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(completing.home)
        os.execvpe(command[0], command, env)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    shown = b""

    def read_until(words: bytes) -> None:
        nonlocal shown
        while words not in shown:
            ready, _, _ = select.select([master], [], [], 30)
            assert ready, (words, shown)
            shown += os.read(master, 65536)
            if b"\x1b[0c" in shown:  # fish asks which terminal this is
                os.write(master, b"\x1b[?1;2c")
                shown = shown.replace(b"\x1b[0c", b"")
        shown = shown.partition(words)[2]

    (completing.home / "photo.jpg").write_bytes(b"x")
    asked = (
        ("pub", "publish"),
        ("stats --na", "--names"),
        (f"purge {queue[:-1]}", queue),
        (f"redrive other --to {queue[:-1]}", queue),
        (f"ls {queue[:-1]}", queue),
        (f"policy {queue} ro", "roundrobin"),
        (f"peek {queue} --list lea", "leased"),
        (f"publish {queue} --file pho", "photo.jpg"),
        ("serve --max-connections-p", "--max-connections-per-address"),
        ("serve --redis-tls --redis-tls-n", "--redis-tls-name"),
        ("serve --allow-host a.test --allow-h", "--allow-host"),
        ("serve --embedded al", "always"),
        ("serve --access-log-file pho", "photo.jpg"),
    )
    try:
        os.write(master, f"{setup}; echo rea''dy\r".encode())
        read_until(b"ready")
        for line, completed in asked:
            os.write(master, f"\x15restmq {line}\t".encode())  # Ctrl-U: an empty line
            read_until(completed[len(line.split()[-1]) :].encode())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(master)


# What docs/command-line.md says

ENDLESS = (
    "restmq watch",
    "restmq tail",
    "restmq consume mail --f",
    "restmq consume urgent",
    "restmq work jobs --timeout",
)


@pytest.fixture
def document(private_folder: Path, private_redis: Redis) -> Iterator[tuple[Shell, str]]:
    """docs/command-line.md, and a shell and a server for its examples."""
    daemon = Daemon(private_folder / "daemon", redis=private_redis)
    shell = with_program(Shell(private_folder, daemon.url))
    text = (ROOT / "docs" / "command-line.md").read_text().replace("http://127.0.0.1:8888", daemon.url)
    yield shell, re.sub(r"(?m)^(restmq token .*)$", rf"\1 --redis-socket {private_redis.socket_path}", text)
    for process in shell.started:
        process.kill()
        process.communicate()
    daemon.stop()


def test_every_command_in_the_document_runs(document: tuple[Shell, str]) -> None:
    shell, text = document
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert sum(block.count("\n") for block in blocks) > 30
    # A block runs as a whole, unless some line of it runs until it is interrupted.
    parts = [block.splitlines() if any(map(is_endless, block.splitlines())) else [block] for block in blocks]
    for line in itertools.chain.from_iterable(parts):
        endless = is_endless(line)
        command = f"exec {line}" if endless else f"set -e\n{line}"
        process = subprocess.Popen(
            ["bash", "-c", command], env=shell.env, cwd=shell.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        shell.started.append(process)
        if endless:
            wait_until(lambda process=process: catches(process.pid, signal.SIGTERM))
        _, complaints, status = ended(process, signal.SIGTERM if endless else None)
        assert status == 0, (line, complaints)
    assert (shell.home / "some-jobs.txt").read_text().split() == [str(n) for n in range(1, 501)]
    done = [path.read_text() for path in shell.home.glob("done-jobs:*")]
    assert sorted(done, key=int) == [str(n) for n in range(501, 1001)]


def is_endless(line: str) -> bool:
    return line.startswith(ENDLESS)


def catches(pid: int, signal_number: int) -> bool:
    """Whether a process has a handler for a signal."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal_number - 1) & 1)


def test_the_python_examples_in_the_document_run(document: tuple[Shell, str]) -> None:
    shell, text = document
    blocking, asynchronous, deferred = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    run = lambda code: subprocess.run(  # noqa: E731
        [sys.executable, "-c", code], env=shell.env, cwd=shell.home, capture_output=True, text=True, timeout=60
    )
    shown = run(blocking)
    assert (shown.stdout, shown.stderr) == ("jobs:1 1 dig\n", "")
    shown = run(asynchronous)
    assert (shown.stdout, shown.stderr) == ("dig\n", "")
    shown = run(deferred)
    assert ("value=b'dig'" in shown.stdout, shown.stderr) == (True, "")
