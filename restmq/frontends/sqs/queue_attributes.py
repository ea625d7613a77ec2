"""Attributes of queues: their checks, and the settings of RestMQ that stand for some of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from restmq.frontends.sqs.errors import SqsError, invalid
from restmq.frontends.sqs.names import arn_of, queue_in_arn
from restmq.model import DEAD_LETTER, LEASE_SECONDS_DEFAULT, may_be_fifo
from restmq.queues.sqs import SqsQueue

Attributes = dict[str, str]
Settings = dict[str, int | str]

VISIBILITY, RETENTION, MESSAGE_SIZE = "VisibilityTimeout", "MessageRetentionPeriod", "MaximumMessageSize"
DELAY, WAIT = "DelaySeconds", "ReceiveMessageWaitTimeSeconds"
REDRIVE, REDRIVE_ALLOW, POLICY = "RedrivePolicy", "RedriveAllowPolicy", "Policy"
FIFO, CONTENT_BASED = "FifoQueue", "ContentBasedDeduplication"
_SCOPE, _THROUGHPUT = "DeduplicationScope", "FifoThroughputLimit"

#: Numbers: minimum, maximum and default.
_NUMBERS = {
    VISIBILITY: (0, 43_200, LEASE_SECONDS_DEFAULT),
    RETENTION: (60, 1_209_600, 345_600),
    MESSAGE_SIZE: (1024, 1_048_576, 1_048_576),
    DELAY: (0, 900, 0),
    WAIT: (0, 20, 0),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400, 300),
}
_WORDS = {
    FIFO: ("true", "false"),
    CONTENT_BASED: ("true", "false"),
    "SqsManagedSseEnabled": ("true", "false"),
    _SCOPE: ("queue", "messageGroup"),
    _THROUGHPUT: ("perQueue", "perMessageGroupId"),
}
_FIFO_ONLY = (CONTENT_BASED, _SCOPE, _THROUGHPUT)
#: What a new queue has if the client names no value.
DEFAULTS = {RETENTION: str(_NUMBERS[RETENTION][2])}
_JSON = (POLICY, REDRIVE, REDRIVE_ALLOW)
_SETTABLE = {*_NUMBERS, *_WORDS, *_JSON, "KmsMasterKeyId"}
_READ_ONLY = {
    "QueueArn",
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
    "CreatedTimestamp",
    "LastModifiedTimestamp",
}
#: Shown if they have no value of their own.
_SHOWN_NUMBERS = (VISIBILITY, RETENTION, MESSAGE_SIZE, DELAY, WAIT)
_RECEIVES_MAX, _SOURCES_MAX = 1000, 10
#: Of the value of an attribute.
_CHARACTERS_MAX = 65_536


def read_queue_attributes(queue: str, given: Mapping[str, str | int | bool]) -> Attributes:
    """Checks the attributes that a client sets, and brings them into one form. Raises SqsError."""
    pairs = [(name.strip(), _as_text(value)) for name, value in given.items()]
    attributes = {name: _checked(name, value) for name, value in pairs}
    is_fifo = may_be_fifo(queue)
    if attributes.get(FIFO) == "false":
        del attributes[FIFO]
    for name in _FIFO_ONLY:
        if name in attributes and not is_fifo:
            raise _unknown(name)
    return attributes


def check_throughput(attributes: Mapping[str, str]) -> None:
    """Raises SqsError if all attributes of a FIFO queue together are not allowed."""
    if attributes.get(_THROUGHPUT) == "perMessageGroupId" and attributes.get(_SCOPE) != "messageGroup":
        raise SqsError(
            "InvalidAttributeValue",
            f"Invalid value for the parameter {_THROUGHPUT}. Reason: The perMessageGroupId value is allowed only when "
            f"the value for {_SCOPE} is messageGroup.",
        )


def _as_text(value: str | int | bool) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _unknown(name: str) -> SqsError:
    return SqsError("InvalidAttributeName", f"Unknown Attribute {name}.")


def _bad_value(name: str) -> SqsError:
    return SqsError("InvalidAttributeValue", f"Invalid value for the parameter {name}.")


def _checked(name: str, value: str) -> str:
    if name not in _SETTABLE:
        raise _unknown(name)
    if len(value) > _CHARACTERS_MAX:
        raise _bad_value(name)
    if name in _NUMBERS:
        if not _is_number(value, *_NUMBERS[name][:2]):
            raise _bad_value(name)
        return str(int(value))
    if name in _WORDS:
        if value.lower() not in map(str.lower, _WORDS[name]):
            raise _bad_value(name)
        return value.lower() if value.lower() in ("true", "false") else value
    if name in _JSON and value:
        return _checked_json(name, value)
    return value


def _is_number(text: str, least: int, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 9 and least <= int(text) <= most


def _checked_json(name: str, value: str) -> str:
    try:
        fields = json.loads(value)
    except (ValueError, RecursionError):
        raise _bad_value(name) from None
    if not isinstance(fields, dict):
        raise _bad_value(name)
    if name == REDRIVE:
        redrive_of(value)
    elif name == REDRIVE_ALLOW:
        sources = fields.get("sourceQueueArns", [])
        permission = fields.get("redrivePermission")
        if not isinstance(sources, list) or len(sources) > _SOURCES_MAX:
            raise _bad_value(name)
        if any(queue_in_arn(str(source)) is None for source in sources):
            raise _bad_value(name)
        if permission not in ("allowAll", "denyAll", "byQueue") or (permission == "byQueue") != bool(sources):
            raise _bad_value(name)
    return value


def redrive_of(policy: str) -> tuple[str, int]:
    """The dead-letter queue and the number of receives in a RedrivePolicy. Raises SqsError."""
    fields = json.loads(policy)
    arn, most = fields.get("deadLetterTargetArn"), fields.get("maxReceiveCount")
    if arn is None or most is None:
        absent = "deadLetterTargetArn" if arn is None else "maxReceiveCount"
        raise invalid(REDRIVE, policy, f"Redrive policy does not contain mandatory attribute: {absent}")
    queue, count = queue_in_arn(str(arn)), str(most)
    if queue is None:
        raise invalid(REDRIVE, policy, f"Invalid value for deadLetterTargetArn: {arn}")
    if not _is_number(count, 1, _RECEIVES_MAX):
        raise invalid(REDRIVE, policy, f"Invalid value for maxReceiveCount: {most}")
    return queue, int(count)


def split(attributes: Mapping[str, str]) -> tuple[Attributes, Settings]:
    """Divides checked attributes into those that are stored as they are, and the queue's own settings."""
    stored, settings = dict(attributes), Settings()
    if VISIBILITY in stored:
        settings["lease"] = int(stored[VISIBILITY])
        if stored[VISIBILITY] != "0":  # 0 is no value of the setting
            stored[VISIBILITY] = ""
    if REDRIVE in stored:
        policy = stored.pop(REDRIVE)
        settings[DEAD_LETTER], settings["max_deliveries"] = redrive_of(policy) if policy else ("", 0)
    return stored, settings


