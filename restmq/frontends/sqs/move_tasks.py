"""Message move tasks: dead letters go back to their queues, or to another queue."""

from __future__ import annotations

from restmq.auth.guard import CONSUME, PRODUCE
from restmq.errors import Conflict
from restmq.frontends.sqs import shapes
from restmq.frontends.sqs.call import SqsCall, SqsOperation, SqsResult
from restmq.frontends.sqs.errors import SqsError, invalid
from restmq.frontends.sqs.names import arn_of, queue_in_arn
from restmq.queues.moves import Move, read_task_handle

_MOVES_MAX, _MOVES_A_SECOND_MAX = 10, 500


def _queue_of_arn(name: str, arn: str | None) -> str:
    queue = queue_in_arn(arn or "")
    if queue is None:
        raise SqsError(
            "InvalidParameterValue",
            f"You must use this format to specify the {name}: "
            "arn:<partition>:<service>:<region>:<account-id>:<resource-id>",
        )
    return queue


async def start_message_move_task(call: SqsCall, given: shapes.StartMessageMoveTask) -> SqsResult:
    source = _queue_of_arn("SourceArn", given.source_arn)
    destination = _queue_of_arn("DestinationArn", given.destination_arn) if given.destination_arn else ""
    per_second = given.max_number_of_messages_per_second or 0
    if not 0 <= per_second <= _MOVES_A_SECOND_MAX:
        raise invalid("MaxNumberOfMessagesPerSecond", per_second, f"It must be 1 to {_MOVES_A_SECOND_MAX}")
    for queue in filter(None, (source, destination)):
        await call.check(PRODUCE, queue)
    if await call.core.sqs_get(source) is None:
        raise _no_such("The resource that you specified for the SourceArn parameter doesn't exist.")
    if destination and await call.core.sqs_get(destination) is None:
        raise _no_such("The resource that you specified for the DestinationArn parameter doesn't exist.")
    if not await call.core.sqs_dead_letter_sources(source):
        raise SqsError("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
    try:
        move = await call.core.sqs_move_start(source, destination, per_second)
    except Conflict:
        raise SqsError(
            "UnsupportedOperation",
            "There is already a task running. Only one active task is allowed for a source queue arn at a given time.",
        ) from None
    return {"TaskHandle": move.handle}


def _no_such(text: str) -> SqsError:
    return SqsError("ResourceNotFoundException", text)


async def list_message_move_tasks(call: SqsCall, given: shapes.ListMessageMoveTasks) -> SqsResult:
    source = _queue_of_arn("SourceArn", given.source_arn)
    await call.check(CONSUME, source)
    count = 1 if given.max_results is None else given.max_results
    if not 1 <= count <= _MOVES_MAX:
        raise invalid(
            "MaxResults", count, f"Value for parameter MaxResults must be an integer between 1 and {_MOVES_MAX}"
        )
    if await call.core.sqs_get(source) is None:
        raise _no_such("The resource that you specified for the SourceArn parameter doesn't exist.")
    return {"Results": [_shown_move(move) for move in await call.core.sqs_moves(source, count)]}


def _shown_move(move: Move) -> dict[str, object]:
    shown: dict[str, object] = {"TaskHandle": move.handle} if move.status == "RUNNING" else {}
    shown |= {"Status": move.status, "SourceArn": arn_of(move.source)}
    if move.destination:
        shown["DestinationArn"] = arn_of(move.destination)
    if move.per_second:
        shown["MaxNumberOfMessagesPerSecond"] = move.per_second
    shown |= {
        "ApproximateNumberOfMessagesMoved": move.moved,
        "ApproximateNumberOfMessagesToMove": move.to_move,
        "StartedTimestamp": move.started_ms,
    }
    if move.failure:
        shown["FailureReason"] = move.failure
    return shown


async def cancel_message_move_task(call: SqsCall, given: shapes.CancelMessageMoveTask) -> SqsResult:
    handle = given.task_handle or ""
    await call.check(PRODUCE, read_task_handle(handle)[0])
    try:
        move = await call.core.sqs_move_cancel(handle)
    except Conflict:
        raise SqsError("UnsupportedOperation", "Only active tasks can be cancelled.") from None
    return {"ApproximateNumberOfMessagesMoved": move.moved}


MOVE_OPERATIONS = {
    "CancelMessageMoveTask": SqsOperation(cancel_message_move_task, shapes.CancelMessageMoveTask),
    "ListMessageMoveTasks": SqsOperation(list_message_move_tasks, shapes.ListMessageMoveTasks),
    "StartMessageMoveTask": SqsOperation(start_message_move_task, shapes.StartMessageMoveTask),
}
