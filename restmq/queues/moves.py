"""Tasks of SQS that move messages of a dead-letter queue back to the queues where they came from, or to another one.

A task is a record in Redis. It is done in steps of a bounded number of messages by whichever daemon is there
(``lua/_moves.lua``). A step leases messages, adds copies to their queues, and acks them. If it fails in between, the
leases end and the copies are sent again, and the queues know them (``lua/adopt.lua``). So each message is moved once.
"""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass
from itertools import chain
from typing import Any

from twisted.logger import Logger

from restmq.errors import Conflict, InvalidInput, NotFound, StoreRefused
from restmq.model import Message, check_queue_name, queue_of
from restmq.queues.base import digest
from restmq.queues.leases import LeaseOperations
from restmq.queues.sqs import LIST_MAX, SqsOperations
from restmq.store import keys
from restmq.store.partitions import gather

log = Logger()

#: The end of a queue's name in ``DUE`` that stands for its task.
_MOVE = "\nmove"
_STEP_MAX = 100
#: Another daemon goes on with a task after this time. The leases of a step have ended by then.
_CLAIM_MS, _LEASE_MS = 10_000, 5_000
#: Members of a record that are about the message in the dead-letter queue.
_OF_LETTER = ("first", "last", "reason", "failed", "order", "origin", "number", "received")


@dataclass(slots=True, frozen=True, kw_only=True)
class Move:
    """A task.

    Attributes:
        handle: names the task.
        destination: empty for the queues where the messages came from.
        status: RUNNING, COMPLETED, CANCELLED or FAILED.
        per_second: maximum number of messages that are moved in a second; 0 for no maximum.
        to_move: number of messages when it was started, which is the maximum number of those that it moves.
        failure: the reason, if it failed.
    """

    handle: str
    source: str
    destination: str
    status: str
    per_second: int
    moved: int
    to_move: int
    started_ms: int
    failure: str


