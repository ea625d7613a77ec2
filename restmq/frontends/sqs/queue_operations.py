"""The operations on queues, their attributes, tags and dead letters."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from functools import partial

from restmq.auth.guard import CONFIGURE, CONSUME, PRODUCE, PURGE, Credentials
from restmq.errors import Conflict
from restmq.frontends.sqs import shapes
from restmq.frontends.sqs.call import SqsCall, SqsResult, operation
from restmq.frontends.sqs.errors import SqsError, invalid, invalid_value, missing, queue_missing
from restmq.frontends.sqs.names import check_new_name, queue_in_arn
from restmq.frontends.sqs.queue_attributes import (
    DEFAULTS,
    FIFO,
    REDRIVE,
    REDRIVE_ALLOW,
    Attributes,
    Settings,
    all_attributes,
    check_throughput,
    chosen_attributes,
    differs,
    is_fifo,
    read_queue_attributes,
    redrive_of,
    split,
)
from restmq.model import may_be_fifo

_PAGE_MAX = 1000
_TAGS_MAX = 50


@operation()
async def create_queue(call: SqsCall, given: shapes.CreateQueue) -> SqsResult:
    queue = check_new_name(given.queue_name)
    await call.check(CONFIGURE, queue)
    attributes = read_queue_attributes(queue, given.attributes or {})
    if (attributes.get(FIFO) == "true") != may_be_fifo(queue):
        raise invalid_value(
            "The name of a FIFO queue can only include alphanumeric characters, hyphens, or "
            "underscores, must end with .fifo suffix and be 1 to 80 in length.",
        )
    check_throughput(attributes)
    stored, settings = await _split(call, queue, attributes)
    stored = DEFAULTS | {name: value for name, value in stored.items() if value}
    try:
        found = await call.core.sqs_create(queue, stored, _checked_tags(queue, given.tags or {}), settings)
    except Conflict as problem:
        raise SqsError("QueueNameExists", str(problem)) from None
    different = None if found.made else differs(queue, found, attributes)
    if different:
        raise SqsError(
            "QueueNameExists",
            f"A queue already exists with the same name and a different value for attribute {different}",
        )
    return {"QueueUrl": call.queue_url(queue)}


async def _split(call: SqsCall, queue: str, attributes: Attributes) -> tuple[Attributes, Settings]:
    """The attributes and the settings to store. Raises SqsError if the dead-letter queue does not fit."""
    policy = attributes.get(REDRIVE)
    if policy:
        target, _ = redrive_of(policy)
        if target == queue:
            raise invalid(REDRIVE, policy, "Dead letter target is the queue itself")
        await call.check(PRODUCE, target)
        dead_letters = await call.existing(target)
        if is_fifo(dead_letters) != may_be_fifo(queue):
            raise invalid(REDRIVE, policy, "Dead letter target and source queue must be of the same type")
        if not _permits(dead_letters.attributes.get(REDRIVE_ALLOW), queue):
            raise invalid(REDRIVE, policy, "The RedriveAllowPolicy of the dead letter target does not allow it")
    return split(attributes)


def _permits(allow_policy: str | None, queue: str) -> bool:
    """Whether a RedriveAllowPolicy lets this queue send its dead letters."""
    fields = json.loads(allow_policy) if allow_policy else {}
    permission = fields.get("redrivePermission", "allowAll")
    by_name = permission == "byQueue" and queue in map(queue_in_arn, map(str, fields.get("sourceQueueArns", [])))
    return permission == "allowAll" or by_name


@operation()
async def get_queue_url(call: SqsCall, given: shapes.GetQueueUrl) -> SqsResult:
    queue = given.queue_name
    credentials = await call.identify(CONSUME)
    await call.services.guard.check_any(credentials, (CONSUME, PRODUCE), queue)
    await call.existing(queue)
    return {"QueueUrl": call.queue_url(queue)}


@operation()
async def list_queues(call: SqsCall, given: shapes.ListQueues) -> SqsResult:
    credentials = await call.check(CONSUME, None)
    return await _page(
        call, "QueueUrls", given, credentials, partial(call.core.sqs_list, given.queue_name_prefix or "")
    )


@operation(CONSUME)
async def list_dead_letter_source_queues(call: SqsCall, given: shapes.ListDeadLetterSourceQueues) -> SqsResult:
    credentials = await call.identify(CONSUME)
    await call.existing()
    return await _page(call, "queueUrls", given, credentials, partial(call.core.sqs_dead_letter_sources, call.queue))


async def _page(
    call: SqsCall,
    member: str,
    given: shapes.ListQueues | shapes.ListDeadLetterSourceQueues,
    credentials: Credentials,
    read: Callable[[int, str], Awaitable[list[str]]],
) -> SqsResult:
    """A page of the queues that the client may see.

    Args:
        read: returns up to this number of sorted names that follow this name.
    """
    covers = await call.services.guard.coverage(credentials)
    wanted, after = _page_size(given.max_results), _name_in(given.next_token)
    found: list[str] = []
    while len(found) <= wanted:  # one more shows whether another page follows
        some = await read(wanted + 1, after)
        found += filter(covers, some)
        if len(some) <= wanted:
            break
        after = some[-1]
    shown = found[:wanted]
    result: dict[str, object] = {member: list(map(call.queue_url, shown))} if shown or member == "queueUrls" else {}
    if given.max_results is not None and len(found) > wanted:
        result["NextToken"] = base64.urlsafe_b64encode(shown[-1].encode()).decode()
    return result


def _page_size(max_results: int | None) -> int:
    if max_results is None:
        return _PAGE_MAX
    if not 1 <= max_results <= _PAGE_MAX:
        raise invalid("MaxResults", max_results, f"MaxResults must be an integer between 1 and {_PAGE_MAX}")
    return max_results


def _name_in(token: str | None) -> str:
    """The last name of the page before."""
    try:
        return base64.urlsafe_b64decode(token or "").decode()
    except ValueError:
        raise invalid_value("Invalid or expired next token.") from None


@operation(CONSUME)
async def get_queue_attributes(call: SqsCall, given: shapes.GetQueueAttributes) -> SqsResult:
    found = await call.existing()
    chosen = chosen_attributes(all_attributes(call.queue, found), given.attribute_names or ())
    return {"Attributes": chosen} if chosen else {}


@operation(CONFIGURE)
async def set_queue_attributes(call: SqsCall, given: shapes.SetQueueAttributes) -> SqsResult:
    attributes = read_queue_attributes(call.queue, given.attributes)
    if may_be_fifo(call.queue) or FIFO in attributes:
        found = await call.existing()
        if attributes.pop(FIFO, found.attributes.get(FIFO)) != found.attributes.get(FIFO):
            raise SqsError("InvalidAttributeName", "Unknown Attribute FifoQueue.")
        check_throughput(found.attributes | attributes)
    if not await call.core.sqs_set(call.queue, *await _split(call, call.queue, attributes)):
        raise queue_missing()
    return {}


@operation(PURGE)
async def delete_queue(call: SqsCall, _given: shapes.OnQueue) -> SqsResult:
    await call.existing()
    await call.core.queue_remove(call.queue)
    return {}


@operation(PURGE)
async def purge_queue(call: SqsCall, _given: shapes.OnQueue) -> SqsResult:
    await call.existing()
    await call.core.queue_purge(call.queue)
    return {}


def _checked_tags(queue: str, tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > _TAGS_MAX:
        raise invalid_value(f"Too many tags added for queue {queue}.")
    for name, value in tags.items():
        if not 1 <= len(name) <= 128 or len(value) > 256:
            raise invalid_value(f"The tag {name[:128]!r} is invalid: a key has 1 to 128 characters, a value 256.")
    return tags


@operation(CONFIGURE)
async def tag_queue(call: SqsCall, given: shapes.TagQueue) -> SqsResult:
    found = await call.existing()
    if not given.tags:
        raise missing("Tags")
    _checked_tags(call.queue, {**found.tags, **given.tags})
    await call.core.sqs_tag(call.queue, given.tags)
    return {}


@operation(CONFIGURE)
async def untag_queue(call: SqsCall, given: shapes.UntagQueue) -> SqsResult:
    await call.existing()
    if not given.tag_keys:
        raise invalid_value("Tag keys must be between 1 and 128 characters in length.")
    await call.core.sqs_untag(call.queue, given.tag_keys)
    return {}


@operation(CONSUME)
async def list_queue_tags(call: SqsCall, _given: shapes.OnQueue) -> SqsResult:
    found = await call.existing()
    return {"Tags": found.tags} if found.tags else {}


@operation(CONFIGURE)
async def add_permission(call: SqsCall, _given: shapes.OnQueue) -> SqsResult:
    """Access is a matter of ``acl.conf`` and tokens."""
    await call.existing()
    raise SqsError("UnsupportedOperation", "Permissions of this server are not set by queue; use acl.conf, or tokens.")


@operation(CONFIGURE)
async def remove_permission(call: SqsCall, given: shapes.OnQueue) -> SqsResult:
    return await add_permission(call, given)
