"""Message move tasks: dead letters go back to their queues, or to another queue."""

from __future__ import annotations

from restmq.auth.guard import CONSUME, PRODUCE
from restmq.errors import Conflict
from restmq.frontends.sqs import shapes
from restmq.frontends.sqs.call import SqsCall, SqsResult, operation
from restmq.frontends.sqs.errors import SqsError, invalid, invalid_value
from restmq.frontends.sqs.names import arn_of, queue_in_arn
from restmq.queues.moves import Move, read_task_handle

_MOVES_MAX, _MOVES_A_SECOND_MAX = 10, 500


def _queue_of_arn(name: str, arn: str) -> str:
    queue = queue_in_arn(arn)
    if queue is None:
        raise invalid_value(
            f"You must use this format to specify the {name}: "
            "arn:<partition>:<service>:<region>:<account-id>:<resource-id>",
        )
    return queue


@operation()
async def start_message_move_task(call: SqsCall, given: shapes.StartMessageMoveTask) -> SqsResult:
    source = _queue_of_arn("SourceArn", given.source_arn)
    destination = _queue_of_arn("DestinationArn", given.destination_arn) if given.destination_arn else ""
    per_second = given.max_number_of_messages_per_second
    if per_second is not None and not 1 <= per_second <= _MOVES_A_SECOND_MAX:
        raise invalid("MaxNumberOfMessagesPerSecond", per_second, f"It must be 1 to {_MOVES_A_SECOND_MAX}")
    for queue in filter(None, (source, destination)):
        await call.check(PRODUCE, queue)
    await _check_exists(call, "SourceArn", source)
    if destination:
        await _check_exists(call, "DestinationArn", destination)
    if not await call.core.sqs_dead_letter_sources(source, 1):
        raise invalid_value("Source queue must be configured as a Dead Letter Queue.")
    try:
        move = await call.core.sqs_move_start(source, destination, per_second or 0)
    except Conflict:
        raise invalid_value(
            "There is already a task running. Only one active task is allowed for a source queue arn at a given time."
        ) from None
    return {"TaskHandle": move.handle}


async def _check_exists(call: SqsCall, parameter: str, queue: str) -> None:
    if await call.core.sqs_get(queue) is None:
        raise SqsError(
            "ResourceNotFoundException", f"The resource that you specified for the {parameter} parameter doesn't exist."
        )


@operation()
async def list_message_move_tasks(call: SqsCall, given: shapes.ListMessageMoveTasks) -> SqsResult:
    source = _queue_of_arn("SourceArn", given.source_arn)
    await call.check(CONSUME, source)
    count = 1 if given.max_results is None else given.max_results
    if not 1 <= count <= _MOVES_MAX:
        raise invalid(
            "MaxResults", count, f"Value for parameter MaxResults must be an integer between 1 and {_MOVES_MAX}"
        )
    await _check_exists(call, "SourceArn", source)
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


@operation()
async def cancel_message_move_task(call: SqsCall, given: shapes.CancelMessageMoveTask) -> SqsResult:
    await call.check(PRODUCE, read_task_handle(given.task_handle)[0])
    try:
        move = await call.core.sqs_move_cancel(given.task_handle)
    except Conflict:
        raise SqsError("UnsupportedOperation", "Only active tasks can be cancelled.") from None
    return {"ApproximateNumberOfMessagesMoved": move.moved}
