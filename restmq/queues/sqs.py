"""What SQS knows of a queue, and its own rules for sending, deleting and receipt handles.

SQS and HTTP see the same queues and messages. SQS has one hash more per queue, for attributes and tags, and FIFO queues
(``lua/fifo/_groups.lua``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import orjson

from restmq.errors import Conflict, InvalidInput, NotFound
from restmq.model import Message, Policy, check_queue_name, may_be_fifo, queue_of
from restmq.queues.base import rows
from restmq.queues.overview import OverviewOperations
from restmq.queues.results import read_settings
from restmq.store.base import BaseStore
from restmq.store.batching import Batcher

#: The names that SQS allows.
SQS_NAME = re.compile(r"(?=.{1,80}$)[A-Za-z0-9_-]+(\.fifo)?")
#: The header of a message that names its group.
GROUP_HEADER = "x-message-group"
#: The group of messages of a FIFO queue that name none; see ``lua/fifo/_groups.lua``.
GROUP_DEFAULT = "default"
_GROUP = re.compile(r"[!-~]{1,128}")
#: Maximum length of a list of queues.
LIST_MAX = 1000
#: An SqsEntry as ``lua/sqs_send.lua`` expects it.
_Parts = tuple[Any, ...]


@dataclass(slots=True, frozen=True, kw_only=True)
class SqsQueue:
    """A queue as SQS knows it.

    Attributes:
        made: whether ``sqs_create`` has made it now.
        created_ms, modified_ms: in ms since 1970; 0 for a queue that SQS did not make or change.
        settings: those that do not have their defaults.
        ready, leased, delayed, dead: numbers of messages.
    """

    attributes: dict[str, str]
    tags: dict[str, str]
    created_ms: int
    modified_ms: int
    settings: dict[str, int | str]
    policy: Policy
    ready: int
    leased: int
    delayed: int
    dead: int
    made: bool = False


@dataclass(slots=True, frozen=True)
class Groups:
    """The groups of a FIFO queue.

    Attributes:
        free: number of groups that can be served.
        locked: number of groups with leased messages.
        shown: some of the locked ones, and their numbers of leased messages.
    """

    free: int
    locked: int
    shown: list[tuple[str, int]]


@dataclass(slots=True, frozen=True)
class SqsEntry:
    """A message to send.

    Attributes:
        record: JSON members to keep with it, ``id`` among them; see ``queues/lua/_record.lua``.
        delay_seconds: None for the queue's.
        group, deduplication_id: of a message for a FIFO queue; without the id, that is the SHA-256 of the value.
        size_bytes: number of bytes that count for the attribute MaximumMessageSize.
    """

    value: bytes
    record: dict[str, Any] = field(default_factory=dict)
    delay_seconds: int | None = None
    group: str = ""
    deduplication_id: str = ""
    size_bytes: int = 0


@dataclass(slots=True, frozen=True)
class Sent:
    """The outcome of an SqsEntry.

    Attributes:
        state: ``sent``, ``duplicate`` (of a message with the same deduplication id), ``full`` (the setting
            ``max_length``), ``too_large`` (MaximumMessageSize), ``no_deduplication`` or ``no_group`` (missing).
        number, message_id: those of the message; of the first one for a duplicate. For ``too_large``, the maximum.
    """

    state: str
    number: int = 0
    message_id: str = ""


@dataclass(slots=True, frozen=True)
class Handle:
    """A receipt handle: a message's key, and the receipt of a delivery."""

    key: str
    receipt: str

    @classmethod
    def of(cls, message: Message) -> Handle:
        """The handle of a leased message."""
        return cls(message.key, message.receipt)

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(f"{self.key}\n{self.receipt}".encode()).decode()

    @classmethod
    def parse(cls, text: str) -> Handle:
        """Reads the text of a handle. Raises InvalidInput."""
        try:
            key, receipt = base64.b64decode(text, b"-_", validate=True).decode().split("\n")
            queue_of(key)
            return cls(key, receipt)
        except (ValueError, binascii.Error, InvalidInput):
            raise InvalidInput("the receipt handle is invalid; use one that ReceiveMessage returned.") from None

    @property
    def queue(self) -> str:
        return queue_of(self.key)


