"""Jobs: commands that run for messages, each in a thread of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from queue import SimpleQueue
from types import SimpleNamespace

from restmq.cli.output import print_error, print_json
from restmq.client import Client, Message
from restmq.errors import LeaseGone, RestMQError

#: Time between SIGTERM and SIGKILL for a command that does not end.
KILL_AFTER_SECONDS = 5.0
_EXTENSIONS_A_LEASE = 3
_READ_BYTES = 1 << 16
_LAST_BYTES = 4096
_END_SECONDS = 1.0
_LEASE_ENDED = "the message's lease ended, so the job may run twice; "


@dataclass(slots=True)
class JobReport:
    """The outcome of a job.

    Attributes:
        exit_status: minus the number of the signal that ended it; None if it never ran.
        last_error: the last line that it wrote to standard error.
    """

    message: Message
    exit_status: int | None = None
    last_error: str = ""
    seconds: float = 0
    note: str = ""

    def print(self, as_json: bool) -> None:
        """Prints a JSON line on standard output, or else the note, if there is one, on standard error."""
        if as_json:
            variables = {"key": self.message.key, "count": self.message.count, "exit": self.exit_status}
            print_json({**variables, "seconds": round(self.seconds, 3), "note": self.note})
        elif self.note:
            print_error(f"{self.message.key}, delivery {self.message.count}: {self.note}")


class ErrorOutput:
    """The standard error of a command: it is passed on, and its last line is kept."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        self._last = b""
        self._copying = threading.Thread(target=self._copy, daemon=True)

    def begin(self) -> None:
        """To be called when the command has been started, or could not be."""
        os.close(self.write_end)
        self._copying.start()

    def _copy(self) -> None:
        with os.fdopen(self._read_end, "rb", buffering=0) as written:
            while data := written.read(_READ_BYTES):
                self._last = (self._last + data)[-_LAST_BYTES:]
                with suppress(OSError):
                    sys.stderr.buffer.write(data)
                    sys.stderr.buffer.flush()

    def last_line(self) -> str:
        """The last line that is not empty, when all is passed on, but for the lines of a child that goes on."""
        self._copying.join(_END_SECONDS)
        lines = [line.strip() for line in self._last.decode(errors="replace").splitlines()]
        return next(filter(None, reversed(lines)), "")


class JobRunner:
    """Runs jobs. Each call of ``do`` needs a thread of its own.

    Attributes:
        events: reports of finished jobs, and None to wake the main thread.
    """

    def __init__(self, args: SimpleNamespace, command: list[str], client: Client) -> None:
        self.client = client
        self.client.lasting, self.client.retry_seconds = False, args.lease
        self.events: SimpleQueue[JobReport | None] = SimpleQueue()
        self._args = args
        self._command = command
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ending = False
        self._lock = threading.Lock()

    def do(self, message: Message) -> None:
        """Runs the command for a message, acks or nacks the message, and reports."""
        began = time.monotonic()
        report = JobReport(message)
        try:
            errors = ErrorOutput()
            try:
                process = self._begin(message, errors.write_end)
            finally:
                errors.begin()
            if process is not None:
                report.note = self._run_to_end(process, message)
                report.exit_status = process.returncode
                report.last_error = errors.last_line()
            self._ack_or_nack(report)
        except Exception as problem:
            report.note += f"{type(problem).__name__}: {problem} The message returns when its lease ends."
        report.seconds = time.monotonic() - began
        self.events.put(report)

    def end(self, signal_number: int) -> None:
        """Sends a signal to all commands and starts no more."""
        with self._lock:
            self._ending = True
            for process in self._running:
                send_to_group(process, signal_number)

    def _begin(self, message: Message, errors: int) -> subprocess.Popen[bytes] | None:
        """Starts the command; None if the jobs are already ending."""
        variables = {"RESTMQ_QUEUE": self._args.queue, "RESTMQ_KEY": message.key, "RESTMQ_COUNT": str(message.count)}
        with self._lock:
            if self._ending:
                return None
            process = subprocess.Popen(  # noqa: S603  the user's own command
                self._command,
                stdin=subprocess.PIPE,
                stdout=sys.stderr if self._args.json else None,
                stderr=errors,
                env={**os.environ, **variables},
                process_group=0,  # Ctrl-C on the terminal must not reach the command
            )
            self._running.add(process)
            return process

    def _run_to_end(self, process: subprocess.Popen[bytes], message: Message) -> str:
        """Feeds the command, and extends the lease until the command has ended; returns the note for the report."""
        value: bytes | None = message.value
        deadline = time.monotonic() + (self._args.timeout or inf)
        extension_seconds = self._args.lease / _EXTENSIONS_A_LEASE
        note = ""
        try:
            while True:
                try:
                    process.communicate(value, max(0, min(extension_seconds, deadline - time.monotonic())))
                    return note
                except subprocess.TimeoutExpired:
                    value = None
                if time.monotonic() >= deadline:
                    end(process)
                    return f"took longer than {self._args.timeout:g} s; "
                try:
                    self.client.extend(message, self._args.lease)
                except LeaseGone:
                    note, extension_seconds = _LEASE_ENDED, inf
                except RestMQError as problem:
                    print_error(f"{message.key}: {problem}")
        finally:
            with self._lock:
                self._running.discard(process)

    def _ack_or_nack(self, report: JobReport) -> None:
        message = report.message
        try:
            if report.exit_status == 0:
                self.client.ack(message)
            elif report.exit_status is None or self._ending:
                self.client.nack(message, delay_seconds=0, reason=_reason(report))
            else:
                self.client.nack(message, delay_seconds=self._args.again_after, reason=_reason(report))
        except LeaseGone:
            report.note = _LEASE_ENDED
        if report.exit_status is None:
            report.note += "returned to the queue."
        elif report.exit_status:
            report.note += f"{exit_text(report.exit_status)}; {self._fate(message)}"

    def _fate(self, message: Message) -> str:
        """What became of a message whose command failed."""
        try:
            found = self.client.find(message.key)
        except RestMQError:
            return "returned to the queue."
        if found is None:
            return "left the queue: it is a dead letter of another queue, or done meanwhile."
        return "it is a dead letter now." if found.more["state"] == "dead" else "returned to the queue."


def _reason(report: JobReport) -> str:
    """Why the message failed; nothing if its command never ran."""
    if report.exit_status is None:
        return ""
    return report.note + exit_text(report.exit_status) + (f": {report.last_error}" if report.last_error else "")


def exit_text(status: int) -> str:
    """Describes an exit status."""
    return f"exit status {status}" if status > 0 else f"ended by {signal.Signals(-status).name}"


def send_to_group(process: subprocess.Popen[bytes], signal_number: int) -> None:
    """Sends a signal to the command and its child processes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal_number)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends the command and its child processes: with SIGTERM, after 5 s with SIGKILL."""
    send_to_group(process, signal.SIGTERM)
    try:
        process.wait(KILL_AFTER_SECONDS)
    except subprocess.TimeoutExpired:
        send_to_group(process, signal.SIGKILL)
        process.wait()
