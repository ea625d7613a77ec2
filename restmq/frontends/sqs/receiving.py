"""ReceiveMessage, and what a consumer does with the messages: delete them, change their visibility."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Awaitable
from typing import Any

import orjson

from restmq.auth.guard import CONSUME
from restmq.delivery.lines import TakeRequest
from restmq.errors import InvalidInput
from restmq.frontends.sqs import shapes
from restmq.frontends.sqs.attributes import ENCODING, as_answer, chosen, md5_of, received
from restmq.frontends.sqs.batches import checked_entries, run_batch
from restmq.frontends.sqs.call import SqsCall, SqsResult, operation
from restmq.frontends.sqs.errors import SqsError, invalid
from restmq.frontends.sqs.names import ACCOUNT, arn_of
from restmq.frontends.sqs.queue_attributes import WAIT, number_of_attribute
from restmq.frontends.sqs.sending import TRACE_ATTRIBUTE, TRACE_HEADER, md5_of_body
from restmq.model import Attribute, Message, Metadata, may_be_fifo, number_of, queue_of
from restmq.queues.sqs import GROUP_DEFAULT, GROUP_HEADER, Handle

VISIBILITY_MAX, WAIT_MAX, MESSAGES_MAX = 43_200, 20, 10
#: Ids of messages that were not sent over SQS are made of their keys.
_KEYS = uuid.UUID("5f1b6a3e-0d8c-4f6b-9a55-2f8f0c3f4a17")


@operation(CONSUME)
async def receive_message(call: SqsCall, given: shapes.ReceiveMessage) -> SqsResult:
    """Leases messages: at-least-once. A client that disconnects meanwhile gets none."""
    count = _in_range("MaxNumberOfMessages", given.max_number_of_messages, 1, MESSAGES_MAX)
    wait = _in_range("WaitTimeSeconds", given.wait_time_seconds, 0, WAIT_MAX)
    visibility = _in_range("VisibilityTimeout", given.visibility_timeout, 0, VISIBILITY_MAX)
    polls, presence = call.services.polls, call.request.connection.presence
    request = TakeRequest(count or 1, 0 if visibility is None else visibility * 1000 or 1)
    # One call, if there is a message; a client does not overtake those that wait already.
    messages = [] if wait and polls.count(call.queue) else await polls.take(call.queue, request, presence)
    if not messages:
        found = await call.existing()
        wait_seconds = number_of_attribute(found, WAIT) if wait is None else wait
        if wait_seconds:
            messages = await polls.take(call.queue, request, presence, wait_seconds)
    return {"Messages": [_shown(message, given) for message in messages]} if messages else {}


def _in_range(parameter: str, value: int | None, least: int, most: int) -> int | None:
    if value is not None and not least <= value <= most:
        raise invalid(parameter, value, f"Must be between {least} and {most}, if provided")
    return value


def _shown(message: Message, given: shapes.ReceiveMessage) -> dict[str, Any]:
    record = orjson.loads(message.record)
    attributes = received(Metadata.parse(record))
    trace = attributes.pop(TRACE_HEADER, None)
    group = attributes.pop(GROUP_HEADER, None)
    try:
        body = message.value.decode()
    except UnicodeDecodeError:
        body = base64.b64encode(message.value).decode()
        attributes[ENCODING] = Attribute("String", "base64")
    shown: dict[str, Any] = {
        "MessageId": _id_of(message, record),
        "ReceiptHandle": str(Handle.of(message)),
        "MD5OfBody": md5_of_body(body.encode()),
        "Body": body,
    }
    names = {*(given.attribute_names or ()), *(given.message_system_attribute_names or ())}
    if names:
        system = _system_attributes(message, record, trace, group)
        wanted = {name: value for name, value in system.items() if name in names or "All" in names}
        shown |= {"Attributes": wanted} if wanted else {}
    asked_for = chosen(attributes, given.message_attribute_names or ())
    if asked_for:
        shown |= {"MD5OfMessageAttributes": md5_of(asked_for), "MessageAttributes": as_answer(asked_for)}
    return shown


def _id_of(message: Message, record: dict[str, Any]) -> str:
    """The id that a message got when it was sent; one that its first key makes, for a message from elsewhere."""
    return record.get("id") or str(uuid.uuid5(_KEYS, record.get("origin", {}).get("key", message.key)))


def _system_attributes(
    message: Message, record: dict[str, Any], trace: Attribute | None, group: Attribute | None
) -> dict[str, str]:
    shown = {
        "SenderId": ACCOUNT,
        "SentTimestamp": str(int(record.get("sent") or record["first"])),
        "ApproximateReceiveCount": str(record.get("received", 0) + message.count),
        "ApproximateFirstReceiveTimestamp": str(int(record["first"])),
    }
    if may_be_fifo(queue_of(message.key)):
        number = int(record.get("number") or number_of(message.key))
        shown |= {"MessageGroupId": GROUP_DEFAULT, "SequenceNumber": f"{number:020d}"}
    if group:
        shown["MessageGroupId"] = group.value
    if "dedup" in record:
        shown["MessageDeduplicationId"] = record["dedup"]
    if trace:
        shown[TRACE_ATTRIBUTE] = trace.value
    if "origin" in record:
        shown["DeadLetterQueueSourceArn"] = arn_of(queue_of(record["origin"]["key"]))
    return shown


def _handle(call: SqsCall, text: str) -> Handle:
    """Raises SqsError if this is no handle of a message of the call's queue."""
    try:
        handle = Handle.parse(text)
        if handle.queue == call.queue:
            return handle
    except InvalidInput:
        pass
    raise SqsError("ReceiptHandleIsInvalid", f'The input receipt handle "{text}" is not a valid receipt handle.')


