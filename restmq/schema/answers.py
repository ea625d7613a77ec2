"""What JSON answers look like, as JSON Schema. All members are named: one that is not described is a fault."""

from __future__ import annotations

from typing import Any

from restmq.model import DEAD_LETTER, SETTINGS, Policy
from restmq.queues.results import TOTALS
from restmq.schema.fields import MESSAGE_KEY, QUEUE_NAME, Schema

STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number", "minimum": 0}
WHOLE: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
ONE_OR_NOTHING: Schema = {"type": "integer", "enum": [0, 1]}
BYTES: Schema = {}


def obj(_optional: dict[str, Schema] | None = None, **members: Schema) -> Schema:
    """An object with these members, and some that it may lack."""
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
    """One of SHAPES."""
    return {"$ref": f"#/components/schemas/{name}"}


QUEUE = QUEUE_NAME.schema
KEY = MESSAGE_KEY.schema
POLICY: Schema = {"type": "string", "enum": [policy.label for policy in Policy]}
_TIME_MS = described(WHOLE, "In ms since 1970.")
_ENCODING: Schema = {
    "type": "string",
    "enum": ["base64"],
    "description": "There if the value is no UTF-8: then it is base64.",
}
_RECEIPT = described(STRING, "Of a leased message: proves that one holds it.")
_DELIVERIES = described(WHOLE, "Of a leased message: how often it was delivered.")
_LETTER: dict[str, Any] = {"count": WHOLE, "first": _TIME_MS, "last": _TIME_MS}

SHAPES: dict[str, Schema] = {
    "Error": obj(error=described(STRING, "What is wrong, and what to do.")),
    "Origin": obj({"key": KEY, **_LETTER}) | {"description": "Of what was a dead letter elsewhere: where it was one."},
    "Message": obj(
        {"encoding": _ENCODING, "receipt": _RECEIPT, "count": _DELIVERIES, "dead_letter": ref("Origin")},
        key=KEY,
        value=STRING,
    ),
    "FoundMessage": obj(
        {"encoding": _ENCODING, "queue": QUEUE, "dead_letter": ref("Origin"), "due": _TIME_MS, "died": _TIME_MS},
        key=KEY,
        value=STRING,
        state={"type": "string", "enum": ["ready", "delayed", "leased", "dead", "unknown"]},
        looks=WHOLE,
        **_LETTER,
    ),
    "Peeked": obj(
        {
            "encoding": _ENCODING,
            "cut": described(BOOLEAN, "There if the value goes on."),
            "due": _TIME_MS,
            "died": _TIME_MS,
            "dead_letter": ref("Origin"),
        },
        key=KEY,
        value=described(STRING, "Its beginning."),
        size=described(WHOLE, "Of the whole value, in bytes."),
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
        status=described(ONE_OR_NOTHING, "1 if connected consumers are served."),
        policy=POLICY,
        oldest_age_seconds={"type": ["number", "null"]},
        totals=obj(**{"in": WHOLE}, **dict.fromkeys(TOTALS, WHOLE)),
        consumers=described(WHOLE, "Connected to any server on this Redis."),
        waiters=described(WHOLE, "Clients in a long poll, of any server on this Redis."),
    ),
    "Settings": obj(
        {**{name: {"type": "integer", "maximum": most} for name, most in SETTINGS.items()}, DEAD_LETTER: STRING},
        queue=QUEUE,
        value=POLICY,
    ),
    "Empty": obj(error={"type": "string", "const": "empty queue"}),
}

MESSAGE = ref("Message")