class MoveOperations(LeaseOperations, SqsOperations):
    """Operations on these tasks."""

    async def sqs_move_start(self, source: str, destination: str = "", per_second: int = 0) -> Move:
        """Starts a task. Daemons go on with it until it is complete, whatever happens to one of them.

        Raises:
            InvalidInput: both are one queue.
            NotFound: there is no such queue.
            Conflict: a task of this queue runs already.
        """
        if destination == source:
            raise InvalidInput("messages can't be moved to the queue where they are; name another one.")
        for queue in (source, destination):
            if queue and await self.sqs_get(queue) is None:
                raise NotFound(f"there is no queue {queue}; create it first.")
        task = {"id": uuid.uuid4().hex, "destination": destination, "per_second": per_second}
        task |= {"status": "RUNNING", "moved": 0}
        started = await self._run("move_start", source, json.dumps(task, ensure_ascii=False))
        if started is None:
            raise Conflict("a task moves messages of this queue already; wait for its end, or cancel it.")
        return _move(source, started)

    async def sqs_moves(self, source: str, count: int = 10) -> list[Move]:
        """The last tasks of a queue (up to ten are remembered), the newest first."""
        flat = await self.store.command("HGETALL", self.layout.for_queue(check_queue_name(source)).moves)
        found = [_move(source, text) for name, text in zip(flat[::2], flat[1::2], strict=True) if name != b"active"]
        return sorted(found, key=lambda move: -move.started_ms)[:count]

    async def sqs_move_cancel(self, handle: str) -> Move:
        """Ends a task. A step in progress is completed.

        Raises:
            InvalidInput: the handle is invalid.
            NotFound: there is no such task.
            Conflict: the task has ended.
        """
        source, task_id = read_task_handle(handle)
        before = {move.handle: move.status for move in await self.sqs_moves(source)}.get(handle)
        noted = await self._note(source, task_id, 0, "CANCELLED")
        if before is None or noted is None:
            raise NotFound("there is no such task; use a handle that StartMessageMoveTask returned.")
        if before != "RUNNING":
            raise Conflict("only a task that is running can be cancelled.")
        return noted

    async def _note(
        self, source: str, task_id: str, moved: int, status: str, failure: str = "", wait_ms: int = 0
    ) -> Move | None:
        noted = await self._run("move_note", source, task_id, moved, status, failure, wait_ms)
        return None if noted is None else _move(source, noted)

    async def queue_on_due(self, name: str) -> None:
        """Does what is due, by its name in ``DUE``: promotes messages of a queue, or does a step of its task."""
        if name.endswith(_MOVE):
            await self._move_step(name.removesuffix(_MOVE))
        else:
            await self.queue_promote(name)

    async def _move_step(self, source: str) -> None:
        claimed = await self._run("move_claim", source, _CLAIM_MS)
        if claimed is None:
            return
        task = json.loads(claimed)
        try:
            moved, status, failure = await self._move_some(source, task)
        except StoreRefused as problem:  # the claim is also the time of the next attempt
            log.warn("messages of {source} can't be moved: {problem}", source=source, problem=problem)
            return
        await self._note(source, task["id"], moved, status, failure, 1000 if task["per_second"] else 0)

    async def _move_some(self, source: str, task: dict[str, Any]) -> tuple[int, str, str]:
        """Moves some messages. Returns their number, the status of the task, and the reason if it failed."""
        wanted = min(task["per_second"] or _STEP_MAX, task["to_move"] - task["moved"])
        messages = await self.queue_lease(source, wanted, _LEASE_MS) if wanted > 0 else []
        if not messages:
            return 0, "COMPLETED", ""
        leases = [(message.key, message.receipt) for message in messages]
        by_queue: dict[str, list[Message]] = {}
        for message in messages:
            by_queue.setdefault(task["destination"] or _origin(message), []).append(message)
        for queue in by_queue:
            if not queue or await self.sqs_get(queue) is None:
                await self.queue_release(source, leases, blameless=True)
                failure = "AWS.SimpleQueueService.NonExistentQueue" if queue else "CouldNotDetermineMessageSource"
                return 0, "FAILED", failure
        for queue, lot in by_queue.items():
            await self._run("adopt", queue, *(part for message in lot for part in self._copy(message)))
        await self.queue_ack_many(source, leases)
        return len(messages), "RUNNING", ""

    def _copy(self, message: Message) -> tuple[Any, ...]:
        """A message as ``lua/adopt.lua`` expects it; as on SQS, a new one, with an id and a time of its own."""
        record = {name: part for name, part in json.loads(message.record).items() if name not in _OF_LETTER}
        record |= {"count": 0, "sent": self.store.time_ms()}
        if "id" in record:
            record["id"] = str(uuid.uuid4())
        copy = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
        return digest(self.layout.stored_key(message.key), b"moved"), message.value, message.expires_ms, copy

    async def sqs_dead_letter_sources(self, queue: str, count: int = LIST_MAX, after: str = "") -> list[str]:
        """Up to ``count`` queues whose setting ``dead_letter`` names this one, sorted, that follow ``after``."""
        first, end = f"({queue}\n".encode(), f"({queue}\v".encode()

        async def sources_in(partition: int) -> list[str]:
            tag = self.layout.tags[partition]
            index, start = tag + keys.DEAD_LETTERS, first + tag + after.encode()
            found = await self.store.command("ZRANGE", index, start, end, "BYLEX", "LIMIT", 0, count)
            return [self.layout.shown(member.partition(b"\n")[2]) for member in found]

        found = await gather(self.store, range(len(self.layout.tags)), sources_in)
        return sorted(chain.from_iterable(found.results.values()))[:count]


def _origin(message: Message) -> str:
    """The queue where a dead letter came from; empty for another message."""
    origin = json.loads(message.record).get("origin")
    return queue_of(origin["key"]) if origin else ""


def _move(source: str, stored: bytes) -> Move:
    task = json.loads(stored)
    return Move(
        handle=base64.urlsafe_b64encode(f"{source}\n{task['id']}".encode()).decode(),
        source=source,
        destination=task["destination"],
        status=task["status"],
        per_second=int(task["per_second"]),
        moved=int(task["moved"]),
        to_move=int(task["to_move"]),
        started_ms=int(task["started"]),
        failure=task.get("failure", ""),
    )


def read_task_handle(handle: str) -> tuple[str, str]:
    """The dead-letter queue and the id of a task. Raises InvalidInput."""
    try:
        source, task_id = base64.b64decode(handle, b"-_", validate=True).decode().split("\n")
        return check_queue_name(source), task_id
    except (ValueError, InvalidInput):
        raise InvalidInput("the task handle is invalid; use one that StartMessageMoveTask returned.") from None
