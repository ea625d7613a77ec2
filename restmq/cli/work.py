"""work: run a command for each message.

The main thread leases messages, as many as there are jobs free; each job runs in a thread of its own, which feeds its
command, extends the lease, settles the message and reports. Nothing is acked that has not been done: where this program
itself is killed, the leases end, and the messages come again.
"""

from __future__ import annotations

import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import inf
from queue import Empty
from types import SimpleNamespace

import click

from restmq.cli.arguments import COUNT_MAX, YEAR_SECONDS, Commands, Number, flag, option, queue
from restmq.cli.jobs import KILL_AFTER_SECONDS, Jobs
from restmq.cli.output import INTERRUPTED, complain, stopping
from restmq.client import Client, Stopped
from restmq.client.exchange import POLL_SECONDS
from restmq.model import LEASE_SECONDS_MAX

JOBS_MAX = 256
_LOOK_SECONDS = 2.0


def add_to(commands: Commands) -> None:
    lease_seconds = Number(1, LEASE_SECONDS_MAX)
    commands.add(
        "work",
        run_work,
        "run a command for each message",
        "Write -- before the COMMAND. It gets the value on standard input, and RESTMQ_QUEUE, RESTMQ_KEY and "
        "RESTMQ_COUNT (which delivery it is) in its environment. If it exits with 0 the message is acked; if not, it "
        "comes again. SIGTERM or SIGINT ends the work: no more messages are taken, commands that run get --grace to "
        "end in, then SIGTERM, and their messages are given back. A second signal ends the grace.",
        queue(),
        click.Argument(["command"], nargs=-1, required=True, type=click.UNPROCESSED),
        option("--jobs", "How many at once.  [default: 1]", "N", click.IntRange(1, JOBS_MAX), 1),
        option(
            "--lease",
            "For how long a message is leased, again and again.  [default: 60]",
            "SECONDS",
            lease_seconds,
            60.0,
        ),
        option(
            "--timeout", "A command that runs longer is ended, and has failed.", "SECONDS", Number(0.1, YEAR_SECONDS)
        ),
        option(
            "--again-after", "When a message comes again.  [default: 1]", "SECONDS", Number(0, LEASE_SECONDS_MAX), 1.0
        ),
        option(
            "--grace", "For how long commands may run on at the end.  [default: 30]", "SECONDS", Number(0, 86_400), 30.0
        ),
        option("--count", "End after so many messages.", "N", click.IntRange(1, COUNT_MAX)),
        flag("--until-empty", "End when nothing is left in the queue, be it delayed or leased; dead letters may be."),
    )


def run_work(given: SimpleNamespace, client: Client) -> int:
    command = list(given.command)
    if shutil.which(command[0]) is None:
        raise click.UsageError(f"there is no command {command[0]!r}.")
    client.lasting = True
    return Work(given, command, client).run()


class Work:
    """The messages that are being worked on.

    Args:
        client: leases messages, and is stopped; its twin settles them.
    """

    def __init__(self, given: SimpleNamespace, command: list[str], client: Client) -> None:
        self._given = given
        self._leasing = client
        self._jobs = Jobs(given, command, client.twin())
        self._deadline = inf
        self._under_way = self._begun = self._done = self._failed = 0
        self._cut_off = False

    def run(self) -> int:
        """Works until there is an end.

        Returns the exit status: 1 if any command failed; if it was stopped, INTERRUPTED if any was cut off, else 0.
        """
        with ThreadPoolExecutor(self._given.jobs, "job") as threads, stopping(self._stop, once=False):
            try:
                self._hand_out(threads)
            finally:
                self._wait_for_jobs()
        if not self._given.json:
            complain(f"{self._done} done, {self._failed} failed.")
        if self._stopped:
            return INTERRUPTED if self._cut_off else 0
        return 1 if self._failed else 0

    @property
    def _stopped(self) -> bool:
        return self._deadline < inf

    def _stop(self) -> None:
        """The first signal grants the grace, a second one ends it."""
        now = time.monotonic()
        self._deadline = now if self._stopped else now + self._given.grace
        self._jobs.events.put(None)
        self._leasing.stop()

    def _hand_out(self, threads: ThreadPoolExecutor) -> None:
        given = self._given
        wait_seconds: float = 0 if given.until_empty else POLL_SECONDS
        while not self._stopped and (given.count is None or self._begun < given.count):
            if self._under_way == given.jobs:
                self._hear(inf)
            while self._hear(0):
                pass
            free = given.jobs - self._under_way
            if not free or self._stopped:
                continue
            wanted = free if given.count is None else min(free, given.count - self._begun)
            with suppress(Stopped):
                messages = self._leasing.lease_many(given.queue, wanted, given.lease, wait_seconds=wait_seconds)
                for message in messages:
                    self._under_way += 1
                    self._begun += 1
                    threads.submit(self._jobs.do, message)
                if given.until_empty:
                    wait_seconds = 0
                    if messages:
                        continue
                    if self._under_way:
                        self._hear(_LOOK_SECONDS)
                    elif self._is_empty():
                        return
                    else:  # a message comes again, or somebody else works on it
                        wait_seconds = _LOOK_SECONDS

    def _is_empty(self) -> bool:
        """Whether there is nothing that could still be leased, now or later."""
        stats = self._leasing.stats(self._given.queue)
        return not (stats["ready"] or stats["delayed"] or stats["leased"])

    def _wait_for_jobs(self) -> None:
        """Waits for what runs; when the grace is over, has it end."""
        while self._under_way:
            self._hear(self._deadline - time.monotonic())
            if time.monotonic() >= self._deadline:
                break
        for ending in (signal.SIGTERM, signal.SIGKILL):
            if self._under_way:
                self._cut_off = True
                self._jobs.end(ending)
            deadline = time.monotonic() + KILL_AFTER_SECONDS
            while self._under_way and self._hear(deadline - time.monotonic()):
                pass
        self._jobs.client.stop()  # a server that is away must not keep it from ending
        while self._under_way:
            self._hear(inf)

    def _hear(self, seconds: float) -> bool:
        """Waits so long for something to happen; returns whether it did."""
        try:
            report = self._jobs.events.get(seconds > 0, None if seconds == inf else max(seconds, 0))
        except Empty:
            return False
        if report is not None:
            self._under_way -= 1
            self._done += report.exit_status == 0
            self._failed += report.exit_status != 0
            report.say(self._given.json)
        return True
