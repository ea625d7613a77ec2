"""SendMessage and SendMessageBatch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from restmq.auth.guard import PRODUCE
from restmq.errors import NotFound
from restmq.frontends.sqs import shapes
from restmq.frontends.sqs.attributes import NOT_TEXT, md5_of, read_attributes
from restmq.frontends.sqs.batches import checked_entries, run_batch
from restmq.frontends.sqs.call import SqsCall, SqsResult, operation
from restmq.frontends.sqs.errors import SqsError, invalid, invalid_value, missing, queue_missing
from restmq.frontends.sqs.names import new_id
from restmq.frontends.sqs.queue_attributes import CONTENT_BASED
from restmq.model import Attribute, Metadata, may_be_fifo
from restmq.queues.sqs import GROUP_HEADER, Sent, SqsEntry

#: Of a message, and of a batch.
BYTES_MAX = 1_048_576
DELAY_MAX = 900
#: The header in which AWS X-Ray carries a trace, and its name as an attribute.
TRACE_HEADER, TRACE_ATTRIBUTE = "x-amzn-trace-id", "AWSTraceHeader"
_TRACE_CHARACTERS_MAX = 1024

_FIFO_ID = re.compile(r"[\x21-\x7e]{1,128}")

#: A message as it is stored, and the members of the answer to its sender.
_Prepared = tuple[SqsEntry, dict[str, str]]


def md5_of_body(value: bytes) -> str:
    return hashlib.md5(value, usedforsecurity=False).hexdigest()


def _prepare(queue: str, given: shapes.NewMessage) -> _Prepared:
    """Checks a message. Raises SqsError."""
    body = given.message_body
    if not body:
        raise missing("MessageBody")
    size_bytes = _size(given)
    if size_bytes > BYTES_MAX:
        raise _too_large(BYTES_MAX)
    if NOT_TEXT.search(body):
        raise SqsError(
            "InvalidMessageContents",
            "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | "
            "#xE000 to #xFFFD | #x10000 to #x10FFFF.",
        )
    value = body.encode()
    attributes = read_attributes(given.message_attributes or {})
    trace = _trace(given)
    message_id = new_id()
    answer = {"MessageId": message_id, "MD5OfMessageBody": md5_of_body(value)}
    if attributes:
        answer["MD5OfMessageAttributes"] = md5_of(attributes)
    if trace:
        answer["MD5OfMessageSystemAttributes"] = md5_of({TRACE_ATTRIBUTE: Attribute("String", trace)})
    is_fifo, group = may_be_fifo(queue), _fifo_id("MessageGroupId", given.message_group_id)
    headers = {TRACE_HEADER: trace, GROUP_HEADER: group}
    metadata = Metadata(headers={name: value for name, value in headers.items() if value}, attributes=attributes)
    entry = SqsEntry(
        value,
        {"id": message_id, **metadata.fields()},
        delay_seconds=_delay(given.delay_seconds, is_fifo),
        group=group if is_fifo else "",
        deduplication_id=_deduplication_id(given.message_deduplication_id, is_fifo),
        size_bytes=size_bytes,
    )
    return entry, answer


def _size(given: shapes.NewMessage) -> int:
    """The bytes that count for the maximum: body, and names, types and values of attributes."""
    attributes = (given.message_attributes or {}).items()
    texts = [part or "" for name, one in attributes for part in (name, one.data_type, one.string_value)]
    binary = sum(len(one.binary_value or "") * 3 // 4 for _, one in attributes)
    return sum(len(text.encode()) for text in (given.message_body, *texts)) + binary


def _too_large(maximum: int) -> SqsError:
    return invalid_value(f"One or more parameters are invalid. Reason: Message must be shorter than {maximum} bytes.")


def _trace(given: shapes.NewMessage) -> str:
    """The value of the trace header; empty if there is none."""
    trace = ""
    for name, one in (given.message_system_attributes or {}).items():
        trace = one.string_value or ""
        is_text = trace.isprintable() and 1 <= len(trace) <= _TRACE_CHARACTERS_MAX
        if name != TRACE_ATTRIBUTE or one.data_type != "String" or not is_text:
            raise invalid_value(f"The message system attribute '{name}' is invalid.")
    return trace


def _delay(delay: int | None, is_fifo: bool) -> int | None:
    if delay is not None and not 0 <= delay <= DELAY_MAX:
        raise invalid("DelaySeconds", delay, f"DelaySeconds must be >= 0 and <= {DELAY_MAX}")
    if delay and is_fifo:
        raise _not_for_this_type("DelaySeconds", delay)
    return None if is_fifo else delay


def _not_for_this_type(parameter: str, value: object) -> SqsError:
    return invalid(parameter, value, "The request include parameter that is not valid for this queue type")


def _deduplication_id(given: str | None, is_fifo: bool) -> str:
    if given is not None and not is_fifo:
        raise _not_for_this_type("MessageDeduplicationId", given)
    return _fifo_id("MessageDeduplicationId", given)


def _fifo_id(parameter: str, given: str | None) -> str:
    if given is not None and not _FIFO_ID.fullmatch(given):
        raise invalid(
            parameter,
            given,
            f"{parameter} can only include alphanumeric and punctuation characters. 1 to 128 in length",
        )
    return given or ""


async def _store(call: SqsCall, prepared: Sequence[_Prepared]) -> list[Sent]:
    try:
        return await call.core.sqs_send(call.queue, [entry for entry, _ in prepared])
    except NotFound:
        raise queue_missing() from None


def _no_deduplication() -> SqsError:
    return invalid_value(
        "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
    )


async def _check_fifo(call: SqsCall, entries: Sequence[shapes.NewMessage]) -> None:
    """Raises SqsError if messages for a FIFO queue lack what it needs: then a batch fails as a whole."""
    if any(entry.message_group_id is None for entry in entries):
        raise missing("MessageGroupId")
    if any(entry.message_deduplication_id is None for entry in entries):
        found = await call.existing()
        if found.attributes.get(CONTENT_BASED) != "true":
            raise _no_deduplication()


def _answer(queue: str, answer: dict[str, str], sent: Sent) -> SqsResult:
    """The answer to a sender. Raises SqsError if the message was not stored."""
    if sent.state == "no_group":
        raise missing("MessageGroupId")
    if sent.state == "no_deduplication":
        raise _no_deduplication()
    if sent.state == "full":
        raise SqsError("OverLimit", "The queue holds as many messages as its setting max_length allows.")
    if sent.state == "too_large":
        raise _too_large(sent.number)
    more = {"SequenceNumber": f"{sent.number:020d}"} if may_be_fifo(queue) else {}
    return {**answer, "MessageId": sent.message_id, **more}


@operation(PRODUCE)
async def send_message(call: SqsCall, given: shapes.SendMessage) -> SqsResult:
    prepared = _prepare(call.queue, given)
    (sent,) = await _store(call, [prepared])
    return _answer(call.queue, prepared[1], sent)


@operation(PRODUCE)
async def send_message_batch(call: SqsCall, given: shapes.SendMessageBatch) -> SqsResult:
    entries = checked_entries("SendMessageBatchRequestEntry", given.entries)
    if may_be_fifo(call.queue):
        await _check_fifo(call, entries)
    size_bytes = sum(map(_size, entries))
    if size_bytes > BYTES_MAX:
        raise SqsError(
            "BatchRequestTooLong",
            f"Batch requests cannot be longer than {BYTES_MAX} bytes. You have sent {size_bytes} bytes.",
        )
    return await run_batch(
        entries,
        lambda entry: _prepare(call.queue, entry),
        lambda ready: _store(call, ready),
        lambda prepared, sent: _answer(call.queue, prepared[1], sent),
    )
