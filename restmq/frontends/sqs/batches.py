"""Batches: up to ten entries, each of which succeeds or fails on its own."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from restmq.frontends.sqs.call import SqsResult
from restmq.frontends.sqs.errors import SqsError

ENTRIES_MAX = 10

_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


class BatchEntry(Protocol):
    """An entry of a batch; its id is the client's."""

    id: str


_Entry = TypeVar("_Entry", bound=BatchEntry)
_Prepared = TypeVar("_Prepared")
_Outcome = TypeVar("_Outcome")


async def run_batch(
    entries: Sequence[_Entry],
    prepare: Callable[[_Entry], _Prepared],
    perform: Callable[[list[_Prepared]], Awaitable[Sequence[_Outcome]]],
    finish: Callable[[_Prepared, _Outcome], SqsResult],
) -> SqsResult:
    """Runs a batch, and returns its answer.

    Args:
        prepare: checks an entry. Raises SqsError if the entry fails.
        perform: does the work of all entries that passed, in one step.
        finish: returns the members of an entry's answer. Raises SqsError if the entry failed.
    """
    successful: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []

    def fail(entry: _Entry, problem: SqsError) -> None:
        failed.append(
            {"Id": entry.id, "SenderFault": problem.is_senders, "Code": problem.code, "Message": str(problem)}
        )

    ready: list[tuple[_Entry, _Prepared]] = []
    for entry in entries:
        try:
            ready.append((entry, prepare(entry)))
        except SqsError as problem:
            fail(entry, problem)
    outcomes = await perform([prepared for _, prepared in ready]) if ready else ()
    for (entry, prepared), outcome in zip(ready, outcomes, strict=True):
        try:
            successful.append({"Id": entry.id, **finish(prepared, outcome)})
        except SqsError as problem:
            fail(entry, problem)
    return {"Successful": successful, **({"Failed": failed} if failed else {})}


def checked_entries(element: str, entries: list[_Entry] | None) -> list[_Entry]:
    """The entries of a batch. Raises SqsError for a batch that fails as a whole.

    Args:
        element: the entries' name in the query protocol, for the texts of errors.
    """
    if not entries:
        raise SqsError("EmptyBatchRequest", f"There should be at least one {element} in the request.")
    if len(entries) > ENTRIES_MAX:
        raise SqsError(
            "TooManyEntriesInBatchRequest",
            f"Maximum number of entries per request are {ENTRIES_MAX}. You have sent {len(entries)}.",
        )
    seen: set[str] = set()
    for entry in entries:
        if not _ID.fullmatch(entry.id):
            raise SqsError(
                "InvalidBatchEntryId",
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most "
                "80 letters long.",
            )
        if entry.id in seen:
            raise SqsError("BatchEntryIdsNotDistinct", f"Id {entry.id} repeated.")
        seen.add(entry.id)
    return entries
