"""The inputs of the operations. Members have the names of the SQS API Reference, in snake case.

A member that is missing is None or empty; ``Input.required`` names those that the client must send. Unknown members are
ignored, as SQS does.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct, field


class Input(Struct, rename="pascal", kw_only=True):
    """The base of all inputs.

    Attributes:
        required: the members that must not be missing.
    """

    required: ClassVar[tuple[str, ...]] = ()


class AttributeValue(Input):
    data_type: str | None = None
    string_value: str | None = None
    binary_value: str | None = None


class OnQueue(Input):
    """The input of an operation on one queue."""

    required: ClassVar[tuple[str, ...]] = ("QueueUrl",)
    queue_url: str | None = None


class CreateQueue(Input):
    required: ClassVar[tuple[str, ...]] = ("QueueName",)
    queue_name: str | None = None
    attributes: dict[str, str | int | bool] | None = None
    tags: dict[str, str] | None = field(default=None, name="tags")


class GetQueueUrl(Input):
    required: ClassVar[tuple[str, ...]] = ("QueueName",)
    queue_name: str | None = None


class ListQueues(Input):
    queue_name_prefix: str | None = None
    next_token: str | None = None
    max_results: int | None = None


class ListDeadLetterSourceQueues(OnQueue):
    next_token: str | None = None
    max_results: int | None = None


class GetQueueAttributes(OnQueue):
    attribute_names: list[str] | None = None


class SetQueueAttributes(OnQueue):
    required: ClassVar[tuple[str, ...]] = ("QueueUrl", "Attributes")
    attributes: dict[str, str | int | bool] | None = None


class TagQueue(OnQueue):
    required: ClassVar[tuple[str, ...]] = ("QueueUrl", "Tags")
    tags: dict[str, str] | None = None


class UntagQueue(OnQueue):
    required: ClassVar[tuple[str, ...]] = ("QueueUrl", "TagKeys")
    tag_keys: list[str] | None = None


class NewMessage(Input):
    """A message that is sent, alone or as an entry of a batch."""

    required: ClassVar[tuple[str, ...]] = ("MessageBody",)
    message_body: str | None = None
    delay_seconds: int | None = None
    message_attributes: dict[str, AttributeValue] | None = None
    message_system_attributes: dict[str, AttributeValue] | None = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendMessage(NewMessage):
    required: ClassVar[tuple[str, ...]] = ("QueueUrl", "MessageBody")
    queue_url: str | None = None


class NewMessageEntry(NewMessage):
    required: ClassVar[tuple[str, ...]] = ("Id", "MessageBody")
    id: str | None = None


class SendMessageBatch(OnQueue):
    entries: list[NewMessageEntry] | None = None


class ReceiveMessage(OnQueue):
    attribute_names: list[str] | None = None
    message_system_attribute_names: list[str] | None = None
    message_attribute_names: list[str] | None = None
    max_number_of_messages: int | None = None
    visibility_timeout: int | None = None
    wait_time_seconds: int | None = None
    receive_request_attempt_id: str | None = None


class DeleteMessage(OnQueue):
    required: ClassVar[tuple[str, ...]] = ("QueueUrl", "ReceiptHandle")
    receipt_handle: str | None = None


class DeleteMessageEntry(Input):
    required: ClassVar[tuple[str, ...]] = ("Id", "ReceiptHandle")
    id: str | None = None
    receipt_handle: str | None = None


class DeleteMessageBatch(OnQueue):
    entries: list[DeleteMessageEntry] | None = None


class ChangeMessageVisibility(OnQueue):
    required: ClassVar[tuple[str, ...]] = ("QueueUrl", "ReceiptHandle", "VisibilityTimeout")
    receipt_handle: str | None = None
    visibility_timeout: int | None = None


class ChangeMessageVisibilityEntry(DeleteMessageEntry):
    required: ClassVar[tuple[str, ...]] = ("Id", "ReceiptHandle", "VisibilityTimeout")
    visibility_timeout: int | None = None


class ChangeMessageVisibilityBatch(OnQueue):
    entries: list[ChangeMessageVisibilityEntry] | None = None


class StartMessageMoveTask(Input):
    required: ClassVar[tuple[str, ...]] = ("SourceArn",)
    source_arn: str | None = None
    destination_arn: str | None = None
    max_number_of_messages_per_second: int | None = None


class CancelMessageMoveTask(Input):
    required: ClassVar[tuple[str, ...]] = ("TaskHandle",)
    task_handle: str | None = None


class ListMessageMoveTasks(Input):
    required: ClassVar[tuple[str, ...]] = ("SourceArn",)
    source_arn: str | None = None
    max_results: int | None = None


def missing_in(given: Input) -> str | None:
    """The name of the first required member that is missing, or None."""
    names = dict(zip(given.__struct_encode_fields__, given.__struct_fields__, strict=True))
    return next((name for name in given.required if getattr(given, names[name]) is None), None)