class SqsOperations(OverviewOperations):
    """Operations of SQS that RestMQ does not have otherwise."""

    def __init__(self, store: BaseStore, now_ms: Callable[[], int] | None = None) -> None:
        super().__init__(store, now_ms)
        self._sends: Batcher[str, Sequence[_Parts], list[Sent]] = Batcher(store.turn_end, self._send_each)

    async def sqs_create(
        self,
        queue: str,
        attributes: Mapping[str, str],
        tags: Mapping[str, str],
        settings: Mapping[str, int | str],
    ) -> SqsQueue:
        """Makes a queue, and returns it. A queue that SQS has made before is returned as it is.

        Its policy becomes round robin unless one was set. The attribute FifoQueue, if it is "true", makes a FIFO queue;
        the queue's name must end in ``.fifo``.

        Raises:
            Conflict: a FIFO queue would be made of a queue that holds messages.
        """
        is_fifo = attributes.get("FifoQueue") == "true"
        fields = _fields(attributes, tags)
        flat = [*_flat(fields), *_flat(settings)]
        found = await self._run("sqs_create", queue, self.expires_seconds, int(is_fifo), len(fields), *flat)
        if not found:
            raise Conflict("a queue of this name has messages, so it cannot become a FIFO queue; purge it first.")
        return _described(found[1:], made=bool(found[0]))

    async def sqs_get(self, queue: str) -> SqsQueue | None:
        """A queue, or None if there is none. A queue that HTTP made exists from its first message on."""
        found = await self._run_promoted("sqs_get", queue)
        return _described(found) if found else None

    async def queue_is_fifo(self, queue: str) -> bool:
        """Whether this is a FIFO queue."""
        if not may_be_fifo(queue):
            return False
        found = await self.store.command("HGET", self.layout.for_queue(check_queue_name(queue)).sqs, "a:FifoQueue")
        return bool(found == b"true")

    async def queue_groups(self, queue: str) -> Groups | None:
        """The groups of a FIFO queue; None for another queue."""
        if not may_be_fifo(queue):
            return None
        found = await self._run("groups", queue)
        if not found:
            return None
        free, locked, *flat = found
        return Groups(free, locked, [(group.decode(errors="replace"), count) for group, count in rows(flat, 2)])

    async def sqs_set(self, queue: str, attributes: Mapping[str, str], settings: Mapping[str, int | str]) -> bool:
        """Changes attributes ("" removes one) and settings (0 or "" resets one) in one step. False: no such queue."""
        return await self._set(queue, _fields(attributes, {}), settings)

    async def sqs_tag(self, queue: str, tags: Mapping[str, str]) -> bool:
        """Sets tags. Returns whether there is such a queue."""
        return await self._set(queue, _fields({}, tags), {})

    async def sqs_untag(self, queue: str, names: Sequence[str]) -> bool:
        """Removes tags. Returns whether there is such a queue."""
        return await self._set(queue, {"t:" + name: "" for name in names}, {})

    async def _set(self, queue: str, fields: Mapping[str, str], settings: Mapping[str, int | str]) -> bool:
        flat = [*_flat(fields), *_flat(settings)]
        return bool(await self._run("sqs_set", queue, self.expires_seconds, len(fields), *flat))

    async def sqs_list(self, prefix: str = "", count: int = LIST_MAX, after: str = "") -> list[str]:
        """Up to ``count`` names of queues that SQS allows, sorted, that begin with the prefix and follow ``after``."""
        names = (name for name in await self.queue_all() if name.startswith(prefix) and name > after)
        return list(islice((name for name in names if SQS_NAME.fullmatch(name)), count))

    async def sqs_send(self, queue: str, entries: Sequence[SqsEntry]) -> list[Sent]:
        """Adds messages, each separately, with the queue's attributes. Returns the outcome of each.

        A message that was sent is in Redis, or (broadcast) with a daemon, as after ``queue_add``.

        Raises:
            NotFound: there is no such queue.
        """
        check_queue_name(queue)
        if not entries:
            return []
        parts = [_sent_parts(entry, self.store.time_ms()) for entry in entries]
        sent = await self._sends.add(queue, parts, sum(len(entry.value) for entry in entries))
        return [
            one if one.message_id else replace(one, message_id=str(entry.record.get("id", "")))
            for one, entry in zip(sent, entries, strict=True)
        ]

    async def _send_each(self, queue: str, lots: list[Sequence[_Parts]]) -> list[list[Sent] | Exception]:
        flat = [part for lot in lots for parts in lot for part in parts]
        answers = await self._run("sqs_send", queue, self.expires_seconds, *flat)
        if not answers:
            return [NotFound(f"there is no queue {queue}; create it first.") for _ in lots]
        sent = (Sent(state.decode(), int(number or 0), id_.decode()) for state, number, id_ in rows(answers, 3))
        return [list(islice(sent, len(lot))) for lot in lots]

    async def sqs_delete(self, queue: str, handles: Sequence[Handle]) -> list[str]:
        """Removes messages for good by their receipt handles, also after their leases.

        Returns:
            For each message ``deleted``, ``gone`` (it does not exist any more) or, in a FIFO queue, ``old`` (the lease
            of this handle has ended).
        """
        tag = self.layout.tag(queue)
        flat = [part for handle in handles for part in (tag + handle.key.encode(), handle.receipt)]
        return [state.decode() for state in await self._run("sqs_delete", queue, *flat)]

    async def sqs_change_visibility(self, queue: str, changes: Sequence[tuple[Handle, int]]) -> list[str]:
        """Makes leases end so many seconds from now; with 0, the message comes back at once.

        Returns:
            For each ``changed``, ``gone``, ``old`` (as above) or ``not_in_flight`` (its lease is over).
        """
        tag = self.layout.tag(queue)
        flat = [
            part for handle, seconds in changes for part in (tag + handle.key.encode(), handle.receipt, seconds * 1000)
        ]
        dead_letter, *states = await self._run("sqs_change", queue, *flat)
        await self._forward(queue, dead_letter)
        return [state.decode() for state in states]


