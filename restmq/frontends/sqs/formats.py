"""The two formats of requests and answers: JSON 1.0, and Amazon's query protocol with its XML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol
from xml.sax.saxutils import escape

import msgspec

from restmq.frontends.sqs.attributes import NOT_TEXT
from restmq.frontends.sqs.errors import SqsError, missing
from restmq.frontends.sqs.shapes import Input
from restmq.http.request import Request
from restmq.schema.encoding import to_json

TARGET_HEADER = "x-amz-target"
_TARGET_SERVICE = "AmazonSQS"
#: A batch of 1 MiB is longer in JSON, at most six times as long.
BODY_BYTES_MAX = (6 << 20) + (1 << 17)
#: A longer body may have only so many strings, and so many bytes that are not in strings. Each item of a list or map
#: takes time, so a list of millions would stop the server for seconds; a long message takes none.
_SHORT_BODY_BYTES, _STRINGS_MAX, _STRUCTURE_BYTES_MAX = 1 << 17, 10_000, 1 << 17
#: msgspec's message for a member that is missing or null: the member, or the item that lacks it.
_MISSING = re.compile(r"Object missing required field `(\w+)`(?: - at `\$\.(\S+)`)?|.* got `null` - at `\$\.(\S+)`")
_NAMESPACE = "http://queue.amazonaws.com/doc/2012-11-05/"


class WireFormat(Protocol):
    """How a request is read and an answer is written."""

    content_type: str

    def operation(self, request: Request) -> str:
        """The name of the operation, as the client wrote it."""

    def read(self, request: Request, shape: type[Input]) -> Input:
        """The operation's input. Raises SqsError."""

    def render(self, operation: str, result: Mapping[str, Any], request_id: str) -> bytes:
        """The body of an answer."""

    def render_error(self, error: SqsError, request_id: str) -> tuple[bytes, str]:
        """The body of an error's answer, and more header lines."""


def _malformed(problem: object) -> SqsError:
    found = _MISSING.fullmatch(str(problem))
    if found:
        return missing(".".join(filter(None, (found[2], found[1] or found[3]))))
    return SqsError("MalformedInput", f"The request is malformed: {problem}.")


class JsonFormat:
    """``POST`` with ``X-Amz-Target: AmazonSQS.<operation>``."""

    content_type = "application/x-amz-json-1.0"

    def operation(self, request: Request) -> str:
        prefix, _, name = str(request.headers[TARGET_HEADER]).rpartition(".")
        return name if prefix == _TARGET_SERVICE else ""

    def read(self, request: Request, shape: type[Input]) -> Input:
        if len(request.body) > BODY_BYTES_MAX:
            raise SqsError("MalformedInput", f"The request is longer than {BODY_BYTES_MAX} bytes.", 413)
        if len(request.body) > _SHORT_BODY_BYTES:
            _check_structure(request.body)
        try:
            return msgspec.json.decode(request.body or b"{}", type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            raise _malformed(problem) from None

    def render(self, operation: str, result: Mapping[str, Any], request_id: str) -> bytes:
        return to_json(result)

    def render_error(self, error: SqsError, request_id: str) -> tuple[bytes, str]:
        body = to_json({"__type": error.json_type, "message": str(error)})
        return body, f"x-amzn-query-error: {error.code};{_fault(error)}\r\n"


def _check_structure(body: bytes) -> None:
    """Raises SqsError for a long body that has more than long strings."""
    parts = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', 2 * _STRINGS_MAX)
    if len(parts) > 2 * _STRINGS_MAX or sum(map(len, parts[::2])) > _STRUCTURE_BYTES_MAX:
        raise SqsError("MalformedInput", "The request has too many members.", 413)


def _fault(error: SqsError) -> str:
    return "Sender" if error.is_senders else "Receiver"


# The query protocol: lists and maps are flattened into numbered fields, such as Attribute.1.Name

#: Lists by the name of their fields.
_LISTS = {
    "AttributeName": "AttributeNames",
    "ChangeMessageVisibilityBatchRequestEntry": "Entries",
    "DeleteMessageBatchRequestEntry": "Entries",
    "MessageAttributeName": "MessageAttributeNames",
    "MessageSystemAttributeName": "MessageSystemAttributeNames",
    "SendMessageBatchRequestEntry": "Entries",
    "TagKey": "TagKeys",
}
#: Maps by the name of their fields: the member, and the fields of a key and its value.
_MAPS = {
    "Attribute": ("Attributes", "Name", "Value"),
    "MessageAttribute": ("MessageAttributes", "Name", "Value"),
    "MessageSystemAttribute": ("MessageSystemAttributes", "Name", "Value"),
    "Tag": ("Tags", "Key", "Value"),
}
_DEPTH_MAX = 8
_Tree = dict[str, Any]

#: The elements of lists in answers: by member, or by operation and member.
_ELEMENTS = {
    "QueueUrls": "QueueUrl",
    "queueUrls": "QueueUrl",
    "Messages": "Message",
    "Failed": "BatchResultErrorEntry",
    "Results": "ListMessageMoveTasksResultEntry",
}
_MAP_ELEMENTS = {member: (element, key, value) for element, (member, key, value) in _MAPS.items()}


class QueryFormat:
    """A form, or a query, with ``Action``, and ``Version=2012-11-05`` or none."""

    content_type = "text/xml"

    def operation(self, request: Request) -> str:
        return _text(request.arguments["Action"][-1]) if "Action" in request.arguments else ""

    def read(self, request: Request, shape: type[Input]) -> Input:
        tree: _Tree = {}
        for name, values in request.arguments.items():
            _plant(tree, name, _text(values[-1]))
        given = _members(tree)
        if "tags" in shape.__struct_encode_fields__ and "Tags" in given:
            given["tags"] = given.pop("Tags")
        account, _, queue = request.path.strip("/").partition("/")
        if queue and account.isalnum() and "QueueUrl" not in given:
            given["QueueUrl"] = request.path
        try:
            return msgspec.convert(given, shape, strict=False)
        except msgspec.ValidationError as problem:
            raise _malformed(problem) from None

    def render(self, operation: str, result: Mapping[str, Any], request_id: str) -> bytes:
        shown = f"<{operation}Result>{_xml(result, operation)}</{operation}Result>" if result else ""
        return (
            f'<?xml version="1.0"?><{operation}Response xmlns="{_NAMESPACE}">{shown}'
            f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation}Response>"
        ).encode()

    def render_error(self, error: SqsError, request_id: str) -> tuple[bytes, str]:
        shown = _xml({"Type": _fault(error), "Code": error.code, "Message": str(error)}, "")
        return (
            f'<?xml version="1.0"?><ErrorResponse xmlns="{_NAMESPACE}"><Error>{shown}<Detail/></Error>'
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        ).encode(), ""


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _malformed("a field is not valid UTF-8") from None


