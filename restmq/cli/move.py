"""``restmq move``: move queues to another server, or the messages of a queue into another queue.

``cli/transfer.py`` has the rules by which messages are moved. One more: leases count as deliveries, so an interrupted
move could make dead letters. To prevent that, a queue has no ``max_deliveries`` while it is moved.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import click

from restmq.cli.arguments import YEAR_SECONDS, Commands, Duration, flag, option, queues_argument
from restmq.cli.output import Progress, RetryNotices, print_error, print_json, print_table
from restmq.cli.queues import held
from restmq.cli.transfer import Transfer
from restmq.client import Busy, Call, Client, Server, Stopped, Unreachable
from restmq.client.exchange import ApiRequest, ApiResponse
from restmq.client.interrupts import interrupted_status, stopping
from restmq.client.server import DEFAULT_URL, PASSWORD_VARIABLE, TOKEN_VARIABLE, USER_VARIABLE
from restmq.errors import InvalidInput, RestMQError
from restmq.model import DEAD_LETTER, LEASE_SECONDS_MAX, SETTINGS, Policy

_RECHECK_SECONDS = 1.0
_SETTINGS = (*SETTINGS, DEAD_LETTER)
_TARGET_VARIABLES = {
    TOKEN_VARIABLE: "RESTMQ_TO_TOKEN",
    USER_VARIABLE: "RESTMQ_TO_USER",
    PASSWORD_VARIABLE: "RESTMQ_TO_PASSWORD",
    "NETRC": "NETRC",
}

_T = TypeVar("_T")


def add_to(commands: Commands) -> None:
    commands.add(
        "move",
        run_move,
        "move queues to another server, or messages to another queue",
        "Moves each QUEUE, or all queues: its policy, settings and status, then its dead letters, delayed messages and "
        "ready messages, in order. With --to-queue, it moves the messages of one QUEUE into another queue, and no "
        "settings; without --to, into a queue of the same server. If it is interrupted or fails, run it again within "
        "24 hours with the same arguments: no message is lost or queued twice. The credentials of the target are in "
        "RESTMQ_TO_TOKEN, or RESTMQ_TO_USER and RESTMQ_TO_PASSWORD, or ~/.netrc.",
        queues_argument(),
        click.Option(["--from", "--url", "url"], metavar="URL", help=f"The source.  [default: {DEFAULT_URL}]"),
        click.Option(["--to", "target"], metavar="URL", help="The target."),
        option("--to-queue", "Move the messages of QUEUE into this queue.", "QUEUE", default=""),
        flag("--force", "Move queues although consumers of the source may take some of their messages."),
        flag("--keep-settings", "Do not change the policy, settings and status of the target's queues."),
        option("--wait", "Maximum time to wait for leased messages.", "TIME", Duration(0, YEAR_SECONDS), 120),
        option(
            "--lease",
            "Duration of this command's leases: after it was killed, some messages wait so long.",
            "TIME",
            Duration(1, LEASE_SECONDS_MAX),
            60,
        ),
    )


def _complete_names(response: ApiResponse) -> list[str]:
    found = response.json()
    if found.get("missing") or len(found["queues"]) < found.get("count", 0):
        raise Busy("a node of the message store does not answer, so some queues are not known.", None)
    return list(found["queues"])


#: The names of all queues. It is retried until all nodes of the store answer.
_ALL_NAMES = Call(ApiRequest("GET", "/stats/"), _complete_names)


class NamedClient(Client):
    """A client whose errors name its server."""

    def run(self, call: Call[_T]) -> _T:
        try:
            return super().run(call)
        except (Stopped, Unreachable):
            raise
        except RestMQError as error:
            error.args = (f"{self.server.url}: {error}",)
            raise


@dataclass(slots=True)
class Moved:
    """The number of messages of a queue that were moved, by their state, and of those that are left."""

    queue: str
    ready: int = 0
    delayed: int = 0
    dead: int = 0
    left: int = 0

    def fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("queue", "ready", "delayed", "dead", "left")}


def run_move(args: SimpleNamespace, client: Client) -> int:
    if args.to_queue and len(args.queues) != 1:
        raise click.UsageError("--to-queue takes exactly one QUEUE.")
    target_server = _target_server(args, client.server)
    if _address(target_server) == _address(client.server) and args.to_queue in ("", *args.queues):
        raise click.UsageError("--from and --to are the same server; name another one, or another --to-queue.")
    with (
        NamedClient(client.server, retry_seconds=args.retry, on_retry=RetryNotices()) as source,
        NamedClient(target_server, retry_seconds=args.retry, on_retry=RetryNotices()) as target,
    ):
        return Mover(args, source, target).run()


def _target_server(args: SimpleNamespace, source: Server) -> Server:
    if args.target is None:
        if not args.to_queue:
            raise click.UsageError("name the target with --to, or another queue with --to-queue.")
        return source
    environment = {name: os.environ.get(own, "") for name, own in _TARGET_VARIABLES.items()}
    try:
        return Server.from_environment(args.target, environment)
    except InvalidInput as problem:
        raise click.UsageError(str(problem)) from None


def _address(server: Server) -> tuple[str, int, str]:
    return server.host, server.port, server.prefix


class Mover:
    """Moves queues from one server to another."""

    def __init__(self, args: SimpleNamespace, source: Client, target: Client) -> None:
        self._args = args
        self._source = source
        self._target = target
        self._stopping = threading.Event()
        self._moved: list[Moved] = []
        self._done = 0
        self._progress = Progress(0)
        self._transfer = Transfer(
            source, target, lease_seconds=args.lease, stopping=self._stopping, moved=self._show, into=args.to_queue
        )

    def run(self) -> int:
        """Moves the queues. Returns the exit status: 1 if messages are left or a queue is unknown."""
        known = self._source.run(_ALL_NAMES)
        unknown = [queue for queue in self._args.queues if queue not in known]
        if unknown:
            print_error(f"there is no queue {unknown[0]!r} at {self._source.server.url}.")
            return 1
        queues = list(dict.fromkeys(self._args.queues)) or known
        self._progress = Progress(sum(self._check(queue) for queue in queues))
        with stopping(self._stop, once=False), closing(self._transfer):
            try:
                for queue in queues:
                    if not self._stopping.is_set():
                        self._move(queue)
            finally:
                self._progress.end()
                self._report()
        if self._stopping.is_set():
            return interrupted_status()
        return 1 if any(moved.left for moved in self._moved) else 0

    def _stop(self) -> None:
        """The first signal ends the move after the current message, the second one at once."""
        if self._stopping.is_set():
            self._transfer.stop()
        self._stopping.set()

    def _check(self, queue: str) -> int:
        """The number of the queue's messages. Raises UsageError if clients of the source would take some."""
        stats = self._source.stats(queue)
        takers = stats["waiters"] + (stats["consumers"] if stats["status"] else 0)
        if takers and not self._args.force:
            raise click.UsageError(
                f"{queue!r} has {takers} consumers at the source, which would take some of its messages. Stop them "
                "first (restmq pause stops the delivery to connected consumers), or pass --force."
            )
        return held(stats)

    def _move(self, queue: str) -> None:
        settings = self._source.settings(queue)
        if not (self._args.keep_settings or self._args.to_queue):
            self._copy_settings(queue, settings)
        moved = Moved(queue)
        self._moved.append(moved)
        in_order = True
        with self._without_limit(queue, settings):
            while not self._stopping.is_set():
                in_order = in_order and self._leases_end(queue)
                dead, delayed = (
                    self._transfer.move_resting(queue, "dead"),
                    self._transfer.move_resting(queue, "delayed"),
                )
                ready = self._transfer.move_ready(queue, in_order)
                moved.dead, moved.delayed, moved.ready = moved.dead + dead, moved.delayed + delayed, moved.ready + ready
                if not (dead or delayed or ready) and not (in_order and self._source.stats(queue)["leased"]):
                    break
        moved.left = held(self._source.stats(queue))

    def _leases_end(self, queue: str) -> bool:
        """Waits until no message is leased: leased ones come before ready ones. Returns False if it gave up."""
        deadline = time.monotonic() + self._args.wait
        while self._source.stats(queue)["leased"]:
            if time.monotonic() >= deadline or self._stopping.wait(_RECHECK_SECONDS):
                return False
        return True

    # Settings

    def _copy_settings(self, queue: str, wanted: dict[str, Any]) -> None:
        """Copies settings that differ from the default, and the status "stopped". Other settings of the target stay.

        Raises UsageError if the target's queue has another value of such a setting.
        """
        there = self._target.settings(queue)
        missing = {name: value for name, value in wanted.items() if name in _SETTINGS and value != there.get(name)}
        for name, value in missing.items():
            if name in there:
                raise click.UsageError(
                    f"the setting {name} of {queue!r} is {there[name]} at the target, but {value} at the source. Make "
                    "them equal, or pass --keep-settings."
                )
        policy = wanted["value"] if wanted["value"] != Policy.BROADCAST.label else None
        if missing or policy not in (None, there["value"]):
            self._target.configure(queue, policy=policy, **missing)
        if not self._source.stats(queue)["status"]:
            self._target.pause(queue)

    @contextmanager
    def _without_limit(self, queue: str, settings: dict[str, Any]) -> Iterator[None]:
        """Within the block, the source's queue has no ``max_deliveries``."""
        limit = settings.get("max_deliveries")
        if limit:
            self._source.configure(queue, max_deliveries=0)
        try:
            yield
        finally:
            if limit:
                with suppress(Stopped, Unreachable):
                    self._source.configure(queue, max_deliveries=limit)

    # Reports

    def _show(self, count: int) -> None:
        self._done += count
        self._progress.show(self._done, self._done)

    def _report(self) -> None:
        if self._args.json:
            print_json([moved.fields() for moved in self._moved])
        elif self._moved:
            head = ("QUEUE", "READY", "DELAYED", "DEAD", "LEFT")
            print_table(head, [list(moved.fields().values()) for moved in self._moved])
        left = sum(moved.left for moved in self._moved)
        if left and not self._stopping.is_set():
            print_error(f"{left} messages are left: they are leased. Move them when their leases have ended.")
