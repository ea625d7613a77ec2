"""``restmq work``: run a command for each message.

The main thread leases as many messages as there are free jobs. Each job has a thread of its own, which gives the value
to the command, extends the lease, acks or nacks the message, and reports the result to the main thread. A message is
acked only after its command has succeeded. If this program is killed, the leases end and the messages are delivered
again.
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

from restmq.cli.arguments import COUNT_MAX, YEAR_SECONDS, Commands, Duration, flag, option, queue_argument
from restmq.cli.jobs import KILL_AFTER_SECONDS, JobRunner
from restmq.cli.output import print_error
from restmq.client import Client, Stopped
from restmq.client.exchange import POLL_SECONDS
from restmq.client.interrupts import interrupted_status, stopping
from restmq.model import DELAY_SECONDS_MAX, LEASE_SECONDS_MAX

JOBS_MAX = 256
_RECHECK_SECONDS = 2.0


def add_to(commands: Commands) -> None:
    lease_seconds = Duration(1, LEASE_SECONDS_MAX)
    commands.add(
        "work",
        run_work,
        "run a command for each message",
        "Write -- before the COMMAND. It gets the value on standard input, and RESTMQ_QUEUE, RESTMQ_KEY and "
        "RESTMQ_COUNT (the delivery count) in its environment. If the command exits with 0, the message is acked; "
        "otherwise the message is delivered again, with the exit status and the last line of standard error as the "
        "reason. After SIGTERM or SIGINT no more messages are taken, and running commands have the time --grace to "
        "finish. Then they get SIGTERM, and their messages return to the queue. A second signal ends the grace period.",
        queue_argument(),
        click.Argument(["command"], nargs=-1, required=True, type=click.UNPROCESSED),
        option("--jobs", "Maximum number of commands at once.", "N", click.IntRange(1, JOBS_MAX), 1),
        option("--lease", "Duration of a lease; it is extended while the command runs.", "TIME", lease_seconds, 60),
        option(
            "--timeout",
            "Maximum run time of a command; a command that takes longer is ended and counts as failed.  "
            "[default: none]",
            "TIME",
            Duration(0.1, YEAR_SECONDS),
        ),
        option(
            "--again-after",
            "Delay before a failed message is delivered again.  [default: the queue's retry_delay, or else 1]",
            "TIME",
            Duration(0, DELAY_SECONDS_MAX),
        ),
        option("--grace", "Time for running commands to finish after a signal.", "TIME", Duration(0, 86_400), 30),
        option("--count", "Stop after this number of messages.", "N", click.IntRange(1, COUNT_MAX)),
        flag(
            "--until-empty", "Stop when the queue has no ready, delayed or leased messages. Dead letters don't count."
        ),
    )


def run_work(args: SimpleNamespace, client: Client) -> int:
    command = list(args.command)
    if shutil.which(command[0]) is None:
        raise click.UsageError(f"unknown command {command[0]!r}; check its name and PATH.")
    client.lasting = True
    if args.again_after is None and "retry_delay" not in client.settings(args.queue):
        args.again_after = 1.0
    return Worker(args, command, client).run()


class Worker:
    """Leases messages and hands them to jobs.

    Args:
        client: leases messages. A signal stops this client; the jobs use its twin, which can still ack their messages.
    """

    def __init__(self, args: SimpleNamespace, command: list[str], client: Client) -> None:
        self._args = args
        self._leasing = client
        self._jobs = JobRunner(args, command, client.twin())
        self._deadline = inf
        self._running = self._started = self._done = self._failed = 0
        self._cut_off = False

    def run(self) -> int:
        """Works until the end of the queue, --count or a signal.

        Returns the exit status. After a signal: that of an interrupted program if a command was cut off or the end of
        the work was not reached, else 0. Otherwise: 1 if a command failed, else 0.
        """
        with ThreadPoolExecutor(self._args.jobs, "job") as threads, stopping(self._stop, once=False):
            try:
                self._lease_and_start(threads)
            finally:
                self._wait_for_jobs()
        if not self._args.json:
            print_error(f"{self._done} done, {self._failed} failed.")
        if self._stopped:
            return interrupted_status() if self._cut_off or self._has_more else 0
        return 1 if self._failed else 0

    @property
    def _stopped(self) -> bool:
        return self._deadline < inf

    @property
    def _has_more(self) -> bool:
        """Whether the work has an end, which was not reached."""
        args = self._args
        return args.until_empty or (args.count is not None and self._done + self._failed < args.count)

    def _stop(self) -> None:
        """The first signal starts the grace period, the second one ends it."""
        now = time.monotonic()
        self._deadline = now if self._stopped else now + self._args.grace
        self._jobs.events.put(None)
        self._leasing.stop()

    def _lease_and_start(self, threads: ThreadPoolExecutor) -> None:
        args = self._args
        wait_seconds: float = 0 if args.until_empty else POLL_SECONDS
        while not self._stopped and (args.count is None or self._started < args.count):
            if self._running == args.jobs:
                self._wait_for_event(inf)
            while self._wait_for_event(0):
                pass
            free = args.jobs - self._running
            if not free or self._stopped:
                continue
            wanted = free if args.count is None else min(free, args.count - self._started)
            with suppress(Stopped):
                messages = self._leasing.lease_many(args.queue, wanted, args.lease, wait_seconds=wait_seconds)
                for message in messages:
                    self._running += 1
                    self._started += 1
                    threads.submit(self._jobs.do, message)
                if args.until_empty:
                    wait_seconds = 0
                    if messages:
                        continue
                    if self._running:
                        self._wait_for_event(_RECHECK_SECONDS)
                    elif self._is_empty():
                        return
                    else:  # a message is delayed, or another worker has it
                        wait_seconds = _RECHECK_SECONDS

    def _is_empty(self) -> bool:
        """Whether no message can be leased, now or later."""
        stats = self._leasing.stats(self._args.queue)
        return not (stats["ready"] or stats["delayed"] or stats["leased"])

    def _wait_for_jobs(self) -> None:
        """Waits for the running jobs; ends them when the grace period is over."""
        while self._running:
            self._wait_for_event(self._deadline - time.monotonic())
            if time.monotonic() >= self._deadline:
                break
        for ending in (signal.SIGTERM, signal.SIGKILL):
            if self._running:
                self._cut_off = True
                self._jobs.end(ending)
            deadline = time.monotonic() + KILL_AFTER_SECONDS
            while self._running and self._wait_for_event(deadline - time.monotonic()):
                pass
        self._jobs.client.stop()  # an unreachable server must not delay the exit
        while self._running:
            self._wait_for_event(inf)

    def _wait_for_event(self, seconds: float) -> bool:
        """Waits for an event, at most ``seconds``; returns whether there was one."""
        try:
            report = self._jobs.events.get(seconds > 0, None if seconds == inf else max(seconds, 0))
        except Empty:
            return False
        if report is not None:
            self._running -= 1
            self._done += report.exit_status == 0
            self._failed += report.exit_status != 0
            report.print(self._args.json)
        return True