def _plant(tree: _Tree, name: str, value: str) -> None:
    """Puts a field such as ``Tag.1.Key`` into a tree of dictionaries."""
    *path, last = name.split(".", _DEPTH_MAX)
    for step in path:
        branch = tree.setdefault(step, {})
        if not isinstance(branch, dict):
            raise _malformed(f"the field {name} does not fit to the others")
        tree = branch
    tree[last] = value


def _members(tree: _Tree) -> _Tree:
    """The members in a tree: numbered fields become lists and maps."""
    members: _Tree = {}
    for name, branch in tree.items():
        if name in _LISTS:
            members[_LISTS[name]] = [_value(item) for item in _in_order(branch)]
        elif name in _MAPS:
            member, key, value = _MAPS[name]
            members[member] = dict(_pair(item, key, value) for item in _in_order(branch))
        else:
            members[name] = _value(branch)
    return members


def _value(branch: Any) -> Any:
    return _members(branch) if isinstance(branch, dict) else branch


def _pair(item: Any, key: str, value: str) -> tuple[str, Any]:
    """The name and the value of an item of a map. Raises SqsError if it has no name."""
    if not isinstance(item, dict) or not isinstance(item.get(key), str):
        raise _malformed(f"an item of a map lacks its {key}")
    return item[key], _value(item.get(value, ""))


def _in_order(branch: Any) -> list[Any]:
    """The items of numbered fields. A single item may lack its number."""
    if not isinstance(branch, dict) or not all(number.isdecimal() and len(number) < _DEPTH_MAX for number in branch):
        return [branch]
    return [branch[number] for number in sorted(branch, key=int)]


def _xml(members: Mapping[str, Any], operation: str) -> str:
    return "".join(_element(name, value, operation) for name, value in members.items())


def _element(name: str, value: Any, operation: str) -> str:
    if isinstance(value, list):
        element = f"{operation}ResultEntry" if name == "Successful" else _ELEMENTS[name]
        return "".join(_element(element, item, operation) for item in value)
    if name in _MAP_ELEMENTS:
        element, key, inner = _MAP_ELEMENTS[name]
        return "".join(_element(element, {key: one, inner: value[one]}, operation) for one in value)
    if isinstance(value, dict):
        return f"<{name}>{_xml(value, operation)}</{name}>"
    if isinstance(value, bool):
        value = str(value).lower()
    return f"<{name}>{_escaped(str(value))}</{name}>"


def _escaped(text: str) -> str:
    """Text in XML. What XML cannot contain becomes U+FFFD."""
    return escape(NOT_TEXT.sub("\ufffd", text), {"\r": "&#13;"})


JSON_FORMAT, QUERY_FORMAT = JsonFormat(), QueryFormat()