def _fields(attributes: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """The fields of the hash ``SQS`` (``lua/_sqs.lua``)."""
    fields = {"a:" + name: value for name, value in attributes.items()}
    return fields | {"t:" + name: "=" + value for name, value in tags.items()}


def _flat(pairs: Mapping[str, int | str]) -> list[int | str]:
    return [part for pair in pairs.items() for part in pair]


def _described(columns: Sequence[Any], made: bool = False) -> SqsQueue:
    flat, settings, policy, ready, leased, delayed, dead = columns
    fields = {name.decode(): value.decode() for name, value in rows(flat, 2)}
    return SqsQueue(
        made=made,
        attributes={name[2:]: value for name, value in fields.items() if name.startswith("a:")},
        tags={name[2:]: value[1:] for name, value in fields.items() if name.startswith("t:")},
        created_ms=int(fields.get("created", 0)),
        modified_ms=int(fields.get("modified", 0)),
        settings=read_settings(settings),
        policy=Policy.ROUNDROBIN if policy == b"2" else Policy.BROADCAST,
        ready=ready,
        leased=leased,
        delayed=delayed,
        dead=dead,
    )


def _sent_parts(entry: SqsEntry, sent_ms: int) -> _Parts:
    members: dict[str, Any] = {"count": 0, "sent": sent_ms, **entry.record}
    deduplication_id = entry.deduplication_id
    if entry.group:
        if not _GROUP.fullmatch(entry.group):
            raise InvalidInput("a message group has 1 to 128 printable characters, without blanks.")
        deduplication_id = deduplication_id or hashlib.sha256(entry.value).hexdigest()
        members |= {"group": entry.group, "dedup": deduplication_id}
        members["headers"] = {**members.get("headers", {}), GROUP_HEADER: entry.group}
    try:
        record = orjson.dumps(members)
    except orjson.JSONEncodeError:
        raise InvalidInput("an attribute of the message is not valid Unicode.") from None
    delay_ms = "" if entry.delay_seconds is None else entry.delay_seconds * 1000
    is_given = int(bool(entry.deduplication_id))
    return delay_ms, entry.size_bytes, entry.group, is_given, deduplication_id, record, entry.value
