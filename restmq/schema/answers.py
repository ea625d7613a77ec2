"""JSON Schemas of the JSON answers. They list all members: an answer with another member is a bug."""

from __future__ import annotations

from typing import Any

from restmq.model import DEAD_LETTER, SETTINGS, Policy
from restmq.queues.results import TOTALS
from restmq.schema.fields import MESSAGE_KEY, QUEUE_NAME, Schema
from restmq.schema.metadata import SCHEMA as METADATA

STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number", "minimum": 0}
WHOLE: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
ZERO_OR_ONE: Schema = {"type": "integer", "enum": [0, 1]}
ANY_VALUE: Schema = {}


def obj(_optional: dict[str, Schema] | None = None, **members: Schema) -> Schema:
    """An object with these members, and optional ones."""
    return {
        "type": "object",
        "properties": {**members, **(_optional or {})},
        "required": list(members),
        "additionalProperties": False,
    }


def array(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def by_queue(item: Schema) -> Schema:
    return {"type": "object", "additionalProperties": item}


def any_of(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def described(schema: Schema, text: str) -> Schema:
    return {**schema, "description": text}


def ref(name: str) -> Schema:
    """A reference to one of SHAPES."""
    return {"$ref": f"#/components/schemas/{name}"}


QUEUE = QUEUE_NAME.schema
KEY = MESSAGE_KEY.schema
POLICY: Schema = {"type": "string", "enum": [policy.label for policy in Policy]}
_TIME_MS = described(WHOLE, "Milliseconds since 1970.")
EXPIRES = described(WHOLE, "Time of expiry in milliseconds since 1970; present if the message has one.")
_ENCODING: Schema = {
    "type": "string",
    "enum": ["base64"],
    "description": "Present if the value is not UTF-8; the value is then base64.",
}
_RECEIPT = described(STRING, "The lease's receipt: ack and extend need it.")
_DELIVERIES = described(WHOLE, "Number of deliveries of a leased message.")
_LETTER: dict[str, Any] = {"count": WHOLE, "first": _TIME_MS, "last": _TIME_MS}
_FAILURE = {
    "reason": described(STRING, "The last reason that a consumer gave when it nacked the message."),
    "failed": described(WHOLE, "Time of that nack in milliseconds since 1970."),
}
#: The notes that any answer may show beside a message.
NOTES = {**_FAILURE, "dead_letter": ref("Origin"), **METADATA}

SHAPES: dict[str, Schema] = {
    "Error": obj(error=described(STRING, "What is wrong, then what to do.")),
    "Origin": obj({"key": KEY, **_LETTER, **_FAILURE, "hops": described(WHOLE, "Number of times it was forwarded.")})
    | {"description": "Where the message was a dead letter before it came to this queue."},
    "Message": obj(
        {"encoding": _ENCODING, "receipt": _RECEIPT, "count": _DELIVERIES, "expires": EXPIRES, **NOTES},
        key=KEY,
        value=STRING,
    ),
    "FoundMessage": obj(
        {"encoding": _ENCODING, "queue": QUEUE, "due": _TIME_MS, "died": _TIME_MS, "expires": EXPIRES, **NOTES},
        key=KEY,
        value=STRING,
        state={"type": "string", "enum": ["ready", "delayed", "leased", "dead", "unknown"]},
        looks=WHOLE,
        **_LETTER,
    ),
    "Peeked": obj(
        {
            "encoding": _ENCODING,
            "cut": described(BOOLEAN, "Present if the value is cut."),
            "due": _TIME_MS,
            "died": _TIME_MS,
            **NOTES,
        },
        key=KEY,
        value=described(STRING, "The beginning of the value."),
        size=described(WHOLE, "Size of the whole value in bytes."),
        looks=WHOLE,
        **_LETTER,
    ),
    "QueueStats": obj(
        {"redis": STRING},
        queue=QUEUE,
        len=WHOLE,
        ready=WHOLE,
        leased=WHOLE,
        delayed=WHOLE,
        dead=WHOLE,
        status=described(ZERO_OR_ONE, "1 if the queue delivers to connected consumers, 0 if it is stopped."),
        policy=POLICY,
        oldest_age_seconds={"type": ["number", "null"]},
        totals=obj(**{"in": WHOLE}, **dict.fromkeys(TOTALS, WHOLE)),
        consumers=described(WHOLE, "Number of consumers connected to any server on this Redis."),
        waiters=described(WHOLE, "Number of clients in a long poll at any server on this Redis."),
    ),
    "Settings": obj(
        {**{name: {"type": "integer", "maximum": most} for name, most in SETTINGS.items()}, DEAD_LETTER: STRING},
        queue=QUEUE,
        value=POLICY,
    ),
    "Empty": obj(error={"type": "string", "const": "empty queue"}),
}

MESSAGE = ref("Message")
