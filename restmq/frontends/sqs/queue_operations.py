"""The operations on queues, their attributes, tags and dead letters."""

from __future__ import annotations

import base64
import binascii
import json

from restmq.auth.guard import CONFIGURE, CONSUME, PRODUCE, PURGE
from restmq.errors import Conflict
from restmq.frontends.sqs import shapes
from restmq.frontends.sqs.call import SqsCall, SqsOperation, SqsResult
from restmq.frontends.sqs.errors import SqsError, invalid, queue_missing
from restmq.frontends.sqs.names import FIFO_SUFFIX, check_new_name, queue_in_arn
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

_PAGE_MAX = 1000
_TAGS_MAX = 50


async def create_queue(call: SqsCall, given: shapes.CreateQueue) -> SqsResult:
    queue = check_new_name(given.queue_name or "")
    await call.check(CONFIGURE, queue)
    attributes = read_queue_attributes(queue, given.attributes or {})
    if (attributes.get(FIFO) == "true") != queue.endswith(FIFO_SUFFIX):
        raise SqsError(
            "InvalidParameterValue",
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
        if is_fifo(dead_letters) != queue.endswith(FIFO_SUFFIX):
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


async def get_queue_url(call: SqsCall, given: shapes.GetQueueUrl) -> SqsResult:
    queue = given.queue_name or ""
    credentials = await call.identify(CONSUME)
    await call.services.guard.check_any(credentials, (CONSUME, PRODUCE), queue)
    await call.existing(queue)
    return {"QueueUrl": call.queue_url(queue)}


async def list_queues(call: SqsCall, given: shapes.ListQueues) -> SqsResult:
    credentials = await call.check(CONSUME, None)
    covers = await call.services.guard.coverage(credentials)
    wanted, after = _page(given.max_results), _name_in(given.next_token)
    found: list[str] = []
    while len(found) <= wanted:  # one more shows whether another page follows
        page = await call.core.sqs_list(given.queue_name_prefix or "", wanted + 1, after)
        found += filter(covers, page)
        if len(page) <= wanted:
            break
        after = page[-1]
    return _page_of_urls(call, "QueueUrls", found, wanted, has_token=given.max_results is not None)


async def list_dead_letter_source_queues(call: SqsCall, given: shapes.ListDeadLetterSourceQueues) -> SqsResult:
    queue = await call.queue(given.queue_url, CONSUME)
    covers = await call.services.guard.coverage(await call.identify(CONSUME))
    await call.existing(queue)
    wanted, after = _page(given.max_results), _name_in(given.next_token)
    found = [name for name in await call.core.sqs_dead_letter_sources(queue) if name > after and covers(name)]
    return _page_of_urls(call, "queueUrls", found, wanted, has_token=given.max_results is not None)


def _page(max_results: int | None) -> int:
    if max_results is None:
        return _PAGE_MAX
    if not 1 <= max_results <= _PAGE_MAX:
        raise invalid("MaxResults", max_results, f"MaxResults must be an integer between 1 and {_PAGE_MAX}")
    return max_results


def _name_in(token: str | None) -> str:
    """The last name of the page before."""
    try:
        return base64.urlsafe_b64decode(token or "").decode()
    except (binascii.Error, ValueError):
        raise SqsError("InvalidParameterValue", "Invalid or expired next token.") from None


def _page_of_urls(call: SqsCall, member: str, found: list[str], wanted: int, has_token: bool) -> SqsResult:
    shown = found[:wanted]
    result: dict[str, object] = {member: list(map(call.queue_url, shown))} if shown or member == "queueUrls" else {}
    if has_token and len(found) > wanted:
        result["NextToken"] = base64.urlsafe_b64encode(shown[-1].encode()).decode()
    return result


async def get_queue_attributes(call: SqsCall, given: shapes.GetQueueAttributes) -> SqsResult:
    queue = await call.queue(given.queue_url, CONSUME)
    found = await call.existing(queue)
    chosen = chosen_attributes(all_attributes(queue, found), given.attribute_names or ())
    return {"Attributes": chosen} if chosen else {}


async def set_queue_attributes(call: SqsCall, given: shapes.SetQueueAttributes) -> SqsResult:
    queue = await call.queue(given.queue_url, CONFIGURE)
    attributes = read_queue_attributes(queue, given.attributes or {})
    if queue.endswith(FIFO_SUFFIX) or FIFO in attributes:
        found = await call.existing(queue)
        if attributes.pop(FIFO, found.attributes.get(FIFO)) != found.attributes.get(FIFO):
            raise SqsError("InvalidAttributeName", "Unknown Attribute FifoQueue.")
        check_throughput(found.attributes | attributes)
    if not await call.core.sqs_set(queue, *await _split(call, queue, attributes)):
        raise queue_missing()
    return {}


async def delete_queue(call: SqsCall, given: shapes.OnQueue) -> SqsResult:
    queue = await call.queue(given.queue_url, PURGE)
    await call.existing(queue)
    await call.core.queue_remove(queue)
    return {}


async def purge_queue(call: SqsCall, given: shapes.OnQueue) -> SqsResult:
    queue = await call.queue(given.queue_url, PURGE)
    await call.existing(queue)
    await call.core.queue_purge(queue)
    return {}


def _checked_tags(queue: str, tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > _TAGS_MAX:
        raise SqsError("InvalidParameterValue", f"Too many tags added for queue {queue}.")
    for name, value in tags.items():
        if not 1 <= len(name) <= 128 or len(value) > 256:
            raise SqsError(
                "InvalidParameterValue",
                f"The tag {name[:128]!r} is invalid: a key has 1 to 128 characters, a value 256.",
            )
    return tags


async def tag_queue(call: SqsCall, given: shapes.TagQueue) -> SqsResult:
    queue = await call.queue(given.queue_url, CONFIGURE)
    found = await call.existing(queue)
    if not given.tags:
        raise SqsError("MissingParameter", "The request must contain the parameter Tags.")
    _checked_tags(queue, {**found.tags, **given.tags})
    await call.core.sqs_tag(queue, given.tags)
    return {}


async def untag_queue(call: SqsCall, given: shapes.UntagQueue) -> SqsResult:
    queue = await call.queue(given.queue_url, CONFIGURE)
    await call.existing(queue)
    if not given.tag_keys:
        raise SqsError("InvalidParameterValue", "Tag keys must be between 1 and 128 characters in length.")
    await call.core.sqs_untag(queue, given.tag_keys)
    return {}


async def list_queue_tags(call: SqsCall, given: shapes.OnQueue) -> SqsResult:
    queue = await call.queue(given.queue_url, CONSUME)
    found = await call.existing(queue)
    return {"Tags": found.tags} if found.tags else {}


async def not_supported(call: SqsCall, given: shapes.OnQueue) -> SqsResult:
    """AddPermission and RemovePermission: access is a matter of ``acl.conf`` and tokens."""
    await call.existing(await call.queue(given.queue_url, CONFIGURE))
    raise SqsError("UnsupportedOperation", "Permissions of this server are not set by queue; use acl.conf, or tokens.")


QUEUE_OPERATIONS = {
    "AddPermission": SqsOperation(not_supported, shapes.OnQueue),
    "CreateQueue": SqsOperation(create_queue, shapes.CreateQueue),
    "DeleteQueue": SqsOperation(delete_queue, shapes.OnQueue),
    "GetQueueAttributes": SqsOperation(get_queue_attributes, shapes.GetQueueAttributes),
    "GetQueueUrl": SqsOperation(get_queue_url, shapes.GetQueueUrl),
    "ListDeadLetterSourceQueues": SqsOperation(list_dead_letter_source_queues, shapes.ListDeadLetterSourceQueues),
    "ListQueueTags": SqsOperation(list_queue_tags, shapes.OnQueue),
    "ListQueues": SqsOperation(list_queues, shapes.ListQueues),
    "PurgeQueue": SqsOperation(purge_queue, shapes.OnQueue),
    "RemovePermission": SqsOperation(not_supported, shapes.OnQueue),
    "SetQueueAttributes": SqsOperation(set_queue_attributes, shapes.SetQueueAttributes),
    "TagQueue": SqsOperation(tag_queue, shapes.TagQueue),
    "UntagQueue": SqsOperation(untag_queue, shapes.UntagQueue),
}