def visibility_of(found: SqsQueue) -> int:
    """The visibility timeout in seconds."""
    return int(found.settings.get("lease") or found.attributes.get(VISIBILITY) or _NUMBERS[VISIBILITY][2])


def number_of_attribute(found: SqsQueue, name: str) -> int:
    """The value of an attribute that is a number, or its default."""
    return int(found.attributes.get(name) or _NUMBERS[name][2])


def is_fifo(found: SqsQueue) -> bool:
    return found.attributes.get(FIFO) == "true"


def all_attributes(queue: str, found: SqsQueue) -> Attributes:
    """All attributes of a queue."""
    shown = {name: str(_NUMBERS[name][2]) for name in _SHOWN_NUMBERS}
    shown |= {
        "SqsManagedSseEnabled": "false",
        **{name: value for name, value in found.attributes.items() if value},
        VISIBILITY: str(visibility_of(found)),
        "QueueArn": arn_of(queue),
        "ApproximateNumberOfMessages": str(found.ready),
        "ApproximateNumberOfMessagesNotVisible": str(found.leased),
        "ApproximateNumberOfMessagesDelayed": str(found.delayed),
        "CreatedTimestamp": str(found.created_ms // 1000),
        "LastModifiedTimestamp": str(found.modified_ms // 1000),
    }
    target, most = found.settings.get(DEAD_LETTER), found.settings.get("max_deliveries")
    if target and most:
        policy = {"deadLetterTargetArn": arn_of(str(target)), "maxReceiveCount": int(most)}
        shown[REDRIVE] = json.dumps(policy)
    if is_fifo(found):
        defaults = {CONTENT_BASED: "false", _SCOPE: "queue", _THROUGHPUT: "perQueue"}
        shown = {**defaults, **shown}
    return shown


def chosen_attributes(attributes: Mapping[str, str], names: Iterable[str]) -> Attributes:
    """The attributes with these names. Raises SqsError for an unknown name."""
    wanted = list(names)
    for name in wanted:
        if name not in _SETTABLE | _READ_ONLY | {"All"}:
            raise _unknown(name)
    return {name: value for name, value in attributes.items() if "All" in wanted or name in wanted}


def differs(queue: str, found: SqsQueue, attributes: Mapping[str, str]) -> str | None:
    """The name of an attribute whose value is not that of the queue; None if there is none."""
    present: dict[str, Any] = all_attributes(queue, found)
    for name, value in attributes.items():
        if name == REDRIVE and value and REDRIVE in present:
            if redrive_of(value) != redrive_of(present[REDRIVE]):
                return name
        elif (present.get(name) or "") != value:
            return name
    return None
