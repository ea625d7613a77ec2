"""Attributes of messages: their checks, their MD5, and their form beside a message in the store.

A producer over plain HTTP sends an attribute as a header ``x-message-attribute-NAME``. All other kept headers, and the
content type, are shown to SQS consumers as attributes of their own name.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from restmq.frontends.sqs.errors import invalid_value
from restmq.frontends.sqs.shapes import AttributeValue
from restmq.model import Attribute, Metadata
from restmq.schema.metadata import ATTRIBUTE_HEADER

ATTRIBUTES_MAX = 10
#: Shown if the value is not text; the body is base64 then.
ENCODING = "restmq-encoding"

#: Characters that neither SQS nor XML allows.
NOT_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_.\-]{1,256}(?<!\.)")
_RESERVED = re.compile(r"(aws|amazon)\.", re.IGNORECASE)
_TYPE = re.compile(r"(String|Number|Binary)(\.[^\x00-\x1f\x7f]+)?")
_NUMBER = re.compile(r"\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)
_TYPE_CHARACTERS_MAX = 256


def read_attributes(given: Mapping[str, AttributeValue]) -> dict[str, Attribute]:
    """Checks the attributes of a message that is sent. Raises SqsError."""
    if len(given) > ATTRIBUTES_MAX:
        raise invalid_value(
            f"Number of message attributes [{len(given)}] exceeds the allowed maximum [{ATTRIBUTES_MAX}]."
        )
    return {name: _read(name, value) for name, value in given.items()}


def _read(name: str, given: AttributeValue) -> Attribute:
    if not _NAME.fullmatch(name):
        raise invalid_value(
            f"The message attribute name '{name}' is invalid. Attribute name can contain A-Z, a-z, 0-9, underscore "
            "(_), hyphen (-), and period (.) characters."
        )
    if _RESERVED.match(name):
        raise invalid_value(f"The message attribute name '{name}' is invalid: AWS. and Amazon. are reserved.")
    data_type = given.data_type
    if not data_type:
        raise invalid_value(f"The message attribute '{name}' must contain non-empty message attribute type.")
    kind = _TYPE.fullmatch(data_type)
    if kind is None or len(data_type) > _TYPE_CHARACTERS_MAX:
        raise invalid_value(
            f"The message attribute '{name}' has an invalid message attribute type, the set of supported type prefixes "
            "is Binary, Number, and String."
        )
    value = given.binary_value if kind[1] == "Binary" else given.string_value
    if not value:
        raise invalid_value(
            f"The message attribute '{name}' must contain non-empty message attribute value for message attribute "
            f"type '{data_type}'."
        )
    if kind[1] == "String" and NOT_TEXT.search(value):
        raise invalid_value(f"The message attribute '{name}' has characters that are not allowed.")
    if kind[1] == "Number" and not _NUMBER.fullmatch(value):
        raise invalid_value(f"Can't cast the value of message attribute '{name}' to a number.")
    if kind[1] == "Binary":
        try:
            base64.b64decode(value, validate=True)
        except ValueError:
            raise invalid_value(f"The message attribute '{name}' has a binary value that is not base64.") from None
    return Attribute(data_type, value)


def md5_of(attributes: Mapping[str, Attribute]) -> str:
    """The MD5 of attributes, as the SQS Developer Guide defines it."""
    digest = hashlib.md5(usedforsecurity=False)
    for name in sorted(attributes):
        one = attributes[name]
        for part in (name.encode(), one.data_type.encode()):
            digest.update(struct.pack(">I", len(part)) + part)
        digest.update(b"\x02" if one.is_binary else b"\x01")
        digest.update(struct.pack(">I", len(one.content)) + one.content)
    return digest.hexdigest()


def received(metadata: Metadata) -> dict[str, Attribute]:
    """All that was sent beside a message, as attributes; leaves out headers whose names SQS does not allow."""
    sent = [(name.removeprefix(ATTRIBUTE_HEADER), value) for name, value in metadata.headers.items()]
    if metadata.content_type:
        sent.append(("content-type", metadata.content_type))
    shown = {name: Attribute("String", value) for name, value in sent if value and _NAME.fullmatch(name)}
    return {**shown, **metadata.attributes}


def chosen(attributes: Mapping[str, Attribute], names: Iterable[str]) -> dict[str, Attribute]:
    """The attributes with these names; ``All`` and ``.*`` stand for all names, ``foo.*`` for those that begin so."""
    wanted = set(names)
    if wanted & {"All", ".*"}:
        return dict(attributes)
    prefixes = tuple(name.removesuffix(".*") for name in wanted if name.endswith(".*"))
    return {name: one for name, one in attributes.items() if name in wanted or name.startswith(prefixes)}


def as_answer(attributes: Mapping[str, Attribute]) -> dict[str, dict[str, Any]]:
    """Attributes as ReceiveMessage answers them."""
    return {
        name: {"BinaryValue" if one.is_binary else "StringValue": one.value, "DataType": one.data_type}
        for name, one in attributes.items()
    }