async def _known_handle(call: SqsCall, text: str) -> Handle:
    """As ``_handle``, but a missing queue is the more important error."""
    try:
        return _handle(call, text)
    except SqsError as problem:
        await call.existing()
        raise SqsError(problem.name, "The input receipt handle is invalid.") from None


async def _done(call: SqsCall, states: Awaitable[list[str]]) -> list[str]:
    """The state of each message after a change. Raises SqsError if the queue does not exist."""
    found = await states
    if "gone" in found:
        await call.existing()
    return found


def _deleted(handle: Handle, state: str) -> SqsResult:
    """The answer to a deletion; a message that is gone is deleted. Raises SqsError if the handle is no longer valid."""
    if state == "old":
        raise invalid("ReceiptHandle", handle, "The receipt handle has expired")
    return {}


@operation(CONSUME)
async def delete_message(call: SqsCall, given: shapes.DeleteMessage) -> SqsResult:
    handle = await _known_handle(call, given.receipt_handle)
    (state,) = await _done(call, call.core.sqs_delete(call.queue, [handle]))
    return _deleted(handle, state)


@operation(CONSUME)
async def delete_message_batch(call: SqsCall, given: shapes.DeleteMessageBatch) -> SqsResult:
    return await run_batch(
        checked_entries("DeleteMessageBatchRequestEntry", given.entries),
        lambda entry: _handle(call, entry.receipt_handle),
        lambda handles: _done(call, call.core.sqs_delete(call.queue, handles)),
        _deleted,
    )


def _visibility(given: shapes.ChangeMessageVisibility | shapes.ChangeMessageVisibilityEntry) -> int:
    return _in_range("VisibilityTimeout", given.visibility_timeout, 0, VISIBILITY_MAX) or 0


def _changed(change: tuple[Handle, int], state: str) -> SqsResult:
    """The answer to a change. Raises SqsError if nothing was changed."""
    if state == "changed":
        return {}
    if state == "not_in_flight":
        raise SqsError("MessageNotInflight", "The message referred to isn't in flight.")
    reason = "Message does not exist or is not available for visibility timeout change"
    raise invalid("ReceiptHandle", change[0], reason)


@operation(CONSUME)
async def change_message_visibility(call: SqsCall, given: shapes.ChangeMessageVisibility) -> SqsResult:
    change = await _known_handle(call, given.receipt_handle), _visibility(given)
    (state,) = await _done(call, call.core.sqs_change_visibility(call.queue, [change]))
    return _changed(change, state)


@operation(CONSUME)
async def change_message_visibility_batch(call: SqsCall, given: shapes.ChangeMessageVisibilityBatch) -> SqsResult:
    return await run_batch(
        checked_entries("ChangeMessageVisibilityBatchRequestEntry", given.entries),
        lambda entry: (_handle(call, entry.receipt_handle), _visibility(entry)),
        lambda changes: _done(call, call.core.sqs_change_visibility(call.queue, changes)),
        _changed,
    )
