"""The inputs of the operations. Members have the names of the SQS API Reference, in snake case.

A member without a default is one that the client must send. Unknown members are ignored, as SQS does.
"""

from __future__ import annotations

from msgspec import Struct, field


class Input(Struct, rename="pascal", kw_only=True):
    """The base of all inputs."""


class AttributeValue(Input):
    data_type: str | None = None
    string_value: str | None = None
    binary_value: str | None = None


class OnQueue(Input):
    """The input of an operation on one queue."""

    queue_url: str


class CreateQueue(Input):
    queue_name: str
    attributes: dict[str, str | int | bool] | None = None
    tags: dict[str, str] | None = field(default=None, name="tags")


class GetQueueUrl(Input):
    queue_name: str


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
    attributes: dict[str, str | int | bool]


class TagQueue(OnQueue):
    tags: dict[str, str]


class UntagQueue(OnQueue):
    tag_keys: list[str]


class NewMessage(Input):
    """A message that is sent, alone or as an entry of a batch."""

    message_body: str
    delay_seconds: int | None = None
    message_attributes: dict[str, AttributeValue] | None = None
    message_system_attributes: dict[str, AttributeValue] | None = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendMessage(NewMessage, kw_only=True):
    queue_url: str


class NewMessageEntry(NewMessage, kw_only=True):
    id: str


class SendMessageBatch(OnQueue):
    entries: list[NewMessageEntry] | None = None


class ReceiveMessage(OnQueue):
    attribute_names: list[str] | None = None
    message_system_attribute_names: list[str] | None = None
    message_attribute_names: list[str] | None = None
    max_number_of_messages: int | None = None
    visibility_timeout: int | None = None
    wait_time_seconds: int | None = None


class DeleteMessage(OnQueue):
    receipt_handle: str


class DeleteMessageEntry(Input):
    id: str
    receipt_handle: str


class DeleteMessageBatch(OnQueue):
    entries: list[DeleteMessageEntry] | None = None


class ChangeMessageVisibility(OnQueue):
    receipt_handle: str
    visibility_timeout: int


class ChangeMessageVisibilityEntry(DeleteMessageEntry):
    visibility_timeout: int


class ChangeMessageVisibilityBatch(OnQueue):
    entries: list[ChangeMessageVisibilityEntry] | None = None


class StartMessageMoveTask(Input):
    source_arn: str
    destination_arn: str | None = None
    max_number_of_messages_per_second: int | None = None


class CancelMessageMoveTask(Input):
    task_handle: str


class ListMessageMoveTasks(Input):
    source_arn: str
    max_results: int | None = None
